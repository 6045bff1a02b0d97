"""The samplers by name, each built anew for one draw.

``auto``     A stratified start, then multi-objective TPE. The start lasts half the budget, or as many trials as there
             are combinations of categorical choices when those fit into two thirds of it. It takes the combination
             (then the values) tried least so far, ties in a seeded order, and numbers from a scrambled Halton sequence.
``tpe``      Optuna's TPE alone, after a random start of a quarter of the budget (2 to 10 trials).
``random``   Independent uniform draws.
``nsga2``    NSGA-II with a population of a quarter of the budget (4 to 50). Generations are cut by ordinal. A trial in
             which a condition switches a value off carries a random one as a silent gene, so that conditional ranges
             take part in crossover.
``qmc``      A scrambled Halton sequence over all searched keys.
``grid``     Every point of a finite space once, in a seeded order (one too large to list is drawn from at random).
"""

from __future__ import annotations

import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

SAMPLERS: tuple[str, ...] = ("auto", "tpe", "random", "nsga2", "qmc", "grid")
ORDINAL = "ordinal"
"""The user attribute that holds a trial's ordinal in its study."""

optuna.logging.set_verbosity(optuna.logging.ERROR)


def make_sampler(name: str, *, seed: int, trials: int, ordinal: int) -> BaseSampler:
    """The sampler that draws proposal ``ordinal`` of a study of ``trials``."""
    match name:
        case "random" | "grid":
            return RandomSampler(seed=seed)
        case "nsga2":
            return _Generations(population_size=population(trials), seed=seed, ordinal=ordinal)
        case "tpe":
            return TPESampler(
                seed=seed, n_startup_trials=max(2, min(10, trials // 4)), multivariate=False, constant_liar=True
            )
        case _:
            return TPESampler(seed=seed, n_startup_trials=0, multivariate=False, constant_liar=True)


class _Generations(NSGAIISampler):
    """NSGA-II whose generations are cut by ordinal, so that they can be told from the history alone."""

    def __init__(self, *, population_size: int, seed: int, ordinal: int) -> None:
        super().__init__(population_size=population_size, seed=seed)
        self._size = population_size
        self._ordinal = ordinal

    def get_trial_generation(self, study: optuna.Study, trial: FrozenTrial) -> int:
        return int(trial.user_attrs.get(ORDINAL, self._ordinal)) // self._size

    def get_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return [trial for trial in complete if self.get_trial_generation(study, trial) == generation]


def population(trials: int) -> int:
    """NSGA-II's population for a budget: a quarter of it, 4 to 50."""
    return max(4, min(50, trials // 4))
