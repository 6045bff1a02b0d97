"""Two sweeps of one seed, with and without stopping, as their journals tell them: curves, times, ratios, verdict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from repsim.records import Status
from sweeps.history import History
from sweeps.judgement import Judgement

GOAL = 0.6
TOLERANCE = 1e-9
"""Of a hypervolume: the same points summed in another order."""

Curve = Sequence[tuple[float, float]]
"""(seconds since the launch, hypervolume of the front) each time a trial ended."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a journal says of a sweep. ``anchors``: the objectives' values by ``config_id``.

    ``stopped`` and ``failed`` are among the ``ended`` trials; ``resumes`` counts restarts after a broken Ray.
    """

    curve: Curve
    ended: int
    stopped: int
    failed: int
    resumes: int
    anchors: Mapping[str, tuple[float, ...]]

    @property
    def seconds(self) -> float:
        """Until the last trial that has ended; 0 before the first."""
        return self.curve[-1][0] if self.curve else 0.0

    @property
    def volume(self) -> float:
        """The hypervolume at the end."""
        return self.curve[-1][1] if self.curve else 0.0


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Both sweeps of a seed; hypervolumes of both in the same box."""

    seed: int
    plain: Sweep
    stopping: Sweep

    @property
    def mark(self) -> float:
        """The final hypervolume of the sweep without stopping."""
        return self.plain.volume

    @property
    def first(self) -> float:
        """Seconds after which the sweep without stopping had the mark."""
        return reached(self.plain.curve, self.mark)

    @property
    def reached(self) -> float:
        """The same for the sweep with stopping; infinite when it took longer than the whole of the other."""
        return reached(self.stopping.curve, self.mark, within=self.plain.seconds)

    @property
    def ratio(self) -> float:
        """Against the seconds of the whole sweep without stopping."""
        return self.reached / self.plain.seconds

    @property
    def strict_ratio(self) -> float:
        """Against the seconds after which it had the mark."""
        return self.reached / self.first


def box(history: History) -> dict[str, float] | None:
    """The reference point that a sweep has fixed by its anchors; None before both have completed."""
    return next(iter(history.references.values()), None)


def told(history: History, launched: float, judgement: Judgement, reference: Mapping[str, float] | None) -> Sweep:
    """The sweep so far; ``launched`` in seconds since 1970. Without a reference every hypervolume is 0."""
    ends = [(record.ended, record) for record in history.records.values() if record.ended is not None]
    ends.sort(key=lambda one: one[0])
    records = [record for _, record in ends]
    completed = [(record.trial, record.result.values) for record in records if record.result is not None]
    seconds = [datetime.fromisoformat(at).timestamp() - launched for at, _ in ends]
    volumes: Sequence[float | None] = [0.0] * len(ends)
    if reference is not None:
        candidates = [(trial.trial_id, values) for trial, values in completed]
        volumes = judgement.hypervolumes(candidates, reference, set(), [record.trial.trial_id for record in records])
    return Sweep(
        curve=[(at, volume or 0.0) for at, volume in zip(seconds, volumes, strict=True)],
        ended=len(records),
        stopped=sum(record.status is Status.PRUNED for record in records),
        failed=sum(record.status is Status.FAILED for record in records),
        resumes=history.resumes,
        anchors={trial.config.config_id: judgement.point(values) for trial, values in completed if trial.anchor},
    )


def reached(curve: Curve, volume: float, *, within: float = math.inf) -> float:
    """Seconds until the front had this hypervolume for the first time; infinite if not within those allowed."""
    first = next((seconds for seconds, found in curve if found >= volume - TOLERANCE), math.inf)
    return first if first <= within else math.inf


def anchors_differ(pair: Pair) -> str:
    """What is to be said when an anchor that both sides have completed has not the same values; else empty."""
    plain, stopping = pair.plain.anchors, pair.stopping.anchors
    differing = [(plain[one], stopping[one]) for one in plain if one in stopping and plain[one] != stopping[one]]
    said = ", ".join(f"{before} and {after}" for before, after in differing)
    return f"seed {pair.seed}: the anchors differ, without stopping and with it: {said}" if differing else ""


def print_pair(pair: Pair) -> None:
    """What both sweeps of a seed did."""
    print(f"\nseed {pair.seed}: the mark is {pair.mark:.4f}")
    print(f"{'':18} {'trials':>7} {'stopped':>8} {'failed':>7} {'volume at the end':>18} ", end="")
    print(f"{'at the mark':>12} {'whole':>8}")
    sides = (("without stopping", pair.plain, pair.first), ("with stopping", pair.stopping, pair.reached))
    for name, side, first in sides:
        print(f"{name:18} {side.ended:7} {side.stopped:8} {side.failed:7} {side.volume:18.4f} ", end="")
        print(f"{in_words(first, '.1f', ' s'):>12} {side.seconds:6.1f} s")
        if side.resumes:
            print(f"{name}: Ray broke down and was replaced, {side.resumes} times")
    differ = anchors_differ(pair)
    print(f"{differ}\n" if differ else "", flush=True)


def in_words(value: float, form: str = ".3f", unit: str = "") -> str:
    """A number, or never."""
    return "never" if math.isinf(value) else f"{value:{form}}{unit}"


def verdict(pairs: Sequence[Pair], broken: int = 0) -> int:
    """The last lines; 0 when the goal is met. ``broken`` seeds count as never there."""
    lost = [math.inf] * broken
    strict = [*(pair.strict_ratio for pair in pairs), *lost]
    ratios = [*(pair.ratio for pair in pairs), *lost]
    for what, found in (("when it had the mark", strict), ("of the whole sweep", ratios)):
        each = ", ".join(map(in_words, found))
        print(f"seconds to the mark with stopping / seconds without, {what}: {each}; ", end="")
        print(f"median {in_words(statistics.median(found))}")
    figure = statistics.median(ratios)
    ok = broken == 0 and figure <= GOAL
    print(f"search_real: {figure:.3f} (goal {GOAL}) {'ok' if ok else 'short'}")
    return 0 if ok else 1
