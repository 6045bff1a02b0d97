"""Proposals by expected gain: what they learn from, and what must not matter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from optuna.trial import TrialState
from simulation import LR, PARETO, always, make_space

from repsim.records import Objective
from sweeps import gain
from sweeps.gain import Gain
from sweeps.past import Past
from sweeps.space import Choice, Range, Space

DATA = "phantom:ultrasound"
ACCURACY = Objective(metric="val_accuracy", direction="maximize")
CKA = Objective(metric="val_cka", direction="maximize")
DECAY = Range(low=0.0, high=1.0)
LINE = make_space(dimensions=(always("optim.weight_decay", DECAY),), objectives=(ACCURACY, CKA))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def told(x: float, accuracy: float, cka: float, **changes: object) -> Past:
    entry = Past(params={"optim.weight_decay": x}, state=TrialState.COMPLETE, values=(accuracy, cka))
    return replace(entry, **changes)  # type: ignore[arg-type]


def bent(x: float, **changes: object) -> Past:
    """A trade-off along the line; the ends are the anchors."""
    return told(x, 0.5 + 0.4 * x, 1.0 - 0.8 * x**2, anchor=x in (0.0, 1.0), **changes)


KNOWN = [bent(x) for x in (0.0, 1.0, 0.1, 0.15, 0.2)]


def best(past: list[Past], space: Space = LINE) -> float:
    return float(str(Gain(space, DATA).ranked(past, rng(), None)[0]["optim.weight_decay"]))


def test_it_goes_where_the_front_has_a_gap() -> None:
    assert 0.35 < best(KNOWN) < 0.95


def test_a_trial_under_way_keeps_others_away() -> None:
    first = best(KNOWN)
    running = Past(params={"optim.weight_decay": first}, state=TrialState.RUNNING)
    assert abs(best([*KNOWN, running]) - first) > 0.03


def test_a_stopped_trial_counts_by_what_was_expected_of_it() -> None:
    stopped = told(0.6, 0.2, 0.99, state=TrialState.PRUNED)
    ignored = best([*KNOWN, stopped])
    assert best([*KNOWN, replace(stopped, values=(0.9, 0.9))]) == ignored, (
        "what it had when it was stopped is no result"
    )
    assert best([*KNOWN, replace(stopped, expected=(0.2, 0.2))]) != ignored


def test_near_a_tried_point_nothing_is_asked_again() -> None:
    tried = told(best(KNOWN), 0.0, 0.0, state=TrialState.FAIL, values=None)
    assert abs(best([*KNOWN, tried]) - best(KNOWN)) > 0.14


def test_what_was_learnt_from_one_direction_is_learnt_from_the_other() -> None:
    """Losses in place of gains, the same numbers otherwise."""
    loss = Objective(metric="val_nll", direction="minimize")
    space = replace(LINE, objectives=(loss, CKA))
    mirrored = [replace(entry, values=(2.0 - entry.values[0], entry.values[1])) for entry in KNOWN if entry.values]
    assert 0.35 < best(mirrored, space) < 0.95


def test_a_constraint_that_is_surely_missed_is_kept_away_from() -> None:
    bound = [replace(entry, violations={"x": float(str(entry.params["optim.weight_decay"])) - 0.4}) for entry in KNOWN]
    assert best(bound) < 0.45 < 0.5 < best(KNOWN)


def test_one_bad_result_does_not_hide_the_differences_of_the_others() -> None:
    """A run that broke down says that it is bad, not how bad: the model of the others stays as it is."""
    low, lower = told(0.9, 0.0, 0.1), told(0.9, -5.0, 0.1)
    assert best([*KNOWN, low]) == best([*KNOWN, lower])


def test_the_same_history_gives_the_same_order() -> None:
    one = Gain(LINE, DATA)
    assert one.ranked(KNOWN, rng(), None) == one.ranked(KNOWN, rng(), None)
    assert one.ranked(KNOWN, rng(), None) != one.ranked(KNOWN[:-1], rng(), None)


@pytest.mark.parametrize("past", [[], KNOWN[:1], [replace(KNOWN[0], state=TrialState.FAIL, values=None)] * 5])
def test_without_results_there_is_no_opinion(past: list[Past]) -> None:
    assert Gain(LINE, DATA).ranked(past, rng(), None) == []


def test_a_finite_space_is_ranked_as_it_is() -> None:
    space = make_space(dimensions=(always("optim.weight_decay", Choice(values=(0.0, 0.3, 0.7))),))
    points: list[dict[str, object]] = [{"optim.weight_decay": x} for x in (0.0, 0.3, 0.7)]
    found = Gain(space, DATA).ranked(KNOWN[:2], rng(), points)
    assert sorted(str(one) for one in found) == sorted(str(one) for one in points)


def test_every_candidate_lies_in_the_space() -> None:
    space = make_space(dimensions=(*PARETO, always("optim.batch_size", Range(low=8, high=64, integer=True))))
    params = {"backbone": "mobilenetv2_100", "optim.lr": 1e-4, "optim.batch_size": 8}
    past = [
        Past(
            params={"method": "linear_probe", "strength": None, **params}, state=TrialState.COMPLETE, values=(0.7, 1.0)
        ),
        Past(params={"method": "repsim", "strength": 1.0, **params}, state=TrialState.COMPLETE, values=(0.8, 0.6)),
    ]
    found = Gain(space, DATA).ranked(past, rng(), None)
    assert len(found) == 600
    assert {str(one["method"]) for one in found} == set(map(str, space.values("method")))
    for one in found:
        assert (one["strength"] is None) == (one["method"] in ("full", "linear_probe"))
        assert isinstance(one["optim.batch_size"], int)
        assert LR.low <= float(str(one["optim.lr"])) <= LR.high
        space.config(one, data=DATA, seed=0)


def test_where_trials_fail_it_does_not_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gain, "_APART", 0.02)  # else the failed ones alone would keep it away
    failed = [told(x, 0.0, 0.0, state=TrialState.FAIL, values=None) for x in (0.55, 0.75, 0.95)]
    assert best([*KNOWN, *failed]) < 0.45 < best(KNOWN)
