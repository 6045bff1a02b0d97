"""A search space: the YAML people write, validated into one frozen value. No torch, no Ray, no Optuna, no MLflow.

The types live here; :mod:`sweeps.space_file` reads files and :mod:`sweeps.space_rules` judges what they say.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from repsim.catalogue import ADAPTERS, parse_method
from repsim.config import TARGET_KEY, TrialConfig
from repsim.records import Objective
from sweeps.space_conditions import When, holds, when_document
from sweeps.space_resources import Resources

ANCHORS: tuple[str, ...] = ("linear_probe", "full")
"""Methods of the first two trials of every sweep."""
STRENGTH_KEYS: tuple[str, ...] = ("strength", TARGET_KEY)
"""What only a method with a penalty has: its weight, or the similarity to arrive at."""
_DEFAULTS: Mapping[str, object] = TrialConfig().flat()
_LINEAR = "linear"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A finite list of values; a scalar in the YAML is a choice of one."""

    values: tuple[object, ...]


@dataclass(frozen=True, kw_only=True)
class Range:
    """``low`` to ``high``, both included; ``log`` means uniform in the logarithm; ``integer`` when both ends are."""

    low: float
    high: float
    log: bool = False
    integer: bool = False


Domain = Choice | Range


def contains(domain: Domain, value: object) -> bool:
    """Whether ``value`` may be proposed."""
    if isinstance(domain, Choice):
        return value in domain.values
    return isinstance(value, int | float) and not isinstance(value, bool) and domain.low <= value <= domain.high


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A domain that holds where every key of ``when`` matches one of its patterns (empty = everywhere)."""

    when: When
    domain: Domain

    def holds(self, *, method: str, backbone: str, data: str) -> bool:
        """Whether every condition is met."""
        return holds(self.when, method=method, backbone=backbone, data=data)


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One searched key; the first branch that matches holds, and where none does the value is absent (None)."""

    key: str
    branches: tuple[Branch, ...]

    def domain(self, *, method: str, backbone: str, data: str) -> Domain | None:
        """The domain under these conditions, or None when the value is absent."""
        for branch in self.branches:
            if branch.holds(method=method, backbone=backbone, data=data):
                return branch.domain
        return None

    def choices(self) -> tuple[object, ...]:
        """Every value that some branch lists, once, in order; ranges list none."""
        found = [v for b in self.branches if isinstance(b.domain, Choice) for v in b.domain.values]
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """``metric >= bound`` or ``metric <= bound``."""

    metric: str
    sense: str
    bound: float

    def violation(self, value: float) -> float:
        """How far ``value`` is on the wrong side; <= 0 is feasible."""
        return self.bound - value if self.sense == ">=" else value - self.bound

    def __str__(self) -> str:
        return f"{self.metric} {self.sense} {self.bound!r}"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """When the search ends, per data set, whichever comes first; None is no limit.

    ``trials`` terminal search trials of ``epochs`` each; ``hours``; ``train_epochs`` over all search trials;
    ``stagnation`` trials in a row without a larger hypervolume.
    """

    trials: int
    epochs: int
    hours: float | None = None
    train_epochs: int | None = None
    stagnation: int | None = None


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How proposals are made. ``parallel`` is None for ``auto``; ``balance`` is ``method``, ``backbone`` or None."""

    sampler: str = "auto"
    stopping: str = "none"
    balance: str | None = None
    parallel: int | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Space:
    """Everything a sweep needs to know, complete and validated.

    ``data`` are the SOURCEs, one independent study each. ``fixed`` are dotted keys of the trial's configuration.
    ``confirm_seeds`` fresh seeds of each candidate, at most ``confirm_runs`` runs, per data set.
    ``initial`` are points (searched keys, as far as they were given) to be tried first, after the anchors.
    ``dimensions`` come in an order in which every ``when`` refers to earlier keys only. ``budget.epochs`` is the
    number of epochs of a trial; where epochs are searched, the largest.
    """

    name: str
    question: str
    data: tuple[str, ...]
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    budget: Budget
    search: SearchSettings
    confirm_seeds: int
    resources: Resources
    fixed: Mapping[str, object]
    dimensions: tuple[Dimension, ...]
    initial: tuple[Mapping[str, object], ...] = ()
    confirm_runs: int = 0

    def dimension(self, key: str) -> Dimension:
        """The searched key; KeyError when it is not searched."""
        for dimension in self.dimensions:
            if dimension.key == key:
                return dimension
        raise KeyError(f"{key!r} is not searched in space {self.name!r}")

    def domain(self, key: str, chosen: Mapping[str, object], data: str) -> Domain | None:
        """The domain of ``key`` given the values chosen so far, or None when it is absent."""
        return self.dimension(key).domain(
            method=str(self._value("method", chosen)), backbone=str(self._value("backbone", chosen)), data=data
        )

    def _value(self, key: str, chosen: Mapping[str, object]) -> object:
        """What a proposal says about ``key``; the fixed or default value where it says nothing."""
        value = chosen.get(key)
        return self.fixed.get(key, _DEFAULTS[key]) if value is None else value

    def config(self, params: Mapping[str, object], *, data: str, seed: int) -> TrialConfig:
        """The complete configuration of a proposal; None values are left at their defaults."""
        flat: dict[str, object] = {"optim.epochs": self.budget.epochs, **self.fixed}
        flat.update({key: value for key, value in params.items() if value is not None})
        flat.update({"data": data, "seed": seed})
        if parse_method(str(self._value("method", flat))).penalty is None:
            for key in STRENGTH_KEYS:
                flat.pop(key, None)
        return TrialConfig.from_flat(flat, where=f"space {self.name}")

    def anchors(self, data: str) -> tuple[Mapping[str, object], ...]:
        """Params of the first two trials of every sweep: ``linear_probe`` and ``full`` at default settings.

        Of the searched keys, absent ones are None, choices take the default (or, without it, their first value), and
        ranges take the default, or are left out when it lies outside. A linear probe's head is linear, whatever the
        space says. Empty for a single run.
        """
        return () if self.is_single_run else tuple(self._anchor(method, data) for method in ANCHORS)

    def _anchor(self, method: str, data: str) -> Mapping[str, object]:
        params: dict[str, object] = {"method": method}
        for dimension in self.dimensions:
            key, default = dimension.key, _DEFAULTS[dimension.key]
            if key == "method":
                continue
            if key == "backbone":
                params[key] = dimension.choices()[0]
                continue
            domain = self.domain(key, params, data)
            if domain is None:
                params[key] = None
            elif contains(domain, default):
                params[key] = default
            elif isinstance(domain, Choice):
                params[key] = domain.values[0]
        if ADAPTERS[parse_method(method).adapter].linear_head and self._value("head", params) != _LINEAR:
            params["head"] = _LINEAR
        return params

    def values(self, key: str) -> tuple[object, ...]:
        """Every value a choice (``backbone``, ``method`` …) can take anywhere in the space, the anchors aside."""
        for dimension in self.dimensions:
            if dimension.key == key:
                return dimension.choices()
        return (self.fixed.get(key, _DEFAULTS[key]),)

    @property
    def is_single_run(self) -> bool:
        """Nothing is searched: one trial, no anchors."""
        return not self.dimensions

    @property
    def trial_count(self) -> int:
        """Search trials of the whole sweep, anchors included: the budget times the data sets."""
        return self.budget.trials * len(self.data)

    def to_dict(self) -> dict[str, object]:
        """The YAML document with every default written out; ``sweeps.space.space_from_dict`` reads it back."""
        budget: dict[str, object] = {"trials": self.budget.trials, "epochs": self.budget.epochs}
        limits = ("hours", "train_epochs", "stagnation")
        budget |= {name: getattr(self.budget, name) for name in limits if getattr(self.budget, name) is not None}
        search = self.search
        return {
            "name": self.name,
            "question": self.question,
            "data": list(self.data),
            "objectives": [{"metric": o.metric, "direction": o.direction} for o in self.objectives],
            "constraints": [str(constraint) for constraint in self.constraints],
            "budget": budget,
            "search": {
                "sampler": search.sampler,
                "stopping": search.stopping,
                **({} if search.balance is None else {"balance": search.balance}),
                "parallel": _auto(search.parallel),
                "seed": search.seed,
            },
            "confirm": {"seeds": self.confirm_seeds, **({"runs": self.confirm_runs} if self.confirm_seeds else {})},
            "resources": self.resources.to_dict(),
            **({"initial": [_plain_point(point) for point in self.initial]} if self.initial else {}),
            "fixed": {key: _plain(value) for key, value in self.fixed.items()},
            "space": {dimension.key: _dimension_document(dimension) for dimension in self.dimensions},
        }

    @property
    def space_hash(self) -> str:
        """Sixteen hexadecimal digits naming what is searched, and how.

        Name, question, budgets (but for the epochs), ``search.parallel`` and resources are left out: they change how
        far and how fast a search goes, and a resumed sweep may change them.
        """
        document = self.to_dict()
        told = {key: document[key] for key in ("data", "objectives", "constraints", "fixed", "space")}
        told["how"] = [self.search.sampler, self.search.stopping, self.search.seed, self.budget.epochs]
        told |= {"balance": self.search.balance} if self.search.balance else {}
        told |= {"initial": document["initial"]} if self.initial else {}
        text = json.dumps(told, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def describe(self) -> str:
        """The resolved space in a few lines, for people."""
        lines = [f"{self.name}: {self.question}" if self.question else self.name]
        lines += [f"data: {', '.join(self.data)}"]
        lines += ["objectives: " + ", ".join(f"{o.direction} {o.metric}" for o in self.objectives)]
        if self.constraints:
            lines += ["constraints: " + ", ".join(str(constraint) for constraint in self.constraints)]
        lines += [f"budget: {self._budget_text()}"]
        lines += [f"fixed: {key} = {_plain(value)}" for key, value in self.fixed.items()]
        for dimension in self.dimensions:
            for number, branch in enumerate(dimension.branches):
                lines += [f"{'search' if number == 0 else '    or'}: {dimension.key} {_branch_text(branch)}"]
        return "\n".join([*lines, *([] if self.is_single_run else [f"search by: {self._search_text()}"])])

    def _search_text(self) -> str:
        search, starts = self.search, len(self.initial)
        parts = [
            f"sampler {search.sampler}",
            f"stopping {search.stopping}",
            f"balance {search.balance}" if search.balance is not None else "",
            f"seed {search.seed}",
            f"{starts} initial point{'s' if starts > 1 else ''}" if starts else "",
            f"{self.confirm_seeds} fresh seeds to confirm" if self.confirm_seeds else "",
        ]
        return ", ".join(part for part in parts if part)

    def _budget_text(self) -> str:
        text = "one run" if self.is_single_run else f"{self.budget.trials} trials"
        text += " per data set" if len(self.data) > 1 else ""
        text += f", {self.budget.epochs} epochs each"
        limits = [
            (self.budget.hours, "at most {:g} hours"),
            (self.budget.train_epochs, "at most {:g} epochs in all"),
            (self.budget.stagnation, "until {:g} trials in a row bring nothing"),
        ]
        return ", ".join([text, *(words.format(limit) for limit, words in limits if limit is not None)])


def _plain_point(point: Mapping[str, object]) -> dict[str, object]:
    return {key: _plain(value) for key, value in point.items()}


def _auto(value: float | None) -> object:
    return "auto" if value is None else value


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _domain_document(domain: Domain) -> object:
    if isinstance(domain, Choice):
        return list(domain.values)
    document: dict[str, object] = {"low": domain.low, "high": domain.high}
    return {**document, "log": True} if domain.log else document


def _dimension_document(dimension: Dimension) -> object:
    documents = [_branch_document(branch) for branch in dimension.branches]
    if len(documents) > 1:
        return documents
    branch = dimension.branches[0]
    return documents[0] if branch.when else _domain_document(branch.domain)


def _branch_document(branch: Branch) -> dict[str, object]:
    domain = _domain_document(branch.domain)
    document: dict[str, object] = domain if isinstance(domain, dict) else {"value": domain}
    if branch.when:
        document["when"] = when_document(branch.when)
    return document


def _branch_text(branch: Branch) -> str:
    domain = branch.domain
    if isinstance(domain, Choice):
        text = "in " + ", ".join(str(value) for value in domain.values)
    else:
        text = f"from {domain.low:g} to {domain.high:g}" + (" (log)" if domain.log else "")
    conditions = [f"{key} is {' or '.join(patterns)}" for key, patterns in branch.when.items()]
    return text if not conditions else f"{text}, when {' and '.join(conditions)}"
