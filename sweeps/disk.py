"""A full disk pauses a sweep; it does not end it."""

from __future__ import annotations

import errno
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from repsim.errors import Mistake, RequestError

_PAUSE_SECONDS = 1.0
_REFUSED_SECONDS = 30.0
_ANSWERS = frozenset({errno.ENOSPC, errno.EDQUOT})
T = TypeVar("T")


def check_room(folder: Path, needed: int) -> None:
    """RequestError when fewer than ``needed`` bytes are free where ``folder`` is, or will be."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        problem = f"the sweep needs about {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are free"
        raise RequestError(Mistake(where=str(folder), key="", problem=problem))


def is_full(error: OSError) -> bool:
    """Whether an error means that a disk, or a quota, is full."""
    return error.errno in _ANSWERS


class Disk:
    """The disk that a sweep writes to. ``say`` is told, once each time, that the sweep pauses and that it goes on.

    ``reserve`` bytes must be free for a new trial to begin; ``check`` is called while waiting and may raise.
    """

    def __init__(self, folder: Path, reserve: int, say: Callable[[str], None], check: Callable[[], None]) -> None:
        self._folder, self._reserve, self._say, self._check = folder, reserve, say, check
        self._refused_until = -math.inf
        self._paused: Literal["no room", "no write"] | None = None

    @property
    def has_room(self) -> bool:
        """Whether a new trial may begin; says so when the answer changes."""
        if time.monotonic() < self._refused_until:
            return False
        free = shutil.disk_usage(self._folder).free
        if free < self._reserve:
            self._pause("no room", f"{free / 1e6:.1f} MB are free, a trial needs {self._reserve / 1e6:.1f} MB")
            return False
        self._resume()
        return True

    def refuse(self, why: str) -> None:
        """A trial found no space, here or elsewhere (its cache, a quota): no new one begins for half a minute."""
        self._refused_until = time.monotonic() + _REFUSED_SECONDS
        self._pause("no room", why)

    def durably(self, write: Callable[[], T]) -> T:
        """What ``write`` returns; tried again for as long as the disk is full. Any other OSError is raised."""
        while True:
            try:
                written = write()
            except OSError as error:
                if not is_full(error):
                    raise
                self._pause("no write", "nothing can be written")
            else:
                if self._paused == "no write":  # a small write that goes through is not room for a trial
                    self._resume()
                return written
            self._check()
            time.sleep(_PAUSE_SECONDS)

    def _pause(self, state: Literal["no room", "no write"], why: str) -> None:
        if self._paused is None:
            self._paused = state
            self._say(f"paused: the disk of {self._folder} is full ({why}); free some space and the sweep goes on")

    def _resume(self) -> None:
        if self._paused is not None:
            self._paused = None
            self._say("there is space again: the sweep goes on")
