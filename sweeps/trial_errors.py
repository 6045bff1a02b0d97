"""How a trial's error is told: whose fault it was, and the one line that people read."""

from __future__ import annotations

import errno
import re
import traceback
from pathlib import Path

from sweeps.disk import is_full

_ALLOCATION = "can't allocate memory"  # torch's CPU allocator raises a plain RuntimeError
_NUMPYS_FULL_DISK = re.compile(r"^\d+ requested and \d+ written$")  # an OSError without a number


class TrialFailed(Exception):  # noqa: N818 - the words a person reads in Ray's own logs
    """A trial's own error; its message is the reason people read."""


class TrialNotBegun(TrialFailed):
    """Not an error at all: the trial is to run elsewhere."""


class TrialOutOfMemory(TrialFailed):
    """The machine's fault rather than the configuration's: worth another try in a fresh process."""


class TrialOutOfDisk(TrialFailed):
    """Nobody's fault: to be tried again once there is space."""


class TrialRankLost(TrialFailed):
    """One of the trial's workers died, or does not answer: worth another try with all of them fresh."""


def told(error: Exception) -> TrialFailed:
    """The error as it is told to the engine."""
    return error if isinstance(error, TrialFailed) else _kind(error)(_reason(error))


def _kind(error: Exception) -> type[TrialFailed]:
    """Whose fault an error is; the errors it came from are asked as well."""
    cause: BaseException | None = error
    while cause is not None:
        # by name: torch, which both come with, need not have been imported
        if type(cause).__name__ == "RankLost":
            return TrialRankLost
        if isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError" or _ALLOCATION in str(cause):
            return TrialOutOfMemory
        if isinstance(cause, OSError):
            if cause.errno == errno.ENOMEM:
                return TrialOutOfMemory
            if is_full(cause) or _NUMPYS_FULL_DISK.search(str(cause)):
                return TrialOutOfDisk
        cause = cause.__cause__ or cause.__context__
    return TrialFailed


def _reason(error: Exception) -> str:
    """One line for people: what happened, and where in our code when it is not a message written for them."""
    text = " ".join(str(error).split()) or type(error).__name__
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "repsim" in frame.filename]
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{where}"
