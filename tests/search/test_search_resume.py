"""A sweep rebuilt from its records proposes what an uninterrupted one would have, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from simulation import LR, PARETO, QUICK, always, make_space, outcome_of, record_of, simulate

from repsim.records import Stage, Status
from sweeps.search import Outcome, Search
from sweeps.space import Branch, Choice, Constraint, Dimension, Range, Space
from sweeps.trial import Trial, TrialRecord

TWO = ("phantom:ultrasound", "folder:/images")
SPACES = {
    "pareto": PARETO,
    "branches": (
        always("method", Choice(values=("full", "repsim", "hcs"))),
        Dimension(
            key="strength",
            branches=(
                Branch(when={"penalty": ("repsim",)}, domain=Range(low=0.1, high=10.0, log=True)),
                Branch(when={"penalty": ("hcs",)}, domain=Choice(values=(0.5, 1.0, 2.0))),
            ),
        ),
        always("optim.lr", LR),
        always("optim.batch_size", Range(low=8, high=64, log=True, integer=True)),
        always("optim.weight_decay", Range(low=0.05, high=0.05)),
    ),
}


def spelled(trials: Sequence[Trial]) -> list[str]:
    return [json.dumps(trial.to_dict(), sort_keys=True) for trial in trials]


def through_json(record: TrialRecord) -> TrialRecord:
    """A record as the journal gives it back."""
    return replace(record, trial=Trial.from_dict(json.loads(json.dumps(record.trial.to_dict())), where="journal"))


def cut_and_continue(space: Space, parallel: int, whole: Sequence[Trial], at: int) -> list[Trial]:
    """Play the sweep up to proposal ``at``, rebuild from records alone, and let it run to its end."""
    proposed, outcomes, running = simulate(Search(space), parallel=parallel, steps=at)
    assert spelled(proposed) == spelled(whole[:at])
    records = [through_json(record_of(trial, outcomes.get(trial.trial_id))) for trial in proposed]
    resumed = Search(space)
    resumed.restore(records)
    assert [trial.trial_id for trial in resumed.outstanding] == [trial.trial_id for trial in running]
    return [*proposed, *simulate(resumed, parallel=parallel, running=running)[0]]


@pytest.mark.parametrize("parallel", [1, 2])
@pytest.mark.parametrize("sampler", QUICK)
def test_a_sweep_cut_anywhere_goes_on_as_if_it_had_not_been(sampler: str, parallel: int) -> None:
    space = make_space(sampler=sampler, trials=12)
    whole = simulate(Search(space), parallel=parallel)[0]
    assert len(whole) == 12
    for at in range(13):
        assert spelled(cut_and_continue(space, parallel, whole, at)) == spelled(whole)


@pytest.mark.parametrize("sampler", QUICK)
def test_the_same_with_branches_constraints_and_two_data_sets(sampler: str) -> None:
    space = make_space(
        sampler=sampler,
        trials=9,
        data=TWO,
        dimensions=SPACES["branches"],
        constraints=(Constraint(metric="val_accuracy", sense=">=", bound=0.8),),
    )
    whole = simulate(Search(space), parallel=1)[0]
    assert len(whole) == 18
    for at in range(1, 18, 3):
        assert spelled(cut_and_continue(space, 1, whole, at)) == spelled(whole)


@pytest.mark.parametrize("sampler", QUICK)
def test_the_seed_decides(sampler: str) -> None:
    first, again, other = (simulate(Search(make_space(sampler=sampler, trials=8, seed=seed)))[0] for seed in (0, 0, 1))
    assert spelled(first) == spelled(again)
    assert [t.params for t in first[2:]] != [t.params for t in other[2:]]
    assert {trial.config.seed for trial in first} == {0}
    assert {trial.config.seed for trial in other} == {1}


@pytest.mark.parametrize("sampler", ["auto", "tpe", "nsga2", "nsga3"])
def test_proposals_depend_on_results(sampler: str) -> None:
    """Otherwise the tests above would hold for any fixed list."""
    space = make_space(sampler=sampler, trials=24)

    def mirrored(trial: Trial) -> Outcome:
        outcome = outcome_of(trial)
        if outcome.values is None:
            return outcome
        return replace(outcome, values={name: -value for name, value in outcome.values.items()})

    learnt = simulate(Search(space))[0]
    misled = simulate(Search(space), judge=mirrored)[0]
    assert [t.params for t in learnt[:4]] == [t.params for t in misled[:4]]
    assert [t.params for t in learnt[-6:]] != [t.params for t in misled[-6:]]


@pytest.mark.parametrize("sampler", ["auto", "tpe"])
def test_pending_trials_count_for_tpe(sampler: str) -> None:
    """A running trial pushes the next proposal away from itself; a failed one, of which nothing is known, does not."""
    space = make_space(sampler=sampler, trials=24)
    trials, outcomes, _ = simulate(Search(space), steps=22)
    moved = 0
    for last in range(14, 21):
        records = [record_of(trial, outcomes[trial.trial_id]) for trial in trials[:last]]
        following = []
        for outcome in (None, Outcome(status=Status.FAILED, reason="x")):
            search = Search(space)
            search.restore([*records, record_of(trials[last], outcome)])
            following.append(search.ask())
        assert following[0] is not None
        assert following[1] is not None
        moved += following[0].params != following[1].params
    assert moved > 0


def test_confirmation_trials_keep_their_ids_but_are_no_part_of_the_search() -> None:
    space = make_space(trials=4)
    trials = simulate(Search(space))[0]
    records = [record_of(trial, outcome_of(trial)) for trial in trials[:3]]
    confirmation = replace(trials[2], trial_id="t0003", number=0, stage=Stage.CONFIRM, confirms="t0002")
    search = Search(space)
    search.restore([*records, record_of(confirmation, None)])
    assert search.outstanding == [confirmation]
    assert search.counts[Status.RUNNING] == 0
    following = search.ask()
    assert following is not None
    assert (following.trial_id, following.number) == ("t0004", 3)
    assert following.params == trials[3].params


def test_restore_comes_first_and_once() -> None:
    search = Search(make_space())
    trial = search.ask()
    assert trial is not None
    with pytest.raises(ValueError, match="before its first proposal"):
        search.restore([record_of(trial, None)])


def test_records_of_another_space_are_refused() -> None:
    trials = simulate(Search(make_space(trials=4)))[0]
    records = [record_of(trial, outcome_of(trial)) for trial in trials]
    with pytest.raises(ValueError, match="not in the space"):
        Search(make_space(data=("folder:/other",))).restore(records)
    with pytest.raises(ValueError, match="t0001 has number 1, 0 is the next"):
        Search(make_space()).restore(records[1:])


def test_a_larger_budget_continues() -> None:
    trials, outcomes, _ = simulate(Search(make_space(trials=6)))
    search = Search(make_space(trials=9))
    search.restore([record_of(trial, outcomes[trial.trial_id]) for trial in trials])
    assert not search.finished
    more = simulate(search)[0]
    assert [trial.trial_id for trial in more] == ["t0006", "t0007", "t0008"]
    assert search.finished
    assert search.counts[Status.RUNNING] == 0
