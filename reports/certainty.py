"""How sure a difference between two configurations is: over common seeds where there are some, else in words."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

import pandas as pd
from scipy.special import stdtrit

from reports.confirmed import SEVERAL
from reports.fronts import Point, Study
from reports.load import records
from reports.paper_tables import show
from reports.values import finite
from reports.words import change
from repsim.records import METRICS, Objective, Stage, Status

LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Differences over the ``n`` seeds that two configurations have in common.

    ``mean`` of the differences, its standard error s / sqrt(n), and the ends of the 95 % interval of Student's t
    (Student 1908, The probable error of a mean), which takes differences as independent and normal.
    """

    n: int
    mean: float
    error: float
    low: float
    high: float

    @property
    def none_possible(self) -> bool:
        """Whether the interval holds 0."""
        return self.low <= 0.0 <= self.high


def seed_values(trials: pd.DataFrame, run_id: str, metric: str) -> dict[int, float]:
    """A configuration's values by fresh seed; ``run_id`` is its search trial's, whose own value is left out."""
    rows = records(trials)
    config_ids = {row["config_id"] for row in rows if row["mlflow_run_id"] == run_id}
    found = {}
    for row in rows:
        if row["stage"] == Stage.CONFIRM.value and row["status"] == Status.COMPLETED.value:
            seed, value = finite(row["seed"]), finite(row[metric])
            if row["config_id"] in config_ids and seed is not None and value is not None:
                found[round(seed)] = value
    return found


def paired(first: dict[int, float], second: dict[int, float]) -> Paired | None:
    """``second`` minus ``first`` over their common seeds; None for fewer than two."""
    differences = [second[seed] - first[seed] for seed in sorted(first.keys() & second.keys())]
    n = len(differences)
    if n < SEVERAL:
        return None
    mean, error = statistics.fmean(differences), statistics.stdev(differences) / math.sqrt(n)
    half = float(stdtrit(n - 1, 0.5 + LEVEL / 2)) * error
    return Paired(n=n, mean=mean, error=error, low=mean - half, high=mean + half)


def of_value(study: Study, point: Point) -> str:
    """How sure a recommended point's own first objective is."""
    metric = METRICS[study.axes.y.metric]
    if point.repeats is not None:
        n = point.repeats.n
        if point.se is None:
            return "1 fresh seed, so no error bar (n = 1)."
        return f"Mean over {n} fresh seeds ± its standard error (n = {n})."
    if point.se is None:
        return f"n = 1, and no standard error of {metric.label} is known."
    return f"n = 1: {_binomial(study, point.se)}; the spread between seeds is not known."


def of_difference(study: Study, best: Point, target: Point) -> str:
    """How sure it is that ``target`` differs from ``best``: paired over common seeds, else by the binomial error."""
    if best.repeats is None or target.repeats is None:
        if best.se is None:
            return f"n = 1 each, and no standard error of {METRICS[study.axes.y.metric].label} is known."
        loss = abs(best.values[0] - target.values[0])
        size = "less" if loss <= best.se else "more"
        return (
            f"n = 1 each: the loss is {size} than one standard error ({_binomial(study, best.se)}), "
            "and the spread between seeds is not known."
        )
    told, n = [], 0
    for objective in _comparable(study, best, target):
        values = [seed_values(study.trials, point.run_id, objective.metric) for point in (best, target)]
        found = paired(values[0], values[1])
        if found is not None:
            told.append(_interval(found, objective))
            n = found.n
    if not told:
        return "The two have fewer than two fresh seeds in common, so nothing is said about their difference."
    return f"Against {best.trial_id}, paired over {n} common seeds: {'; '.join(told)}."


def _comparable(study: Study, best: Point, target: Point) -> tuple[Objective, ...]:
    """On another backbone, similarities are to another model."""
    return study.objectives if best.backbone == target.backbone else study.objectives[:1]


def _interval(found: Paired, objective: Objective) -> str:
    metric = METRICS[objective.metric]
    ends = [100 * end if metric.unit == "fraction" else end for end in (found.error, found.low, found.high)]
    digits = ".1f" if metric.unit == "fraction" else ".3f" if metric.per_split else ".3g"
    error, low, high = (f"{end:{digits}}".replace("-", "−") for end in ends)
    holds = "holds 0: no difference is shown" if found.none_possible else "leaves 0 out"
    return f"{change(found.mean, objective)} ± {error} (95 % interval {low} to {high}, which {holds})"


def _binomial(study: Study, error: float) -> str:
    counts = study.trials["n_val"].dropna()
    images = f" of {show(finite(counts.iloc[0]))} val images" if len(counts) else ""
    return f"binomial, {100 * error:.1f} points{images}"
