"""The chapter on representations: maps of layers and trajectories, as data, as pictures and on the page."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from reports.chapters.chapter import Chapter
from reports.chapters.front_runs import spread
from reports.chapters.layer_maps import LAST, MOST, layer_maps_picture, layer_order
from reports.chapters.representation_drawing import draw_layer_maps, draw_trajectories
from reports.chapters.representations import layer_words, section, trajectory_words
from reports.chapters.trajectories import LABELLED, PALE, plane, trajectories_picture
from reports.figures import choose_styles
from reports.fronts import Study, choose_axes, study
from reports.load import Sweep, load_sweep
from reports.store import open_store
from reports.style import DARK, LIGHT
from repsim.records import METRICS, Objective, Tag
from tests.reports.recorded_sweeps import ACCURACY_AND_CKA, FACTS, HOSTILE, FakeTrial, Store, config, numbers, record
from tests.reports.themed_pictures import assert_exact_twins, collected

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
DATA = "phantom:tiny"
ORDER = ["stem", "blocks.2", "blocks.10"]
"""Neither the alphabet's order nor that of numbers."""
OTHER = "mobilenetv2_100"
Courses = Mapping[str, Sequence[float | None]]


def course(accuracy: Sequence[float], cka: Sequence[float], **layers: Sequence[float | None]) -> Courses:
    """By curve's name; layers by names with ``__`` for the dot."""
    named = {f"layer_cka/{name.replace('__', '.')}": values for name, values in layers.items()}
    return {"val_accuracy": accuracy, "val_cka": cka, "train_loss": [1.0] * len(cka), **named}


def trial(number: str, end: tuple[float, float], epochs: int = 3, /, **more: Any) -> FakeTrial:
    """A trial that reports ``end`` (accuracy, cka); keywords of FakeTrial, and those of a configuration."""
    own = {key: more.pop(key) for key in ("status", "stage", "tags", "facts") if key in more}
    values = {name: value for name, value in numbers(*end).items() if not name.startswith("curve/")}
    tags = {Tag.CHOSEN_EPOCH: str(epochs), **own.pop("tags", {})}
    setting = config(**{"data": DATA, "optim__epochs": epochs, **more})
    own.setdefault("facts", {**FACTS, "layers": ORDER})
    return FakeTrial(number, setting, values, tags=tags, **own)


STEADY = {"stem": [1.0, 0.99, 0.98], "blocks__2": [0.9, 0.8, 0.62], "blocks__10": [0.95, 0.9, 0.85]}
TRIALS: list[tuple[FakeTrial, Courses]] = [
    (trial("t0000", (0.75, 1.0), 1, method="linear_probe"), course([0.75], [1.0], stem=[1.0], blocks__2=[1.0])),
    (
        trial("t0001", (0.90, 0.40), method="full"),
        course([0.7, 0.8, 0.9], [0.8, 0.6, 0.4], stem=[0.9, 0.8, 0.7], blocks__2=[0.5, 0.4, 0.3]),
    ),
    (trial("t0002", (0.92, 0.70), method="repsim", strength=1.5), course([0.6, 0.85, 0.92], [0.9, 0.8, 0.7], **STEADY)),
    (
        trial("t0003", (0.88, 0.80), method="hcs", backbone=OTHER, checkpoint="best", tags={Tag.CHOSEN_EPOCH: "2"}),
        course([0.8, 0.88, 0.86], [0.9, 0.8, 0.6], stem=[0.9, 0.7, 0.5], blocks__2=[0.9, 0.8, 0.7]),
    ),
    (trial("t0004", (0.80, 0.30), method="feature_mse"), course([0.7, 0.8, 0.8], [0.5, 0.4, 0.3])),
    (
        trial("t0004-w03", (0.80, 0.95), stage="derived", tags={Tag.DERIVED_FROM: "t0004"}, wise_alpha=0.3),
        {},
    ),
    (trial("t0005", (0.5, 0.5), status="pruned", facts={}, optim__lr=1e-5), course([0.4, 0.5], [0.6, 0.5])),
    (trial("t0006", (0.9, 0.6), stage="confirm", method="repsim", seed=1), course([0.1, 0.2, 0.9], [0.9, 0.8, 0.6])),
    (trial("t0007", (0.3, 0.2), method="bitfit"), {"val_accuracy": [0.1, 0.3]}),
]  # fmt: skip


