"""Confirmation: who may belong to the front, how many seeds they get, and when it ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repsim.front import nondominated
from repsim.records import Objective
from sweeps.confirmation import End, Plan, Run, candidates, delta, front_of_means, next_runs, summary

BOTH = (Objective(metric="val_accuracy", direction="maximize"), Objective(metric="val_cka", direction="maximize"))
MIXED = (Objective(metric="val_nll", direction="minimize"), Objective(metric="val_cka", direction="maximize"))
Values = Mapping[str, float]
coarse = st.integers(0, 6).map(lambda n: n / 4)
margin = st.integers(0, 3).map(lambda n: n / 8)


def pair(accuracy: float, cka: float) -> dict[str, float]:
    return {"val_accuracy": accuracy, "val_cka": cka}


def searched(name: str, values: Values | None, *, anchor: bool = False) -> Run:
    return Run(config_id=name, seed=0, values=values, confirms=False, anchor=anchor)


def fresh(name: str, seed: int, values: Values | None) -> Run:
    return Run(config_id=name, seed=seed, values=values, confirms=True)


SEARCH = [
    searched("probe", pair(0.79, 1.0), anchor=True),
    searched("full", pair(0.90, 0.40), anchor=True),
    searched("middle", pair(0.88, 0.80)),
    searched("near", pair(0.875, 0.79)),
    searched("far", pair(0.70, 0.50)),
]


def plan(runs: list[Run], **changes: object) -> Plan:
    settings: dict[str, object] = {"n_val": 200, "seeds": 3, "search_seed": 0, "max_runs": 100, **changes}
    return next_runs(runs, BOTH, **settings)  # type: ignore[arg-type]


def carry_out(
    measure: Callable[[str, int], Values | None], runs: list[Run] | None = None, **changes: object
) -> tuple[Plan, list[Run], list[str]]:
    """Run everything that is due until nothing is; the last plan, all runs, and what each step was for."""
    runs, steps = list(SEARCH if runs is None else runs), []
    for _ in range(50):
        now = plan(runs, **changes)
        if now.end is not End.NOT_YET:
            assert now.due == ()
            return now, runs, steps
        assert now.due
        steps.append(now.reason)
        runs += [fresh(name, seed, measure(name, seed)) for name, seed in now.due]
    raise AssertionError("confirmation did not end")


def steady(name: str, seed: int) -> Values:
    """The search's own values, a little off by seed; the same ways for everybody."""
    run = next(run for run in SEARCH if run.config_id == name)
    assert run.values is not None
    wobble = 0.01 * (seed % 3 - 1)
    return {metric: value + wobble for metric, value in run.values.items()}


# δ


def test_delta_is_the_pooled_deviation_plus_the_binomial_error() -> None:
    values = {"val_accuracy": [[0.80, 0.82, 0.84], [0.90, 0.90, 0.90]], "val_cka": [[1.0, 1.0, 1.0], [0.4, 0.5, 0.6]]}
    found = delta(values, n_val=100)
    share = (0.82 + 0.90) / 2
    assert found["val_accuracy"] == pytest.approx(math.sqrt(0.0008 / 4) + math.sqrt(share * (1 - share) / 100))
    assert found["val_cka"] == pytest.approx(math.sqrt(0.02 / 4))


def test_delta_is_about_spread_within_an_anchor_not_between_them() -> None:
    assert delta({"val_cka": [[1.0, 1.0], [0.2, 0.2]]}, n_val=10) == {"val_cka": 0.0}


def test_delta_pools_by_freedom_and_leaves_out_an_anchor_with_one_value() -> None:
    assert delta({"val_cka": [[1.0], [0.4, 0.6]]}, n_val=10)["val_cka"] == pytest.approx(math.sqrt(0.02))
    assert delta({"val_cka": [[0.1, 0.3], [0.4, 0.4, 0.4]]}, 10)["val_cka"] == pytest.approx(math.sqrt(0.02 / 3))


def test_delta_needs_two_values_and_images() -> None:
    with pytest.raises(ValueError, match="val_cka: no anchor has two values"):
        delta({"val_cka": [[1.0], []]}, n_val=10)
    with pytest.raises(ValueError, match="n_val must be at least 1, not 0"):
        delta({"val_accuracy": [[0.5, 0.6]]}, n_val=0)


