"""Folders and storage: can they be written, is there room, do all machines mean the same place."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import uuid
from pathlib import Path

from sweeps.doctor_checks.findings import Finding, bad, doubt, good, size_text
from sweeps.doctor_checks.machine import write_problem

_SPARE = 2.0
"""So much more than the estimate is no worry."""
_SCARCE_BYTES = 2_000_000_000
"""Free space that is worth a word where no space file says what is needed."""
_SCARCE_FILES = 2_000
_REMOTE = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "9p", "fuse.sshfs")


def folder(name: str, path: Path, needed: int | None, advice: str) -> list[Finding]:
    """Whether ``path``, which may not exist yet, can be written and holds ``needed`` bytes (None: nobody said)."""
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    if not there.is_dir():
        return [bad(name, f"{there} is a file, not a folder", advice)]
    problem = write_problem(there)
    if problem is not None:
        return [bad(name, f"{there} {problem}", advice)]
    kind = filesystem(there)
    remote = kind is not None and kind.startswith(_REMOTE)
    where = f"{path}{f' on {kind}' if remote else ''}"
    found = [_room(name, where, there, needed, advice)]
    if remote and not _locks(there):
        lost = "two drivers cannot keep each other out by file locks there (lease.json still does, within 30 s)"
        found.append(doubt(name, f"{where} knows no file locks: {lost}", "mount it with locks, or resume by hand only"))
    return found


def _room(name: str, where: str, there: Path, needed: int | None, advice: str) -> Finding:
    status, free = os.statvfs(there), shutil.disk_usage(there).free
    if status.f_files > 0 and status.f_favail < _SCARCE_FILES:
        return bad(name, f"{where}: only {status.f_favail} more files can be made", f"remove files, or {advice}")
    said = f"{where}: {size_text(free)} are free"
    if needed is None:
        if free < _SCARCE_BYTES:
            return doubt(name, said, f"--space FILE says what a sweep needs; {advice}")
        return good(name, said)
    said += f", a sweep takes about {size_text(needed)}"
    if free < needed:
        return bad(name, said, f"free some space, or {advice}")
    return doubt(name, said, advice) if free < _SPARE * needed else good(name, said)


def filesystem(path: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """The kind of file system a path lies on; None where the system does not say."""
    try:
        lines = [line.split() for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return None
    real = path.resolve()
    # mount points are escaped in octal; later lines lie over earlier ones
    points = [(point.encode().decode("unicode_escape"), kind) for _, point, kind, *_ in lines]
    fitting = [(len(point), number, kind) for number, (point, kind) in enumerate(points) if real.is_relative_to(point)]
    return max(fitting)[2] if fitting else None


def _locks(there: Path) -> bool:
    with tempfile.NamedTemporaryFile(prefix=".doctor-", dir=there) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def same_folder(path: Path, mark: str) -> Finding:
    """Whether this machine sees the file ``mark`` that the driver wrote into ``path``, and can write beside it."""
    name = "run folder"
    if not (path / mark).is_file():
        return bad(name, f"{path} there is not the driver's", "launch in a folder that all nodes share, under one path")
    problem = write_problem(path)
    if problem is not None:
        return bad(name, f"{path} {problem}", "let the user that Ray runs as write there")
    return good(name, f"{path} is the driver's")


def storage(uri: str) -> Finding:
    """Write, read and remove a small object below ``uri``, any that fsspec knows."""
    import fsspec

    name, text = "storage", uuid.uuid4().hex.encode()
    scheme = uri.partition("://")[0]
    try:
        system, root = fsspec.core.url_to_fs(uri)
    except ImportError as error:
        return bad(name, f"{uri}: {error}", f"install on every node what fsspec needs for {scheme}://")
    except ValueError as error:
        return bad(name, f"{uri}: {error}", "s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, or a folder that all nodes see")
    if "file" in system.protocol:  # a folder is made when it is needed; a bucket is not ours to make
        root = str(next(parent for parent in (Path(root), *Path(root).parents) if parent.exists()))
    path = f"{root.rstrip('/')}/.doctor-{text.decode()[:12]}"
    try:
        system.pipe_file(path, text)
        read = system.cat_file(path)
        system.rm_file(path)
    # each backend has exceptions of its own, which share no base
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        return bad(name, f"{uri} cannot be used: {type(error).__name__}: {said}", "check its name and the credentials")
    if read != text:
        return bad(name, f"{uri} gives back something else than was written", "use another storage")
    return good(name, f"{uri} can be written, read and cleaned")
