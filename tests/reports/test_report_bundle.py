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
from tests.reports.recorded_sweeps import Store

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


def exported(store: Store, name: str, folder: Path) -> Path:
    file = folder / f"{name}.zip"
    assert main(["export", "--sweep", name, "--out", str(file), "--tracking-uri", store.uri]) == 0
    return file


def plain(sweep: Sweep) -> pd.DataFrame:
    return sweep.trials.drop(columns="mlflow_run_id")


@pytest.mark.parametrize("name", ["demo", "two", "running", "lacking", "hostile", "nothing"])
def test_a_sweep_comes_out_as_it_went_in(name: str, store: Store, empty: str, tmp_path: Path) -> None:
    assert main(["import", str(exported(store, name, tmp_path)), "--tracking-uri", empty]) == 0
    before = load_sweep(open_store(store.uri), name)
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


def test_artifacts_travel_with_their_run(store: Store, empty: str, tmp_path: Path) -> None:
    source = open_store(store.uri)
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
    store: Store, empty: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
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
    store: Store,
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
    store: Store, empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reports import bundling

    file = exported(store, "demo", tmp_path)

    def broken(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundling, "_unpack_artifacts", broken)
    assert main(["import", str(file), "--tracking-uri", empty]) == 2
    assert search_all(open_store(empty), "") == []


def test_the_header_says_what_it_is(store: Store, tmp_path: Path) -> None:
    with zipfile.ZipFile(exported(store, "single", tmp_path)) as archive:
        header = json.loads(archive.read(HEADER))
        assert header["format"] == 1
        assert header["sweep"] == "single"
        assert {"runs.parquet", "tags.parquet", "params.parquet", "metrics.parquet"} <= set(archive.namelist())


def test_an_import_makes_the_store_that_is_not_there(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


def test_links_lead_to_the_new_runs(store: Store, empty: str, tmp_path: Path) -> None:
    source = open_store(store.uri)
    parent = find_sweep(source, "single")
    old, home = parent.info.run_id, parent.info.experiment_id
    child = load_sweep(source, "single").trials["mlflow_run_id"][0]
    other = "f" * 32
    table = f"#/experiments/{home}/runs?viewStateShareKey=repsim-{old}&workflowType=machine_learning"
    report = f"[The report](#/experiments/{home}/runs/{old}/artifacts/report/index.html)"
    source.set_tag(old, "mlflow.note.content", f"{report} · [Trials]({table}) #/experiments/7/runs/{other}")
    source.set_tag(child, "mlflow.note.content", f"belongs to #/experiments/{home}/runs/{old}")
    for key in (old, "fronts", "other"):
        source.set_experiment_tag(home, f"mlflow.sharedViewState.repsim-{key}", f"view of {key}")
    page = tmp_path / "index.html"
    address = f"http://127.0.0.1:5000/#/experiments/{home}/runs/{child}"
    server = f"http://server:5000/#/experiments/{home}/runs/{child}"
    page.write_bytes(f'<a href="{address}">{{"run":"{address}","x":"{server}"}} '.encode() + b"\xff")
    source.log_artifact(old, str(page), "report")
    source.log_artifact(old, str(page), "other")
    other_experiment = open_store(empty)
    for number in range(3):  # so that the experiment's id is another one
        other_experiment.create_experiment(f"other {number}")
    assert main(["import", str(exported(store, "single", tmp_path)), "--tracking-uri", empty]) == 0
    client = open_store(empty)
    run = find_sweep(client, "single")
    new, target = run.info.run_id, run.info.experiment_id
    assert target != home
    assert run.data.tags["mlflow.note.content"] == (
        f"[The report](#/experiments/{target}/runs/{new}/artifacts/report/index.html) · "
        f"[Trials](#/experiments/{target}/runs?viewStateShareKey=repsim-{new}&workflowType=machine_learning) "
        f"#/experiments/7/runs/{other}"
    )
    trial = load_sweep(client, "single").trials["mlflow_run_id"][0]
    tags = client.get_run(trial).data.tags
    assert tags["mlflow.note.content"] == f"belongs to #/experiments/{target}/runs/{new}"
    views = {key: text for key, text in client.get_experiment(target).tags.items() if "sharedViewState" in key}
    assert views == {
        f"mlflow.sharedViewState.repsim-{new}": f"view of {old}",
        "mlflow.sharedViewState.repsim-fronts": "view of fronts",
    }
    led = Path(client.download_artifacts(new, "report/index.html", str(tmp_path / "elsewhere"))).read_bytes()
    now = f"http://127.0.0.1:5000/#/experiments/{target}/runs/{trial}"
    assert led == f'<a href="{now}">{{"run":"{now}","x":"{server}"}} '.encode() + b"\xff"
    plain_copy = Path(client.download_artifacts(new, "other/index.html", str(tmp_path / "elsewhere"))).read_bytes()
    assert plain_copy == page.read_bytes(), "no other artifact is touched"


def test_a_table_that_is_there_stays_and_a_bundle_without_tables_is_read(
    store: Store, empty: str, tmp_path: Path
) -> None:
    file = exported(store, "running", tmp_path)
    with zipfile.ZipFile(file) as archive:
        header = json.loads(archive.read(HEADER))
    views = {f"mlflow.sharedViewState.repsim-{header['run_id']}": 5, "mlflow.sharedViewState.repsim-fronts": "theirs"}
    changed = {HEADER: json.dumps(header | {"views": views}).encode()}
    client = open_store(empty)
    target = client.create_experiment(header["experiment"], tags={"mlflow.sharedViewState.repsim-fronts": "mine"})
    assert main(["import", str(refilled(file, tmp_path / "odd.zip", changed)), "--tracking-uri", empty]) == 0
    assert {key: text for key, text in client.get_experiment(target).tags.items() if "shared" in key} == {
        "mlflow.sharedViewState.repsim-fronts": "mine"
    }
    del header["views"]
    client.delete_run(find_sweep(client, "running").info.run_id)
    old = refilled(file, tmp_path / "old.zip", {HEADER: json.dumps(header).encode()})
    assert main(["import", str(old), "--tracking-uri", empty]) == 0
