"""The replay behind benchmarks/search_vs_peers.py: who sees what, what an epoch costs, when a mark is reached."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from search_grid import LEVELS, SEEDS, Point, grid_space, params_of, points, snap  # noqa: E402
from search_replay import SCORED, SEARCHED, Curve, Run, Table, Values, replay  # noqa: E402
from search_sides import Listed, NoStopper, OurSearch, RuleStopper, uniform  # noqa: E402
from search_synthetic import synthetic  # noqa: E402
from search_table import append, assemble, jobs, read_runs  # noqa: E402

from repsim.records import EPOCH_METRICS, Status  # noqa: E402

SPACE = grid_space()
PROBE: Point = ("linear_probe", None, 3e-4)
FULL: Point = ("full", None, 3e-4)


def values(accuracy: float, cka: float) -> dict[str, float]:
    return dict.fromkeys(EPOCH_METRICS, 0.0) | {"val_accuracy": accuracy, "val_cka": cka}


def flat(accuracy: float, cka: float, epochs: int = 12) -> Curve:
    return Curve(epochs=[values(accuracy, cka)] * epochs, seconds=[2.0] * epochs)


def table(extra: Mapping[tuple[Point, int], Curve] | None = None) -> Table:
    known = {(PROBE, seed): flat(0.5, 1.0, 1) for seed in SEEDS} | {(FULL, seed): flat(0.7, 0.2) for seed in SEEDS}
    return Table(SPACE, {**known, **(extra or {})})


def listed(*wanted: Point) -> Listed:
    return Listed(iter([params_of(point) for point in wanted]), NoStopper())


def test_the_grid_lies_in_its_space_and_every_point_is_a_trial_of_its_own() -> None:
    found = points(SPACE)
    assert len(found) >= 240
    configs = {SPACE.config(params_of(point), data="phantom:ultrasound", seed=1).config_id for point in found}
    assert len(configs) == len(found)
    assert [snap(params_of(point)) for point in found] == found
    assert {snap(params) for params in SPACE.anchors(SPACE.data[0])} == {PROBE, FULL}


def test_a_proposal_goes_to_the_nearest_level_in_the_logarithm() -> None:
    between = (LEVELS["optim.lr"][1] * LEVELS["optim.lr"][2]) ** 0.5
    assert snap({"method": "full", "strength": None, "optim.lr": between * 0.99})[2] == LEVELS["optim.lr"][1]
    assert snap({"method": "full", "strength": None, "optim.lr": between * 1.01})[2] == LEVELS["optim.lr"][2]
    with pytest.raises(ValueError, match="not a positive number"):
        snap({"method": "repsim", "strength": None, "optim.lr": 1e-4})


def test_of_half_a_table_the_nearest_measured_point_of_the_same_method_counts() -> None:
    near: Point = ("repsim", 1.0, 1e-4)
    half = table({(near, seed): flat(0.6, 0.9) for seed in SEEDS} | {(("hcs", 1.0, 1e-4), SEARCHED): flat(0.9, 0.9)})
    assert half.points == [point for point in points(SPACE) if point in (PROBE, FULL, near)]  # hcs lacks a seed
    assert half.nearest({"method": "repsim", "strength": 30.0, "optim.lr": 1e-5}) == near
    with pytest.raises(ValueError, match="nothing of method 'hcs'"):
        half.nearest({"method": "hcs", "strength": 1.0, "optim.lr": 1e-4})


def test_a_table_without_an_anchor_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks an anchor"):
        Table(SPACE, {(PROBE, seed): flat(0.5, 1.0, 1) for seed in SEEDS})


def test_an_epoch_is_counted_when_it_ends_and_slots_work_side_by_side() -> None:
    alone = replay(listed(PROBE, FULL), table(), slots=1, epochs=100)
    both = replay(listed(PROBE, FULL), table(), slots=2, epochs=100)
    assert (alone.epochs, alone.time, both.epochs, both.time) == (13, 13.0, 13, 12.0)
    assert [spent for spent, _ in alone.volumes] == [1, 13]
    assert replay(listed(PROBE, FULL), table(), slots=1, epochs=100, recorded_time=True).time == 26.0
    assert replay(listed(PROBE, FULL), table(), slots=1, epochs=5).epochs == 5


def test_the_front_is_chosen_by_one_seed_and_scored_by_the_other() -> None:
    lucky: Point = ("repsim", 1.0, 1e-4)
    good, bad = flat(0.9, 0.9), flat(0.4, 0.1)
    with_luck = table({(lucky, SEARCHED): good, (lucky, SCORED): bad})
    without = table({(lucky, SEARCHED): bad, (lucky, SCORED): good})
    chosen, missed = (replay(listed(PROBE, FULL, lucky), one, slots=1, epochs=99) for one in (with_luck, without))
    assert chosen.volumes[-1][1] < chosen.volumes[-2][1]  # luck has pushed full off the front, and is worth nothing
    assert missed.volumes[-1][1] == missed.volumes[-2][1] > 0  # what looks bad is not chosen, however good it is
    assert without.hypervolume([lucky]) > without.hypervolume([PROBE, FULL])


def test_what_is_stopped_or_breaks_down_is_not_on_the_front_and_costs_what_it_trained() -> None:
    class AfterThree(NoStopper):
        def report(self, name: str, epoch: int, values: Values) -> bool:
            return epoch < 3

    stopped = replay(Listed(iter([params_of(FULL)]), AfterThree()), table(), slots=1, epochs=99)
    assert (stopped.epochs, stopped.ended, stopped.volumes) == (3, [(FULL, Status.PRUNED)], [(3, 0.0)])
    broken: Point = ("repsim", 1.0, 1e-4)
    curve = Curve(epochs=[values(0.9, 0.9)] * 2, seconds=[1.0] * 2, failed="the loss is nan")
    none = Curve(epochs=[], seconds=[], failed="the loss is nan")
    for run, epochs in ((curve, 2), (none, 1)):
        found = replay(listed(broken), table({(broken, seed): run for seed in SEEDS}), slots=1, epochs=99)
        assert (found.epochs, found.ended[0][1], found.volumes[-1][1]) == (epochs, Status.FAILED, 0.0)


def test_a_mark_is_reached_at_the_first_time_or_never() -> None:
    run = Run(volumes=[(10, 0.1), (20, 0.3), (30, 0.2)])
    assert (run.reached(0.2), run.reached(0.3), run.reached(0.31)) == (20, 20, float("inf"))
    assert (run.after_trials(2), run.after_trials(9)) == ((20, 0.3), (30, 0.2))


def test_our_search_runs_on_a_table_and_the_same_seed_gives_the_same_run() -> None:
    whole = synthetic(SPACE)

    def once(rule: str, seed: int) -> Run:
        search = OurSearch(SPACE, sampler="random", seed=seed, trials=30, rule=rule)
        return replay(search, whole, slots=4, epochs=500)

    plain, again, other, stopping = once("none", 1), once("none", 1), once("none", 2), once("pareto", 1)
    assert plain == again
    assert plain.volumes != other.volumes
    assert [point for point, _ in plain.ended[:1]] == [PROBE]
    assert Status.PRUNED not in {status for _, status in plain.ended}
    assert Status.PRUNED in {status for _, status in stopping.ended}
    assert stopping.epochs < plain.epochs
    assert not any(status is Status.PRUNED for point, status in stopping.ended if point in (PROBE, FULL))


def test_a_rule_judges_every_point_of_a_table_but_no_probe() -> None:
    whole = synthetic(SPACE)
    found = replay(
        Listed((params_of(point) for point in [PROBE, FULL, *whole.points]), RuleStopper("strata", SPACE)),
        whole,
        slots=4,
        epochs=10**6,
    )
    assert len(found.ended) == len(whole.points) + 2
    assert {status for _, status in found.ended} == {Status.COMPLETED, Status.PRUNED}
    assert all(status is Status.COMPLETED for point, status in found.ended if point == PROBE)


def test_random_proposals_begin_with_the_anchors_and_lie_in_the_space() -> None:
    proposals: Iterator[Mapping[str, object]] = uniform(SPACE, 3)
    found = [snap(next(proposals)) for _ in range(200)]
    assert found[:2] == [PROBE, FULL]
    assert set(found) <= set(points(SPACE))
    assert {point[0] for point in found} == {point[0] for point in points(SPACE)}


def test_a_table_is_written_and_read_back_whole_or_in_part(tmp_path: Path) -> None:
    file, runs = tmp_path / "table.parquet", tmp_path / "runs.jsonl"
    whole = synthetic(SPACE)
    wanted = [*jobs(SPACE)[:40], *((point, seed) for point in (PROBE, FULL) for seed in SEEDS)]
    made = {run: whole.curve(*run) for run in wanted}
    for (point, seed), curve in made.items():
        epochs = [{**epoch, "train_loss": 0.5, "train_seconds": 1.0, "seconds": 1.0} for epoch in curve.epochs]
        append(runs, {"point": list(point), "seed": seed, "failed": None, "epochs": epochs})
    with runs.open("ab") as stream:
        stream.write(b'{"point": ["full", nu')  # killed while writing
    rows = read_runs(runs)
    assert set(rows) == set(made)
    assert runs.read_bytes().endswith(b"\n")
    assemble(SPACE, rows, file, {"command": "test"})
    found = Table.read(SPACE, file)
    assert set(found.points) == {point for point, _ in made}
    for (point, seed), curve in made.items():
        ckas = [epoch["val_cka"] for epoch in found.curve(point, seed).epochs]
        assert ckas == pytest.approx([epoch["val_cka"] for epoch in curve.epochs], rel=1e-6)
