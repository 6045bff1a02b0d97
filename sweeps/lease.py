"""One driver per sweep: a kernel lock, and a lease for hosts that share the folder but not the lock.

The kernel frees ``lock`` when its holder dies, however it dies, so on one host it alone decides. Hosts may share a
folder over a network without sharing locks: the holder therefore keeps ``lease.json`` (``host``, ``pid``, ``boot``,
``nonce``, ``beats``) and counts ``beats`` up. A contender on another host watches them, because clocks of hosts differ:
beats that stand still for LEASE_SECONDS are those of a dead holder. Should that holder only have slept, it finds
another's nonce in the file: its lease is lost, and it writes nothing any more.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn, Self

from filelock import FileLock, Timeout

from repsim.errors import Mistake, RequestError
from sweeps.durable import write_atomically

LOCK_NAME = "lock"
LEASE_NAME = "lease.json"
BEAT_SECONDS = 10.0
"""How often the holder shows that it is alive."""
LEASE_SECONDS = 30.0
"""How long the beats of a holder on another host must stand still before it counts as dead."""
POLL_SECONDS = 1.0
SETTLE_SECONDS = 1.0
"""After taking over from another host: time in which a second contender's claim would show."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class LeaseLost(RuntimeError):  # noqa: N818 (it names what happened)
    """Another launch has taken the sweep over; this one must write nothing any more."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds, or held, a sweep. ``boot`` is empty where the system does not number its boots."""

    host: str
    pid: int
    boot: str
    nonce: str
    beats: int = 0

    @classmethod
    def here(cls) -> Self:
        """This process, with a nonce of its own."""
        try:
            boot = _BOOT_ID.read_text(encoding="ascii").strip()
        except OSError:
            boot = ""
        return cls(host=socket.gethostname(), pid=os.getpid(), boot=boot, nonce=secrets.token_hex(16))

    def to_bytes(self, beats: int) -> bytes:
        """The lease file. Its length does not depend on ``beats``, and half-written digits are digits still."""
        fields = {"host": self.host, "pid": self.pid, "boot": self.boot, "nonce": self.nonce, "beats": f"{beats:012d}"}
        return json.dumps(fields).encode() + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes) -> Self | None:
        """Read back what ``to_bytes`` wrote; None for anything else."""
        try:
            fields = json.loads(content.decode())
            return cls(
                host=str(fields["host"]),
                pid=int(fields["pid"]),
                boot=str(fields["boot"]),
                nonce=str(fields["nonce"]),
                beats=int(fields["beats"]),
            )
        except (ValueError, TypeError, KeyError, OverflowError):
            return None

    def shares_lock_with(self, other: Holder) -> bool:
        """Whether the kernel lock is enough between the two: the same boot of one machine, or another boot of it."""
        return self.host == other.host or (self.boot == other.boot != "")


