"""Knows when a trial has been silent for too long, from how long its like have taken before."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

UNKNOWN = 3600.0
"""Seconds allowed as long as nothing like the trial has been heard of."""
SHORTEST = 120.0
"""The learned limit is never below this: a busy machine is not a hung one."""
FACTOR = 10.0
"""The learned limit is this many times the longest silence that ended well."""


@dataclass
class _Watched:
    kind: Hashable
    patience: int
    models: int
    since: float


class Watchdog:
    """Learns, by kind of trial, how long the silences are that end well; names the trials whose silence is longer.

    ``limit`` (seconds) replaces the learned limit. Every earlier death of a trial doubles what is allowed to the
    next attempt, so that a trial that is merely slow gets through. ``clock`` gives seconds.
    """

    def __init__(self, limit: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._clock = limit, clock
        self._watched: dict[str, _Watched] = {}
        self._longest: dict[Hashable, float] = {}

    def started(self, trial_id: str, kind: Hashable, deaths: int, models: int = 1) -> None:
        """The trial has been handed to a slot; its process died or hung ``deaths`` times before.

        ``models`` is how many models it measures at its end: the learned limit is so many times as long.
        """
        self._watched[trial_id] = _Watched(kind=kind, patience=2**deaths, models=models, since=self._clock())

    def began(self, trial_id: str) -> None:
        """The trial has got its process only now: what was before was waiting, not silence."""
        if trial_id in self._watched:
            self._watched[trial_id].since = self._clock()

    def stood_still(self, seconds: float) -> None:
        """Nobody listened for so long: that silence was nobody's."""
        for watched in self._watched.values():
            watched.since += seconds

    def heard(self, trial_id: str) -> None:
        """A sign of life: the silence before it was a normal one."""
        watched = self._watched.get(trial_id)
        if watched is None:
            return
        now = self._clock()
        self._longest[watched.kind] = max(self._longest.get(watched.kind, 0.0), now - watched.since)
        watched.since = now

    def forget(self, trial_id: str) -> None:
        """The trial is not running any more."""
        self._watched.pop(trial_id, None)

    def overdue(self) -> dict[str, str]:
        """Trials that have been silent for too long, and that in words."""
        now = self._clock()
        found = {}
        for trial_id, watched in self._watched.items():
            silent, allowed = now - watched.since, self._allowed(watched) * watched.patience
            if silent > allowed:
                found[trial_id] = (
                    f"hung: no epoch for {silent:.0f} s (limit {allowed:.0f} s, {self._why(watched.kind)})"
                )
        return found

    def _allowed(self, watched: _Watched) -> float:
        if self._limit is not None:
            return self._limit
        longest = self._longest.get(watched.kind)
        return UNKNOWN if longest is None else max(SHORTEST, FACTOR * longest * watched.models)

    def _why(self, kind: Hashable) -> str:
        if self._limit is not None:
            return "resources.epoch_timeout"
        longest = self._longest.get(kind)
        return "nothing like it was heard of before" if longest is None else f"its like took at most {longest:.0f} s"
