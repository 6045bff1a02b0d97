"""The runs of a sweep in the store: all of them, or those that the compact tables do not have."""

from __future__ import annotations

from typing import Any

from reports.compacted import Compact
from reports.store import search_all
from repsim.records import KIND_TRIAL, Stage, Tag

PARENT = "mlflow.parentRunId"


def sweep_runs(client: Any, parent: Any, compact: Compact | None = None) -> list[Any]:
    """Trials of the sweep, and what is filed under them (confirmations, derived points), each once, in order."""
    found = _all(client, parent) if compact is None else _newer(client, parent, compact)
    trials = [run for run in found if run.data.tags.get(Tag.KIND, KIND_TRIAL) == KIND_TRIAL]
    return sorted(trials, key=lambda run: (*trial_order(run.data.tags.get(Tag.TRIAL_ID, "")), run.info.start_time))


def trial_order(trial_id: str) -> tuple[int, str]:
    """Sort key that puts ``t9999`` before ``t10000``, and a derived point (``t0007-w03``) behind its trial."""
    return len(trial_id.partition("-")[0]), trial_id


def _all(client: Any, parent: Any) -> list[Any]:
    experiment = [parent.info.experiment_id]
    direct = search_all(client, f"tags.{PARENT} = '{parent.info.run_id}'", experiment)
    known = {run.info.run_id for run in direct}
    nested = [
        run
        for run in search_all(client, f"tags.{Tag.STAGE} != '{Stage.SEARCH}'", experiment)
        if run.data.tags.get(PARENT) in known and run.info.run_id not in known
    ]
    return [*direct, *nested]


def _newer(client: Any, parent: Any, compact: Compact) -> list[Any]:
    """What the tables have, and from the store what is open or ended since; what was deleted is left out."""
    experiment = [parent.info.experiment_id]
    name = parent.data.tags.get(Tag.SWEEP, "")
    quote = '"' if "'" in name else "'"
    mine = f"tags.{Tag.SWEEP} = {quote}{name}{quote}"
    open_states = [f"{mine} and attributes.status = '{status}'" for status in ("RUNNING", "SCHEDULED")]
    since = f"{mine} and attributes.end_time >= {compact.asked_from}"
    asked = {run.info.run_id: run for text in (since, *open_states) for run in search_all(client, text, experiment)}
    gone = {run.info.run_id for run in search_all(client, mine, experiment, deleted=True)}
    known = {parent.info.run_id} | set(compact.runs) | set(asked)
    fresh = {key: run for key, run in asked.items() if run.data.tags.get(PARENT) in known and key != parent.info.run_id}
    return [*fresh.values(), *(run for key, run in compact.runs.items() if key not in fresh and key not in gone)]
