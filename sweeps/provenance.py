"""Where numbers came from: the code, the versions and the kind of machine. Imports nothing it reports on."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES: tuple[str, ...] = (
    "repsim-sweeps",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scipy",
    "scikit-learn",
    "pillow",
    "pydantic",
    "ray",
    "optuna",
    "mlflow",
    "pandas",
    "pyarrow",
)
"""Distributions whose version can change a number or the record of it."""

_CODE = ("repsim", "sweeps", "reports")
_GIT_SECONDS = 10.0


def provenance() -> dict[str, object]:
    """What the numbers of this process rest on, JSON-able.

    ``git_commit`` (40 hexadecimal digits) and ``git_dirty`` (whether the packages' files differ from it) are None
    outside a checkout or without git; ``versions`` maps ``python`` and each installed distribution to its version;
    ``platform`` names the operating system and processor; ``cpu_count`` is what this process may use; ``host`` is a
    short hash that tells machines apart without naming them. Holds no paths.
    """
    commit, dirty = git_state(Path(__file__).resolve().parent.parent)
    return {
        "git_commit": commit,
        "git_dirty": dirty,
        "versions": {"python": platform.python_version(), **installed_versions()},
        "platform": platform.platform(terse=False),
        "cpu_count": _cpu_count(),
        "host": hashlib.sha256(platform.node().encode("utf-8", "replace")).hexdigest()[:12],
    }


def installed_versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Version by distribution name; what is not installed is left out."""
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_state(root: Path) -> tuple[str | None, bool | None]:
    """Commit and dirty flag of the checkout that holds this project at ``root``; (None, None) when there is none.

    An installation inside somebody else's repository does not count: the project's own files must be tracked.
    """
    tracked = _git(root, "ls-files", "--error-unmatch", "--", "sweeps/provenance.py")
    commit = None if tracked is None else _git(root, "rev-parse", "HEAD")
    if commit is None:
        return None, None
    changes = _git(root, "status", "--porcelain", "--", *_CODE)
    return commit.strip(), None if changes is None else changes.strip() != ""


def _git(root: Path, *arguments: str) -> str | None:
    # inside a git hook these point at another repository
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *arguments],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _cpu_count() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
