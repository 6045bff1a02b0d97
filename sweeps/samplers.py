"""The samplers by name, each built anew for one draw.

``auto``     Every point once where the space has no more points than the budget. Otherwise a stratified start of a
             quarter of the budget (4 to 12 trials), or of as many trials as there are combinations of categorical
             choices when those fit into half the budget; trials of earlier sweeps count towards it. Then the candidate
             that is expected to add most to the hypervolume (:mod:`sweeps.gain`), in a study of up to 400 trials;
             after that multi-objective TPE. The start takes the combination (then the values) tried least so far, ties
             in a seeded order, and numbers from a scrambled Halton sequence.
``tpe``      Optuna's TPE alone, after a random start of a quarter of the budget (2 to 10 trials).
``nsga2``    NSGA-II with a population of a quarter of the budget (4 to 50). Generations are cut by ordinal; trials of
             earlier sweeps are the generation before the first. A trial in which a condition switches a value off
             carries a random one as a silent gene, so that conditional ranges take part in crossover.
``nsga3``    The same with NSGA-III, and as many reference directions as fit into the population.
``gp``       Optuna's GPSampler, a Gaussian process per objective and the expected gain in hypervolume, after a start of
             a quarter of the budget (4 to 20 trials). For spaces without conditions, or balanced ones. Loads torch when
             it first draws.
``qmc``      A scrambled Halton sequence over all searched keys.
``random``   Independent uniform draws.
``grid``     Every point of a finite space once, in a seeded order (one too large to list is drawn from at random).

Constraints reach all that learn: TPE ranks trials that violate one behind the others, the genetic ones let them lose
every comparison, and the Gaussian process weighs the gain by the chance that all constraints hold.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.samplers._ga import BaseGASampler
from optuna.trial import FrozenTrial, TrialState

SAMPLERS: tuple[str, ...] = ("auto", "tpe", "nsga2", "nsga3", "gp", "qmc", "random", "grid")
GENETIC = ("nsga2", "nsga3")
BLIND = ("qmc", "random", "grid")
"""Those that learn nothing."""
IGNORE_PRUNED = (*GENETIC, "gp")
"""Those that look at completed trials alone."""
ORDINAL = "ordinal"
"""The user attribute that holds a trial's ordinal in its study."""
EVIDENCE = -1
"""The ordinal of an earlier sweep's trials."""

optuna.logging.set_verbosity(optuna.logging.ERROR)


def make_sampler(
    name: str,
    *,
    seed: int,
    trials: int,
    ordinal: int,
    objectives: int = 2,
    evidence: bool = False,
    learnt: Learnt | None = None,
) -> BaseSampler:
    """The sampler that draws proposal ``ordinal`` of a study of ``trials``.

    ``learnt``: what one for the same study, with another seed, has worked out from it; no other result, less work.
    """
    size = population(trials)
    known = {} if learnt is None else learnt
    match name:
        case "random" | "grid":
            return RandomSampler(seed=seed)
        case "nsga2":
            return _Generations2(population_size=size, seed=seed).at(ordinal, size, evidence)
        case "nsga3":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                made = _Generations3(population_size=size, seed=seed, dividing_parameter=divisions(size, objectives))
            return made.at(ordinal, size, evidence)
        case "gp":
            return GPSampler(seed=seed, n_startup_trials=0, warn_independent_sampling=False)
        case "tpe":
            start = _tpe_start(trials)
            return _Tpe(seed=seed, n_startup_trials=start, multivariate=False, constant_liar=True).with_(known)
        case _:
            return _Tpe(seed=seed, n_startup_trials=0, multivariate=False, constant_liar=True).with_(known)


def startup(name: str, trials: int, combinations: int | None) -> int:
    """How many proposals of a study (anchors included) are made before its results are looked at; 0 for the blind.

    ``combinations`` is the number of combinations of categorical choices, None when there are too many to list.
    """
    if name in BLIND:
        return 0
    if name in GENETIC:
        return population(trials)
    if name == "tpe":
        return _tpe_start(trials)
    if name == "gp":
        return max(4, min(20, trials // 4))
    covering = combinations if combinations is not None and combinations <= trials / 2 else 0
    return max(4, min(12, trials // 4), covering)


def population(trials: int) -> int:
    """The genetic samplers' population for a budget: a quarter of it, 4 to 50."""
    return max(4, min(50, trials // 4))


def divisions(size: int, objectives: int) -> int:
    """NSGA-III's divisions of the simplex: as many as give no more than ``size`` reference directions, at least 1."""
    found = 1
    while objectives > 1 and math.comb(found + objectives, objectives - 1) <= size:
        found += 1
    return found


def _tpe_start(trials: int) -> int:
    return max(2, min(10, trials // 4))


Learnt = dict[str, dict[bool, Any]]
"""TPE's two densities (of good points: True) by the names of the parameters that they are over."""


class _Tpe(TPESampler):
    """Optuna's, which fits its densities to the study for each value that it draws.

    Where a draw turns out to repeat a trial, the next is from the same study, and so from the same densities.
    """

    _learnt: Learnt

    def with_(self, learnt: Learnt) -> BaseSampler:
        """Look here before anything is fitted, and leave here what is."""
        self._learnt = learnt
        return self

    def _sample(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        known = self._learnt.get(_named(search_space))
        if known is None:
            drawn: dict[str, Any] = super()._sample(study, trial, search_space)
            return drawn
        samples = known[True].sample(self._rng.rng, self._n_ei_candidates)
        chosen = self._compare(samples, self._compute_acquisition_func(samples, known[True], known[False]))
        return {name: one.to_external_repr(chosen[name]) for name, one in search_space.items()}

    def _build_parzen_estimator(
        self,
        study: optuna.Study,
        search_space: dict[str, BaseDistribution],
        trials: list[FrozenTrial],
        handle_below: bool,
    ) -> Any:
        made = super()._build_parzen_estimator(study, search_space, trials, handle_below)
        self._learnt.setdefault(_named(search_space), {})[handle_below] = made
        return made


def _named(search_space: dict[str, BaseDistribution]) -> str:
    return " ".join(search_space)


class _ByOrdinal(BaseGASampler):
    """Generations are cut by ordinal, so that they can be told from the history alone.

    Optuna would note them in its own storage, and put trials that it did not propose itself into none.
    """

    _ordinal = 0
    _first = 0
    _size = 1

    def at(self, ordinal: int, size: int, evidence: bool) -> BaseSampler:
        """Draws proposal ``ordinal``; earlier sweeps' trials, if there are any, are generation 0."""
        self._ordinal, self._size, self._first = ordinal, size, int(evidence)
        return self

    def get_trial_generation(self, study: optuna.Study, trial: FrozenTrial) -> int:
        ordinal = int(trial.user_attrs.get(ORDINAL, self._ordinal))
        return 0 if ordinal == EVIDENCE else self._first + ordinal // self._size

    def get_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return [trial for trial in complete if self.get_trial_generation(study, trial) == generation]


class _Generations2(_ByOrdinal, NSGAIISampler):
    """NSGA-II, cut by ordinal."""


class _Generations3(_ByOrdinal, NSGAIIISampler):
    """NSGA-III, cut by ordinal."""
