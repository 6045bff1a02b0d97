"""The signals that mean "stop": SIGINT (Ctrl-C), SIGTERM (a scheduler), SIGUSR1 (Slurm's warning), SIGHUP (a terminal).

SIGHUP stays ignored where it is already (nohup). SIGINT does not: a script's background jobs inherit it ignored, and
who sends it to a sweep means it.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
INTERRUPTED = 130
"""The exit code of a launch that was stopped and can be resumed."""
DEADLINE = 8.0
"""Seconds after a signal in which the clean-up must be done."""
_Handler = Callable[[int, FrameType | None], None]


class Interrupted(BaseException):
    """A signal that means "stop" arrived; not an Exception, so that nothing on the way mistakes it for a failure."""


class Signals:
    """Turns a stopping signal into :class:`Interrupted`: at once, or, where that would tear something, at a check.

    Only the first signal counts; the ones after it are ignored, so that an impatient second one cannot tear the
    clean-up of the first. An exception out of a handler can get lost (Python ignores it inside a finaliser), so a check
    raises again. And foreign code may wait for what a signal has killed as well: DEADLINE seconds after the signal the
    process ends with ``last_words``, whatever it is doing; what it has written is safe at any moment.
    """

    def __init__(self) -> None:
        self.last_words = "interrupted before the sweep began"
        self._ours: list[signal.Signals] = []
        self._left, self._requested = threading.Event(), threading.Event()
        self._arrived: str | None = None
        self._only_note = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Within, the handlers are ours; before and after, whose they were."""
        lasting = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        self._ours = [number for number in STOPPING if number != signal.SIGHUP or not lasting]
        before = {number: signal.signal(number, self._receive) for number in self._ours}
        # A handler in Python waits for the main thread, which may be waiting for what the signal has killed.
        reading, writing = socket.socketpair()
        writing.setblocking(False)
        woken = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reading,), name="signal watch", daemon=True).start()
        try:
            yield
        finally:
            for number, old in before.items():
                signal.signal(number, old)
            signal.set_wakeup_fd(woken)
            self._left.set()
            writing.close()

    @contextmanager
    def noted(self) -> Iterator[Callable[[], None]]:
        """Within, signals are only taken note of; the function yielded raises after one, and so does leaving.

        For what must not be cut in the middle, and for foreign code that installs handlers of its own or would not
        let our exception through: ours are put on top again when the function is called.
        """
        outer, self._only_note = self._only_note, True
        try:
            yield self.check
        finally:
            self._only_note = outer
            self.check()

    def check(self) -> None:
        """Raise :class:`Interrupted` when a signal has been noted; take the handlers back from whoever has them.

        Compiled code may have replaced them without Python's knowledge (Ray's does, by one that aborts the process
        some seconds after a SIGTERM), so they are set every time, and such an alarm is called off.
        """
        for number in self._ours:
            signal.signal(number, self._receive)
        if self._arrived is not None:
            signal.alarm(0)
            raise Interrupted(self._arrived)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._arrived is not None:
            return
        self._arrived = signal.Signals(number).name
        if not self._only_note:
            raise Interrupted(self._arrived)

    @property
    def requested(self) -> bool:
        """Whether a stop was asked for, as other threads see it."""
        return self._requested.is_set()

    def end_now(self) -> NoReturn:
        """End the process with ``last_words``."""
        if self.last_words:
            print(self.last_words, flush=True)
        os._exit(INTERRUPTED)

    def _watch(self, reading: socket.socket) -> None:
        with reading:
            while numbers := reading.recv(64):
                if any(number in self._ours for number in numbers):
                    self._requested.set()
                    if not self._left.wait(DEADLINE):
                        self.end_now()
                    return