class Lease:
    """A sweep's folder, held by this process from ``take`` to ``release``; use as a context manager."""

    def __init__(self, folder: Path, lock: FileLock, me: Holder, file: BinaryIO, *, taken_over: bool) -> None:
        self.taken_over = taken_over
        """Whether the holder before was on another host and was given up, not seen to end."""
        self._path = folder / LEASE_NAME
        self._lock, self._me, self._file = lock, me, file
        self._lost = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    @classmethod
    def take(cls, folder: Path, *, say: Callable[[str], None] | None = None) -> Self:
        """Hold ``folder``, at once or, when a holder on another host may live, after watching it for LEASE_SECONDS.

        ``say`` hears of the wait. RequestError when another launch is at work, or the folder cannot be written.
        """
        lock = _locked(folder)
        try:
            for torn in folder.glob(f".{LEASE_NAME}.*"):  # what killed holders had begun
                torn.unlink(missing_ok=True)
            me, left = Holder.here(), _read(folder)
            unseen = left is not None and not left.shares_lock_with(me)
            if left is not None and unseen:
                _watch(folder, left, say)
            file = _claim(folder, me, SETTLE_SECONDS if unseen else 0.0)
        except OSError as error:
            lock.release()
            _refuse(folder, f"cannot be written: {error.strerror}")
        except BaseException:
            lock.release()
            raise
        return cls(folder, lock, me, file, taken_over=unseen)

    @property
    def lost(self) -> bool:
        """Whether another launch was seen to have taken over; it stays true."""
        return self._lost

    def check(self) -> None:
        """Raises LeaseLost unless the lease file, read now, is this process's; OSError when it cannot be read."""
        now = self._look()
        if self._lost:
            who = "its lease.json was removed" if now is None else f"host {now.host}, pid {now.pid} has taken it over"
            raise LeaseLost(f"{self._path.parent}: this launch does not hold the sweep any more: {who}")

    def release(self) -> None:
        """Give the folder back; calling it again does nothing."""
        if self._file.closed:
            return
        self._over.set()
        self._thread.join()
        self._file.close()
        with suppress(OSError):  # the server is away: the file left behind says no more than a killed holder's
            self._look()
            if not self._lost:
                self._path.unlink()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _look(self) -> Holder | None:
        now = _read(self._path.parent)
        if now is None or now.nonce != self._me.nonce:
            self._lost = True
        return now

    def _renew(self) -> None:
        beats = 0
        while not self._over.wait(BEAT_SECONDS):
            beats += 1
            with suppress(OSError):  # the disk is full or the server away: the next beat may get through
                self._look()
                if self._lost:
                    return
                # In place: should another take over just now, this goes to the file that it has replaced.
                self._file.seek(0)
                self._file.write(self._me.to_bytes(beats))
                os.fsync(self._file.fileno())


def _locked(folder: Path) -> FileLock:
    if not folder.is_dir():  # filelock would make it
        _refuse(folder, "cannot be written: there is no such folder")
    lock = FileLock(folder / LOCK_NAME, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _refuse_living(folder)
    except OSError as error:
        _refuse(folder, f"cannot be written: {error.strerror}")
    return lock


def _read(folder: Path) -> Holder | None:
    """The lease; None when there is none, or something that is not one. OSError when the file cannot be read."""
    try:
        return Holder.from_bytes((folder / LEASE_NAME).read_bytes())
    except FileNotFoundError:
        return None


def _watch(folder: Path, left: Holder, say: Callable[[str], None] | None) -> None:
    """Return when ``left`` shows no sign of life for LEASE_SECONDS or gives its lease back; RequestError else."""
    if say is not None:
        say(f"waiting up to {LEASE_SECONDS:.0f} s to see whether {left.host} is still at work on this sweep")
    end = time.monotonic() + LEASE_SECONDS
    while time.monotonic() < end:
        time.sleep(POLL_SECONDS)
        now = _read(folder)
        if now is None:
            return
        if now != left:
            _refuse_living(folder)


def _claim(folder: Path, me: Holder, settle: float) -> BinaryIO:
    """Put ``me`` into the lease file and return it, open; RequestError when another claim came after this one."""
    path = folder / LEASE_NAME
    write_atomically(path, me.to_bytes(0))
    time.sleep(settle)
    file = path.open("r+b", buffering=0)
    now = Holder.from_bytes(file.read())
    if now is None or now.nonce != me.nonce:
        file.close()
        _refuse_living(folder)
    return file


def _refuse_living(folder: Path) -> NoReturn:
    """Refuse, and say who is at work as far as the lease file tells."""
    holder, age = None, 0.0
    with suppress(OSError):  # it is refused in any case
        holder = _read(folder)
        age = max(0.0, time.time() - (folder / LEASE_NAME).stat().st_mtime)
    problem = "another launch is at work on this sweep"
    if holder is None:
        _refuse(folder, f"{problem}; wait for it to end, or stop it first")
    who = f"host {holder.host}, pid {holder.pid}, last sign of life {age:.0f} s ago"
    _refuse(folder, f"{problem}: {who}; wait for it to end, or stop it there with: kill {holder.pid}")


def _refuse(folder: Path, problem: str) -> NoReturn:
    raise RequestError(Mistake(where=str(folder), key="", problem=problem)) from None
