"""What each picture shows, as plain data. Nothing here draws; reports.drawing and reports.interactive do."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from reports.fronts import Point, Study, front_order
from reports.load import finite, trial_order
from repsim.catalogue import method_names
from repsim.records import METRICS, Direction

LABEL_LIMIT = 40
ANCHOR_METHODS = ("full", "linear_probe")


@dataclass(frozen=True, kw_only=True)
class Styles:
    """Which colour slot a method has and which marker slot a backbone, the same in every picture of a report."""

    methods: tuple[str, ...]
    backbones: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One point of a picture; ``label`` is written beside it where it is not empty. A derived one is drawn small."""

    trial_id: str
    x: float
    y: float
    shade: float | None
    method: str
    backbone: str
    on_front: bool
    eligible: bool
    anchor: bool
    label: str
    derived: bool = False


@dataclass(frozen=True, kw_only=True)
class FrontPicture:
    """A front: every trial, the steps joining the best, and one standard error at its most accurate point.

    ``steps`` are the corners of the staircase, by rising x (empty with three objectives, where a projection has
    none); ``step_first`` is ``down`` when the line falls before it goes on. ``error`` is (x, y, standard error).
    ``lines`` are the ways from pretrained to finetuned weights that derived points lie on: method, and (x, y) by rising
    α. A ``panel`` is one of several and drawn smaller.
    """

    title: str
    x_label: str
    y_label: str
    shade_label: str
    marks: tuple[Mark, ...]
    steps: tuple[tuple[float, float], ...]
    lines: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]
    error: tuple[float, float, float] | None
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    panel: bool
    styles: Styles


@dataclass(frozen=True, kw_only=True)
class CoursePicture:
    """Hypervolume against finished trials."""

    trials: tuple[int, ...]
    values: tuple[float, ...]
    reference: str


@dataclass(frozen=True, kw_only=True)
class StrengthPicture:
    """One column per method with a strength, one row per objective: (strength, value, backbone)."""

    methods: tuple[str, ...]
    rows: tuple[str, ...]
    series: tuple[tuple[tuple[tuple[float, float, str], ...], ...], ...]
    styles: Styles


