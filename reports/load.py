"""From MLflow to one tidy table. Reads everything with a few searches; never asks the store run by run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from reports.compacted import merged_curves, read_compact
from reports.store import find_sweep
from reports.sweep_runs import sweep_runs
from reports.values import finite
from repsim.catalogue import parse_method
from repsim.errors import Mistake, RequestError, one_line
from repsim.records import (
    CURVE_PREFIX,
    METRICS,
    PARAM_PREFIX,
    TRIAL_COLUMNS,
    Objective,
    Stage,
    Status,
    Tag,
)

TEXT_PARAMS = frozenset({"data", "backbone", "backbone.weights", "head", "method", "data.group"})
"""Configuration keys whose values are text even when they look like a number."""
OWN_COLUMN = frozenset({"data", "method", "strength", "backbone", "head", "seed"})
DERIVED_PARAMS = frozenset({"adapter", "penalty"})
"""Parameters recorded for filtering in the MLflow UI; they follow from the method and are no configuration keys."""
"""Configuration keys with a column of their own; every other key is a ``param/KEY`` column."""
_WHOLE = frozenset({"attempts", "seed", "epochs", "chosen_epoch", "n_train", "n_val", "n_test", "n_probe"})
_TEXT = frozenset(TRIAL_COLUMNS) - _WHOLE - frozenset({*METRICS, "strength", "on_front", "feasible"})
_TRUTH = frozenset({"on_front", "feasible"})


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The box hypervolume is measured in: its worst and its best corner, by metric name."""

    worst: Mapping[str, float]
    ideal: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What the sweep recorded of a data set's confirmation; ``candidates`` are ids of its search trials.

    ``delta`` is how much of a difference luck may explain, by metric; empty until the anchors have shown it.
    """

    end: str
    reason: str
    delta: Mapping[str, float]
    candidates: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One sweep as the store knows it.

    ``trials`` has the columns of TRIAL_COLUMNS and then ``param/KEY``, one row per trial, in order of trial number.
    ``configs`` (flat configuration) and ``facts`` are keyed by MLflow run id; ``hashes`` holds (data, probe).
    ``curves`` is what reports.curves reads: a row per run, metric and epoch.
    ``search`` are the settings of the search and ``space`` what it searched, as the space's file would say it; both are
    empty where they were not recorded. ``code`` holds (commit, whether it was changed) by run id, "" where unknown.
    ``anchors`` are the run ids of ``linear_probe`` and ``full`` at default settings. ``notes`` say what could not be
    read. ``state`` is the parent run's: running, finished, killed or failed.
    """

    name: str
    experiment: str
    experiment_id: str
    run_id: str
    question: str
    objectives: tuple[Objective, ...]
    constraints: tuple[str, ...]
    references: Mapping[str, Reference]
    confirmations: Mapping[str, Recorded]
    command: str
    git_commit: str
    git_dirty: bool
    versions: Mapping[str, str]
    space_hash: str
    search: Mapping[str, object]
    space: Mapping[str, object]
    state: str
    started: str
    trials: pd.DataFrame
    curves: pd.DataFrame
    configs: Mapping[str, Mapping[str, object]]
    facts: Mapping[str, Mapping[str, object]]
    hashes: Mapping[str, tuple[str, str]]
    code: Mapping[str, tuple[str, bool]]
    anchors: frozenset[str]
    notes: tuple[str, ...]

    @property
    def data_sets(self) -> tuple[str, ...]:
        """SOURCEs in order of first appearance."""
        return tuple(dict.fromkeys(str(value) for value in self.trials["data"]))


def load_sweep(client: Any, name: str, *, fresh: bool = False) -> Sweep:
    """Read one sweep; RequestError when it is not there or its objectives cannot be read.

    What the sweep keeps of ended trials in its compact tables is not asked of the store again, unless ``fresh``.
    """
    parent = find_sweep(client, name)
    tags: dict[str, str] = parent.data.tags
    notes: list[str] = []
    compact = None if fresh else read_compact(client, parent.info.run_id, notes)
    runs = sweep_runs(client, parent, compact)
    trials, configs, facts = _tidy(runs, tags.get(Tag.SWEEP, ""), notes)
    return Sweep(
        name=tags.get(Tag.SWEEP, parent.info.run_id),
        experiment=client.get_experiment(parent.info.experiment_id).name,
        experiment_id=parent.info.experiment_id,
        run_id=parent.info.run_id,
        question=tags.get(Tag.QUESTION, ""),
        objectives=_objectives(tags),
        constraints=tuple(str(text) for text in _json(tags, Tag.CONSTRAINTS, list, notes, "the sweep")),
        references=_references(tags, notes),
        confirmations=_confirmations(tags, notes),
        command=tags.get(Tag.COMMAND, ""),
        git_commit=_code(tags)[0],
        git_dirty=_code(tags)[1],
        versions={str(k): str(v) for k, v in _json(tags, Tag.VERSIONS, dict, notes, "the sweep").items()},
        space_hash=tags.get(Tag.SPACE_HASH, ""),
        search=_json(tags, Tag.SEARCH, dict, notes, "the sweep"),
        space=_json(tags, Tag.SPACE, dict, notes, "the sweep"),
        state=parent.info.status.lower(),
        started=_time(parent.info.start_time),
        trials=trials,
        curves=merged_curves(client, runs, compact),
        configs=configs,
        facts=facts,
        hashes={
            run.info.run_id: (run.data.tags.get(Tag.DATA_HASH, ""), run.data.tags.get(Tag.PROBE_HASH, ""))
            for run in runs
        },
        code={run.info.run_id: _code(run.data.tags) for run in runs},
        anchors=_anchors(runs, trials),
        notes=tuple(notes),
    )


