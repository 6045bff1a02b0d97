"""What the pictures of a sweep's course show, as plain data: hypervolume, slots over time, where the time went."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from reports.chapters.spending import Parts, Spending, epochs_trained
from reports.chapters.timeline import Bar, Timeline, moment, pack
from reports.figures import Styles, shorten
from reports.fronts import Study, by_ending
from reports.load import Sweep, records
from reports.markup import duration
from repsim.records import METRICS, Stage, Status

BARS = 800
"""Most runs that the picture of the slots shows: the last ones."""
LANES = 40
METHODS = 12
PARTS = (
    "training", "evaluation", "other work of a run", "run stopped, failed or under way", "not known", "idle",
)  # fmt: skip
"""What the slots' time is spent on; the first four happen inside runs."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Hypervolume after each finished search trial, against one measure of what it took until then."""

    label: str
    xs: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class GrowthPicture:
    """The same values against trials, epochs and time, as far as they are recorded; ``pauses`` lie on the last's axis.

    ``unknown_epochs`` counts trials stopped early without a curve, whose epochs are taken for none.
    """

    panels: tuple[Panel, ...]
    pauses: tuple[float, ...]
    reference: str
    unknown_epochs: int


@dataclass(frozen=True, kw_only=True)
class SlotMark:
    """A run in lane ``lane`` from ``x`` on; a ``doubtful`` one may not have been there."""

    lane: int
    x: float
    width: float
    method: str
    status: str
    confirming: bool
    retried: bool
    doubtful: bool


@dataclass(frozen=True, kw_only=True)
class SlotPicture:
    """Runs over time, a row per slot, and under them rows for the times in which a run begun again may have run.

    Time is in ``unit`` since the sweep's start, the ``pauses`` taken out: where one was, and how long it took, in
    words. ``left_out`` counts runs that are not drawn.
    """

    marks: tuple[SlotMark, ...]
    rows: tuple[str, ...]
    x_range: tuple[float, float]
    unit: str
    pauses: tuple[tuple[float, str], ...]
    left_out: int
    styles: Styles


@dataclass(frozen=True, kw_only=True)
class SharePicture:
    """Stacked bars in ``unit``, in the order of PARTS: all slots together, then each method's runs."""

    rows: tuple[tuple[str, tuple[float, ...]], ...]
    unit: str
    left_out: int


def time_unit(seconds: float) -> tuple[float, str]:
    """What to divide seconds by so that they can be read, and the name of that."""
    if seconds < 120:
        return 1.0, "seconds"
    return (60.0, "minutes") if seconds < 7200 else (3600.0, "hours")


def growth_picture(sweep: Sweep, study: Study, line: Timeline | None) -> GrowthPicture | None:
    """How the front grew with what was spent on it; None where there is no hypervolume."""
    if study.single or not study.course or study.reference is None:
        return None
    values = tuple(value for _, value in study.course)
    order = by_ending(study.trials)
    epochs = epochs_trained(sweep).by_run
    by_run = {str(row["mlflow_run_id"]): row for row in records(study.trials[["mlflow_run_id", "ended", "status"]])}
    ended = [moment(by_run[run_id]["ended"]) for run_id in order]
    pruned = [run_id for run_id in order if by_run[run_id]["status"] == Status.PRUNED.value]
    panels = [Panel(label="finished search trials", xs=tuple(range(1, len(values) + 1)), values=values)]
    reached = tuple(itertools.accumulate(epochs[run_id] for run_id in order))
    if reached[-1] > 0:
        panels.append(Panel(label="epochs trained by them", xs=reached, values=values))
    pauses: tuple[float, ...] = ()
    known = [(time, value) for time, value in zip(ended, values, strict=True) if time is not None]
    if line is not None and known:
        work = line.at_work([time for time, _ in known])
        divisor, unit = time_unit(max(work))
        pauses = tuple(x / divisor for x in line.at_work([began for began, _ in line.pauses]) if x <= max(work))
        label = f"{unit} since the sweep's start"
        xs = tuple(x / divisor for x in work)
        panels.append(Panel(label=label, xs=xs, values=tuple(value for _, value in known)))
    worst = ", ".join(
        f"{METRICS[objective.metric].label} {study.reference.worst[objective.metric]:.3g}"
        for objective in study.objectives
    )
    return GrowthPicture(
        panels=tuple(panels),
        pauses=pauses,
        reference=f"reference: {worst}",
        unknown_epochs=sum(epochs[run_id] == 0 for run_id in pruned),
    )


