"""Which of many trials a sampler is built from: a bounded choice, told by the trials alone."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna
import pytest
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import qmc
from simulation import make_space, outcome_of, record_of, simulate, values_of

from repsim.records import Direction
from sweeps import experience, proposals, samplers
from sweeps.experience import LEARNT, Experience
from sweeps.past import Past
from sweeps.proposals import Proposer
from sweeps.search import Evidence, Search
from sweeps.trial import Trial

WAYS: Sequence[Direction] = ("maximize", "maximize")
LEARNING = ("auto", "tpe", "nsga2", "nsga3")


def done(x: float, y: float, *, missed: float = 0.0, **params: object) -> Past:
    return Past(params=params, state=TrialState.COMPLETE, values=(x, y), violations={"c": missed})


def under_way() -> Past:
    return Past(params={}, state=TrialState.RUNNING)


def cloud(count: int, seed: int = 0) -> list[Past]:
    """Results of which a handful are on the front."""
    rng = random.Random(seed)
    return [done(rng.random(), rng.random()) for _ in range(count)]


def front_of(entries: Sequence[Past]) -> set[int]:
    """By comparing all with all."""
    points = {number: entry.values for number, entry in enumerate(entries) if entry.values is not None}
    return {
        number
        for number, a in points.items()
        if not any(b != a and b[0] >= a[0] and b[1] >= a[1] for b in points.values())
    }


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> int:
    """A bound that small sweeps pass."""
    for module in (experience, proposals):
        monkeypatch.setattr(module, "LEARNT", 20)
    return 20


def test_up_to_the_bound_all_are_told_whatever_became_of_them() -> None:
    entries = [*cloud(LEARNT - 2), under_way(), Past(params={}, state=TrialState.FAIL)]
    assert list(Experience(WAYS, entries).told()) == list(range(LEARNT))
    assert len(Experience(WAYS, [*entries, done(0.5, 0.5)]).told()) == LEARNT


def test_the_whole_front_is_told_however_long_ago() -> None:
    entries = [done(0.9, 0.9), done(0.2, 0.95), *cloud(3 * LEARNT)]
    told = Experience(WAYS, [replace(entry, violations=None) for entry in entries]).told()
    assert front_of(entries) <= set(told)
    beaten = Experience(WAYS, [done(0.9, 0.9), *cloud(3 * LEARNT), done(1.0, 1.0)])
    assert {number for number, _ in beaten._front} == {3 * LEARNT + 1}


@pytest.mark.parametrize(
    "entry", [done(2.0, 2.0, missed=0.1), Past(params={}, state=TrialState.PRUNED, values=(2.0, 2.0))]
)
def test_what_breaks_a_constraint_or_was_stopped_leads_nobody(entry: Past) -> None:
    known = Experience(WAYS, [entry, *cloud(50)])
    assert {number for number, _ in known._front} == {number + 1 for number in front_of(known.entries[1:])}


def test_the_rest_is_shared_by_those_under_way_the_latest_and_a_sample_of_all() -> None:
    ended, running = 4 * LEARNT, 300
    known = Experience(WAYS, [*cloud(ended), *(under_way() for _ in range(running))])
    front = front_of(known.entries[:ended])
    told = set(known.told())
    quarter = (LEARNT - len(front)) // 4
    assert len(told) == LEARNT
    assert {number for number in told if number >= ended} == set(range(ended + running - quarter, ended + running))
    late = [number for number in range(ended - 1, -1, -1) if number not in front][:quarter]
    assert set(late) <= told
    sample = sorted(told - front - set(late) - set(range(ended, ended + running)))
    tenths = [sum(k * ended // 20 <= number < (k + 1) * ended // 20 for number in sample) for k in range(18)]
    assert min(tenths) >= 0.7 * len(sample) / 20
    assert max(tenths) <= 1.5 * len(sample) / 18


def test_failures_make_room_for_those_one_can_learn_from() -> None:
    entries = [Past(params={}, state=TrialState.FAIL) if n % 2 else done(0.1, 0.1) for n in range(2 * LEARNT)]
    told = Experience(WAYS, entries).told()
    assert len(told) == LEARNT
    assert all(entries[number].state is TrialState.COMPLETE for number in told)


def test_the_order_in_which_trials_end_does_not_matter() -> None:
    results, rng = cloud(3 * LEARNT), random.Random(1)
    orders = [list(range(len(results))), rng.sample(range(len(results)), len(results))]
    found = []
    for order in orders:
        known = Experience(WAYS, (under_way() for _ in results))
        for number in order[:-40] if order is orders[0] else [n for n in order if n < len(results) - 40]:
            known.end(number, results[number])
        found.append(list(known.told()))
    assert found[0] == found[1]
    assert found[0] != list(Experience(WAYS, cloud(3 * LEARNT, seed=1)).told())


def test_parts_know_what_the_whole_knows_of_them() -> None:
    entries = [done(n / 10, 1 - n / 10, method="ab"[n % 2]) for n in range(10)]
    known = Experience(WAYS, [replace(entry, state=TrialState.RUNNING, values=None) for entry in entries], by="method")
    for number, entry in enumerate(entries):
        known.end(number, entry)
    assert known.part("a").entries == entries[::2]
    assert known.part("b").informative == 5
    assert len(known.part("never")) == 0


def test_more_is_never_told_than_the_bound(little: int) -> None:
    assert len(Experience(WAYS, cloud(30)).told(1000)) == little
    assert len(Experience(WAYS, cloud(30)).told(7)) == 7
    line = [done(n / 100, 1 - n / 100) for n in range(100)]
    assert len(Experience(WAYS, line).told()) == little, "a front of more than the bound is a sample of itself"


# in a search


def params_of(trials: Sequence[Trial]) -> list[Mapping[str, object]]:
    return [trial.params for trial in trials]


@pytest.mark.parametrize("sampler", LEARNING)
def test_up_to_the_bound_nothing_is_proposed_otherwise(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "MODELLED", 10)
    space = make_space(sampler=sampler, trials=30)
    free = params_of(simulate(Search(space))[0])
    for module in (experience, proposals):
        monkeypatch.setattr(module, "LEARNT", 20)
    bounded = params_of(simulate(Search(space))[0])
    assert bounded[:21] == free[:21]
    if sampler in ("auto", "tpe"):
        assert bounded != free, "the bound was reached"


@pytest.mark.parametrize("balance", [None, "method"])
def test_the_work_of_a_proposal_does_not_grow(
    little: int, balance: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in trials given to the sampler, of all that there are."""
    space = make_space(sampler="tpe", trials=60 if balance is None else 160)
    space = replace(space, search=replace(space.search, balance=balance))
    search, given, add = Search(space), [0], optuna.Study.add_trial

    def counting(study: optuna.Study, trial: FrozenTrial) -> None:
        given[0] += 1
        add(study, trial)

    monkeypatch.setattr(optuna.Study, "add_trial", counting)
    counts = []
    running: list[Trial] = []
    for _ in range(45 if balance is None else 150):
        given[0] = 0
        _, _, running = simulate(search, steps=1, running=running)
        counts.append(given[0])
    assert max(counts) <= little * (1 if balance is None else 5), "balanced: at most one study for each method"
    assert counts[-1] >= little


