"""The searches that search_vs_peers.py compares, each behind ``ask``, ``report`` and ``tell``.

Ours is :class:`sweeps.search.Search`, the object that Ray drives in a sweep. Ray's OptunaSearch and Syne Tune's MOASHA
are the real objects too, driven without a cluster. All begin with the same two trials, the sweep's anchors.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

import numpy as np
from search_replay import Searcher, Values
from search_rules import NondominatedStopping

from repsim.catalogue import ADAPTERS, parse_method
from repsim.records import Objective, Status
from sweeps.domains import encode, suggest, walk
from sweeps.search import Outcome, Search
from sweeps.space import Choice, Domain, Space
from sweeps.stopping import RULES, ParetoStopping, Stopping
from sweeps.trial import Trial

Params = Mapping[str, object]
SORTING = "non-dominated sorting"
COMPARED: Mapping[str, type[Stopping]] = {**RULES, SORTING: NondominatedStopping}
"""Rules by name: the product's, and one that is only there to be compared with."""
PRODUCT = next(name for name, rule in RULES.items() if rule is ParetoStopping)
"""The rule that ``search.stopping: pareto`` means."""


class Stopper(Protocol):
    """Decides which trials need not be trained to the end."""

    def begin(self, name: str, params: Params) -> None:
        """A trial starts."""

    def report(self, name: str, epoch: int, values: Values) -> bool:
        """Whether it goes on."""

    def end(self, name: str, status: Status, values: Values | None) -> None:
        """It has ended."""


class NoStopper:
    """Every trial is trained to the end."""

    def begin(self, name: str, params: Params) -> None:
        """Nothing to remember."""

    def report(self, name: str, epoch: int, values: Values) -> bool:
        """Always."""
        return True

    def end(self, name: str, status: Status, values: Values | None) -> None:
        """Nothing to remember."""


class RuleStopper:
    """A rule of :mod:`sweeps.stopping`, as the search uses it: linear probes take part, and are not stopped."""

    def __init__(self, rule: str, space: Space) -> None:
        self._rule = COMPARED[rule](space.objectives, space.budget.epochs)
        self._probes: set[str] = set()

    def begin(self, name: str, params: Params) -> None:
        """Remember what is a probe."""
        if not ADAPTERS[parse_method(str(params["method"])).adapter].trains_backbone:
            self._probes.add(name)

    def report(self, name: str, epoch: int, values: Values) -> bool:
        """The rule's verdict."""
        return name in self._probes or self._rule.report(name, epoch, values)

    def end(self, name: str, status: Status, values: Values | None) -> None:
        """A finished probe is an anchor; a failed trial is forgotten."""
        if status is Status.FAILED:
            self._rule.forget(name)
        elif name in self._probes and values is not None:
            self._rule.anchor(name, values)


class MoashaStopper:
    """Syne Tune's MOASHA: rungs at 1, 3 and 9 epochs of 12, a third goes on (its defaults).

    ``ranked``: as released (0.16.0), its priority is the *order* of the sorted trials where the bracket expects the
    *rank* of each; with ``ranked`` it gets the ranks of the same non-dominated sort.
    """

    def __init__(self, space: Space, *, seed: int, ranked: bool) -> None:
        from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

        self._objectives = space.objectives
        self._trials: dict[str, Any] = {}
        self._last: dict[str, dict[str, float]] = {}
        self._scheduler = MOASHA(
            {},
            metrics=[objective.metric for objective in space.objectives],
            time_attr="epoch",
            max_t=space.budget.epochs,
            multiobjective_priority=_ranked_priority() if ranked else None,
            random_seed=seed,
        )

    def begin(self, name: str, params: Params) -> None:
        """Hand it to a bracket."""
        from syne_tune.backend.trial_status import Trial

        self._trials[name] = Trial(trial_id=len(self._trials), config={}, creation_time=datetime.now(UTC))
        self._scheduler.on_trial_add(self._trials[name])

    def report(self, name: str, epoch: int, values: Values) -> bool:
        """The scheduler's decision."""
        from syne_tune.optimizer.scheduler import SchedulerDecision

        self._last[name] = {"epoch": epoch} | _minimised(self._objectives, values)
        decision = self._scheduler.on_trial_result(self._trials[name], self._last[name])
        return bool(decision == SchedulerDecision.CONTINUE)

    def end(self, name: str, status: Status, values: Values | None) -> None:
        """Complete, or taken away."""
        if status is Status.COMPLETED:
            self._scheduler.on_trial_complete(self._trials[name], self._last[name])
        else:
            self._scheduler.on_trial_remove(self._trials[name])


