"""What comes before the sampler (anchors, the person's points, earlier sweeps), and what ends a search."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulation import LR, METHODS, PARETO, always, make_space, record_of, simulate, values_of

from repsim.records import EPOCH_METRICS, EpochResult, Status
from sweeps.search import Evidence, Outcome, Search
from sweeps.space import Choice, Space
from sweeps.space_initial import completed
from sweeps.trial import Trial

DATA = "phantom:ultrasound"


def good(trial: Trial) -> Outcome:
    return Outcome(status=Status.COMPLETED, values=values_of(trial.config))


# initial


def test_the_persons_points_follow_the_anchors() -> None:
    initial = (
        {"method": "hcs", "strength": 3.0},
        {"method": "repsim", "backbone": "mobilenetv2_100", "optim.lr": 1e-3},
    )
    trials = simulate(Search(make_space(initial=initial)), steps=4)[0]
    assert [trial.config.method for trial in trials] == ["linear_probe", "full", "hcs", "repsim"]
    assert (trials[2].config.strength, trials[2].config.optim.lr) == (3.0, 3e-4)
    assert (trials[3].config.strength, trials[3].config.backbone.name) == (1.0, "mobilenetv2_100")
    assert not trials[2].anchor
    assert set(trials[2].params) == {"method", "backbone", "strength", "optim.lr"}


def test_points_that_are_anchors_or_named_twice_are_run_once() -> None:
    initial = ({"method": "full"}, {"method": "hcs"}, {"method": "hcs", "strength": 1.0}, {"method": "linear_probe"})
    search = Search(make_space(trials=12, initial=initial))
    trials = simulate(search, judge=good)[0]
    assert [trial.config.method for trial in trials[:3]] == ["linear_probe", "full", "hcs"]
    spelled = [(trial.config.method, trial.config.strength, trial.config.optim.lr) for trial in trials]
    assert len(trials) == 12
    assert spelled.count(("hcs", 1.0, 3e-4)) == 1


def test_what_is_left_out_is_the_default_or_nearest_to_it() -> None:
    narrow = (PARETO[0], always("optim.lr", replace(LR, low=1e-3, high=1e-2)), always("head", Choice(values=("mlp",))))
    space = make_space(dimensions=narrow)
    assert completed(space, DATA, {"method": "hcs"}) == {"method": "hcs", "optim.lr": 1e-3, "head": "mlp"}
    assert completed(space, DATA, {})["method"] == "full"


def test_a_search_with_points_resumes() -> None:
    space = make_space(trials=10, initial=({"method": "hcs"}, {"method": "repsim"}))
    whole = simulate(Search(space), judge=good)[0]
    for at in (1, 3, 6):
        search = Search(space)
        search.restore([record_of(trial, good(trial)) for trial in whole[:at]])
        assert [t.to_dict() for t in simulate(search, judge=good)[0]] == [t.to_dict() for t in whole[at:]]


# evidence


def evidence_of(space: Space) -> list[Evidence]:
    """An earlier search's trials, under another seed."""
    earlier = replace(space, search=replace(space.search, seed=9), budget=replace(space.budget, trials=20))
    trials = simulate(Search(earlier), judge=good)[0]
    return [Evidence(data=DATA, params=t.params, values=values_of(t.config), origin=f"x/{t.trial_id}") for t in trials]


@pytest.mark.parametrize("sampler", ["auto", "tpe", "nsga2", "nsga3"])
def test_evidence_moves_the_sampler_and_nothing_else(sampler: str) -> None:
    space = make_space(sampler=sampler, trials=12)
    evidence = evidence_of(space)
    cold, warm = Search(space), Search(space, evidence)
    without, with_it = simulate(cold, judge=good)[0], simulate(warm, judge=good)[0]
    assert [t.params for t in without[:2]] == [t.params for t in with_it[:2]], "the anchors are this sweep's own"
    assert [t.params for t in without[2:]] != [t.params for t in with_it[2:]]
    assert len(with_it) == 12, "the budget counts this sweep's trials"
    own = {trial.trial_id for trial in with_it}
    assert set(warm.front(DATA)) <= own
    assert warm.counts[Status.COMPLETED] == 12
    assert len(warm.study(DATA).trials) == len(evidence) + 12


@pytest.mark.parametrize("sampler", ["qmc", "random"])
def test_evidence_is_lost_on_the_blind(sampler: str) -> None:
    space = make_space(sampler=sampler, trials=8)
    cold, warm = Search(space), Search(space, evidence_of(space))
    assert [t.params for t in simulate(cold)[0]] == [t.params for t in simulate(warm)[0]]


@pytest.mark.parametrize("sampler", ["auto", "nsga2"])
def test_a_warm_search_resumes(sampler: str) -> None:
    space = make_space(sampler=sampler, trials=10)
    evidence = evidence_of(space)
    whole = simulate(Search(space, evidence), judge=good)[0]
    for at in (1, 5, 8):
        search = Search(space, evidence)
        search.restore([record_of(trial, good(trial)) for trial in whole[:at]])
        assert [t.to_dict() for t in simulate(search, judge=good)[0]] == [t.to_dict() for t in whole[at:]]