def test_the_sum_stays_within_the_deviation_of_a_difference_of_two_runs() -> None:
    """Why a sum, and not a root of squares: s + SE is between that root and √2 times it."""
    found = delta({"val_accuracy": [[0.80, 0.82, 0.84], [0.90, 0.91, 0.92]]}, n_val=150)["val_accuracy"]
    spread = math.sqrt((0.0008 + 0.0002) / 4)
    root = math.hypot(spread, found - spread)
    assert root <= found <= math.sqrt(2) * root


# candidates


points = st.lists(st.tuples(coarse, coarse), min_size=1, max_size=12)


def of_points(found: list[tuple[float, float]], objectives: tuple[Objective, ...]) -> list[Run]:
    names = [objective.metric for objective in objectives]
    return [searched(f"c{i}", dict(zip(names, point, strict=True))) for i, point in enumerate(found)]


@given(points, st.sampled_from([BOTH, MIXED]))
def test_without_a_margin_the_candidates_are_the_nondominated(
    found: list[tuple[float, float]], objectives: tuple[Objective, ...]
) -> None:
    kept = nondominated(found, [objective.direction for objective in objectives])
    expected = [f"c{i}" for i, keep in enumerate(kept) if keep]
    assert candidates(of_points(found, objectives), dict.fromkeys(_names(objectives), 0.0), objectives) == expected


@given(points, st.tuples(margin, margin), st.tuples(margin, margin), st.sampled_from([BOTH, MIXED]))
def test_a_larger_margin_only_adds_candidates(
    found: list[tuple[float, float]],
    small: tuple[float, float],
    more: tuple[float, float],
    objectives: tuple[Objective, ...],
) -> None:
    runs, names = of_points(found, objectives), _names(objectives)
    large = [a + b for a, b in zip(small, more, strict=True)]
    narrow = candidates(runs, dict(zip(names, small, strict=True)), objectives)
    wide = candidates(runs, dict(zip(names, large, strict=True)), objectives)
    assert narrow
    assert set(narrow) <= set(wide)


def _names(objectives: tuple[Objective, ...]) -> list[str]:
    return [objective.metric for objective in objectives]


def test_one_is_out_only_when_the_other_leads_by_the_margin_in_every_objective() -> None:
    runs = [searched("best", pair(0.90, 0.80)), searched("close", pair(0.89, 0.30)), searched("out", pair(0.87, 0.74))]
    margins = {"val_accuracy": 0.02, "val_cka": 0.05}
    assert candidates(runs, margins, BOTH) == ["best", "close"]
    assert candidates(runs, margins | {"val_accuracy": 0.04}, BOTH) == ["best", "close", "out"]


def test_candidates_completed_in_the_search_within_the_constraints() -> None:
    runs = [searched("failed", None), searched("bad", pair(0.4, 0.99)), searched("good", pair(0.8, 0.5))]
    runs.append(fresh("good", 1, pair(1.0, 1.0)))
    margins = {"val_accuracy": 0.0, "val_cka": 0.0}
    assert candidates(runs, margins, BOTH) == ["bad", "good"]
    assert candidates(runs, margins, BOTH, lambda values: values["val_accuracy"] >= 0.5) == ["good"]


def test_an_infeasible_configuration_dismisses_nobody() -> None:
    runs = [searched("slow", pair(0.9, 0.9) | {"train_seconds": 900.0}), searched("fast", pair(0.8, 0.8))]
    margins = {"val_accuracy": 0.0, "val_cka": 0.0}
    assert candidates(runs, margins, BOTH) == ["slow"]
    assert candidates(runs, margins, BOTH, lambda values: values.get("train_seconds", 0.0) <= 600) == ["fast"]


def test_ties_are_all_candidates() -> None:
    runs = [searched("a", pair(0.8, 0.5)), searched("b", pair(0.8, 0.5))]
    assert candidates(runs, {"val_accuracy": 0.0, "val_cka": 0.0}, BOTH) == ["a", "b"]


# means


def test_summary() -> None:
    assert summary([0.8, 0.9, 1.0]) == (pytest.approx(0.9), pytest.approx(0.1 / math.sqrt(3)), 3)
    assert summary([0.8]) == (0.8, None, 1)
    with pytest.raises(ValueError, match="no values"):
        summary([])


