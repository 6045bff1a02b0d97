"""What the processes of a trial have in common: they end with their engine, and leave word when they crash."""

from __future__ import annotations

import faulthandler
import os
import socket
import time
from pathlib import Path

import ray

_LOOKS_FOR_ITS_ENGINE_EVERY = 2.0


def end_with(engine: int) -> None:
    """End this process as soon as ``engine``, the process that started it, is gone: nobody is listening any more."""
    while os.getppid() == engine:
        time.sleep(_LOOKS_FOR_ITS_ENGINE_EVERY)
    os._exit(1)


def node_name() -> str:
    """The machine, and the beginning of Ray's number of it: a machine that left and came back is another node."""
    number = ray.get_runtime_context().get_node_id()[:8] if ray.is_initialized() else "no Ray"
    return f"{socket.gethostname()} ({number})"


class CrashNote:
    """Where this process writes, as it crashes, what happened; a file for each trial that it runs."""

    def __init__(self) -> None:
        self._open: int | None = None

    def leave_at(self, path: Path) -> None:
        """From now on there, and nowhere where there is no room for it."""
        try:
            note = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        except OSError:  # a full disk; the trial itself will find out
            return
        before, self._open = self._open, note
        # Ray's own handler lies over the one that Ray has Python install; it may hang, for three seconds and without a
        # note, where the signal comes amid an allocation. Disabled and enabled, ours is the first and the only one.
        faulthandler.disable()
        faulthandler.enable(note, all_threads=False)
        if before is not None:
            os.close(before)

    def end(self, reason: str) -> None:
        """End this process at once, for a reason that is left in the note."""
        if self._open is not None:
            os.write(self._open, f"Fatal Python error: {reason}\n".encode())
        os._exit(1)

    def close(self) -> None:
        """Leave none any more."""
        if self._open is not None:
            faulthandler.disable()
            os.close(self._open)
            self._open = None


def only_granted_gpus(gpus: float) -> None:
    """Hide the machine's GPUs from a process that was given none; Ray does so only where it gave some.

    To be called before torch looks for them.
    """
    if gpus == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
