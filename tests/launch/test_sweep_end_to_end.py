"""The whole line, and what survives when the driver is killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

from repsim.records import Status
from sweeps.journal import read_history
from sweeps.trial import TrialRecord
from tests.launch.sweeping import events, launch, started, wait_for, wait_for_workers, write_space
from tests.trainer.stripes import write_images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # MLflow 3.17 reads runs with a loader that SQLAlchemy 2.1 deprecates
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]
MOODY = ("seconds", "peak_memory_bytes", "images_per_second")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "stripes")


@pytest.fixture(scope="module")
def uninterrupted(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep named ``whole``."""
    folder = tmp_path_factory.mktemp("whole")
    code, printed = launch(folder, "--space", str(write_space(folder, images, epochs=12)), "--name", "whole")
    assert code == 0, printed
    return folder


def records(folder: Path, name: str) -> dict[str, TrialRecord]:
    return read_history(folder / "runs" / name / "journal.jsonl").records


def numbers(record: TrialRecord) -> dict[str, float]:
    assert record.result is not None
    return {key: value for key, value in record.result.values.items() if not any(word in key for word in MOODY)}


def children(folder: Path) -> pd.DataFrame:
    """The trials' runs in MLflow."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    rows = [
        {**run.data.tags, "run_status": run.info.status, "val_cka": run.data.metrics.get("val_cka")} for run in runs
    ]
    frame = pd.DataFrame(rows)
    return frame[frame["kind"] == "trial"]


def test_a_sweep_runs_and_is_recorded_everywhere(uninterrupted: Path) -> None:
    found = records(uninterrupted, "whole")
    assert [record.status for record in found.values()] == [Status.COMPLETED] * 6
    assert [record.trial.config.method for record in found.values()][:2] == ["linear_probe", "full"]
    runs = children(uninterrupted)
    assert sorted(runs["trial_id"]) == sorted(found)
    assert set(runs["run_status"]) == {"FINISHED"}
    for trial_id, value in zip(runs["trial_id"], runs["val_cka"], strict=True):
        record = found[trial_id]
        assert record.result is not None
        assert value == record.result.values["val_cka"]
    report = uninterrupted / "runs" / "whole" / "report"
    assert "</html>" in (report / "index.html").read_text()
    assert len(pd.read_parquet(report / "trials.parquet")) == 6
    predictions = pd.read_parquet(uninterrupted / "runs" / "whole" / "predictions" / "t0001_test.parquet")
    assert {"image", "label", "predicted"} <= set(predictions)
    assert list((uninterrupted / "runs" / "whole" / "checkpoints").rglob("*.pt")) == []


def test_a_killed_driver_resumes_to_what_an_uninterrupted_one_gives(
    images: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    with started(tmp_path, "--space", str(write_space(tmp_path, images, epochs=12)), "--name", "whole") as process:
        wait_for(tmp_path, "whole", "epoch", 18, process)
        process.kill()
        process.wait()
    before = records(tmp_path, "whole")
    finished = {trial_id: record for trial_id, record in before.items() if record.status.terminal}
    in_flight = [record for record in before.values() if not record.status.terminal]
    assert finished
    assert in_flight
    code, printed = launch(tmp_path, "--resume", "whole")
    assert code == 0, printed
    after, whole = records(tmp_path, "whole"), records(uninterrupted, "whole")
    assert list(after) == list(whole)
    for trial_id, record in whole.items():
        assert after[trial_id].trial.params == record.trial.params
        assert numbers(after[trial_id]) == numbers(record)
    for trial_id, record in finished.items():
        assert after[trial_id].attempts == record.attempts
        assert after[trial_id].ended == record.ended
    continued = after[in_flight[0].trial.trial_id]
    assert continued.attempts == 2
    again = [line for line in events(tmp_path, "whole") if line["event"] == "epoch" and line.get("attempt") == 2]
    first_epoch_again = again[0]["result"]
    assert isinstance(first_epoch_again, dict)
    checkpointed = len(in_flight[0].epochs)
    assert first_epoch_again["epoch"] >= max(1, checkpointed)
    runs = children(tmp_path)
    assert sorted(runs["trial_id"]) == sorted(whole)


def test_an_interrupted_driver_says_how_to_go_on(images: Path, tmp_path: Path) -> None:
    with started(tmp_path, "--space", str(write_space(tmp_path, images)), "--name", "stopped") as process:
        wait_for(tmp_path, "stopped", "epoch", 3, process)
        began = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert "python sweeps/launch.py --resume stopped" in printed
    assert "Traceback" not in printed
    assert time.monotonic() - began < 20
    code, printed = launch(tmp_path, "--resume", "stopped", "--no-report", "--trials", "7")
    assert code == 0, printed
    assert len(records(tmp_path, "stopped")) == 7


def test_a_trial_that_diverges_fails_once_with_its_reason_and_the_sweep_goes_on(images: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").symlink_to(images)
    space = write_space(tmp_path, Path("pictures"), trials=6, epochs=2)  # a relative path, as people write it
    space.write_text(space.read_text() + "  optim.lr: {value: [3.0e-4, 1.0e+30], when: {adapter: full}}\n")
    code, printed = launch(tmp_path, "--space", str(space), "--name", "wild")
    assert code == 0, printed
    found = records(tmp_path, "wild")
    failed = [record for record in found.values() if record.status is Status.FAILED]
    assert failed
    assert {record.trial.config.optim.lr for record in failed} == {1e30}
    assert all("the training loss became" in record.reason for record in failed)
    assert {record.attempts for record in failed} == {1}
    runs = children(tmp_path)
    assert sorted(runs[runs["run_status"] == "FAILED"]["trial_id"]) == sorted(r.trial.trial_id for r in failed)
    assert "the training loss became" in (tmp_path / "runs" / "wild" / "report" / "index.html").read_text()


def test_a_killed_worker_is_tried_again_from_its_checkpoint(images: Path, tmp_path: Path) -> None:
    space = write_space(tmp_path, images, trials=3, epochs=40)
    with started(tmp_path, "--space", str(space), "--name", "hurt", "--no-report") as process:
        wait_for(tmp_path, "hurt", "epoch", 6, process)
        for pid in wait_for_workers(process.pid):
            os.kill(pid, signal.SIGKILL)
        printed, _ = process.communicate(timeout=240)
    assert process.returncode == 0, printed
    found = records(tmp_path, "hurt")
    assert {record.status for record in found.values()} == {Status.COMPLETED}
    assert max(record.attempts for record in found.values()) == 2
    assert any("retry 1 of 2" in str(line.get("reason")) for line in events(tmp_path, "hurt"))
