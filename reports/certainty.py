"""How sure a difference between two configurations is: over common seeds where there are some, else in words."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

import pandas as pd
from scipy.special import stdtrit

from reports import words
from reports.confirmed import SEVERAL
from reports.fronts import Point, Study
from reports.load import records
from reports.paper_tables import show
from reports.values import finite
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
    rows = records(trials[["mlflow_run_id", "config_id", "stage", "status", "seed", metric]])
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
        return "One fresh seed, so no error bar (n = 1)." if point.se is None else f"± is one standard error, n = {n}."
    if point.se is None:
        return f"n = 1, and no standard error of {metric.label} is known."
    return f"n = 1: one standard error is {_binomial(study, point.se)}; the spread between seeds is not known."


def of_difference(study: Study, best: Point, target: Point) -> tuple[str, ...]:
    """How sure it is that ``target`` differs from ``best``: a sentence, then a line per objective where seeds pair up.

    Without fresh seeds it is the binomial standard error alone that the difference can be held against.
    """
    if best.repeats is None or target.repeats is None:
        if best.se is None:
            return (f"n = 1 each, and no standard error of {METRICS[study.axes.y.metric].label} is known.",)
        size = words.size_of_loss(study, best, target).partition(" (")[0]
        spread = "the spread between seeds is not known"
        return (f"n = 1 each: the loss is {size}, which is {_binomial(study, best.se)}; {spread}.",)
    told, n = [], 0
    for objective in _comparable(study, best, target):
        values = [seed_values(study.trials, point.run_id, objective.metric) for point in (best, target)]
        found = paired(values[0], values[1])
        if found is not None:
            told.append(_interval(found, objective))
            n = found.n
    if not told:
        return ("The two have fewer than two fresh seeds in common, so nothing is said of their difference.",)
    return (f"Against {best.trial_id}, paired over the {n} seeds that both have:", *told)


def _comparable(study: Study, best: Point, target: Point) -> tuple[Objective, ...]:
    """On another backbone, similarities are to another model."""
    return study.objectives if best.backbone == target.backbone else study.objectives[:1]


def _interval(found: Paired, objective: Objective) -> str:
    """``−1.5 ± 0.1 points of val accuracy (95 % interval −2.0 to −1.0)``, and whether it may be none."""
    metric = METRICS[objective.metric]
    scale, digits = (100.0, ".1f") if metric.unit == "fraction" else (1.0, ".3f" if metric.per_split else ".3g")

    def number(value: float, sign: str = "") -> str:
        return f"{scale * value:{sign}{digits}}".replace("-", "−")

    unit = "points of " if metric.unit == "fraction" else f"{metric.unit} of " if metric.unit else ""
    none = "; it holds 0, so no difference is shown" if found.none_possible else ""
    mean, error = number(found.mean, "+"), number(found.error)
    ends = f"{number(found.low)} to {number(found.high)}"
    return f"{mean} ± {error} {unit}{metric.label} (95 % interval {ends}{none})"


def _binomial(study: Study, error: float) -> str:
    counts = study.trials["n_val"].dropna()
    images = f", {show(finite(counts.iloc[0]))} val images" if len(counts) else ""
    return f"{100 * error:.1f} points (binomial{images})"
