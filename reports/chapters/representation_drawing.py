"""Draws the maps of layers and the trajectories."""

from __future__ import annotations

import math
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from reports.chapters.layer_maps import LayerMap, LayerMapsPicture
from reports.chapters.trajectories import TrajectoriesPicture, Trajectory
from reports.drawing import new_figure
from reports.figures import shorten
from reports.style import Theme, marker

_COLUMNS = 4
_TICKS = 6
_LAYER_TICKS = 16


def draw_layer_maps(picture: LayerMapsPicture, theme: Theme) -> Figure:
    """One small map per run, input at the bottom, all with the same colours."""
    columns = min(_COLUMNS, len(picture.maps))
    rows = math.ceil(len(picture.maps) / columns)
    tall = max(len(one.layers) for one in picture.maps)
    panel = 1.0 + 0.15 * min(max(tall, 5), 20)
    figure = new_figure(max(4.6, 2.3 * columns + 1.3), panel * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False)
    shades: Any = mpl.colormaps["cividis"].with_extremes(bad=(0.0, 0.0, 0.0, 0.0))
    scale = mpl.cm.ScalarMappable(norm=mpl.colors.Normalize(picture.low, 1.0), cmap=shades)
    for number, axes in enumerate(grid.flat):
        if number >= len(picture.maps):
            axes.remove()
            continue
        one = picture.maps[number]
        _layer_map(axes, one, scale, theme)
        on = f"\n{shorten(one.backbone, 28)}" if picture.backbones > 1 else ""
        axes.set_title(f"{shorten(one.title, 28)}{' (anchor)' if one.anchor else ''}{on}", fontsize=9)
        if number >= len(picture.maps) - columns:
            axes.set_xlabel("epoch", fontsize=9)
    bar = figure.colorbar(scale, ax=list(figure.axes), shrink=0.9 if rows == 1 else 0.5, pad=0.015)
    bar.set_label("CKA with the pretrained layer", color=theme.ink)
    bar.outline.set_visible(False)
    return figure


def _layer_map(axes: Any, one: LayerMap, scale: Any, theme: Theme) -> None:
    axes.set_facecolor(theme.grid)  # shows through where nothing was measured: an image has no colours of a theme
    cells = np.ma.masked_invalid([[np.nan if value is None else value for value in row] for row in one.values])
    axes.imshow(cells, norm=scale.norm, cmap=scale.cmap, origin="lower", aspect="auto", interpolation="nearest")
    axes.grid(False)
    steps = [
        max(1, math.ceil(count / most)) for count, most in ((len(one.epochs), _TICKS), (len(one.layers), _LAYER_TICKS))
    ]
    at = range(0, len(one.epochs), steps[0])
    axes.set_xticks(list(at), [str(one.epochs[position]) for position in at], fontsize=8)
    at = range(0, len(one.layers), steps[1])
    axes.set_yticks(list(at), [shorten(one.layers[position], 18) for position in at], fontsize=7.5)
    axes.tick_params(length=2)
    if one.reported in one.epochs and one.reported != one.epochs[-1]:
        column = one.epochs.index(one.reported)
        axes.plot([column], [len(one.layers) - 0.3], "v", color=theme.ink, markersize=5, clip_on=False)


def draw_trajectories(picture: TrajectoriesPicture, theme: Theme) -> Figure:
    """A panel per backbone: every way a line, its first epoch an open circle, the reported model a large mark."""
    columns = min(2, len(picture.panels))
    rows = math.ceil(len(picture.panels) / columns)
    figure = new_figure(7.6 if columns == 1 else 9.6, 4.3 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for number, axes in enumerate(grid.flat):
        if number >= len(picture.panels):
            axes.remove()
            continue
        backbone, ways = picture.panels[number]
        if picture.backbones > 1:
            axes.set_title(shorten(backbone))
        axes.set_xlim(*picture.x_range)
        axes.set_ylim(*picture.y_range)
        pale = [way.points for way in ways if not way.told]
        axes.add_collection(LineCollection(pale, colors=theme.muted, linewidths=0.7, alpha=0.3, zorder=1.5))
        for way in ways:
            if way.told:
                _way(axes, way, picture, theme)
        axes.tick_params(labelbottom=True, labelleft=True)
        if number % columns == 0:
            axes.set_ylabel(picture.y_label)
        if number >= len(picture.panels) - columns:
            axes.set_xlabel(picture.x_label)
    _legend(figure, picture, theme)
    return figure


def _way(axes: Any, way: Trajectory, picture: TrajectoriesPicture, theme: Theme) -> None:
    colour = theme.colour(picture.styles.methods.index(way.method))
    xs, ys = zip(*way.points, strict=True)
    axes.plot(xs, ys, "-", color=colour, linewidth=1.3, alpha=0.85, marker=".", markersize=3.5, zorder=3)
    if len(way.points) > 1:
        axes.plot(
            xs[:1], ys[:1], "o", markersize=6, markerfacecolor=theme.background, markeredgecolor=colour, zorder=3.5
        )
    x, y = way.reported or way.points[-1]
    if way.reported is not None:
        shape = marker(picture.styles.backbones.index(way.backbone))
        axes.plot(
            [x], [y], shape, markersize=8.5, color=colour, markeredgecolor=theme.ink, markeredgewidth=1.0, zorder=4
        )
    if way.label:
        share = (x - picture.x_range[0]) / (picture.x_range[1] - picture.x_range[0])
        axes.annotate(
            way.label,
            (x, y),
            xytext=(0, 7),
            textcoords="offset points",
            ha="left" if share < 0.1 else "right" if share > 0.9 else "center",
            fontsize=8.5,
            color=theme.ink,
            path_effects=[withStroke(linewidth=2.5, foreground=theme.background)],
            zorder=5,
        )


def _legend(figure: Any, picture: TrajectoriesPicture, theme: Theme) -> None:
    present = {way.method for way in picture.told}
    handles = [
        # a leading underscore would hide the entry
        Line2D([], [], color=theme.colour(slot), linewidth=2, label=f" {shorten(name, 28)}")
        for slot, name in enumerate(picture.styles.methods)
        if name in present
    ]
    handles += [
        Line2D(
            [],
            [],
            linestyle="",
            marker="o",
            markerfacecolor=fill,
            markeredgecolor=theme.ink,
            markersize=size,
            label=name,
        )
        for name, fill, size in (("after the first epoch", theme.background, 6.0), ("reported", theme.ink, 8.5))
    ]
    if picture.pale:
        handles.append(Line2D([], [], color=theme.muted, linewidth=0.7, alpha=0.5, label="other trials"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, handletextpad=0.5, columnspacing=1.4)