def write(uri: str, name: str, trials: Sequence[tuple[FakeTrial, Courses]], **more: Any) -> Sweep:
    """Into a real store, and out of it again."""
    from sweeps.tracking import prepare_store

    prepare_store(uri)
    client = MlflowClient(tracking_uri=uri)
    parent = record(client, name, [one for one, _ in trials], **more)
    courses = {one.trial_id: found for one, found in trials}
    for run in client.search_runs([client.get_run(parent).info.experiment_id]):
        found = courses.get(run.data.tags.get(Tag.TRIAL_ID, ""), {})
        points = [
            Metric(f"curve/{curve}", value, 0, epoch)
            for curve, values in found.items()
            for epoch, value in enumerate(values, start=1)
            if value is not None
        ]
        client.log_batch(run.info.run_id, metrics=points)
    return load_sweep(open_store(uri), name)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('layered') / 'mlflow.db'}"


@pytest.fixture(scope="module")
def sweep(uri: str) -> Sweep:
    return write(uri, "layered", TRIALS)


def chapter_of(sweep: Sweep, folder: Path) -> Chapter:
    studies = tuple(study(sweep, data) for data in sweep.data_sets)
    points = [point for one in studies for point in one.points]
    return Chapter(
        sweep=sweep,
        studies=studies,
        styles=choose_styles([point.method for point in points], [point.backbone for point in points]),
        stems=("",) if len(studies) == 1 else tuple(f"_{number}" for number in range(len(studies))),
        figures=folder,
        report=folder,
    )


def without(sweep: Sweep, start: str) -> Sweep:
    """The sweep as if curves whose names start so had never been recorded."""
    return replace(sweep, curves=sweep.curves[~sweep.curves["metric"].str.startswith(start)])


def test_front_members_and_anchors_are_told_and_the_others_pale(sweep: Sweep, tmp_path: Path) -> None:
    chapter = chapter_of(sweep, tmp_path)
    picture = trajectories_picture(sweep, chapter.studies[0], chapter.styles)
    assert picture is not None
    assert {member.trial_id for member in chapter.studies[0].members} == {"t0000", "t0002", "t0003", "t0004-w03"}
    ways = {way.trial_id: way for _, panel in picture.panels for way in panel}
    assert {name for name, way in ways.items() if way.told} == {"t0000", "t0001", "t0002", "t0003", "t0004"}
    assert {name for name, way in ways.items() if not way.told} == {"t0005"}, "no confirmation, no half-known course"
    assert (picture.pale, picture.others) == (1, 1)
    assert ways["t0002"].points == ((0.9, 0.6), (0.8, 0.85), (0.7, 0.92))
    assert ways["t0002"].epochs == (1, 2, 3)
    assert ways["t0002"].reported == ways["t0002"].points[-1]
    assert ways["t0003"].reported == ways["t0003"].points[1] != ways["t0003"].points[-1]
    assert ways["t0005"].reported is None
    assert {name: way.label for name, way in ways.items() if way.anchor} == {
        "t0000": "t0000 (anchor)", "t0001": "t0001 (anchor)",
    }  # fmt: skip
    assert [(name, {way.trial_id for way in panel}) for name, panel in picture.panels] == [
        (OTHER, {"t0003"}), ("tf_efficientnet_lite0", {"t0000", "t0001", "t0002", "t0004", "t0005"}),
    ]  # fmt: skip
    said = " ".join(trajectory_words(chapter.studies[0], picture))
    assert "never points of the front" in said
    assert "A mark that is not at its line's end is the epoch" in said
    assert "pale ones the 1 other trials" in said
    assert "is not the same quantity" in said