def _minimised(objectives: Sequence[Objective], values: Values) -> dict[str, float]:
    signs = ((objective.metric, -1.0 if objective.direction == "maximize" else 1.0) for objective in objectives)
    return {metric: sign * values[metric] for metric, sign in signs}


def _ranked_priority() -> Any:
    from syne_tune.optimizer.schedulers.multiobjective.multiobjective_priority import NonDominatedPriority

    class Ranked(NonDominatedPriority):  # type: ignore[misc]
        def priority_unsafe(self, objectives: Any) -> Any:
            return np.argsort(super().priority_unsafe(objectives))

    return Ranked()


class OurSearch:
    """``sweeps.search.Search`` with a sampler of ours; ``trials`` is the budget that it plans with.

    ``rule``: ``none``, ``pareto`` (what a sweep uses), or another rule by name, put in its place.
    """

    def __init__(self, space: Space, *, sampler: str, seed: int, trials: int, rule: str) -> None:
        stopping = "none" if rule == "none" else "pareto"
        settings = replace(space.search, sampler=sampler, seed=seed, stopping=stopping)
        self._search = Search(replace(space, search=settings, budget=replace(space.budget, trials=trials)))
        if rule in COMPARED:
            for study in self._search._studies.values():
                study._rule = COMPARED[rule](space.objectives, space.budget.epochs)
        self._trials: dict[str, Trial] = {}

    def ask(self) -> tuple[str, Params] | None:
        """The search's next proposal."""
        trial = self._search.ask()
        if trial is None:
            return None
        self._trials[trial.trial_id] = trial
        return trial.trial_id, trial.params

    def report(self, name: str, epoch: int, values: Values) -> bool:
        """The search's verdict."""
        return self._search.report(self._trials[name], epoch, values)

    def tell(self, name: str, status: Status, values: Values | None) -> None:
        """As a sweep tells it."""
        self._search.tell(self._trials[name], Outcome(status=status, values=values, reason=status.value))


class Listed:
    """Proposals from an iterator, and a stopper: random search, MOASHA, or every point of a table once."""

    def __init__(self, proposals: Iterator[Params], stopper: Stopper) -> None:
        self._proposals = enumerate(proposals)
        self._stopper = stopper

    def ask(self) -> tuple[str, Params] | None:
        """The next of the list."""
        found = next(self._proposals, None)
        if found is None:
            return None
        name, params = f"t{found[0]:04d}", found[1]
        self._stopper.begin(name, params)
        return name, params

    def report(self, name: str, epoch: int, values: Values) -> bool:
        """The stopper's."""
        return self._stopper.report(name, epoch, values)

    def tell(self, name: str, status: Status, values: Values | None) -> None:
        """To the stopper."""
        self._stopper.end(name, status, values)


class RaySearch:
    """Ray Tune's OptunaSearch: define-by-run, told at the end alone (it ignores epochs with several objectives)."""

    def __init__(self, space: Space, *, sampler: Any, seed: int) -> None:
        from ray.tune.search.optuna import OptunaSearch

        data = space.data[0]

        def define(trial: Any) -> dict[str, object]:
            return {"proposal": walk(space, data, partial(suggest, trial))}

        self._objectives = space.objectives
        self._search = OptunaSearch(
            define,
            metric=[objective.metric for objective in space.objectives],
            mode=[objective.direction[:3] for objective in space.objectives],
            points_to_evaluate=[_encoded(space, params) for params in space.anchors(data)],
            sampler=sampler,
            seed=None if sampler is not None else seed,
        )
        self._count = 0

    def ask(self) -> tuple[str, Params] | None:
        """The next suggestion."""
        name = f"t{self._count:04d}"
        self._count += 1
        return name, self._search.suggest(name)["proposal"]

    def report(self, name: str, epoch: int, values: Values) -> bool:
        """Nothing is stopped."""
        self._search.on_trial_result(name, {**values, "training_iteration": epoch})
        return True

    def tell(self, name: str, status: Status, values: Values | None) -> None:
        """As Ray's controller does."""
        result = None if values is None else dict(values)
        self._search.on_trial_complete(name, result, error=status is Status.FAILED)


