"""The front of a sweep as MLflow knows it, and which of its members to take. Reads the store, writes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from repsim.errors import Mistake, RequestError, nearest, one_line
from repsim.front import best_second_within, error_of_mean_share, knee, ranked_axes, standard_error
from repsim.records import CURVE_PREFIX, KIND_SWEEP, METRICS, Direction, Objective, Stage, Status, Tag
from sweeps.confirmation import summary
from sweeps.derived import trial_of

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

PICKS = ("knee", "accuracy", "similar")
"""What may be asked for beside a trial's id."""
LATEST = "latest"
_PARENT = "mlflow.parentRunId"


@dataclass(frozen=True, kw_only=True)
class Member:
    """A trial or derived point on the front.

    ``metrics`` are its own final values; ``seeds`` those of the completed fresh seeds of its configuration.
    """

    trial_id: str
    run_id: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    seeds: tuple[Mapping[str, float], ...] = ()

    @property
    def facts(self) -> Mapping[str, object]:
        """What the trial said of the ground it was measured on; empty where that cannot be read."""
        try:
            found = json.loads(self.tags.get(Tag.FACTS, "{}"))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def name(self) -> str:
        """``t0007 repsim tf_efficientnet_lite0``."""
        return " ".join((self.trial_id, self.tags.get(Tag.METHOD, ""), self.tags.get(Tag.BACKBONE, ""))).strip()

    def mean(self, metric: str) -> tuple[float, float | None, int] | None:
        """Mean, standard error and number over the fresh seeds; None where one of them, or all, lack the metric."""
        values = [seed[metric] for seed in self.seeds if metric in seed]
        return summary(values) if values and len(values) == len(self.seeds) else None


@dataclass(frozen=True, kw_only=True)
class Front:
    """One data set's front, the best in the first objective first.

    ``objectives`` are in the order of the report's axes. ``confirmed``: the values that count are means over fresh
    seeds. ``ended`` is whether the sweep has.
    """

    sweep: str
    run_id: str
    experiment_id: str
    data: str
    objectives: tuple[Objective, ...]
    confirmed: bool
    ended: bool
    members: tuple[Member, ...]

    @property
    def directions(self) -> list[Direction]:
        """The objectives' own, in order."""
        return [objective.direction for objective in self.objectives]

    def values(self, member: Member) -> tuple[float, ...]:
        """The objectives' values, in order: means where the front is confirmed."""
        means = [member.mean(objective.metric) if self.confirmed else None for objective in self.objectives]
        pairs = zip(means, self.objectives, strict=True)
        return tuple(member.metrics[one.metric] if mean is None else mean[0] for mean, one in pairs)

    def pick(self, what: str) -> Member:
        """One of :data:`PICKS`, or the member of that id; RequestError when there is no such one on the front."""
        if what not in PICKS:
            for member in self.members:
                if member.trial_id == what:
                    return member
            ids = [member.trial_id for member in self.members]
            problem = f"{one_line(what)} is not on the front of {self.sweep}"
            allowed = ", ".join([*PICKS, *ids[:20]]) + (f" and {len(ids) - 20} more" if len(ids) > 20 else "")
            raise _wrong("--pick", problem, allowed, nearest(what, [*PICKS, *ids]))
        points = [self.values(member) for member in self.members]
        if what == "accuracy":
            return self.members[0]
        if what == "knee":
            found = knee(points, self.directions)
            if found is None:
                problem = (
                    f"the front of {self.sweep} has no knee: it takes three members that differ in every objective"
                )
                raise _wrong("--pick", problem, ", ".join(["accuracy", "similar", "a trial's id"]))
            return self.members[found]
        error = self._error(self.members[0])
        if error is None:
            metric = self.objectives[0].metric
            problem = f"the standard error of {metric} is not known, so nothing can be said to be as good within it"
            raise _wrong("--pick", problem, "accuracy, knee, a trial's id")
        return self.members[best_second_within(points, self.directions, error)]

    def _error(self, best: Member) -> float | None:
        """One standard error of the first objective: over fresh seeds where they differ, else the binomial one."""
        metric = self.objectives[0].metric
        mean = best.mean(metric) if self.confirmed else None
        n_val = best.facts.get("n_val")
        if metric != "val_accuracy" or not isinstance(n_val, int):
            return None if mean is None else mean[1]
        if mean is not None:
            return error_of_mean_share(mean[1], mean[0], n_val)
        return standard_error(best.metrics[metric], n_val)


