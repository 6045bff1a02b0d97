"""Stores and sweeps that are not there: one line, status 2, and nothing created."""

from __future__ import annotations

import socket
import sqlite3
from pathlib import Path

import pytest

from reports.build import build_report, main
from reports.load import load_sweep
from reports.store import default_tracking_uri, open_store
from repsim.errors import RequestError

# MLflow's own use of SQLAlchemy
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


def test_no_store_is_one_line_and_creates_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["--sweep", "latest"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert "does not exist" in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_no_store_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("create table t (x)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(RequestError, match="not an MLflow store"):
        open_store(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("hello, this is certainly not a database" * 50)
    with pytest.raises(RequestError, match="cannot be read"):
        open_store(f"sqlite:///{tmp_path / 'a.db'}")


@pytest.mark.parametrize("uri", ["runs", "file:///tmp/mlruns"])
def test_a_folder_is_no_store(uri: str) -> None:
    with pytest.raises(RequestError, match="not the address of a store"):
        open_store(uri)


def test_an_unknown_scheme() -> None:
    with pytest.raises(RequestError, match="cannot be read"):
        open_store("nonsense://x")


@pytest.mark.parametrize("uri", ["http://[x", "file://[x", "postgresql://["])
def test_an_address_that_is_none(uri: str) -> None:
    with pytest.raises(RequestError, match="is not an address: Invalid IPv6 URL"):
        open_store(uri)


def test_a_wrong_command_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--sweep"], ["--sweep", "a", "--colour\nred"], ["--sweep", "-x"]):
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("command line: ")
        assert len(said.splitlines()) == 1


def test_a_server_that_does_not_answer() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(RequestError, match="does not answer"):
        open_store(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("out", ["a\x00b", "\ud800", "x" * 300, "store/mlflow.db/x"])
def test_a_folder_that_no_system_would_make(store: object, out: str, tmp_path: Path) -> None:
    (tmp_path / "store").symlink_to(store.folder)  # type: ignore[attr-defined]
    with pytest.raises(RequestError, match=r"--out: .* cannot be written: "):
        build_report("nothing", store.uri, tmp_path / out, log=False)  # type: ignore[attr-defined]


def test_an_unknown_sweep_names_the_nearest(store: object, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"'demmo' is not a sweep.*did you mean 'demo'"):
        build_report("demmo", store.uri, tmp_path / "out")  # type: ignore[attr-defined]
    assert not (tmp_path / "out").exists()


def test_a_store_without_sweeps(tmp_path: Path, store: object, monkeypatch: pytest.MonkeyPatch) -> None:
    client = open_store(store.uri)  # type: ignore[attr-defined]
    monkeypatch.setattr("reports.store.KIND_SWEEP", "other")
    with pytest.raises(RequestError, match="no sweep at all"):
        load_sweep(client, "latest")


def test_objectives_that_cannot_be_read(store: object) -> None:
    client = open_store(store.uri)  # type: ignore[attr-defined]
    run_id = store.parents["nothing"]  # type: ignore[attr-defined]
    kept = client.get_run(run_id).data.tags["objectives"]
    client.set_tag(run_id, "objectives", "[{]")
    try:
        with pytest.raises(RequestError, match="objectives cannot be read"):
            load_sweep(client, "nothing")
    finally:
        client.set_tag(run_id, "objectives", kept)


def test_an_unwritable_folder(store: object, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RequestError, match="cannot be written"):
        build_report("demo", store.uri, tmp_path / "file" / "report")  # type: ignore[attr-defined]


def test_a_name_that_is_no_folder_needs_out() -> None:
    from reports.build import _default_folder

    with pytest.raises(RequestError, match="cannot be a folder"):
        _default_folder("../../etc")
    assert _default_folder("a b") == Path("runs") / "a b" / "report"


def test_the_environment_names_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://here")
    assert default_tracking_uri() == "http://here"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert default_tracking_uri() == f"sqlite:///{tmp_path / 'mlflow.db'}"


def test_help_says_what_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    assert "points/TRIAL.yaml" in said
    assert "exit status" in said
