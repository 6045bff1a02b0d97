"""The search with a stopping rule, and with fresh seeds after it: what is asked, told, restored."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from simulation import BACKBONES, always, make_space, outcome_of, record_of, simulate, values_of
from test_first_trials import epoch_result

from repsim.records import Stage, Status
from sweeps.confirmation import End
from sweeps.proposals import STOPPED
from sweeps.search import Outcome, Search
from sweeps.space import Choice, Space
from sweeps.trial import Trial, TrialRecord

DATA = "phantom:ultrasound"
EPOCHS = 6


def stopping(sampler: str = "tpe", trials: int = 24, seed: int = 0) -> Space:
    space = make_space(sampler=sampler, trials=trials, seed=seed)
    return replace(space, search=replace(space.search, stopping="pareto"))


def curve(trial: Trial, epoch: int) -> dict[str, float]:
    """Similarity falls and accuracy rises towards the result."""
    end, share = values_of(trial.config), epoch / EPOCHS
    return end | {
        "val_accuracy": 0.4 + (end["val_accuracy"] - 0.4) * share,
        "val_cka": 1.0 + (end["val_cka"] - 1.0) * share,
    }


def play(search: Search, records: dict[str, TrialRecord], steps: int | None = None) -> list[Trial]:
    """One trial at a time, epoch by epoch; records are what the journal would hold."""
    made: list[Trial] = []
    while steps is None or len(made) < steps:
        trial = search.ask()
        if trial is None:
            break
        made.append(trial)
        record = records[trial.trial_id] = record_of(trial, None)
        goes_on = True
        for epoch in range(1, EPOCHS + 1):
            values = curve(trial, epoch)
            record.epochs.append(replace(epoch_result(epoch), values=values))
            goes_on = search.report(trial, epoch, values)
            if not goes_on:
                break
        judged = search.tell(
            trial,
            Outcome(status=Status.COMPLETED, values=values_of(trial.config))
            if goes_on
            else Outcome(status=Status.PRUNED, reason=search.reason(trial)),
        )
        epochs = record.epochs
        records[trial.trial_id] = record_of(trial, judged)
        records[trial.trial_id].epochs = epochs
        records[trial.trial_id].ended = f"{len(records):05d}"
    return made


def test_some_trials_are_stopped_and_say_why() -> None:
    search, records = Search(stopping(trials=40)), {}
    trials = play(search, records)
    stopped = [trial for trial in trials if records[trial.trial_id].status is Status.PRUNED]
    assert 0 < len(stopped) < 40
    assert all(records[t.trial_id].reason.startswith("stopped at epoch ") for t in stopped)
    assert not {trial.trial_id for trial in stopped} & set(search.front(DATA))
    assert not any(trial.anchor or trial.config.method == "linear_probe" for trial in stopped)
    assert search.counts[Status.PRUNED] == len(stopped)


@pytest.mark.parametrize("sampler", ["auto", "tpe", "nsga2", "nsga3"])
def test_a_search_that_stops_trials_resumes(sampler: str) -> None:
    space, records = stopping(sampler), {}
    whole = play(Search(space), records)
    assert any(record.status is Status.PRUNED for record in records.values())
    for at in (7, 16):
        known = {trial.trial_id: records[trial.trial_id] for trial in whole[:at]}
        resumed = Search(space)
        resumed.restore(list(known.values()))
        rest = play(resumed, known)
        assert [t.to_dict() for t in rest] == [t.to_dict() for t in whole[at:]]
        assert {name: r.status for name, r in known.items()} == {name: r.status for name, r in records.items()}


def test_samplers_that_see_completed_trials_alone_are_told_of_the_stopped_ones() -> None:
    for sampler, stand_in in (("nsga2", True), ("nsga3", True), ("tpe", False), ("auto", False)):
        search, records = Search(stopping(sampler, trials=24)), {}
        play(search, records)
        states = Counter(trial.state.name for trial in search.study(DATA).trials)
        pruned = sum(record.status is Status.PRUNED for record in records.values())
        assert pruned > 0
        marks = [trial.constraints.get(STOPPED) for trial in search.study(DATA).trials]
        assert marks.count(1.0) == (pruned if stand_in else 0)
        assert states.get("PRUNED", 0) == (0 if stand_in else pruned)
        assert not {t.user_attrs["ordinal"] for t in search.study(DATA).best_trials} & {
            record.trial.number for record in records.values() if record.status is Status.PRUNED
        }


def test_without_a_rule_nothing_is_stopped() -> None:
    search, records = Search(make_space(sampler="random", trials=24)), {}
    play(search, records)
    assert search.counts[Status.PRUNED] == 0


# confirmation


def confirming(trials: int = 10, seeds: int = 3, runs: int = 40) -> Space:
    return make_space(sampler="random", trials=trials, confirm_seeds=seeds, confirm_runs=runs)


def noisy(trial: Trial) -> Outcome:
    """The seed moves accuracy a little."""
    values = values_of(trial.config)
    values["val_accuracy"] += 0.002 * ((trial.config.seed * 7) % 5 - 2)
    return Outcome(status=Status.COMPLETED, values=values)


def test_fresh_seeds_follow_the_search() -> None:
    search = Search(confirming())
    trials, _, _ = simulate(search, judge=noisy)
    searched, fresh = trials[:10], trials[10:]
    assert {trial.stage for trial in searched} == {Stage.SEARCH}
    assert {trial.stage for trial in fresh} == {Stage.CONFIRM}
    assert [trial.trial_id for trial in trials] == [f"t{number:04d}" for number in range(len(trials))]
    by_id = {trial.trial_id: trial for trial in searched}
    for trial in fresh:
        confirmed = by_id[str(trial.confirms)]
        assert trial.config.config_id == confirmed.config.config_id
        assert trial.config.seed > confirmed.config.seed
        assert not trial.anchor
    seeds = Counter(str(trial.confirms) for trial in fresh)
    assert min(seeds["t0000"], seeds["t0001"]) >= 3
    assert search.finished
    assert search.total == 10
    assert search.counts[Status.COMPLETED] == 10
    assert search.confirmation(DATA).end in (End.UNCHANGED, End.BUDGET)
    assert set(search.front(DATA)) <= set(by_id), "the search's front is the search's"
    confirmed = search.confirmed_front(DATA)
    assert confirmed
    assert set(confirmed) <= set(search.candidates(DATA)) <= set(by_id)


def test_nothing_is_confirmed_before_the_last_trial_has_ended() -> None:
    search = Search(confirming(trials=4))
    trials = [search.ask() for _ in range(4)]
    assert search.ask() is None
    assert not search.exhausted
    assert not search.confirming(DATA)
    for trial in trials:
        assert trial is not None
        assert search.ask() is None
        search.tell(trial, noisy(trial))
    first = search.ask()
    assert first is not None
    assert (first.stage, first.confirms, first.config.seed) == (Stage.CONFIRM, "t0000", 1)
    assert search.confirming(DATA)
    assert search.confirmed_front(DATA) is None, "no candidate has two fresh seeds"
    assert not search.finished


def run_of(trial: Trial) -> tuple[str, int]:
    return trial.config.config_id, trial.config.seed


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_confirmation_resumes(parallel: int) -> None:
    space = confirming()
    whole, outcomes, _ = simulate(Search(space), parallel=1, judge=noisy)
    for at in (9, 10, 12, len(whole) - 1):
        resumed = Search(space)
        resumed.restore([record_of(trial, outcomes[trial.trial_id]) for trial in whole[:at]])
        rest = simulate(resumed, parallel=1, judge=noisy)[0]
        assert [t.to_dict() for t in rest] == [t.to_dict() for t in whole[at:]]
    several = simulate(Search(space), parallel=parallel, judge=noisy)[0]
    assert {(t.config.config_id, t.config.seed) for t in several} == {
        (t.config.config_id, t.config.seed) for t in whole
    }


def test_its_budget_ends_a_confirmation() -> None:
    search = Search(confirming(runs=9))
    trials = simulate(search, judge=noisy)[0]
    assert sum(trial.stage is Stage.CONFIRM for trial in trials) <= 9
    assert search.confirmation(DATA).end is End.BUDGET
    assert search.exhausted


def test_failed_seeds_do_not_hold_a_sweep_up() -> None:
    def judge(trial: Trial) -> Outcome:
        return noisy(trial) if trial.stage is Stage.SEARCH else Outcome(status=Status.FAILED, reason="x")

    search = Search(confirming())
    simulate(search, judge=judge)
    assert search.finished
    assert search.confirmation(DATA).end is End.NOTHING


def test_no_seeds_no_confirmation() -> None:
    dimensions = (always("backbone", Choice(values=BACKBONES)),)
    search = Search(make_space(trials=3, dimensions=dimensions))
    trials = simulate(search, judge=outcome_of)[0]
    assert {trial.stage for trial in trials} == {Stage.SEARCH}
    assert search.confirmation(DATA).end is End.OFF
    assert "n = 1, no error bars" in search.confirmation(DATA).reason
