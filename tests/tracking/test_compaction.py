"""The compact tables say what the store says, and whoever reads them notices what has changed since."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from tracking_samples import completed, failed, running, trial, writer

from reports.compacted import StoredRun, read_compact
from reports.load import Sweep, load_sweep
from reports.store import find_sweep, open_store
from reports.sweep_runs import sweep_runs
from repsim.records import COMPACT_CURVES, COMPACT_TRIALS, Status, Tag
from sweeps.compaction import Compaction

# MLflow's own use of SQLAlchemy
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


def swept(uri: str, name: str, root: Path, trials: int = 5) -> None:
    """A sweep of completed trials, a pruned one and a failed one, written as sweeps are."""
    mirror = writer(uri, name, root, sweep=name)
    mirror.start()
    for number in range(trials):
        mirror.update(completed(trial(number), 0.7 + number / 100))
    mirror.update(failed(trial(20), "no memory"))
    mirror.update(failed(trial(21), "behind the front", Status.PRUNED))
    mirror.set_front([trial(0).trial_id])
    mirror.close("completed")
    assert mirror.errors == ()


def same(one: Sweep, other: Sweep) -> None:
    for field in fields(Sweep):
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(ours, pd.DataFrame):
            pd.testing.assert_frame_equal(ours, theirs)
        else:
            assert ours == theirs, field.name


def both(uri: str, name: str) -> Sweep:
    """The sweep by both ways, which must agree."""
    client = open_store(uri)
    quick, slow = load_sweep(client, name), load_sweep(client, name, fresh=True)
    same(quick, slow)
    return quick


def taken(uri: str, name: str) -> int:
    """How many runs come out of the tables."""
    client = open_store(uri)
    parent = find_sweep(client, name)
    compact = read_compact(client, parent.info.run_id, [])
    return sum(isinstance(run, StoredRun) for run in sweep_runs(client, parent, compact))


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples ended within a second of each other, and would all be read again for caution."""
    monkeypatch.setattr("reports.compacted._OVERLAP_MS", -1)


@pytest.mark.usefixtures("early")
def test_both_ways_say_the_same(store_uri: str, artifacts: Path) -> None:
    swept(store_uri, "compact-same", artifacts)
    found = both(store_uri, "compact-same")
    assert taken(store_uri, "compact-same") == len(found.trials) == 7
    assert len(found.curves) > 0
    assert found.notes == ()


@pytest.mark.usefixtures("early")
def test_what_changed_behind_the_tables_is_seen(store_uri: str, client: MlflowClient, artifacts: Path) -> None:
    swept(store_uri, "compact-changed", artifacts)
    before = both(store_uri, "compact-changed")
    gone, again, opened = (str(before.trials["mlflow_run_id"].iloc[place]) for place in (1, 2, 3))
    client.delete_run(gone)
    client.set_tag(again, Tag.REASON, "ended anew")
    client.set_terminated(again, "FINISHED")
    client.set_tag(opened, Tag.STATUS, "running")
    client.update_run(opened, status="RUNNING")
    mirror = writer(store_uri, "compact-changed", artifacts, sweep="compact-changed")
    mirror.start()
    mirror.update(running(trial(40), epochs=2))
    assert mirror.flush(30.0)
    mirror.stop()
    late = both(store_uri, "compact-changed")
    ids = list(late.trials["mlflow_run_id"])
    assert gone not in ids
    assert len(ids) == 7
    rows = late.trials.set_index("mlflow_run_id")
    assert rows.loc[again, "reason"] == "ended anew"
    assert rows.loc[opened, "status"] == "running"
    assert taken(store_uri, "compact-changed") == 4


@pytest.mark.usefixtures("early")
def test_a_resumed_sweep_compacts_what_it_did_not_run_itself(store_uri: str, artifacts: Path) -> None:
    swept(store_uri, "compact-resumed", artifacts, trials=3)
    swept(store_uri, "compact-resumed", artifacts, trials=6)
    assert taken(store_uri, "compact-resumed") == len(both(store_uri, "compact-resumed").trials)


