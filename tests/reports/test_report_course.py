"""How the sweep went: times put into slots, the slots' time divided, epochs and causes counted, and the chapter."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from reports import fronts
from reports.chapters import course_pictures
from reports.chapters.chapter import Chapter
from reports.chapters.course import percent, section, share_sentences, share_table
from reports.chapters.course_pictures import PARTS, growth_picture, share_picture, shares, slot_picture, time_unit
from reports.chapters.spending import (
    ALL_METHODS,
    REASONS,
    Parts,
    cost_table,
    divide,
    epochs_trained,
    reasons_table,
    spending,
    together,
)
from reports.chapters.timeline import Bar, Timeline, arranged, moment, pack, timeline
from reports.curves import CURVE_COLUMNS
from reports.figures import choose_styles
from reports.load import Sweep, load_sweep
from reports.store import open_store
from repsim.records import METRICS, TRIAL_COLUMNS, Tag
from tests.reports.recorded_sweeps import DEMO_REFERENCE, FACTS, HOSTILE, FakeTrial, config, numbers, record
from tests.reports.themed_pictures import assert_exact_twins, collected

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
START = datetime(2026, 11, 20, 7, 0, tzinfo=UTC).timestamp()


def iso(seconds: float) -> str:
    """So many seconds after the start, as the driver writes it."""
    return datetime.fromtimestamp(START + seconds, tz=UTC).isoformat(timespec="milliseconds")


def bar(name: str, began: float, finished: float, slot: str = "", **more: object) -> Bar:
    fields: dict[str, object] = {"method": "full", "stage": "search", "status": "completed", "retried": False, **more}
    return Bar(run_id=name, trial_id=name, began=began, finished=finished, slot=slot, **fields)  # type: ignore[arg-type]


def run(
    number: int, began: float, finished: float | None, *, slot: int | None = None, **more: object
) -> dict[str, object]:
    """A row of the table; with ``slot`` the run says itself when it ran."""
    facts = {} if slot is None else {"slot": slot, "began": START + began, "finished": START + (finished or 0.0)}
    row: dict[str, object] = {
        "trial_id": f"t{number:04d}",
        "mlflow_run_id": f"run-{number}",
        "stage": "search",
        "status": "completed",
        "attempts": 1,
        "method": "full",
        "epochs": 6,
        "started": iso(began),
        "ended": None if finished is None else iso(finished),
        "facts": facts,
    }
    return row | more


def sweep_of(rows: Sequence[Mapping[str, object]], curves: Sequence[tuple[str, int]] = ()) -> Sweep:
    """A sweep of these runs; ``curves`` are (run id, epoch)."""
    table = {name: pd.Series([row.get(name) for row in rows], dtype="object") for name in TRIAL_COLUMNS}
    for name in METRICS:
        table[name] = table[name].astype("float64")
    return Sweep(
        experiment_id="1",
        search={},
        space={},
        code={},
        name="s",
        experiment="e",
        run_id="parent",
        question="",
        objectives=(),
        constraints=(),
        references={},
        confirmations={},
        command="",
        git_commit="",
        git_dirty=False,
        versions={},
        space_hash="",
        state="finished",
        started=iso(0),
        trials=pd.DataFrame(table),
        curves=pd.DataFrame(
            [(run_id, "val_cka", epoch, 0.5) for run_id, epoch in curves], columns=list(CURVE_COLUMNS)
        ).astype({"mlflow_run_id": "string", "epoch": "int64"}),
        configs={},
        facts={str(row["mlflow_run_id"]): row.get("facts", {}) for row in rows},  # type: ignore[misc]
        hashes={},
        anchors=frozenset(),
        notes=(),
    )


def laid_out(sweep: Sweep) -> Timeline:
    line = timeline(sweep)
    assert line is not None
    return line


def idle_of(rows: Sequence[Mapping[str, object]]) -> tuple[float, float, float]:
    """Busy, idle and unknown seconds."""
    sweep = sweep_of(rows)
    spent = spending(sweep, laid_out(sweep))
    return round(spent.inside.seconds, 6), round(spent.idle, 6), round(spent.unknown, 6)


def random_bars(seed: int, count: int = 60) -> list[Bar]:
    rng = random.Random(seed)
    found = []
    for number in range(count):
        began = rng.choice([rng.uniform(0, 400), float(rng.randrange(400))])
        slot = str(rng.randrange(4)) if rng.random() < 0.5 else ""
        found.append(bar(f"r{number}", began, began + rng.choice([1.0, 5.0, rng.uniform(0.1, 80)]), slot))
    return found


def at_once(bars: Sequence[Bar]) -> int:
    """Most bars over one moment, by looking at the beginning of each."""
    return max(sum(other.began <= one.began < other.finished for other in bars) for one in bars)


# ---- lanes


@pytest.mark.parametrize("seed", range(12))
def test_bars_of_a_lane_never_overlap_and_there_are_no_more_lanes_than_bars_at_once(seed: int) -> None:
    line = arranged(random_bars(seed), [], 0.0, 500.0)
    by_lane: dict[int, list[Bar]] = {}
    for one, lane in zip(line.bars, line.lanes, strict=True):
        by_lane.setdefault(lane, []).append(one)
    for several in by_lane.values():
        assert all(first.finished <= second.began for first, second in itertools.pairwise(several))
    assert set(by_lane) == set(range(at_once(line.bars)))
    assert line.slots == at_once(line.bars)


def test_a_process_keeps_its_lane_and_a_stranger_takes_the_one_freed_last() -> None:
    told = [bar("a", 0, 10, "7"), bar("b", 0, 12, "8"), bar("c", 13, 20, "7"), bar("d", 13, 20, "8")]
    assert pack(told) == (0, 1, 0, 1)
    untold = [replace(one, slot="") for one in told]
    assert pack(untold) == (0, 1, 1, 0)


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_the_rows_does_not_matter(seed: int) -> None:
    rows = [
        run(0, 0, 30, slot=1), run(1, 2, 25, slot=2), run(2, 31, 60, status="pruned"), run(3, 26, 70, slot=2),
        run(4, 31, 300, status="failed", attempts=2), run(5, 280, 310, slot=1, attempts=3, train_seconds=5.0),
    ]  # fmt: skip
    whole = sweep_of(rows)
    mixed = sweep_of(random.Random(seed).sample(rows, len(rows)))
    assert laid_out(mixed) == laid_out(whole)
    assert spending(mixed, laid_out(mixed)) == spending(whole, laid_out(whole))
    later = sweep_of([*rows[:-1], run(5, 281, 310, slot=1, attempts=3, train_seconds=5.0)])
    assert laid_out(later) != laid_out(whole)


# ---- the slots' time


def test_idle_time_of_a_schedule_made_by_hand() -> None:
    rows = [run(0, 0, 10), run(1, 0, 5), run(2, 10, 30), run(3, 15, 30)]
    assert idle_of(rows) == (50.0, 10.0, 0.0), "a slot is empty from 5 to 15"
    assert idle_of([*rows, run(4, 5, 15)]) == (60.0, 0.0, 0.0)
    assert idle_of([*rows, run(4, 0, 30)]) == (80.0, 10.0, 0.0), "one slot more, and nothing idle in it"


@pytest.mark.parametrize("seed", range(8))
def test_what_the_time_was_spent_on_adds_up_to_the_slots_time(seed: int) -> None:
    rng = random.Random(seed)
    rows = []
    for number in range(40):
        began, length = rng.uniform(0, 900), rng.uniform(0.5, 60)
        times = {
            "train_seconds": rng.uniform(0, 50),
            "overhead_seconds": rng.uniform(0, 30),
            "attempts": rng.choice([1, 1, 2]),
        }
        status = rng.choice(["completed", "completed", "pruned", "failed"])
        slot = rng.randrange(3) if status == "completed" and rng.random() < 0.7 else None
        rows.append(run(number, began, began + length, slot=slot, status=status, method=rng.choice("ab"), **times))
    sweep = sweep_of(rows)
    line = laid_out(sweep)
    spent = spending(sweep, line)
    whole = sum(max(level.runs for level in part) * sum(level.seconds for level in part) for part in line.stretches)
    assert spent.total == pytest.approx(whole)
    assert sum(spent.share(seconds) for _, seconds in shares(spent)) == pytest.approx(1.0)
    assert all(seconds >= 0 for _, seconds in shares(spent))
    assert spent.inside.seconds == pytest.approx(sum(one.seconds for one in line.bars))
    assert together(spent.methods.values()).each == pytest.approx(spent.inside.each)


def test_a_time_away_is_no_idle_time_and_a_short_hole_is() -> None:
    def after(hole: float) -> tuple[float, float, float]:
        return idle_of([run(0, 0, 20), run(1, 0, 20), run(2, 20 + hole, 40 + hole), run(3, 20 + hole, 40 + hole)])

    assert after(59.0) == (80.0, 118.0, 0.0)
    assert after(3600.0) == (80.0, 0.0, 0.0)
    line = laid_out(sweep_of([run(0, 0, 20), run(1, 3620, 3640)]))
    assert line.pauses == ((START + 20, START + 3620),)
    moments = [START, START + 20, START + 1000, START + 3620, START + 3640]
    assert line.at_work(moments) == pytest.approx([0, 20, 20, 20, 40])


def test_a_launch_with_fewer_slots_has_fewer_idle_ones() -> None:
    wide = [run(number, 0, 20) for number in range(4)]
    assert idle_of([*wide, run(4, 1000, 1020)]) == (100.0, 0.0, 0.0)
    assert idle_of([*wide, run(4, 20, 40)]) == (100.0, 60.0, 0.0)


def test_where_a_run_that_was_begun_again_may_have_been_is_neither_busy_nor_idle() -> None:
    rows = [run(0, 0, 30), run(1, 0, 10), run(2, 10, 30, status="pruned")]
    assert idle_of(rows) == (60.0, 0.0, 0.0)
    again = [*rows[:2], rows[2] | {"attempts": 2}]
    assert idle_of(again) == (40.0, 0.0, 20.0)
    crowded = [run(0, 0, 30), run(1, 0, 30), run(2, 10, 30, status="failed", attempts=3)]
    assert idle_of(crowded) == (60.0, 0.0, 0.0), "both slots were taken: it waited"


def test_a_resumed_run_does_not_hide_the_time_away() -> None:
    rows = [run(0, 0, 20, slot=1), run(1, 3000, 3030, slot=2, attempts=2, started=iso(5), train_seconds=30.0)]
    line = laid_out(sweep_of(rows))
    assert line.pauses == ((START + 20, START + 3000),)
    assert [(one.began - START, one.finished - START) for one in line.doubtful] == [(5.0, 3000.0)]
    assert idle_of(rows) == (50.0, 0.0, 0.0)
    stopped = [rows[0], run(1, 5, 3030, status="pruned", attempts=2), run(2, 3000, 3040, slot=2)]
    assert laid_out(sweep_of(stopped)).pauses == ((START + 20, START + 3000),)
    steady = [rows[0], run(1, 5, 3030, status="pruned"), run(2, 3000, 3040, slot=2)]
    assert laid_out(sweep_of(steady)).pauses == (), "begun once, so it ran all that time"


# ---- one run


def test_the_time_of_a_run_is_divided_as_it_recorded() -> None:
    row = {"train_seconds": 10.0, "evaluation_seconds": 4.0, "overhead_seconds": 6.0}
    one = bar("a", 100.0, 120.0)
    assert divide(one, row) == Parts(training=10.0, evaluation=4.0, other=6.0)
    assert divide(one, row, beside=(3.0, 4.0)) == Parts(training=10.0, evaluation=7.0, other=3.0)
    assert divide(one, row | {"evaluation_seconds": None}) == Parts(training=10.0, other=10.0)
    assert divide(replace(one, status="pruned"), row) == Parts(undivided=20.0)
    assert divide(one, row | {"train_seconds": None}) == Parts(undivided=20.0)


def test_what_all_attempts_recorded_is_counted_in_the_last_as_far_as_it_has_room() -> None:
    row = {"train_seconds": 30.0, "evaluation_seconds": 6.0, "overhead_seconds": 10.0}
    again = bar("a", 0.0, 20.0, retried=True)
    assert divide(again, row).each == pytest.approx((15.0, 3.0, 2.0, 0.0)), "no more than there was time for"
    roomy = divide(replace(again, finished=100.0), row)
    assert roomy.each == pytest.approx((30.0, 6.0, 64.0, 0.0)), "and no more than was recorded"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:01:00+00:00", 60.0),
        ("1970-01-01T00:01:00", 60.0),
        ("1970-01-01T01:01:00+01:00", 60.0),
        ("yesterday", None),
        ("", None),
        (None, None),
        (pd.NA, None),
    ],
)
def test_times_are_read_and_what_is_none_is_not(text: object, seconds: float | None) -> None:
    assert moment(text) == seconds


def test_a_run_says_when_it_ran_unless_that_cannot_be() -> None:
    own = run(0, 10, 20, slot=4321987, started=iso(9))
    line = laid_out(sweep_of([own]))
    assert (line.bars[0].began - START, line.bars[0].slot, line.by_driver) == (10.0, "4321987", 0)
    for facts in (
        {},
        {"slot": 1, "began": "soon", "finished": START + 20},
        {"slot": 1, "began": START + 20, "finished": START + 10},
        {"slot": 1, "began": START - 900, "finished": START + 20},
        {"slot": 1, "began": START + 10, "finished": 1e300},
    ):
        line = laid_out(sweep_of([own | {"facts": facts}]))
        assert (line.bars[0].began - START, line.bars[0].slot, line.by_driver) == (9.0, "", 1), facts


def test_a_run_under_way_lasts_until_the_last_recorded_moment_and_a_waiting_one_is_in_doubt() -> None:
    rows = [run(0, 0, 50), run(1, 20, None, status="running"), run(2, 10, None, status="waiting")]
    line = laid_out(sweep_of(rows))
    assert [(one.trial_id, one.finished - START) for one in line.bars] == [("t0000", 50.0), ("t0001", 50.0)]
    assert [one.trial_id for one in line.doubtful] == ["t0002"]
    assert timeline(sweep_of([run(0, 0, None, status="proposed", started=None)])) is None
    assert timeline(sweep_of([run(0, 0, 5, started=HOSTILE, ended="")])) is None
    assert laid_out(sweep_of([run(0, 0, 5), run(1, 9, 7)])).untimed == 1


# ---- epochs, costs, causes


def test_epochs_are_those_of_the_curves() -> None:
    rows = [run(0, 0, 1), run(1, 0, 1), run(2, 0, 1, status="pruned"), run(3, 0, 1, status="failed")]
    rows.append(run(4, 0, 1, stage="derived", derived_from="t0000"))
    curves = [("run-0", epoch) for epoch in (1, 2, 3, 4)] + [("run-2", 1), ("run-2", 2), ("run-1", 0)]
    found = epochs_trained(sweep_of(rows, curves))
    assert found.by_run == {"run-0": 4, "run-1": 6, "run-2": 2, "run-3": 0}
    assert found.assumed == 1
    assert epochs_trained(sweep_of(rows)).assumed == 2


def test_costs_are_summed_by_method_and_derived_points_cost_no_training() -> None:
    spent = {"train_seconds": 10.0, "images_per_second": 100.0, "peak_memory_bytes": 5.0e8}
    dear = {"train_seconds": 30.0, "images_per_second": 200.0, "peak_memory_bytes": 9.0e8}
    rows = [
        run(0, 0, 20, **spent),
        run(1, 20, 60, stage="confirm", **dear),
        run(2, 60, 70, status="pruned", method="hcs"),
        run(3, 0, 20, stage="derived", derived_from="t0000", **spent),
    ]
    sweep = sweep_of(rows, [("run-0", 6), ("run-1", 6), ("run-2", 2)])
    line = laid_out(sweep)
    table = cost_table(sweep, spending(sweep, line))
    found = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert list(found) == ["full", "hcs", ALL_METHODS]
    assert (found["full"]["runs"], found["full"]["epochs"], found["full"]["training (s)"]) == (2, 12, 40.0)
    assert found["full"]["images/s"] == pytest.approx((10 * 100 + 30 * 200) / 40)
    assert found["full"]["peak memory"] == 9e8
    assert (found["hcs"]["pruned"], found["hcs"]["training (s)"], found["hcs"]["images/s"]) == (1, None, None)
    assert (found[ALL_METHODS]["runs"], found[ALL_METHODS]["in slots (s)"]) == (3, pytest.approx(70.0))
    assert cost_table(sweep, None).rows[0][6] is None


def test_causes_that_differ_in_numbers_alone_are_one() -> None:
    said = ["stopped at epoch 2 of 8: behind", "stopped at epoch 4 of 8: behind", "stopped at epoch 2 of 8: ahead"]
    rows = [run(number, 0, 1, status="pruned", reason=text) for number, text in enumerate(said)]
    rows += [run(3, 0, 1, status="failed", reason="stopped at epoch 9 of 8: behind"), run(4, 0, 1, reason="none")]
    rows.append(run(5, 0, None, status="waiting", reason=None))
    assert reasons_table(sweep_of(rows)).rows == (
        ("pruned", "stopped at epoch # of #: behind", 2, "t0000"),
        ("failed", "stopped at epoch # of #: behind", 1, "t0003"),
        ("pruned", "stopped at epoch # of #: ahead", 1, "t0002"),
        ("waiting", "no reason recorded", 1, "t0005"),
    )
    many = [run(number, 0, 1, status="failed", reason="x" * (number + 1)) for number in range(REASONS + 3)]
    table = reasons_table(sweep_of(many))
    assert len(table.rows) == REASONS
    assert table.caption == "And 3 more causes, of 3 runs."


# ---- pictures


def test_a_long_sweep_draws_its_last_runs_and_counts_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course_pictures, "BARS", 10)
    monkeypatch.setattr(course_pictures, "LANES", 3)
    styles = choose_styles(["full"], ["b"])
    row = [bar(f"r{number:03d}", 10.0 * number, 10.0 * number + 9) for number in range(30)]
    picture = slot_picture(arranged(row, [], 0.0, 300.0), styles)
    assert picture is not None
    assert (len(picture.marks), picture.left_out) == (10, 20)
    assert min(mark.x for mark in picture.marks) == pytest.approx(200 / 60)
    wide = slot_picture(arranged([bar(f"r{number}", 0.0, 300.0) for number in range(5)], [], 0.0, 300.0), styles)
    assert wide is not None
    assert (len(wide.marks), len(wide.rows), wide.left_out) == (3, 3, 2)
    short = slot_picture(arranged(row[:10], [], 0.0, 99.0), styles)
    assert short is not None
    assert short.left_out == 0
    assert (short.x_range, picture.x_range) == ((0.0, 99.0), pytest.approx((200 / 60, 5.0)))
    assert slot_picture(arranged([bar("r", 0.0, 0.0)], [], 0.0, 0.0), styles) is None
    begun = slot_picture(arranged([bar("r", 3.0, 3.0, status="running")], [], 0.0, 3.0), styles)
    assert begun is not None
    assert begun.x_range == (0.0, 3.0)


def test_the_picture_tells_confirmations_and_runs_begun_again() -> None:
    bars = [bar("a", 0, 50, stage="confirm"), bar("b", 200, 250, retried=True), bar("c", 0, 10, status="failed")]
    doubtful = [bar("b", 20, 200, retried=True)]
    picture = slot_picture(arranged(bars, doubtful, 0.0, 250.0), choose_styles(["full"], ["b"]))
    assert picture is not None
    told = [(mark.lane, mark.status, mark.confirming, mark.retried, mark.doubtful) for mark in picture.marks]
    assert told == [
        (0, "failed", False, False, False),
        (1, "completed", True, False, False),
        (2, "completed", False, True, True),
        (1, "completed", False, True, False),
    ]
    assert picture.rows == ("slot 1", "slot 2", "begun again")
    assert picture.pauses == ((50.0, "2 min"),)
    assert picture.unit == "seconds"


def test_shares_are_drawn_in_a_readable_unit() -> None:
    assert [time_unit(seconds)[1] for seconds in (119, 121, 7199, 7201)] == ["seconds", "minutes", "minutes", "hours"]
    sweep = sweep_of([run(0, 0, 600, train_seconds=300.0), run(1, 0, 300, method="hcs", status="pruned")])
    picture = share_picture(spending(sweep, laid_out(sweep)))
    assert picture is not None
    assert dict(picture.rows) == {
        "all slots": pytest.approx((5.0, 0.0, 5.0, 5.0, 0.0, 5.0)),
        "full": pytest.approx((5.0, 0.0, 5.0, 0.0, 0.0, 0.0)),
        "hcs": pytest.approx((0.0, 0.0, 0.0, 5.0, 0.0, 0.0)),
    }
    assert len(PARTS) == 6


def test_shares_are_rounded_for_reading() -> None:
    assert [percent(share) for share in (0.0, 0.0042, 0.0994, 0.0995, 0.614, 1.0)] == [
        "0 %", "0.4 %", "9.9 %", "10 %", "61 %", "100 %",
    ]  # fmt: skip


# ---- from the store


def fake(number: int, method: str, began: float, finished: float, **more: object) -> FakeTrial:
    """A run that recorded where it was; ``values`` None for one that did not complete."""
    values = more.pop("values", numbers(0.8 + 0.01 * number, 1.0 - 0.1 * number))
    tags = {Tag.STARTED: iso(began - 0.5), Tag.ATTEMPTS: str(more.pop("attempts", 1)), **more.pop("tags", {})}  # type: ignore[dict-item]
    facts = {**FACTS, "slot": 100 + number % 2, "began": START + began, "finished": START + finished}
    strength = 1.0 if method == "repsim" else None
    return FakeTrial(
        f"t{number:04d}",
        config(data="phantom:ultrasound", method=method, strength=strength, seed=more.pop("seed", 0)),
        {} if values is None else {**values, "evaluation_seconds": 2.0},  # type: ignore[dict-item]
        facts=facts if values is not None else {},
        ended=iso(finished + 0.5),
        tags=tags,
        **more,  # type: ignore[arg-type]
    )


def course_trials() -> list[FakeTrial]:
    stopped = {"values": None, "feasible": None}
    return [
        fake(0, "linear_probe", 10, 40),
        fake(1, "full", 10, 50),
        fake(2, "repsim", 41, 80),
        fake(3, "repsim", 51, 60, status="pruned", reason="stopped at epoch 2 of 6: behind the front", **stopped),
        fake(4, "repsim", 61, 65, status="failed", reason=f"the loss is {HOSTILE} in step 12", **stopped),
        fake(5, "full", 4000, 4040, attempts=2, tags={Tag.STARTED: iso(66)}),
        fake(6, "repsim", 4001, 4041, stage="confirm", seed=1),
        fake(7, "repsim", 4042, 4080, stage="confirm", seed=2),
    ]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    from sweeps.tracking import prepare_store

    uri = f"sqlite:///{tmp_path_factory.mktemp('course') / 'mlflow.db'}"
    prepare_store(uri)
    client = MlflowClient(tracking_uri=uri)
    record(client, "course", course_trials(), tags={Tag.REFERENCE: DEMO_REFERENCE})
    for row in load_sweep(open_store(uri), "course").trials.itertuples():
        for epoch in range(1, {"pruned": 2, "failed": 0}.get(row.status, 6) + 1):
            client.log_metric(row.mlflow_run_id, "curve/val_accuracy", 0.5, step=epoch)
    return replace(load_sweep(open_store(uri), "course"), started=iso(0))


def chapter_of(sweep: Sweep, folder: Path) -> Chapter:
    studies = tuple(fronts.study(sweep, data) for data in sweep.data_sets)
    points = [point for study in studies for point in study.points]
    return Chapter(
        sweep=sweep,
        studies=studies,
        styles=choose_styles([point.method for point in points], [point.backbone for point in points]),
        stems=("",) if len(studies) == 1 else tuple(f"_{number}" for number in range(len(studies))),
        figures=folder,
        report=folder,
    )


def test_hypervolume_grows_with_trials_epochs_and_time_at_work(sweep: Sweep) -> None:
    study = fronts.study(sweep, "phantom:ultrasound")
    picture = growth_picture(sweep, study, timeline(sweep))
    assert picture is not None
    trials, epochs, time = picture.panels
    assert trials.values == epochs.values == time.values == tuple(value for _, value in study.course)
    assert trials.xs == (1, 2, 3, 4, 5, 6)
    # in order of ending: probe, full, stopped at 2, failed, repsim, full
    assert epochs.xs == (6, 12, 14, 14, 20, 26)
    assert time.label == "minutes since the sweep's start"
    assert [60 * x for x in time.xs] == pytest.approx([40.5, 50.5, 60.5, 65.5, 80.0, 120.5])
    assert [60 * x for x in picture.pauses] == pytest.approx([80.0])
    assert picture.unknown_epochs == 0
    bare = replace(sweep, curves=sweep.curves.iloc[:0])
    without = growth_picture(bare, study, timeline(bare))
    assert without is not None
    assert without.panels[1].xs == (6, 12, 12, 12, 18, 24)
    assert without.unknown_epochs == 1
    assert growth_picture(sweep, replace(study, course=()), None) is None
    timeless = growth_picture(sweep, study, None)
    assert timeless is not None
    assert len(timeless.panels) == 2


def test_the_chapter_says_where_the_time_went(sweep: Sweep, tmp_path: Path) -> None:
    text = section(chapter_of(sweep, tmp_path))
    assert text.startswith("<h2>How it went</h2>")
    for words in (
        "8 runs over 3 min, at most 2 at once",
        "Begun more than once: 1 run,",
        "Left out of the time, and not counted as idle: 1 pause of 60 s or more (65 min in all)",
        "In 1 of them a run was left unfinished and begun again after it, as on a resume.",
        "A run that did not complete records no training time",
        "8 runs, confirmations among them, trained 38 epochs.",
        '<td class="long">stopped at epoch # of #: behind the front</td>',
        "2 confirmation runs (2 completed) took 78 s of slot time",
        "in step #",
        "brings the epochs that it trained",
    ):
        assert words in text, words
    assert "<script>alert" not in text
    assert "Without a record of when they ran" not in text
    written = {path.name for path in tmp_path.iterdir()}
    names = ("hypervolume", "slots", "slot_time")
    assert written == {f"{name}.{suffix}" for name in names for suffix in ("png", "svg")}


def test_its_pictures_have_exact_twins_for_dark_pages(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = collected(monkeypatch)
    section(chapter_of(sweep, tmp_path))
    assert set(pictures) == {"hypervolume", "slots", "slot_time"}
    assert_exact_twins(pictures)


def test_shares_in_words_and_in_the_table_agree(sweep: Sweep) -> None:
    line = laid_out(sweep)
    spent = spending(sweep, line)
    table = share_table(spent)
    found = {str(row[0]): row[1] for row in table.rows}
    assert found["all"] == pytest.approx(sum(float(str(found.get(name, 0.0))) for name in PARTS))
    assert found["training"] == pytest.approx(6 * 11.0)
    assert found[PARTS[3]] == pytest.approx((60.5 - 50.5) + (65.5 - 60.5))
    training = percent(spent.share(spent.inside.training))
    assert share_sentences(sweep, spent, line)[0].startswith(f"{training} of the slots' time was training (")


@pytest.mark.parametrize(
    ("name", "present", "absent"),
    [
        ("running", ["Under way or waiting at the last recorded moment: 1 run."], ["hypervolume.svg"]),
        (
            "failed",
            ['<td class="long">no memory</td>', "0 epochs"],
            ["Left out of the time", "What the confirmation took"],
        ),
        ("single", ["What it cost"], ["Hypervolume against"]),
        ("demo", ["Without a record of when they ran and in which process: 28 completed runs."], ["Begun more than"]),
        ("hostile", ["No run was stopped early, failed or waits."], ["<script>alert"]),
        ("two", ["Hypervolume against trials, epochs and time on folder:/images/&lt;b&gt;a&lt;/b&gt;"], []),
    ],
)
def test_every_state_has_a_chapter(
    store: object, tmp_path: Path, name: str, present: list[str], absent: list[str]
) -> None:
    found = load_sweep(open_store(store.uri), name)  # type: ignore[attr-defined]
    first = min((time for text in found.trials["started"] if (time := moment(text)) is not None), default=0.0)
    text = section(chapter_of(replace(found, started=iso(first - START)), tmp_path))
    for words in present:
        assert words in text, words
    for words in absent:
        assert words not in text, words


def test_a_sweep_without_trials_has_no_chapter(store: object, tmp_path: Path) -> None:
    assert section(chapter_of(load_sweep(open_store(store.uri), "nothing"), tmp_path)) == ""  # type: ignore[attr-defined]


def test_what_the_store_says_is_shown_and_never_run(sweep: Sweep, tmp_path: Path) -> None:
    trials = sweep.trials.copy()
    trials.loc[trials["trial_id"] == "t0007", ["status", "method"]] = HOSTILE
    text = section(chapter_of(replace(sweep, trials=trials), tmp_path))
    assert "(1 &lt;script&gt;alert(1)&lt;/script&gt;&#x27;&quot;&amp;, 1 completed)" in text
    assert "<script>" not in text
    assert "<script>" not in (tmp_path / "slots.svg").read_text(encoding="utf-8")
