"""Stopping rules: what stops a trial, what never does, and that it depends on the values seen and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import pytest
from curves import NOISE, PROBE, Setting, Values, curve, replay, settings

from repsim.front import nondominated
from repsim.records import Objective
from sweeps.stopping import (
    RULES,
    ExtrapolatingStopping,
    ParetoStopping,
    Stopping,
    StratifiedStopping,
    default_rungs,
)

ACCURACY = Objective(metric="val_accuracy", direction="maximize")
CKA = Objective(metric="val_cka", direction="maximize")
NLL = Objective(metric="val_nll", direction="minimize")
AUC = Objective(metric="val_auc", direction="maximize")
BOTH = (ACCURACY, CKA)
EPOCHS = 12
Rule = type[Stopping]
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def seasoned(rule: Rule, objectives: Sequence[Objective] = BOTH, turn: Callable[[Values], Values] = dict) -> Stopping:
    """A rule that has seen a probe and thirty trials to their ends."""
    stopping = rule(objectives, EPOCHS)
    stopping.anchor("probe", turn(PROBE))
    for number, setting in enumerate(settings(30, seed=1)):
        for epoch, values in enumerate(curve(setting), start=1):
            stopping.observe(f"old{number}", epoch, turn(values))
    return stopping


def length(stopping: Stopping, values: Sequence[Mapping[str, float]], name: str = "new", of: int | None = None) -> int:
    """After how many epochs the trial ends."""
    for epoch, one in enumerate(values, start=1):
        if not stopping.report(name, epoch, one, of):
            return epoch
    return len(values)


def shifted(values: Sequence[Values], **by: float) -> list[Values]:
    return [{name: value + by.get(name, 0.0) for name, value in one.items()} for one in values]


UNDERTRAINED = curve(Setting(strength=20.0, lr=1e-6))
"""After 12 epochs it has hardly moved: more similar than any trained trial, less accurate than the probe."""
GOOD = curve(Setting(strength=2.0, lr=4e-4, skill=0.03))


# what stops a trial


@every_rule
def test_a_probe_stops_an_undertrained_trial_that_no_trial_dominates(rule: Rule) -> None:
    stopping = seasoned(rule)
    at_first = UNDERTRAINED[0]
    assert all(curve(s)[0]["val_cka"] < at_first["val_cka"] for s in settings(30, seed=1))
    assert length(stopping, UNDERTRAINED) < EPOCHS
    alone = seasoned(rule)
    alone.forget("probe")
    assert length(alone, UNDERTRAINED) == EPOCHS, "without the probe it is on the front of every rung"


@every_rule
def test_a_hopeless_trial_is_stopped_and_told_why(rule: Rule) -> None:
    stopping = seasoned(rule)
    assert stopping.reason("new") == ""
    assert length(stopping, shifted(GOOD, val_accuracy=-0.2, val_cka=-0.3)) == 1
    assert stopping.reason("new").startswith("stopped at epoch 1 of 12: ")


def test_the_reasons_can_be_read() -> None:
    bad = shifted(GOOD, val_accuracy=-0.2, val_cka=-0.3)
    strata, extrapolation = seasoned(StratifiedStopping), seasoned(ExtrapolatingStopping)
    length(strata, bad)
    length(extrapolation, bad)
    assert strata.reason("new") == "stopped at epoch 1 of 12: 8 of the 8 nearest trials that kept as much were better"
    said = extrapolation.reason("new")
    assert said.startswith("stopped at epoch 1 of 12: with luck it would have ended at val accuracy 0.8")
    assert said.endswith(" of 31 results dominate that")
    length(strata, UNDERTRAINED, "slow")
    assert "worse than a linear probe that kept as much" in strata.reason("slow")


@every_rule
@pytest.mark.parametrize("seed", range(3))
def test_it_saves_epochs_and_keeps_the_front(rule: Rule, seed: int) -> None:
    """Sixty trials, four at a time; the front is that of all sixty trained to the end."""
    stopping = rule(BOTH, EPOCHS)
    stopping.anchor("probe", PROBE)
    curves = [curve(setting) for setting in settings(60, seed)]
    ended = dict(replay(curves, stopping.report))
    finals = [(one[-1]["val_accuracy"], one[-1]["val_cka"]) for one in curves] + [(0.79, 1.0)]
    kept = nondominated(finals, ["maximize", "maximize"])
    front = [name for name, keep in zip(sorted(ended), kept[:-1], strict=True) if keep]
    assert sum(ended.values()) < 0.8 * EPOCHS * 60
    lost = [name for name in front if ended[name] < EPOCHS]
    assert len(lost) <= len(front) / 3
    assert all(bool(stopping.reason(name)) == (epoch < EPOCHS) for name, epoch in ended.items())


# what does not


@every_rule
def test_the_best_of_all_is_never_stopped(rule: Rule) -> None:
    for seed in range(3):
        stopping = seasoned(rule)
        best = shifted(curve(Setting(strength=2.0, lr=4e-4, seed=seed)), val_accuracy=0.09, val_cka=0.2)
        assert length(stopping, best) == EPOCHS


@every_rule
def test_low_similarity_alone_stops_nobody(rule: Rule) -> None:
    accurate = shifted(GOOD, val_accuracy=0.05, val_cka=-0.75)
    assert min(one["val_cka"] for one in accurate) < 0.1
    assert length(seasoned(rule), accurate) == EPOCHS
    assert length(seasoned(rule), shifted(accurate, val_accuracy=-0.2)) < EPOCHS, "it was its accuracy"


@every_rule
def test_high_similarity_alone_saves_nobody(rule: Rule) -> None:
    similar = [values | {"val_cka": 0.995} for values in UNDERTRAINED]
    assert length(seasoned(rule), similar) < EPOCHS
    assert length(seasoned(rule), shifted(similar, val_accuracy=0.3)) == EPOCHS, "it was its accuracy"


@every_rule
def test_a_slow_start_below_the_probe_is_no_reason(rule: Rule) -> None:
    """Early on nearly every trial is less accurate than the finished probe; it is given what trials still gain."""
    slow = curve(Setting(strength=20.0, lr=3e-4, skill=0.03))
    assert slow[0]["val_accuracy"] < PROBE["val_accuracy"] - 2 * NOISE
    assert slow[-1]["val_accuracy"] > PROBE["val_accuracy"]
    assert length(seasoned(rule), slow) == EPOCHS


@every_rule
def test_with_little_evidence_trials_go_on(rule: Rule) -> None:
    stopping = rule(BOTH, EPOCHS)
    stopping.anchor("probe", PROBE)
    for number, values in enumerate([GOOD, GOOD, UNDERTRAINED]):
        assert length(stopping, values, f"t{number}") == EPOCHS


@every_rule
def test_trials_are_compared_at_equal_epochs(rule: Rule) -> None:
    """An early epoch is not held against other trials' later ones, nor are epochs that are no rung looked at."""
    stopping = rule(BOTH, EPOCHS, rungs=[4])
    for number in range(20):
        for epoch in (2, 8, EPOCHS):
            stopping.observe(f"old{number}", epoch, {"val_accuracy": 0.9, "val_cka": 0.9})
    bad = [{"val_accuracy": 0.1, "val_cka": 0.1}] * EPOCHS
    assert length(stopping, bad) == EPOCHS
    for number in range(20):
        stopping.observe(f"old{number}", 4, {"val_accuracy": 0.9, "val_cka": 0.9})
    assert length(stopping, bad, "again") == 4


