"""The comparison of sweeps as a page, a table and pictures."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from reports.comparing import Comparison, Entry, Shared
from reports.drawing import new_figure, save
from reports.figures import axis_label, shorten, staircase
from reports.markup import esc, image, table_html
from reports.paper_tables import Table
from reports.style import Theme, marker
from repsim.records import METRICS

_CAPTION = (
    "Hypervolume in a box that the sweeps of a data set share, from the worst of their reference points to the best of "
    "their ideals. n is the fewest fresh seeds behind a point of the front; where it is 1, the front is of single runs "
    "chosen for their values, and better by luck than it will be again."
)


def table(found: Comparison) -> Table:
    """A row per data set and sweep."""
    labels = tuple(f"best {METRICS[objective.metric].label}" for objective in found.objectives)
    rows = []
    for shared in found.shared:
        for entry in shared.entries:
            best = [_best(entry, objective.metric) for objective in found.objectives]
            n = max(entry.seeds, 1)
            rows.append((shared.data, entry.sweep, entry.runs, len(entry.members), n, entry.volume, *best))
    return Table(
        name="comparison",
        caption=_CAPTION,
        columns=("data", "sweep", "completed trials", "on the front", "n", "hypervolume", *labels),
        rows=tuple(rows),
        metrics={label: METRICS[o.metric] for label, o in zip(labels, found.objectives, strict=True)},
    )


def _best(entry: Entry, metric: str) -> float | None:
    for index, objective in enumerate(entry.study.objectives):
        if objective.metric == metric:
            values = [point.values[index] for point in entry.members]
            return (max if objective.direction == "maximize" else min)(values) if values else None
    return None


def render(found: Comparison, figures: Path) -> str:
    """The page; its pictures are saved in ``figures`` as well."""
    told = table(found)
    parts = [
        f'<p class="kicker">{esc(" · ".join(found.sweeps))}</p>',
        "<h1>Sweeps compared</h1>",
        f"<p>{esc(told.caption)}</p>",
        table_html(told),
    ]
    for number, shared in enumerate(found.shared, start=1):
        parts.append(_section(shared, figures, number))
    if found.apart:
        parts.append(f"<p>Not compared, because one sweep alone has them: {esc(', '.join(found.apart))}.</p>")
    css = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Sweeps compared</title>\n<style>{css}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _section(shared: Shared, figures: Path, number: int) -> str:
    parts = [f"<h2>On {esc(shared.data)}</h2>"]
    parts += [f"<p>{esc(caution)}</p>" for caution in shared.cautions]
    if shared.box is None:
        parts.append("<p>A sweep has recorded no reference point here, so there is no common hypervolume.</p>")
    if shared.entries[0].study.axes.x is None or not any(entry.study.points for entry in shared.entries):
        return "\n".join([*parts, "<p>There is nothing to draw.</p>"])
    drawn = image(save(partial(draw, shared), figures, f"comparison_{number}"), "The fronts over each other")
    caption = "Colour is the sweep, shape the backbone. Pale points are trials off the front."
    parts.append(f'<figure><div class="wide">{drawn}</div><figcaption>{esc(caption)}</figcaption></figure>')
    return "\n".join(parts)


def draw(shared: Shared, theme: Theme) -> Any:
    """Every sweep's points, and the steps that join its front (two objectives)."""
    figure = new_figure(7.6, 5.0)
    axes = figure.add_subplot()
    ways = shared.entries[0].study.axes
    if ways.x is None:
        raise ValueError("one objective has no plane to be drawn in")
    axes.set_title(shorten(shared.data))
    axes.set_xlabel(axis_label(ways.x.metric, ways.x.direction))
    axes.set_ylabel(axis_label(ways.y.metric, ways.y.direction))
    backbones = sorted({point.backbone for entry in shared.entries for point in entry.study.points})
    for slot, entry in enumerate(shared.entries):
        colour = theme.colour(slot + 2)  # the first two are the anchors' in every other picture
        _points(axes, entry, backbones, colour)
        if len(entry.study.objectives) == 2 and entry.members:
            steps = staircase(entry.members, ways.x.direction)
            axes.plot(*zip(*steps, strict=True), color=colour, linewidth=1.4, label=f" {shorten(entry.sweep, 40)}")
        else:
            axes.plot([], [], color=colour, marker="o", label=f" {shorten(entry.sweep, 40)}")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _points(axes: Any, entry: Entry, backbones: list[str], colour: str) -> None:
    groups: dict[tuple[str, bool], list[tuple[float, float]]] = {}
    for point in (*entry.study.points, *entry.study.means):
        at = (point.values[1], point.values[0])
        groups.setdefault((point.backbone, point in entry.members), []).append(at)
    for (backbone, on_front), places in groups.items():
        axes.scatter(
            *zip(*places, strict=True),
            s=60 if on_front else 18,
            marker=marker(backbones.index(backbone)),
            color=colour,
            alpha=1.0 if on_front else 0.35,
            linewidths=0,
            zorder=4 if on_front else 3,
        )
