"""An MLflow server on a real PostgreSQL, with several sweeps writing to it at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy

from repsim.records import Status
from sweeps.doctor_checks import store
from sweeps.tracking_rows import points
from sweeps.trial import TrialRecord
from tests.faults.evidence import assert_agreement, trial_runs
from tests.launch.sweeping import REPOSITORY, launch, started, wait_for, write_space
from tests.tracking.postgres import Postgres, postgres
from tests.tracking.servers import free_port, server
from tests.trainer.stripes import write_images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # MLflow 3.17 reads runs with a loader that SQLAlchemy 2.1 deprecates
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]


@dataclass(frozen=True, kw_only=True)
class Served:
    """The address of an MLflow server, the database behind it, and the PostgreSQL that holds it."""

    uri: str
    database: str
    cluster: Postgres


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with postgres() as cluster:
        port, database = free_port(), cluster.database("mlflow")
        with server(tmp_path_factory.mktemp("server"), port, database):
            yield Served(uri=f"http://127.0.0.1:{port}", database=database, cluster=cluster)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "stripes")


def assert_every_value_once(database: str, folder: Path, name: str, records: dict[str, TrialRecord]) -> None:
    """Whatever the journal says was measured lies in the database: each value once, bit for bit, nothing besides."""
    runs = trial_runs(folder, database, sweep=name).set_index("trial_id")["run_id"]
    engine = sqlalchemy.create_engine(database)
    with engine.connect() as connection:
        rows = connection.execute(sqlalchemy.text("SELECT run_uuid, key, step, value FROM metrics")).all()
    engine.dispose()
    for trial_id, record in records.items():
        assert record.status is Status.COMPLETED
        stored = sorted((key, step, value) for run, key, step, value in rows if run == runs[trial_id])
        expected = sorted((point.key, point.step, point.value) for point in points(record))
        assert len(expected) > 30
        assert stored == expected


def test_two_sweeps_write_at_once_and_both_are_whole(served: Served, images: Path, tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("left", "right")}
    with ExitStack() as running:
        processes = {}
        for name, folder in folders.items():
            folder.mkdir()
            space = write_space(folder, images, trials=4, epochs=6)
            arguments = ("--space", str(space), "--name", name, "--tracking-uri", served.uri)
            processes[name] = running.enter_context(started(folder, *arguments))
        for process in processes.values():
            printed, _ = process.communicate(timeout=300)
            assert process.returncode == 0, printed
            assert "does not answer" not in printed
    for name, folder in folders.items():
        records = assert_agreement(folder, name, 4, served.uri)
        assert_every_value_once(served.database, folder, name, records)
    again = tmp_path / "again"
    command = [sys.executable, str(REPOSITORY / "reports" / "build.py"), "--sweep", "left", "--out", str(again)]
    command += ["--tracking-uri", served.uri]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (again / "index.html").stat().st_size > 100_000
    table = pd.read_parquet(again / "trials.parquet").set_index("trial_id")
    first = pd.read_parquet(folders["left"] / "runs" / "left" / "report" / "trials.parquet").set_index("trial_id")
    pd.testing.assert_frame_equal(table, first)


def test_a_database_that_crashes_under_its_server_loses_nothing(served: Served, images: Path, tmp_path: Path) -> None:
    space = write_space(tmp_path, images, trials=4, epochs=40)
    with started(tmp_path, "--space", str(space), "--name", "crash", "--tracking-uri", served.uri) as process:
        wait_for(tmp_path, "crash", "epoch", 10, process)
        served.cluster.stop()
        try:
            wait_for(tmp_path, "crash", "ended", 2, process)
        finally:
            served.cluster.start()
        printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    records = assert_agreement(tmp_path, "crash", 4, served.uri)
    assert_every_value_once(served.database, tmp_path, "crash", records)


def test_a_sweep_may_write_to_the_database_itself(served: Served, images: Path, tmp_path: Path) -> None:
    space = write_space(tmp_path, images, trials=2, epochs=2)
    uri = served.cluster.database("direct")
    code, printed = launch(tmp_path, "--space", str(space), "--name", "direct", "--tracking-uri", uri)
    assert code == 0, printed
    assert uri not in printed, "the password is nobody's business"
    records = assert_agreement(tmp_path, "direct", 2, uri)
    assert_every_value_once(uri, tmp_path, "direct", records)


def test_the_doctor_tells_a_server_its_database_and_an_empty_one_apart(served: Served) -> None:
    (server_itself,) = store.store(served.uri)
    assert server_itself.level == "ok", server_itself
    tables, owner = store.store(served.database)
    assert tables.level == "ok", tables
    assert (owner.level, "belongs to an MLflow server" in owner.found) == ("warn", True)
    assert served.cluster.password not in f"{tables}{owner}"
    uri = served.cluster.database("empty")
    (empty,) = store.store(uri)
    assert (empty.level, "is empty: the first sweep makes its tables" in empty.found) == ("ok", True)
    assert store.store(uri) == [empty], "nothing was made"
    (refused,) = store.store(uri.replace(served.cluster.password, "wrong"))
    assert (refused.level, "password authentication failed" in refused.found) == ("FAIL", True)
