"""A search space: the YAML people write, validated into one frozen value. No torch, no Ray, no Optuna, no MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from repsim.config import TrialConfig
from repsim.records import Objective


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


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A domain that holds where every key of ``when`` matches one of its patterns (empty = everywhere)."""

    when: Mapping[str, tuple[str, ...]]
    domain: Domain


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One searched key; the first branch that matches holds, and where none does the value is absent (None)."""

    key: str
    branches: tuple[Branch, ...]


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """``metric >= bound`` or ``metric <= bound``."""

    metric: str
    sense: str
    bound: float

    def violation(self, value: float) -> float:
        """How far ``value`` is on the wrong side; <= 0 is feasible."""
        return self.bound - value if self.sense == ">=" else value - self.bound


@dataclass(frozen=True, kw_only=True)
class Budget:
    """When the search ends, per data set: ``trials`` terminal search trials of ``epochs`` each, or ``hours``."""

    trials: int
    epochs: int
    hours: float | None = None


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How proposals are made. ``parallel`` is None for ``auto``."""

    sampler: str = "auto"
    stopping: str = "none"
    parallel: int | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one trial gets; None is ``auto``."""

    workers: int = 1
    cpus_per_worker: int | None = None
    gpus_per_worker: float | None = None


@dataclass(frozen=True, kw_only=True)
class Space:
    """Everything a sweep needs to know, complete and validated.

    ``data`` are the SOURCEs, one independent study each. ``fixed`` are dotted keys of the trial's configuration.
    ``dimensions`` come in an order in which every ``when`` refers to earlier keys only.
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

    def domain(self, key: str, chosen: Mapping[str, object], data: str) -> Domain | None:
        """The domain of ``key`` given the values chosen so far, or None when it is absent."""
        raise NotImplementedError

    def config(self, params: Mapping[str, object], *, data: str, seed: int) -> TrialConfig:
        """The complete configuration of a proposal; None values are left at their defaults."""
        raise NotImplementedError

    def anchors(self, data: str) -> tuple[Mapping[str, object], ...]:
        """Params of the first two trials of every sweep: ``linear_probe`` and ``full`` at default settings."""
        raise NotImplementedError