@pytest.mark.parametrize("sampler", LEARNING)
def test_a_sweep_resumed_beyond_the_bound_proposes_the_same(
    little: int, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposals, "MODELLED", 10)
    space = make_space(sampler=sampler, trials=36)
    whole = params_of(simulate(Search(space), parallel=3)[0])
    for at in (23, 31):
        proposed, outcomes, running = simulate(Search(space), parallel=3, steps=at)
        resumed = Search(space)
        resumed.restore([record_of(trial, outcomes.get(trial.trial_id)) for trial in proposed])
        later = simulate(resumed, parallel=3, running=running)[0]
        assert params_of([*proposed, *later]) == whole


def test_earlier_sweeps_leave_room_for_this_one(little: int) -> None:
    space = make_space(sampler="tpe", trials=30)
    trials = [trial for trial in simulate(Search(space))[0] if outcome_of(trial).values is not None]
    evidence = [Evidence(data=trial.data, params=trial.params, values=values_of(trial.config)) for trial in trials] * 2
    search = Search(space, evidence)
    assert len(search.study(space.data[0]).trials) == little // 2
    _, _, running = simulate(search, steps=29)
    assert search.study(space.data[0]).trials[little // 2].user_attrs["ordinal"] == 0
    assert running


@pytest.mark.parametrize("ordinal", [0, 1, 500])
def test_a_point_of_the_sequence_is_the_one_that_counting_up_to_it_gives(ordinal: int) -> None:
    space = make_space(sampler="qmc", trials=1000)
    proposer = Proposer(space, space.data[0])
    keys = [dimension.key for dimension in space.dimensions]
    sequence = qmc.Halton(len(keys), scramble=True, seed=int(proposer._rng(proposals._SEQUENCE).integers(2**32)))
    sequence.fast_forward(ordinal)
    assert proposer._coordinates(ordinal, 0) == dict(zip(keys, sequence.random(1)[0].tolist(), strict=True))


@pytest.mark.parametrize("sampler", ["tpe", "auto"])
def test_drawing_again_from_the_same_densities_gives_what_a_sampler_of_its_own_would(
    sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against Optuna's sampler as it is; and the densities are fitted once for each proposal and parameter."""
    monkeypatch.setattr(proposals, "MODELLED", 5)
    space, fits = make_space(sampler=sampler, trials=30), [0]
    fit = TPESampler._build_parzen_estimator

    def counting(*args: Any, **kwargs: Any) -> Any:
        fits[0] += 1
        return fit(*args, **kwargs)

    monkeypatch.setattr(TPESampler, "_build_parzen_estimator", counting)
    ours, once = params_of(simulate(Search(space))[0]), fits[0]
    monkeypatch.setattr(samplers._Tpe, "_sample", TPESampler._sample)
    fits[0] = 0
    assert params_of(simulate(Search(space))[0]) == ours
    assert once <= 2 * 30 * 4
    assert once < fits[0], "there were draws in vain"
