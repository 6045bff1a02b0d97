"""What the numbers say: fronts, standard errors, the price of similarity, hypervolume. Plain values in, plain out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from reports.confirmed import Confirmation, Repeats, confirmation
from reports.load import Reference, Sweep, records
from reports.sweep_runs import trial_order
from reports.values import finite
from repsim.front import (
    best_second_within,
    error_of_mean_share,
    hypervolume,
    nondominated,
    ranked_axes,
    standard_error,
)
from repsim.front import knee as nearest_ideal
from repsim.records import METRICS, PARAM_PREFIX, Objective, Stage, Status

WITHIN = "within one standard error"
KNEE = "knee of the front"


@dataclass(frozen=True, kw_only=True)
class Axes:
    """``y`` is what one pays with (accuracy), ``x`` what one buys (similarity), ``colour`` a third objective."""

    y: Objective
    x: Objective | None
    colour: Objective | None


@dataclass(frozen=True, kw_only=True)
class Point:
    """One trial with every objective present. ``se`` is one standard error of ``values[0]``, if known.

    ``values`` are in the order y, x, colour of the axes. A derived point stands at ``alpha`` between the pretrained (0)
    and the finetuned weights (1) of the trial ``derived_from``. A ``pruned`` trial has the values of its last epoch.
    With ``repeats`` the point is a trial's configuration, and its values are means over fresh seeds; it is ``beaten``
    when only its being an anchor had it repeated: others are better by more than luck explains. ``se`` is then over
    the seeds, unless they show no spread (one alone, or all the same): the binomial one of ``n_val`` images stands in,
    as it does for a single run, and ``binomial`` says so.
    """

    trial_id: str
    run_id: str
    method: str
    backbone: str
    strength: float | None
    values: tuple[float, ...]
    se: float | None
    eligible: bool
    anchor: bool
    n_val: int | None = None
    binomial: bool = True
    derived_from: str | None = None
    alpha: float = 1.0
    pruned: bool = False
    repeats: Repeats | None = None
    beaten: bool = False

    @property
    def candidate(self) -> bool:
        """Whether it may be on the front; a pretrained end may not, for it is the linear probe once more."""
        return self.eligible and not self.beaten and (self.derived_from is None or self.alpha > 0)


@dataclass(frozen=True, kw_only=True)
class Pick:
    """A recommended point and the role it plays."""

    role: str
    point: Point


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything the report says about one data set.

    ``points`` are the search trials and derived points that can be drawn; ``means`` the confirmed configurations, and
    empty where the front is not confirmed; ``front`` the indices of those on the front, among the means where there are
    any and else among the points, by falling y; ``separated`` how many front points one standard error tells apart;
    ``counts`` the trials by status, derived points aside; ``course`` the hypervolume after each finished search trial,
    as (number of trials, share of the box); ``course_note`` why it is missing.
    """

    data: str
    axes: Axes
    trials: pd.DataFrame
    points: tuple[Point, ...]
    front: tuple[int, ...]
    picks: tuple[Pick, ...]
    separated: int | None
    counts: Mapping[str, int]
    incomplete: tuple[str, ...]
    reference: Reference | None
    course: tuple[tuple[int, float], ...]
    course_note: str
    means: tuple[Point, ...] = ()
    confirmation: Confirmation | None = None

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The axes' objectives in the order of ``Point.values``."""
        return tuple(axis for axis in (self.axes.y, self.axes.x, self.axes.colour) if axis is not None)

    @property
    def single(self) -> bool:
        """Whether the study is one run, which has numbers but no front."""
        return len(self.trials) == 1

    @property
    def members(self) -> tuple[Point, ...]:
        """The points on the front, best y first."""
        pool = self.means or self.points
        return tuple(pool[index] for index in self.front)

    @property
    def backbones(self) -> tuple[str, ...]:
        """Backbones with at least one point, by name."""
        return tuple(sorted({point.backbone for point in self.points}))


def choose_axes(objectives: Sequence[Objective]) -> Axes:
    """Accuracy-like objectives go up, the rest across; a third one becomes colour."""
    order = ranked_axes(objectives)
    return Axes(y=order[0], x=order[1] if len(order) > 1 else None, colour=order[2] if len(order) > 2 else None)


def separated(values: Sequence[float], errors: Sequence[float]) -> int:
    """How many of the points stand pairwise more than one standard error (the larger of the two) apart.

    Greedy from the best value down; the points kept are then pairwise apart, because gaps add up.
    """
    order = sorted(range(len(values)), key=lambda index: -values[index])
    kept: list[int] = []
    for index in order:
        if not kept or values[kept[-1]] - values[index] > max(errors[kept[-1]], errors[index]):
            kept.append(index)
    return len(kept)


def front_order(points: Sequence[Point], objectives: Sequence[Objective]) -> tuple[int, ...]:
    """Indices of the candidates that no other candidate dominates, best first objective first."""
    candidates = [index for index, point in enumerate(points) if point.candidate]
    kept = nondominated([points[i].values for i in candidates], [objective.direction for objective in objectives])
    on_front = [index for index, keep in zip(candidates, kept, strict=True) if keep]
    return tuple(sorted(on_front, key=lambda i: (*(_loss(points[i], objectives)), trial_order(points[i].trial_id))))