@every_rule
def test_a_trial_of_another_length_is_not_stopped_but_its_result_counts(rule: Rule) -> None:
    bad = shifted(GOOD, val_accuracy=-0.2, val_cka=-0.3)
    stopping = seasoned(rule)
    assert length(stopping, bad[:6], "short", of=6) == 6
    assert length(stopping, bad, "long") < EPOCHS


def test_a_short_trials_result_dominates_longer_ones() -> None:
    middling = shifted(GOOD, val_accuracy=-0.03)
    assert length(seasoned(ExtrapolatingStopping), middling) == EPOCHS
    stopping = seasoned(ExtrapolatingStopping)
    stopping.observe("short", 6, {"val_accuracy": 0.97, "val_cka": 0.97}, of=6)
    assert length(stopping, middling) < EPOCHS


@every_rule
@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_value_that_is_missing_or_not_finite_decides_nothing(rule: Rule, value: float | None) -> None:
    stopping = seasoned(rule)
    bad: Values = {"val_accuracy": 0.1, "val_cka": 0.1}
    broken = {"val_cka": 0.1} if value is None else bad | {"val_accuracy": value}
    assert stopping.report("new", 1, broken)
    stopping.anchor("second", broken)
    stopping.report("new", 2, bad)  # what it was before may be needed, and is not known
    assert not stopping.report("new", 4, bad)


