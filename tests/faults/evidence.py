"""What a sweep that has been through something must still show: journal, MLflow and report tell the same story."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pandas as pd

from repsim.records import Status
from sweeps.journal import read_history
from sweeps.trial import TrialRecord
from tests.launch.sweeping import descendants, events

MOODY = ("seconds", "peak_memory_bytes", "images_per_second")
RUN_STATUS = {Status.COMPLETED: "FINISHED", Status.FAILED: "FAILED", Status.PRUNED: "KILLED"}


def records(folder: Path, name: str) -> dict[str, TrialRecord]:
    """The journal, folded."""
    return read_history(folder / "runs" / name / "journal.jsonl").records


def numbers(record: TrialRecord) -> dict[str, float]:
    """Everything measured that does not depend on how busy the machine was."""
    assert record.result is not None
    return {key: value for key, value in record.result.values.items() if not any(word in key for word in MOODY)}


def trial_runs(
    folder: Path, uri: str | None = None, experiment: str = "tiny", sweep: str | None = None
) -> pd.DataFrame:
    """The trials' runs in MLflow, one row each: those of every sweep, or of one."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db" if uri is None else uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id], max_results=1000)
    rows = []
    for run in runs:
        epochs = client.get_metric_history(run.info.run_id, "curve/val_accuracy")
        steps = json.dumps([metric.step for metric in epochs])
        rows.append(
            {**run.data.tags, "run_id": run.info.run_id, "run_status": run.info.status, "steps": steps}
            | run.data.metrics
        )
    frame = pd.DataFrame(rows)
    trials = frame[frame["kind"] == "trial"]
    if sweep is None:
        return trials
    parents = frame[(frame["kind"] == "sweep") & (frame["sweep"] == sweep)]["run_id"]
    return trials[trials["mlflow.parentRunId"].isin(parents)]


def assert_agreement(folder: Path, name: str, asked: int, uri: str | None = None) -> dict[str, TrialRecord]:
    """Journal, MLflow and report hold every asked trial once, ended, with its reason; returns the records."""
    found = records(folder, name)
    assert list(found) == [f"t{number:04d}" for number in range(asked)]
    assert all(record.status.terminal for record in found.values())
    assert all(record.reason for record in found.values() if record.status is not Status.COMPLETED)
    ended = [str(line["trial_id"]) for line in events(folder, name) if line["event"] == "ended"]
    assert sorted(ended) == sorted(found), "every trial ends once"
    runs = trial_runs(folder, uri, sweep=name).set_index("trial_id")
    assert sorted(runs.index) == sorted(found), "every trial has one run"
    report = pd.read_parquet(folder / "runs" / name / "report" / "trials.parquet").set_index("trial_id")
    assert sorted(report.index) == sorted(found)
    for trial_id, record in found.items():
        run, row = runs.loc[trial_id], report.loc[trial_id]
        assert (run["run_status"], run["status"]) == (RUN_STATUS[record.status], record.status.value)
        assert row["status"] == record.status.value
        assert row["attempts"] == record.attempts
        assert json.loads(run["steps"]) == [epoch.epoch for epoch in record.epochs], "each epoch once, in order"
        if record.status is Status.COMPLETED:
            assert record.result is not None
            assert run["val_cka"] == row["val_cka"] == record.result.values["val_cka"]
        else:
            assert row["reason"] == record.reason
    assert list((folder / "runs" / name / "checkpoints").rglob("*.pt")) == [], "no checkpoint is needed any more"
    return found


def trial_processes(pid: int) -> list[int]:
    """The processes in which a driver's trials run (their titles change with what they do); empty before any."""
    return [
        child for child, title in descendants(pid).items() if title.startswith(("ray::ResourceTrain", "ray::Trial"))
    ]


def alive(pids: list[int]) -> list[int]:
    """Those that still run (a zombie does not)."""
    found = []
    for pid in pids:
        try:
            state = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            found.append(pid)
    return found


def wait_until_gone(pids: list[int], seconds: float) -> None:
    """AssertionError when one of the processes is still there after ``seconds``."""
    deadline = time.monotonic() + seconds
    while left := alive(pids):
        assert time.monotonic() < deadline, f"{left} are still there after {seconds:g} s"
        time.sleep(0.1)


def kill(pids: list[int], signal_number: int) -> None:
    """Send a signal to those that are still there."""
    for pid in alive(pids):
        os.kill(pid, signal_number)
