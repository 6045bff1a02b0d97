"""Asking, telling and judging: budgets, anchors, fronts, the hypervolume's box."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import optuna
import pytest
from simulation import BACKBONES, LR, METHODS, PARETO, QUICK, always, make_space, record_of, simulate, values_of

from repsim.records import Objective, Stage, Status
from sweeps.search import Outcome, Search
from sweeps.space import Choice, Constraint, Range, load_space
from sweeps.trial import Trial

DATA = "phantom:ultrasound"


def ask(search: Search) -> Trial:
    trial = search.ask()
    assert trial is not None
    return trial


def complete(search: Search, trial: Trial, **values: float) -> Outcome:
    return search.tell(trial, Outcome(status=Status.COMPLETED, values={**values_of(trial.config), **values}))


def anchored(first: dict[str, float], second: dict[str, float], objectives: tuple[Objective, ...] = ()) -> Search:
    """A search whose two anchors answered with these values."""
    space = make_space(objectives=objectives) if objectives else make_space()
    search = Search(space)
    complete(search, ask(search), **first)
    complete(search, ask(search), **second)
    return search


# budgets and order


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_budget_is_that_many_proposals_whatever_becomes_of_them(parallel: int) -> None:
    search = Search(make_space(trials=15))
    trials, outcomes, _ = simulate(search, parallel=parallel)
    assert [trial.trial_id for trial in trials] == [f"t{k:04d}" for k in range(15)]
    assert [trial.number for trial in trials] == list(range(15))
    assert Counter(outcome.status for outcome in outcomes.values()).keys() == {
        Status.COMPLETED,
        Status.FAILED,
        Status.PRUNED,
    }
    assert search.finished
    assert search.ask() is None
    assert search.total == 15


def test_outstanding_trials_count_and_keep_the_search_unfinished() -> None:
    search = Search(make_space(trials=2))
    first, second = ask(search), ask(search)
    assert search.ask() is None
    assert not search.finished
    assert search.outstanding == [first, second]
    complete(search, first)
    assert search.counts == {Status.RUNNING: 1, Status.COMPLETED: 1, Status.PRUNED: 0, Status.FAILED: 0}
    complete(search, second)
    assert search.finished


def test_proposals_alternate_over_the_data_sets_and_each_gets_its_anchors() -> None:
    other = "folder:/images"
    search = Search(make_space(trials=5, data=(DATA, other)))
    trials = simulate(search, parallel=3)[0]
    assert [trial.data for trial in trials] == [DATA, other] * 5
    assert [trial.number for trial in trials] == [k // 2 for k in range(10)]
    assert [trial.anchor for trial in trials] == [True] * 4 + [False] * 6
    assert {trial.config.data.source for trial in trials if trial.data == other} == {other}
    assert [t.params for t in trials if t.data == DATA][2:] != [t.params for t in trials if t.data == other][2:]
    assert search.total == 10


def test_a_study_knows_nothing_of_the_other() -> None:
    other = "folder:/images"
    alone = simulate(Search(make_space(trials=12)))[0]
    beside = [t for t in simulate(Search(make_space(trials=12, data=(DATA, other))))[0] if t.data == DATA]
    assert [trial.params for trial in alone] == [trial.params for trial in beside]


def test_anchors_come_first() -> None:
    search = Search(make_space())
    first, second, third = ask(search), ask(search), ask(search)
    assert [t.config.method for t in (first, second)] == ["linear_probe", "full"]
    assert (first.anchor, second.anchor, third.anchor) == (True, True, False)
    assert first.stage is Stage.SEARCH
    assert first.config.optim.lr == 3e-4


def test_anchors_outside_the_space_are_run_but_not_learnt_from() -> None:
    only = (always("method", Choice(values=("repsim", "hcs"))), *PARETO[1:])
    inside, outside = Search(make_space(trials=4)), Search(make_space(trials=4, dimensions=only))
    simulate(inside)
    simulate(outside)
    assert len(inside.study(DATA).trials) == 4
    assert len(outside.study(DATA).trials) == 2
    assert outside.total == 4


def test_an_anchor_that_contradicts_a_fixed_method_is_not_learnt_from() -> None:
    fixed = {"method": "repsim"}
    search = Search(make_space(trials=3, dimensions=PARETO[2:], fixed=fixed))
    trials = simulate(search)[0]
    assert [trial.config.method for trial in trials] == ["linear_probe", "full", "repsim"]
    assert len(search.study(DATA).trials) == 1


def test_nothing_to_search_is_one_run() -> None:
    search = Search(make_space(trials=24, dimensions=(), fixed={"method": "repsim", "strength": 2.0}))
    trials = simulate(search)[0]
    assert [(t.params, t.anchor, t.config.strength) for t in trials] == [({}, False, 2.0)]
    assert search.finished
    assert search.total == 1
    assert search.reference(DATA) is None


def test_close_ends_the_proposals_but_not_the_trials() -> None:
    search = Search(make_space())
    trial = ask(search)
    search.close()
    assert search.ask() is None
    assert not search.finished
    complete(search, trial)
    assert search.finished
    assert search.total == 1


# duplicates and exhaustion


@pytest.mark.parametrize("sampler", QUICK)
def test_a_finite_space_is_visited_once_and_then_exhausted(sampler: str) -> None:
    finite = (
        always("method", Choice(values=METHODS[1:])),
        always("optim.batch_size", Range(low=8, high=9, integer=True)),
    )
    search = Search(make_space(sampler=sampler, trials=50, dimensions=finite))
    trials = simulate(search)[0]
    seen = {(trial.config.method, trial.config.optim.batch_size) for trial in trials}
    # a linear probe is the same run at either batch size; the anchor `full` is not in the space
    assert len(trials) == len(seen) == 1 + 1 + 3 * 2
    assert search.finished
    assert search.total == 8


@pytest.mark.parametrize("sampler", QUICK)
def test_a_linear_probe_is_not_repeated_at_another_learning_rate(sampler: str) -> None:
    for seed in range(3):
        trials = simulate(Search(make_space(sampler=sampler, seed=seed)))[0]
        probes = [trial.config.backbone.name for trial in trials if trial.config.method == "linear_probe"]
        assert len(probes) == len(set(probes))


def test_duplicates_are_accepted_where_nothing_else_is_left_of_an_infinite_space() -> None:
    dimensions = (always("method", Choice(values=("linear_probe",))), always("optim.lr", LR))
    trials = simulate(Search(make_space(trials=4, dimensions=dimensions)))[0]
    assert [trial.config.method for trial in trials] == ["linear_probe", "full", "linear_probe", "linear_probe"]


def test_a_space_too_large_to_list_is_sampled_by_grid_all_the_same() -> None:
    large = (always("optim.batch_size", Range(low=4, high=10_000, integer=True)),)
    trials = simulate(Search(make_space(sampler="grid", trials=6, dimensions=large)))[0]
    assert len({trial.config.optim.batch_size for trial in trials}) == 5  # two anchors at the default of 32


# what is proposed


def test_the_default_space_covers_methods_and_backbones() -> None:
    for seed in range(5):
        space = load_space("pareto.yaml", seed=seed)
        trials = simulate(Search(space))[0]
        assert len(trials) == space.budget.trials
        pairs = {(trial.config.method, trial.config.backbone.name) for trial in trials}
        assert len({method for method, _ in pairs}) >= 5
        assert {backbone for _, backbone in pairs} == set(BACKBONES)
        assert len(pairs) == 10  # every combination, within the stratified start


def test_every_proposal_lies_in_the_space() -> None:
    for sampler in QUICK:
        for trial in simulate(Search(make_space(sampler=sampler)))[0]:
            assert set(trial.params) == {"method", "backbone", "strength", "optim.lr"}
            penalised = trial.config.parsed_method.penalty is not None
            strength = trial.params["strength"]
            assert (strength is not None) == penalised
            if isinstance(strength, float):
                assert 0.03 <= strength <= 30.0
                assert trial.config.strength == strength
            assert LR.low <= trial.config.optim.lr <= LR.high


def test_the_start_spreads_numbers_over_the_range() -> None:
    for seed in range(5):
        trials = simulate(Search(make_space(seed=seed, trials=48)), steps=12)[0][2:]
        rates = [math.log(trial.config.optim.lr / LR.low) / math.log(LR.high / LR.low) for trial in trials]
        assert {int(4 * rate) for rate in rates} == {0, 1, 2, 3}


def test_more_combinations_than_trials_still_cover_every_value() -> None:
    sizes, decays = tuple(range(8, 16)), tuple(0.01 * k for k in range(8))
    dimensions = (
        always("method", Choice(values=METHODS[2:])),
        always("optim.batch_size", Choice(values=sizes)),
        always("optim.weight_decay", Choice(values=decays)),
    )
    trials = simulate(Search(make_space(trials=36, dimensions=dimensions)), steps=9)[0]  # 7 beside the anchors
    assert {trial.config.optim.batch_size for trial in trials} == set(sizes)
    assert {trial.config.optim.weight_decay for trial in trials} == set(decays)
    assert {trial.config.method for trial in trials[2:]} == set(METHODS[2:])


def test_more_combinations_than_can_be_listed() -> None:
    dimensions = (
        always("optim.batch_size", Choice(values=tuple(range(8, 108)))),
        always("optim.weight_decay", Choice(values=tuple(0.001 * k for k in range(100)))),
        always("optim.lr", LR),
    )
    trials = simulate(Search(make_space(trials=16, dimensions=dimensions)))[0][2:]
    assert len({trial.config.optim.batch_size for trial in trials}) > 4


def test_lists_booleans_and_numbers_are_kept_apart_as_choices() -> None:
    fractions = ([0.6, 0.2, 0.2], [0.5, 0.25, 0.25])
    trials = simulate(Search(make_space(trials=4, dimensions=(always("data.fractions", Choice(values=fractions)),))))[0]
    assert {trial.config.data.fractions for trial in trials} == {(0.6, 0.2, 0.2), (0.5, 0.25, 0.25)}


def test_tpe_finds_a_better_front_than_random() -> None:
    """Over four seeds, on the synthetic trade-off; otherwise the sampler would be for nothing."""

    def judge(trial: Trial) -> Outcome:
        return Outcome(status=Status.COMPLETED, values=values_of(trial.config))

    found = {"auto": 0.0, "random": 0.0}
    for sampler in found:
        for seed in range(4):
            search = Search(make_space(sampler=sampler, trials=30, seed=seed))
            simulate(search, judge=judge)
            found[sampler] += (search.hypervolume(DATA) or 0.0) / 4
    assert found["auto"] > found["random"]


def test_an_unknown_sampler_is_refused() -> None:
    with pytest.raises(ValueError, match="'best' is not a known sampler; allowed: auto, tpe"):
        Search(make_space(sampler="best"))


@pytest.mark.parametrize(("sampler", "trials", "seconds"), [("auto", 300, 0.3), ("auto", 420, 0.1), ("tpe", 300, 0.05)])
def test_asking_stays_fast(sampler: str, trials: int, seconds: float) -> None:
    """auto goes on with TPE where its own model would take longer than a trial is worth."""
    history, outcomes, _ = simulate(Search(make_space(sampler="random", trials=trials)))
    search = Search(make_space(sampler=sampler, trials=trials + 10))
    search.restore([record_of(trial, outcomes[trial.trial_id]) for trial in history])
    times = []
    for _ in range(5):
        begin = time.process_time()
        ask(search)
        times.append(time.process_time() - begin)
    assert min(times) < seconds


# telling and judging


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_fails_the_trial(value: float) -> None:
    search = Search(make_space())
    judged = complete(search, ask(search), val_cka=value)
    assert judged.status is Status.FAILED
    assert judged.reason == f"no usable result: val_cka is {value}"
    assert search.front(DATA) == []
    assert [trial.state for trial in search.study(DATA).trials] == [optuna.trial.TrialState.FAIL]


def test_a_missing_value_fails_the_trial_naming_every_one() -> None:
    search = Search(make_space(constraints=(Constraint(metric="val_auc", sense=">=", bound=0.5),)))
    judged = search.tell(ask(search), Outcome(status=Status.COMPLETED, values={"val_accuracy": 0.5}))
    assert judged.reason == "no usable result: val_cka is missing, val_auc is missing"
    judged = search.tell(ask(search), Outcome(status=Status.COMPLETED))
    assert judged.status is Status.FAILED
    assert "val_accuracy is missing" in judged.reason
    assert search.counts[Status.FAILED] == 2


def test_a_broken_number_beside_the_objectives_fails_the_trial_too() -> None:
    search = Search(make_space())
    judged = complete(search, ask(search), test_auc=math.nan)
    assert judged.reason == "no usable result: test_auc is nan"


def test_a_good_outcome_and_a_bad_one_come_back_as_they_are() -> None:
    search = Search(make_space())
    first, second = ask(search), ask(search)
    good = Outcome(status=Status.COMPLETED, values=values_of(first.config))
    assert search.judge(good) == good
    assert search.tell(first, good) == good
    bad = Outcome(status=Status.FAILED, reason="RuntimeError: out of memory", values={"val_cka": math.nan})
    assert search.tell(second, bad) == bad


def test_no_trial_is_left_running_in_optuna() -> None:
    search = Search(make_space(trials=30))
    trials, outcomes, _ = simulate(search, parallel=2)
    states = Counter(trial.state.name for trial in search.study(DATA).trials)
    told = Counter(outcome.status for outcome in outcomes.values())
    assert states == {"COMPLETE": told[Status.COMPLETED], "PRUNED": told[Status.PRUNED], "FAIL": told[Status.FAILED]}
    assert len(trials) == 30
    assert all(math.isfinite(v) for t in search.study(DATA).trials if t.state.name == "COMPLETE" for v in t.values)


def test_telling_twice_or_a_stranger_is_refused() -> None:
    search = Search(make_space())
    trial = ask(search)
    with pytest.raises(ValueError, match="running is not how a trial ends"):
        search.tell(trial, Outcome(status=Status.RUNNING))
    complete(search, trial)
    with pytest.raises(ValueError, match="t0000 has ended before"):
        complete(search, trial)
    for stranger in (replace(trial, number=7), replace(trial, data="folder:/x"), replace(trial, trial_id="t0009")):
        with pytest.raises(ValueError, match="was not proposed by this search"):
            complete(search, stranger)
        with pytest.raises(ValueError, match="was not proposed by this search"):
            search.report(stranger, 1, {})


def test_without_a_stopping_rule_every_trial_goes_on() -> None:
    search = Search(make_space())
    assert search.report(ask(search), 1, {"val_accuracy": 0.0}) is True


# feasibility and fronts


def test_feasible_means_every_constraint_holds() -> None:
    limits = (
        Constraint(metric="val_accuracy", sense=">=", bound=0.7),
        Constraint(metric="val_nll", sense="<=", bound=1.0),
    )
    search = Search(make_space(constraints=limits))
    assert search.feasible({"val_accuracy": 0.7, "val_nll": 1.0})
    assert not search.feasible({"val_accuracy": 0.69, "val_nll": 1.0})
    assert not search.feasible({"val_accuracy": 0.7, "val_nll": 1.01})
    assert not search.feasible({"val_accuracy": 0.7})
    assert not search.feasible({"val_accuracy": 0.7, "val_nll": math.nan})
    assert Search(make_space()).feasible({})


def test_infeasible_trials_stay_off_the_front_and_optuna_knows() -> None:
    search = Search(make_space(constraints=(Constraint(metric="val_accuracy", sense=">=", bound=0.7),)))
    good, bad = ask(search), ask(search)
    complete(search, good, val_accuracy=0.7, val_cka=0.2)
    complete(search, bad, val_accuracy=0.6, val_cka=0.9)
    assert search.front(DATA) == [good.trial_id]
    constraints = [trial.constraints for trial in search.study(DATA).trials]
    assert constraints[0] == {"val_accuracy >= 0.7": 0.0}
    assert constraints[1]["val_accuracy >= 0.7"] == pytest.approx(0.1)
    assert [trial.number for trial in search.study(DATA).best_trials] == [0]


def test_the_front_holds_completed_nondominated_trials_only() -> None:
    search = Search(make_space())
    trials = [ask(search) for _ in range(6)]
    complete(search, trials[0], val_accuracy=0.7, val_cka=1.0)
    complete(search, trials[1], val_accuracy=0.9, val_cka=0.3)
    complete(search, trials[2], val_accuracy=0.8, val_cka=0.3)  # dominated
    best = {"val_accuracy": 1.0, "val_cka": 1.0}
    search.tell(trials[3], Outcome(status=Status.FAILED, reason="x", values=best))
    search.tell(trials[4], Outcome(status=Status.PRUNED, reason="x", values=best))
    assert search.front(DATA) == ["t0000", "t0001"]
    complete(search, trials[5], val_accuracy=0.9, val_cka=1.0)
    assert search.front(DATA) == ["t0005"]


# hypervolume


def test_the_reference_is_the_worse_anchor_less_five_percent_of_the_range() -> None:
    search = Search(make_space())
    first, second = ask(search), ask(search)
    assert search.reference(DATA) is None
    assert search.hypervolume(DATA) is None
    complete(search, first, val_accuracy=0.7, val_cka=1.0)
    assert search.reference(DATA) is None
    assert search.ideal(DATA) is None
    complete(search, second, val_accuracy=0.9, val_cka=0.2)
    assert search.reference(DATA) == pytest.approx({"val_accuracy": 0.69, "val_cka": 0.16})
    assert search.ideal(DATA) == {"val_accuracy": 1.0, "val_cka": 1.0}
    # two boxes of 0.01 x 0.84 and 0.21 x 0.04, less their overlap, over 0.31 x 0.84
    expected = (0.01 * 0.84 + 0.21 * 0.04 - 0.01 * 0.04) / (0.31 * 0.84)
    assert search.hypervolume(DATA) == pytest.approx(expected)


def test_minimised_metrics_take_a_twentieth_more_than_the_worse_anchor() -> None:
    objectives = (
        Objective(metric="val_nll", direction="minimize"),
        Objective(metric="val_cka", direction="maximize"),
    )
    search = anchored({"val_nll": 0.4, "val_cka": 1.0}, {"val_nll": 0.8, "val_cka": 0.0}, objectives)
    assert search.reference(DATA) == pytest.approx({"val_nll": 0.84, "val_cka": -0.05})
    assert search.ideal(DATA) == {"val_nll": 0.0, "val_cka": 1.0}


@pytest.mark.parametrize(
    ("metric", "direction", "value", "reference", "ideal"),
    [
        ("val_accuracy", "maximize", 0.8, 0.75, 1.0),
        ("val_accuracy", "maximize", 1.0, 0.95, 1.0),
        ("val_nll", "minimize", 0.0, 0.05, 0.0),
        ("sharpness", "minimize", -2.0, -1.9, -3.8),
        ("images_per_second", "maximize", 100.0, 95.0, 190.0),
        ("val_cka", "maximize", 1.2, 1.14, 2.28),
    ],
)
def test_the_box_is_never_empty(metric: str, direction: str, value: float, reference: float, ideal: float) -> None:
    objectives = (Objective(metric=metric, direction=direction),)  # type: ignore[arg-type]
    search = anchored({metric: value}, {metric: value}, objectives)
    assert search.reference(DATA) == pytest.approx({metric: reference})
    assert search.ideal(DATA) == pytest.approx({metric: ideal})
    volume = search.hypervolume(DATA)
    assert volume is not None
    assert 0.0 < volume <= 1.0


def test_no_reference_when_an_anchor_failed() -> None:
    search = Search(make_space(trials=6))
    first = ask(search)
    search.tell(first, Outcome(status=Status.FAILED, reason="x"))
    simulate(search, judge=lambda trial: Outcome(status=Status.COMPLETED, values=values_of(trial.config)))
    assert search.reference(DATA) is None
    assert search.hypervolume(DATA) is None


def test_search_needs_neither_torch_nor_ray_nor_mlflow() -> None:
    code = "import sys, sweeps.search; print([m for m in ('torch', 'ray', 'mlflow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_optuna_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    simulate(Search(make_space(sampler="nsga2", trials=8)))
    assert capfd.readouterr() == ("", "")


def test_a_single_objective_works() -> None:
    objectives = (Objective(metric="val_accuracy", direction="maximize"),)
    for sampler in QUICK:
        search = Search(make_space(sampler=sampler, trials=12, objectives=objectives))
        simulate(search)
        assert len(search.front(DATA)) == 1


def test_the_smallest_budgets() -> None:
    for sampler in QUICK:
        for trials in (1, 2, 3):
            assert len(simulate(Search(make_space(sampler=sampler, trials=trials)))[0]) == trials


def test_everything_failing_still_spends_the_budget() -> None:
    for sampler in QUICK:
        search = Search(make_space(sampler=sampler, trials=12))
        simulate(search, judge=lambda _: Outcome(status=Status.FAILED, reason="x"))
        assert search.counts[Status.FAILED] == 12
        assert search.front(DATA) == []