def test_a_single_epoch_is_no_trajectory(sweep: Sweep, tmp_path: Path) -> None:
    chapter = chapter_of(sweep, tmp_path)
    early = replace(sweep, curves=sweep.curves[sweep.curves["epoch"] == 1])
    assert trajectories_picture(early, chapter.studies[0], chapter.styles) is None
    two = replace(sweep, curves=sweep.curves[sweep.curves["epoch"] <= 2])
    assert trajectories_picture(two, chapter.studies[0], chapter.styles) is not None


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (("val_accuracy", "val_cka"), ("val_cka", "val_accuracy")),
        (("val_balanced_accuracy", "val_procrustes"), ("val_procrustes", "val_balanced_accuracy")),
        (("val_auc", "sharpness"), ("val_cka", "val_auc")),
        (("train_seconds", "val_knn_overlap"), ("val_knn_overlap", "val_accuracy")),
        (("val_cka",), ("val_cka", "val_accuracy")),
        (("val_accuracy",), ("val_cka", "val_accuracy")),
    ],
)
def test_the_plane_is_the_study_s_own_where_epochs_know_it(
    sweep: Sweep, metrics: tuple[str, ...], expected: tuple[str, str]
) -> None:
    objectives = [Objective(metric=name, direction=METRICS[name].direction or "maximize") for name in metrics]
    assert plane(replace(study(sweep, DATA), axes=choose_axes(objectives))) == expected


def test_items_are_spread_evenly_with_both_ends() -> None:
    assert spread(range(5), 5) == (0, 1, 2, 3, 4)
    assert spread(range(101), 3) == (0, 50, 100)
    kept = spread(range(1000), PALE)
    assert (len(kept), kept[0], kept[-1]) == (PALE, 0, 999)
    assert len(set(kept)) == PALE


def test_maps_are_of_the_front_s_runs_whose_backbone_moves(sweep: Sweep) -> None:
    picture = layer_maps_picture(sweep, study(sweep, DATA))
    assert picture is not None
    assert [(one.trial_id, one.anchor) for one in picture.maps] == [("t0002", False), ("t0003", False), ("t0001", True)]
    first, second, anchor = picture.maps
    assert first.layers == second.layers == (*ORDER, LAST), "as the trial told them"
    assert first.epochs == (1, 2, 3)
    assert first.values == ((1.0, 0.99, 0.98), (0.9, 0.8, 0.62), (0.95, 0.9, 0.85), (0.9, 0.8, 0.7))
    assert second.values[2] == (None, None, None)
    assert first.title == "t0002 repsim λ=1.5"
    assert (first.reported, second.reported) == (3, 2)
    assert (first.least_kept, second.least_kept, anchor.least_kept) == ("blocks.2", "stem", "blocks.2")
    assert picture.least_kept == (("blocks.2", 1), ("stem", 1)), "the anchor is not counted"
    assert picture.low == pytest.approx(0.3)
    assert (picture.members, picture.backbones) == (2, 2)
    said = " ".join(layer_words(study(sweep, DATA), picture))
    assert "on 120 val images" in said
    assert "train their backbone: all 2" in said
    assert "A triangle marks the epoch" in said
    assert "Blank cells" in said
    assert "of 2: blocks.2 in 1, stem in 1." in said


def test_runs_without_layers_and_frozen_backbones_have_no_map(sweep: Sweep) -> None:
    found = study(sweep, DATA)
    frozen_only = replace(found, trials=found.trials.assign(adapter="linear_probe"))
    assert layer_maps_picture(sweep, frozen_only) is None
    picture = layer_maps_picture(sweep, found)
    assert picture is not None
    assert not {"t0000", "t0004", "t0004-w03"} & {one.trial_id for one in picture.maps}


def test_layers_nobody_put_in_order_are_ordered_by_number() -> None:
    courses = {name: {1: 0.5} for name in ("blocks.10", "blocks.9", LAST, "bn1", "blocks.9.a")}
    assert layer_order(courses, None) == ("blocks.9", "blocks.9.a", "blocks.10", "bn1", LAST)
    assert layer_order(courses, ["bn1", "gone"]) == ("bn1", "gone", "blocks.9", "blocks.9.a", "blocks.10", LAST)
    assert layer_order({"a": {1: 0.5}}, "broken") == ("a",)


