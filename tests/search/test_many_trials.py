"""What a search works out again and again does not grow with the trials that have ended: counted, not timed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from simulation import make_space, outcome_of, simulate, values_of

from repsim.records import Status
from sweeps import study as study_module
from sweeps.confirmation import Run, candidates, front_of_means
from sweeps.judgement import Judgement
from sweeps.search import Outcome, Search
from sweeps.trial import Trial

DATA = "phantom:ultrasound"


def counted(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[int]:
    """Calls of ``owner.name`` from now on."""
    calls, real = [0], getattr(owner, name)

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, counting)
    return calls


def good(trial: Trial) -> Outcome:
    return Outcome(status=Status.COMPLETED, values=values_of(trial.config))


def test_the_hypervolume_is_computed_when_the_front_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(make_space(sampler="random", trials=40))
    calls = counted(monkeypatch, Judgement, "hypervolume")
    fronts, volumes = [], []
    for _ in range(40):
        trial = search.ask()
        assert trial is not None
        search.tell(trial, good(trial))
        fronts.append(search.front(DATA))
        volumes.append([search.hypervolume(DATA) for _ in range(3)][-1])
    known = [front for front, volume in zip(fronts, volumes, strict=True) if volume is not None]
    changes = 1 + sum(a != b for a, b in itertools.pairwise(known))
    assert calls == [changes]
    assert changes < 30
    again = Search(make_space(sampler="random", trials=40))
    simulate(again, judge=good)
    assert again.hypervolume(DATA) == volumes[-1]


def test_stagnation_asks_for_one_hypervolume_per_end(monkeypatch: pytest.MonkeyPatch) -> None:
    space = make_space(sampler="random", trials=40)
    search = Search(replace(space, budget=replace(space.budget, stagnation=39)))
    calls = counted(monkeypatch, Judgement, "hypervolume")
    histories = counted(monkeypatch, Judgement, "hypervolumes")
    simulate(search, judge=good)
    assert 36 <= calls[0] <= 40
    assert histories == [0]


def test_a_plan_to_confirm_is_made_once_between_two_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    space = make_space(sampler="random", trials=6, confirm_seeds=3, confirm_runs=30)
    search = Search(space)
    plans = counted(monkeypatch, study_module, "next_runs")
    ended = 0
    while not search.finished:
        trial = search.ask()
        assert trial is not None
        search.tell(trial, good(trial))
        ended += 1
        for _ in range(3):
            search.confirmation(DATA)
            search.candidates(DATA)
            search.contenders(DATA)
            search.confirmed_front(DATA)
    assert ended > 12
    assert plans[0] <= ended + 1


@pytest.mark.parametrize("running", [1, 3])
def test_epochs_trained_are_the_same_however_they_are_counted(running: int) -> None:
    space = make_space(sampler="random", trials=30)
    search = Search(replace(space, budget=replace(space.budget, train_epochs=10_000)))
    study = search._studies[DATA]
    left: list[Trial] = []
    for _ in range(10):
        _, _, left = simulate(search, parallel=running, steps=2, running=left)
        assert study.trained == sum(study._epochs_of(trial) for trial in study.trials)
        assert len(study._searching()) == len(left)
    assert not study.over


def test_candidates_are_those_that_a_comparison_of_all_with_all_leaves() -> None:
    objectives = make_space().objectives
    trials = simulate(Search(make_space(sampler="random", trials=60)), judge=good)[0]
    runs = [
        Run(config_id=trial.config.config_id, seed=0, values=values_of(trial.config), confirms=False)
        for trial in trials
    ]
    margins = {"val_accuracy": 0.005, "val_cka": 0.01}

    def beaten(one: Run, other: Run) -> bool:
        assert one.values is not None
        assert other.values is not None
        return all(other.values[name] - margin >= one.values[name] for name, margin in margins.items())

    wanted = [one.config_id for one in runs if not any(beaten(one, other) for other in runs)]
    found = candidates(runs, margins, objectives)
    assert found == list(dict.fromkeys(wanted))
    assert 3 < len(found) < 40


def test_means_look_at_fresh_seeds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    objectives = make_space().objectives
    looked: list[bool] = []

    class Watched(Run):
        def __getattribute__(self, name: str) -> object:
            if name == "config_id":
                looked.append(object.__getattribute__(self, "confirms"))
            return object.__getattribute__(self, name)

    values = dict.fromkeys(("val_accuracy", "val_cka"), 0.5)
    searched = [Watched(config_id=f"c{n}", seed=0, values=values, confirms=False) for n in range(100)]
    fresh = [Watched(config_id="c1", seed=seed, values=values, confirms=True) for seed in (1, 2)]
    means = front_of_means([*searched, *fresh], ["c0", "c1", "c2"], objectives)
    assert [(mean.config_id, mean.n) for mean in means] == [("c1", 2)]
    assert looked
    assert all(looked)


def test_a_search_of_many_ends_knows_its_counts() -> None:
    search = Search(make_space(sampler="random", trials=60))
    judge: Callable[[Trial], Outcome] = outcome_of
    trials, outcomes, _ = simulate(search, parallel=7, judge=judge)
    completed = [one for one in outcomes.values() if one.status is Status.COMPLETED]
    assert search.counts[Status.COMPLETED] == len(completed)
    assert len(trials) == 60
    assert search.finished
