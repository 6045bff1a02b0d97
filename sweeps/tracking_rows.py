"""What the MLflow writer writes: a sweep and a trial's record as tags, parameters and metrics. No MLflow here."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import posixpath
import re
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import NamedTuple

from repsim.records import CURVE_PREFIX, KIND_SWEEP, LAYER_PREFIX, Stage, Status, Tag
from sweeps.space import Space
from sweeps.tracking_views import trials_page
from sweeps.trial import Trial, TrialRecord

_TEXT_LIMIT = 5000  # characters of a tag or parameter every supported server takes


class Point(NamedTuple):
    """One value of a metric; ``timestamp`` in milliseconds since 1970."""

    key: str
    value: float
    timestamp: int
    step: int


def sweep_tags(space: Space, sweep: str, provenance: Mapping[str, object], command: str) -> dict[str, str]:
    """Tags of the parent run, without its status."""
    document = space.to_dict()
    objectives = [{"metric": item.metric, "direction": item.direction} for item in space.objectives]
    return texts(
        {
            Tag.KIND: KIND_SWEEP,
            Tag.SWEEP: sweep,
            Tag.QUESTION: space.question,
            Tag.OBJECTIVES: objectives,
            Tag.CONSTRAINTS: [f"{item.metric} {item.sense} {item.bound!r}" for item in space.constraints],
            Tag.DATA: ", ".join(space.data),
            Tag.SPACE_HASH: space_hash(space),
            Tag.SEARCH: {key: document[key] for key in ("search", "budget", "confirm", "resources")},
            Tag.SPACE: document["space"],
            Tag.COMMAND: command,
            **code_tags(provenance),
            Tag.VERSIONS: provenance.get("versions", {}),
            "machine": {key: provenance.get(key) for key in ("platform", "cpu_count", "host")},
            "mlflow.source.name": "sweeps/launch.py",
            "mlflow.source.type": "LOCAL",
        }
    )


def code_tags(provenance: Mapping[str, object]) -> dict[str, object]:
    """Commit and dirty flag; a trial bears them too, since a sweep may be resumed with other code."""
    return {Tag.GIT_COMMIT: provenance.get("git_commit"), Tag.GIT_DIRTY: provenance.get("git_dirty")}


def description(space: Space, sweep: str, experiment_id: str, run_id: str) -> str:
    """What the sweep's run says of itself, in Markdown: the question, where the report is, how to read what is there.

    The link is relative, so that it holds on whatever address the UI is served.
    """
    axes = ", ".join(f"{item.metric} ({item.direction})" for item in space.objectives)
    report = f"#/experiments/{experiment_id}/runs/{run_id}/artifacts/report/index.html"
    trials = trials_page(experiment_id, run_id)
    name = shlex.quote(sweep)
    lines = [
        f"[The report]({report}) · [Its trials, to sort and filter]({trials})",  # first: the UI folds what is long
        f"**{' '.join(space.question.split())}**" if space.question.strip() else "",
        "The report is the artifact `report/index.html` once the sweep has ended; at any time "
        f"`python reports/build.py --sweep {name}` makes it, in `runs/{sweep}/report/`.",
        f"Objectives: {axes}. Data: {', '.join(space.data)}. "
        f"Budget: {space.budget.trials} trials of {space.budget.epochs} epochs per data set.",
        "Below it: one run per trial; under a trial, the fresh seeds that confirm it and the points derived from it. "
        "Final values stand under their own name (sort by `val_accuracy`, `val_cka`), the course over the epochs under "
        "`curve/`. To see the front alone, filter by `tags.on_front = 'true'`.",
        "Members of the front keep their model, predictions and confusion matrices as artifacts. "
        f"`python sweeps/promote.py --sweep {name} --pick knee --as NAME` registers one of them.",
    ]
    return "\n\n".join(line for line in lines if line)


def describe(trial: Trial) -> str:
    """``repsim λ=1.2 wise α=0.3 tf_efficientnet_lite0``: what a person tells trials apart by."""
    config = trial.config
    parts = (config.method, config.strength_words, config.wise_words, config.backbone.name)
    return " ".join(part for part in parts if part)


def space_hash(space: Space) -> str:
    """Twelve hexadecimal digits naming the space as resolved."""
    text = json.dumps(_plain(space), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def points(record: TrialRecord) -> list[Point]:
    """Every finite value of a record, epoch by epoch, then the finals of a completed one.

    Times are computed from the record, so that the same value sent twice is one value to the store.
    """
    begin = milliseconds(record.started)
    points: list[Point] = []
    seconds = 0.0
    for epoch in record.epochs:
        seconds += epoch.seconds
        values = {**epoch.values, "train_loss": epoch.train_loss, "learning_rate": epoch.learning_rate}
        if epoch.train_penalty is not None:
            values["train_penalty"] = epoch.train_penalty
        stamp = begin + int(1000 * seconds)
        values |= {LAYER_PREFIX + name: value for name, value in epoch.layers.items()}
        named = {metric_name(CURVE_PREFIX + name): value for name, value in values.items()}
        points += [Point(name, value, stamp, epoch.epoch) for name, value in named.items()]
    if record.status is Status.COMPLETED and record.result is not None:
        end, step = milliseconds(record.ended), record.result.chosen_epoch
        points += [Point(name, value, end, step) for name, value in record.result.values.items()]
    return [point for point in points if math.isfinite(point.value)]


def params(trial: Trial) -> dict[str, str]:
    method = trial.config.parsed_method
    values = {**trial.config.flat(), "adapter": method.adapter, "penalty": method.penalty}
    return {key: "null" if value is None else text(value) for key, value in values.items()}


def run_name(trial: Trial, space: Space) -> str:
    """What the UI lists a trial under; with several data sets, its own stands there as well."""
    name = f"{trial.trial_id} {describe(trial)}"
    if trial.stage is Stage.CONFIRM:
        name += f" seed {trial.config.seed}"
    return f"{name} {trial.data}" if len(space.data) > 1 else name


def trial_tags(trial: Trial) -> dict[str, object]:
    """What a proposal says of itself, whatever becomes of it."""
    return {
        Tag.TRIAL_ID: trial.trial_id,
        Tag.CONFIG_ID: trial.config.config_id,
        Tag.STAGE: trial.stage.value,
        Tag.DERIVED_FROM: trial.derived_from,
        Tag.METHOD: trial.config.method,
        Tag.BACKBONE: trial.config.backbone.name,
        Tag.DATA: trial.data,
        "anchor": trial.anchor,
    }


def state_tags(record: TrialRecord) -> dict[str, object]:
    result = record.result
    tags: dict[str, object] = {
        Tag.STATUS: record.status.value,
        Tag.ATTEMPTS: record.attempts,
        Tag.REASON: record.reason,
        Tag.FEASIBLE: record.feasible,
        Tag.STARTED: record.started,
        Tag.ENDED: record.ended,
    }
    if result is not None and record.status is Status.COMPLETED:
        tags[Tag.CHOSEN_EPOCH] = result.chosen_epoch
        tags[Tag.FACTS] = result.facts
        tags[Tag.DATA_HASH] = result.facts.get("data_hash")
        tags[Tag.PROBE_HASH] = result.facts.get("probe_hash")
    return tags


def texts(values: Mapping[str, object]) -> dict[str, str]:
    return {key: text(value) for key, value in values.items() if value is not None}


def text(value: object) -> str:
    return clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def clean(text: str) -> str:
    """``text`` as every store takes it: no NUL, no lone surrogates (undecodable file names), not too long."""
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "?")
    return text if len(text) <= _TEXT_LIMIT else text[: _TEXT_LIMIT - 1] + "…"


@cache
def metric_name(name: str) -> str:
    return posixpath.normpath(re.sub(r"[^\w. :/-]", "_", name)).strip("/")[:250]


def milliseconds(moment: str | None) -> int:
    when = datetime.now(UTC) if moment is None else datetime.fromisoformat(moment)
    return int(when.timestamp() * 1000)
