"""The MLflow store is looked at and never made."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sweeps.doctor_checks import store
from sweeps.tracking import prepare_store
from tests.tracking.servers import free_port


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    prepare_store(f"sqlite:///{path}")
    return path


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


@pytest.fixture
def copy(database: Path, tmp_path: Path) -> Path:
    path = tmp_path / "mlflow.db"
    path.write_bytes(database.read_bytes())
    return path


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (found,) = store.store(None)
    assert (found.level, "does not exist yet" in found.found) == ("ok", True)
    assert list(tmp_path.iterdir()) == []
    (elsewhere,) = store.store(f"sqlite:///{tmp_path}/gone/mlflow.db")
    assert elsewhere.level == "FAIL"
    (folder,) = store.store(str(tmp_path))
    assert "plain folders" in folder.found


def test_a_store_of_this_mlflow(copy: Path) -> None:
    (found,) = store.store(f"sqlite:///{copy}")
    assert found.level == "ok", found


def test_a_store_of_another_mlflow(copy: Path) -> None:
    older = next(iter(revision for revision, before in store.known_revisions().items() if before))
    change(copy, f"UPDATE alembic_version SET version_num = '{older}'")
    (found,) = store.store(f"sqlite:///{copy}")
    if found.level == "ok":  # it was the newest one
        raise AssertionError("choose another revision")
    assert "mlflow db upgrade" in found.advice
    change(copy, "UPDATE alembic_version SET version_num = 'abcdef123456'")
    (found,) = store.store(f"sqlite:///{copy}")
    assert (found.level, "newer MLflow" in found.found) == ("FAIL", True)


def test_a_store_whose_artifacts_a_server_keeps(copy: Path) -> None:
    change(copy, "UPDATE experiments SET artifact_location = 'mlflow-artifacts:/0'")
    _, found = store.store(f"sqlite:///{copy}")
    assert (found.level, "belongs to an MLflow server" in found.found) == ("warn", True)


def test_a_store_that_is_locked_or_damaged(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_LOCK_SECONDS", 0.2)
    with closing(sqlite3.connect(copy)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        (found,) = store.store(f"sqlite:///{copy}")
        assert (found.level, "has been locked for" in found.found) == ("FAIL", True)
    copy.write_bytes(copy.read_bytes()[:5000])
    (found,) = store.store(f"sqlite:///{copy}")
    assert found.level == "FAIL"


def test_sqlite_on_a_network_disk_is_doubted(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "filesystem", lambda path: "nfs4")
    first, second = store.store(f"sqlite:///{copy}")
    assert (first.level, second.level) == ("warn", "ok")


@contextmanager
def web(answers: dict[str, tuple[int, str]]) -> Iterator[str]:
    """A server that answers paths with a status and a text, and everything else with 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = answers.get(self.path, (404, ""))
            if self.path in answers and text == "needs ann:secret" and "YW5uOnNlY3JldA==" in str(self.headers):
                status, text = 200, "{}"
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET  # noqa: N815

        def log_message(self, *words: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}"
        finally:
            listening.shutdown()
            thread.join()


EXPERIMENTS = "/api/2.0/mlflow/experiments/search"


@pytest.mark.parametrize(
    ("answers", "level", "said"),
    [
        ({"/health": (200, "OK"), "/version": (200, "3.1.0"), EXPERIMENTS: (200, "{}")}, "ok", "MLflow 3.1.0"),
        ({"/health": (200, "OK"), "/version": (200, "2.9.0"), EXPERIMENTS: (200, "{}")}, "warn", "is MLflow 2.9.0"),
        ({"/health": (200, "OK"), "/version": (200, "3.1.0"), EXPERIMENTS: (401, "")}, "FAIL", "refuses access"),
        ({"/health": (200, "OK"), "/version": (200, "3.1.0"), EXPERIMENTS: (500, "")}, "FAIL", "HTTP 500"),
        ({"/health": (200, "OK"), "/version": (200, "hello"), EXPERIMENTS: (200, "{}")}, "FAIL", "something else"),
        ({"/health": (200, "OK"), "/version": (200, "3.1.0"), EXPERIMENTS: (200, "<p>")}, "FAIL", "as an MLflow"),
        ({}, "FAIL", "HTTP 404"),
    ],
)
def test_servers_of_all_kinds(answers: dict[str, tuple[int, str]], level: str, said: str) -> None:
    with web(answers) as uri:
        (found,) = store.store(uri)
    assert found.level == level
    assert said in found.found


def test_a_server_is_told_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"/health": (200, "OK"), "/version": (200, "3.1.0"), EXPERIMENTS: (401, "needs ann:secret")}
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    with web(answers) as uri:
        assert store.store(uri)[0].level == "FAIL"
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
        assert store.store(uri)[0].level == "ok"


def test_a_server_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    (found,) = store.store(None)
    assert (found.level, "does not answer" in found.found) == ("FAIL", True)


def test_the_port_of_mlflow_ui() -> None:
    assert store.ui_port(free_port()).level == "ok"
    with web({}) as uri:
        assert store.ui_port(int(uri.rpartition(":")[2])).level == "warn"
