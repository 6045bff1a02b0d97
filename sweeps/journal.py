"""The journal: the truth about a sweep, one JSON object per line, appended and fsynced before anything relies on it.

Every line is ``{"v": 1, "seq": n, "at": UTC time, "event": NAME, …, "crc": n}``, the sum being that of the line without
it; the events are listed in :mod:`sweeps.history`.
A line is folded into ``Journal.history`` from the text that was written, so memory and file cannot disagree. A torn
last line (the writer was killed in the middle) is dropped; anything else that is wrong is refused with its line number.
"""

from __future__ import annotations

import json
import os
import re
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NoReturn, Protocol, Self

from repsim.errors import Mistake, RequestError, one_line
from repsim.records import EpochResult, Status, TrialResult
from sweeps.durable import write_atomically
from sweeps.history import History, JournalError
from sweeps.lease import Lease, LeaseLost
from sweeps.trial import Trial

__all__ = ["History", "Journal", "JournalError", "LeaseLost", "read_history"]

VERSION = 1
EPOCHS_EVERY = 0.05
"""Seconds within which several epochs share an fsync."""
_SUM = re.compile(rb',"crc":(\d+)}$')


class Fence(Protocol):
    """Knows whether another launch has taken the sweep over."""

    @property
    def lost(self) -> bool:
        """Whether one was seen; it stays true."""

    def check(self) -> None:
        """Raises LeaseLost when one has."""


class Journal:
    """The one writer of a journal. Holds the run folder's lease until ``close``; use as a context manager.

    Every method below appends one line, fsyncs it, and folds it into ``history``. They raise JournalError for an event
    that cannot come next, ValueError for NaN or infinity, LeaseLost when another launch has taken the sweep over,
    OSError when the disk refuses (the file is then cut back to its last whole line); nothing has changed in any case.

    ``held``: nobody acts on the line before the next one is there (a proposal, before its start), so it is folded in at
    once and written with that one, under one fsync. A crash in between loses both.

    An epoch is written at once, but not fsynced so shortly after another line was (``EPOCHS_EVERY``): the next line's
    fsync covers it. Until then a power failure, and nothing less, loses it, with all that came after; its trial goes on
    from its checkpoint and tells it again. With many trials at a time this spares most fsyncs.
    """

    def __init__(self, path: Path, lease: Lease, history: History, file: BinaryIO) -> None:
        self.path = path
        self.history = history
        self._lease = lease
        self._fences: list[Fence] = [lease]
        self._file = file
        self._held = b""  # folded in, not written
        self._unsynced = b""  # written, not fsynced
        self._end = self._whole = file.tell()  # of what is fsynced, and of what is written
        self._synced_at = time.monotonic()

    @classmethod
    def create(cls, path: Path, header: Mapping[str, object]) -> Self:
        """Start a journal with its header.

        RequestError when there is one already or another launch holds the folder; TypeError or ValueError when the
        header is not JSON, OSError when the disk is full: no file is left then.
        """
        if path.exists():
            _refuse(path, "", "exists already")
        content = first_line(header)
        if not path.parent.is_dir():
            _refuse(path, "", "cannot be written: there is no such folder")
        write_atomically(path, content)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path, *, say: Callable[[str], None] | None = None) -> Self:
        """Continue a journal: read it, cut off a torn last line, append from there.

        RequestError when it cannot be read or is corrupt, or when another driver is at work; ``say`` hears of a wait
        for a driver on another host that may be dead.
        """
        lease = Lease.take(path.parent, say=say)
        try:
            history, length = _read(path)
            if lease.taken_over:
                # A driver that only slept may wake in the middle of a write: that goes to the file replaced here.
                lease.check()
                write_atomically(path, path.read_bytes()[:length])
            file = path.open("r+b", buffering=0)
            file.truncate(length)
            file.seek(length)
            os.fsync(file.fileno())
        except (RequestError, LeaseLost):
            lease.release()
            raise
        except OSError as error:
            lease.release()
            _refuse(path, "", f"cannot be written: {error.strerror}")
        return cls(path, lease, history, file)

    @property
    def is_lost(self) -> bool:
        """Whether another launch has taken the sweep over."""
        return any(fence.lost for fence in self._fences)

    def fenced_by(self, fence: Fence) -> None:
        """Ask this one as well, before every line, whether the sweep is still ours."""
        self._fences.append(fence)

    def proposed(self, trial: Trial, *, held: bool = False) -> None:
        """A trial exists; written before anything else hears of it."""
        self._append("proposed", held, trial=trial.to_dict())

    def started(self, trial_id: str, attempt: int) -> None:
        """Attempt 1, 2, … of a trial begins."""
        self._append("started", trial_id=trial_id, attempt=attempt)

    def epoch(self, trial_id: str, attempt: int, result: EpochResult, *, held: bool = False) -> None:
        """An epoch of the current attempt is done; it replaces that epoch, and later ones, of earlier attempts."""
        lately = time.monotonic() - self._synced_at < EPOCHS_EVERY
        self._append("epoch", held, sync=not lately, trial_id=trial_id, attempt=attempt, result=result.to_dict())

    def waiting(self, trial_id: str, reason: str, *, died: bool = False) -> None:
        """The trial stopped running and will be started again; ``died`` when its process ended or hung."""
        self._append("waiting", trial_id=trial_id, reason=reason, died=died)

    def ended(
        self,
        trial_id: str,
        attempt: int,
        status: Status,
        *,
        reason: str = "",
        feasible: bool | None = None,
        result: TrialResult | None = None,
    ) -> None:
        """The trial is completed (with its result), pruned or failed, for good."""
        self._append(
            "ended",
            trial_id=trial_id,
            attempt=attempt,
            status=status.value,
            reason=reason,
            feasible=feasible,
            result=None if result is None else result.to_dict(),
        )

    def reference(self, data: str, values: Mapping[str, float]) -> None:
        """The hypervolume's reference point of a data set is fixed."""
        self._append("reference", data=data, values=dict(values))

    def resumed(self) -> None:
        """A driver took the sweep up again."""
        self._append("resumed")

    def finished(self) -> None:
        """The sweep is over."""
        self._append("finished")

    def close(self) -> None:
        """Give the file and the lease back; calling it again does nothing."""
        self._file.close()
        self._lease.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, event: str, held: bool = False, *, sync: bool = True, **fields: object) -> None:
        text = _encoded(self.history.length, event, fields)
        fold = self.history.prepare(json.loads(text), str(self.path))
        for fence in self._fences:
            fence.check()
        if held:
            self._held += text
        else:
            self._write(self._held + text, sync)
            self._held = b""
        fold()

    def _write(self, lines: bytes, sync: bool) -> None:
        try:
            _write_all(self._file, lines)
            if sync:
                os.fsync(self._file.fileno())
        except OSError:
            # whether the lines before these are on the disk is not known either: they are written again with the next
            self._held, self._unsynced = self._unsynced + self._held, b""
            self._file.seek(self._end)  # what cannot be cut off is written over
            with suppress(OSError):
                self._file.truncate(self._whole)
            raise
        self._whole = self._file.tell()
        if sync:
            self._unsynced, self._end, self._synced_at = b"", self._whole, time.monotonic()
        else:
            self._unsynced += lines


