"""What each picture shows, as plain data. Nothing here draws; reports.drawing and reports.interactive do."""

from __future__ import annotations

import itertools
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

from reports.fronts import Point, Study, front_order
from reports.values import finite
from repsim.catalogue import method_names
from repsim.records import METRICS, Direction, Objective

Corners = tuple[tuple[float, float], ...]
"""(x, y) pairs that a line joins."""
LABEL_LIMIT = 40
MOST_MARKS = 1_500
"""More points than this are not told apart, and make a page slow: of those off the front an even sample is drawn."""
ANCHOR_METHODS = ("full", "linear_probe")


@dataclass(frozen=True, kw_only=True)
class Styles:
    """Which colour slot a method has and which marker slot a backbone, the same in every picture of a report."""

    methods: tuple[str, ...]
    backbones: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One point of a picture; ``label`` is written beside it where it is not empty.

    ``n`` counts the fresh seeds that it is the mean of; 0 where it is a run. ``errors`` are their standard errors
    (x, y), None where they show no spread; that of y is then the binomial one where it is known, and ``binomial`` says
    so. Derived and pruned ones are drawn small, and so are runs ``behind`` the means of a confirmed front.
    """

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
    pruned: bool = False
    behind: bool = False
    n: int = 0
    errors: tuple[float | None, float | None] = (None, None)
    binomial: bool = False

    @property
    def key(self) -> str:
        """Tells a mean from the run of the same trial."""
        return f"{self.trial_id} mean" if self.n else self.trial_id

    @property
    def small(self) -> bool:
        """Whether it stands back."""
        return self.derived or self.pruned or self.behind


@dataclass(frozen=True, kw_only=True)
class FrontPicture:
    """A front: every trial, the steps joining the best, and one standard error at its most accurate point.

    A confirmed one has a mark for each mean as well, with bars of its own, and the steps join those.

    ``steps`` are the corners of the staircase, by rising x (empty with three objectives, where a projection has
    none), ``area`` those of what it dominates. ``error`` is (x, y, standard error). ``lines`` are the ways from
    pretrained to finetuned weights that derived points lie on: method, backbone, and (x, y) by rising α. A ``panel`` is
    one of several and drawn smaller. ``left_out`` points off the front are not among the marks.
    """

    title: str
    x_label: str
    y_label: str
    shade_label: str
    marks: tuple[Mark, ...]
    steps: Corners
    area: Corners
    lines: tuple[tuple[str, str, Corners], ...]
    error: tuple[float, float, float] | None
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    panel: bool
    styles: Styles
    left_out: int = 0


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
    x, third, confirmed = study.axes.x, study.axes.colour, bool(study.means)
    points = [point for point in study.points if backbone is None or point.backbone == backbone]
    means = [point for point in study.means if backbone is None or point.backbone == backbone]
    pool = means if confirmed else points
    members = [pool[index] for index in front_order(pool, study.objectives)]
    chosen = {point.run_id for point in members}
    repeated = {point.run_id for point in means}
    best = members[0] if members and not confirmed else None
    shown = sampled(points, chosen | repeated)
    runs = [_mark(point, point.run_id in chosen and not confirmed, x) for point in shown]
    if confirmed:
        # the mean bears the name, where there is one
        runs = [
            replace(mark, behind=True, anchor=mark.anchor and not named, label="" if named else mark.label)
            for mark, named in zip(runs, [point.run_id in repeated for point in shown], strict=True)
        ]
    every = (*study.points, *study.means)
    x_range = _padded([point.values[1] for point in every], max(_error(p, x) or 0.0 for p in every))
    y_range = _padded([point.values[0] for point in every], max(p.se or 0.0 for p in every))
    steps = staircase(members, x.direction) if third is None else ()
    return FrontPicture(
        title=shorten(study.data if backbone is None else backbone),
        x_label=axis_label(x.metric, x.direction),
        y_label=axis_label(study.axes.y.metric, study.axes.y.direction),
        shade_label=axis_label(third.metric, third.direction) if third is not None else "",
        marks=(*runs, *(_mark(point, point.run_id in chosen, x) for point in means)),
        steps=steps,
        area=dominated(steps, _worst(study, x_range, y_range), (x.direction, study.axes.y.direction)),
        lines=_lines(shown),
        error=(best.values[1], best.values[0], best.se) if best is not None and best.se is not None else None,
        x_range=x_range,
        y_range=y_range,
        panel=backbone is not None,
        styles=styles,
        left_out=len(points) - len(shown),
    )


def sampled(points: Sequence[Point], wanted: Container[str], most: int = MOST_MARKS) -> list[Point]:
    """The anchors, the ``wanted`` run ids, and as many of the others, evenly, as make ``most`` (all where they fit)."""
    if len(points) <= most:
        return list(points)
    must = [point.anchor or point.run_id in wanted for point in points]
    others = [index for index, kept in enumerate(must) if not kept]
    room = max(0, most - sum(must))
    drawn = {others[place * len(others) // room] for place in range(room)}
    return [point for index, point in enumerate(points) if must[index] or index in drawn]


def axis_label(metric: str, direction: Direction) -> str:
    """Name, unit and which way is better."""
    info = METRICS[metric]
    unit = f" ({info.unit})" if info.unit not in ("", "fraction") else ""
    return f"{info.label}{unit}, {'higher' if direction == 'maximize' else 'lower'} is better"


def staircase(members: Sequence[Point], x_direction: Direction) -> Corners:
    """Corners of the boundary of what the front attains, by rising x.

    Between two neighbours the attained y is that of the one with the better x, so the line turns the corner on the
    dominated side.
    """
    ordered = sorted({(point.values[1], point.values[0]) for point in members})
    corners: list[tuple[float, float]] = []
    for (x, y), (next_x, next_y) in itertools.pairwise(ordered):
        corners += [(x, y), (x, next_y) if x_direction == "maximize" else (next_x, y)]
    return (*corners, *ordered[-1:])


def dominated(steps: Corners, worst: tuple[float, float], directions: tuple[Direction, Direction]) -> Corners:
    """Corners of the area that a staircase dominates, as far as ``worst``, the bad end of x and y; none beyond it."""
    if not steps:
        return ()

    def within(value: float, limit: float, direction: Direction) -> float:
        return max(value, limit) if direction == "maximize" else min(value, limit)

    wall, floor = worst
    inner = [(within(x, wall, directions[0]), within(y, floor, directions[1])) for x, y in steps]
    if directions[0] == "maximize":
        return ((wall, inner[0][1]), *inner, (inner[-1][0], floor), (wall, floor))
    return ((inner[0][0], floor), *inner, (wall, inner[-1][1]), (wall, floor))


def _worst(study: Study, x_range: tuple[float, float], y_range: tuple[float, float]) -> tuple[float, float]:
    """The hypervolume's reference where there is one, so that the area is what is measured; else the picture's edge."""
    found = []
    for objective, limits in ((study.axes.x, x_range), (study.axes.y, y_range)):
        if objective is not None:
            recorded = None if study.reference is None else finite(study.reference.worst.get(objective.metric))
            edge = limits[0] if objective.direction == "maximize" else limits[1]
            found.append(edge if recorded is None else recorded)
    return found[0], found[-1]


def _lines(points: Sequence[Point]) -> tuple[tuple[str, str, Corners], ...]:
    """Each trial's derived points and, at the end, the trial itself."""
    owners = dict.fromkeys(point.derived_from for point in points if point.derived_from is not None)
    found = []
    for owner in owners:
        mine = [point for point in points if owner in (point.derived_from, point.trial_id)]
        ordered = sorted(mine, key=lambda point: point.alpha)
        found.append(
            (ordered[0].method, ordered[0].backbone, tuple((point.values[1], point.values[0]) for point in ordered))
        )
    return tuple(found)


def _mark(point: Point, on_front: bool, x: Objective) -> Mark:
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
        pruned=point.pruned,
        n=0 if point.repeats is None else point.repeats.n,
        errors=(None, None) if point.repeats is None else (_error(point, x), point.se),
        binomial=point.repeats is not None and point.binomial and point.se is not None,
    )


def _error(point: Point, objective: Objective) -> float | None:
    """Standard error over fresh seeds; None where they show no spread."""
    return None if point.repeats is None else point.repeats.errors.get(objective.metric)


def _padded(values: Sequence[float], least: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = max(0.07 * (high - low), least * 1.15, 0.005 if high == low else 0.0)
    return low - room, high + room
