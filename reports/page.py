"""The report as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reports import answer, interactive, words
from reports.figures import FrontPicture
from reports.fronts import Study, runs
from reports.load import Sweep
from reports.markup import duration, esc, image, pairs, table_html
from reports.paper_tables import MISSING, Table, failures_table, shared_settings, show, trials_table
from reports.points import command
from reports.run_links import RunLinks
from reports.trial_details import details
from reports.values import finite
from repsim.records import METRICS, Status

GENERATOR = "repsim-sweeps report"


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The pictures of one data set: SVG text for light and dark pages, and where the static files lie."""

    front: tuple[str, str] | None
    front_file: str
    picture: FrontPicture | None
    panels: Sequence[tuple[str, tuple[str, str]]]


def render(
    sweep: Sweep,
    studies: Sequence[Study],
    drawn: Sequence[Drawn],
    chapters: Sequence[str],
    tables: Mapping[str, Table],
    report: Path,
    links: RunLinks,
) -> str:
    """The whole page; ``chapters`` are HTML already."""
    title = f"{sweep.experiment}: accuracy and kept similarity"
    scripts = any(item.picture is not None for item in drawn)
    body = [
        f'<p class="kicker">sweep {esc(sweep.name)}</p>',
        f"<h1>{esc(sweep.question or sweep.experiment)}</h1>",
        answer.section(sweep, studies, report, links),
        _notices(words.warnings_for(sweep, studies)),
        _stats(sweep, studies),
    ]
    for number, (study, pictures) in enumerate(zip(studies, drawn, strict=True)):
        body.append(_study(sweep, study, pictures, number, report, links, several=len(studies) > 1))
    body += chapters
    wide = [_front_section(sweep, studies, tables["front"], report), _methods_section(studies, tables["methods"])]
    wide.append(_trials_section(sweep, studies))
    body.append(f'<div class="ledger">{"".join(wide)}</div>' if any(wide) else "")
    body += [_provenance(sweep, studies), _files()]
    css = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    plotly = f"<script>{interactive.plotly_source()}</script><script>{interactive.script()}</script>" if scripts else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="generator" content="{GENERATOR}">\n<title>{esc(title)}</title>\n<style>{css}</style>\n</head>\n'
        "<body>\n<main>\n" + "\n".join(part for part in body if part) + f"\n</main>\n{plotly}\n</body>\n</html>\n"
    )


def _notices(found: Sequence[tuple[str, str]]) -> str:
    if not found:
        return ""
    return '<ul class="notices">' + "".join(f"<li><b>{esc(a)}</b>{esc(b)}</li>" for a, b in found) + "</ul>"


def _stats(sweep: Sweep, studies: Sequence[Study]) -> str:
    status = runs(sweep.trials)["status"]
    others = [f"{int((status == s.value).sum())} {s.value}" for s in Status if s is not Status.COMPLETED]
    rest = ", ".join(text for text in others if not text.startswith("0 ")) or "none failed or pruned"
    cells = [("completed trials", str(int((status == Status.COMPLETED.value).sum())), rest)]
    if len(status) < len(sweep.trials):
        cells.append(("derived points", str(len(sweep.trials) - len(status)), words.BETWEEN))
    for study in studies:
        who = f" · {study.data}" if len(studies) > 1 else ""
        if study.members and not study.single:
            apart = f"{study.separated} told apart by one standard error" if study.separated is not None else ""
            cells.append((f"points on the front{who}", str(len(study.members)), apart))
        if study.course:
            cells.append((f"hypervolume{who}", f"{study.course[-1][1]:.3f}", "share of the reference box"))
    seconds = _seconds(sweep)
    cells.append(("training time, all trials", duration(seconds[0]), f"and {duration(seconds[1])} around it"))
    return (
        '<dl class="stats">'
        + "".join(
            f'<div class="card"><dt>{esc(a)}</dt><dd>{esc(b)}<small>{esc(c)}</small></dd></div>' for a, b, c in cells
        )
        + "</dl>"
    )


def _seconds(sweep: Sweep) -> tuple[float, float]:
    """Seconds of training and around it: a derived point names its trial's training, and has evaluations of its own."""
    return float(runs(sweep.trials)["train_seconds"].sum()), float(sweep.trials["overhead_seconds"].sum())


