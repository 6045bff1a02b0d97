"""Whether what a sweep needs is installed, and whether all machines have the same of it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

from packaging.requirements import Requirement

from sweeps.doctor_checks.findings import Finding, bad, doubt, good
from sweeps.provenance import installed_versions

PROJECT = "repsim-sweeps"
CODE = "the code"
"""Key of :func:`stock` for the project's own files."""
MUST_AGREE = ("python", CODE, "torch", "timm", "numpy", "ray")
"""What a trial's process and the driver have to have in common."""
_SHOWN = ("torch", "timm", "ray", "optuna", "mlflow")
_INSTALL = "pip install -c constraints.txt -e ."
_ROOT = Path(__file__).resolve().parents[2]


def stock() -> dict[str, str]:
    """Versions by name, Python's included, and a digest of the project's own files in place of its version."""
    installed = {name: version for name, version in installed_versions().items() if name != PROJECT}
    return {"python": platform.python_version(), CODE: code_digest(_ROOT), **installed}


def code_digest(root: Path) -> str:
    """Twelve hexadecimal digits of what ``repsim`` and ``sweeps`` below ``root`` say."""
    digest = hashlib.sha256()
    for path in sorted(path for package in ("repsim", "sweeps") for path in (root / package).rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def requirements() -> Finding:
    """Everything that this project declares is there, within its range."""
    name = "packages"
    try:
        declared = [Requirement(text) for text in importlib.metadata.requires(PROJECT) or []]
    except importlib.metadata.PackageNotFoundError:
        return bad(name, f"{PROJECT} is not installed in {sys.executable}", _INSTALL)
    wrong = []
    for one in declared:
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(one.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{one.name} is missing")
            continue
        if not one.specifier.contains(version, prereleases=True):
            wrong.append(f"{one.name} is {version}, not {one.specifier}")
    if wrong:
        return bad(name, ", ".join(wrong), _INSTALL)
    found = stock()
    return good(name, f"Python {found['python']}, " + ", ".join(f"{one} {found[one]}" for one in _SHOWN))


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[Finding]:
    """What another machine has otherwise than this one; empty when nothing differs."""
    names = [name for name in dict.fromkeys((*here, *there)) if here.get(name) != there.get(name)]
    found = []
    for name in names:
        said = f"{there.get(name, 'missing')} there, {here.get(name, 'missing')} here"
        advice = "no other code on its PYTHONPATH" if name == CODE else "install there what constraints.txt says"
        found.append((bad if name in MUST_AGREE else doubt)(f"version of {name}", said, advice))
    return found