def shorten(text: str, limit: int = LABEL_LIMIT) -> str:
    """Printable, on one line, at most ``limit`` characters."""
    clean = "".join(character if character.isprintable() else "?" for character in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def choose_styles(methods: Sequence[str], backbones: Sequence[str]) -> Styles:
    """The anchors keep their colours in every report; the other methods that occur follow in the catalogue's order.

    There are more methods than colours that can be told apart, so those that do not occur take none.
    """
    present, known = set(methods), method_names()
    ordered = [name for name in known if name in present and name not in ANCHOR_METHODS]
    return Styles(
        methods=(*ANCHOR_METHODS, *ordered, *sorted(present - set(known))),
        backbones=tuple(sorted(set(backbones))),
    )


def front_picture(study: Study, styles: Styles, backbone: str | None = None) -> FrontPicture | None:
    """The picture of a data set's front, or of one backbone's own front; None when there is nothing to draw."""
    if study.axes.x is None or not study.points:
        return None
    points = [point for point in study.points if backbone is None or point.backbone == backbone]
    front = front_order(points, study.objectives)
    members = [points[index] for index in front]
    chosen = {point.trial_id for point in members}
    best = members[0] if members else None
    third = study.axes.colour
    return FrontPicture(
        title=shorten(study.data if backbone is None else backbone),
        x_label=axis_label(study.axes.x.metric, study.axes.x.direction),
        y_label=axis_label(study.axes.y.metric, study.axes.y.direction),
        shade_label=axis_label(third.metric, third.direction) if third is not None else "",
        marks=tuple(_mark(point, point.trial_id in chosen) for point in points),
        steps=staircase(members, study.axes.x.direction) if third is None else (),
        lines=_lines(points),
        error=(best.values[1], best.values[0], best.se) if best is not None and best.se is not None else None,
        x_range=_padded([point.values[1] for point in study.points], 0.0),
        y_range=_padded([point.values[0] for point in study.points], max(p.se or 0.0 for p in study.points)),
        panel=backbone is not None,
        styles=styles,
    )


def axis_label(metric: str, direction: Direction) -> str:
    """Name, unit and which way is better."""
    info = METRICS[metric]
    unit = f" ({info.unit})" if info.unit not in ("", "fraction") else ""
    return f"{info.label}{unit}, {'higher' if direction == 'maximize' else 'lower'} is better"


def staircase(members: Sequence[Point], x_direction: Direction) -> tuple[tuple[float, float], ...]:
    """Corners of the boundary of what the front attains, by rising x.

    Between two neighbours the attained y is that of the one with the better x, so the line turns the corner on the
    dominated side.
    """
    ordered = sorted({(point.values[1], point.values[0]) for point in members})
    corners: list[tuple[float, float]] = []
    for (x, y), (next_x, next_y) in itertools.pairwise(ordered):
        corners += [(x, y), (x, next_y) if x_direction == "maximize" else (next_x, y)]
    return (*corners, *ordered[-1:])


def _lines(points: Sequence[Point]) -> tuple[tuple[str, tuple[tuple[float, float], ...]], ...]:
    """Each trial's derived points and, at the end, the trial itself."""
    owners = dict.fromkeys(point.derived_from for point in points if point.derived_from is not None)
    found = []
    for owner in owners:
        mine = [point for point in points if owner in (point.derived_from, point.trial_id)]
        ordered = sorted(mine, key=lambda point: point.alpha)
        found.append((ordered[0].method, tuple((point.values[1], point.values[0]) for point in ordered)))
    return tuple(found)


def _mark(point: Point, on_front: bool) -> Mark:
    label = point.trial_id if on_front and point.derived_from is None else ""
    if point.anchor:
        label = f"{point.trial_id} · {point.method} (anchor)"
    return Mark(
        trial_id=point.trial_id,
        x=point.values[1],
        y=point.values[0],
        shade=point.values[2] if len(point.values) > 2 else None,
        method=point.method,
        backbone=point.backbone,
        on_front=on_front,
        eligible=point.eligible,
        anchor=point.anchor,
        label=shorten(label),
        derived=point.derived_from is not None,
    )


def _padded(values: Sequence[float], least: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = max(0.07 * (high - low), least * 1.15, 0.005 if high == low else 0.0)
    return low - room, high + room


def course_picture(study: Study) -> CoursePicture | None:
    """Hypervolume against trials; None when there is none."""
    if not study.course or study.reference is None:
        return None
    worst = ", ".join(
        f"{METRICS[objective.metric].label} {study.reference.worst[objective.metric]:.3g}"
        for objective in study.objectives
    )
    return CoursePicture(
        trials=tuple(count for count, _ in study.course),
        values=tuple(value for _, value in study.course),
        reference=f"reference: {worst}",
    )


def strength_picture(study: Study, styles: Styles) -> StrengthPicture | None:
    """How each objective answers to the strength, per method with two strengths or more; None when there is none."""
    found: dict[str, list[Point]] = {}
    for point in study.points:
        trained = point.eligible and point.derived_from is None
        if trained and point.strength is not None and point.strength > 0:
            found.setdefault(point.method, []).append(point)
    methods = [name for name in styles.methods if len({p.strength for p in found.get(name, [])}) > 1]
    if not methods:
        return None
    series = []
    for index in range(len(study.objectives)):
        row = []
        for method in methods:
            ordered = sorted(found[method], key=lambda p: (finite(p.strength) or 0.0, trial_order(p.trial_id)))
            row.append(tuple((p.strength or 0.0, p.values[index], p.backbone) for p in ordered))
        series.append(tuple(row))
    return StrengthPicture(
        methods=tuple(methods),
        rows=tuple(METRICS[objective.metric].label for objective in study.objectives),
        series=tuple(series),
        styles=styles,
    )