def _study(
    sweep: Sweep, study: Study, drawn: Drawn, number: int, report: Path, links: RunLinks, *, several: bool
) -> str:
    where = f" on {esc(study.data)}" if several else ""
    parts = [f"<h2>The {'run' if study.single else 'front'}{where}</h2>"]
    if drawn.front is None:
        parts.append(f'<p class="lead">{esc(_no_picture(study))}</p>')
    else:
        parts.append(_front_figure(sweep, study, drawn, number, report, links))
    if len(drawn.panels) > 1:
        parts.append(
            f"<h3>Backbone by backbone</h3><p>{esc(words.ACROSS_BACKBONES)} "
            "Each panel joins that backbone's own front.</p>"
        )
        panels = "".join(
            f'<figure><div class="wide">{image(svgs, f"Front of {name}")}</div></figure>' for name, svgs in drawn.panels
        )
        parts.append(f'<div class="grid">{panels}</div>')
    said = words.confirmation(study)
    if said:
        parts.append(f"<h3>Confirmation</h3><p>{esc(said)}</p>")
    return "\n".join(parts)


def _no_picture(study: Study) -> str:
    if not study.points:
        return "There is nothing to draw: no trial has completed with a value for every objective."
    if study.axes.x is None:
        return "With a single objective there is a best point and no front."
    return "A single run is one point: its numbers are in the table below."


def _front_figure(sweep: Sweep, study: Study, drawn: Drawn, number: int, report: Path, links: RunLinks) -> str:
    if drawn.front is None or drawn.picture is None:
        return ""
    told = details(sweep, study, drawn.picture, report, links)
    data = interactive.script_json(interactive.figure_data(drawn.picture, told))
    name = f"front-{number}"
    return (
        f'<figure><div id="{name}" class="interactive" hidden></div>'
        f'<div id="{name}-static" class="wide still">{image(drawn.front, "The front")}</div>'
        f"<figcaption>{esc(_front_caption(study, drawn.picture))} "
        f"Static picture: {esc(drawn.front_file)}.</figcaption>"
        f'<script type="application/json" data-figure="{name}">{data}</script></figure>'
    )


def _front_caption(study: Study, picture: FrontPicture) -> str:
    trials = [point for point in study.points if point.derived_from is None and not point.pruned]
    stopped = sum(point.pruned for point in study.points)
    drawn, total = len(trials), int((study.trials["stage"] == "search").sum())
    said = [
        f"{drawn} of {total} search trials have every objective and are drawn; "
        "colour is the method, shape the backbone."
    ]
    if picture.left_out > 0:
        said.append(f"Of those off the front it is an even sample: {picture.left_out:,} more are in trials.parquet.")
    if stopped:
        said.append(f"Grey crosses are trials stopped early ({stopped}), where their last epoch left them.")
    if study.means:
        said.append(
            "Large points are means over fresh seeds, with one standard error both ways where the seeds differ; small "
            "ones are the search's own runs, n = 1, which the means leave out."
        )
        if any(mark.binomial for mark in picture.marks):
            said.append(
                "Where seeds show no spread (a linear probe is the same with each; or n = 1), the vertical bar is the "
                "binomial standard error that comes from the number of val images."
            )
    if any(point.derived_from is not None for point in study.points):
        said.append(f"Small points on thin lines are models {words.BETWEEN}" + (", n = 1." if study.means else "."))
    if study.axes.colour is None:
        by = "configuration's mean" if study.means else "trial"
        end = "" if study.reference is None else " It ends at the reference point of the hypervolume."
        said.append(f"The stepped line is the front; the shaded area is what some {by} dominates.{end}")
    else:
        said.append(
            f"Fill colour is {METRICS[study.axes.colour.metric].label}, the outline the method. The front has three "
            "objectives, so its points (large) are not joined."
        )
    if study.members and study.members[0].se is not None and not study.means:
        n_val = finite(study.trials["n_val"].dropna().iloc[0])
        said.append(
            f"The bar is one standard error of val accuracy at the most accurate point (n = {show(n_val)} val images)."
        )
    if study.members:
        said.append(words.separation(study))
    return " ".join(said)


