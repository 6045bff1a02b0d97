"""When each training run was in its slot, and when none was: what the store recorded of it, put in order."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from reports.fronts import runs
from reports.load import Sweep, records
from reports.values import finite
from repsim.records import Status

PAUSE = 60.0
"""Seconds without any run from which a stretch is put aside: nobody recorded whether the sweep was at work then."""
_COLUMNS = ("mlflow_run_id", "trial_id", "method", "stage", "status", "attempts", "started", "ended")
_TERMINAL = frozenset(status.value for status in Status if status.terminal)
SKEW = 60.0
"""Seconds by which a process's clock may leave what the driver wrote down before the driver's is taken instead."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A training run over wall time, in seconds since 1970.

    ``slot`` names the process it ran in, "" where nobody recorded it. ``retried``: it was begun more than once.
    """

    run_id: str
    trial_id: str
    method: str
    stage: str
    status: str
    retried: bool
    began: float
    finished: float
    slot: str

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.finished - self.began


@dataclass(frozen=True, kw_only=True)
class Level:
    """A stretch of time in which nothing began or ended: how many ``runs`` were under way, and how many may have been.

    ``doubtful`` are runs begun more than once, between their first beginning and the last.
    """

    began: float
    finished: float
    runs: int
    doubtful: int

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.finished - self.began


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """All training runs of a sweep, from ``origin`` (its start) to ``last``, the last moment that was recorded.

    ``bars`` are in order of beginning, and ``lanes`` has a slot for each, from 0; no two bars of a lane overlap, and
    there are no more lanes than bars at once. ``doubtful`` are the times in which a run that was begun more than once
    may or may not have been at work: MLflow keeps its first beginning, and of a completed run the last one.
    ``pauses`` (beginning, end) are the stretches of at least PAUSE seconds in which no run is known to have been under
    way. ``untimed`` counts runs of which no times can be read, ``by_driver`` the completed ones that did not say when
    and in which process they ran.
    """

    origin: float
    last: float
    bars: tuple[Bar, ...]
    lanes: tuple[int, ...]
    doubtful: tuple[Bar, ...]
    levels: tuple[Level, ...]
    pauses: tuple[tuple[float, float], ...]
    untimed: int
    by_driver: int

    @property
    def stretches(self) -> tuple[tuple[Level, ...], ...]:
        """The levels between the pauses."""
        begins = [began for began, _ in self.pauses]

        def place(level: Level) -> tuple[int, bool]:
            passed = bisect.bisect_right(begins, level.began)
            return passed, passed > 0 and level.began < self.pauses[passed - 1][1]

        return tuple(tuple(group) for (_, paused), group in itertools.groupby(self.levels, key=place) if not paused)

    @property
    def slots(self) -> int:
        """Most runs at once."""
        return max((level.runs for level in self.levels), default=0)

    def at_work(self, moments: Sequence[float]) -> list[float]:
        """Seconds since the origin for each moment, the pauses left out."""
        knots, work = [self.origin], [0.0]
        for began, finished in self.pauses:
            reached = work[-1] + began - knots[-1]
            knots += [began, finished]
            work += [reached, reached]
        knots.append(max(self.last, knots[-1]))
        work.append(work[-1] + knots[-1] - knots[-2])
        return [float(value) for value in np.interp(moments, knots, work)]


def timeline(sweep: Sweep) -> Timeline | None:
    """What the store knows of a sweep's runs over time; None where it has no times of any run.

    A completed run says itself when it began and finished, and in which process; where it does not (in sweeps recorded
    before it did), and for all others, the driver's times stand in, from when the run was handed out. A run that is
    under way lasts until the last recorded moment.
    """
    rows = [row for row in records(runs(sweep.trials)[list(_COLUMNS)]) if row["status"] != Status.PROPOSED.value]
    written = [(moment(row["started"]), moment(row["ended"])) for row in rows]
    own = [
        _own_times(sweep.facts.get(str(row["mlflow_run_id"]), {}), *times)
        for row, times in zip(rows, written, strict=True)
    ]
    known = [time for times in written for time in times if time is not None]
    known += [time for times in own if times is not None for time in times[:2]]
    if not known:
        return None
    last = max(known)
    bars: list[Bar] = []
    doubtful: list[Bar] = []
    untimed = by_driver = 0
    for row, times, said in zip(rows, written, own, strict=True):
        certain, unsure = _bars(row, times, said, last)
        bars += certain
        doubtful += unsure
        untimed += not certain and not unsure
        by_driver += said is None and row["status"] == Status.COMPLETED.value
    if not bars and not doubtful:
        return None
    start = moment(sweep.started)
    origin = min(known if start is None else [start, *known])
    return arranged(bars, doubtful, origin, last, untimed=untimed, by_driver=by_driver)


def arranged(
    bars: Iterable[Bar], doubtful: Iterable[Bar], origin: float, last: float, *, untimed: int = 0, by_driver: int = 0
) -> Timeline:
    """Bars put in order and into lanes, whatever order they come in; they must lie between ``origin`` and ``last``."""
    ordered, unsure = sorted(bars, key=_order), tuple(sorted(doubtful, key=_order))
    levels = _levels(ordered, unsure, origin, last)
    pauses = []
    for idle, group in itertools.groupby(levels, key=lambda level: level.runs == 0):
        stretch = list(group)
        if idle and stretch[-1].finished - stretch[0].began >= PAUSE:
            pauses.append((stretch[0].began, stretch[-1].finished))
    return Timeline(
        origin=origin,
        last=last,
        bars=tuple(ordered),
        lanes=pack(ordered),
        doubtful=unsure,
        levels=levels,
        pauses=tuple(pauses),
        untimed=untimed,
        by_driver=by_driver,
    )


def pack(bars: Sequence[Bar]) -> tuple[int, ...]:
    """A lane for each bar, bars in order of beginning: its process's where that is free, else the one freed last.

    A new lane is opened only when none is free, so there are as many as bars at once (interval partitioning).
    """
    free_from: list[float] = []
    lane_of: dict[str, int] = {}
    found = []
    for bar in bars:
        free = [lane for lane, end in enumerate(free_from) if end <= bar.began]
        own = lane_of.get(bar.slot) if bar.slot else None
        if not free:
            lane = len(free_from)
            free_from.append(bar.finished)
        else:
            lane = own if own is not None and own in free else max(free, key=lambda lane: free_from[lane])
            free_from[lane] = bar.finished
        if bar.slot:
            lane_of[bar.slot] = lane
        found.append(lane)
    return tuple(found)


def moment(text: object) -> float | None:
    """An ISO 8601 time as seconds since 1970, UTC where it names no zone; None for anything else."""
    try:
        when = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    if when is None:
        return None
    return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()


def _order(bar: Bar) -> tuple[float, float, str]:
    return bar.began, bar.finished, bar.run_id


def _own_times(
    facts: Mapping[str, object], started: float | None, ended: float | None
) -> tuple[float, float, str] | None:
    """Beginning, end and process as the run itself recorded them; None where it did not or they cannot be."""
    began, finished, slot = finite(facts.get("began")), finite(facts.get("finished")), finite(facts.get("slot"))
    if began is None or finished is None or began > finished:
        return None
    if (started is not None and began < started - SKEW) or (ended is not None and finished > ended + SKEW):
        return None
    return began, finished, "" if slot is None else f"{slot:.0f}"


def _bars(
    row: Mapping[str, object],
    written: tuple[float | None, float | None],
    own: tuple[float, float, str] | None,
    last: float,
) -> tuple[list[Bar], list[Bar]]:
    """When a run was in its slot, and when it may have been; nothing of either where no times can be read.

    ``written`` are the driver's times of beginning and end, ``own`` the run's, ``last`` the last recorded moment.
    """
    started, ended = written
    status, attempts = str(row["status"]), finite(row["attempts"])
    retried = attempts is not None and attempts > 1
    bar = Bar(
        run_id=str(row["mlflow_run_id"]),
        trial_id=str(row["trial_id"]),
        method=str(row["method"]),
        stage=str(row["stage"]),
        status=status,
        retried=retried,
        began=0.0,
        finished=0.0,
        slot="",
    )
    if own is not None:
        began, finished, slot = own
        waited = retried and started is not None and started < began
        before = [replace(bar, began=started, finished=began)] if waited and started is not None else []
        return [replace(bar, began=began, finished=finished, slot=slot)], before
    end = ended if status in _TERMINAL else last
    if started is None or end is None or end < started:
        return [], []
    whole = [replace(bar, began=started, finished=end)]
    return ([], whole) if retried or status == Status.WAITING.value else (whole, [])


def _levels(bars: Sequence[Bar], doubtful: Sequence[Bar], origin: float, last: float) -> tuple[Level, ...]:
    changes: dict[float, list[int]] = {origin: [0, 0], last: [0, 0]}
    for kind, group in enumerate((bars, doubtful)):
        for bar in group:
            changes.setdefault(bar.began, [0, 0])[kind] += 1
            changes.setdefault(bar.finished, [0, 0])[kind] -= 1
    levels = []
    running = [0, 0]
    for began, finished in itertools.pairwise(sorted(changes)):
        running = [now + change for now, change in zip(running, changes[began], strict=True)]
        levels.append(Level(began=began, finished=finished, runs=running[0], doubtful=running[1]))
    return tuple(levels)
