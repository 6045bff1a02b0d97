"""What mattered: which settings a trial has, the slices, the strength curves with their bands, and the chapter."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from reports import fronts
from reports.chapters import mattered, panels
from reports.chapters.chapter import Chapter
from reports.chapters.importance import MIN_TRIALS, category_cells, importance, number_cells
from reports.chapters.influence import influence_picture, influence_table, influences
from reports.chapters.parameters import NO_PENALTY, Parameter, parameters, reads, searched
from reports.chapters.slices import slices_picture
from reports.chapters.strength import STRENGTH, Series, StrengthPicture, strength_picture
from reports.figures import Styles, choose_styles
from reports.load import Sweep, load_sweep
from reports.store import open_store
from repsim.catalogue import parse_method
from repsim.config import ADDING, TARGET_KEY, TrialConfig
from repsim.records import Objective, Tag
from tests.reports.recorded_sweeps import HOSTILE, FakeTrial, Store, config, numbers, record

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
DATA = "phantom:tiny"
REPEATED = "t0004"


def trial(
    number: int, accuracy: float, cka: float, *, stage: str = "search", status: str = "completed", **flat: object
) -> FakeTrial:
    values = numbers(accuracy, cka)
    if status == "pruned":
        values = {f"curve/{name}": value for name, value in values.items() if not name.startswith("curve/")}
    return FakeTrial(f"t{number:04d}", config(data=DATA, **flat), values, stage=stage, status=status)


def answered(strength: float, rng: random.Random) -> tuple[float, float]:
    """Accuracy and similarity of a penalty at this λ."""
    held = strength / (1 + strength)
    return 0.9 - 0.1 * held + rng.gauss(0, 0.005), 0.5 + 0.45 * held + rng.gauss(0, 0.005)


def everything() -> list[FakeTrial]:
    """Anchors; repsim at 16 λ, one of them 0; LoRA of three ranks; hcs asked for similarities; one stopped early."""
    rng = random.Random(3)
    found = [trial(0, 0.7, 1.0, method="linear_probe"), trial(1, 0.93, 0.4, method="full")]
    for index in range(16):
        strength = 0.0 if index == 15 else 10 ** (-1.4 + 0.2 * index)
        accuracy, cka = answered(strength, rng)
        lr = 10 ** rng.uniform(-4.5, -2.5)
        found.append(trial(2 + index, accuracy, cka, method="repsim", strength=strength, optim__lr=lr))
    for index in range(6):
        accuracy, cka = answered(0.5 + index, rng)
        rank = (4, 8, 16)[index % 3]
        found.append(trial(18 + index, accuracy, cka, method="lora+repsim", strength=0.5 + index, adapter__rank=rank))
    for index in range(4):
        asked = 0.6 + 0.1 * index
        found.append(trial(24 + index, 0.9, asked + 0.01, method="hcs", strength__target_cka=asked))
    found.append(trial(28, 0.99, 0.99, method="repsim", strength=1e4, status="pruned"))
    return found


def fresh(searched_trials: list[FakeTrial]) -> list[FakeTrial]:
    """Three seeds of the anchors and of one trial."""
    found = []
    for one in (found for found in searched_trials if found.trial_id in ("t0000", "t0001", REPEATED)):
        for seed, off in ((1, -0.02), (2, 0.0), (3, 0.02)):
            again = TrialConfig.from_flat(one.config.flat() | {"seed": seed})
            values = numbers(one.metrics["val_accuracy"] + off, min(1.0, one.metrics["val_cka"]))
            found.append(FakeTrial(f"t{100 + len(found):04d}", again, values, stage="confirm"))
    return found


def plain(count: int, status: str = "completed") -> list[FakeTrial]:
    """Anchors, and ``count`` full finetunings at learning rates that decide their accuracy."""
    anchors = [trial(0, 0.7, 1.0, method="linear_probe"), trial(1, 0.93, 0.4, method="full")]
    rates = [10 ** (-5 + 3 * index / max(1, count - 1)) for index in range(count)]
    rest = [
        trial(2 + index, 0.9 - 0.02 * abs(math.log10(lr) + 3.6), 0.4, method="full", optim__lr=lr, status=status)
        for index, lr in enumerate(rates)
    ]
    return [*anchors, *rest]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    from sweeps.tracking import prepare_store

    found = f"sqlite:///{tmp_path_factory.mktemp('mattered') / 'mlflow.db'}"
    prepare_store(found)
    client = MlflowClient(tracking_uri=found)
    record(client, "whole", everything())
    told = {"end": "done", "reason": "all", "delta": {}, "candidates": ["t0000", "t0001", REPEATED]}
    trials = everything()
    record(client, "confirmed", [*trials, *fresh(trials)], tags={Tag.CONFIRMATION: json.dumps({DATA: told})})
    record(client, "enough", plain(MIN_TRIALS))
    record(client, "few", plain(MIN_TRIALS - 1))
    record(client, "stopped", plain(MIN_TRIALS, "pruned"))
    return found


Opened = Callable[[str], tuple[Sweep, fronts.Study, Styles]]


@pytest.fixture(scope="module")
def opened(uri: str) -> Opened:
    kept: dict[str, tuple[Sweep, fronts.Study, Styles]] = {}

    def find(name: str) -> tuple[Sweep, fronts.Study, Styles]:
        if name not in kept:
            sweep = load_sweep(open_store(uri), name)
            study = fronts.study(sweep, DATA)
            methods, backbones = [p.method for p in study.points], [p.backbone for p in study.points]
            kept[name] = (sweep, study, choose_styles(methods, backbones))
        return kept[name]

    return find


def chapter(sweep: Sweep, folder: Path) -> Chapter:
    studies = tuple(fronts.study(sweep, data) for data in sweep.data_sets)
    points = [point for study in studies for point in study.points]
    stems = ("",) if len(studies) == 1 else tuple(f"_{number}" for number, _ in enumerate(studies, start=1))
    styles = choose_styles([point.method for point in points], [point.backbone for point in points])
    return Chapter(sweep=sweep, studies=studies, styles=styles, stems=stems, figures=folder, report=folder)


def by_name(found: tuple[Parameter, ...]) -> dict[str, Parameter]:
    return {parameter.name: parameter for parameter in found}


def test_a_setting_is_had_by_the_trials_that_read_it(opened: Opened) -> None:
    sweep, study, _ = opened("whole")
    points = searched(study)
    assert {p.trial_id for p in points} == {f"t{number:04d}" for number in range(2, 28)}, "no anchor, none stopped"
    found = by_name(parameters(sweep, points))
    assert set(found) == {"method", "adapter", "penalty", "strength", TARGET_KEY, "adapter.rank", "optim.lr"}
    assert [len(found[name].present) for name in ("method", "strength", TARGET_KEY, "adapter.rank")] == [26, 22, 4, 6]
    assert set(found["adapter"].present) == {"full", "lora"}
    assert set(found["penalty"].present) == {"repsim", "hcs"}
    assert set(found["adapter.rank"].numbers) == {4.0, 8.0, 16.0}
    assert [found[name].range for name in ("adapter.rank", "optim.lr", "method")] == [False, True, False]
    assert (found["optim.lr"].log, found["adapter.rank"].log) == (True, False)
    assert not found["strength"].log, "λ = 0 has no logarithm"


def test_a_part_that_says_what_the_method_says_is_left_out(opened: Opened) -> None:
    sweep, study, _ = opened("whole")
    full = [point for point in searched(study) if point.method in ("repsim", "hcs")]
    assert not {"adapter", "penalty"} & set(by_name(parameters(sweep, full)))
    anchors = [point for point in study.points if point.anchor]
    found = by_name(parameters(sweep, [*full, *anchors]))
    assert set(found["penalty"].present) == {"repsim", "hcs", NO_PENALTY}
    assert set(found["adapter"].present) == {"full", "linear_probe"}
    assert parameters(sweep, []) == parameters(sweep, full[:1]) == ()


@pytest.mark.parametrize(
    "flat",
    [
        {"method": "linear_probe"},
        {"method": "full"},
        {"method": "repsim", "strength": 2.0},
        {"method": "hcs", "strength.target_cka": 0.9},
        {"method": "lora+feature_mse", "strength": 1.0},
        {"method": "full", "optim.sam": "sam", "optim.average": "ema"},
        {"method": "full", "head": "tversky"},
        {"method": "full", "head": "cosine"},
    ],
)
def test_what_a_trial_reads_is_what_makes_it_another_run(flat: dict[str, object]) -> None:
    from sweeps.identity import identity

    setting = TrialConfig.from_flat(flat)
    values = setting.flat()
    counted = set(json.loads(identity(setting))) - {"strength", TARGET_KEY, "data"}
    asked = set(values) - {"seed", *ADDING, "strength", TARGET_KEY, "data"}
    read = {key for key in asked if reads(values, parse_method(setting.method), key)}
    assert read == counted
    assert read != asked


def test_a_method_that_is_not_known_reads_all(store: Store) -> None:
    sweep = load_sweep(open_store(store.uri), "hostile")
    study = next(found for data in sweep.data_sets if (found := fronts.study(sweep, data)).points)
    found = by_name(parameters(sweep, study.points))
    assert HOSTILE in found["method"].present
    assert reads({"strength": None}, None, "adapter.rank")
    assert not reads({"strength": None}, None, "strength")


def test_text_and_truth_are_categories_and_a_null_among_them_has_a_name() -> None:
    mixed = Parameter(name="n", values=(1.0, "a", None))
    assert (mixed.numbers, mixed.log, mixed.range) == ((), False, False)
    many = Parameter(name="n", values=tuple(10.0**index for index in range(9)))
    assert (many.log, many.range) == (True, True)
    narrow = Parameter(name="n", values=tuple(float(index) for index in range(1, 10)))
    assert (narrow.log, narrow.range) == (False, True)


def test_an_importance_is_judged_among_the_trials_that_have_the_setting(opened: Opened) -> None:
    sweep, study, _ = opened("whole")
    points = searched(study)
    found = {one.name: one for one in influences(study, points, parameters(sweep, points))}
    strength = found["strength"]
    assert (strength.n, strength.of) == (22, 26)
    having = [point for point in points if point.strength is not None]
    cells = number_cells([point.strength or 0.0 for point in having], log=False)
    assert strength.found == tuple(importance(cells, [-point.values[row] for point in having]) for row in (0, 1))
    methods = category_cells([point.method for point in points])
    assert found["method"].found[0] == importance(methods, [-point.values[0] for point in points])
    assert found["adapter.rank"].found == (None, None)
    assert not found[TARGET_KEY].known
    told = strength.found[1]
    assert told is not None
    assert told.told
    picture = influence_picture(study, list(found.values()))
    assert picture is not None
    assert {bar.name for bar in picture.bars} == {"strength", "method", "adapter", "penalty", "optim.lr"}
    said = " ".join(mattered.importance_words(study, list(found.values())))
    assert f"fewer than {MIN_TRIALS} trials have" in said
    assert "adapter.rank (6 of 26)" in said
    assert "strength 22 of 26" in mattered.importance_caption(picture)
    table = influence_table(study, list(found.values()))
    assert len(table.rows) == 2 * len(picture.bars)


def test_a_minimised_objective_has_its_best_below(opened: Opened) -> None:
    sweep, study, _ = opened("enough")
    points = searched(study)
    varied = parameters(sweep, points)
    lowest = Objective(metric="val_accuracy", direction="minimize")
    turned = replace(study, axes=replace(study.axes, y=lowest))
    up, down = (influences(one, points, varied)[0].found[0] for one in (study, turned))
    losses = [point.values[0] for point in points]
    (rate,) = varied
    assert down == importance(number_cells(rate.numbers, log=True), losses)
    assert up != down


def test_too_few_trials_have_a_sentence_instead_of_an_importance(opened: Opened, tmp_path: Path) -> None:
    few = mattered.section(chapter(opened("few")[0], tmp_path))
    assert f"{MIN_TRIALS - 1} searched trials have come to their end, and {MIN_TRIALS} are needed" in few
    assert "PED-ANOVA" not in few
    assert not (tmp_path / "importance.svg").exists()
    assert (tmp_path / "slices.svg").exists()
    enough = mattered.section(chapter(opened("enough")[0], tmp_path))
    assert "are needed" not in enough
    assert "by val accuracy (5 of 20 trials) is settled in part by a single setting: optim.lr" in enough
    assert "tie for the best val similarity (CKA)" in enough
    assert (tmp_path / "importance.svg").exists()


def test_slices_have_every_searched_trial_once_per_setting(opened: Opened) -> None:
    sweep, study, styles = opened("whole")
    points = searched(study)
    picture = slices_picture(study, points, parameters(sweep, points), styles)
    assert picture is not None
    parts = {part.name: part for part in picture.slices}
    assert picture.metrics == ("val_accuracy", "val_cka")
    assert [len(parts[name].dots[1]) for name in ("method", "adapter.rank", TARGET_KEY)] == [26, 6, 4]
    assert parts["method"].names == tuple(name for name in styles.methods if name in ("repsim", "hcs", "lora+repsim"))
    assert {round(dot.x) for dot in parts["method"].dots[0]} == {0, 1, 2}
    for dot in parts["method"].dots[0]:
        assert parts["method"].names[round(dot.x)] == dot.method
    assert (parts["optim.lr"].log, parts["optim.lr"].names) == (True, ())
    assert {dot.x for dot in parts["adapter.rank"].dots[0]} == {4.0, 8.0, 16.0}
    assert {dot.y for dot in parts["optim.lr"].dots[0]} == {p.values[0] for p in points}
    assert slices_picture(study, points[:2], parameters(sweep, points[:2]), styles) is None
    assert slices_picture(study, points, (), styles) is None


def test_a_setting_with_too_many_names_is_named_and_not_drawn(opened: Opened) -> None:
    _, study, styles = opened("whole")
    points = searched(study)
    many = Parameter(name="many", values=tuple(f"v{index}" for index in range(len(points))))
    two = Parameter(name="two", values=tuple("ab"[index % 2] for index in range(len(points))))
    picture = slices_picture(study, points, (many, two), styles)
    assert picture is not None
    assert ([part.name for part in picture.slices], picture.left_out) == (["two"], ("many",))
    assert "Not shown: many." in mattered.slices_caption(picture)


def series(picture: StrengthPicture, method: str, metric: str) -> Series:
    column = [name for name, _ in picture.columns].index(method)
    (found,) = picture.panels[picture.metrics.index(metric)][column]
    return found


def test_each_method_stands_against_what_it_was_asked(opened: Opened) -> None:
    sweep, study, styles = opened("whole")
    picture = strength_picture(sweep, study, styles)
    assert picture is not None
    assert set(picture.columns) == {("repsim", STRENGTH), ("lora+repsim", STRENGTH), ("hcs", TARGET_KEY)}
    assert picture.metrics == ("val_accuracy", "val_cka")
    assert picture.left_out == 1, "λ = 0"
    repsim, hcs = series(picture, "repsim", "val_cka"), series(picture, "hcs", "val_cka")
    assert len(repsim.points) == 15, "none at λ = 0, none stopped early"
    assert repsim.curve is not None
    assert repsim.curve.n == 15
    assert (repsim.curve.x[0], repsim.curve.x[-1]) == pytest.approx((-1.4, 1.4))
    assert np.all(np.diff(repsim.curve.y) > 0)
    assert np.array(hcs.points) == pytest.approx(np.array([(0.6 + 0.1 * i, 0.61 + 0.1 * i) for i in range(4)]))
    assert hcs.curve is None, "four trials have no band"
    assert series(picture, "lora+repsim", "val_cka").curve is None
    assert not picture.confirmed
    caption = mattered.strength_caption(picture)
    assert "λ = 0 have no place on the axis: 1" in caption
    assert "asked for a similarity instead of λ" in caption


def test_means_over_fresh_seeds_bear_their_standard_error(opened: Opened) -> None:
    sweep, study, styles = opened("confirmed")
    picture = strength_picture(sweep, study, styles)
    assert picture is not None
    repsim = series(picture, "repsim", "val_accuracy")
    own = next(point for point in study.points if point.trial_id == REPEATED)
    ((x, mean, error),) = repsim.repeated
    assert (x, mean) == pytest.approx((own.strength, own.values[0]))
    assert error == pytest.approx(0.02 / math.sqrt(3))
    assert len(repsim.points) == 15, "the seeds are no further trials"
    assert "fresh seeds with one standard error" in mattered.strength_caption(picture)


def test_accuracy_and_similarity_are_there_when_they_are_no_objective(opened: Opened) -> None:
    sweep, study, styles = opened("whole")
    sharpness = Objective(metric="sharpness", direction="minimize")
    alone = replace(study, axes=fronts.Axes(y=sharpness, x=None, colour=None))
    picture = strength_picture(sweep, alone, styles)
    assert picture is not None
    assert picture.metrics == ("val_accuracy", "sharpness", "val_cka")


def test_nothing_to_compare_has_no_strength_picture(opened: Opened) -> None:
    sweep, study, styles = opened("enough")
    assert strength_picture(sweep, study, styles) is None
    whole, penalised, names = opened("whole")
    one = replace(penalised, points=tuple(p for p in penalised.points if p.strength is None or p.strength == 1.0))
    kept = strength_picture(whole, one, names)
    assert kept is not None
    assert kept.columns == (("hcs", TARGET_KEY),)


def test_evenly_keeps_all_of_few_and_the_spread_of_many() -> None:
    assert panels.evenly(3, 5) == [0, 1, 2]
    kept = panels.evenly(1000, 10)
    assert (len(kept), kept[0], kept[1], kept[-1]) == (10, 0, 100, 900)
    aside = [panels.spread_out(number) for number in range(50)]
    assert max(map(abs, aside)) < 0.3
    assert len({round(x, 6) for x in aside}) == 50


def test_the_chapter_is_labelled_and_its_pictures_are_there(opened: Opened, tmp_path: Path) -> None:
    made = chapter(opened("confirmed")[0], tmp_path)
    text = mattered.section(made)
    assert text.startswith("<h2>What mattered (exploratory)</h2>")
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{name}.{suffix}" for name in ("importance", "slices", "strength") for suffix in ("svg", "png")
    }
    for words in (
        "Which settings decided",
        "Every trial against every setting",
        "What the strength does",
        "n = 1 each",
    ):
        assert words in text, words
    assert mattered.section(made) == text
    assert "NaN" not in (tmp_path / "strength.svg").read_text()


def test_several_data_sets_are_named(store: Store, tmp_path: Path) -> None:
    text = mattered.section(chapter(load_sweep(open_store(store.uri), "two"), tmp_path))
    assert "<h3>folder:/images/&lt;b&gt;a&lt;/b&gt;</h3>" in text
    assert text.count("<h4>What the strength does</h4>") == 2
    assert (tmp_path / "strength_2.svg").exists()


@pytest.mark.parametrize("name", ["single", "running", "failed", "lacking", "nothing"])
def test_where_nothing_varied_there_is_no_chapter(store: Store, tmp_path: Path, name: str) -> None:
    assert mattered.section(chapter(load_sweep(open_store(store.uri), name), tmp_path)) == ""
    assert not list(tmp_path.iterdir())


def test_stopped_trials_alone_have_no_chapter(opened: Opened, tmp_path: Path) -> None:
    assert mattered.section(chapter(opened("stopped")[0], tmp_path)) == ""


def test_hostile_names_are_text(opened: Opened, tmp_path: Path) -> None:
    sweep, study, _ = opened("whole")
    configs = {
        run_id: {**values, f"x.{HOSTILE}": HOSTILE if number % 2 else "b"}
        for number, (run_id, values) in enumerate(sweep.configs.items())
    }
    points = tuple(
        replace(point, backbone=HOSTILE if number % 2 else "_b$x^2$") for number, point in enumerate(study.points)
    )
    styles = choose_styles([point.method for point in points], [point.backbone for point in points])
    made = chapter(sweep, tmp_path)
    hostile = replace(
        made, sweep=replace(sweep, configs=configs), studies=(replace(study, points=points),), styles=styles
    )
    text = mattered.section(hostile)
    assert "x.&lt;script&gt;" in text
    assert not re.search("<script", text)