def _tidy(
    runs: list[Any], sweep: str, notes: list[str]
) -> tuple[pd.DataFrame, dict[str, dict[str, object]], dict[str, dict[str, object]]]:
    read = _Read()
    configs = {
        run.info.run_id: {key: read[key, text] for key, text in run.data.params.items() if key not in DERIVED_PARAMS}
        for run in runs
    }
    facts: dict[str, dict[str, object]] = {}
    for run in runs:
        trial_id = run.data.tags.get(Tag.TRIAL_ID, run.info.run_id)
        facts[run.info.run_id] = _json(run.data.tags, Tag.FACTS, dict, notes, trial_id)
    rows = [_row(run, sweep, configs[run.info.run_id], facts[run.info.run_id]) for run in runs]
    extra = sorted({key for config in configs.values() for key in config} - OWN_COLUMN)
    columns = {
        name: _column(name, [row.get(name) for row in rows])
        for name in (*TRIAL_COLUMNS, *(f"{PARAM_PREFIX}{key}" for key in extra))
    }
    return pd.DataFrame(columns), configs, facts


def _row(run: Any, sweep: str, config: Mapping[str, object], facts: Mapping[str, object]) -> dict[str, object]:
    tags: dict[str, str] = run.data.tags
    method = tags.get(Tag.METHOD) or str(config.get("method", ""))
    adapter, penalty = _method_parts(method)
    measured = run.data.metrics
    if tags.get(Tag.STATUS) == Status.PRUNED.value:  # its last epoch is all there is
        measured = {name.removeprefix(CURVE_PREFIX): value for name, value in measured.items()} | measured
    values = {name: value for name, value in measured.items() if not name.startswith(CURVE_PREFIX)}
    feasible = tags.get(Tag.FEASIBLE, "").lower()
    return {
        "sweep": sweep,
        "data": tags.get(Tag.DATA) or config.get("data") or "",
        "trial_id": tags.get(Tag.TRIAL_ID) or run.info.run_id,
        "config_id": tags.get(Tag.CONFIG_ID),
        "stage": tags.get(Tag.STAGE, Stage.SEARCH.value),
        "status": tags.get(Tag.STATUS, Status.RUNNING.value),
        "reason": tags.get(Tag.REASON, ""),
        "attempts": tags.get(Tag.ATTEMPTS),
        "method": method,
        "adapter": adapter,
        "penalty": penalty,
        "strength": config.get("strength"),
        "backbone": tags.get(Tag.BACKBONE) or config.get("backbone") or "",
        "head": config.get("head"),
        "seed": config.get("seed"),
        "epochs": config.get("optim.epochs"),
        "chosen_epoch": tags.get(Tag.CHOSEN_EPOCH),
        "feasible": feasible == "true" if feasible in ("true", "false") else None,
        "derived_from": tags.get(Tag.DERIVED_FROM),
        **{name: values.get(name) for name in METRICS},
        **{name: facts.get(name) for name in ("n_train", "n_val", "n_test", "n_probe")},
        "started": tags.get(Tag.STARTED),
        "ended": tags.get(Tag.ENDED),
        "mlflow_run_id": run.info.run_id,
        **{f"{PARAM_PREFIX}{key}": value for key, value in config.items() if key not in OWN_COLUMN},
    }


class _Read(dict[tuple[str, str], object]):
    """Parameters by key and text, each read once: most trials of a sweep share most of them."""

    def __missing__(self, known: tuple[str, str]) -> object:
        value = self[known] = param_value(*known)
        return value


def _method_parts(method: str) -> tuple[str | None, str | None]:
    try:
        parsed = parse_method(method)
    except ValueError:
        return None, None
    return parsed.adapter, parsed.penalty


def param_value(key: str, text: str) -> object:
    """A stored parameter as the value it was written from: ``null``, numbers, lists and truth values are read back."""
    if text in ("null", "None"):
        return None
    if key in TEXT_PARAMS:
        return text
    if text in ("True", "False"):
        return text == "True"
    try:
        return json.loads(text)
    except ValueError:
        return text


