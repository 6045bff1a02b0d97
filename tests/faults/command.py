"""The command line in process, with streams such as a terminal gives, and a session that starts nothing."""

from __future__ import annotations

import io
import sys
import types
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command answered: its exit status, and the text on both streams."""

    code: int
    out: str
    err: str


def answer(main: Callable[[Sequence[str]], int], *arguments: str, encoding: str = "utf-8") -> Outcome:
    """Run ``main``; an exception it lets through is the caller's. As Python starts, stdout is strict, stderr escapes.

    ``--help`` and the like, which leave by SystemExit, count as their exit status.
    """
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace", write_through=True)
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main(list(arguments))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    texts = [stream.buffer.getvalue().decode(encoding) for stream in (out, err)]
    return Outcome(code=code, out=texts[0], err=texts[1])


def check_refusal(outcome: Outcome) -> None:
    """AssertionError unless it was refused in whole lines, each of which says something."""
    assert outcome.code == 2
    assert outcome.err.endswith("\n")
    assert "Traceback" not in outcome.err
    lines = outcome.err[:-1].split("\n")
    assert all(line.strip() == line and line.isprintable() and line for line in lines), lines


def replace_session(monkeypatch: pytest.MonkeyPatch, run: Callable[[object], int]) -> None:
    """Put ``run`` in the place of the session: a request that is right is handed to it, and no sweep starts."""
    session = types.ModuleType("sweeps.session")
    session.run = lambda launch, *_: run(launch)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sweeps.session", session)


def everything_in(folder: Path) -> set[str]:
    """Relative paths of all that lies in a folder; links are not followed."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