def _encoded(space: Space, params: Params) -> dict[str, object]:
    encoded = encode(space, space.data[0], params)
    if encoded is None:
        raise ValueError(f"{params} does not lie in the space")
    return {name: value for name, (value, _) in encoded.items()}


def uniform(space: Space, seed: int) -> Iterator[Params]:
    """The anchors, then uniform draws (numbers in the logarithm where the space says so)."""
    rng = np.random.default_rng(seed)
    data = space.data[0]
    yield from space.anchors(data)

    def draw(_: str, domain: Domain) -> object:
        if isinstance(domain, Choice):
            return domain.values[int(rng.integers(len(domain.values)))]
        if domain.log:
            return float(np.exp(rng.uniform(np.log(domain.low), np.log(domain.high))))
        return float(rng.uniform(domain.low, domain.high))

    while True:
        yield walk(space, data, draw)


Make = Callable[[Space, int], Searcher]
PLAIN = "tpe (OptunaSearch)"


def sides(trials: int) -> dict[str, Make]:
    """Every side by name; ``trials`` is the budget that ours plan with."""
    import optuna

    def ours(sampler: str, rule: str) -> Make:
        return lambda space, seed: OurSearch(space, sampler=sampler, seed=seed, trials=trials, rule=rule)

    def ray(make_sampler: Callable[[int], Any]) -> Make:
        return lambda space, seed: RaySearch(space, sampler=make_sampler(seed), seed=seed)

    found: dict[str, Make] = {
        PLAIN: ray(lambda _: None),
        "random": lambda space, seed: Listed(uniform(space, seed), NoStopper()),
        "nsga2 (OptunaSearch)": ray(lambda seed: optuna.samplers.NSGAIISampler(seed=seed)),
        "nsga2": ours("nsga2", "none"),
        "auto": ours("auto", "none"),
        "auto + pareto": ours("auto", "pareto"),
        "tpe + pareto": ours("tpe", "pareto"),
        "random + pareto": ours("random", "pareto"),
    }
    if has_syne_tune():
        found |= {name: partial(_moasha, ranked=ranked) for name, ranked in MOASHA.items()}
    return found | {side: ours("auto", rule) for side, rule in REPLACED.items()}


REPLACED: Mapping[str, str] = {f"auto + {rule}": rule for rule in COMPARED if rule != PRODUCT}
"""Our search with another rule in the place of the product's: they stop so many that thousands of models are fitted."""
MOASHA: Mapping[str, bool] = {"MOASHA (Syne Tune)": False, "MOASHA, ranks repaired": True}


def _moasha(space: Space, seed: int, *, ranked: bool) -> Searcher:
    return Listed(uniform(space, seed), MoashaStopper(space, seed=seed, ranked=ranked))


def stoppers(space: Space) -> dict[str, Callable[[int], Stopper]]:
    """Stopping rules by name, ours and the peer's, for the count of what they kill."""
    found: dict[str, Callable[[int], Stopper]] = {
        rule: partial(lambda rule, _: RuleStopper(rule, space), rule) for rule in COMPARED
    }
    if has_syne_tune():
        found |= {
            name: partial(lambda ranked, seed: MoashaStopper(space, seed=seed, ranked=ranked), ranked)
            for name, ranked in MOASHA.items()
        }
    return found


def has_syne_tune() -> bool:
    """Whether the optional package is there (``pip install '.[peers]'``)."""
    return importlib.util.find_spec("syne_tune") is not None
