"""Each sampler: what it learns from, what constraints do to it, that three objectives work."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from simulation import LR, PARETO, QUICK, always, make_space, record_of, simulate, values_of

from repsim.records import Objective, Status
from sweeps.samplers import SAMPLERS, divisions, population, startup
from sweeps.search import Outcome, Search
from sweeps.space import Choice, Constraint, Dimension, SearchSettings, Space
from sweeps.space_settings import SAMPLERS as SPELLED
from sweeps.trial import Trial

DATA = "phantom:ultrasound"
FLAT = (always("method", Choice(values=("full", "lora"))), always("optim.lr", LR))
THREE = (
    Objective(metric="val_accuracy", direction="maximize"),
    Objective(metric="val_cka", direction="maximize"),
    Objective(metric="sharpness", direction="minimize"),
)


def good(trial: Trial) -> Outcome:
    return Outcome(status=Status.COMPLETED, values=values_of(trial.config))


def gp_space(trials: int = 8, dimensions: tuple[Dimension, ...] = FLAT, **changes: object) -> Space:
    return make_space(sampler="gp", trials=trials, dimensions=dimensions, **changes)


def test_the_validator_spells_the_samplers_as_the_search_does() -> None:
    assert SPELLED == SAMPLERS


@pytest.mark.parametrize("sampler", QUICK)
def test_three_objectives(sampler: str) -> None:
    search = Search(make_space(sampler=sampler, trials=20, objectives=THREE))
    trials, outcomes, _ = simulate(search)
    assert len(trials) == len(outcomes) == 20
    assert 0.0 < (search.hypervolume(DATA) or 0.0) < 1.0
    assert search.front(DATA)


@pytest.mark.parametrize("sampler", ["auto", "tpe", "nsga2", "nsga3"])
def test_constraints_change_what_is_proposed(sampler: str) -> None:
    """The same values with and without a bound that half of them miss; blind samplers are the negative half."""
    bound = (Constraint(metric="val_accuracy", sense=">=", bound=0.83),)
    free = simulate(Search(make_space(sampler=sampler, trials=20)), judge=good)[0]
    bounded = simulate(Search(make_space(sampler=sampler, trials=20, constraints=bound)), judge=good)[0]
    assert [t.params for t in free[:5]] == [t.params for t in bounded[:5]]
    assert [t.params for t in free] != [t.params for t in bounded]


@pytest.mark.parametrize("sampler", ["qmc", "random"])
def test_constraints_change_nothing_for_the_blind(sampler: str) -> None:
    bound = (Constraint(metric="val_accuracy", sense=">=", bound=0.83),)
    free = simulate(Search(make_space(sampler=sampler)), judge=good)[0]
    bounded = simulate(Search(make_space(sampler=sampler, constraints=bound)), judge=good)[0]
    assert [t.params for t in free] == [t.params for t in bounded]


def test_constraints_turn_nsga_towards_what_is_feasible() -> None:
    """An accuracy that strong penalties miss: under the bound fewer of the later proposals miss it."""
    bound = (Constraint(metric="val_accuracy", sense=">=", bound=0.86),)
    misses = {}
    for name, constraints in (("free", ()), ("bounded", bound)):
        missed = 0
        for seed in range(3):
            space = make_space(sampler="nsga2", trials=48, seed=seed, constraints=constraints)
            later = simulate(Search(space), judge=good)[0][24:]
            missed += sum(values_of(trial.config)["val_accuracy"] < 0.86 for trial in later)
        misses[name] = missed
    assert misses["bounded"] < misses["free"]


def test_populations_come_from_the_budget() -> None:
    assert [population(trials) for trials in (4, 24, 100, 1000)] == [4, 6, 25, 50]
    assert [startup(name, 24, 10) for name in SAMPLERS] == [10, 6, 6, 6, 6, 0, 0, 0]
    assert [startup("auto", trials, None) for trials in (3, 40, 1000)] == [4, 10, 12]
    assert [startup("auto", 24, combinations) for combinations in (2, 12, 13)] == [6, 12, 6]


def test_nsga3_has_no_more_directions_than_members() -> None:
    assert divisions(6, 2) == 5  # six points on a line
    assert divisions(6, 3) == 2  # 6 = C(4, 2)
    assert divisions(9, 3) == 2
    assert divisions(10, 3) == 3
    assert divisions(4, 1) == 1


def test_auto_lists_a_space_that_fits_into_the_budget() -> None:
    """Without a random remainder: all nine points after the anchors, one of them the anchor `full`."""
    dimensions = (
        always("method", Choice(values=("full", "lora", "bitfit"))),
        always("optim.lr", Choice(values=(1e-4, 3e-4, 1e-3))),
    )
    search = Search(make_space(trials=12, dimensions=dimensions))
    trials = simulate(search, judge=good)[0]
    assert len({(t.config.method, t.config.optim.lr) for t in trials[1:]}) == 9
    assert search.ended_by(DATA) == "the space: every point was tried"


# the Gaussian process


def test_gp_needs_torch_when_it_draws_and_not_before() -> None:
    code = "import sys, sweeps.search, sweeps.samplers; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_gp_learns_and_goes_on_as_if_it_had_not_been_cut() -> None:
    space = gp_space(trials=6)
    whole = simulate(Search(space), judge=good)[0]
    resumed = Search(space)
    resumed.restore([record_of(trial, good(trial)) for trial in whole[:5]])
    rest = simulate(resumed, judge=good)[0]
    assert [trial.to_dict() for trial in rest] == [trial.to_dict() for trial in whole[5:]]

    def turned(trial: Trial) -> Outcome:
        values = values_of(trial.config)
        return Outcome(status=Status.COMPLETED, values=values | {"val_accuracy": 1 - values["val_accuracy"]})

    other = simulate(Search(space), judge=turned, steps=5)[0]
    assert [t.params for t in other[:4]] == [t.params for t in whole[:4]]
    assert other[4].params != whole[4].params


def test_constraints_change_what_gp_proposes() -> None:
    trials = simulate(Search(gp_space()), steps=5)[0]
    following = []
    for bound in (0.0, 0.9):
        limit = (Constraint(metric="val_accuracy", sense=">=", bound=bound),)
        search = Search(gp_space(constraints=limit))
        search.restore([record_of(trial, good(trial)) for trial in trials])
        following.append(search.ask())
    assert following[0] is not None
    assert following[1] is not None
    assert following[0].params != following[1].params


def test_gp_with_constraints_pending_trials_and_three_objectives() -> None:
    bound = (Constraint(metric="val_accuracy", sense=">=", bound=0.8),)
    search = Search(gp_space(trials=6, objectives=THREE, constraints=bound))
    trials = simulate(search, parallel=2, judge=good)[0]
    assert len({trial.config.optim.lr for trial in trials}) >= 5


@pytest.mark.slow
def test_gp_balanced_over_methods_draws_no_strength_at_random() -> None:
    """With a study of its own a method's strength is always there: as accuracy falls with it, it is driven down."""
    space = make_space(sampler="gp", trials=24, dimensions=(PARETO[0], PARETO[2]))
    space = replace(space, search=SearchSettings(sampler="gp", balance="method"))
    whole = simulate(Search(space), judge=good)[0]
    for at in (9, 17):
        resumed = Search(space)
        resumed.restore([record_of(trial, good(trial)) for trial in whole[:at]])
        assert [t.params for t in simulate(resumed, judge=good)[0]] == [t.params for t in whole[at:]]
