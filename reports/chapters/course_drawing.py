"""Draws the pictures of reports.chapters.course_pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from reports.chapters.course_pictures import PARTS, GrowthPicture, Panel, SharePicture, SlotMark, SlotPicture
from reports.drawing import new_figure
from reports.figures import shorten
from reports.style import Theme
from repsim.records import Status

_ROW = 0.27
"""Inches per row of bars."""
_NAMED_PAUSES = 6
_NAMED_ROWS = 24
_HALF = 0.4
_THIN = 0.12


def draw_growth(picture: GrowthPicture, theme: Theme) -> Figure:
    """Hypervolume in panels that share their y axis."""
    figure = new_figure(3.1 * len(picture.panels) + 1.0, 3.4)
    grid = figure.subplots(1, len(picture.panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(grid, picture.panels, strict=True):
        xs, values = _corners(panel)
        axes.step(xs, values, where="post", color=theme.colour(2), linewidth=2)
        axes.plot(xs[-1:], values[-1:], "o", color=theme.colour(2), markersize=5)
        axes.set_xlabel(panel.label)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=max(panel.xs) >= 5))
    for x in picture.pauses:
        grid[-1].axvline(x, color=theme.muted, linewidth=0.9, linestyle=":")
    grid[0].set_ylabel("hypervolume (share of the box)")
    grid[0].set_ylim(0, min(1.0, max(0.05, 1.12 * max(max(panel.values) for panel in picture.panels))))
    figure.supxlabel(picture.reference, fontsize=9, color=theme.muted)
    return figure


def _corners(panel: Panel) -> tuple[list[float], list[float]]:
    """The points at which the line turns, and the last: a long sweep changes its front seldom."""
    last = len(panel.values) - 1
    kept = [i for i in range(last + 1) if i in (0, last) or panel.values[i] != panel.values[i - 1]]
    return [panel.xs[i] for i in kept], [panel.values[i] for i in kept]


def draw_slots(picture: SlotPicture, theme: Theme) -> Figure:
    """A row per slot, a bar per run in its method's colour, marks where a run ended badly or was begun again."""
    figure = new_figure(9.4, 1.7 + _ROW * len(picture.rows))
    axes = figure.add_subplot()
    _bars(axes, picture, theme)
    for status, shape, colour in _endings(theme):
        ends = [(mark.x + mark.width, mark.lane) for mark in picture.marks if _ends(mark, status)]
        if ends:
            xs, lanes = zip(*ends, strict=True)
            axes.scatter(xs, lanes, marker=shape, s=26, color=colour, linewidths=1.3, zorder=4)
    again = [(mark.x, mark.lane) for mark in picture.marks if mark.retried and not mark.doubtful]
    if again:
        xs, lanes = zip(*again, strict=True)
        axes.scatter(xs, lanes, marker=">", s=22, color=theme.ink, linewidths=0, zorder=4)
    for number, (x, words) in enumerate(picture.pauses):
        axes.axvline(x, color=theme.ink, linewidth=1.0, linestyle=":", zorder=3)
        if number < _NAMED_PAUSES:
            axes.annotate(
                words, (x, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points",
                ha="center", fontsize=8.5, color=theme.muted,
            )  # fmt: skip
    axes.set_ylim(len(picture.rows) - 0.4, -0.6)
    every = -(-len(picture.rows) // _NAMED_ROWS)
    axes.set_yticks(range(0, len(picture.rows), every), picture.rows[::every])
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.set_xlabel(f"{picture.unit} since the sweep's start" + (", without the pauses" if picture.pauses else ""))
    _slot_legend(figure, picture, theme)
    return figure


def _bars(axes: Any, picture: SlotPicture, theme: Theme) -> None:
    """Those that look the same are one artist: a long sweep has hundreds."""
    looks: dict[tuple[str, bool, bool], list[list[tuple[float, float]]]] = {}
    for mark in picture.marks:
        half = _THIN if mark.doubtful else _HALF
        left, right, top, bottom = mark.x, mark.x + mark.width, mark.lane - half, mark.lane + half
        whole = mark.status == Status.COMPLETED.value and not mark.doubtful
        corners = [(left, bottom), (right, bottom), (right, top), (left, top)]
        looks.setdefault((mark.method, whole, mark.confirming), []).append(corners)
    for (method, whole, confirming), several in looks.items():
        bars = PolyCollection(
            several,
            facecolors=theme.colour(picture.styles.methods.index(method)),
            edgecolors=theme.background,
            linewidths=0.4,
            alpha=1.0 if whole else 0.5,
            hatch="////" if confirming else None,
            zorder=2,
        )
        axes.add_collection(bars)
    first, last = picture.x_range
    room = 0.015 * (last - first)
    axes.set_xlim(first - room, last + room)


def _ends(mark: SlotMark, status: Status) -> bool:
    return mark.status == status.value and not mark.doubtful


def _endings(theme: Theme) -> Sequence[tuple[Status, str, str]]:
    return (
        (Status.PRUNED, "x", theme.muted),
        (Status.FAILED, "X", theme.ink),
        (Status.RUNNING, "4", theme.ink),
    )


_ENDING_NAMES = {Status.PRUNED: "stopped early", Status.FAILED: "failed", Status.RUNNING: "under way"}


def _slot_legend(figure: Any, picture: SlotPicture, theme: Theme) -> None:
    present = {mark.method for mark in picture.marks}
    handles: list[Any] = [
        Patch(facecolor=theme.colour(slot), label=_visible(name))
        for slot, name in enumerate(picture.styles.methods)
        if name in present
    ]
    if any(mark.confirming for mark in picture.marks):
        handles.append(Patch(facecolor=theme.muted, edgecolor=theme.background, hatch="////", label="confirmation"))
    for status, shape, colour in _endings(theme):
        if any(_ends(mark, status) for mark in picture.marks):
            handles.append(_symbol(shape, colour, _ENDING_NAMES[status]))
    if any(mark.retried and not mark.doubtful for mark in picture.marks):
        handles.append(_symbol(">", theme.ink, "begun again"))
    if any(mark.doubtful for mark in picture.marks):
        handles.append(Patch(facecolor=theme.muted, alpha=0.5, label="thin: may have run or waited"))
    if picture.pauses:
        handles.append(Line2D([], [], color=theme.ink, linewidth=1.0, linestyle=":", label="pause, taken out"))
    figure.legend(handles=handles, loc="outside lower center", ncols=5, handletextpad=0.5, columnspacing=1.4)


def _symbol(shape: str, colour: str, label: str) -> Any:
    return Line2D([], [], linestyle="", marker=shape, markersize=6, color=colour, label=label)


def _visible(name: str) -> str:
    """A legend hides names that begin with an underscore."""
    return f" {shorten(name, 28)}" if name.startswith("_") else shorten(name, 28)


def draw_shares(picture: SharePicture, theme: Theme) -> Figure:
    """One stacked bar for all slots together and one per method, in shades that no method has."""
    figure = new_figure(9.4, 1.5 + _ROW * len(picture.rows))
    axes = figure.add_subplot()
    looks = _looks(theme)
    for row, (_, values) in enumerate(picture.rows):
        left = 0.0
        for value, (face, edge, hatch) in zip(values, looks, strict=True):
            if value > 0:
                axes.barh(
                    row, value, left=left, height=2 * _HALF, facecolor=face, edgecolor=edge, hatch=hatch, linewidth=0.4
                )
            left += value
    axes.set_ylim(len(picture.rows) - 0.4, -0.6)
    axes.set_yticks(range(len(picture.rows)), [_visible(name) for name, _ in picture.rows])
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.set_xlabel(f"slot time, {picture.unit}")
    handles = [
        Patch(facecolor=face, edgecolor=edge, hatch=hatch, linewidth=0.4, label=name)
        for number, (name, (face, edge, hatch)) in enumerate(zip(PARTS, looks, strict=True))
        if any(values[number] > 0 for _, values in picture.rows)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, handletextpad=0.5, columnspacing=1.4)
    return figure


def _looks(theme: Theme) -> Sequence[tuple[str, str, str | None]]:
    """Face, edge and hatch of each of PARTS."""
    return (
        (theme.ink, theme.background, None),
        (theme.muted, theme.background, None),
        (theme.muted, theme.background, "////"),
        (theme.grid, theme.muted, "xxx"),
        (theme.background, theme.muted, "..."),
        (theme.grid, theme.background, None),
    )