# determinism


@every_rule
def test_telling_it_all_again_restores_it(rule: Rule) -> None:
    """From a replay with ``observe``, in another order of trials, every later verdict is the same."""
    before = seasoned(rule)
    curves = [curve(setting) for setting in settings(30, seed=5)]
    told: list[tuple[str, int]] = []

    def report(name: str, epoch: int, values: Mapping[str, float]) -> bool:
        told.append((name, epoch))
        return before.report(name, epoch, values)

    list(replay(curves[:20], report))
    after = seasoned(rule)
    random.Random(0).shuffle(told)
    for name, epoch in told:
        after.observe(name, epoch, curves[int(name[1:])][epoch - 1])
    verdicts = [[length(one, values, f"n{i}") for i, values in enumerate(curves[20:])] for one in (before, after)]
    assert verdicts[0] == verdicts[1]
    assert {EPOCHS} < set(verdicts[0])
    assert [before.expected(f"n{i}") for i in range(10)] == [after.expected(f"n{i}") for i in range(10)]
    assert [before.reason(f"n{i}") for i in range(10)] == [after.reason(f"n{i}") for i in range(10)]


@every_rule
def test_a_forgotten_trial_stops_nobody(rule: Rule) -> None:
    stopping = seasoned(rule)
    for name in [f"old{i}" for i in range(30)]:
        stopping.forget(name)
    stopping.forget("never seen")
    assert length(stopping, shifted(GOOD, val_accuracy=-0.2, val_cka=-0.3)) == EPOCHS


@every_rule
def test_an_epoch_told_again_counts_once(rule: Rule) -> None:
    once, twice = seasoned(rule), seasoned(rule)
    for number, setting in enumerate(settings(30, seed=1)):
        for epoch, values in enumerate(curve(setting), start=1):
            twice.observe(f"old{number}", epoch, values)
    for i, setting in enumerate(settings(10, seed=6)):
        assert length(once, curve(setting), f"n{i}") == length(twice, curve(setting), f"n{i}")


# objectives


def with_nll(values: Values) -> Values:
    return {"val_nll": 2.0 * (1 - values["val_accuracy"]), "val_cka": values["val_cka"]}


@every_rule
def test_a_minimised_objective_is_the_mirror_image(rule: Rule) -> None:
    plain, mirrored = seasoned(rule), seasoned(rule, (NLL, CKA), with_nll)
    lengths = []
    for i, setting in enumerate(settings(15, seed=7)):
        values = curve(setting)
        lengths.append(length(plain, values, f"n{i}"))
        assert length(mirrored, [with_nll(one) for one in values], f"n{i}") == lengths[-1]
    assert {EPOCHS} < set(lengths)


@every_rule
def test_the_order_of_the_objectives_does_not_matter(rule: Rule) -> None:
    one, other = seasoned(rule), seasoned(rule, (CKA, ACCURACY))
    for i, setting in enumerate(settings(10, seed=8)):
        assert length(one, curve(setting), f"n{i}") == length(other, curve(setting), f"n{i}")


@every_rule
def test_a_third_objective_can_save_a_trial(rule: Rule) -> None:
    bad = shifted(GOOD, val_accuracy=-0.2, val_cka=-0.3)

    def plain(values: Values) -> Values:
        return values | {"val_auc": 0.8 + 0.1 * values["val_accuracy"]}

    three = (ACCURACY, AUC, CKA)
    assert length(seasoned(rule, three, plain), [plain(one) for one in bad]) == 1
    assert length(seasoned(rule, three, plain), [one | {"val_auc": 0.99} for one in bad]) == EPOCHS


@every_rule
def test_without_a_similarity_there_is_one_stratum(rule: Rule) -> None:
    objectives = (ACCURACY, NLL)

    def both(values: Values) -> Values:
        return values | with_nll(values)

    assert length(seasoned(rule, objectives, both), [both(one) for one in shifted(GOOD, val_accuracy=-0.2)]) == 1
    assert length(seasoned(rule, objectives, both), [both(one) for one in shifted(GOOD, val_accuracy=0.05)]) == EPOCHS


