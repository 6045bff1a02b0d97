"""Derived points from the trial's report to the journal, and through a kill at any line of it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from repsim.errors import RequestError
from repsim.records import FACTS, METRICS, STANDARD_METRICS, WISE_ALPHAS, DerivedResult, Status, TrialResult
from sweeps.conductor import Sweep
from sweeps.disk import Disk
from sweeps.estimate import estimate
from sweeps.identity import identity
from sweeps.journal import Journal, read_history
from sweeps.listeners import Listeners
from sweeps.live import LiveView
from sweeps.run_folder import RunFolder
from sweeps.search import Search
from sweeps.slots import Slots
from sweeps.space import Space, load_space
from sweeps.tracking import SweepWriter
from sweeps.trainable import Assignment, Report, TrialProcess
from sweeps.trial import Trial, TrialRecord
from sweeps.watchdog import Watchdog

WISE = ["fixed.measure.wise=true"]


class Store:
    """Stands for MLflow: what would be written last, by trial."""

    def __init__(self) -> None:
        self.records: dict[str, TrialRecord] = {}
        self.front: list[str] = []
        self.told: dict[str, dict[str, object]] = {}

    def set_confirmation(self, told: dict[str, dict[str, object]]) -> None:
        self.told = told

    def update(self, record: TrialRecord, derived: list[TrialRecord]) -> None:
        self.records |= {one.trial.trial_id: one for one in (record, *derived)}

    def set_front(self, trial_ids: list[str]) -> None:
        self.front = trial_ids

    def set_reference(self, data: str, reference: object, ideal: object) -> None: ...

    def sweep_values(self, step: int, values: object) -> None: ...


class Driver:
    """One driver on a sweep's folder: search, journal, listeners and conductor; no engine."""

    def __init__(self, folder: RunFolder, space: Space) -> None:
        fresh = not folder.journal.exists()
        self.journal = Journal.create(folder.journal, {"name": "x"}) if fresh else Journal.open(folder.journal)
        self.search, self.store = Search(space), Store()
        self.search.restore(list(self.journal.history.records.values()))
        self._shown: dict[str, TrialRecord] = {}
        self.showings: list[list[str]] = []
        view = SimpleNamespace(update=self._show)
        disk = Disk(folder.root, reserve=0, say=lambda line: None, check=lambda: None)
        listeners = Listeners(
            space=space,
            search=self.search,
            journal=self.journal,
            writer=cast(SweepWriter, self.store),
            view=cast(LiveView, view),
            disk=disk,
            folder=folder,
        )
        listeners.replay()
        self.sweep = Sweep(
            space=space,
            search=self.search,
            journal=self.journal,
            folder=folder,
            listener=listeners,
            disk=disk,
            slots=Slots(parallel=4, threads=1),
            cache_dir=None,
        )

    def _show(self, records: Sequence[TrialRecord], front: object, volume: object, due: int) -> None:
        self.showings.append([one.trial.trial_id for one in records])
        self._shown |= {one.trial.trial_id: one for one in records}

    @property
    def shown(self) -> list[TrialRecord]:
        """Every record that the live view was given, as it is now."""
        return list(self._shown.values())

    def run(self) -> None:
        """Every trial that is left."""
        while (assignment := self.sweep.next_assignment()) is not None:
            self.sweep.reported(assignment, Report(result=answer(assignment)))


def answer(assignment: Assignment) -> dict[str, object]:
    """Three points, the middle one better than the trial in both."""
    ordinal = int(assignment.trial_id[1:])
    values = dict.fromkeys(METRICS, 0.5) | {"val_accuracy": 0.7 + 0.01 * ordinal, "val_cka": 0.6 - 0.1 * ordinal}
    derived = () if assignment.config["method"] == "linear_probe" else (0.0, 0.5, 0.9)
    better = {0.0: (0.6, 1.0), 0.5: (0.8, 0.7), 0.9: (0.7, 0.6)}
    points = tuple(
        DerivedResult(
            alpha=alpha,
            values=dict.fromkeys(STANDARD_METRICS, 0.5)
            | dict(zip(("val_accuracy", "val_cka"), better[alpha], strict=True)),
        )
        for alpha in derived
    )
    facts = dict.fromkeys(FACTS, 1)
    return TrialResult(chosen_epoch=2, epochs=2, values=values, facts=facts, derived=points).to_dict()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs", "x")


@pytest.fixture(scope="module")
def space() -> Space:
    return load_space("quick.yaml", WISE, trials=4)