def _loss(point: Point, objectives: Sequence[Objective]) -> tuple[float, ...]:
    return tuple(
        -value if objective.direction == "maximize" else value
        for value, objective in zip(point.values, objectives, strict=True)
    )


def knee(members: Sequence[Point], objectives: Sequence[Objective]) -> Point | None:
    """The front point nearest to the ideal corner, each objective scaled by the front's range.

    None for fewer than three members or where the front has no extent in some objective.
    """
    found = nearest_ideal([point.values for point in members], [objective.direction for objective in objectives])
    return None if found is None else members[found]


def recommend(members: Sequence[Point], objectives: Sequence[Objective]) -> tuple[Pick, ...]:
    """Best first objective; the knee; best second objective within one standard error of the best first.

    The knee is missing where there is none, the last where no standard error is known; both with a single objective.
    """
    if not members:
        return ()
    label = METRICS[objectives[0].metric].label
    best = members[0]
    picks = [Pick(role=f"best {label}", point=best)]
    if len(objectives) < 2:
        return tuple(picks)
    middle = knee(members, objectives)
    if middle is not None:
        picks.append(Pick(role=KNEE, point=middle))
    if best.se is not None:
        directions = [objective.direction for objective in objectives]
        within = best_second_within([point.values for point in members], directions, best.se)
        other = METRICS[objectives[1].metric].label
        picks.append(Pick(role=f"best {other} {WITHIN} of the best {label}", point=members[within]))
    return tuple(picks)


def best_second(members: Sequence[Point], objectives: Sequence[Objective]) -> Point:
    """The member with the best second objective, the first of equals."""
    return min(members, key=lambda point: _loss(point, objectives)[1])


_CONSTRAINT = re.compile(r"\s*([a-z0-9_.]+)\s*(>=|<=)\s*([-+0-9.eE]+)\s*")


def meets(constraints: Sequence[str], values: Mapping[str, float | None]) -> bool:
    """Whether every ``metric >= bound`` holds; one that cannot be read or judged does not hold."""
    for text in constraints:
        match = _CONSTRAINT.fullmatch(text)
        bound = finite(match.group(3)) if match else None
        value = values.get(match.group(1)) if match else None
        if match is None or bound is None or value is None:
            return False
        if value < bound if match.group(2) == ">=" else value > bound:
            return False
    return True


def _meets(constraints: Sequence[str], row: Mapping[str, object]) -> bool:
    return meets(constraints, {name: finite(row[name]) for name in METRICS})


def study(sweep: Sweep, data: str) -> Study:
    """Everything there is to say about one data set of a sweep."""
    trials = sweep.trials[sweep.trials["data"] == data].reset_index(drop=True)
    axes = choose_axes(sweep.objectives)
    objectives = [axis for axis in (axes.y, axes.x, axes.colour) if axis is not None]
    points, incomplete = _points(sweep, trials, objectives)
    repeated = confirmation(sweep, trials, data)
    means = mean_points(points, repeated, objectives, sweep.constraints)
    front = front_order(means or points, objectives)
    members = [(means or points)[index] for index in front]
    errors = [point.se for point in members if point.se is not None]
    reference = sweep.references.get(data)
    course, note = hypervolume_course(trials, points, objectives, reference)
    return Study(
        data=data,
        axes=axes,
        trials=trials,
        points=tuple(points),
        front=front,
        picks=recommend(members, objectives),
        separated=separated([p.values[0] for p in members], errors)
        if members and len(errors) == len(members)
        else None,
        counts={str(k): int(v) for k, v in runs(trials)["status"].value_counts().items()},
        incomplete=tuple(incomplete),
        reference=reference,
        course=course,
        course_note=note,
        means=means,
        confirmation=repeated,
    )


def mean_points(
    points: Sequence[Point],
    repeated: Confirmation | None,
    objectives: Sequence[Objective],
    constraints: Sequence[str],
) -> tuple[Point, ...]:
    """The configurations with fresh seeds, at their means; none while no candidate has several seeds.

    A mean is judged against the constraints anew; its standard error is over the fresh seeds where they differ.
    """
    if repeated is None or not repeated.counts:
        return ()
    found = []
    for point in points:
        told, first = repeated.repeats.get(point.run_id), objectives[0].metric
        if told is not None and all(objective.metric in told.means for objective in objectives):
            spread = told.errors[first]
            n_val = point.n_val if first == "val_accuracy" else None
            again = replace(
                point,
                values=tuple(told.means[objective.metric] for objective in objectives),
                se=spread if n_val is None else error_of_mean_share(spread, told.means[first], n_val),
                binomial=spread is None,
                eligible=meets(constraints, told.means),
                repeats=told,
                beaten=point.run_id not in repeated.candidates,
            )
            found.append(again)
    return tuple(found)


