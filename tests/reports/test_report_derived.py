"""Derived points in the report: on the front, on thin lines, never counted as trials, repeated by ``wise_alpha``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from reports import fronts, page, paper_tables, words
from reports.build import build_report
from reports.figures import choose_styles, front_picture
from reports.load import Sweep, load_sweep
from reports.store import open_store
from reports.sweep_runs import trial_order
from repsim.config import TrialConfig
from repsim.records import Tag
from tests.reports.recorded_sweeps import FakeTrial, config, numbers, record

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
POINTS = {"t0002-w00": (0.0, 0.75, 1.0), "t0002-w03": (0.3, 0.85, 0.95), "t0002-w06": (0.6, 0.80, 0.8)}
BOX = (
    '{"phantom:tiny": {"reference": {"val_accuracy": 0.5, "val_cka": 0.0}, "ideal": {"val_accuracy": 1, "val_cka": 1}}}'
)


def trials() -> list[FakeTrial]:
    base = {"data": "phantom:tiny", "measure__wise": True}
    found = [
        FakeTrial("t0000", config(**base, method="linear_probe"), numbers(0.75, 1.0)),
        FakeTrial("t0001", config(**base, method="full"), numbers(0.9, 0.4), ended="2026-11-20T07:11:00+00:00"),
        FakeTrial("t0002", config(**base, method="repsim"), numbers(0.88, 0.7), ended="2026-11-20T07:12:00+00:00"),
    ]
    for name, (alpha, accuracy, cka) in POINTS.items():
        point = config(data="phantom:tiny", method="repsim", wise_alpha=alpha)
        tags, ended = {Tag.DERIVED_FROM: "t0002"}, "2026-11-20T07:12:00+00:00"
        values = numbers(accuracy, cka) | {"overhead_seconds": 1.0}
        found.append(FakeTrial(name, point, values, stage="derived", tags=tags, ended=ended))
    return found


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, str]:
    from sweeps.tracking import prepare_store

    uri = f"sqlite:///{tmp_path_factory.mktemp('derived') / 'mlflow.db'}"
    prepare_store(uri)
    client = MlflowClient(tracking_uri=uri)
    record(client, "wise", trials(), tags={Tag.REFERENCE: BOX})
    return load_sweep(open_store(uri), "wise"), uri


@pytest.fixture(scope="module")
def study(sweep: tuple[Sweep, str]) -> fronts.Study:
    return fronts.study(sweep[0], "phantom:tiny")


def test_points_stand_behind_their_trial() -> None:
    names = ["t10000", "t9999", "t0007-w03", "t0008", "t0007", "t0007-w00"]
    assert sorted(names, key=trial_order) == ["t0007", "t0007-w00", "t0007-w03", "t0008", "t9999", "t10000"]


def test_a_point_is_on_the_front_when_nothing_beats_it(sweep: tuple[Sweep, str], study: fronts.Study) -> None:
    assert [point.trial_id for point in study.members] == ["t0001", "t0002", "t0002-w03", "t0000"]
    marked = fronts.mark_front(sweep[0], [study]).set_index("trial_id")["on_front"]
    assert marked.to_dict() == {
        "t0000": True,
        "t0001": True,
        "t0002": True,
        "t0002-w00": False,  # the linear probe once more
        "t0002-w03": True,
        "t0002-w06": False,
    }
    point = study.members[2]
    assert (point.derived_from, point.alpha, point.method) == ("t0002", 0.3, "repsim")
    assert words.describe(point) == "t0002-w03 (repsim wise α=0.3, λ = 1, tf_efficientnet_lite0)"
    assert "wise" not in words.describe(study.members[1])


def test_points_are_no_trials(sweep: tuple[Sweep, str], study: fronts.Study) -> None:
    loaded = sweep[0]
    assert study.counts == {"completed": 3}
    assert [count for count, _ in study.course] == [1, 2, 3]
    alone = fronts.hypervolume_course(
        study.trials, [point for point in study.points if point.derived_from is None], study.objectives, study.reference
    )[0]
    assert [a == b for (_, a), (_, b) in zip(alone, study.course, strict=True)] == [True, True, False]
    methods = paper_tables.methods_table(loaded, [study])
    assert {row[2]: row[3:6] for row in methods.rows}["repsim"] == (1, 1, 1)
    assert page._seconds(loaded) == (3 * 11.0, 3 * 3.5 + 3 * 1.0)
    assert not any("failed" in short for short, _ in words.warnings_for(loaded, [study]))


def test_the_picture_has_a_line_from_pretrained_to_finetuned(study: fronts.Study) -> None:
    styles = choose_styles(["full", "linear_probe", "repsim"], ["tf_efficientnet_lite0"])
    picture = front_picture(study, styles)
    assert picture is not None
    assert picture.lines == (
        ("repsim", "tf_efficientnet_lite0", ((1.0, 0.75), (0.95, 0.85), (0.8, 0.80), (0.7, 0.88))),
    )
    marks = {mark.trial_id: mark for mark in picture.marks}
    assert {name for name, mark in marks.items() if mark.derived} == set(POINTS)
    assert marks["t0002-w03"].on_front
    assert (marks["t0002-w03"].label, marks["t0002"].label) == ("", "t0002")


def test_the_built_report_shows_and_repeats_them(sweep: tuple[Sweep, str], tmp_path: Path) -> None:
    folder = build_report("wise", sweep[1], tmp_path / "report", log=False)
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert "Small points on thin lines are models between a trial&#x27;s pretrained and finetuned weights." in text
    assert "3 of 3 search trials have every objective and are drawn" in text
    assert "derived points" in text
    assert "repsim wise α=0.3" in text
    front = pd.read_parquet(folder / "front.parquet")
    assert list(front["derived_from"].dropna()) == ["t0002"]
    assert "points/t0002-w03.yaml" in text
    space = yaml.safe_load((folder / "points" / "t0002-w03.yaml").read_text(encoding="utf-8"))
    assert (space["fixed"]["wise_alpha"], space["fixed"]["measure.wise"], space["space"]) == (0.3, False, {})
    rebuilt = TrialConfig.from_flat({**space["fixed"], "data": space["data"]})
    assert (rebuilt.wise_alpha, rebuilt.method) == (0.3, "repsim")
    table = (folder / "tables" / "front.csv").read_text(encoding="utf-8").splitlines()[0]
    assert "wise_alpha" in table
    assert "measure.wise" not in table
