"""Fifty hostile names, through the whole line: command line, images, sweep, MLflow, report."""

from __future__ import annotations

import csv
import dataclasses
import json
import types
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from reports.build import build_report
from reports.build import main as build
from reports.load import load_sweep
from reports.store import open_store
from repsim.data.listing import printable
from repsim.records import Status
from sweeps.journal import read_history
from sweeps.launch import main
from sweeps.request import Launch
from sweeps.space import load_space
from sweeps.space_notes import NAME
from sweeps.tracking import prepare_store
from tests.faults.command import Outcome, answer, check_refusal, everything_in, replace_session
from tests.faults.names import NAMES
from tests.faults.report_checks import check_markdown, check_tables, check_tex, read_page
from tests.launch.sweeping import launch
from tests.tracking import tracking_samples as samples

ALLOWED = [name for name in NAMES if NAME.fullmatch(name)]
"""What a space, and so an experiment, may be called."""
IDS = [f"name-{number}" for number in range(len(NAMES))]
SPACE = """\
name: {name}
question: {question}
data: {data}
objectives: [{{metric: val_accuracy, direction: maximize}}, {{metric: val_cka, direction: maximize}}]
budget: {{trials: 2, epochs: 1}}
search: {{parallel: 1}}
resources: {{cpus_per_worker: 1}}
fixed: {{data.image_size: 32, backbone: test_efficientnet, backbone.weights: random, optim.batch_size: 8}}
space: {{method: [full, repsim]}}
"""


def noise(path: Path, seed: int) -> Path:
    """A small image, all its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")
    return path


def fits_a_folder(name: str) -> bool:
    """Whether the file system takes it, an ending and all, for something inside a folder that is not hidden."""
    try:
        encoded = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return len(encoded) <= 251 and not set(name) & {"/", "\x00"} and not name.startswith(".")


# ---- the command line


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command is called from; two folders up is still the test's own."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (inner / "tiny.yaml").write_text(SPACE.format(name="tiny", question="Does it hold?", data="phantom:tiny"))
    return inner


def placements(name: str) -> list[tuple[str, ...]]:
    """Every place on the command line where a person can put a name."""
    tiny, quoted = ("--space", "tiny.yaml"), json.dumps(name, ensure_ascii=False)
    found: list[tuple[str, ...]] = [(*tiny, "--name", name), (*tiny, f"--name={name}"), ("--resume", name)]
    found += [
        (f"--resume={name}",),
        (f"--space={name}",),
        ("--space", name),
        (name,),
        (*tiny, name),
        (*tiny, f"-{name}"),
    ]
    found += [(*tiny, f"--data={kind}{name}") for kind in ("", "phantom:", "folder:", "csv:", "npz:", "medmnist:")]
    found += [
        (*tiny, f"--set={key}={value}")
        for key in ("name", "question", "data", "backbone", "backbone.weights", "data.group", "method", "budget.trials")
        for value in (name, quoted)
    ]
    return [*found, (*tiny, f"--set={name}=1"), (*tiny, f"--set=space.{name}=[1, 2]"), (*tiny, f"--trials={name}")]


@pytest.mark.parametrize("name", NAMES, ids=IDS)
def test_a_name_anywhere_on_the_command_line(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Launch] = []
    replace_session(monkeypatch, lambda launch: started.append(launch) or 0)  # type: ignore[func-returns-value,arg-type]
    before = everything_in(tmp_path)
    for arguments in placements(name):
        outcome = answer(main, *arguments)
        if outcome.code != 0:
            check_refusal(outcome)
        assert everything_in(tmp_path) == before, arguments
    assert all(launch.runs_dir / launch.name == folder / "runs" / launch.name for launch in started)
    assert all(NAME.fullmatch(launch.name) and NAME.fullmatch(launch.space.name) for launch in started)


def test_a_terminal_gets_no_commands_and_may_know_no_accents(folder: Path) -> None:
    question = '--set=question="größe \\e[31m \\u202e 🩺"'
    for encoding, shown in (("utf-8", "größe ?[31m ? 🩺"), ("ascii", r"gr\xf6\xdfe ?[31m ? \U0001fa7a")):
        assert shown in answer(main, "--space", "tiny.yaml", question, "--dry-run", encoding=encoding).out
        refused = answer(main, "--space", "ü\x1b[31m", encoding=encoding)
        check_refusal(refused)
        assert refused.err.startswith(("--space ü\\x1b[31m: ", "--space \\xfc\\x1b[31m: "))


@pytest.mark.parametrize("name", [name for name in NAMES if fits_a_folder(name)])
def test_a_folder_of_that_name_is_read(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweeps.preflight import preflight

    for number in range(20):
        noise(folder / name / "ab"[number % 2] / f"{number}.png", number)
    read: list[str] = []

    def look(launch: object) -> int:
        assert isinstance(launch, Launch)
        preflight(launch.space, cache_dir=None, say=print)
        read.extend(launch.space.data)
        return 0

    replace_session(monkeypatch, look)
    before = everything_in(tmp_path)
    outcomes = [answer(main, "--space", "tiny.yaml", f"--data=folder:{name}", *more) for more in (("--dry-run",), ())]
    if is_text(name):
        assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
        assert read == [f"folder:{name}"]
    else:  # no space file, journal or database could name it
        assert all("is not UTF-8: rename it" in outcome.err for outcome in outcomes)
    assert everything_in(tmp_path) == before


# ---- the report


def test_the_checks_can_fail(tmp_path: Path) -> None:
    for text in ("<p onclick=''>x</p>", "<iframe></iframe>", "<p><b></p></b>", "<img src='http://x'>", "<!--x-->"):
        (tmp_path / "page.html").write_text(f"<html>{text}</html>")
        with pytest.raises(AssertionError):
            read_page(tmp_path / "page.html")
    for check, text in ((check_markdown, "| a | b |\n| - |\n"), (check_markdown, "| [a | b |\n| - | - |\n")):
        with pytest.raises(AssertionError):
            check(text, 1, 2)
    for cells in (
        "a & b & c",
        "a_b & c",
        "[a & b",
        "-- & b",
        "\\bad & b",
        "a\x07 & b",
        r"\textbf{a_b} & c",
        r"\emph{[a} & c",
    ):
        with pytest.raises(AssertionError):
            check_tex(cells + r" \\", 1, 2)
    check_tex(r"a\_\{\} & {[}b \\", 1, 2)
    check_tex(r"\textbf{a\_ $\pm$ b} & \multicolumn{2}{c}{{[}b} \\", 1, 3)
    for outcome in (
        Outcome(code=0, out="", err="x\n"),
        Outcome(code=2, out="", err=""),
        Outcome(code=2, out="", err="\n"),
    ):
        with pytest.raises(AssertionError):
            check_refusal(outcome)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A sweep for every name that a space may have; the others are its data, its question and its reasons."""
    root = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{root / 'mlflow.db'}"
    prepare_store(uri)
    others = [name for name in NAMES if "\x00" not in name]
    for number, name in enumerate(ALLOWED):
        data = tuple(others[number :: len(ALLOWED)])
        space = dataclasses.replace(samples.space(name, data), question=" / ".join(data))
        writer = samples.writer(uri, name, root / "mlruns", space=space, sweep=name)
        writer.start()
        for index, source in enumerate(data):
            for offset, method in enumerate(("full", "linear_probe")):
                sample = samples.trial(2 * index + offset, method, None, data=source)
                writer.update(samples.failed(sample, source) if offset else samples.completed(sample, 0.8))
        writer.close("completed")
        assert writer.errors == ()
    return uri


