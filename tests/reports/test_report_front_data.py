"""The answer and the front as data: what is recommended, what it costs, how sure, what the figure can be asked."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from reports import answer, certainty, fronts, words
from reports.drawing import legend_columns
from reports.figures import FrontPicture, choose_styles, dominated, front_picture, staircase
from reports.fronts import Point, Study, choose_axes, front_order, recommend
from reports.interactive import figure_data, script, script_json
from reports.load import Reference, Sweep, load_sweep
from reports.run_links import run_links
from reports.store import open_store
from reports.trial_details import details
from repsim.front import hypervolume
from repsim.records import Direction, Objective
from tests.reports.front_sweep import DATA, LITE, MOBILE, TAGS, front_trials
from tests.reports.recorded_sweeps import record

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
ACCURACY = Objective(metric="val_accuracy", direction="maximize")
CKA = Objective(metric="val_cka", direction="maximize")
SHARPNESS = Objective(metric="sharpness", direction="minimize")
BOTH = (ACCURACY, CKA)
LINKS = run_links("http://somewhere:5000", "3")
HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    from sweeps.tracking import prepare_store

    uri = f"sqlite:///{tmp_path_factory.mktemp('front') / 'mlflow.db'}"
    prepare_store(uri)
    record(MlflowClient(tracking_uri=uri), "front", front_trials(), tags=TAGS)
    return load_sweep(open_store(uri), "front")


@pytest.fixture(scope="module")
def study(sweep: Sweep) -> Study:
    return fronts.study(sweep, DATA)


@pytest.fixture(scope="module")
def picture(study: Study) -> FrontPicture:
    styles = choose_styles([point.method for point in study.points], [point.backbone for point in study.points])
    found = front_picture(study, styles)
    assert found is not None
    return found


def point(trial_id: str, *values: float, se: float | None = 0.02, backbone: str = "b") -> Point:
    return Point(
        trial_id=trial_id,
        run_id=f"run-{trial_id}",
        method="repsim",
        backbone=backbone,
        strength=1.0,
        values=values,
        se=se,
        eligible=True,
        anchor=False,
    )


def study_of(points: list[Point], objectives: tuple[Objective, ...] = BOTH) -> Study:
    front = front_order(points, objectives)
    rows = {
        "mlflow_run_id": [one.run_id for one in points],
        "stage": ["search"] * len(points),
        "status": ["completed"] * len(points),
        "n_val": [225] * len(points),
    }
    return Study(
        data="d",
        axes=choose_axes(objectives),
        trials=pd.DataFrame(rows),
        points=tuple(points),
        front=front,
        picks=recommend([points[i] for i in front], objectives),
        separated=None,
        counts={},
        incomplete=(),
        reference=None,
        course=(),
        course_note="",
    )


# ---- what is recommended and what it costs


def test_the_confirmed_front_recommends_three_points_in_this_order(study: Study) -> None:
    assert [(pick.role, pick.point.trial_id) for pick in study.picks] == [
        ("best val accuracy", "t0001"),
        ("knee of the front", "t0003"),
        ("best val similarity (CKA) within one standard error of the best val accuracy", "t0002"),
    ]
    assert words.vacancies(study) == ""


@pytest.mark.parametrize("objectives", [BOTH, (ACCURACY, SHARPNESS), (ACCURACY, CKA, SHARPNESS)])
def test_at_most_three_points_whatever_the_front(objectives: tuple[Objective, ...]) -> None:
    rng = random.Random(4)
    for size in range(1, 12):
        points = [point(f"t{i:04d}", *(rng.random() for _ in objectives)) for i in range(size)]
        picks = study_of(points, objectives).picks
        best = max(one.values[0] for one in points)
        assert 1 <= len(picks) <= 3
        assert picks[0].point.values[0] == best
        within = [pick.point for pick in picks if "within" in pick.role]
        assert len(within) == 1
        assert best - within[0].values[0] <= 0.02


def test_roles_that_fall_together_or_are_vacant_are_said() -> None:
    two = study_of([point("t0000", 0.95, 0.4), point("t0001", 0.80, 0.9)])
    assert words.vacancies(two) == (
        "t0000 is 2 of the recommended points at once: best val accuracy; best val similarity (CKA) within one "
        "standard error of the best val accuracy. There is no knee: that takes three points on the front that differ "
        "in every objective."
    )
    unknown = study_of([point(f"t000{i}", 0.9 - 0.1 * i, 0.5 + 0.1 * i, se=None) for i in range(4)])
    assert words.vacancies(unknown) == (
        "No standard error of val accuracy is known, so no point is named within one standard error of the best."
    )


def test_the_price_in_plain_words() -> None:
    best, other = point("t0000", 0.95, 0.40), point("t0001", 0.938, 0.71)
    assert (
        words.cost(study_of([best, other]), best, other) == "1.2 points of val accuracy for +0.310 val similarity (CKA)"
    )
    third = study_of([point("t0000", 0.95, 0.9, 0.03), point("t0001", 0.94, 0.8, 0.01)], (ACCURACY, CKA, SHARPNESS))
    assert words.cost(third, *third.points) == (
        "1.0 points of val accuracy for −0.100 val similarity (CKA) and −0.02 nats of sharpness"
    )


def test_no_similarity_is_priced_across_backbones() -> None:
    best, other = point("t0000", 0.95, 0.40), point("t0001", 0.938, 0.71, backbone="c")
    assert words.cost(study_of([best, other]), best, other) == (
        "1.2 points of val accuracy against t0000, on another backbone: their similarities cannot be compared"
    )


def test_without_an_error_or_a_knee_the_price_is_that_of_the_other_end() -> None:
    two = study_of([point("t0000", 0.95, 0.4, se=None), point("t0001", 0.80, 0.9, se=None)])
    assert words.price(two) == (
        "15.0 points of val accuracy for +0.500 val similarity (CKA), from 0.400 (t0000) to 0.900 (t0001)."
    )


# ---- how sure that is


def test_a_paired_difference_is_over_common_seeds_alone() -> None:
    first = {1: 0.90, 2: 0.92, 3: 0.94, 9: 0.10}
    second = {1: 0.89, 2: 0.90, 3: 0.91, 8: 0.99}
    found = certainty.paired(first, second)
    assert found is not None
    assert (found.n, found.mean) == (3, pytest.approx(-0.02))
    assert found.error == pytest.approx(0.01 / 3**0.5)
    assert found.high - found.mean == pytest.approx(4.302653 * found.error, rel=1e-5)  # t(2) at 97.5 %
    assert found.none_possible
    assert certainty.paired(first, {1: 0.5, 8: 0.9}) is None
    assert certainty.paired({}, second) is None


def test_pairing_takes_out_what_the_seeds_share() -> None:
    seeds = {seed: 0.1 * seed for seed in range(1, 6)}
    shifted = {seed: value - 0.02 - 0.001 * (seed % 2) for seed, value in seeds.items()}
    found = certainty.paired(seeds, shifted)
    assert found is not None
    assert not found.none_possible
    assert found.error < 0.001 < np.std(list(seeds.values()))


def test_seed_values_leave_out_the_searchs_own_run_and_unfinished_seeds(study: Study) -> None:
    best = study.members[0]
    assert certainty.seed_values(study.trials, best.run_id, "val_accuracy") == {1: 0.912, 2: 0.920, 3: 0.928}
    broken = study.trials.copy()
    broken.loc[(broken["stage"] == "confirm") & (broken["seed"] == 2), "status"] = "failed"
    assert set(certainty.seed_values(broken, best.run_id, "val_accuracy")) == {1, 3}


def test_confirmed_points_are_compared_over_their_common_seeds(study: Study) -> None:
    members = {one.trial_id: one for one in study.members}
    assert certainty.of_difference(study, members["t0001"], members["t0003"]) == (
        "Against t0001, paired over the 3 seeds that both have:",
        "−1.5 ± 0.1 points of val accuracy (95 % interval −2.0 to −1.0)",
        "+0.400 ± 0.006 val similarity (CKA) (95 % interval 0.375 to 0.425)",
    )
    close = certainty.of_difference(study, members["t0001"], members["t0002"])
    assert close[1] == (
        "−0.3 ± 0.3 points of val accuracy (95 % interval −1.4 to 0.8; it holds 0, so no difference is shown)"
    )
    other = certainty.of_difference(study, members["t0001"], members["t0004"])
    assert "the 2 seeds" in other[0]
    assert len(other) == 2, "another backbone's similarity is to another model"
    assert certainty.of_value(study, members["t0001"]) == (
        "± is one standard error over n = 3 fresh seeds; it leaves out the luck of which images val has, 2.5 points "
        "(binomial, 120 val images)."
    )
    stranger = replace(members["t0003"], run_id="nobody")
    assert "fewer than two fresh seeds in common" in certainty.of_difference(study, members["t0001"], stranger)[0]


def test_single_runs_have_the_binomial_error_and_it_is_said() -> None:
    found = study_of([point("t0000", 0.9, 0.4), point("t0001", 0.89, 0.6), point("t0002", 0.8, 0.9)])
    best, near, far = found.points
    assert certainty.of_value(found, best) == (
        "n = 1: one standard error is 2.0 points (binomial, 225 val images); the spread between seeds is not known."
    )
    assert certainty.of_difference(found, best, near) == (
        "n = 1 each: the loss is less than one standard error, which is 2.0 points (binomial, 225 val images); "
        "the spread between seeds is not known.",
    )
    assert "the loss is more than one standard error" in certainty.of_difference(found, best, far)[0]
    blind = replace(best, se=None)
    assert "no standard error of val accuracy is known" in certainty.of_value(found, blind)
    assert "no standard error of val accuracy is known" in certainty.of_difference(found, blind, near)[0]


# ---- the answer on the page


def test_every_recommended_point_has_its_command_and_its_run(sweep: Sweep, study: Study, tmp_path: Path) -> None:
    text = answer.section(sweep, [study], tmp_path, LINKS)
    assert text.count('<p class="role">') == 3
    for pick in study.picks:
        assert f"python sweeps/launch.py --space {tmp_path}/points/{pick.point.trial_id}.yaml" in text
        assert f'href="http://somewhere:5000/#/experiments/3/runs/{pick.point.run_id}"' in text
    assert text.count('<p class="price">') == 2, "the best point has no price"
    assert "1.5 points of val accuracy for +0.400 val similarity (CKA)" in text
    assert "0.920 ± 0.005" in text
    assert "mlflow ui" not in text, "a server runs already"
    assert "<code>mlflow ui" in answer.section(sweep, [study], tmp_path, run_links("sqlite:////elsewhere/x.db", "3"))


def test_points_that_coincide_share_a_card(sweep: Sweep, study: Study, tmp_path: Path) -> None:
    best = study.picks[0]
    same = replace(study, picks=tuple(replace(pick, point=best.point) for pick in study.picks))
    text = answer.section(sweep, [same], tmp_path, LINKS)
    assert text.count('<p class="role">') == 1
    assert "Recommended: 1 point<" in text
    assert "t0001 is 3 of the recommended points at once" in text


# ---- links


@pytest.mark.parametrize(
    ("uri", "base"),
    [
        ("http://localhost:5000", "http://localhost:5000/#/experiments/7/runs/"),
        ("https://ml.example/prefix/", "https://ml.example/prefix/#/experiments/7/runs/"),
        (
            "https://someone:secret@ml.example:8443/a?token=secret#secret",
            "https://ml.example:8443/a/#/experiments/7/runs/",
        ),
        ("http://[::1]:5000", "http://[::1]:5000/#/experiments/7/runs/"),
    ],
)
def test_a_servers_runs_have_an_address_without_credentials(uri: str, base: str) -> None:
    found = run_links(uri, "7")
    assert found.base == base
    assert found.run("abc") == base + "abc"
    assert found.command == ""
    assert "secret" not in repr(found)


def test_a_database_names_the_command_that_opens_its_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = run_links(f"sqlite:///{tmp_path / 'mlflow.db'}", "7")
    assert (here.command, here.base) == ("mlflow ui", "http://127.0.0.1:5000/#/experiments/7/runs/")
    assert run_links("sqlite:///mlflow.db", "7") == here
    assert "mlflow.db" in here.where
    other = run_links(f"sqlite:///{tmp_path / 'my store' / 'a.db'}", "7")
    assert other.command == f"mlflow ui --backend-store-uri 'sqlite:///{tmp_path}/my store/a.db'"
    secret = run_links("postgresql+psycopg2://someone:secret@db.example/ml", "7")
    assert secret.command == 'mlflow ui --backend-store-uri "$MLFLOW_TRACKING_URI"'
    assert "secret" not in repr(secret)
    assert "someone" not in repr(secret)


def test_a_store_without_a_known_ui_has_no_links() -> None:
    found = run_links("databricks://profile", "7")
    assert found.run("abc") is None
    assert found.command == ""


def test_a_run_id_cannot_leave_its_place_in_the_address() -> None:
    assert LINKS.run("a/../b?c#d\"'") == "http://somewhere:5000/#/experiments/3/runs/a%2F..%2Fb%3Fc%23d%22%27"


# ---- the dominated area


def area_of(corners: tuple[tuple[float, float], ...]) -> float:
    """By the shoelace formula."""
    xs, ys = np.array(corners).T
    return float(abs(np.dot(xs, np.roll(ys, 1)) - np.dot(ys, np.roll(xs, 1))) / 2)


@pytest.mark.parametrize("directions", [(x, y) for x in ("maximize", "minimize") for y in ("maximize", "minimize")])
def test_the_shaded_area_is_the_hypervolume(directions: tuple[Direction, Direction]) -> None:
    rng = random.Random(11)
    objectives = (
        Objective(metric="val_accuracy", direction=directions[1]),
        Objective(metric="val_cka", direction=directions[0]),
    )
    worst = tuple(0.0 if direction == "maximize" else 1.0 for direction in directions)
    ideal = tuple(1.0 - end for end in worst)
    for size in (1, 2, 7):
        # beyond the reference as well, where nothing counts
        points = [point(f"t{i:04d}", rng.uniform(-0.3, 0.99), rng.uniform(-0.3, 0.99)) for i in range(size)]
        if directions != ("maximize", "maximize"):
            points = [point(f"t{i:04d}", rng.uniform(0.01, 0.99), rng.uniform(0.01, 0.99)) for i in range(size)]
        members = [points[i] for i in front_order(points, objectives)]
        corners = dominated(staircase(members, directions[0]), (worst[0], worst[1]), directions)
        expected = hypervolume(
            [one.values for one in members], worst[::-1], ideal[::-1], [directions[1], directions[0]]
        )
        assert area_of(corners) == pytest.approx(expected)


def test_the_area_ends_at_the_reference_or_else_at_the_edge(study: Study, picture: FrontPicture) -> None:
    assert (0.37, 0.767) in picture.area
    without = front_picture(replace(study, reference=None), picture.styles)
    assert without is not None
    assert (without.x_range[0], without.y_range[0]) in without.area
    lacking = front_picture(replace(study, reference=Reference(worst={}, ideal={})), picture.styles)
    assert lacking is not None
    assert lacking.area == without.area
    assert dominated((), (0.0, 0.0), ("maximize", "maximize")) == ()


def test_three_objectives_have_no_area() -> None:
    found = study_of([point("t0000", 0.9, 0.4, 0.1), point("t0001", 0.8, 0.6, 0.2)], (ACCURACY, CKA, SHARPNESS))
    drawn = front_picture(found, choose_styles(["repsim"], ["b"]))
    assert drawn is not None
    assert (drawn.steps, drawn.area) == ((), ())


# ---- what the figure can be asked


@pytest.fixture(scope="module")
def figure(
    sweep: Sweep, study: Study, picture: FrontPicture, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, object]:
    told = details(sweep, study, picture, tmp_path_factory.mktemp("out"), LINKS)
    found: dict[str, object] = json.loads(script_json(figure_data(picture, told)))
    return found


def test_a_filter_stands_for_whole_traces(figure: Mapping[str, object], picture: FrontPicture) -> None:
    for theme in ("light", "dark"):
        traces = figure[theme]["data"]  # type: ignore[index]
        keys = [key for trace in traces for key in trace.get("customdata", [])]
        assert sorted(keys) == sorted(mark.key for mark in picture.marks)
        marks = {mark.key: mark for mark in picture.marks}
        for trace in traces:
            for key in trace.get("customdata", []):
                assert trace["meta"] == {"method": marks[key].method, "backbone": marks[key].backbone}
        lines = [trace["meta"] for trace in traces if trace["mode"] == "lines" and "meta" in trace]
        assert lines == [{"method": "repsim", "backbone": LITE}]
    assert {one["name"] for one in figure["method"]} == {"linear_probe", "full", "repsim", "hcs", "feature_mse"}  # type: ignore[attr-defined]
    backbones = {one["name"]: one["count"] for one in figure["backbone"]}  # type: ignore[attr-defined]
    assert set(backbones) == {LITE, MOBILE}
    assert sum(backbones.values()) == len({mark.trial_id for mark in picture.marks})


def test_every_mark_tells_its_settings_its_run_and_if_it_is_on_the_front_its_command(
    figure: Mapping[str, object], sweep: Sweep, study: Study
) -> None:
    marks = figure["marks"]
    assert isinstance(marks, dict)
    mean, run = marks["t0003 mean"], marks["t0003"]
    assert dict(mean["values"])["val accuracy"] == "0.905 ± 0.006"
    assert dict(run["values"])["val accuracy"] == "0.911"
    assert dict(mean["settings"])["strength"] == "4"
    assert (mean["short"], run["short"]) == ("t0003 repsim, n = 3", "t0003 repsim, the search's run")
    assert mean["state"] == "mean over fresh seeds ± standard error, n = 3, on the front"
    assert run["state"] == "the search's run, n = 1"
    assert marks["t0026"]["state"].endswith("stopped early: values of its last epoch")
    run_ids = dict(zip(sweep.trials["trial_id"], sweep.trials["mlflow_run_id"], strict=True))
    assert all(one["run"].endswith(f"/runs/{run_ids[one['trial']]}") for one in marks.values())
    members = {one.trial_id for one in study.members}
    assert {one["trial"] for one in marks.values() if one["repeat"] is not None} == members
    assert figure["front"] == [f"{name} mean" for name in sorted(members)]
    shared = dict(figure["shared"])  # type: ignore[call-overload]
    assert shared["head"] == "linear"
    assert not set(shared) & set(dict(mean["settings"]))


def test_only_what_has_an_error_bar_is_in_a_trace_with_bars(
    figure: Mapping[str, object], picture: FrontPicture
) -> None:
    barred = {mark.key for mark in picture.marks if mark.errors != (None, None)}
    assert barred
    traces = figure["light"]["data"]  # type: ignore[index]
    for place, axis in enumerate(("error_x", "error_y")):
        drawn = [trace for trace in traces if axis in trace and "customdata" in trace]
        along = {mark.key for mark in picture.marks if mark.errors[place] is not None}
        assert {key for trace in drawn for key in trace["customdata"]} == along
        assert along <= barred


@pytest.mark.parametrize(("letters", "columns"), [(4, 4), (24, 3), (60, 1), (40, 2)])
def test_a_legend_has_as_many_columns_as_fit(letters: int, columns: int) -> None:
    assert legend_columns(["x" * letters] * 9, 7.6) == columns
    assert legend_columns(["x" * letters], 0.1) == 1


def test_names_cannot_act_in_what_is_hovered_or_close_the_script(
    sweep: Sweep, study: Study, picture: FrontPicture
) -> None:
    evil = replace(picture.marks[0], method=HOSTILE, backbone=HOSTILE)
    styles = choose_styles([HOSTILE, *picture.styles.methods], [HOSTILE, *picture.styles.backbones])
    drawn = replace(picture, marks=(evil, *picture.marks[1:]), styles=styles)
    told = details(sweep, study, drawn, Path("out"), LINKS)
    assert "<img" not in told.marks[evil.key].hover
    assert told.marks[evil.key].title.endswith(HOSTILE)
    text = script_json(figure_data(drawn, told))
    assert not re.search("[<>&]", text)
    assert HOSTILE in [one["name"] for one in json.loads(text)["method"]]


def test_the_script_turns_nothing_into_markup() -> None:
    text = script()
    assert "textContent" in text
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch(", "</script"):
        assert word not in text
