"""Small multiples: a row of panels per objective, a column per thing looked at, in lines of a few columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from reports.drawing import new_figure
from reports.figures import shorten

PER_LINE = 4
DRAWN = 200
"""Trials drawn in one panel at the most, evenly chosen from all."""
_GOLDEN = 0.6180339887


def panel_grid(rows: int, columns: int) -> tuple[Figure, list[list[Any]]]:
    """A figure and its axes by row and column; every PER_LINE columns all rows start again below."""
    across, lines = min(columns, PER_LINE), math.ceil(columns / PER_LINE)
    figure = new_figure(max(4.4, 2.5 * across + 0.8), (2.0 * rows + 0.35) * lines + 0.5)
    grid = figure.subplots(rows * lines, across, squeeze=False)
    for spare in range(columns, across * lines):
        for row in range(rows):
            grid[spare // across * rows + row][spare % across].set_visible(False)
    places = [
        [grid[column // across * rows + row][column % across] for column in range(columns)] for row in range(rows)
    ]
    return figure, places


def leads(column: int) -> bool:
    """Whether a column is the first of its line, and so bears the names of the rows."""
    return column % PER_LINE == 0


def log_axis(axes: Any, values: Sequence[float]) -> None:
    """A logarithmic x axis over positive ``values`` with plain numbers: the theme turns mathematics off."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=9))
    axes.set_xlim(*_decade(values))
    low, high = axes.get_xlim()
    if math.log10(high / low) > 2.5:
        axes.xaxis.set_major_locator(LogLocator(numticks=6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def linear_axis(axes: Any, values: Sequence[float]) -> None:
    """An x axis with room at both ends and few ticks: the values themselves, where there are no more."""
    axes.set_xlim(*room(values))
    few = sorted(set(values))
    axes.xaxis.set_major_locator(MaxNLocator(4) if len(few) > 4 else FixedLocator(few))


def name_axis(axes: Any, names: Sequence[str]) -> None:
    """An x axis of categories, tilted where their names are long."""
    shown = [shorten(name, 14 if len(names) > 3 else 22) for name in names]
    tilted = sum(map(len, shown)) > 16
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_xticks(
        range(len(names)), shown, rotation=35 if tilted else 0, ha="right" if tilted else "center", fontsize=8.5
    )


def room(values: Sequence[float]) -> tuple[float, float]:
    """Limits around values that leave some room, also around a single one."""
    low, high = min(values), max(values)
    margin = 0.07 * (high - low) or 0.05 * abs(high) or 0.05
    return low - margin, high + margin


def _decade(values: Sequence[float]) -> tuple[float, float]:
    """Limits with room at both ends and at least a decade wide, so that some ticks fall inside."""
    low, high = min(values) / 1.3, max(values) * 1.3
    widen = max(1.0, math.sqrt(10 * low / high))
    return low / widen, high * widen


def spread_out(number: int) -> float:
    """Where point ``number`` of a category stands beside its middle: -0.28 ... 0.28, neighbours far apart."""
    return ((number + 1) * _GOLDEN % 1.0 - 0.5) * 0.56


def evenly(count: int, limit: int = DRAWN) -> list[int]:
    """Indices of at most ``limit`` of ``count`` points, evenly chosen."""
    return list(range(count)) if count <= limit else [index * count // limit for index in range(limit)]
