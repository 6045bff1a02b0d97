"""A real MLflow server, stopped while a sweep writes to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tracking_samples import completed, running, trial, writer

from sweeps.tracking import prepare_store
from sweeps.tracking_uri import open_client
from tests.tracking.servers import free_port, server

pytestmark = pytest.mark.slow


def test_a_server_that_dies_and_comes_back_has_everything_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.patient.PAUSES", (0.2, 1.0))
    prepare_store(f"sqlite:///{tmp_path}/mlflow.db")
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    report = tmp_path / "report"
    report.mkdir()
    (report / "index.html").write_text("<p>front</p>")
    with server(tmp_path, port):
        sweep = writer(uri, "served", tmp_path, artifact_root=None)
        parent = sweep.start()
        sweep.update(completed(trial(0)))
        sweep.update(running(trial(1), epochs=2))
        assert sweep.flush(30)
    sweep.update(completed(trial(1)))
    sweep.update(completed(trial(2)))
    assert not sweep.flush(2.0)
    with server(tmp_path, port):
        assert sweep.flush(60)
        sweep.log_report(report)
        sweep.close("completed", timeout=60)
        assert len(sweep.errors) == 1
        assert "does not answer" in sweep.errors[0]
        client = open_client(uri)
        experiment = client.get_experiment_by_name("served")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
        assert sorted(run.data.tags["trial_id"] for run in runs) == ["t0000", "t0001", "t0002"]
        for run in runs:
            curve = client.get_metric_history(run.info.run_id, "curve/val_accuracy")
            assert [metric.step for metric in curve] == [1, 2, 3]
            assert run.info.status == "FINISHED"
        assert client.get_run(parent).info.status == "FINISHED"
        assert [item.path for item in client.list_artifacts(parent, "report")] == ["report/index.html"]
