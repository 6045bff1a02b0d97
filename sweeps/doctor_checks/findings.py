"""One line of the doctor's answer, and a way to look at things that may never answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal, Self

Level = Literal["ok", "warn", "FAIL"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found about ``name``; ``advice`` says what to do about it, and is empty where all is well.

    ``FAIL``: a sweep would be refused, or would break. ``warn``: it runs, slower or with less safety.
    """

    level: Level
    name: str
    found: str
    advice: str = ""

    def __str__(self) -> str:
        text = f"{self.level:<4}  {self.name}: {self.found}"
        return " ".join((f"{text}; {self.advice}" if self.advice else text).split("\n"))

    def to_json(self) -> dict[str, str]:
        """As plain strings."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, str]) -> Self:
        """What ``to_json`` gave."""
        levels: dict[str, Level] = {"ok": "ok", "warn": "warn", "FAIL": "FAIL"}
        level, name = levels[document["level"]], document["name"]
        return cls(level=level, name=name, found=document["found"], advice=document["advice"])


def good(name: str, found: str) -> Finding:
    """All is well."""
    return Finding(level="ok", name=name, found=found)


def doubt(name: str, found: str, advice: str) -> Finding:
    """A sweep runs, but."""
    return Finding(level="warn", name=name, found=found, advice=advice)


def bad(name: str, found: str, advice: str) -> Finding:
    """A sweep would not run, or would not run to its end."""
    return Finding(level="FAIL", name=name, found=found, advice=advice)


def patiently(name: str, seconds: float, look: Callable[[], list[Finding]]) -> list[Finding]:
    """What ``look`` finds; a failure when it takes longer than ``seconds`` (a network disk that hangs, for example).

    What ``look`` raises is raised.
    """
    answers: list[list[Finding]] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(look())
        except BaseException as error:  # raised again below, in the thread that asked
            raised.append(error)

    thread = threading.Thread(target=run, name=f"doctor: {name}", daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if answers:
        return answers[0]
    return [bad(name, f"no answer within {seconds:g} s", "see whether what it lies on, or the network, hangs")]


def size_text(count: float) -> str:
    """``12.3 GB``, or whole megabytes below one."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
