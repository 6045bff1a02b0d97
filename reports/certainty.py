"""How sure a difference between two configurations is: over common seeds where there are some, else in words."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

import pandas as pd
from scipy.special import stdtrit

from reports import words
from reports.confirmed import NO_SPREAD, SEVERAL
from reports.fronts import Point, Study
from reports.load import records
from reports.paper_style import moves
from reports.paper_tables import show
from reports.values import finite
from repsim.front import standard_error
from repsim.records import METRICS, Objective, Stage, Status

LEVEL = 0.95
_ALWAYS_SAME = "A linear probe is fitted and not trained, so that every seed gives the same model"


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
    def same(self) -> bool:
        """Whether every seed gave the same difference, up to rounding: then there is no spread to judge it by."""
        return self.error <= NO_SPREAD

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
    n = 1 if point.repeats is None else point.repeats.n
    if point.se is None:
        return f"n = {n}, and no standard error of {metric.label} is known."
    if point.repeats is None:
        return f"n = 1: one standard error is {_binomial(study, point.se)}; the spread between seeds is not known."
    if not point.binomial:
        other = _of_images(study, point)
        beside = f"; it leaves out the luck of which images val has, {other}" if other else ""
        return f"± is one standard error over n = {n} fresh seeds{beside}."
    error = _binomial(study, point.se)
    if n < SEVERAL:
        return f"One fresh seed (n = 1), which shows no spread: ± of {metric.label} is {error}."
    why = _ALWAYS_SAME if not moves(point.method) else f"All n = {n} fresh seeds gave the same {metric.label}"
    return f"{why}, which says nothing of how sure it is: ± of {metric.label} is {error}."


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
    first = f"Against {best.trial_id}, paired over the {n} seeds that both have:"
    return (first, *told, *_of_probes(study, best, target))


def _of_probes(study: Study, best: Point, target: Point) -> tuple[str, ...]:
    """What the spread of a difference leaves out where seeds change but one of the two."""
    still = [point for point in (best, target) if point.se is not None and not moves(point.method)]
    if not still:
        return ()
    moving = [point.trial_id for point in (best, target) if moves(point.method)]
    whose = f"the spread is that of {moving[0]} alone" if moving else "there is no spread"
    label = METRICS[study.axes.y.metric].label
    return tuple(
        f"{point.trial_id}: {_ALWAYS_SAME[0].lower()}{_ALWAYS_SAME[1:]}, so {whose}; its {label} is sure to "
        f"± {_binomial(study, point.se)}"
        for point in still
        if point.se is not None
    )


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
    mean, error = number(found.mean, "+"), number(found.error)
    if found.same:
        return f"{mean} {unit}{metric.label} with every seed, so there is no interval"
    none = "; it holds 0, so no difference is shown" if found.none_possible else ""
    ends = f"{number(found.low)} to {number(found.high)}"
    return f"{mean} ± {error} {unit}{metric.label} (95 % interval {ends}{none})"


def _of_images(study: Study, point: Point) -> str:
    """The binomial standard error beside one over seeds; "" where the objective is no share of images."""
    if study.axes.y.metric != "val_accuracy" or point.n_val is None:
        return ""
    error = standard_error(point.values[0], point.n_val)
    return "" if error is None else _binomial(study, error)


def _binomial(study: Study, error: float) -> str:
    counts = study.trials["n_val"].dropna()
    images = f", {show(finite(counts.iloc[0]))} val images" if len(counts) else ""
    return f"{100 * error:.1f} points (binomial{images})"