def _front_section(sweep: Sweep, studies: Sequence[Study], table: Table, report: Path) -> str:
    if not table.rows:
        return ""
    run_ids = [str(run_id) for run_id in sweep.trials["mlflow_run_id"]]
    commands = "\n".join(command(report, point.trial_id) for study in studies for point in study.members)
    shared = {key: show(value) or "none" for key, value in shared_settings(sweep, run_ids).items()}
    return (
        f"<h2>Points on the front</h2><p>{esc(table.caption)}</p>{table_html(table, skip=_same(studies))}"
        f"<details><summary>settings that all trials share ({len(shared)})</summary>{pairs(shared)}</details>"
        "<h3>Repeat a point</h3><p>Each command trains that one configuration again, from a file in this folder.</p>"
        f"<pre><code>{esc(commands)}</code></pre>"
    )


def _same(studies: Sequence[Study]) -> tuple[str, ...]:
    """Columns with nothing to tell apart."""
    return ("data",) if len(studies) == 1 else ()


def _methods_section(studies: Sequence[Study], table: Table) -> str:
    if not studies or not table.rows:
        return ""
    return f"<h2>Methods</h2><p>{esc(table.caption)}</p>{table_html(table, skip=_same(studies))}"


def _trials_section(sweep: Sweep, studies: Sequence[Study]) -> str:
    parts = []
    for number, study in enumerate(studies):
        who = f" on {esc(study.data)}" if len(studies) > 1 else ""
        counts = ", ".join(f"{count} {name}" for name, count in sorted(study.counts.items()))
        trials = trials_table(sweep, study)
        cut = f" {trials.caption}" if trials.caption else ""
        parts.append(f"<h2>All trials{who}</h2><p>{esc(counts)}.{esc(cut)}</p>")
        parts.append(f'<div data-trials="front-{number}">{table_html(trials)}</div>')
        stopped = words.stopped_early(study)
        parts.append(f"<p>{esc(stopped)}</p>" if stopped else "")
        failures = failures_table(study)
        if failures.rows:
            cut = f"<p>{esc(failures.caption)}</p>" if failures.caption else ""
            parts.append(f"<h3>Failed, pruned and waiting{who}</h3>{cut}{table_html(failures, long=('reason',))}")
    return "\n".join(parts)


_OF_ONE_RUN = frozenset({"node", "slot", "began", "finished", "optimiser_steps"})
"""Facts of the first run alone, which say nothing about its data set."""


def _provenance(sweep: Sweep, studies: Sequence[Study]) -> str:
    dirty = " (with uncommitted changes)" if sweep.git_dirty else ""
    general: dict[str, object] = {
        "started": sweep.started,
        "state of the run": sweep.state,
        "git commit": f"{sweep.git_commit or MISSING}{dirty}",
        "space hash": sweep.space_hash or MISSING,
        "objectives": ", ".join(f"{o.direction} {o.metric}" for o in sweep.objectives),
        "constraints": ", ".join(sweep.constraints) or "none",
        "versions": ", ".join(f"{k} {v}" for k, v in sweep.versions.items()) or MISSING,
        "train seconds": f"{_seconds(sweep)[0]:.1f} in all",
        "other seconds": f"{_seconds(sweep)[1]:.1f} in all",
    }
    parts = [f"<h2>Where these numbers come from</h2><pre><code>{esc(sweep.command or MISSING)}</code></pre>"]
    parts.append(f'<div class="grid"><div class="card">{pairs(general)}</div>')
    for study in studies:
        facts = {
            key.replace("_", " "): show(value) or MISSING
            for key, value in words.known_facts(sweep, study).items()
            if not isinstance(value, list) and key not in _OF_ONE_RUN
        }
        parts.append(f'<div class="card">{pairs({"data": study.data, **facts})}</div>')
    return "".join([*parts, "</div>"])


def _files() -> str:
    return (
        "<h2>Files beside this page</h2>"
        "<p><code>trials.parquet</code> (every trial), <code>front.parquet</code>, <code>tables/</code> (csv, Markdown "
        "and LaTeX), <code>figures/</code> (PNG and SVG), <code>points/</code> (a space file per front member).</p>"
        "<footer>Built from the experiment store alone. Selection used val metrics only; test metrics were computed "
        "once per trial and never chose anything.</footer>"
    )
