"""Files that are whole, old or new, whatever is killed and whenever."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomically(path: Path, content: bytes, *, name_survives: bool = True) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part. OSError as usual.

    Without ``name_survives`` a power failure may bring the old one back, and one fsync of two is saved.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)  # less the umask: others may read it
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if name_survives:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names created or renamed in ``folder`` survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
