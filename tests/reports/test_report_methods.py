"""Methods against each other: attainment surfaces, corrected tests, and comparisons cut down to an equal n."""

from __future__ import annotations

import itertools
import random
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from reports.chapters.attainment import QUANTILES, attained, attainment, surface
from reports.chapters.chapter import Chapter
from reports.chapters.comparison import holm, paired, rarefied
from reports.chapters.methods import section
from reports.chapters.methods_drawing import methods_picture
from reports.figures import choose_styles
from reports.fronts import Study, study
from reports.load import Sweep, load_sweep
from reports.store import open_store
from repsim.records import Direction

# MLflow's own use of SQLAlchemy
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
DATA = "phantom:ultrasound"
WAYS: list[tuple[Direction, Direction]] = [
    ("maximize", "maximize"),
    ("minimize", "maximize"),
    ("maximize", "minimize"),
    ("minimize", "minimize"),
]


@pytest.fixture(scope="module")
def demo(store: object) -> Sweep:
    return load_sweep(open_store(store.uri), "demo")  # type: ignore[attr-defined]


def random_fronts(rng: random.Random, n: int) -> list[list[tuple[float, float]]]:
    """Values on a coarse grid, so that ties happen."""
    return [[(rng.randrange(7) / 7, rng.randrange(7) / 7) for _ in range(rng.randrange(1, 5))] for _ in range(n)]


@pytest.mark.parametrize("ways", WAYS)
def test_a_surface_bounds_what_that_share_of_the_fronts_attains(ways: tuple[Direction, Direction]) -> None:
    rng = random.Random(3)
    for _ in range(40):
        fronts = random_fronts(rng, rng.randrange(1, 6))
        for share in QUANTILES:
            stairs = surface(fronts, share, ways)
            assert list(stairs) == sorted(stairs, key=lambda place: place[0])
            for place in itertools.product([i / 14 for i in range(15)], repeat=2):
                reached = sum(attained(place, front, ways) for front in fronts)
                assert attained(place, stairs, ways) == (reached >= share * len(fronts)), (fronts, share, place)


def test_surfaces_are_nested_and_do_differ() -> None:
    rng = random.Random(4)
    differ = 0
    for _ in range(40):
        fronts = random_fronts(rng, 5)
        quarter, half, most = (surface(fronts, share, WAYS[0]) for share in QUANTILES)
        assert all(attained(place, half, WAYS[0]) for place in most)
        assert all(attained(place, quarter, WAYS[0]) for place in half)
        differ += quarter != most
    assert differ > 30


def test_the_order_of_fronts_and_points_does_not_matter() -> None:
    fronts = random_fronts(random.Random(5), 5)
    again = [list(reversed(front)) for front in reversed(fronts)]
    assert surface(fronts, 0.5, WAYS[0]) == surface(again, 0.5, WAYS[0])


def test_holm_on_a_worked_example() -> None:
    # computed by hand from Holm's rule: 4 x .005, 3 x .01, 2 x .03 and, no smaller than the one before, .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.2]) == [0.2]


def test_holm_is_between_no_correction_and_bonferroni_and_keeps_the_order() -> None:
    rng = random.Random(6)
    for _ in range(50):
        values = [rng.random() ** 3 for _ in range(rng.randrange(1, 9))]
        found = holm(values)
        assert all(p <= q <= min(1.0, len(values) * p) + 1e-15 for p, q in zip(values, found, strict=True))
        order = sorted(range(len(values)), key=values.__getitem__)
        assert [found[i] for i in order] == sorted(found)
        turned = holm(values[::-1])
        assert turned == found[::-1]


def confirmed(sweep: Sweep, gap: float, spread: float, seeds: int = 4) -> Study:
    """The demo with fresh seeds for one full and one repsim configuration; repsim is ``gap`` better in accuracy."""
    rng = random.Random(1)
    trials = sweep.trials
    chosen = [
        trials[(trials["method"] == name) & (trials["status"] == "completed")].iloc[1] for name in ("full", "repsim")
    ]
    rows = []
    for seed in range(1, seeds + 1):
        luck = rng.gauss(0, 0.02)
        for number, search_row in enumerate(chosen):
            row = search_row.copy()
            for metric in ("val_accuracy", "test_accuracy"):
                row[metric] = 0.8 + luck + number * gap + rng.gauss(0, spread)
            row["stage"], row["seed"] = "confirm", seed
            row["trial_id"], row["mlflow_run_id"] = f"c{number}{seed}", f"run-c{number}{seed}"
            row["backbone"] = chosen[0]["backbone"]
            rows.append(row)
    same = trials.copy()
    for row in chosen:
        same.loc[same["mlflow_run_id"] == row["mlflow_run_id"], "backbone"] = chosen[0]["backbone"]
    grown = pd.concat([same, pd.DataFrame(rows)], ignore_index=True).astype(trials.dtypes.to_dict())
    configs = dict(sweep.configs) | {str(row["mlflow_run_id"]): {} for row in rows}
    facts = dict(sweep.facts) | {str(row["mlflow_run_id"]): {} for row in rows}
    return study(replace(sweep, trials=grown, configs=configs, facts=facts), DATA)


def backbone_of(found: Study) -> str:
    return next(point.backbone for point in found.means)