def test_the_searchs_own_run_is_no_part_of_the_mean() -> None:
    runs = [searched("a", pair(0.99, 0.99)), fresh("a", 1, pair(0.80, 0.5)), fresh("a", 2, pair(0.90, 0.7))]
    (mean,) = front_of_means(runs, ["a"], BOTH)
    assert mean.n == 2
    assert mean.means == pytest.approx(pair(0.85, 0.6))
    assert mean.errors == pytest.approx(pair(0.05, 0.1))


def test_a_lucky_run_leaves_the_front_when_its_luck_does() -> None:
    runs = [searched("lucky", pair(0.95, 0.8)), searched("solid", pair(0.90, 0.8))]
    runs += [fresh("lucky", seed, pair(0.88, 0.8)) for seed in (1, 2, 3)]
    runs += [fresh("solid", seed, pair(0.90, 0.8)) for seed in (1, 2, 3)]
    found = {mean.config_id: mean.on_front for mean in front_of_means(runs, ["lucky", "solid"], BOTH)}
    assert found == {"lucky": False, "solid": True}


def test_failed_seeds_make_n_smaller_and_an_infeasible_mean_is_not_on_the_front() -> None:
    runs = [fresh("a", 1, None), fresh("a", 2, pair(0.8, 0.5)), fresh("b", 1, None), fresh("c", 1, pair(0.7, 0.9))]
    found = front_of_means(runs, ["a", "b", "c"], BOTH, lambda values: values["val_accuracy"] >= 0.75)
    assert [(mean.config_id, mean.n, mean.on_front) for mean in found] == [("a", 1, True), ("c", 1, False)]
    assert found[0].errors == {"val_accuracy": None, "val_cka": None}


# what is due


def test_first_the_anchors_then_the_candidates_then_one_more_for_all() -> None:
    first = plan(SEARCH)
    assert first.due == (("probe", 1), ("full", 1), ("probe", 2), ("full", 2), ("probe", 3), ("full", 3))
    assert (first.margins, first.candidates) == ({}, ()), "nothing is known yet of luck"
    last, runs, steps = carry_out(steady)
    assert steps == [
        "three seeds of each anchor",
        "3 seeds of each of 4 candidates",
        "one more seed of each candidate",
    ]
    assert last.end is End.UNCHANGED
    assert last.reason == "the front kept its 3 members when every candidate had seed 4"
    assert sorted(last.candidates) == ["full", "middle", "near", "probe"]
    # wobbles of -1, 0 and 1 hundredths at both anchors, and the binomial error of accuracy at their mean
    assert last.margins["val_cka"] == pytest.approx(0.01)
    assert last.margins["val_accuracy"] == pytest.approx(0.01 + math.sqrt(0.845 * 0.155 / 200))
    seeds = {
        name: sorted(run.seed for run in runs if run.confirms and run.config_id == name) for name in ("far", "near")
    }
    assert seeds == {"far": [], "near": [1, 2, 3, 4]}


def test_another_round_while_the_membership_changes() -> None:
    """With seed 4 ``near`` overtakes ``middle`` in both; with seed 5 nothing changes any more."""

    def measure(name: str, seed: int) -> Values:
        return pair(0.93, 0.86) if (name, seed) == ("near", 4) else steady(name, seed)

    last, runs, steps = carry_out(measure)
    assert steps.count("one more seed of each candidate") == 2
    assert last.end is End.UNCHANGED
    assert max(run.seed for run in runs) == 5


def test_more_seeds_when_asked_and_after_another_search_seed() -> None:
    moved = [Run(config_id=r.config_id, seed=7, values=r.values, confirms=False, anchor=r.anchor) for r in SEARCH]
    _, runs, steps = carry_out(lambda name, seed: steady(name, seed - 7), moved, seeds=5, search_seed=7)
    assert steps[1] == "5 seeds of each of 4 candidates"
    assert sorted(run.seed for run in runs if run.confirms and run.config_id == "middle") == [8, 9, 10, 11, 12, 13]


def test_it_is_a_function_of_the_finished_runs_so_a_resume_goes_on() -> None:
    """Whatever has ended of a step, in whatever order: what is due is the rest of that step."""
    _, runs, _ = carry_out(steady)
    made = [run for run in runs if run.confirms]
    for ended in range(len(made)):
        now = plan([*reversed(made[:ended]), *SEARCH])
        assert now == plan([*SEARCH, *made[:ended]])
        assert now.end is End.NOT_YET
        assert (made[ended].config_id, made[ended].seed) == now.due[0]


