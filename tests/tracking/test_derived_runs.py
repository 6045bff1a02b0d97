"""Derived points in MLflow: filed under their trial, found again, and read back by the report."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from tracking_samples import Children, completed, trial, writer

from reports.load import load_sweep
from repsim.config import TrialConfig
from repsim.records import METRICS, DerivedResult
from sweeps.derived import derived_records
from sweeps.tracking import SweepWriter
from sweeps.trial import TrialRecord


def with_points(number: int, accuracy: float) -> tuple[TrialRecord, list[TrialRecord]]:
    """A trial of ``measure.wise`` and its points at 0 and 0.3."""
    sample = trial(number)
    config = TrialConfig.from_flat(sample.config.flat() | {"measure.wise": True})
    record = completed(dataclasses.replace(sample, config=config), accuracy)
    points = tuple(
        DerivedResult(alpha=alpha, values=dict.fromkeys(METRICS, 0.5) | {"val_accuracy": accuracy - 0.1 * (1 - alpha)})
        for alpha in (0.0, 0.3)
    )
    assert record.result is not None
    record = dataclasses.replace(record, result=dataclasses.replace(record.result, derived=points))
    return record, derived_records(record, lambda values: values["val_accuracy"] >= 0.7)


def send(sweep: SweepWriter) -> str:
    parent = sweep.start()
    for number, accuracy in enumerate((0.75, 0.9)):
        sweep.update(*with_points(number, accuracy))
    sweep.set_front(["t0001", "t0001-w03"])
    sweep.close("completed")
    assert sweep.errors == ()
    return parent


def test_points_are_runs_under_their_trials_run_and_sent_once(
    store_uri: str, client: MlflowClient, children: Children, artifacts: Path
) -> None:
    parent = send(writer(store_uri, "derived", artifacts))
    assert send(writer(store_uri, "derived", artifacts, resume=True)) == parent
    runs = children("derived", parent)
    assert sorted(runs) == ["t0000", "t0001"], "the sweep's own list holds trials alone"
    for name in runs:
        assert sorted(children("derived", runs[name].info.run_id)) == [f"{name}-w00", f"{name}-w03"]
    point = children("derived", runs["t0001"].info.run_id)["t0001-w03"]
    tags = point.data.tags
    assert point.info.run_name == "t0001-w03 repsim λ=1.2 wise α=0.3 tf_efficientnet_lite0"
    assert (tags["stage"], tags["derived_from"], tags["status"], tags["on_front"]) == (
        "derived",
        "t0001",
        "completed",
        "true",
    )
    assert (point.info.status, point.data.params["wise_alpha"], point.data.params["measure.wise"]) == (
        "FINISHED",
        "0.3",
        "false",
    )
    assert set(point.data.metrics) == set(METRICS), "finals, and no curve"
    assert [m.value for m in client.get_metric_history(point.info.run_id, "val_accuracy")] == pytest.approx([0.83])
    assert "derived_from" not in runs["t0001"].data.tags


def test_a_point_waits_for_its_trials_run(
    store_uri: str, children: Children, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever call the store refuses once, every run ends up in its place, once."""
    for refused in (1, 2, 4):
        name = f"refused{refused}"
        sweep = writer(store_uri, name, artifacts)
        parent = sweep.start()
        calls = iter(range(1, 100))
        real = sweep._client.log_batch

        def log_batch(
            *given: object, refused: int = refused, calls: object = calls, real: object = real, **more: object
        ) -> None:
            if next(calls) == refused:  # type: ignore[call-overload]
                raise MlflowException("the database is locked")
            real(*given, **more)  # type: ignore[operator]

        monkeypatch.setattr(sweep._client, "log_batch", log_batch)
        sweep.update(*with_points(0, 0.9))
        sweep.close("completed")
        runs = children(name, parent)
        assert sorted(runs) == ["t0000"]
        assert sorted(children(name, runs["t0000"].info.run_id)) == ["t0000-w00", "t0000-w03"]


def test_the_report_reads_them_as_rows_of_their_own(store_uri: str, client: MlflowClient, artifacts: Path) -> None:
    send(writer(store_uri, "rows", artifacts))
    sweep = load_sweep(client, "rows-1")
    rows = sweep.trials.set_index("trial_id")
    assert list(rows.index) == ["t0000", "t0000-w00", "t0000-w03", "t0001", "t0001-w00", "t0001-w03"]
    assert list(rows["stage"]) == ["search", "derived", "derived"] * 2
    assert list(rows["derived_from"].fillna("")) == ["", "t0000", "t0000", "", "t0001", "t0001"]
    assert list(rows["param/wise_alpha"]) == [1.0, 0.0, 0.3] * 2
    assert list(rows["feasible"]) == [True, False, False, True, True, True]
    assert list(rows["method"].unique()) == ["repsim"]
    assert rows["config_id"].nunique() == 3
    assert list(rows["attempts"]) == [1, 0, 0] * 2
