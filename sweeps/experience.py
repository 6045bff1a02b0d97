"""What a sampler is built from: every earlier proposal of its study, or, once there are many, a choice of them.

A sampler's work grows with the trials that it looks at, so that proposals one after the other cost the square of their
number. From more than ``LEARNT`` proposals it is therefore told of

1. the feasible completed ones that no other dominates, all of them;
2. of the room that these leave, a quarter for those under way, the latest, so that slots do not all try the same;
3. a quarter for the latest that have ended;
4. and the rest for a sample of all that have ended, even over the length of the sweep.

Failed proposals teach a sampler nothing and are left out then. The choice depends on the proposals and on how they
ended, not on the order in which they did: a sweep restored from its journal is told of the same ones.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence
from itertools import islice

from optuna.trial import TrialState

from repsim.front import dominates
from repsim.records import Direction
from sweeps.past import Past

LEARNT = 500
"""The most proposals that a sampler is told of."""
_INFORMATIVE = (TrialState.COMPLETE, TrialState.PRUNED)
_GOLDEN, _WORD = 0x9E3779B97F4A7C15, 2**64
"""Multiples of the golden ratio, modulo 1, are spread evenly, however many of them are taken."""


class Experience:
    """The proposals of a study by their number, and which of them a sampler is told of. Asking takes constant time.

    ``by`` names a key of the params; ``part`` are then the proposals with one value of it, numbered by themselves.
    """

    def __init__(self, directions: Sequence[Direction], entries: Iterable[Past] = (), *, by: str | None = None) -> None:
        self.entries: list[Past] = []
        self.informative = 0
        """How many have completed or were stopped."""
        self._directions, self._by = directions, by
        self._front: list[tuple[int, tuple[float, ...]]] = []
        self._running: dict[int, None] = {}
        self._sample: list[tuple[int, int]] = []
        self._parts: dict[object, Experience] = {}
        self._places: list[int] = []
        for entry in entries:
            self.add(entry)

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, entry: Past) -> None:
        """The next proposal; it may be under way or have ended."""
        number = len(self.entries)
        self.entries.append(entry)
        if self._by is not None:
            mine = self.part(entry.params.get(self._by))
            self._places.append(len(mine))
            mine.add(entry)
        if entry.state is TrialState.RUNNING:
            self._running[number] = None
        else:
            self._learn(number, entry)

    def end(self, number: int, entry: Past) -> None:
        """How a proposal that was under way has ended."""
        self.entries[number] = entry
        if self._by is not None:
            self.part(entry.params.get(self._by)).end(self._places[number], entry)
        del self._running[number]
        self._learn(number, entry)

    def part(self, value: object) -> Experience:
        """The proposals with this value of the key ``by``."""
        return self._parts.setdefault(value, Experience(self._directions))

    def told(self, most: int = LEARNT) -> Sequence[int]:
        """Numbers of the proposals that a sampler is told of, at most ``most`` (up to ``LEARNT``), in order."""
        most = min(most, LEARNT)
        if len(self.entries) <= most:
            return range(len(self.entries))
        kept = set(sorted((number for number, _ in self._front), key=_priority)[:most])
        quarter = (most - len(kept)) // 4
        kept.update(islice(reversed(self._running), quarter))
        latest = (
            number
            for number in range(len(self.entries) - 1, -1, -1)
            if number not in kept and self.entries[number].state in _INFORMATIVE
        )
        kept.update(list(islice(latest, quarter)))
        sample = (number for _, number in self._sample if number not in kept)
        kept.update(list(islice(sample, most - len(kept))))
        return sorted(kept)

    def _learn(self, number: int, entry: Past) -> None:
        if entry.state not in _INFORMATIVE:
            return
        self.informative += 1
        insort(self._sample, (_priority(number), number))
        del self._sample[2 * LEARNT :]  # of these at most LEARNT are told of for another reason
        point = entry.values
        if entry.state is TrialState.PRUNED or point is None or not entry.is_feasible:
            return
        if not any(dominates(other, point, self._directions) for _, other in self._front):
            stays = [one for one in self._front if not dominates(point, one[1], self._directions)]
            self._front = [*stays, (number, point)]


def _priority(number: int) -> int:
    return (number + 1) * _GOLDEN % _WORD
