"""Methods one by one: what each picture shows, and how it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports.chapters.attainment import Attainment, Place, attainments
from reports.drawing import new_figure
from reports.figures import Styles, axis_label, shorten, staircase
from reports.fronts import Point, Study, front_order
from reports.style import Theme, marker

COLUMNS = 3
MOST = 12
"""Panels in one picture; more would be too small to read."""
DRAWN = 150
"""Points in a panel of its method, and of all methods behind it; of more, an even sample and the front."""
CROWD = 60
"""Points from which they are drawn smaller and paler."""
QUANTILE_LINES = ((":", "a quarter of the seeds"), ("--", "half"), ("-.", "three quarters"))


@dataclass(frozen=True, kw_only=True)
class MethodPanel:
    """One method: its own points and front (steps by rising x), and what its confirmed configurations attain.

    ``trials`` counts its completed trials, of which ``points`` and ``infeasible`` are those drawn. Where there are
    ``means`` over fresh seeds, the front is theirs.
    """

    method: str
    trials: int
    points: tuple[Place, ...]
    infeasible: tuple[Place, ...]
    means: tuple[Place, ...]
    steps: tuple[Place, ...]
    attained: Attainment

    @property
    def note(self) -> str:
        """What its lines rest on."""
        trained = f"{self.trials:,} trial" + ("" if self.trials == 1 else "s")
        return f"{trained} · n = {self.attained.n} seeds" if self.attained.surfaces else trained


@dataclass(frozen=True, kw_only=True)
class MethodsPicture:
    """A panel per method of one backbone; all methods' points stand pale behind each, the anchors are marked."""

    x_label: str
    y_label: str
    backbone: str
    everything: tuple[Place, ...]
    anchors: tuple[Place, ...]
    panels: tuple[MethodPanel, ...]
    styles: Styles

    @property
    def sampled(self) -> bool:
        """Whether some panel leaves out points."""
        trials = sum(panel.trials for panel in self.panels)
        return trials > len(self.everything) or any(
            panel.trials > len(panel.points) + len(panel.infeasible) for panel in self.panels
        )


def methods_picture(study: Study, styles: Styles, backbone: str, methods: tuple[str, ...]) -> MethodsPicture | None:
    """None with a single objective, and where there is one method alone."""
    if study.axes.x is None or len(methods) < 2:
        return None
    trained = [p for p in study.points if p.backbone == backbone and p.derived_from is None and not p.pruned]
    means = [point for point in study.means if point.backbone == backbone]
    attained = attainments(study, backbone)
    panels = []
    for method in methods[:MOST]:
        own = [point for point in trained if point.method == method]
        repeated = [point for point in means if point.method == method]
        pool = repeated or own
        front = [pool[index] for index in front_order(pool, study.objectives)]
        panels.append(
            MethodPanel(
                method=method,
                trials=len(own),
                points=_places([p for p in own if p.eligible], {point.run_id for point in front}),
                infeasible=_places([p for p in own if not p.eligible], set()),
                means=_places(repeated, {point.run_id for point in front}),
                steps=staircase(front, study.axes.x.direction) if len(study.objectives) == 2 else (),
                attained=attained.get(method, Attainment()),
            )
        )
    return MethodsPicture(
        x_label=axis_label(study.axes.x.metric, study.axes.x.direction),
        y_label=axis_label(study.axes.y.metric, study.axes.y.direction),
        backbone=backbone,
        everything=_places(trained, set()),
        anchors=tuple((point.values[1], point.values[0]) for point in trained if point.anchor),
        panels=tuple(panels),
        styles=styles,
    )