def test_points_come_with_their_trial_and_count_nowhere_but_on_the_front(folder: RunFolder, space: Space) -> None:
    driver = Driver(folder, space)
    driver.run()
    driver.journal.close()
    trained = ["t0001", "t0002", "t0003"]
    points = [f"{trial}-w{tenths}" for trial in trained for tenths in ("00", "05", "09")]
    history = read_history(folder.journal)
    assert list(history.records) == ["t0000", *trained]
    assert sorted(driver.store.records) == sorted([*history.records, *points])
    assert sorted(record.trial.trial_id for record in driver.shown) == sorted(driver.store.records)
    assert driver.store.front == [f"{trial}-w05" for trial in trained]
    assert driver.search.counts[Status.COMPLETED] == 4
    assert driver.sweep.complete
    assert {line["event"] for line in lines(folder)} == {"sweep", "proposed", "started", "ended", "reference"}


def test_the_front_that_is_told_is_the_confirmed_one_without_derived_points(folder: RunFolder) -> None:
    space = load_space("quick.yaml", [*WISE, "confirm.seeds=3", "confirm.runs=40"], trials=4)
    driver = Driver(folder, space)
    driver.run()
    driver.journal.close()
    (data,) = space.data
    assert driver.store.told[data]["end"] == driver.search.confirmation(data).end.value != "not yet"
    assert driver.store.told[data]["candidates"] == driver.search.candidates(data)
    assert driver.store.told[data]["delta"]
    assert driver.store.front == driver.search.confirmed_front(data)
    assert any("-w" in name for name in driver.search.front(data)), "the search's front has derived points"
    assert not any("-w" in name for name in driver.store.front)
    again = Driver(folder, space)
    again.journal.close()
    assert (again.store.told, again.store.front) == (driver.store.told, driver.store.front)


def lines(folder: RunFolder) -> list[dict[str, object]]:
    return [json.loads(line) for line in folder.journal.read_text().splitlines()]


def test_a_kill_at_any_line_loses_no_point_and_makes_none(folder: RunFolder, space: Space, tmp_path: Path) -> None:
    driver = Driver(folder, space)
    driver.run()
    driver.journal.close()
    whole, content = driver.store, folder.journal.read_bytes().splitlines(keepends=True)
    for count in range(1, len(content) + 1):
        cut = RunFolder.create(tmp_path / f"cut{count}", "x")
        torn = content[count][:-5] if count < len(content) else b""  # killed in the middle of the next line
        cut.journal.write_bytes(b"".join(content[:count]) + torn)
        before = {str(line["trial_id"]) for line in lines_of(content[:count]) if line["event"] == "ended"}
        again = Driver(cut, space)
        made = {name for name in again.store.records if "-" in name}
        assert made == {name for name in whole.records if "-" in name and name.partition("-")[0] in before}
        again.run()
        again.journal.close()
        assert again.store.front == whole.front
        assert {n: r.result for n, r in again.store.records.items()} == {n: r.result for n, r in whole.records.items()}


def lines_of(content: list[bytes]) -> list[dict[str, object]]:
    return [json.loads(line) for line in content]


def test_a_journal_from_before_there_were_points_is_read(folder: RunFolder, space: Space) -> None:
    driver = Driver(folder, space)
    driver.run()
    driver.journal.close()
    old = []
    for number, line in enumerate(lines(folder)):
        result = line.get("result")
        if isinstance(result, dict):
            del result["derived"]
        if line["event"] == "proposed":
            config = cast(dict[str, dict[str, object]], line["trial"])["config"]
            del config["wise_alpha"], config["measure.wise"]
        del line["crc"]
        old.append(json.dumps(line | {"seq": number}))
    folder.journal.write_text("\n".join(old) + "\n")
    history = read_history(folder.journal)
    assert all(record.result is not None and record.result.derived == () for record in history.records.values())


def test_a_point_that_is_no_number_is_refused(folder: RunFolder, space: Space) -> None:
    driver = Driver(folder, space)
    driver.run()
    driver.journal.close()
    text = folder.journal.read_text().replace('"alpha":0.5', '"alpha":"half"', 1)
    folder.journal.write_text(text)
    with pytest.raises(RequestError, match="is corrupt: alpha must be a number"):
        read_history(folder.journal)


def test_only_what_is_trained_is_another_run() -> None:
    configs = [
        load_space("one_run", ["method=full", *more]).config({}, data="phantom:tiny", seed=0)
        for more in ([], WISE, ["fixed.wise_alpha=0.3"], ["fixed.wise_alpha=0.4"])
    ]
    plain, wise, third, fourth = map(identity, configs)
    assert plain == wise
    assert len({plain, third, fourth}) == 3


