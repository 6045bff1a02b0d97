"""Derived points in the search: on the front like any trial, unknown to the sampler and to the budget."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from simulation import make_space, outcome_of, record_of, simulate

from repsim.front import nondominated
from repsim.records import DerivedResult, Status
from sweeps.derived import derived_id, derived_records, derived_values, trial_of
from sweeps.search import Outcome, Search
from sweeps.space import Constraint
from sweeps.trial import Trial, TrialRecord

ALPHAS = (0.0, 0.3, 0.6)


def between(values: dict[str, float], alpha: float) -> dict[str, float]:
    """Better than the straight way between the trial and a linear probe."""
    bend = 0.2 * alpha * (1 - alpha)
    accuracy = 0.75 + alpha * (values["val_accuracy"] - 0.75) + bend
    return values | {"val_accuracy": accuracy, "val_cka": 1.0 + alpha * (values["val_cka"] - 1.0)}


def with_points(trial: Trial) -> Outcome:
    """What the synthetic trial answers, with points between it and the linear probe."""
    outcome = outcome_of(trial)
    if outcome.values is None or trial.config.method == "linear_probe":
        return outcome
    points = {derived_id(trial.trial_id, alpha): between(dict(outcome.values), alpha) for alpha in ALPHAS}
    return replace(outcome, derived=points)


def record_with_points(trial: Trial, outcome: Outcome) -> TrialRecord:
    record = record_of(trial, outcome)
    if record.result is None:
        return record
    derived = tuple(
        DerivedResult(alpha=alpha, values=dict(outcome.derived[derived_id(trial.trial_id, alpha)]))
        for alpha in ALPHAS
        if outcome.derived
    )
    return replace(record, result=replace(record.result, derived=derived))


@pytest.mark.parametrize("seed", range(5))
def test_the_front_kept_along_the_way_is_that_of_all_in_any_order_of_ending(seed: int) -> None:
    rng = random.Random(seed)
    search = Search(make_space(trials=30))
    trials = []
    while (trial := search.ask()) is not None:
        trials.append(trial)
    every: dict[str, tuple[float, float]] = {}
    for trial in rng.sample(trials, len(trials)):
        outcome = with_points(trial)
        if outcome.values is not None and outcome.status is Status.COMPLETED:
            coarse = {name: round(value, 1) for name, value in outcome.values.items()}  # so that some are equal
            points = {name: {**coarse, "val_cka": rng.choice((0.2, 0.5, 0.8))} for name in outcome.derived}
            outcome = replace(outcome, values=coarse, derived=points)
        judged = search.tell(trial, outcome)
        if judged.status is Status.COMPLETED:
            found = {trial.trial_id: judged.values or {}, **judged.derived}
            every |= {name: (values["val_accuracy"], values["val_cka"]) for name, values in found.items()}
    order = [name for trial in trials for name in every if trial_of(name) == trial.trial_id]
    kept = nondominated([every[name] for name in order], ["maximize", "maximize"])
    front = [name for name, keep in zip(order, kept, strict=True) if keep]
    assert search.front(trials[0].data) == front
    assert len({every[name] for name in front}) < len(front), "equal points are all kept"


def test_points_are_judged_like_trials() -> None:
    space = make_space(trials=12)
    plain, wise = Search(space), Search(space)
    simulate(plain)
    trials, outcomes, _ = simulate(wise, judge=with_points)
    data = space.data[0]
    every = {}
    for trial in trials:
        outcome = outcomes[trial.trial_id]
        if outcome.status is Status.COMPLETED and outcome.values is not None:
            every |= {trial.trial_id: outcome.values, **outcome.derived}
    values = [(found["val_accuracy"], found["val_cka"]) for found in every.values()]
    kept = nondominated(values, ["maximize", "maximize"])
    assert wise.front(data) == [name for name, keep in zip(every, kept, strict=True) if keep]
    assert any("-w" in name for name in wise.front(data))
    assert not any("-w" in name for name in plain.front(data))
    assert wise.reference(data) == plain.reference(data)
    assert (wise.hypervolume(data) or 0) > (plain.hypervolume(data) or 0) > 0


def test_the_sampler_is_never_told_and_the_budget_counts_trials() -> None:
    space = make_space(sampler="tpe", trials=20)
    plain, wise = Search(space), Search(space)
    without, _, _ = simulate(plain)
    with_them, _, _ = simulate(wise, judge=with_points)
    assert [trial.params for trial in with_them] == [trial.params for trial in without]
    assert wise.counts == plain.counts
    assert wise.total == plain.total == len(with_them) == 20
    assert len(wise.study(space.data[0]).trials) == 20


def test_a_constraint_holds_for_points_as_well() -> None:
    bound = Constraint(metric="val_cka", sense=">=", bound=0.9)
    space = make_space(trials=12, constraints=(bound,))
    search = Search(space)
    _, outcomes, _ = simulate(search, judge=with_points)
    found = {name: values for outcome in outcomes.values() for name, values in outcome.derived.items()}
    outside = [name for name, values in found.items() if values["val_cka"] < 0.9]
    assert outside
    assert not set(outside) & set(search.front(space.data[0]))


def test_the_points_of_a_trial_that_is_judged_failed_are_gone_with_it() -> None:
    search = Search(make_space(trials=4))
    trial = search.ask()
    assert trial is not None
    points = {derived_id(trial.trial_id, 0.3): {"val_accuracy": 0.9, "val_cka": 0.9}}
    judged = search.tell(trial, Outcome(status=Status.COMPLETED, values={"val_accuracy": 0.8}, derived=points))
    assert judged.status is Status.FAILED
    assert search.front(trial.data) == []


def test_a_resumed_search_knows_the_same_points_and_history() -> None:
    space = make_space(trials=12)
    whole = Search(space)
    trials, outcomes, _ = simulate(whole, judge=with_points)
    again = Search(space)
    again.restore([record_with_points(trial, outcomes[trial.trial_id]) for trial in trials])
    data, ended = space.data[0], [trial.trial_id for trial in trials]
    assert again.front(data) == whole.front(data)
    volumes = again.hypervolume_history(data, ended)
    assert volumes == whole.hypervolume_history(data, ended)
    assert volumes[-1] == whole.hypervolume(data)
    # a trial's points come with it: what only part of the trials gives is the volume after that part
    part = Search(space)
    part.restore([record_with_points(trial, outcomes[trial.trial_id]) for trial in trials[:7]])
    assert volumes[6] == part.hypervolume(data)


def test_a_record_is_made_of_each_point() -> None:
    search = Search(make_space(trials=4))
    trials, outcomes, _ = simulate(search, judge=with_points)
    full = next(trial for trial in trials if trial.config.method == "full")
    record = replace(record_with_points(full, outcomes[full.trial_id]), ended="2026-01-01T10:00:12+00:00", attempts=2)
    points = derived_records(record, lambda values: values["val_cka"] > 0.9)
    assert [point.trial.trial_id for point in points] == ["t0001-w00", "t0001-w03", "t0001-w06"]
    assert [point.feasible for point in points] == [True, False, False]
    for point, alpha in zip(points, ALPHAS, strict=True):
        assert (point.status, point.attempts, point.epochs) == (Status.COMPLETED, 0, [])
        assert (point.trial.stage.value, point.trial.derived_from, point.trial.data) == ("derived", "t0001", full.data)
        changed = {key for key, value in full.config.flat().items() if point.trial.config.flat()[key] != value}
        assert changed == {"wise_alpha"}
        assert point.trial.config.wise_alpha == alpha
        assert point.started == point.ended == record.ended
        assert point.result is not None
        assert "slot" not in point.result.facts
        assert point.result.facts["n_val"] == 0
    assert len({point.trial.config.config_id for point in points} | {full.config.config_id}) == 4
    assert derived_records(replace(record, status=Status.RUNNING), lambda values: True) == []


def test_the_pretrained_end_of_a_line_is_no_candidate() -> None:
    search = Search(make_space(trials=4))
    trials, outcomes, _ = simulate(search, judge=with_points)
    full = next(trial for trial in trials if trial.config.method == "full")
    result = record_with_points(full, outcomes[full.trial_id]).result
    assert result is not None
    assert min(point.alpha for point in result.derived) == 0
    assert set(derived_values("t0001", result)) == {"t0001-w03", "t0001-w06"}
