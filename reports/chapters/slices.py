"""Every searched trial against every setting that varied: the slices of "What mattered"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports.chapters.panels import evenly, leads, linear_axis, log_axis, name_axis, panel_grid, room, spread_out
from reports.chapters.parameters import Parameter
from reports.figures import Styles, shorten
from reports.fronts import Point, Study
from reports.style import Theme, marker
from repsim.records import METRICS

MOST = 12
"""Settings shown; a search over more has a table of all trials to look at."""
MOST_NAMES = 12
"""Categories that fit under a panel; a setting with more of them is left out."""


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A trial in one panel. Among categories, ``x`` is the category's place, and a little aside."""

    x: float
    y: float
    method: str
    backbone: str


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One setting: ``dots[row]`` are its trials in each objective; ``names`` its categories, empty for numbers."""

    name: str
    log: bool
    names: tuple[str, ...]
    dots: tuple[tuple[Dot, ...], ...]


@dataclass(frozen=True, kw_only=True)
class SlicesPicture:
    """A column per setting, a row per objective. ``left_out`` settings have no place; ``n`` trials are behind it."""

    metrics: tuple[str, ...]
    slices: tuple[Slice, ...]
    left_out: tuple[str, ...]
    n: int
    styles: Styles


def slices_picture(
    study: Study, points: Sequence[Point], varied: Sequence[Parameter], styles: Styles
) -> SlicesPicture | None:
    """``points`` against the settings that varied among them; None with fewer than three, or where none varied."""
    shown = [p for p in varied if p.numbers or len(set(p.present)) <= MOST_NAMES][:MOST]
    if len(points) < 3 or not shown:
        return None
    return SlicesPicture(
        metrics=tuple(objective.metric for objective in study.objectives),
        slices=tuple(_slice(parameter, points, styles, len(study.objectives)) for parameter in shown),
        left_out=tuple(parameter.name for parameter in varied if parameter not in shown),
        n=len(points),
        styles=styles,
    )


def _slice(parameter: Parameter, points: Sequence[Point], styles: Styles, objectives: int) -> Slice:
    names = () if parameter.numbers else _names(parameter, styles)
    having = [(index, value) for index, value in enumerate(parameter.values) if value is not None]
    kept = [(points[having[at][0]], _place(having[at][1], having[at][0], names)) for at in evenly(len(having))]
    dots = tuple(
        tuple(Dot(x=x, y=point.values[row], method=point.method, backbone=point.backbone) for point, x in kept)
        for row in range(objectives)
    )
    return Slice(name=parameter.name, log=parameter.log, names=names, dots=dots)


def _names(parameter: Parameter, styles: Styles) -> tuple[str, ...]:
    """Categories in the order of the styles where they are methods, else by name."""
    names = {str(value) for value in parameter.present}
    known = [name for name in styles.methods if name in names]
    return (*known, *sorted(names - set(known)))


def _place(value: float | str, index: int, names: Sequence[str]) -> float:
    return value if isinstance(value, float) else names.index(value) + spread_out(index)


def draw_slices(picture: SlicesPicture, theme: Theme) -> Figure:
    """A dot per trial, in its method's colour and its backbone's marker."""
    figure, grid = panel_grid(len(picture.metrics), len(picture.slices))
    for row, metric in enumerate(picture.metrics):
        limits = room([dot.y for part in picture.slices for dot in part.dots[row]])
        for column, part in enumerate(picture.slices):
            axes = grid[row][column]
            xs = [dot.x for dot in part.dots[row]]
            if part.names:
                name_axis(axes, part.names)
            else:
                (log_axis if part.log else linear_axis)(axes, xs)
            axes.set_ylim(*limits)
            for slot, method in enumerate(picture.styles.methods):
                for place, backbone in enumerate(picture.styles.backbones):
                    mine = [
                        (dot.x, dot.y) for dot in part.dots[row] if (dot.method, dot.backbone) == (method, backbone)
                    ]
                    if mine:
                        axes.scatter(
                            *zip(*mine, strict=True),
                            s=18,
                            marker=marker(place),
                            color=theme.colour(slot),
                            alpha=0.7,
                            linewidths=0,
                        )
            if row == 0:
                axes.set_title(shorten(part.name, 24))
            elif part.names:
                axes.grid(visible=False, axis="x")
            if row < len(picture.metrics) - 1:
                axes.tick_params(labelbottom=False)
            if leads(column):
                axes.set_ylabel(shorten(METRICS[metric].label, 28))
            else:
                axes.tick_params(labelleft=False)
    _legend(figure, picture, theme)
    return figure


def _legend(figure: Figure, picture: SlicesPicture, theme: Theme) -> None:
    dots = [dot for part in picture.slices for dot in part.dots[0]]
    methods, backbones = {dot.method for dot in dots}, {dot.backbone for dot in dots}
    entries = [(theme.colour(slot), "o", name) for slot, name in enumerate(picture.styles.methods) if name in methods]
    if len(backbones) > 1:
        entries += [
            (theme.ink, marker(slot), name) for slot, name in enumerate(picture.styles.backbones) if name in backbones
        ]
    handles = [
        # a leading underscore would hide the entry
        Line2D([], [], linestyle="", marker=shape, color=colour, markersize=6, label=f" {shorten(name, 28)}")
        for colour, shape, name in entries
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, handletextpad=0.2, columnspacing=1.2)