def _places(points: Sequence[Point], always: set[str]) -> tuple[Place, ...]:
    """Where the points stand: all, or about ``DRAWN`` evenly taken ones and those that are ``always`` drawn."""
    step = -(-len(points) // DRAWN) or 1
    kept = [point for number, point in enumerate(points) if number % step == 0 or point.run_id in always]
    return tuple((point.values[1], point.values[0]) for point in kept)


def draw_methods(picture: MethodsPicture, theme: Theme) -> Figure:
    """Small multiples with common axes."""
    columns = min(COLUMNS, len(picture.panels))
    rows = -(-len(picture.panels) // columns)
    figure = new_figure(2.9 * columns + 0.6, 2.4 * rows + 0.9)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, panel in zip(grid.flat, picture.panels, strict=False):
        _panel(axes, picture, panel, theme)
    for number, axes in enumerate(grid.flat):
        axes.set_visible(number < len(picture.panels))
        if number < len(picture.panels) <= number + columns:  # the lowest of its column
            axes.tick_params(labelbottom=True)
            axes.set_xlabel(picture.x_label, fontsize=8.5)
    figure.supylabel(picture.y_label, fontsize=9.5, color=theme.ink)
    figure.legend(handles=_handles(picture, theme), loc="outside lower center", ncols=3, fontsize=8.5)
    return figure


def _panel(axes: Any, picture: MethodsPicture, panel: MethodPanel, theme: Theme) -> None:
    colour = theme.colour(picture.styles.methods.index(panel.method))
    shape = marker(picture.styles.backbones.index(picture.backbone))
    axes.set_title(f"{shorten(panel.method, 26)}\n", fontsize=9.5)
    axes.text(0.0, 1.03, panel.note, transform=axes.transAxes, fontsize=8, color=theme.muted)
    if picture.everything:
        axes.scatter(*zip(*picture.everything, strict=True), s=9, color=theme.muted, alpha=0.25, linewidths=0, zorder=1)
    if picture.anchors:
        places = zip(*picture.anchors, strict=True)
        axes.scatter(*places, s=70, facecolors="none", edgecolors=theme.muted, zorder=1.5)
    size, solid = (20, 0.8) if len(panel.points) < CROWD else (9, 0.6)
    if panel.points:
        axes.scatter(*zip(*panel.points, strict=True), s=size, marker=shape, color=colour, alpha=solid, zorder=3)
    if panel.infeasible:
        places = zip(*panel.infeasible, strict=True)
        axes.scatter(*places, s=size, marker=shape, facecolors="none", edgecolors=colour, zorder=2.9)
    if panel.means:
        places = zip(*panel.means, strict=True)
        axes.scatter(*places, s=42, marker=shape, color=colour, edgecolors=theme.ink, linewidths=0.8, zorder=3.1)
    if panel.steps:
        axes.plot(*zip(*panel.steps, strict=True), color=colour, linewidth=1.4, zorder=2.5)
    for stairs, (style, _) in zip(panel.attained.surfaces, QUANTILE_LINES, strict=False):
        if stairs:
            alone = "." if len(stairs) == 1 else "none"  # a staircase of one corner has no length
            look = {"linewidth": 0.9, "linestyle": style, "marker": alone, "markersize": 4}
            axes.plot(*zip(*stairs, strict=True), color=theme.ink, zorder=3.2, **look)
    axes.tick_params(labelsize=8)


def _handles(picture: MethodsPicture, theme: Theme) -> list[Any]:
    def dot(label: str, **look: Any) -> Any:
        return Line2D([], [], linestyle="", marker="o", label=label, **look)

    handles = [dot("all methods' trials", color=theme.muted, alpha=0.4, markersize=3)]
    if picture.anchors:
        handles.append(dot("anchor", markerfacecolor="none", markeredgecolor=theme.muted, markersize=8))
    if any(panel.infeasible for panel in picture.panels):
        handles.append(dot("infeasible", markerfacecolor="none", markeredgecolor=theme.ink, markersize=4))
    if any(panel.means for panel in picture.panels):
        handles.append(
            dot("mean over fresh seeds", markerfacecolor=theme.muted, markeredgecolor=theme.ink, markersize=6)
        )
    if any(panel.steps for panel in picture.panels):
        handles.append(Line2D([], [], color=theme.muted, linewidth=1.4, label="own front"))
    if any(panel.attained.surfaces for panel in picture.panels):
        handles += [
            Line2D([], [], color=theme.ink, linewidth=0.9, linestyle=style, label=f"attained by {share}")
            for style, share in QUANTILE_LINES
        ]
    return handles
