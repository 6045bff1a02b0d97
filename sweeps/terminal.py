"""A terminal, or a pipe, that goes away must not take the sweep with it."""

from __future__ import annotations

import os
import sys
from typing import TextIO


class Unbreakable:
    """A text stream whose reader may go away (``launch.py | head``): what is written after that goes nowhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """As the stream's; never a broken pipe."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._to_nowhere()
            return len(text)

    def flush(self) -> None:
        """As the stream's; never a broken pipe."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._to_nowhere()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def _to_nowhere(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def harmless(text: str) -> str:
    """``text`` without what a terminal would obey (names and questions may hold anything); line breaks stay."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


def make_unbreakable() -> None:
    """From now on, standard output survives its reader."""
    if not isinstance(sys.stdout, Unbreakable):
        sys.stdout = Unbreakable(sys.stdout)