def test_a_failed_run_is_not_tried_again() -> None:
    last, runs, _ = carry_out(lambda name, seed: None if name == "middle" or seed == 2 else steady(name, seed))
    pairs = [(run.config_id, run.seed) for run in runs if run.confirms]
    assert len(pairs) == len(set(pairs))
    assert last.end is End.UNCHANGED
    found = {mean.config_id: mean for mean in front_of_means(runs, ["middle", "near", "full"], BOTH)}
    assert set(found) == {"near", "full"}
    assert found["near"].n == 3


def test_later_seeds_of_an_anchor_do_not_change_who_is_a_candidate() -> None:
    """Were seed 4 of ``full`` to count, δ would be 0.2 and ``far`` a candidate after all."""
    _, runs, steps = carry_out(lambda name, seed: pair(0.2, 0.0) if (name, seed) == ("full", 4) else steady(name, seed))
    assert steps[1] == "3 seeds of each of 4 candidates"
    assert not [run for run in runs if run.confirms and run.config_id == "far"]


@pytest.mark.parametrize("most", range(0, 24))
def test_the_budget_is_kept_and_said(most: int) -> None:
    last, runs, _ = carry_out(steady, max_runs=most)
    made = sum(run.confirms for run in runs)
    assert made <= most
    if most >= 16:  # 6 for the anchors, 6 for the two other candidates, 4 for one more of all four
        assert (last.end, made) == (End.UNCHANGED, 16)
    else:
        assert last.end is End.BUDGET
        assert last.reason.startswith(f"{made} of {most} confirmation runs are made; ")
        assert made == min(most, 12), "a round that does not fit is not begun"


def test_a_budget_lowered_below_what_was_made_ends_it() -> None:
    _, runs, _ = carry_out(steady)
    assert plan(runs, max_runs=1).end is End.UNCHANGED
    assert plan([run for run in runs if run.seed < 4], max_runs=1).end is End.BUDGET


def test_no_seeds_asked_for() -> None:
    assert plan(SEARCH, seeds=0) == Plan(
        due=(), end=End.OFF, reason="no fresh seeds were asked for: n = 1, no error bars"
    )
    with pytest.raises(ValueError, match="seeds must be 0 or at least 3, not 2"):
        plan(SEARCH, seeds=2)


def test_a_single_configuration_needs_no_anchor() -> None:
    alone = [searched("only", pair(0.8, 0.5))]
    last, runs, steps = carry_out(lambda name, seed: pair(0.8, 0.5), alone)
    assert steps == ["3 seeds of each of 1 candidates", "one more seed of each candidate"]
    assert last.end is End.UNCHANGED
    assert len(runs) == 5


def test_a_failed_anchor_is_not_run_and_the_other_one_gives_delta() -> None:
    runs = [searched("probe", None, anchor=True), *SEARCH[1:]]
    last, made, steps = carry_out(steady, runs)
    assert steps[0] == "three seeds of each anchor"
    assert not [run for run in made if run.confirms and run.config_id == "probe"]
    assert last.end is End.UNCHANGED


def test_nothing_to_confirm() -> None:
    failed = [searched("probe", None, anchor=True), searched("full", None, anchor=True)]
    assert plan(failed) == Plan(due=(), end=End.NOTHING, reason="no search run completed within the constraints")
    assert plan([]).end is End.NOTHING
    assert plan(SEARCH, feasible=lambda values: False).end is End.NOTHING
    last, _, steps = carry_out(lambda name, seed: None)
    assert steps == ["three seeds of each anchor"]
    assert last.end is End.NOTHING
    assert last.reason == "no anchor completed two fresh seeds, so it is not known what luck may explain"


def test_all_seeds_of_all_candidates_fail() -> None:
    last, runs, _ = carry_out(
        lambda name, seed: steady(name, seed) if seed <= 3 and name in ("probe", "full") else None
    )
    assert last.end is End.UNCHANGED
    assert {mean.config_id for mean in front_of_means(runs, ["middle", "near"], BOTH)} == set()
