"""Equal shares: a study for each method, in turn, anchors first; resumed as if it had not been cut."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from simulation import BACKBONES, METHODS, PARETO, QUICK, make_space, record_of, simulate

from repsim.records import Status
from sweeps.search import Outcome, Search
from sweeps.space import SearchSettings, Space

PENALISED = METHODS[2:]


def balanced(sampler: str, trials: int, key: str = "method", **changes: object) -> Space:
    space = make_space(sampler=sampler, trials=trials, **changes)
    return replace(space, search=replace(space.search, balance=key))


@pytest.mark.parametrize("sampler", [name for name in QUICK if name != "grid"])
def test_every_method_gets_the_same_number(sampler: str) -> None:
    trials = simulate(Search(balanced(sampler, 22)))[0]
    assert [trial.config.method for trial in trials[:2]] == ["linear_probe", "full"]
    counts = Counter(trial.config.method for trial in trials)
    # a probe on each backbone is all there is of linear probes; the rest share what is left
    assert counts.pop("linear_probe") == 2
    assert set(counts.values()) == {5}
    assert [t.config.method for t in trials[2:7]] == ["repsim", "hcs", "feature_mse", "full", "linear_probe"]


def test_without_balance_shares_differ() -> None:
    """TPE favours some methods; otherwise the test above would hold for any search."""
    counts = Counter(trial.config.method for trial in simulate(Search(make_space(trials=24)))[0])
    assert max(counts[name] for name in PENALISED) > min(counts[name] for name in PENALISED)


def test_backbones_can_be_balanced_too() -> None:
    counts = Counter(trial.config.backbone.name for trial in simulate(Search(balanced("tpe", 20, "backbone")))[0])
    assert counts == dict.fromkeys(BACKBONES, 10)


@pytest.mark.parametrize("parallel", [1, 2])
@pytest.mark.parametrize("sampler", ["auto", "tpe", "nsga2", "nsga3", "qmc"])
def test_a_balanced_sweep_cut_anywhere_goes_on_as_if_it_had_not_been(sampler: str, parallel: int) -> None:
    space = balanced(sampler, 16)
    whole = simulate(Search(space), parallel=parallel)[0]
    for at in (4, 13):
        proposed, outcomes, running = simulate(Search(space), parallel=parallel, steps=at)
        resumed = Search(space)
        resumed.restore([record_of(trial, outcomes.get(trial.trial_id)) for trial in proposed])
        rest = simulate(resumed, parallel=parallel, running=running)[0]
        assert [t.to_dict() for t in [*proposed, *rest]] == [t.to_dict() for t in whole]


def test_each_study_learns_from_its_own_trials() -> None:
    """Two methods see the same history but for the results of one: the other's proposals stay."""
    space = balanced("tpe", 24, dimensions=(PARETO[0], PARETO[2]))

    def judge(better: float) -> list[tuple[str, object]]:
        def outcome(trial: object) -> Outcome:
            config = trial.config  # type: ignore[attr-defined]
            strength = 0.0 if config.strength is None else float(config.strength)
            turn = better if config.method == "repsim" else 1.0
            values = {"val_accuracy": 0.5 + turn * strength / 100, "val_cka": 0.5 - turn * strength / 100}
            if turn < 0:
                values["val_cka"] = 0.5
            return Outcome(status=Status.COMPLETED, values=values)

        trials = simulate(Search(space), judge=outcome)[0]
        return [(trial.config.method, trial.params["strength"]) for trial in trials]

    one, other = judge(1.0), judge(-1.0)
    assert [x for x in one if x[0] == "hcs"] == [x for x in other if x[0] == "hcs"]
    assert [x for x in one if x[0] == "repsim"] != [x for x in other if x[0] == "repsim"]


def test_balance_is_part_of_what_is_searched() -> None:
    assert balanced("tpe", 24).space_hash != make_space(sampler="tpe").space_hash
    assert SearchSettings().balance is None