# the prediction


def test_it_predicts_the_result_from_an_early_epoch() -> None:
    stopping = seasoned(ExtrapolatingStopping)
    off = []
    for i, setting in enumerate(settings(30, seed=9)):
        values = curve(setting)
        for epoch in (1, 2, 4):
            stopping.observe(f"n{i}", epoch, values[epoch - 1])
        found = stopping.expected(f"n{i}")
        assert found is not None
        off.append([found[metric] - values[-1][metric] for metric in ("val_accuracy", "val_cka")])
    assert max(abs(difference) for pair in off for difference in pair) < 0.06
    assert abs(sum(pair[0] for pair in off)) / len(off) < NOISE / 2
    stayed = [abs(curve(s)[3]["val_accuracy"] - curve(s)[-1]["val_accuracy"]) for s in settings(30, seed=9)]
    assert sum(abs(pair[0]) for pair in off) < 0.5 * sum(stayed), "better than taking the last value"


def test_what_it_predicts_without_evidence_and_at_the_end() -> None:
    stopping = ExtrapolatingStopping(BOTH, EPOCHS)
    stopping.observe("new", 1, GOOD[0])
    assert stopping.expected("new") is None
    assert stopping.expected("unknown") is None
    stopping = seasoned(ExtrapolatingStopping)
    assert stopping.expected("old3") == pytest.approx(curve(settings(30, seed=1)[3])[-1])
    assert seasoned(StratifiedStopping).expected("old3") is None


def test_equal_curves_are_no_division_by_zero() -> None:
    stopping = ExtrapolatingStopping(BOTH, EPOCHS)
    for number in range(6):
        for epoch, values in enumerate(GOOD, start=1):
            stopping.observe(f"t{number}", epoch, values)
    assert stopping.expected("t0") == pytest.approx(GOOD[-1])
    assert length(stopping, shifted(GOOD, val_accuracy=-0.01, val_cka=-0.01)) == 1


# how it is set up


def test_pareto_is_one_of_the_rules() -> None:
    assert ParetoStopping in RULES.values()


@pytest.mark.parametrize(("epochs", "rungs"), [(1, ()), (2, (1,)), (6, (1, 2, 4)), (8, (1, 2, 4)), (12, (1, 2, 4, 8))])
def test_default_rungs(epochs: int, rungs: tuple[int, ...]) -> None:
    assert default_rungs(epochs) == rungs
    assert ParetoStopping(BOTH, epochs).rungs == rungs


def test_default_rungs_of_other_reductions() -> None:
    assert default_rungs(12, 3.0) == (1, 3, 9)
    assert default_rungs(5, 1.5) == (1, 2, 3)


@every_rule
@pytest.mark.parametrize(
    ("objectives", "epochs", "more", "message"),
    [
        (
            (ACCURACY, Objective(metric="sharpness", direction="minimize")),
            12,
            {},
            "not measured every epoch.*sharpness",
        ),
        ((CKA,), 12, {}, "similarity alone is no reason"),
        ((CKA, Objective(metric="val_procrustes", direction="maximize")), 12, {}, "similarity alone is no reason"),
        (BOTH, 12, {"rungs": [0, 3]}, r"rungs must lie between 1 and 11, not \[0, 3\]"),
        (BOTH, 12, {"rungs": [12]}, r"rungs must lie between 1 and 11, not \[12\]"),
        (BOTH, 12, {"reduction": 1.0}, r"reduction must be greater than 1, not 1\.0"),
    ],
)
def test_what_is_refused(
    rule: Rule, objectives: Sequence[Objective], epochs: int, more: Mapping[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rule(objectives, epochs, **more)  # type: ignore[arg-type]


def test_a_smaller_reduction_stops_fewer() -> None:
    lengths = {}
    for reduction in (1.3, 2.0, 4.0):
        stopping = StratifiedStopping(BOTH, EPOCHS, rungs=[2, 4], reduction=reduction)
        curves = [curve(setting) for setting in settings(40, seed=2)]
        lengths[reduction] = sum(epoch for _, epoch in replay(curves, stopping.report))
    assert lengths[1.3] > lengths[2.0] > lengths[4.0]
