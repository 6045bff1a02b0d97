"""Sweeps between stores: what comes out of a bundle is what went in, and nothing else is let in."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from reports.bundle import main
from reports.bundling import HEADER, IMPORTED_FROM
from reports.load import Sweep, load_sweep
from reports.store import find_sweep, open_store, search_all

# MLflow's own use of SQLAlchemy
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Another store, without any sweep, in a folder of its own."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    MlflowClient(tracking_uri=uri).search_experiments()
    return uri


def exported(store: object, name: str, folder: Path) -> Path:
    file = folder / f"{name}.zip"
    assert main(["export", "--sweep", name, "--out", str(file), "--tracking-uri", store.uri]) == 0  # type: ignore[attr-defined]
    return file


def plain(sweep: Sweep) -> pd.DataFrame:
    return sweep.trials.drop(columns="mlflow_run_id")


@pytest.mark.parametrize("name", ["demo", "two", "running", "lacking", "hostile", "nothing"])
def test_a_sweep_comes_out_as_it_went_in(name: str, store: object, empty: str, tmp_path: Path) -> None:
    assert main(["import", str(exported(store, name, tmp_path)), "--tracking-uri", empty]) == 0
    before = load_sweep(open_store(store.uri), name)  # type: ignore[attr-defined]
    after = load_sweep(open_store(empty), name)
    pd.testing.assert_frame_equal(plain(before), plain(after))
    assert list(after.configs.values()) == list(before.configs.values())
    assert list(after.facts.values()) == list(before.facts.values())
    assert after.state == before.state
    assert after.references == before.references
    assert after.experiment == before.experiment
    assert len(after.anchors) == len(before.anchors)
    assert set(after.trials["mlflow_run_id"]).isdisjoint(before.trials["mlflow_run_id"])
    assert after.curves[["metric", "epoch", "value"]].equals(before.curves[["metric", "epoch", "value"]])


def test_artifacts_travel_with_their_run(store: object, empty: str, tmp_path: Path) -> None:
    source = open_store(store.uri)  # type: ignore[attr-defined]
    parent = find_sweep(source, "single").info.run_id
    note = tmp_path / "note.txt"
    note.write_bytes(b"\x00\xff kept")
    source.log_artifact(parent, str(note), "report/deep")
    assert main(["import", str(exported(store, "single", tmp_path)), "--tracking-uri", empty]) == 0
    client = open_store(empty)
    run = find_sweep(client, "single")
    assert run.data.tags[IMPORTED_FROM] == parent
    local = client.download_artifacts(run.info.run_id, "report/deep/note.txt", str(tmp_path))
    assert Path(local).read_bytes() == b"\x00\xff kept"


def test_a_sweep_that_is_there_is_refused(
    store: object, empty: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = exported(store, "single", tmp_path)
    assert main(["import", str(file), "--tracking-uri", empty]) == 0
    assert main(["import", str(file), "--tracking-uri", empty]) == 2
    assert "is a sweep of this store already" in capsys.readouterr().err


def refilled(file: Path, out: Path, changed: dict[str, bytes]) -> Path:
    """The same archive with other or additional entries."""
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(out, "w") as target:
        for entry in source.infolist():
            if entry.filename not in changed:
                target.writestr(entry, source.read(entry))
        for name, content in changed.items():
            target.writestr(name, content)
    return out


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"artifacts/../../evil": b"x"}, "leaves its folder"),
        ({"/etc/evil": b"x"}, "leaves its folder"),
        ({"artifacts\\..\\evil": b"x"}, "leaves its folder"),
        ({HEADER: b'{"format": 99, "run_id": "a"}'}, "format 99 is not 1"),
        ({HEADER: b"[]"}, "format None is not 1"),
        ({HEADER: b'{"format": 1, "sweep": "s", "experiment": "e", "run_id": "other"}'}, "own run is missing"),
        ({HEADER: b"{"}, "is no bundle"),
        ({"runs.parquet": b"PAR1 nonsense"}, "is no bundle"),
    ],
)
def test_what_is_no_bundle_is_refused_and_leaves_nothing(
    changed: dict[str, bytes],
    why: str,
    store: object,
    empty: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = refilled(exported(store, "single", tmp_path), tmp_path / "other.zip", changed)
    assert main(["import", str(file), "--tracking-uri", empty]) == 2
    error = capsys.readouterr().err
    assert why in error
    assert len(error.strip().splitlines()) == 1
    assert search_all(open_store(empty), "") == []
    assert not (tmp_path / "evil").exists()


def test_a_file_that_is_not_there_and_one_that_is_no_archive(
    empty: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(tmp_path / "none.zip"), "--tracking-uri", empty]) == 2
    assert "none.zip" in capsys.readouterr().err
    (tmp_path / "text.zip").write_text("not an archive")
    assert main(["import", str(tmp_path / "text.zip"), "--tracking-uri", empty]) == 2
    assert "is no bundle" in capsys.readouterr().err


def test_an_import_that_breaks_off_leaves_no_runs(
    store: object, empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reports import bundling

    file = exported(store, "demo", tmp_path)

    def broken(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundling, "_unpack_artifacts", broken)
    assert main(["import", str(file), "--tracking-uri", empty]) == 2
    assert search_all(open_store(empty), "") == []


def test_the_header_says_what_it_is(store: object, tmp_path: Path) -> None:
    with zipfile.ZipFile(exported(store, "single", tmp_path)) as archive:
        header = json.loads(archive.read(HEADER))
        assert header["format"] == 1
        assert header["sweep"] == "single"
        assert {"runs.parquet", "tags.parquet", "params.parquet", "metrics.parquet"} <= set(archive.namelist())


def test_an_import_makes_the_store_that_is_not_there(
    store: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = exported(store, "single", tmp_path)
    folder = tmp_path / "new"
    folder.mkdir()
    monkeypatch.chdir(folder)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    assert main(["export", "--sweep", "single", "--out", "x.zip", "--tracking-uri", uri]) == 2
    assert main(["import", "nosuch.zip", "--tracking-uri", uri]) == 2
    assert not (folder / "mlflow.db").exists()
    assert main(["import", str(file), "--tracking-uri", uri]) == 0
    assert len(load_sweep(open_store(uri), "single").trials) == 1