def first_line(header: Mapping[str, object]) -> bytes:
    """The header's line, with which a journal begins; TypeError or ValueError when the header is not JSON."""
    return _encoded(0, "sweep", {"header": dict(header)})


def _encoded(number: int, event: str, fields: Mapping[str, object]) -> bytes:
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"v": VERSION, "seq": number, "at": at, "event": event, **fields}
    text = json.dumps(line, allow_nan=False, separators=(",", ":")).encode()
    return text[:-1] + b',"crc":%d}\n' % zlib.crc32(text)


def read_history(path: Path) -> History:
    """Fold a journal without locking or changing it, a live one included; a torn last line is ignored.

    RequestError, with file and line, when it is missing, corrupt, of an unknown version, or without its header.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[History, int]:
    """The history, and how many bytes of the file are whole lines."""
    try:
        content = path.read_bytes()
    except OSError as error:
        _refuse(path, "", f"cannot be read: {error.strerror}")
    length = content.rfind(b"\n") + 1
    history = History()
    for number, raw in enumerate(content[:length].split(b"\n")[:-1], start=1):
        key = f"line {number}"
        try:
            line = json.loads(raw.decode(), parse_constant=_no_constant)
            if not isinstance(line, dict):
                raise TypeError("is not an object")
            if line["v"] != VERSION:
                _refuse(path, key, f"version {one_line(line['v'])} is not known to this release", str(VERSION))
            fold = history.prepare(line, f"{path}: {key}")
            _check_sum(raw)
            fold()
        except (JournalError, ValueError, TypeError, KeyError, RecursionError) as error:
            problem = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            _refuse(path, key, f"is corrupt: {problem}")
    if history.header is None:
        _refuse(path, "", "holds no header, so nothing was started: delete the folder and launch again")
    return history, length


def _check_sum(raw: bytes) -> None:
    """ValueError when a line is not the one that was written; lines of earlier releases hold no sum."""
    found = _SUM.search(raw)
    if found is not None and zlib.crc32(raw[: found.start()] + b"}") != int(found[1]):
        raise ValueError("the line is not what was written (its checksum differs)")


def _refuse(path: Path, key: str, problem: str, allowed: str = "") -> NoReturn:
    raise RequestError(Mistake(where=str(path), key=key, problem=problem, allowed=allowed)) from None


def _write_all(file: BinaryIO, content: bytes) -> None:
    while content:
        content = content[file.write(content) :]


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")
