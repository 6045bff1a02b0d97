"""Sweeps side by side: one box, and only what can be compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from reports.compare import main
from reports.comparing import common_box, compare
from reports.load import Reference, Sweep, load_sweep
from reports.store import open_store
from repsim.errors import RequestError
from repsim.records import Objective

# MLflow's own use of SQLAlchemy
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
UP = Objective(metric="val_accuracy", direction="maximize")
DOWN = Objective(metric="sharpness", direction="minimize")
DATA = "phantom:ultrasound"


def uri_of(store: object) -> str:
    uri: str = store.uri  # type: ignore[attr-defined]
    return uri


@pytest.fixture(scope="module")
def demo(store: object) -> Sweep:
    return load_sweep(open_store(uri_of(store)), "demo")


def box(worst: tuple[float, float], ideal: tuple[float, float]) -> Reference:
    names = (UP.metric, DOWN.metric)
    return Reference(worst=dict(zip(names, worst, strict=True)), ideal=dict(zip(names, ideal, strict=True)))


def test_the_common_box_holds_every_box() -> None:
    found = common_box([box((0.5, 0.2), (1.0, 0.0)), box((0.6, 0.3), (0.9, 0.1))], (UP, DOWN))
    assert found == box((0.5, 0.3), (1.0, 0.0))
    assert common_box([box((0.5, 0.2), (1.0, 0.0)), None], (UP, DOWN)) is None
    lacking = Reference(worst={"val_accuracy": 0.5}, ideal={"val_accuracy": 1.0})
    assert common_box([lacking, lacking], (UP, DOWN)) is None


def part(sweep: Sweep, name: str, keep: float, worst: float = 0.7675) -> Sweep:
    """A sweep of the first trials, with another reference point."""
    own = sweep.references[DATA]
    moved = Reference(worst={**own.worst, "val_accuracy": worst}, ideal=own.ideal)
    trials = sweep.trials.head(round(keep * len(sweep.trials)))
    return replace(sweep, name=name, trials=trials, references={DATA: moved})


def test_a_sweep_beside_itself_is_itself_and_fewer_trials_are_no_better(demo: Sweep) -> None:
    shared = compare([demo, part(demo, "same", 1.0), part(demo, "less", 0.1)]).shared[0]
    whole, same, less = (entry.volume for entry in shared.entries)
    assert whole is not None
    assert less is not None
    assert whole == same
    assert 0 <= less < whole


def test_the_box_is_common_whatever_the_sweeps_recorded(demo: Sweep) -> None:
    near, far = part(demo, "near", 1.0, worst=0.85), part(demo, "far", 1.0, worst=0.5)
    shared = compare([near, far]).shared[0]
    assert shared.box is not None
    assert shared.box.worst["val_accuracy"] == 0.5
    assert len({entry.volume for entry in shared.entries}) == 1
    alone = compare([near, replace(near, name="twin")]).shared[0].entries[0].volume
    assert alone != shared.entries[0].volume, "the box must matter, or this test says nothing"


def test_what_cannot_be_compared_is_refused(demo: Sweep, store: object) -> None:
    two = load_sweep(open_store(uri_of(store)), "two")
    with pytest.raises(RequestError, match="'two' has other objectives than 'demo'"):
        compare([demo, two])
    moved = replace(demo, name="moved", trials=demo.trials.assign(data="folder:elsewhere"))
    with pytest.raises(RequestError, match="no two of them have a data set in common"):
        compare([demo, moved])


def test_doubts_are_said(demo: Sweep) -> None:
    other = replace(
        part(demo, "other", 0.5),
        git_commit="fedcba",
        hashes={run: ("another", probe) for run, (_, probe) in demo.hashes.items()},
    )
    said = " ".join(compare([demo, other]).shared[0].cautions)
    assert "different images" in said
    assert "different code" in said
    assert "different numbers of trials (demo: 30, other: 15)" in said
    clean = replace(demo, git_dirty=False)
    assert compare([clean, replace(clean, name="twin")]).shared[0].cautions == ()


def test_the_page(store: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "c"
    where = ["--tracking-uri", uri_of(store), "--out", str(out)]
    assert main(["--sweeps", "single", "hostile", *where]) == 2
    assert "no two of them have a data set in common" in capsys.readouterr().err
    assert not out.exists()
    assert main(["--sweeps", "demo", "lacking", "single", *where]) == 0
    printed = capsys.readouterr().out.split()
    assert len(printed) == 5
    assert all(Path(path).exists() for path in printed)
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "has recorded no reference point" in page
    told = pd.read_csv(out / "comparison.csv")
    assert set(told["sweep"]) == {"demo", "lacking", "single"}
    assert told["hypervolume"].isna().all()


def test_hostile_names_are_text(store: object, tmp_path: Path, demo: Sweep) -> None:
    from reports.comparing_page import render

    bad = "<script>alert(1)</script>'\"&"
    renamed = [
        replace(one, name=name, trials=one.trials.assign(data=bad), references={bad: one.references[DATA]})
        for one, name in ((demo, bad), (part(demo, "x", 0.5), "_under $x$"))
    ]
    page = render(compare(renamed), tmp_path)
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("names", [["demo"], ["demo", "demo"]])
def test_one_sweep_is_no_comparison(
    names: list[str], store: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--sweeps", *names, "--tracking-uri", uri_of(store), "--out", str(tmp_path)]) == 2
    assert "is not a comparison" in capsys.readouterr().err