def test_evidence_of_another_data_set_or_space_is_not_learnt_from() -> None:
    space = make_space(sampler="tpe", trials=8)
    strange = [replace(one, data="folder:/x") for one in evidence_of(space)]
    strange += [Evidence(data=DATA, params={"method": "rift"}, values=values_of(Search(space).ask().config))]  # type: ignore[union-attr]
    assert len(Search(space, strange).study(DATA).trials) == 0


# budgets


def reported(search: Search, trial: Trial, epochs: int) -> None:
    for epoch in range(1, epochs + 1):
        assert search.report(trial, epoch, dict.fromkeys(EPOCH_METRICS, 0.5))


def test_epochs_are_counted_as_they_are_trained_and_promised() -> None:
    space = make_space(trials=50, budget=replace(make_space().budget, trials=50, train_epochs=20))
    search = Search(space)
    probe, full, third, fourth = (search.ask() for _ in range(4))  # 1 + 6 + 6 + 6 promised
    assert probe is not None
    assert full is not None
    assert third is not None
    assert fourth is not None
    assert search.ask() is None, "a sixth of an epoch is not a trial"
    assert not search.exhausted, "one of them may be stopped"
    assert search.ended_by(DATA) == ""
    for trial in (probe, full, third):
        search.tell(trial, good(trial))
    reported(search, fourth, 1)
    search.tell(fourth, Outcome(status=Status.PRUNED, reason="behind"))
    fifth = search.ask()  # five epochs were left over, and one not promised
    assert fifth is not None
    search.tell(fifth, good(fifth))
    assert search.ask() is None
    assert search.exhausted
    assert search.finished
    assert search.ended_by(DATA) == "budget.train_epochs"
    assert search.total == 5


def test_epochs_are_known_after_a_resume() -> None:
    space = make_space(budget=replace(make_space().budget, trials=50, train_epochs=20))
    first = Search(space)
    trials = [first.ask() for _ in range(4)]
    records = [record_of(trial, good(trial)) for trial in trials[:3] if trial is not None]
    assert trials[3] is not None
    stopped = record_of(trials[3], Outcome(status=Status.PRUNED, reason="behind"))
    stopped.epochs = [epoch_result(1)]
    resumed = Search(space)
    resumed.restore([*records, stopped])
    assert resumed.ask() is not None
    assert resumed.ask() is None


def epoch_result(number: int) -> EpochResult:
    return EpochResult(
        epoch=number,
        values=dict.fromkeys(EPOCH_METRICS, 0.5),
        train_loss=1.0,
        train_penalty=None,
        learning_rate=1e-3,
        steps=1,
        train_seconds=0.1,
        seconds=0.1,
    )


def stagnating(trial: Trial) -> Outcome:
    """Nothing after the fifth trial adds to the front."""
    points = [(0.5, 1.0), (0.9, 0.2), (0.6, 0.6), (0.7, 0.7), (0.8, 0.8)]
    accuracy, cka = points[trial.number] if trial.number < len(points) else (0.6, 0.5)
    return Outcome(status=Status.COMPLETED, values=values_of(trial.config) | {"val_accuracy": accuracy, "val_cka": cka})


def test_a_search_that_finds_nothing_more_ends() -> None:
    space = make_space(trials=40, budget=replace(make_space().budget, trials=40, stagnation=4))
    search = Search(space)
    trials = simulate(search, judge=stagnating)[0]
    assert len(trials) == 9
    assert search.ended_by(DATA) == "budget.stagnation"
    assert search.finished
    untiring = Search(make_space(sampler="random", trials=20))
    assert len(simulate(untiring, judge=stagnating)[0]) == 20
    assert untiring.ended_by(DATA) == "budget.trials"


def test_stagnation_is_counted_after_the_persons_points() -> None:
    initial = tuple({"method": name, "strength": s} for name in METHODS[2:] for s in (0.1, 0.5, 2.0))
    space = make_space(budget=replace(make_space().budget, trials=40, stagnation=2), initial=initial)
    assert len(simulate(Search(space), judge=stagnating)[0]) == 2 + len(initial) + 2


def test_stagnation_ends_a_resumed_search_where_it_would_have() -> None:
    space = make_space(budget=replace(make_space().budget, trials=40, stagnation=4))
    whole = simulate(Search(space), judge=stagnating)[0]
    for at in (3, 7, 9):
        search = Search(space)
        search.restore([record_of(trial, stagnating(trial)) for trial in whole[:at]])
        assert [t.trial_id for t in simulate(search, judge=stagnating)[0]] == [t.trial_id for t in whole[at:]]


def test_what_was_closed_says_why() -> None:
    search = Search(make_space())
    assert search.ended_by(DATA) == ""
    search.close("budget.hours")
    search.close()
    assert search.ended_by(DATA) == "budget.hours"
    assert search.exhausted