def test_a_difference_is_found_where_there_is_one_and_only_there(demo: Sweep) -> None:
    found = confirmed(demo, gap=0.05, spread=0.002)
    tests = [test for test in paired(found, backbone_of(found)) if test.metric == "test_accuracy"]
    assert [(test.first, test.second, test.n) for test in tests] == [("full", "repsim", 4)]
    assert tests[0].difference == pytest.approx(-0.05, abs=0.005)
    assert tests[0].adjusted is not None
    assert tests[0].adjusted < 0.05
    rows = found.trials[found.trials["stage"] == "confirm"]
    by_method = {name: rows[rows["method"] == name].sort_values("seed")["test_accuracy"] for name in ("full", "repsim")}
    assert tests[0].p == pytest.approx(stats.ttest_rel(by_method["full"], by_method["repsim"]).pvalue)
    none = confirmed(demo, gap=0.0, spread=0.02)
    assert all(test.adjusted is None or test.adjusted > 0.05 for test in paired(none, backbone_of(none)))


def test_differences_without_spread_are_no_test_and_two_seeds_are_too_few(demo: Sweep) -> None:
    found = confirmed(demo, gap=0.05, spread=0.002)
    cka = [test for test in paired(found, backbone_of(found)) if test.metric == "test_cka"]
    assert [(test.p, test.adjusted, test.error) for test in cka] == [(None, None, 0.0)]
    few = confirmed(demo, gap=0.05, spread=0.002, seeds=2)
    assert paired(few, backbone_of(few)) == []


def test_attainment_needs_three_seeds_that_all_configurations_have(demo: Sweep) -> None:
    found = confirmed(demo, gap=0.05, spread=0.01)
    told = attainment(found, "repsim", backbone_of(found))
    assert (told.n, told.configurations, len(told.surfaces)) == (4, 1, 3)
    few = confirmed(demo, gap=0.05, spread=0.01, seeds=2)
    assert attainment(few, "repsim", backbone_of(few)).surfaces == ()
    assert attainment(found, "hcs", backbone_of(found)).n == 0


def test_methods_are_cut_down_to_the_least_tried(demo: Sweep) -> None:
    whole = study(demo, DATA)
    backbone = whole.backbones[0]
    found = rarefied(whole, backbone)
    assert len(found) > 1
    assert len({one.m for one in found}) == 1
    assert min(one.n for one in found) == found[0].m
    least = next(one for one in found if one.n == one.m)
    assert least.exact
    assert least.spread == 0.0
    assert [one.mean for one in found] == sorted((one.mean for one in found), reverse=True)
    more = next(one for one in found if one.n > one.m)
    assert more.spread > 0.0
    assert rarefied(replace(whole, reference=None), backbone) == []


def test_what_was_tried_in_vain_counts_as_tried(demo: Sweep) -> None:
    """A failed trial can only lower what a random subset of the same size is worth."""
    whole = study(demo, DATA)
    backbone = whole.backbones[0]
    before = {one.method: one for one in rarefied(whole, backbone)}
    name = max(before, key=lambda method: before[method].n)
    some = whole.trials[(whole.trials["method"] == name) & (whole.trials["backbone"] == backbone)].iloc[:1]
    failed = some.assign(status="failed", mlflow_run_id="another", trial_id="t9999", stage="search")
    after = {
        one.method: one
        for one in rarefied(replace(whole, trials=pd.concat([whole.trials, failed], ignore_index=True)), backbone)
    }
    assert after[name].n == before[name].n + 1
    assert after[name].mean < before[name].mean


def chapter(sweep: Sweep, studies: tuple[Study, ...], folder: Path) -> Chapter:
    points = [point for found in studies for point in found.points]
    return Chapter(
        sweep=sweep,
        studies=studies,
        styles=choose_styles([point.method for point in points], [point.backbone for point in points]),
        stems=tuple("" if len(studies) == 1 else f"_{number}" for number in range(len(studies))),
        figures=folder,
        report=folder,
    )


def test_the_section_without_fresh_seeds_is_exploratory(demo: Sweep, tmp_path: Path) -> None:
    html = section(chapter(demo, (study(demo, DATA),), tmp_path))
    assert html.startswith("<h2>Method by method</h2>")
    assert "There are no attainment surfaces" in html
    assert "Exploratory" in html
    assert re.search(r"Holm", html) is None
    assert sorted(path.name for path in tmp_path.glob("*.svg")) == ["methods_backbone_1.svg", "methods_backbone_2.svg"]


def test_the_section_with_fresh_seeds_compares_them(demo: Sweep, tmp_path: Path) -> None:
    html = section(chapter(demo, (confirmed(demo, gap=0.05, spread=0.002),), tmp_path))
    assert "Differences found" in html
    assert "full against repsim: test accuracy" in html
    assert "n = 4 fresh seeds attain" in html
    none = section(chapter(demo, (confirmed(demo, gap=0.0, spread=0.02),), tmp_path))
    assert "No difference was found" in none


@pytest.mark.parametrize("name", ["two", "single", "hostile", "running", "failed", "lacking", "nothing"])
def test_every_state_has_a_section_or_none(name: str, store: object, tmp_path: Path) -> None:
    sweep = load_sweep(open_store(store.uri), name)  # type: ignore[attr-defined]
    html = section(chapter(sweep, tuple(study(sweep, data) for data in sweep.data_sets), tmp_path))
    assert "<script" not in html
    assert bool(html) == (name in ("two", "hostile"))


def test_a_picture_has_a_panel_per_method_and_everything_behind_it(demo: Sweep) -> None:
    found = study(demo, DATA)
    backbone = found.backbones[0]
    points = [point for point in found.points if point.backbone == backbone and not point.pruned]
    methods = tuple(dict.fromkeys(point.method for point in points))
    styles = choose_styles(methods, found.backbones)
    picture = methods_picture(found, styles, backbone, methods)
    assert picture is not None
    assert [panel.method for panel in picture.panels] == list(methods)
    assert sorted(place for panel in picture.panels for place in panel.points) == sorted(picture.everything)
    assert methods_picture(found, styles, backbone, methods[:1]) is None
