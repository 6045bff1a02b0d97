"""A thread that carries out jobs for a service that may be away for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from repsim.errors import one_line

PAUSES = (0.2, 10.0)
"""Seconds before a failed job is tried again: at first, and at most after doubling."""

Job = Callable[[], None]


class Rank(IntEnum):
    """When it is a job's turn: among the others, when none of those waits, or after everything else."""

    SOON = 0
    LAST = 1
    AFTER = 2


class _Task(NamedTuple):
    key: str
    job: Job
    rank: Rank


class PatientThread:
    """Carries out keyed jobs by rank and in order; a newer job replaces a waiting one of the same key.

    A job that raises one of the errors given to :meth:`start` is tried again, after the others, with growing pauses;
    unless ``refused`` says that this is pointless: then it is dropped. ``report`` hears of each outage and each
    refusal once, on the thread; ``service`` is what the messages call the other side.
    """

    def __init__(self, service: str, *, refused: Callable[[Exception], bool], report: Callable[[str], None]) -> None:
        self._service, self._refused, self._report = service, refused, report
        self._condition = threading.Condition()
        self._jobs: dict[Rank, dict[str, Job]] = {rank: {} for rank in Rank}
        self._busy = False
        self._deadline: float | None = None
        self._thread: threading.Thread | None = None
        self._errors: tuple[type[Exception], ...] = ()

    def start(self, errors: tuple[type[Exception], ...]) -> None:
        """Begin with what has been put so far."""
        self._errors = errors
        self._thread = threading.Thread(target=self._work, name=f"{self._service} writer", daemon=True)
        self._thread.start()

    def put(self, key: str, job: Job, *, rank: Rank = Rank.SOON) -> None:
        """Add a job, in constant time."""
        with self._condition:
            self._jobs[rank][key] = job
            self._condition.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until nothing is left to do; False when ``timeout`` seconds did not suffice."""
        with self._condition:
            return self._condition.wait_for(lambda: self._left() == 0, timeout)

    @property
    def left(self) -> int:
        """How many jobs are not done."""
        with self._condition:
            return self._left()

    def close(self, timeout: float) -> int:
        """Work for at most ``timeout`` seconds more, then stop; returns how many jobs are left."""
        thread, self._thread = self._thread, None
        if thread is None:
            return 0
        with self._condition:
            self._deadline = time.monotonic() + timeout
            self._condition.notify_all()
        thread.join(timeout + 1.0)
        with self._condition:
            return self._left()

    def _left(self) -> int:
        return sum(map(len, self._jobs.values())) + self._busy

    def _take(self) -> _Task | None:
        """The next job; None once the thread is closed and all is done, or time is up."""
        with self._condition:
            self._condition.wait_for(lambda: self._left() > 0 or self._deadline is not None)
            late = self._deadline is not None and time.monotonic() > self._deadline
            if late or self._left() == 0:
                return None
            self._busy = True
            rank = next(rank for rank, jobs in self._jobs.items() if jobs)
            key = next(iter(self._jobs[rank]))
            return _Task(key, self._jobs[rank].pop(key), rank)

    def _settle(self, task: _Task, *, again: bool) -> None:
        with self._condition:
            if again:
                self._jobs[task.rank].setdefault(task.key, task.job)
            self._busy = False
            self._condition.notify_all()

    def _work(self) -> None:
        pause, outage = PAUSES[0], ""  # the job that found out; one that needs no answer does not end it
        while (task := self._take()) is not None:
            failure = self._attempt(task.job)
            again = failure is not None and not self._refused(failure)
            if failure is None and outage in ("", task.key):
                pause, outage = PAUSES[0], ""
            elif failure is not None and not again:
                self._report(f"{self._service} refuses {task.key}: {short(failure)}")
                outage = "" if outage == task.key else outage
            elif failure is not None and not outage:
                outage = task.key
                self._report(f"{self._service} does not answer ({short(failure)}); trying again, nothing is lost")
            self._settle(task, again=again)
            if again:
                self._pause(pause)
                pause = min(2 * pause, PAUSES[1])

    def _attempt(self, job: Job) -> Exception | None:
        try:
            job()
        except self._errors as error:
            return error
        return None

    def _pause(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        with self._condition:
            while (left := min(ends, ends if self._deadline is None else self._deadline) - time.monotonic()) > 0:
                self._condition.wait(left)


def short(error: Exception) -> str:
    """What an error says, on one line of at most 200 characters."""
    return one_line(" ".join(str(error).split()), 200)