def slot_picture(line: Timeline, styles: Styles) -> SlotPicture | None:
    """Every run in its slot, or the last BARS of them and the first LANES rows; None where no time has passed."""
    length = line.at_work([line.last])[0]
    if length <= 0:
        return None
    lanes = [*line.lanes, *(max(line.lanes, default=-1) + 1 + row for row in pack(line.doubtful))]
    every = list(zip([*line.bars, *line.doubtful], lanes, strict=True))
    placed = [(bar, lane) for bar, lane in every if lane < LANES]
    drawn = sorted(placed, key=lambda item: (item[0].began, item[0].finished, item[0].run_id))[-BARS:]
    doubtful = set(line.doubtful)
    divisor, unit = time_unit(length)
    begins, ends = line.at_work([bar.began for bar, _ in drawn]), line.at_work([bar.finished for bar, _ in drawn])
    first = min(begins) if len(drawn) < len(every) and min(begins) < length else 0.0
    marks = [
        _mark(bar, lane, began / divisor, finished / divisor, doubtful=bar in doubtful)
        for (bar, lane), began, finished in zip(drawn, begins, ends, strict=True)
    ]
    slots = max(line.lanes, default=-1) + 1
    rows = [f"slot {number + 1}" if number < slots else "begun again" for number in range(min(LANES, max(lanes) + 1))]
    cut = zip(line.at_work([began for began, _ in line.pauses]), line.pauses, strict=True)
    return SlotPicture(
        marks=tuple(marks),
        rows=tuple(rows),
        x_range=(first / divisor, length / divisor),
        unit=unit,
        pauses=tuple((x / divisor, duration(end - began)) for x, (began, end) in cut if x >= first),
        left_out=len(every) - len(drawn),
        # of a method that has nothing but failures no other picture knows
        styles=replace(styles, methods=tuple(dict.fromkeys([*styles.methods, *(mark.method for mark in marks)]))),
    )


def _mark(bar: Bar, lane: int, began: float, finished: float, *, doubtful: bool) -> SlotMark:
    return SlotMark(
        lane=lane,
        x=began,
        width=finished - began,
        method=bar.method,
        status=bar.status,
        confirming=bar.stage == Stage.CONFIRM.value,
        retried=bar.retried,
        doubtful=doubtful,
    )


def shares(spent: Spending) -> tuple[tuple[str, float], ...]:
    """PARTS with their seconds."""
    return tuple(zip(PARTS, (*spent.inside.each, spent.unknown, spent.idle), strict=True))


def share_picture(spent: Spending) -> SharePicture | None:
    """The slots' time and that of the METHODS most expensive methods; None where no time has passed."""
    if spent.total <= 0:
        return None
    divisor, unit = time_unit(spent.total)
    shown = list(spent.methods.items())[:METHODS]
    outside = (0.0,) * (len(PARTS) - len(Parts().each))
    rows: list[tuple[str, Sequence[float]]] = [("all slots", [seconds for _, seconds in shares(spent)])]
    rows += [(shorten(name, 28), (*parts.each, *outside)) for name, parts in shown]
    return SharePicture(
        rows=tuple((name, tuple(seconds / divisor for seconds in values)) for name, values in rows),
        unit=unit,
        left_out=len(spent.methods) - len(shown),
    )
