from __future__ import annotations

import http.server
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from repsim.errors import RequestError
from sweeps.tracking import prepare_store, resolve_tracking_uri
from sweeps.tracking_uri import redacted, sqlite_path


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_the_default_is_a_database_in_the_current_folder(tmp_path: Path) -> None:
    assert resolve_tracking_uri(None) == f"sqlite:///{tmp_path}/mlflow.db"
    assert list(tmp_path.iterdir()) == []


def test_relative_files_become_absolute_and_the_flag_beats_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    assert resolve_tracking_uri(None) == f"sqlite:///{tmp_path}/other.db"
    assert resolve_tracking_uri("sqlite:///mine.db") == f"sqlite:///{tmp_path}/mine.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    with pytest.raises(RequestError, match=r"^MLFLOW_TRACKING_URI: './mlruns' is a folder"):
        resolve_tracking_uri(None)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("", r"--tracking-uri: '' is a folder.*write 'sqlite:///mlflow.db'"),
        ("mlruns", r"'mlruns' is a folder.*write 'sqlite:///mlruns/mlflow.db'"),
        ("/data/mlruns", r"write 'sqlite:////data/mlruns/mlflow.db'"),
        ("file:///data/mlruns", r"keeps no runs in plain folders any more; write 'sqlite:////data/mlruns/mlflow.db'"),
        ("file://[x", r"write 'sqlite:///\[x/mlflow.db'"),
        ("file:mlruns", r"write 'sqlite:///mlruns/mlflow.db'"),
        ("sqlit:///a.db", r"unknown scheme; allowed: sqlite:///FILE.db.*did you mean 'sqlite'\?"),
        ("databricks://me", r"unknown scheme"),
        ("ftp://me:secret@host/x", r"'ftp://me:…@host/x' has an unknown scheme"),
        ("sqlite://", r"names no file; write sqlite:///mlflow.db"),
        ("sqlite:///", r"names no file"),
        ("sqlite:a.db", r"names no file"),
        ("sqlite:///nowhere/a.db", r"the folder '.*/nowhere' does not exist"),
        ("sqlite:///here", r"is a folder; name a file in it: sqlite:///.*/here/mlflow.db"),
        ("sqlite:///text.db", r"text.db' is not a SQLite database"),
        ("sqlite:///text.db/a.db", r"text.db' does not exist"),
        ("sqlite:///foreign.db", r"is the database of another program"),
        ("sqlite:///what?.db", r"question mark"),
        ("sqlite:///a%41.db", r"question mark or %41"),
        ("sqlite:///" + 300 * "x", r"cannot be opened: File name too long"),
        ("postgresql+nodriver://host/x", r"cannot be opened|needs a driver"),
        ("http://127.0.0.1:1", r"cannot be reached: Connection refused"),
        ("http://", r"cannot be reached"),
    ],
)
def test_what_cannot_be_written_to_is_refused_in_one_line(tmp_path: Path, uri: str, says: str) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "text.db").write_text("these are not the runs you are looking for")
    with closing(sqlite3.connect(tmp_path / "foreign.db")) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RequestError, match=says) as caught:
        resolve_tracking_uri(uri)
    assert len(str(caught.value).splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RequestError, match="is not writable"):
        resolve_tracking_uri(None)


def test_an_unwritable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.tracking_uri.os.access", lambda path, mode: False)
    with pytest.raises(RequestError, match=r"mlflow.db' is not writable"):
        resolve_tracking_uri(None)


def test_a_truncated_database_is_refused_and_a_locked_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "cut.db").write_bytes(b"SQLite format 3\x00 and nothing")
    with pytest.raises(RequestError, match=r"cut.db' cannot be read: file is not a database"):
        resolve_tracking_uri("sqlite:///cut.db")
    with closing(sqlite3.connect(tmp_path / "busy.db", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE experiments (a); ")
        connection.execute("CREATE TABLE runs (a); ")
        connection.execute("BEGIN EXCLUSIVE")
        assert resolve_tracking_uri("sqlite:///busy.db").endswith("busy.db")


class _Answer(http.server.BaseHTTPRequestHandler):
    status, body, delay = 200, b"{}", 0.0

    def do_GET(self) -> None:
        time.sleep(self.delay)
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    class Own(_Answer):
        pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Own) as found:
        found.daemon_threads = True
        found.block_on_close = False
        thread = threading.Thread(target=found.serve_forever, args=(0.05,))
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def test_a_server_is_asked_before_anything_starts(server: http.server.ThreadingHTTPServer) -> None:
    uri = f"http://127.0.0.1:{server.server_address[1]}"
    handler = server.RequestHandlerClass
    assert resolve_tracking_uri(uri) == uri
    handler.status, handler.body = 404, b"<html>not here</html>"  # type: ignore[attr-defined]
    with pytest.raises(RequestError, match="answers, but not as an MLflow server does"):
        resolve_tracking_uri(uri)
    handler.status = 401  # type: ignore[attr-defined]
    with pytest.raises(RequestError, match=r"refuses access \(HTTP 401\); set MLFLOW_TRACKING_USERNAME"):
        resolve_tracking_uri(uri)
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ or os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "30"


def test_a_server_that_says_nothing_does_not_hold_anybody_up(
    server: http.server.ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.RequestHandlerClass.delay = 3.0  # type: ignore[attr-defined]
    monkeypatch.setattr("sweeps.tracking_uri.PROBE_SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(RequestError, match="cannot be reached: timed out"):
        resolve_tracking_uri(f"http://127.0.0.1:{server.server_address[1]}")
    assert time.monotonic() - began < 2.0


def test_preparing_twice_changes_nothing_and_another_version_is_named(tmp_path: Path, store_uri: str) -> None:
    path = sqlite_path(store_uri)
    assert path is not None
    before = path.read_bytes()
    prepare_store(store_uri)
    assert path.read_bytes() == before
    old = tmp_path / "old.db"
    old.write_bytes(before)
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        connection.commit()
    with pytest.raises(RequestError, match=r"was made by another version of MLflow; .* mlflow db upgrade sqlite:///"):
        prepare_store(f"sqlite:///{old}")


def test_what_cannot_be_created_or_used_is_a_request_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"file/mlflow.db: cannot be written: (Not a directory|File exists)"):
        prepare_store(f"sqlite:///{tmp_path}/file/mlflow.db")
    with pytest.raises(RequestError, match=r"http://127.0.0.1:1: cannot be used: Connection refused"):
        prepare_store("http://127.0.0.1:1")


@pytest.mark.slow
def test_processes_that_start_at_once_share_one_database(tmp_path: Path) -> None:
    script = "import sys; from sweeps.tracking import prepare_store; prepare_store(sys.argv[1])"
    (tmp_path / ".mlflow.db.new").write_bytes(b"left behind by a killed process")
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", script, f"sqlite:///{tmp_path}/mlflow.db"],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        for _ in range(4)
    ]
    assert [(process.communicate(timeout=120)[1], process.returncode) for process in starts] == [("", 0)] * 4
    assert {path.name for path in tmp_path.iterdir()} <= {"mlflow.db", ".mlflow.db.lock"}


def test_passwords_are_not_shown() -> None:
    assert redacted("postgresql://me:secret@host/db") == "postgresql://me:…@host/db"
    assert redacted("http://host:5000/a@b") == "http://host:5000/a@b"
    assert sqlite_path("http://host:5000") is None