def test_many_members_are_thinned_and_the_page_says_so(uri: str, tmp_path: Path) -> None:
    anchors = [TRIALS[0], TRIALS[1]]
    many = []
    for number in range(2, 22):
        end = (0.95 - 0.005 * number, 0.5 + 0.02 * number)
        many.append(
            (
                trial(f"t{number:04d}", end, 2, method="repsim", strength=float(number)),
                course([end[0] - 0.1, end[0]], [end[1] + 0.05, end[1]], stem=[1.0, 0.9]),
            )
        )
    sweep = write(uri, "many", [*anchors, *many])
    chapter = chapter_of(sweep, tmp_path)
    found = chapter.studies[0]
    picture = layer_maps_picture(sweep, found)
    assert picture is not None
    drawn = [one.trial_id for one in picture.maps if not one.anchor]
    assert (len(picture.maps), picture.members) == (MOST, 20)
    assert (drawn[0], drawn[-1], len(drawn)) == ("t0002", "t0021", MOST - 1), "and the anchor"
    assert f"{MOST - 1} of the 20, evenly spaced" in " ".join(layer_words(found, picture))
    ways = trajectories_picture(sweep, found, chapter.styles)
    assert ways is not None
    assert len([way for way in ways.told if way.label and not way.anchor]) <= LABELLED
    assert f"{LABELLED} evenly spaced ones bear their names" in " ".join(trajectory_words(found, ways))


def test_maps_share_one_scale_and_what_was_not_measured_is_masked(sweep: Sweep) -> None:
    picture = layer_maps_picture(sweep, study(sweep, DATA))
    assert picture is not None
    for theme in (LIGHT, DARK):
        with mpl.rc_context(theme.rc()):
            figure = draw_layer_maps(picture, theme)
            figure.canvas.draw()
        images = [image for axes in figure.axes for image in axes.images]
        assert [image.get_clim() for image in images] == [(picture.low, 1.0)] * 3
        cells = np.ma.asarray(images[1].get_array())
        assert cells.mask.tolist() == [[False] * 3, [False] * 3, [True] * 3, [False] * 3]
        assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [*ORDER, LAST]
        assert "t0002 repsim λ=1.5\ntf_efficientnet_lite0" in figure.axes[0].get_title(loc="left")


def test_ways_are_drawn_as_the_data_says(sweep: Sweep, tmp_path: Path) -> None:
    chapter = chapter_of(sweep, tmp_path)
    picture = trajectories_picture(sweep, chapter.studies[0], chapter.styles)
    assert picture is not None
    with mpl.rc_context(DARK.rc()):
        figure = draw_trajectories(picture, DARK)
        figure.canvas.draw()
    assert [axes.get_title(loc="left") for axes in figure.axes] == [OTHER, "tf_efficientnet_lite0"]
    lines = [[tuple(point) for point in line.get_xydata()] for line in figure.axes[0].lines]
    assert lines[0] == [(0.9, 0.8), (0.8, 0.88), (0.6, 0.86)]
    assert lines[1] == [(0.9, 0.8)], "the first epoch"
    assert lines[2] == [(0.8, 0.88)], "the chosen one"
    (pale,) = figure.axes[1].collections
    assert [path.vertices.tolist() for path in pale.get_paths()] == [[[0.6, 0.4], [0.5, 0.5]]]


def test_the_section_has_both_pictures_for_light_and_dark(sweep: Sweep, tmp_path: Path) -> None:
    html = section(chapter_of(sweep, tmp_path))
    assert html.startswith("<h2>Representations</h2>")
    assert html.count("<h3>") == html.count("<figure>") == 2
    assert html.count("prefers-color-scheme: dark") == 2
    assert "n = 1" in html
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{stem}.{kind}" for stem in ("layers", "trajectories") for kind in ("svg", "png")
    }
    assert "measure.layers" not in html