def test_runs_that_ended_with_the_newest_are_asked_for_again(store_uri: str, artifacts: Path) -> None:
    swept(store_uri, "compact-overlap", artifacts)
    assert taken(store_uri, "compact-overlap") == 0
    both(store_uri, "compact-overlap")


def test_curves_are_asked_for_of_runs_that_ended_otherwise_than_the_tables_have_it(
    store_uri: str, client: MlflowClient, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept(store_uri, "compact-curves", artifacts)
    again = str(both(store_uri, "compact-curves").trials["mlflow_run_id"].iloc[3])
    asked: list[str] = []
    real = MlflowClient.get_metric_history

    def counted(self: MlflowClient, run_id: str, key: str) -> object:
        asked.append(run_id)
        return real(self, run_id, key)

    monkeypatch.setattr(MlflowClient, "get_metric_history", counted)
    load_sweep(open_store(store_uri), "compact-curves")
    assert asked == []
    client.set_terminated(again, "FINISHED")
    load_sweep(open_store(store_uri), "compact-curves")
    assert set(asked) == {again}
    both(store_uri, "compact-curves")


@pytest.mark.parametrize("name", [COMPACT_TRIALS, COMPACT_CURVES])
def test_broken_tables_are_noted_and_not_used(
    name: str, store_uri: str, client: MlflowClient, artifacts: Path, tmp_path: Path
) -> None:
    sweep = f"compact-broken-{Path(name).stem}"
    swept(store_uri, sweep, artifacts)
    parent = find_sweep(open_store(store_uri), sweep).info.run_id
    junk = tmp_path / Path(name).name
    junk.write_bytes(b"PAR1 and then nothing")
    client.log_artifact(parent, str(junk), "compact")
    quick, slow = (load_sweep(open_store(store_uri), sweep, fresh=fresh) for fresh in (False, True))
    assert [note for note in quick.notes if "compact tables could not be read" in note] == list(quick.notes)
    assert len(quick.notes) == 1
    pd.testing.assert_frame_equal(quick.trials, slow.trials)


@pytest.mark.usefixtures("early")
def test_another_sweeps_tables_are_not_used(
    store_uri: str, client: MlflowClient, artifacts: Path, tmp_path: Path
) -> None:
    swept(store_uri, "compact-mine", artifacts)
    swept(store_uri, "compact-yours", artifacts, trials=2)
    mine, yours = (find_sweep(open_store(store_uri), name).info.run_id for name in ("compact-mine", "compact-yours"))
    local = client.download_artifacts(yours, "compact", str(tmp_path))
    client.log_artifacts(mine, local, "compact")
    assert taken(store_uri, "compact-mine") == 0
    assert len(both(store_uri, "compact-mine").trials) == 7


def test_an_artifact_store_that_refuses_is_told_of_once() -> None:
    class Refusing:
        def log_artifact(self, *_: object) -> None:
            raise OSError("read-only file system")

    heard: list[str] = []
    compaction = Compaction(heard.append)
    compaction.note("r", "FINISHED", {}, completed(trial(0)))
    for _ in range(3):
        compaction.write(Refusing(), "parent")  # type: ignore[arg-type]
    assert len(heard) == 1
    assert "read-only file system" in heard[0]
    assert heard[0].count("\n") == 0


def test_amid_a_sweep_the_tables_are_written_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("sweeps.compaction.time.monotonic", lambda: clock[0])

    class Counting:
        written = 0

        def log_artifact(self, *_: object) -> None:
            self.written += 1

    sink, compaction = Counting(), Compaction(lambda _: None)
    record = completed(trial(0))
    for number in range(1000):
        clock[0] += 10.0
        if compaction.note(f"r{number}", "FINISHED", {}, completed(trial(number))):
            compaction.write(sink, "parent")  # type: ignore[arg-type]
    assert 2 * 5 < sink.written < 2 * 40
    assert record.trial.trial_id == "t0000"
