"""What the interactive front tells of a trial: a few lines beside the pointer, all of it once the trial is chosen."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reports.confirmed import estimates
from reports.figures import FrontPicture, Mark, shorten
from reports.fronts import Study, wise_words
from reports.load import Sweep, records
from reports.paper_tables import FRONT_METRICS, searched_runs, shared_settings, show, varied_keys
from reports.points import command
from reports.run_links import RunLinks
from reports.values import finite
from repsim.records import METRICS, PARAM_PREFIX

HOVERED = ("val_accuracy", "val_balanced_accuracy", "val_cka", "sharpness", "train_seconds")


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is told of one mark. ``hover`` is in plotly's small HTML, escaped; everything else is plain text.

    ``short`` tells a mean from the run of the same trial in a list.

    ``values`` and ``settings`` are (name, text) pairs, the settings those that vary within the sweep; ``run`` is the
    address of the trial's run, ``repeat`` the command that trains a front member again, each None where there is none.
    """

    trial: str
    title: str
    short: str
    state: str
    hover: str
    values: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]
    run: str | None
    repeat: str | None


@dataclass(frozen=True, kw_only=True)
class Details:
    """``marks`` by ``Mark.key``; ``shared`` are the settings that all trials have, ``opens`` what opens the runs."""

    marks: Mapping[str, Told]
    shared: tuple[tuple[str, str], ...]
    opens: str


def details(sweep: Sweep, study: Study, picture: FrontPicture, report: Path, links: RunLinks) -> Details:
    """Everything the figure of a study can be asked for."""
    rows = {row["trial_id"]: row for row in records(study.trials) if row["stage"] != "confirm"}
    run_ids = searched_runs(study.trials)
    varied = varied_keys(sweep, run_ids)
    repeats = {point.trial_id: point.repeats for point in study.means if point.repeats is not None}
    members = {point.trial_id for point in study.members}
    found = {}
    for mark in picture.marks:
        row = rows[mark.trial_id]
        run_id = str(row["mlflow_run_id"])
        repeat = command(report, mark.trial_id) if mark.trial_id in members else None
        known = row | estimates(repeats[mark.trial_id]) if mark.n else row
        found[mark.key] = told(mark, known, varied, sweep.configs[run_id], links.run(run_id), repeat)
    shared = shared_settings(sweep, run_ids)
    return Details(
        marks=found,
        shared=tuple((key, show(value) or "none") for key, value in shared.items()),
        opens=links.command,
    )


def told(
    mark: Mark,
    row: Mapping[str, object],
    varied: Sequence[str],
    config: Mapping[str, object],
    run: str | None,
    repeat: str | None,
) -> Told:
    """One mark; ``row`` is its trial's, with the estimates of its metrics where it is a mean."""
    metrics = [(METRICS[name].label, show(row.get(name), METRICS[name])) for name in FRONT_METRICS]
    settings = {key: show(config.get(key)) or "none" for key in varied}
    title = f"{mark.trial_id} {mark.method}{wise_words(finite(row.get(f'{PARAM_PREFIX}wise_alpha')))}"
    return Told(
        trial=mark.trial_id,
        title=title,
        short=f"{title}, n = {mark.n}" if mark.n else f"{title}, the search's run" if mark.behind else title,
        state=state(mark),
        hover=hover_text(mark, row, varied, config),
        values=tuple((label, value) for label, value in metrics if value),
        settings=tuple(settings.items()),
        run=run,
        repeat=repeat,
    )


def state(mark: Mark) -> str:
    """What it is, and what it may be chosen for, in a few words."""
    said = ["anchor"] if mark.anchor else []
    if mark.n:
        said.append(f"mean over fresh seeds ± standard error, n = {mark.n}" if mark.n > 1 else "1 fresh seed, n = 1")
    elif mark.behind:
        said.append("n = 1, not confirmed" if mark.derived else "the search's run, n = 1")
    else:
        said.append("n = 1")
    if mark.derived:
        said.append("between pretrained and finetuned weights")
    if mark.pruned:
        said.append("stopped early: values of its last epoch")
    elif not mark.eligible:
        said.append("not eligible for the front")
    elif mark.on_front:
        said.append("on the front")
    return ", ".join(said)


def hover_text(mark: Mark, row: Mapping[str, object], varied: Sequence[str], config: Mapping[str, object]) -> str:
    """What stands beside the pointer: who, what it reached, and the part of the configuration that varies."""
    lines = [f"<b>{_plain(mark.trial_id)}</b> {_plain(mark.method)}", f"<i>{_plain(state(mark))}</i>"]
    for name in HOVERED:
        value = show(row.get(name), METRICS[name])
        if value:
            lines.append(f"{METRICS[name].label}: {value}")
    lines += [f"{_plain(key)}: {_plain(show(config.get(key)) or 'none')}" for key in varied if key != "method"]
    return "<br>".join(lines)


def _plain(value: object) -> str:
    return html.escape(shorten(str(value), 90))