def as_stored(name: str) -> str:
    """The name after MLflow: what no store can hold is a question mark."""
    return name.encode("utf-8", "replace").decode("utf-8").replace("\x00", "?")


@pytest.mark.parametrize("drawn", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["quick", "drawn"])
@pytest.mark.parametrize("name", ALLOWED)
def test_a_report_full_of_names(
    name: str, drawn: bool, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``drawn`` makes every picture, which takes most of the time."""
    monkeypatch.setattr("reports.interactive.plotly_source", lambda: "/* plotly.js */")
    if not drawn:
        monkeypatch.setattr("reports.drawing.save", lambda picture, folder, stem: ("<svg/>", "<svg/>"))
    out = build_report(name, store, tmp_path / "report", log=False)
    trials = pd.read_parquet(out / "trials.parquet")
    assert len(trials) == 2 * trials["data"].nunique()
    assert set(trials["data"]) <= {as_stored(other) for other in NAMES}
    page = read_page(out / "index.html")
    assert " ".join(str(trials["reason"][1]).split()) in " ".join(page.text.split())
    tables = check_tables(out)
    assert {row[0] for row in tables["front"][1:]} == {data.replace("\r", " ") for data in trials["data"]}
    for path in (out / "figures").glob("*.svg"):
        ElementTree.parse(path)
    assert len(list((out / "points").iterdir())) > 0
    for path in (out / "points").glob("*.yaml"):
        assert load_space(str(path)).is_single_run


@pytest.mark.parametrize("name", NAMES, ids=IDS)
def test_a_sweep_of_that_name_is_reported_or_refused(
    name: str, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("reports.build._write", lambda *_: None)
    found = load_sweep(open_store(store), name) if name in ALLOWED else None
    for arguments in (("--sweep", name), (f"--sweep={name}",), (name,), ("--sweep=CON", f"--out={name}")):
        if found is None and arguments[-1].startswith("--out"):
            monkeypatch.setattr("reports.load.load_sweep", lambda client, sweep, **_: types.SimpleNamespace(name=sweep))
        before = everything_in(tmp_path)
        outcome = answer(build, *arguments, "--tracking-uri", store, "--no-log")
        if outcome.code != 0:
            check_refusal(outcome)
            assert everything_in(tmp_path) == before
        elif found is not None and "--sweep=CON" not in arguments:
            assert str(tmp_path / "runs" / found.name / "report" / "index.html") in outcome.out


# ---- a real sweep


NASTY = "<img src=x onerror=alert(1)> $x^2$ \\bad | `b` \n\r 🩺 '\" {0} %s"
"""What the folder and the csv of the sweep are called, together with an ending."""


def write_class_folders(root: Path) -> dict[str, str]:
    """Three images for every name that can be a folder; maps the shown name of each image to that of its class."""
    names = [name for name in NAMES if fits_a_folder(name)]
    found = {}
    for number, label in enumerate(names):
        for step in range(3):
            image = f"{names[(number + step) % len(names)]}.png"
            noise(root / label / image, 3 * number + step)
            found[printable(f"{label}/{image}")] = printable(label)
    return found


def write_table(path: Path) -> dict[str, str]:
    """A csv with three images for every name that text can hold; maps each image to its label."""
    found = {}
    labels = [name.strip() for name in NAMES if is_text(name)]
    for number, label in enumerate(labels):
        for step in range(3):
            stem = label if fits_a_folder(label) and step == 0 else f"{number}-{step}"
            noise(path.parent / "pictures" / f"{stem}.png", 1000 + 3 * number + step)
            found[f"pictures/{stem}.png"] = label
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("image", "label"), *found.items()])
    return found


def is_text(name: str) -> bool:
    return name.encode("utf-8", "replace") == name.encode("utf-8", "surrogatepass")


@pytest.mark.slow
@pytest.mark.timeout(600)
# MLflow 3.17 reads runs with a loader that SQLAlchemy 2.1 deprecates
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
def test_a_sweep_on_hostile_images(tmp_path: Path) -> None:
    question = " / ".join(name for name in NAMES if is_text(name))
    (tmp_path / "space.yaml").write_text(SPACE.format(name="trailing.", question=json.dumps(question), data="tiny"))
    sources = {
        f"folder:{NASTY}": write_class_folders(tmp_path / NASTY),
        f"csv:{NASTY}.csv": write_table(tmp_path / f"{NASTY}.csv"),
    }
    data = [part for source in sources for part in ("--data", source)]
    code, printed = launch(tmp_path, "--space", "space.yaml", "--name", "CON", *data)
    assert code == 0, printed
    assert "Traceback" not in printed
    assert {path.name for path in tmp_path.iterdir()} <= {
        *(NASTY, f"{NASTY}.csv", "pictures", "space.yaml", "runs", "mlflow.db", ".mlflow.db.lock", "mlruns", "cache")
    }

    run = tmp_path / "runs" / "CON"
    journal = read_history(run / "journal.jsonl").records
    assert {trial_id: record.status for trial_id, record in journal.items()} == {
        f"t{number:04d}": Status.COMPLETED for number in range(4)
    }
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'trailing.'")
    children = [run for run in client.search_runs([experiment.experiment_id]) if run.data.tags["kind"] == "trial"]
    kept = {child.data.tags["trial_id"]: child.data for child in children}
    report = pd.read_parquet(run / "report" / "trials.parquet").set_index("trial_id")
    assert len(children) == 4
    assert set(journal) == set(kept) == set(report.index)
    for trial_id, record in journal.items():
        assert record.result is not None
        assert record.trial.data == kept[trial_id].tags["data"] == report.loc[trial_id, "data"]
        cka = record.result.values["val_cka"]
        assert cka == kept[trial_id].metrics["val_cka"] == report.loc[trial_id, "val_cka"]
        check_predictions(run / "predictions", trial_id, sources[record.trial.data])
    page = read_page(run / "report" / "index.html")
    assert " ".join(as_stored(question).split()) in " ".join(page.text.split())
    assert {row[0] for row in check_tables(run / "report")["front"][1:]} == {
        name.replace("\r", " ") for name in sources
    }
    for path in (run / "report" / "points").glob("*.yaml"):
        assert load_space(str(path)).data[0] in sources


def check_predictions(folder: Path, trial_id: str, expected: dict[str, str]) -> None:
    """Every image of val and test by its exact name and label: one of each class in both."""
    for split in ("val", "test"):
        table = pd.read_parquet(folder / f"{trial_id}_{split}.parquet")
        assert dict(zip(table["image"], table["label"], strict=True)).items() <= expected.items()
        assert set(table["label"]) == set(expected.values())
        assert set(table.columns) == {
            *("image", "label", "predicted"),
            *(f"probability {label}" for label in expected.values()),
        }
