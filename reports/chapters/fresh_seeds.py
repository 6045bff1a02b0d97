"""What every confirmed configuration gave with each of its fresh seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.fronts import Point, Study
from reports.load import records
from reports.values import finite
from repsim.records import Stage, Status

LEAST_SEEDS = 3
"""Fresh seeds below which nothing is said about a spread."""


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """A confirmed configuration: the point of its means, and the metrics asked for, in that order, by seed."""

    point: Point
    values: Mapping[int, tuple[float, ...]]


def fresh_runs(study: Study, metrics: Sequence[str], backbone: str) -> list[Fresh]:
    """The confirmed configurations of one backbone whose means keep the constraints, each once.

    Failed seeds, and seeds that lack one of the metrics, are left out. Empty while the front is not confirmed.
    """
    points = {point.run_id: point for point in study.means if point.backbone == backbone and point.eligible}
    trials = study.trials
    searched = trials.loc[trials["mlflow_run_id"].isin(list(points)), ["config_id", "mlflow_run_id"]]
    owner = {str(row["config_id"]): points[str(row["mlflow_run_id"])] for row in records(searched)}
    repeated = trials["stage"].eq(Stage.CONFIRM.value) & trials["status"].eq(Status.COMPLETED.value)
    found: dict[str, dict[int, tuple[float, ...]]] = {config: {} for config in owner}
    for row in records(trials.loc[repeated, ["config_id", "seed", *dict.fromkeys(metrics)]]):
        present = [value for metric in metrics if (value := finite(row[metric])) is not None]
        seed = finite(row["seed"])
        if str(row["config_id"]) in found and seed is not None and len(present) == len(metrics):
            found[str(row["config_id"])][round(seed)] = tuple(present)
    return [Fresh(point=owner[config], values=values) for config, values in found.items() if values]
