"""Several sweeps in one box, data set by data set. Plain values in, plain values out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from reports.fronts import Point, Study, study
from reports.load import Reference, Sweep
from repsim.errors import Mistake, RequestError, one_line
from repsim.front import hypervolume
from repsim.records import Objective, Stage, Status


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One sweep on one data set.

    ``volume`` is the hypervolume of its front's members in the common box; None where there is no box. ``runs`` counts
    its completed search trials; ``seeds`` the fewest fresh seeds behind a member's mean, 0 where the front is of runs.
    """

    sweep: str
    study: Study
    runs: int
    seeds: int
    volume: float | None

    @property
    def members(self) -> tuple[Point, ...]:
        """The front."""
        return self.study.members


@dataclass(frozen=True, kw_only=True)
class Shared:
    """A data set that two sweeps or more have. ``cautions`` say why the entries may not be comparable."""

    data: str
    box: Reference | None
    entries: tuple[Entry, ...]
    cautions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Sweeps side by side; their objectives are the same."""

    sweeps: tuple[str, ...]
    objectives: tuple[Objective, ...]
    shared: tuple[Shared, ...]
    apart: tuple[str, ...]
    """Data sets that one sweep alone has."""


def compare(sweeps: Sequence[Sweep]) -> Comparison:
    """Raises RequestError when objectives differ or no data set is shared."""
    first = sweeps[0]
    for other in sweeps[1:]:
        if set(other.objectives) != set(first.objectives):
            theirs, ours = (", ".join(f"{o.direction} {o.metric}" for o in one.objectives) for one in (other, first))
            problem = f"{one_line(other.name)} has other objectives than {one_line(first.name)} ({theirs}; {ours})"
            allowed = "sweeps with the same objectives"
            raise RequestError(Mistake(where="--sweeps", key="", problem=problem, allowed=allowed))
    names = dict.fromkeys(data for sweep in sweeps for data in sweep.data_sets)
    having = {data: [sweep for sweep in sweeps if data in sweep.data_sets] for data in names}
    shared = [data for data, owners in having.items() if len(owners) > 1]
    if not shared:
        told = "; ".join(f"{one_line(sweep.name)}: {', '.join(map(one_line, sweep.data_sets))}" for sweep in sweeps)
        problem = f"no two of them have a data set in common ({told})"
        raise RequestError(Mistake(where="--sweeps", key="", problem=problem, allowed="sweeps on the same data"))
    return Comparison(
        sweeps=tuple(sweep.name for sweep in sweeps),
        objectives=first.objectives,
        shared=tuple(_shared(data, having[data]) for data in shared),
        apart=tuple(data for data in names if data not in shared),
    )


def _shared(data: str, sweeps: Sequence[Sweep]) -> Shared:
    box = common_box([sweep.references.get(data) for sweep in sweeps], sweeps[0].objectives)
    return Shared(
        data=data,
        box=box,
        entries=tuple(_entry(sweep, data, box) for sweep in sweeps),
        cautions=tuple(_cautions(data, sweeps)),
    )


def _entry(sweep: Sweep, data: str, box: Reference | None) -> Entry:
    found = study(sweep, data)
    search = found.trials[found.trials["stage"] == Stage.SEARCH.value]
    seeds = [point.repeats.n for point in found.members if point.repeats is not None]
    return Entry(
        sweep=sweep.name,
        study=found,
        runs=int((search["status"] == Status.COMPLETED.value).sum()),
        seeds=min(seeds, default=0),
        volume=None if box is None else _volume(found, box),
    )


def _volume(found: Study, box: Reference) -> float | None:
    names = [objective.metric for objective in found.objectives]
    worst, ideal = ([corner[name] for name in names] for corner in (box.worst, box.ideal))
    directions = [objective.direction for objective in found.objectives]
    try:
        return hypervolume([point.values for point in found.members], worst, ideal, directions)
    except ValueError:
        return None


def common_box(boxes: Sequence[Reference | None], objectives: Sequence[Objective]) -> Reference | None:
    """From the worst of the reference points to the best of the ideals; None where a sweep has recorded none.

    The box contains every sweep's own, so a front that counts in its own box counts here.
    """
    known = [box for box in boxes if box is not None]
    names = [objective.metric for objective in objectives]
    corners = [corner for box in known for corner in (box.worst, box.ideal)]
    if len(known) < len(boxes) or any(name not in corner for corner in corners for name in names):
        return None
    ends: Mapping[str, tuple[Callable[..., float], Callable[..., float]]] = {
        objective.metric: (min, max) if objective.direction == "maximize" else (max, min) for objective in objectives
    }
    return Reference(
        worst={name: ends[name][0](box.worst[name] for box in known) for name in names},
        ideal={name: ends[name][1](box.ideal[name] for box in known) for name in names},
    )


def _cautions(data: str, sweeps: Sequence[Sweep]) -> list[str]:
    said = []
    for place, what in ((0, "images"), (1, "similarity probes")):
        seen = {
            sweep.hashes[str(run_id)][place]
            for sweep in sweeps
            for run_id in sweep.trials.loc[sweep.trials["data"] == data, "mlflow_run_id"]
        }
        if len(seen - {""}) > 1:
            said.append(f"The sweeps saw different {what} (the recorded hashes differ): do not compare their values.")
    commits = {sweep.git_commit for sweep in sweeps} - {""}
    if len(commits) > 1 or any(sweep.git_dirty for sweep in sweeps):
        said.append("The sweeps ran different code, or code with uncommitted changes.")
    searched = {sweep.name: sweep.trials[sweep.trials["stage"] == Stage.SEARCH.value] for sweep in sweeps}
    budgets = {name: int((trials["data"] == data).sum()) for name, trials in searched.items()}
    if len(set(budgets.values())) > 1:
        told = ", ".join(f"{name}: {count}" for name, count in budgets.items())
        said.append(f"The sweeps ran different numbers of trials ({told}): the best of more is better by luck alone.")
    return said