def test_predictions_of_a_point_stand_beside_its_trials(folder: RunFolder) -> None:
    columns: dict[str, dict[str, list[object]]] = {"val": {"image": ["a"]}, "test": {"image": ["b"]}}
    points = (DerivedResult(alpha=0.3, values={}, predictions=columns),)
    result = TrialResult(chosen_epoch=1, epochs=1, values={}, facts={}, derived=points, predictions=columns)
    process = TrialProcess.__new__(TrialProcess)
    process._folder, process._assignment = folder, SimpleNamespace(trial_id="t0007", attempt=1)
    folder.set_attempt("t0007", 1)
    process._write_predictions(result)
    names = {path.name for path in folder.predictions.iterdir()}
    assert names == {f"t0007{point}_{split}.parquet" for point in ("", "-w03") for split in ("val", "test")}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["space.wise_alpha=[0.1, 0.5]"], "space.wise_alpha: is not searched.*allowed: measure.wise: true in fixed"),
        (["space.wise_alpha=0.5"], "space.wise_alpha: is not searched"),
        (["space.measure.wise=[true, false]"], "space.measure.wise: is constant within a search"),
        (["fixed.measure.wise=yess"], "measure.wise: 'yess' is not allowed"),
        (
            [*WISE, "method=[full, repsim]", "fixed.head=cosine"],
            "head: 'cosine' meets the line of weights, which begins at a linear probe",
        ),
        ([*WISE, "method=[full, repsim]", "space.head=[linear, mlp]"], "head: 'mlp' meets the line of weights"),
        (
            [*WISE, "method=[full, vpt]"],
            "no line of weights for method 'vpt', which does not start at the pretrained network",
        ),
        (["fixed.wise_alpha=0.5"], "no line of weights for method 'linear_probe', which does not move the backbone"),
    ],
)
def test_a_space_without_a_line_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        load_space("quick.yaml", overrides)
    load_space("quick.yaml", [text for text in overrides if "wise" not in text and "vpt" not in text])


def test_points_cost_time_and_disk_in_the_estimate() -> None:
    images = {"phantom:ultrasound": 1000}
    plain, wise = (estimate(load_space("pareto", more), images, 2) for more in ([], WISE))
    assert wise.trials == plain.trials
    assert wise.seconds_low > 1.5 * plain.seconds_low
    assert wise.run_bytes - plain.run_bytes > 24 * 10 * 60_000
    probes = [["method=linear_probe"], ["method=linear_probe", *WISE]]
    without, with_it = (estimate(load_space("one_run", more), images, 1) for more in probes)
    assert with_it.seconds_high == without.seconds_high


def test_a_trial_that_measures_eleven_models_may_be_silent_for_longer() -> None:
    now = [0.0]
    watchdog = Watchdog(clock=lambda: now[0])
    for name, models in (("t0", 1), ("t1", 1 + len(WISE_ALPHAS))):
        watchdog.started(name, "kind", deaths=0, models=models)
    now[0] = 20.0
    watchdog.heard("t0")
    watchdog.heard("t1")
    now[0] = 20.0 + 201.0
    assert list(watchdog.overdue()) == ["t0"]
    now[0] = 20.0 + 2201.0
    assert list(watchdog.overdue()) == ["t0", "t1"]


def test_of_all_trials_the_live_view_is_told_of_the_one_that_has_changed(folder: RunFolder, space: Space) -> None:
    driver = Driver(folder, space)
    driver.run()
    driver.journal.close()
    points = [f"t0003-w{tenths}" for tenths in ("00", "05", "09")]
    assert driver.showings[-2:] == [["t0003"], ["t0003", *points]]
    assert {len(names) for names in driver.showings} == {1, 4}
    resumed = Driver(folder, space)
    resumed.journal.close()
    assert resumed.showings == [[record.trial.trial_id for record in driver.shown]], "once, all of them"


def test_the_live_view_shows_points_on_the_front_and_counts_trials(folder: RunFolder, space: Space) -> None:
    driver = Driver(folder, space)
    driver.run()
    driver.journal.close()
    stream = io.StringIO()
    view = LiveView(space, 4, stream, False)
    view.update(driver.shown, driver.store.front, 0.5)
    said = stream.getvalue().splitlines()
    assert [re.findall(r"t\d\S*", line)[0] for line in said] == ["t0000", "t0001", "t0002", "t0003"]
    assert all("front 3" in line for line in said)
    assert view.eta() is not None
    table = view._front_table([record for record in driver.shown if record.trial.trial_id in driver.store.front])
    names = [str(cell) for cell in table.columns[1].cells]
    assert any("wise α=0.5" in name for name in names)
    assert "4/4 done" in view._summary()


def test_a_trial_travels_with_the_trial_it_belongs_to(space: Space, folder: RunFolder) -> None:
    driver = Driver(folder, space)
    driver.run()
    driver.journal.close()
    point: Trial = driver.store.records["t0001-w05"].trial
    assert point.derived_from == "t0001"
    assert point.config.wise_alpha == 0.5
    assert point.config.measure.wise is False
    assert driver.store.records["t0001"].trial.derived_from is None