def _column(name: str, values: list[object]) -> pd.Series[Any]:
    if name in _TRUTH:
        return pd.Series(values, dtype="boolean")
    if name in _TEXT:
        return pd.Series([None if value is None else str(value) for value in values], dtype="string")
    if name in _WHOLE:
        numbers = [finite(value) for value in values]
        return pd.Series([None if value is None else round(value) for value in numbers], dtype="Int64")
    if name in METRICS or name == "strength":
        return pd.Series([finite(value) for value in values], dtype="float64")
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, bool) for value in present):
        return pd.Series(values, dtype="boolean")
    if present and all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
        return pd.Series([finite(value) for value in values], dtype="float64")
    return pd.Series([None if value is None else _text(value) for value in values], dtype="string")


def records(trials: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dictionaries by column name; a missing value is None, in columns of floating point numbers NaN."""
    names = [str(name) for name in trials.columns]
    columns = [_values(trials[name]) for name in trials.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(column: pd.Series[Any]) -> list[Any]:
    """A column as Python has it; pandas' own way by rows takes five times as long."""
    if isinstance(column.dtype, np.dtype):
        return column.tolist()
    held: Any = column.array
    found: list[Any] = held.to_numpy(dtype=object, na_value=None).tolist()
    return found


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _json(tags: Mapping[str, str], key: str, kind: type[Any], notes: list[str], who: str) -> Any:
    text = tags.get(key)
    if not text:
        return kind()
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if isinstance(value, kind):
        return value
    value = _salvage(text) if kind is dict else None
    if value is None:
        notes.append(f"The record {key!r} of {who} could not be read and is left out.")
        return kind()
    notes.append(f"The record {key!r} of {who} was cut short by the store; its lists may be incomplete.")
    return value


def _salvage(text: str) -> dict[str, Any] | None:
    """The longest readable beginning of a JSON object that was cut off (stores limit the length of a tag)."""
    ends = [match.start() for match in re.finditer(", ", text)]
    for end in reversed(ends):
        for close in ("}", "]}"):
            try:
                value = json.loads(text[:end] + close)
            except ValueError:
                continue
            if isinstance(value, dict):
                return value
    return None


def _objectives(tags: Mapping[str, str]) -> tuple[Objective, ...]:
    found = []
    for item in _json(tags, Tag.OBJECTIVES, list, [], "the sweep"):
        if isinstance(item, dict) and item.get("direction") in ("maximize", "minimize") and "metric" in item:
            found.append(Objective(metric=str(item["metric"]), direction=item["direction"]))
    if not found or any(objective.metric not in METRICS for objective in found):
        problem = f"the sweep's record of its objectives cannot be read: {one_line(tags.get(Tag.OBJECTIVES, ''))}"
        raise RequestError(Mistake(where="--sweep", key="", problem=problem))
    return tuple(found)


def _references(tags: Mapping[str, str], notes: list[str]) -> dict[str, Reference]:
    found = {}
    for data, corners in _json(tags, Tag.REFERENCE, dict, notes, "the sweep").items():
        corner = corners if isinstance(corners, dict) else {}
        worst, ideal = corner.get("reference"), corner.get("ideal")
        if isinstance(worst, dict) and isinstance(ideal, dict):
            found[str(data)] = Reference(worst=worst, ideal=ideal)
    return found


def _confirmations(tags: Mapping[str, str], notes: list[str]) -> dict[str, Recorded]:
    found = {}
    for data, told in _json(tags, Tag.CONFIRMATION, dict, notes, "the sweep").items():
        entry = told if isinstance(told, dict) else {}
        margins, names = entry.get("delta"), entry.get("candidates")
        sizes = {str(k): finite(v) for k, v in margins.items()} if isinstance(margins, dict) else {}
        found[str(data)] = Recorded(
            end=str(entry.get("end", "")),
            reason=str(entry.get("reason", "")),
            delta={metric: size for metric, size in sizes.items() if metric in METRICS and size is not None},
            candidates=frozenset(str(name) for name in names) if isinstance(names, list) else frozenset(),
        )
    return found


def _anchors(runs: list[Any], trials: pd.DataFrame) -> frozenset[str]:
    """The runs that say so; where none does, ``linear_probe`` and ``full`` among a data set's first two trials."""
    marked = frozenset(run.info.run_id for run in runs if run.data.tags.get("anchor", "").lower() == "true")
    search = trials[trials["stage"] == Stage.SEARCH.value]
    first = search.groupby("data", sort=False).head(2)
    return marked or frozenset(first.loc[first["method"].isin(["linear_probe", "full"]), "mlflow_run_id"])


def _code(tags: Mapping[str, str]) -> tuple[str, bool]:
    """The commit that a run names, and whether it says that the files differed from it."""
    return tags.get(Tag.GIT_COMMIT, ""), tags.get(Tag.GIT_DIRTY, "").lower() == "true"


def _time(milliseconds: int | None) -> str:
    if milliseconds is None:
        return ""
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC).isoformat(timespec="seconds")
