"""The importance of every setting for every objective of a data set: its numbers, their picture and their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from reports.chapters.importance import MIN_TRIALS, Importance, category_cells, importance, number_cells
from reports.chapters.parameters import Parameter
from reports.drawing import new_figure
from reports.figures import shorten
from reports.fronts import Point, Study
from reports.paper_tables import Table
from reports.style import Theme
from repsim.records import METRICS

MOST = 20
"""Settings in the picture; the table has all."""


@dataclass(frozen=True, kw_only=True)
class Influence:
    """What a setting that ``n`` of the trials have settles of each metric, None where it is not known."""

    name: str
    n: int
    of: int
    found: tuple[Importance | None, ...]

    @property
    def greatest(self) -> float:
        """The greatest share in any metric, 0 where none is known."""
        return max((told.share for told in self.found if told is not None), default=0.0)

    @property
    def known(self) -> bool:
        """Whether there is a share in any metric."""
        return any(told is not None for told in self.found)


@dataclass(frozen=True, kw_only=True)
class InfluencePicture:
    """A panel per metric, a bar per setting, the greatest first."""

    metrics: tuple[str, ...]
    bars: tuple[Influence, ...]


def influences(study: Study, points: Sequence[Point], varied: Sequence[Parameter]) -> tuple[Influence, ...]:
    """Every setting that varied, the most important first; each judged among the trials that have it."""
    found = []
    for parameter in varied:
        having = [index for index, value in enumerate(parameter.values) if value is not None]
        told = []
        for row, objective in enumerate(study.objectives):
            sign = -1.0 if objective.direction == "maximize" else 1.0
            told.append(_judged(parameter, [sign * points[index].values[row] for index in having]))
        found.append(Influence(name=parameter.name, n=len(having), of=len(points), found=tuple(told)))
    return tuple(sorted(found, key=lambda influence: -influence.greatest))


def _judged(parameter: Parameter, losses: Sequence[float]) -> Importance | None:
    if len(losses) < MIN_TRIALS:
        return None
    if parameter.range:
        return importance(number_cells(parameter.numbers, log=parameter.log), losses)
    return importance(category_cells([str(value) for value in parameter.present]), losses)


def influence_picture(study: Study, found: Sequence[Influence]) -> InfluencePicture | None:
    """The settings with a share, at most MOST; None without any."""
    bars = tuple(influence for influence in found if influence.known)[:MOST]
    if not bars:
        return None
    return InfluencePicture(metrics=tuple(objective.metric for objective in study.objectives), bars=bars)


def draw_influence(picture: InfluencePicture, theme: Theme) -> Figure:
    """Bars with a standard error, pale where they are not more than chance; a stroke where chance ends."""
    rows, columns = len(picture.bars), len(picture.metrics)
    figure = new_figure(max(4.6, 1.9 + 2.9 * columns), 1.2 + 0.36 * rows)
    grid = figure.subplots(1, columns, sharey=True, sharex=True, squeeze=False)[0]
    for column, metric in enumerate(picture.metrics):
        axes = grid[column]
        for place, bar in enumerate(picture.bars):
            told = bar.found[column]
            if told is None:
                continue
            axes.barh(place, told.share, height=0.62, color=theme.colour(2), alpha=0.9 if told.told else 0.3)
            left = min(told.error, told.share)  # no share is below 0
            axes.errorbar(
                [told.share], [place], xerr=[[left], [told.error]], color=theme.ink, linewidth=1.0, capsize=2.5
            )
            axes.plot([told.chance] * 2, [place - 0.4, place + 0.4], color=theme.muted, linewidth=1.6)
        axes.set_title(shorten(METRICS[metric].label, 28))
        axes.set_xlabel("share settled by it alone")
        axes.xaxis.set_major_locator(MaxNLocator(5, prune="upper"))
        axes.set_yticks(range(rows), [shorten(bar.name, 26) for bar in picture.bars])
        axes.tick_params(axis="y", length=0, labelcolor=theme.ink)
        axes.grid(visible=False, axis="y")
    grid[0].set_ylim(rows - 0.4, -0.6)
    grid[0].set_xlim(0, min(1.0, 1.08 * max(_reach(bar) for bar in picture.bars)))
    handles = [
        Patch(color=theme.colour(2), alpha=0.9, label="more than chance"),
        Patch(color=theme.colour(2), alpha=0.3, label="not more than chance"),
        Line2D([], [], color=theme.muted, linewidth=1.6, label="95 % of chance"),
        Line2D([], [], color=theme.ink, linewidth=1.0, label="± one standard error"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4 if columns > 1 else 2, columnspacing=1.2)
    return figure


def _reach(bar: Influence) -> float:
    return max(max(told.share + told.error, told.chance) for told in bar.found if told is not None)


def influence_table(study: Study, found: Sequence[Influence]) -> Table:
    """Every share that is known, with its standard error, what chance gives, and from how many trials."""
    rows = [
        (influence.name, METRICS[objective.metric].label, told.share, told.error, told.chance, told.n, told.best)
        for objective, at in zip(study.objectives, range(len(study.objectives)), strict=True)
        for influence in found
        if (told := influence.found[at]) is not None
    ]
    return Table(
        name="importance",
        caption="",
        columns=("setting", "objective", "share", "standard error", "95 % of chance", "n", "of which best"),
        rows=tuple(rows),
        metrics={},
    )
