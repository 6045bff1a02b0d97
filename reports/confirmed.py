"""What fresh seeds say: means, standard errors and the confirmed front. Plain values in, plain out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from reports.load import Sweep, records
from reports.values import finite
from repsim.records import METRICS, Stage, Status

UNDER_WAY = "not yet"
"""What the sweep records as the end of a confirmation that has none."""
SEVERAL = 2
"""Fresh seeds from which a configuration has an error bar."""
NO_SPREAD = 1e-6
"""Values that differ by no more than this part of themselves are the same: what is left is rounding."""


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """A configuration over its ``n`` completed fresh seeds, the search's own run left out.

    ``means`` and standard errors by metric, for those that every seed has. A standard error is s / sqrt(n); None for
    n = 1, and where all seeds gave the same, as a linear probe's do: that no seed changes it is no certainty.
    """

    n: int
    means: Mapping[str, float]
    errors: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """A data set's confirmation. ``repeats`` by the search trial's MLflow run id.

    ``end`` says why it ended ("" where the sweep recorded nothing, ``not yet`` while it goes on), ``reason`` so in
    words, ``delta`` how much luck may explain, by metric. ``candidates`` are the run ids of the search trials that may
    be on the front; the others with fresh seeds are anchors, whose seeds gave δ.
    """

    end: str
    reason: str
    delta: Mapping[str, float]
    candidates: frozenset[str]
    repeats: Mapping[str, Repeats]

    @property
    def counts(self) -> bool:
        """Whether a candidate has several fresh seeds, so that the front is that of the means."""
        return any(self.repeats[run_id].n >= SEVERAL for run_id in self.candidates if run_id in self.repeats)

    @property
    def missing(self) -> int:
        """Candidates without a completed fresh seed, of which nothing is said."""
        return len(self.candidates - set(self.repeats))


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean and its standard error, as one cell of a table."""

    mean: float
    error: float | None


def estimates(told: Repeats) -> dict[str, Estimate]:
    """Every metric's mean and standard error, for tables."""
    return {metric: Estimate(mean=mean, error=told.errors[metric]) for metric, mean in told.means.items()}


def repeats(rows: Sequence[Mapping[str, object]]) -> Repeats | None:
    """Means over completed confirmation runs of one configuration; None without any."""
    if not rows:
        return None
    found: dict[str, list[float]] = {}
    for metric in METRICS:
        values = [value for row in rows if (value := finite(row.get(metric))) is not None]
        if len(values) == len(rows):
            found[metric] = values
    return Repeats(
        n=len(rows),
        means={metric: statistics.fmean(values) for metric, values in found.items()},
        errors={metric: standard_error_of_mean(values) for metric, values in found.items()},
    )


def standard_error_of_mean(values: Sequence[float]) -> float | None:
    """s / sqrt(n); None for a single value, and for equal ones, which show no spread to tell anything from."""
    if len(values) < SEVERAL or max(values) - min(values) <= NO_SPREAD * max(map(abs, values)):
        return None
    return statistics.stdev(values) / math.sqrt(len(values))


def confirmation(sweep: Sweep, trials: pd.DataFrame, data: str) -> Confirmation | None:
    """What the fresh seeds among a data set's ``trials`` say; None where there are none.

    A sweep that did not record its candidates has all configurations with fresh seeds as such.
    """
    fresh: dict[str, list[Mapping[str, object]]] = {}
    for row in records(trials[trials["stage"] == Stage.CONFIRM.value]):
        mine = fresh.setdefault(str(row["config_id"]), [])
        if row["status"] == Status.COMPLETED.value:
            mine.append(row)
    recorded = sweep.confirmations.get(data)
    if recorded is None and not fresh:
        return None
    of_search = trials["stage"] == Stage.SEARCH.value
    searched = records(trials.loc[of_search, ["mlflow_run_id", "trial_id", "config_id"]])
    found = {str(row["mlflow_run_id"]): repeats(fresh.get(str(row["config_id"]), [])) for row in searched}
    if recorded is None:
        chosen = {str(row["mlflow_run_id"]) for row in searched if str(row["config_id"]) in fresh}
    else:
        chosen = {str(row["mlflow_run_id"]) for row in searched if str(row["trial_id"]) in recorded.candidates}
    return Confirmation(
        end="" if recorded is None else recorded.end,
        reason="" if recorded is None else recorded.reason,
        delta={} if recorded is None else recorded.delta,
        candidates=frozenset(chosen),
        repeats={run_id: told for run_id, told in found.items() if told is not None},
    )
