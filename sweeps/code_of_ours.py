"""The code that a trial runs: which files it is, its fingerprint, and a copy of it to send to other machines."""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
from pathlib import Path

PACKAGES = ("repsim", "sweeps", "search_spaces")
"""What a trial's process imports, and what those read."""
_SUFFIXES = frozenset((".py", ".yaml", ".json", ".typed"))
_DEPENDENCIES = ("torch", "timm", "numpy", "scipy", "scikit-learn", "pillow", "pydantic", "safetensors", "pyarrow")
"""What a trial's numbers depend on."""


def root() -> Path:
    """The folder that the packages lie in."""
    return Path(__file__).resolve().parents[1]


def fingerprint() -> str:
    """Sixteen hexadecimal digits of the code, by name and content."""
    digest = hashlib.sha256()
    for path in _files():
        digest.update(f"{path.relative_to(root()).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """The installed versions that results depend on; a build's label (``+cpu``) is left out, an absent one is empty."""
    found = {}
    for name in _DEPENDENCIES:
        try:
            found[name] = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found


def copy_to(folder: Path) -> None:
    """A copy of the code; the same bytes under the same names wherever it is made from."""
    for path in _files():
        target = folder / path.relative_to(root())
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _files() -> list[Path]:
    found = [path for package in PACKAGES for path in (root() / package).rglob("*") if path.suffix in _SUFFIXES]
    return sorted(path for path in found if path.is_file())