def test_its_pictures_have_exact_twins_for_dark_pages(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = collected(monkeypatch)
    section(chapter_of(sweep, tmp_path))
    assert set(pictures) == {"layers", "trajectories"}
    assert_exact_twins(pictures)


def test_without_layers_the_section_says_how_to_get_them(sweep: Sweep, tmp_path: Path) -> None:
    html = section(chapter_of(without(sweep, "layer_cka/"), tmp_path))
    assert "<code>--set measure.layers=full</code>" in html
    assert html.count("<figure>") == 1
    assert not (tmp_path / "layers.svg").exists()
    bare = section(chapter_of(without(sweep, "val_"), tmp_path))
    assert "Layer by layer" in bare
    assert "On the way" not in bare
    probe = replace(sweep, curves=sweep.curves[sweep.curves["mlflow_run_id"] == run_id_of(sweep, "t0000")])
    assert "of no front member or anchor that trains its backbone" in section(chapter_of(probe, tmp_path))


def run_id_of(sweep: Sweep, trial_id: str) -> str:
    return str(sweep.trials.loc[sweep.trials["trial_id"] == trial_id, "mlflow_run_id"].iloc[0])


@pytest.mark.parametrize("name", ["demo", "nothing", "running", "failed", "single", "lacking", "two", "hostile"])
def test_a_sweep_without_courses_has_no_such_chapter(name: str, store: Store, tmp_path: Path) -> None:
    assert section(chapter_of(load_sweep(open_store(store.uri), name), tmp_path)) == ""


def test_hostile_names_neither_break_nor_execute(uri: str, tmp_path: Path) -> None:
    named = {"tags": {Tag.METHOD: HOSTILE, Tag.BACKBONE: f"$b^${HOSTILE}", Tag.DATA: HOSTILE}}
    facts = {**FACTS, "layers": [f"$x^2$ {HOSTILE}", 3, "stem"]}
    sweep = write(
        uri,
        "hostile",
        [
            (trial("t0000", (0.9, 0.7), 2, facts=facts, **named), course([0.8, 0.9], [0.8, 0.7], stem=[0.9, 0.8])),
            (trial(f"<i>{HOSTILE}", (0.8, 0.9), 2, **named), course([0.7, 0.8], [0.95, 0.9], stem=[0.9, 0.8])),
        ],
    )
    html = section(chapter_of(sweep, tmp_path))
    assert html.count("<figure>") == 2
    assert "<script" not in html
    assert not re.search(r"<i>", html)


def test_each_data_set_is_named_where_there_are_several(uri: str, tmp_path: Path) -> None:
    sets = ("folder:/<b>a</b>", "npz:b.npz")
    trials = [
        (trial(f"t000{number}", (0.9, 0.7), 2, data=data), course([0.8, 0.9], [0.8, 0.7]))
        for number, data in enumerate(sets)
    ]
    html = section(chapter_of(write(uri, "sets", trials), tmp_path))
    assert "<h3>On the way on folder:/&lt;b&gt;a&lt;/b&gt;</h3>" in html
    assert "<h3>On the way on npz:b.npz</h3>" in html
    assert {path.name for path in tmp_path.glob("*.svg")} == {"trajectories_0.svg", "trajectories_1.svg"}


def test_a_confirmed_front_says_whose_runs_are_drawn(sweep: Sweep, tmp_path: Path) -> None:
    chapter = chapter_of(sweep, tmp_path)
    plain = chapter.studies[0]
    confirmed: Study = replace(plain, means=plain.points, front=plain.front)
    picture = trajectories_picture(sweep, confirmed, chapter.styles)
    assert picture is not None
    assert "means over fresh seeds; drawn are the search's own runs" in " ".join(trajectory_words(confirmed, picture))
    assert "fresh seeds" not in " ".join(trajectory_words(plain, picture))


def test_a_single_objective_still_shows_the_plane(uri: str, tmp_path: Path) -> None:
    sweep = write(uri, "one objective", TRIALS[1:3], objectives=ACCURACY_AND_CKA[:1])
    chapter = chapter_of(sweep, tmp_path)
    picture = trajectories_picture(sweep, chapter.studies[0], chapter.styles)
    assert picture is not None
    assert picture.x_label.startswith(METRICS["val_cka"].label)
    assert all(math.isfinite(end) for end in (*picture.x_range, *picture.y_range))
