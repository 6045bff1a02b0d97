"""A real MLflow server, stopped while a sweep writes to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tracking_samples import completed, running, trial, writer

from repsim.errors import RequestError
from sweeps.tracking import prepare_store, resolve_tracking_uri
from sweeps.tracking_uri import open_client

pytestmark = pytest.mark.slow


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _server(folder: Path, port: int) -> Iterator[None]:
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--port", str(port), "--workers", "1"]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=folder)
    try:
        ends = time.monotonic() + 120
        while True:
            try:
                resolve_tracking_uri(f"http://127.0.0.1:{port}")
                break
            except RequestError:
                assert process.poll() is None, (folder / "server.log").read_text()
                assert time.monotonic() < ends, (folder / "server.log").read_text()
                time.sleep(0.5)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_server_that_dies_and_comes_back_has_everything_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.patient.PAUSES", (0.2, 1.0))
    prepare_store(f"sqlite:///{tmp_path}/mlflow.db")
    port = _free_port()
    uri = f"http://127.0.0.1:{port}"
    report = tmp_path / "report"
    report.mkdir()
    (report / "index.html").write_text("<p>front</p>")
    with _server(tmp_path, port):
        sweep = writer(uri, "served", tmp_path, artifact_root=None)
        parent = sweep.start()
        sweep.update(completed(trial(0)))
        sweep.update(running(trial(1), epochs=2))
        assert sweep.flush(30)
    sweep.update(completed(trial(1)))
    sweep.update(completed(trial(2)))
    assert not sweep.flush(2.0)
    with _server(tmp_path, port):
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
