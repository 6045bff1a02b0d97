"""Methods one by one: what each picture shows, and how it is drawn."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.figure import Figure

from reports.chapters.attainment import Attainment, Place, attainment
from reports.drawing import new_figure
from reports.figures import Styles, axis_label, shorten, staircase
from reports.fronts import Study, front_order
from reports.style import Theme, marker

COLUMNS = 3
MOST = 12
"""Panels in one picture; more would be too small to read."""


@dataclass(frozen=True, kw_only=True)
class MethodPanel:
    """One method: its own points and front (steps by rising x), and what its confirmed configurations attain."""

    method: str
    points: tuple[Place, ...]
    steps: tuple[Place, ...]
    attained: Attainment


@dataclass(frozen=True, kw_only=True)
class MethodsPicture:
    """A panel per method of one backbone; every point stands pale behind each, the anchors are marked."""

    x_label: str
    y_label: str
    backbone: str
    everything: tuple[Place, ...]
    anchors: tuple[Place, ...]
    panels: tuple[MethodPanel, ...]
    styles: Styles


def methods_picture(study: Study, styles: Styles, backbone: str, methods: tuple[str, ...]) -> MethodsPicture | None:
    """None with a single objective, and where there is one method alone."""
    if study.axes.x is None or len(methods) < 2:
        return None
    trained = [p for p in study.points if p.backbone == backbone and p.derived_from is None and not p.pruned]
    means = [point for point in study.means if point.backbone == backbone]
    panels = []
    for method in methods[:MOST]:
        own = [point for point in trained if point.method == method]
        pool = [point for point in means if point.method == method] or own
        front = [pool[index] for index in front_order(pool, study.objectives)]
        panels.append(
            MethodPanel(
                method=method,
                points=tuple((point.values[1], point.values[0]) for point in own),
                steps=staircase(front, study.axes.x.direction) if len(study.objectives) == 2 else (),
                attained=attainment(study, method, backbone),
            )
        )
    return MethodsPicture(
        x_label=axis_label(study.axes.x.metric, study.axes.x.direction),
        y_label=axis_label(study.axes.y.metric, study.axes.y.direction),
        backbone=backbone,
        everything=tuple((point.values[1], point.values[0]) for point in trained),
        anchors=tuple((point.values[1], point.values[0]) for point in trained if point.anchor),
        panels=tuple(panels),
        styles=styles,
    )


def draw_methods(picture: MethodsPicture, theme: Theme) -> Figure:
    """Small multiples with common axes."""
    columns = min(COLUMNS, len(picture.panels))
    rows = -(-len(picture.panels) // columns)
    figure = new_figure(2.7 * columns + 0.6, 2.4 * rows + 0.5)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    shape = marker(picture.styles.backbones.index(picture.backbone))
    for axes, panel in zip(grid.flat, picture.panels, strict=False):
        colour = theme.colour(picture.styles.methods.index(panel.method))
        axes.set_title(shorten(panel.method, 26), fontsize=9.5)
        if picture.everything:
            axes.scatter(*zip(*picture.everything, strict=True), s=9, color=theme.grid, zorder=1)
        if picture.anchors:
            axes.scatter(
                *zip(*picture.anchors, strict=True), s=70, facecolors="none", edgecolors=theme.muted, zorder=1.5
            )
        if panel.points:
            axes.scatter(*zip(*panel.points, strict=True), s=20, marker=shape, color=colour, alpha=0.8, zorder=3)
        if panel.steps:
            axes.plot(*zip(*panel.steps, strict=True), color=colour, linewidth=1.4, zorder=2.5)
        for stairs, style in zip(panel.attained.surfaces, (":", "--", "-."), strict=False):
            if stairs:
                axes.plot(*zip(*stairs, strict=True), color=theme.ink, linewidth=0.9, linestyle=style, zorder=2.8)
        axes.tick_params(labelsize=8)
    for axes in list(grid.flat)[len(picture.panels) :]:
        axes.set_visible(False)
    figure.supxlabel(picture.x_label, fontsize=9.5, color=theme.ink)
    figure.supylabel(picture.y_label, fontsize=9.5, color=theme.ink)
    return figure
