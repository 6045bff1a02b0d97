"""Calls to an MLflow store: in as few as its limits allow, and which refusals are final."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from sweeps.tracking_rows import Point

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

_METRICS_PER_CALL = 800  # with 100 parameters and 100 tags still below the limit of 1000 entities
_NAMES_PER_CALL = 100
_PERMANENT = frozenset(
    {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}
)


def log_values(
    client: MlflowClient,
    run_id: str,
    *,
    metrics: Collection[Point] = (),
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write parameters, metrics in order, and tags last."""
    from mlflow.entities import Metric, Param, RunTag

    all_params = [Param(key, value) for key, value in (params or {}).items()]
    all_metrics = [Metric(point.key, point.value, point.timestamp, point.step) for point in metrics]
    all_tags = [RunTag(key, value) for key, value in (tags or {}).items()]
    while all_params or all_metrics or all_tags:
        some_params, all_params = all_params[:_NAMES_PER_CALL], all_params[_NAMES_PER_CALL:]
        some_metrics, all_metrics = all_metrics[:_METRICS_PER_CALL], all_metrics[_METRICS_PER_CALL:]
        last = not all_params and not all_metrics
        some_tags = all_tags[:_NAMES_PER_CALL] if last else []
        all_tags = all_tags[len(some_tags) :]
        client.log_batch(run_id, metrics=some_metrics, params=some_params, tags=some_tags)


def last_steps(client: MlflowClient, run: Run) -> dict[str, int]:
    """The last step of each of a run's metrics."""
    steps: dict[str, int] = {}
    for key in run.data.metrics:
        history = client.get_metric_history(run.info.run_id, key)
        steps[key] = max((metric.step for metric in history), default=-1)
    return steps


def add_experiment_tags(client: MlflowClient, experiment_id: str, tags: Mapping[str, str]) -> None:
    """Set those that are not there; what is may have been changed by a person."""
    there = client.get_experiment(experiment_id).tags
    for key, value in tags.items():
        if key not in there:
            client.set_experiment_tag(experiment_id, key, value)


def permanent(error: Exception) -> bool:
    """Whether trying again is pointless (the run was deleted, the value is refused)."""
    return getattr(error, "error_code", None) in _PERMANENT