def read_front(client: MlflowClient, sweep: str, data: str | None = None) -> Front:
    """The front of a sweep (``latest``: the one started last) on a data set, which must be named where it has several.

    Raises RequestError when there is no such sweep, no such data set, or nothing on the front.
    """
    parent = _parent(client, sweep)
    tags, name = parent.data.tags, parent.data.tags[Tag.SWEEP]
    members = sorted(_members(client, parent), key=lambda member: _order(member.trial_id))
    sources = list(dict.fromkeys(member.tags.get(Tag.DATA, "") for member in members))
    if not members:
        raise _wrong("--sweep", f"{name} has nothing on its front yet (state: {tags.get(Tag.STATUS, 'unknown')})")
    if data is None and len(sources) > 1:
        raise _wrong("--data", f"{name} has a front for each of its data sets: say which", ", ".join(sources))
    chosen = sources[0] if data is None else data
    if chosen not in sources:
        raise _wrong("--data", f"{one_line(chosen)} is none of {name}'s", ", ".join(sources), nearest(chosen, sources))
    objectives = tuple(ranked_axes(_objectives(tags, name)))
    mine = [
        member
        for member in members
        if member.tags.get(Tag.DATA, "") == chosen and all(one.metric in member.metrics for one in objectives)
    ]
    front = Front(
        sweep=name,
        run_id=parent.info.run_id,
        experiment_id=parent.info.experiment_id,
        data=chosen,
        objectives=objectives,
        confirmed=all(member.seeds for member in mine) and any(len(member.seeds) > 1 for member in mine),
        ended=tags.get(Tag.STATUS) == "completed",
        members=tuple(mine),
    )
    return _sorted(front)


def _sorted(front: Front) -> Front:
    def rank(member: Member) -> tuple[object, ...]:
        pairs = zip(front.values(member), front.directions, strict=True)
        losses = [-value if direction == "maximize" else value for value, direction in pairs]
        return (*losses, *_order(member.trial_id))

    return replace(front, members=tuple(sorted(front.members, key=rank)))


def _order(trial_id: str) -> tuple[int, str]:
    """Puts ``t9999`` before ``t10000``, and a derived point behind its trial."""
    return len(trial_of(trial_id)), trial_id


def _parent(client: MlflowClient, name: str) -> Run:
    found = sorted(_search(client, f"tags.{Tag.KIND} = '{KIND_SWEEP}'"), key=lambda run: -run.info.start_time)
    named = [run for run in found if Tag.SWEEP in run.data.tags]
    if not named:
        raise _wrong("--sweep", "this store holds no sweep at all")
    for run in named:
        if name in (LATEST, run.data.tags[Tag.SWEEP]):
            return run
    known = list(dict.fromkeys(run.data.tags[Tag.SWEEP] for run in named))
    allowed = ", ".join([LATEST, *known[:8]]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
    raise _wrong("--sweep", f"{one_line(name)} is not a sweep in this store", allowed, nearest(name, known))


def _members(client: MlflowClient, parent: Run) -> Iterator[Member]:
    """Trials of the sweep on its front, and points filed under its trials."""
    here, sweep = [parent.info.experiment_id], parent.info.run_id
    leading = f"tags.{Tag.ON_FRONT} = 'true'"
    direct = list(_search(client, f"{leading} and tags.`{_PARENT}` = '{sweep}'", here))
    derived = [
        run
        for run in _search(client, f"{leading} and tags.{Tag.STAGE} = '{Stage.DERIVED}'", here)
        if _PARENT in run.data.tags and client.get_run(run.data.tags[_PARENT]).data.tags.get(_PARENT) == sweep
    ]
    fresh = f"tags.{Tag.STAGE} = '{Stage.CONFIRM}' and tags.{Tag.STATUS} = '{Status.COMPLETED}'"
    # after an outage a seed may have been filed under the sweep before its trial was there
    stray = list(_search(client, f"{fresh} and tags.`{_PARENT}` = '{sweep}'", here))
    for run in [*direct, *derived]:
        nested = _search(client, f"{fresh} and tags.`{_PARENT}` = '{run.info.run_id}'", here)
        same = run.data.tags.get(Tag.CONFIG_ID)
        seeds = [*nested, *(one for one in stray if one.data.tags.get(Tag.CONFIG_ID) == same)]
        yield Member(
            trial_id=run.data.tags.get(Tag.TRIAL_ID, run.info.run_id),
            run_id=run.info.run_id,
            tags=run.data.tags,
            params=run.data.params,
            metrics=_finals(run),
            seeds=tuple(map(_finals, seeds)),
        )


def _finals(run: Run) -> dict[str, float]:
    return {name: value for name, value in run.data.metrics.items() if not name.startswith(CURVE_PREFIX)}


def _objectives(tags: Mapping[str, str], sweep: str) -> list[Objective]:
    try:
        told = json.loads(tags.get(Tag.OBJECTIVES, ""))
        found = [Objective(metric=str(one["metric"]), direction=one["direction"]) for one in told]
    except (ValueError, KeyError, TypeError):
        found = []
    if not found or any(one.metric not in METRICS or one.direction not in ("maximize", "minimize") for one in found):
        raise _wrong("--sweep", f"the record of {sweep}'s objectives cannot be read")
    return found


def _search(client: MlflowClient, condition: str, experiments: Sequence[str] | None = None) -> Iterator[Run]:
    """Every active run that matches, over all pages, from the given experiments (default: all)."""
    ids = list(experiments) if experiments is not None else list(_experiments(client))
    token: str | None = None
    while ids:
        page = client.search_runs(ids, condition, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _experiments(client: MlflowClient) -> Iterator[str]:
    token: str | None = None
    while True:
        page = client.search_experiments(max_results=1000, page_token=token)
        yield from (item.experiment_id for item in page)
        token = page.token
        if not token:
            return


def _wrong(where: str, problem: str, allowed: str = "", suggestion: str | None = None) -> RequestError:
    return RequestError(Mistake(where=where, key="", problem=problem, allowed=allowed, suggestion=suggestion))
