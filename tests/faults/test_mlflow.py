"""MLflow is away at the start, in the middle, locked, or lost altogether."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.evidence import assert_agreement, trial_runs
from tests.launch.sweeping import launch, started, wait_for, write_space
from tests.tracking.servers import free_port, server
from tests.trainer.stripes import write_images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # MLflow 3.17 reads runs with a loader that SQLAlchemy 2.1 deprecates
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "stripes")


def test_a_server_that_is_away_at_the_start_is_one_line(images: Path, tmp_path: Path) -> None:
    space = write_space(tmp_path, images)
    uri = f"http://127.0.0.1:{free_port()}"
    code, printed = launch(tmp_path, "--space", str(space), "--name", "away", "--tracking-uri", uri)
    assert code == 2, printed
    assert len(printed.strip().splitlines()) == 1, printed
    assert uri in printed
    assert not (tmp_path / "runs").exists()


def test_a_server_lost_in_the_middle_gets_everything_once_when_it_is_back(images: Path, tmp_path: Path) -> None:
    space = write_space(tmp_path, images, trials=4, epochs=60)
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    with ExitStack() as first_life:
        first_life.enter_context(server(tmp_path, port))
        with started(tmp_path, "--space", str(space), "--name", "served", "--tracking-uri", uri) as process:
            wait_for(tmp_path, "served", "epoch", 10, process)
            first_life.close()
            wait_for(tmp_path, "served", "ended", 2, process)
            with server(tmp_path, port):
                printed, _ = process.communicate(timeout=300)
                assert process.returncode == 0, printed
                assert printed.count("does not answer") == 1, printed
                assert_agreement(tmp_path, "served", 4, uri)


def test_a_database_that_a_reader_locks_is_waited_for(images: Path, tmp_path: Path) -> None:
    space = write_space(tmp_path, images, trials=3, epochs=40)
    with started(tmp_path, "--space", str(space), "--name", "locked") as process:
        wait_for(tmp_path, "locked", "epoch", 5, process)
        reader = sqlite3.connect(tmp_path / "mlflow.db", timeout=60)
        try:
            reader.execute("BEGIN EXCLUSIVE")
            wait_for(tmp_path, "locked", "ended", 1, process)
            time.sleep(5)
        finally:
            reader.close()
        printed, _ = process.communicate(timeout=240)
    assert process.returncode == 0, printed
    assert_agreement(tmp_path, "locked", 3)


def test_a_database_locked_at_the_start_is_waited_for_or_told_in_one_line(images: Path, tmp_path: Path) -> None:
    space = write_space(tmp_path, images, trials=2, epochs=2)
    code, printed = launch(tmp_path, "--space", str(space), "--name", "first", "--no-report")
    assert code == 0, printed
    reader = sqlite3.connect(tmp_path / "mlflow.db", timeout=60)
    try:
        reader.execute("BEGIN EXCLUSIVE")
        code, printed = launch(tmp_path, "--space", str(space), "--name", "second", "--no-report")
        assert code == 2, printed
        assert "locked" in printed
        assert "Traceback" not in printed
        assert not (tmp_path / "runs" / "second").exists()
    finally:
        reader.close()


def test_resuming_a_finished_sweep_only_completes_what_mlflow_lacks(images: Path, tmp_path: Path) -> None:
    space = write_space(tmp_path, images, trials=3, epochs=3)
    code, printed = launch(tmp_path, "--space", str(space), "--name", "again")
    assert code == 0, printed
    journal = tmp_path / "runs" / "again" / "journal.jsonl"
    before, runs = journal.read_text(), trial_runs(tmp_path).sort_values("trial_id")
    (tmp_path / "mlflow.db").unlink()
    code, printed = launch(tmp_path, "--resume", "again")
    assert code == 0, printed
    assert_agreement(tmp_path, "again", 3)
    now = trial_runs(tmp_path).sort_values("trial_id")
    for column in ("trial_id", "val_accuracy", "val_cka", "config_id", "on_front", "steps", "run_status"):
        assert list(now[column]) == list(runs[column])
    added = [json.loads(line)["event"] for line in journal.read_text().removeprefix(before).splitlines()]
    assert added == ["resumed", "finished"], "nothing was run again"
