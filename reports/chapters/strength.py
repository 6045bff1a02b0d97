"""What a penalty's strength does to accuracy and similarity, per method: the curves of "What mattered"."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports.chapters.panels import DRAWN, evenly, leads, linear_axis, log_axis, panel_grid, room
from reports.chapters.parameters import searched
from reports.chapters.smoothing import Curve, smooth
from reports.confirmed import SEVERAL
from reports.figures import Styles, shorten
from reports.fronts import Point, Study
from reports.load import Sweep, records
from reports.style import Theme, marker
from reports.values import finite
from repsim.config import TARGET_KEY
from repsim.records import METRICS

STRENGTH = "strength"
KNOBS = {STRENGTH: "strength λ", TARGET_KEY: "similarity asked for"}
"""What a trial can be asked for, and the name of that axis."""
ACCURACIES = ("val_accuracy", "val_balanced_accuracy", "val_auc")
SIMILARITY = "val_cka"
_LINES = ("-", "--", ":", "-.")


@dataclass(frozen=True, kw_only=True)
class Series:
    """One method on one backbone in one metric: its trials as (knob, value), and the curve through them.

    ``repeated`` are confirmed configurations: (knob, mean over fresh seeds, standard error; 0 where they are all the
    same). The curve's x is log10 λ, or the similarity that was asked for.
    """

    backbone: str
    points: tuple[tuple[float, float], ...]
    repeated: tuple[tuple[float, float, float], ...]
    curve: Curve | None


@dataclass(frozen=True, kw_only=True)
class StrengthPicture:
    """A column per method and knob, a row per metric: ``panels[row][column]``; ``left_out`` trials have λ = 0."""

    columns: tuple[tuple[str, str], ...]
    metrics: tuple[str, ...]
    panels: tuple[tuple[tuple[Series, ...], ...], ...]
    left_out: int
    styles: Styles

    @property
    def curves(self) -> tuple[Curve, ...]:
        """Every curve there is."""
        return tuple(s.curve for row in self.panels for panel in row for s in panel if s.curve is not None)

    @property
    def thinned(self) -> bool:
        """Whether some panel has more trials than it draws."""
        return any(len(s.points) > DRAWN // len(panel) for row in self.panels for panel in row for s in panel)

    @property
    def confirmed(self) -> bool:
        """Whether any mean over fresh seeds is shown."""
        return any(series.repeated for row in self.panels for panel in row for series in panel)


def strength_picture(sweep: Sweep, study: Study, styles: Styles) -> StrengthPicture | None:
    """Each metric against what was asked, for methods asked at two places or more; None where there is none."""
    rows = {str(row["mlflow_run_id"]): row for row in records(study.trials)}
    points = searched(study)
    asked: dict[str, dict[str, float]] = {knob: {} for knob in KNOBS}
    for point in points:
        for knob in KNOBS:
            value = finite(sweep.configs[point.run_id].get(knob))
            if value is not None:
                asked[knob][point.run_id] = value
    none = [run_id for run_id, value in asked[STRENGTH].items() if value <= 0]
    for run_id in none:
        del asked[STRENGTH][run_id]
    mine = {
        (method, knob): [point for point in points if point.method == method and point.run_id in asked[knob]]
        for method in styles.methods
        for knob in KNOBS
    }
    columns = [
        (method, knob)
        for (method, knob), found in mine.items()
        if len({asked[knob][point.run_id] for point in found}) > 1
    ]
    metrics = [name for name in _metrics(study) if any(finite(rows[p.run_id][name]) is not None for p in points)]
    if not columns or not metrics:
        return None
    means = {point.run_id: point for point in study.means}
    panels = []
    for metric in metrics:
        told = partial(_series, metric=metric, rows=rows, means=means, backbones=styles.backbones)
        panels.append(tuple(told(mine[column], asked[column[1]], column[1]) for column in columns))
    return StrengthPicture(
        columns=tuple(columns),
        metrics=tuple(metrics),
        panels=tuple(panels),
        left_out=len(none),
        styles=styles,
    )


def _metrics(study: Study) -> list[str]:
    """The objectives, and accuracy and similarity where they are none of them."""
    names = [objective.metric for objective in study.objectives]
    if not set(names) & set(ACCURACIES):
        names.insert(0, ACCURACIES[0])
    return list(dict.fromkeys([*names, SIMILARITY]))


def _series(
    points: Sequence[Point],
    asked: Mapping[str, float],
    knob: str,
    *,
    metric: str,
    rows: Mapping[str, Mapping[str, object]],
    means: Mapping[str, Point],
    backbones: Sequence[str],
) -> tuple[Series, ...]:
    found = []
    for backbone in backbones:
        told, repeated = [], []
        for point in points:
            if point.backbone != backbone:
                continue
            x, y = asked[point.run_id], finite(rows[point.run_id][metric])
            if y is not None:
                told.append((x, y))
            again = means[point.run_id].repeats if point.run_id in means else None
            if again is not None and again.n >= SEVERAL and metric in again.means:
                error = again.errors[metric]
                repeated.append((x, again.means[metric], 0.0 if error is None else error))
        if told:
            told.sort()
            curve = smooth([_scale(knob)(x) for x, _ in told], [y for _, y in told])
            found.append(Series(backbone=backbone, points=tuple(told), repeated=tuple(sorted(repeated)), curve=curve))
    return tuple(found)


def _scale(knob: str) -> Callable[[float], float]:
    return math.log10 if knob == STRENGTH else float


def draw_strength(picture: StrengthPicture, theme: Theme) -> Figure:
    """Points, curves with bands, and means with bars, in the method's colour and the backbone's marker."""
    figure, grid = panel_grid(len(picture.metrics), len(picture.columns))
    for row, metric in enumerate(picture.metrics):
        limits = room([y for panel in picture.panels[row] for y in _heights(panel)])
        for column, (method, knob) in enumerate(picture.columns):
            axes, panel = grid[row][column], picture.panels[row][column]
            colour = theme.colour(picture.styles.methods.index(method))
            xs = [
                x
                for other, (_, kind) in zip(picture.panels[row], picture.columns, strict=True)
                for series in other
                if kind == knob
                for x, _ in series.points
            ]
            (log_axis if knob == STRENGTH else linear_axis)(axes, xs)
            axes.set_ylim(*limits)
            if knob == TARGET_KEY and metric == SIMILARITY:
                axes.axline((0.5, 0.5), slope=1, color=theme.muted, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1.5)
            for series in panel:
                slot = picture.styles.backbones.index(series.backbone)
                _draw_series(axes, series, knob, colour, slot, DRAWN // len(panel), theme)
            if row == 0:
                axes.set_title(shorten(method, 22))
            if row == len(picture.metrics) - 1:
                axes.set_xlabel(KNOBS[knob])
            if leads(column):
                axes.set_ylabel(shorten(METRICS[metric].label, 28))
            else:
                axes.tick_params(labelleft=False)
    _legend(figure, picture, theme)
    return figure


def _heights(panel: Sequence[Series]) -> list[float]:
    """What has to be inside a panel; a band may leave it."""
    found = [y for series in panel for _, y in series.points]
    found += [y + side * se for series in panel for _, y, se in series.repeated for side in (-1, 1)]
    return found + [y for series in panel if series.curve is not None for y in series.curve.y]


def _draw_series(axes: Any, series: Series, knob: str, colour: str, slot: int, limit: int, theme: Theme) -> None:
    drawn = [series.points[index] for index in evenly(len(series.points), limit)]
    alpha = 0.75 if series.curve is None else 0.45
    xs, ys = zip(*drawn, strict=True)
    axes.scatter(xs, ys, s=20, marker=marker(slot), color=colour, alpha=alpha, linewidths=0, zorder=3)
    if series.curve is not None:
        along = [10**x for x in series.curve.x] if knob == STRENGTH else list(series.curve.x)
        axes.fill_between(along, series.curve.low, series.curve.high, color=colour, alpha=0.17, linewidth=0, zorder=2)
        axes.plot(along, series.curve.y, color=colour, linewidth=1.8, linestyle=_LINES[slot % len(_LINES)], zorder=2.5)
    if series.repeated:
        at, means, errors = zip(*series.repeated, strict=True)
        axes.errorbar(
            at, means, yerr=errors, fmt=marker(slot), color=colour, ecolor=theme.ink, markersize=6.5,
            markeredgecolor=theme.ink, elinewidth=1.1, capsize=2.5, zorder=4,
        )  # fmt: skip


def _legend(figure: Figure, picture: StrengthPicture, theme: Theme) -> None:
    handles = []
    if len(picture.styles.backbones) > 1:
        handles += [
            Line2D([], [], color=theme.muted, marker=marker(slot), label=f" {shorten(name, 28)}",
                   linestyle=_LINES[slot % len(_LINES)] if picture.curves else "")
            for slot, name in enumerate(picture.styles.backbones)
        ]  # fmt: skip
    if picture.confirmed:
        name = "mean over fresh seeds ± standard error"
        handles.append(
            Line2D([], [], color=theme.ink, marker="o", markerfacecolor=theme.muted, linewidth=1.1, label=name)
        )
    if any(knob == TARGET_KEY for _, knob in picture.columns) and SIMILARITY in picture.metrics:
        handles.append(Line2D([], [], color=theme.muted, linestyle=(0, (4, 3)), linewidth=0.9, label="as asked"))
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
