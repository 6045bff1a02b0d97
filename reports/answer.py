"""The first thing on the page: each data set's answer, its recommended points, their price and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reports import certainty, words
from reports.confirmed import Estimate, estimates
from reports.fronts import Pick, Point, Study
from reports.load import Sweep, records
from reports.markup import esc, link, pairs
from reports.paper_tables import MISSING, show
from reports.points import command
from reports.run_links import RunLinks
from repsim.records import METRICS

MORE = ("val_accuracy", "val_balanced_accuracy", "val_cka", "test_accuracy", "test_cka", "sharpness")
"""What a recommended point shows beside its objectives."""


def section(sweep: Sweep, studies: Sequence[Study], report: Path, links: RunLinks) -> str:
    """An answer and its points per data set, then how the links come to life."""
    if not studies:
        return '<div class="card answer"><p class="big">No trial was recorded, so there is no answer.</p></div>'
    parts = []
    for study in studies:
        name = f'<p class="kicker">{esc(study.data)}</p>' if len(studies) > 1 else ""
        parts.append(f'<div class="card answer">{name}{_words(study)}</div>')
        parts.append(_points(sweep, study, report, links))
    if any(study.picks for study in studies):
        parts.append(_how_to_open(links))
    return "\n".join(part for part in parts if part)


def _words(study: Study) -> str:
    lines = [f"<li>{esc(line)}</li>" for line in words.explanation(study)]
    if lines or len(study.members) > 1:
        lines.append(f"<li>{esc(words.chosen_luck(study))}</li>")
    caution = f"<p>{esc(words.ACROSS_BACKBONES)}</p>" if lines and len(study.backbones) > 1 else ""
    bullets = f"<ul>{''.join(lines)}</ul>" if lines else ""
    return f'<p class="big">{esc(words.headline(study))}</p>{bullets}{caution}'


def _points(sweep: Sweep, study: Study, report: Path, links: RunLinks) -> str:
    if not study.picks:
        return ""
    roles: dict[str, list[Pick]] = {}
    for pick in study.picks:
        roles.setdefault(pick.point.trial_id, []).append(pick)
    cards = "".join(_card(sweep, study, picks, report, links) for picks in roles.values())
    count = f"{len(roles)} point" + ("" if len(roles) == 1 else "s")
    title = "What it was" if study.single else f"Recommended: {count}"
    return f'<h3>{title}</h3><div class="grid picks">{cards}</div>'


def _card(sweep: Sweep, study: Study, picks: Sequence[Pick], report: Path, links: RunLinks) -> str:
    point, best = picks[0].point, study.picks[0].point
    roles = "the only trial" if study.single else "; ".join(pick.role for pick in picks)
    if point.trial_id == best.trial_id:
        price, sure = "", _sure(certainty.of_value(study, point), words.on_test(study, point))
    else:
        price = f'<p class="price">{esc(words.cost(study, best, point))}</p>'
        sure = _sure(*certainty.of_difference(study, best, point), words.on_test(study, point))
    config = {key: show(value) or "none" for key, value in sweep.configs[point.run_id].items()}
    address = links.run(point.run_id)
    run = "" if address is None else f'<p class="run">{link(address, "its run in MLflow")}</p>'
    return (
        f'<div class="card"><p class="role">{esc(roles)}</p><p class="who">{esc(words.describe(point))}</p>'
        f"{_values(study, point)}{price}{sure}"
        f"<pre><code>{esc(command(report, point.trial_id))}</code></pre>{run}"
        f"<details><summary>more of its numbers</summary>{pairs(_numbers(study, point))}</details>"
        f"<details><summary>exact configuration</summary>{pairs(config)}</details></div>"
    )


def _sure(first: str, *others: str) -> str:
    """A sentence, what it announces as a list, and perhaps a last sentence."""
    *items, last = others
    listed = f"<ul>{''.join(f'<li>{esc(item)}</li>' for item in items)}</ul>" if items else ""
    return f'<div class="sure"><p>{esc(first)}</p>{listed}' + (f"<p>{esc(last)}</p>" if last else "") + "</div>"


def _values(study: Study, point: Point) -> str:
    """The objectives, large, with their standard errors where they are means; binomial where seeds show no spread."""
    cells = []
    for objective, value in zip(study.objectives, point.values, strict=True):
        metric = METRICS[objective.metric]
        error = None if point.repeats is None else point.repeats.errors.get(objective.metric)
        if point.repeats is not None and objective == study.axes.y:
            error = point.se
        shown = show(Estimate(mean=value, error=error), metric)
        cells.append(f"<div><dt>{esc(metric.label)}</dt><dd>{esc(shown)}</dd></div>")
    return f'<dl class="values">{"".join(cells)}</dl>'


def _numbers(study: Study, point: Point) -> dict[str, object]:
    row = records(study.trials[study.trials["mlflow_run_id"] == point.run_id])[0]
    names = dict.fromkeys([*(objective.metric for objective in study.objectives), *MORE])
    seeds: dict[str, object] = {}
    if point.repeats is not None:
        row, seeds = row | estimates(point.repeats), {"n (fresh seeds)": str(point.repeats.n)}
    return seeds | {METRICS[name].label: show(row[name], METRICS[name]) or MISSING for name in names}


def _how_to_open(links: RunLinks) -> str:
    again = "Each command trains that one configuration again. "
    if not links.command:
        return f'<p class="hint">{again}</p>'
    where = f" {esc(links.where)}" if links.where else ""
    return f'<p class="hint">{again}The links to MLflow open while <code>{esc(links.command)}</code> runs{where}.</p>'
