"""Whether a trial's workers find places on the machines there are, and how long they wait for some that are not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

AUTO_SECONDS = 600.0
"""``resources.placement_timeout: auto``: machines that a cloud starts are there within minutes."""
LONGEST_LOOK = 5.0
"""Two looks are never so many seconds apart unless the driver was kept from running: that is nobody's waiting."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one trial gets: ``workers`` processes, each with ``cpus`` threads and ``gpus`` GPUs."""

    workers: int = 1
    cpus: int = 1
    gpus: float = 0.0

    def __str__(self) -> str:
        each = _amount(self.cpus, self.gpus)
        return each if self.workers == 1 else f"{self.workers} workers with {each} each"


class Machine(Protocol):
    """What a machine has, whoever uses it now."""

    @property
    def cpus(self) -> float:
        """Cores, as Ray was told to count them."""

    @property
    def gpus(self) -> float:
        """GPUs."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine of which nothing else is known."""

    cpus: float
    gpus: float = 0.0


def places(share: Share, machines: Sequence[Machine]) -> int:
    """How many workers of this size fit on the machines, if nothing else ran there.

    A worker lies on one machine, and a share of a GPU on one GPU; the workers of a trial may lie on several machines.
    """
    return sum(_places(share, machine) for machine in machines)


def _places(share: Share, machine: Machine) -> int:
    by_cpus = int(machine.cpus // share.cpus)
    if share.gpus == 0:
        return by_cpus
    by_gpus = int(machine.gpus) * int(1 / share.gpus) if share.gpus <= 1 else int(machine.gpus // share.gpus)
    return min(by_cpus, by_gpus)


def fits(share: Share, machines: Sequence[Machine]) -> bool:
    """Whether a whole trial of this size fits on the machines."""
    return places(share, machines) >= share.workers


def described(machines: Sequence[Machine]) -> str:
    """The machines in words, those with the most first."""
    if not machines:
        return "no machine"
    amounts = [_amount(m.cpus, m.gpus) for m in sorted(machines, key=lambda m: (m.gpus, m.cpus), reverse=True)]
    counts = [(amounts.count(amount), amount) for amount in dict.fromkeys(amounts)]
    return "; ".join(f"{count} x {amount}" if count > 1 else amount for count, amount in counts)


def _amount(cpus: float, gpus: float) -> str:
    text = f"{cpus:g} CPU{'' if cpus == 1 else 's'}"
    return f"{text} and {gpus:g} GPU{'' if gpus <= 1 else 's'}" if gpus > 0 else text


class Waiting:
    """Names the trials that have waited for longer than ``limit`` seconds for what nobody of ours has.

    Waiting for another trial of the sweep to end is no such waiting, where the machines are there. ``clock`` gives
    seconds.
    """

    def __init__(self, limit: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = AUTO_SECONDS if limit is None else limit
        self._clock = clock
        self._waited: dict[str, float] = {}
        self._looked = clock()

    def look(
        self, waiting: Mapping[str, Share], busy: bool, machines: Callable[[], Sequence[Machine]]
    ) -> dict[str, str]:
        """The trials that have waited for too long, and for what, in words.

        ``waiting`` are the trials without a process; ``busy`` says that others of the sweep have theirs.
        """
        now = self._clock()
        passed, self._looked = min(now - self._looked, LONGEST_LOOK), now
        there = machines() if waiting else ()
        since = {name: self._waited.get(name, 0.0) for name in waiting}
        self._waited = {
            name: 0.0 if busy and fits(share, there) else since[name] + passed for name, share in waiting.items()
        }
        return {
            name: f"waited {seconds:.0f} s for {waiting[name]} (limit {self._limit:g} s, resources.placement_timeout); "
            f"there is now: {described(there)}"
            for name, seconds in self._waited.items()
            if seconds > self._limit
        }