def _points(sweep: Sweep, trials: pd.DataFrame, objectives: Sequence[Objective]) -> tuple[list[Point], list[str]]:
    points, incomplete = [], []
    for row in records(trials):
        if row["stage"] == Stage.CONFIRM.value or row["status"] not in (Status.COMPLETED.value, Status.PRUNED.value):
            continue
        values = [finite(row[objective.metric]) for objective in objectives]
        present = [value for value in values if value is not None]
        completed = row["status"] == Status.COMPLETED.value
        if len(present) < len(values):
            if completed:
                incomplete.append(str(row["trial_id"]))
            continue
        feasible = bool(row["feasible"]) if not pd.isna(row["feasible"]) else _meets(sweep.constraints, row)
        images = finite(row["n_val"])
        n_val = None if images is None else round(images)
        measurable = objectives[0].metric == "val_accuracy" and n_val is not None
        points.append(
            Point(
                trial_id=str(row["trial_id"]),
                run_id=str(row["mlflow_run_id"]),
                method=str(row["method"]),
                backbone=str(row["backbone"]),
                strength=finite(row["strength"]),
                values=tuple(present),
                se=standard_error(present[0], n_val) if measurable and n_val is not None else None,
                eligible=completed and feasible,
                anchor=row["mlflow_run_id"] in sweep.anchors,
                n_val=n_val,
                derived_from=str(row["derived_from"]) if row["stage"] == Stage.DERIVED.value else None,
                alpha=_alpha(row.get(f"{PARAM_PREFIX}wise_alpha")),
                pruned=not completed,
            )
        )
    return points, incomplete


def _alpha(value: object) -> float:
    """1 where a sweep was recorded before there was anything else."""
    found = finite(value)
    return 1.0 if found is None else found


def wise_words(alpha: float | None) -> str:
    """What follows a method's name where a model is not the finetuned one (`` wise α=0.3``), else nothing."""
    return "" if alpha is None or alpha == 1.0 else f" wise α={alpha:g}"


def runs(trials: pd.DataFrame) -> pd.DataFrame:
    """The rows that a training of their own stands behind: all but the derived points."""
    return trials[trials["stage"] != Stage.DERIVED.value]


def by_ending(trials: pd.DataFrame) -> tuple[str, ...]:
    """MLflow run ids of the finished search trials, in the order they ended; what has no time comes last."""
    final = trials[
        trials["stage"].eq(Stage.SEARCH.value) & trials["status"].isin([s.value for s in Status if s.terminal])
    ]
    order = final.assign(_at=final["ended"].fillna("~")).sort_values("_at", kind="stable")
    return tuple(str(run_id) for run_id in order["mlflow_run_id"])


def hypervolume_course(
    trials: pd.DataFrame, points: Sequence[Point], objectives: Sequence[Objective], reference: Reference | None
) -> tuple[tuple[tuple[int, float], ...], str]:
    """Hypervolume after each finished search trial, in the order of :func:`by_ending`; or why there is none.

    A trial's derived points came with it.
    """
    if len(objectives) < 2:
        return (), "With a single objective there is no hypervolume."
    if reference is None:
        return (), "The sweep recorded no reference point: it is fixed when both anchors have completed."
    names = [objective.metric for objective in objectives]
    corners = [[finite(corner.get(name)) for name in names] for corner in (reference.worst, reference.ideal)]
    worst, ideal = ([value for value in corner if value is not None] for corner in corners)
    if len(worst) < len(names) or len(ideal) < len(names):
        return (), "The recorded reference point lacks an objective."
    directions = [objective.direction for objective in objectives]
    run_of = {point.trial_id: point.run_id for point in points}
    eligible: dict[str, list[tuple[float, ...]]] = {}
    for point in points:
        if point.candidate:
            owner = point.trial_id if point.derived_from is None else point.derived_from
            eligible.setdefault(run_of.get(owner, point.run_id), []).append(point.values)
    course: list[tuple[int, float]] = []
    front: list[tuple[float, ...]] = []  # what it dominates adds nothing, and need not be looked at again
    volume = 0.0
    for count, run_id in enumerate(by_ending(trials), start=1):
        if run_id in eligible or not course:
            seen = [*front, *eligible.get(run_id, [])]
            before = front
            front = [point for point, keep in zip(seen, nondominated(seen, directions), strict=True) if keep]
            try:
                volume = volume if course and front == before else hypervolume(front, worst, ideal, directions)
            except ValueError:
                return (), "The recorded reference point is not worse than the ideal in every objective."
        course.append((count, volume))
    return tuple(course), ""


def mark_front(sweep: Sweep, studies: Sequence[Study]) -> pd.DataFrame:
    """The sweep's table with ``on_front`` set: True or False on search trials and derived points, else empty."""
    members = {point.run_id for item in studies for point in item.members}
    trials = sweep.trials.copy()
    candidates = trials["stage"] != Stage.CONFIRM.value
    flags = [
        (run_id in members) if candidate else None
        for run_id, candidate in zip(trials["mlflow_run_id"], candidates, strict=True)
    ]
    trials["on_front"] = pd.Series(flags, dtype="boolean", index=trials.index)
    return trials
