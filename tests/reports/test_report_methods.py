"""Methods against each other: attainment surfaces, corrected tests, and comparisons cut down to an equal n."""

from __future__ import annotations

import itertools
import random
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from scipy import stats

from reports.chapters import rarefaction
from reports.chapters.attainment import QUANTILES, Attainment, attainments, shared_seeds, surface
from reports.chapters.chapter import Chapter
from reports.chapters.comparison import Paired, champions, corrected, holm, paired
from reports.chapters.method_words import paired_words
from reports.chapters.methods import equal_shares, section
from reports.chapters.methods_drawing import DRAWN, draw_methods, methods_picture
from reports.chapters.rarefaction import Box, box, expected, rarefied
from reports.figures import choose_styles
from reports.fronts import Study, study
from reports.load import Reference, Sweep, load_sweep
from reports.store import open_store
from reports.style import LIGHT
from repsim.records import Direction, Objective, Tag
from sweeps.space import space_from_dict
from sweeps.tracking import prepare_store
from sweeps.tracking_rows import sweep_tags
from tests.reports.recorded_sweeps import ACCURACY_AND_CKA, record

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


def attained(
    place: tuple[float, float], front: Sequence[tuple[float, float]], ways: tuple[Direction, Direction]
) -> bool:
    """Whether some point of ``front`` is nowhere worse than ``place``."""

    def reaches(value: float, goal: float, way: Direction) -> bool:
        return value >= goal if way == "maximize" else value <= goal

    return any(reaches(x, place[0], ways[0]) and reaches(y, place[1], ways[1]) for x, y in front)


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


def sets(*seeds: Sequence[int]) -> list[frozenset[int]]:
    return [frozenset(mine) for mine in seeds]


def test_seeds_are_those_that_most_configurations_share() -> None:
    assert shared_seeds(sets([1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3])) == {1, 2, 3}
    # one broken run, and one with a round of its own: neither takes the others' seeds away
    assert shared_seeds(sets([1, 2, 3, 4], [1, 2, 3, 4], [1, 2])) == {1, 2, 3, 4}
    assert shared_seeds(sets([1, 2, 3, 4, 9], [1, 2, 3, 4, 8], [2])) == {1, 2, 3, 4}
    assert shared_seeds(sets([1, 2], [1, 3])) == {1}
    assert shared_seeds([]) == frozenset()


def test_holm_on_a_worked_example() -> None:
    # the four p-values of Wikipedia's example ("Holm-Bonferroni method"), which rejects the first and the last at 0.05;
    # adjusted by hand: 4 x .005, 3 x .01, 2 x .03 and, no smaller than the one before, .06
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


def bare(p: float | None) -> Paired:
    return Paired(first="a", second="b", metric="test_cka", n=3, difference=0.1, error=0.01, p=p)


def test_the_correction_is_over_all_lists_and_over_the_tests_that_were_done() -> None:
    families = [[bare(0.01), bare(None)], [], [bare(0.04), bare(0.03), bare(0.005)]]
    found = corrected(families)
    assert [[test.adjusted for test in family] for family in found] == [[0.03, None], [], [0.06, 0.06, 0.02]]
    assert [len(family) for family in found] == [2, 0, 3]
    alone = [corrected([family])[0] for family in families]
    assert alone != found, "a correction for each list by itself is no correction for all"
    assert [test.found for test in found[2]] == [False, False, True]


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


def compared(found: Study) -> list[Paired]:
    return corrected([paired(found, champions(found, backbone_of(found)))])[0]


def test_a_difference_is_found_where_there_is_one_and_only_there(demo: Sweep) -> None:
    found = confirmed(demo, gap=0.05, spread=0.002)
    tests = [test for test in compared(found) if test.metric == "test_accuracy"]
    assert [(test.first, test.second, test.n) for test in tests] == [("full", "repsim", 4)]
    assert tests[0].difference == pytest.approx(-0.05, abs=0.005)
    assert tests[0].adjusted is not None
    assert tests[0].adjusted < 0.05
    rows = found.trials[found.trials["stage"] == "confirm"]
    by_method = {name: rows[rows["method"] == name].sort_values("seed")["test_accuracy"] for name in ("full", "repsim")}
    assert tests[0].p == pytest.approx(stats.ttest_rel(by_method["full"], by_method["repsim"]).pvalue)
    none = confirmed(demo, gap=0.0, spread=0.02)
    assert all(test.adjusted is None or test.adjusted > 0.05 for test in compared(none))


def test_differences_without_spread_are_no_test_and_two_seeds_are_too_few(demo: Sweep) -> None:
    found = confirmed(demo, gap=0.05, spread=0.002)
    cka = [test for test in compared(found) if test.metric == "test_cka"]
    assert [(test.p, test.adjusted, test.error) for test in cka] == [(None, None, 0.0)]
    few = confirmed(demo, gap=0.05, spread=0.002, seeds=2)
    assert compared(few) == []


def test_attainment_needs_three_seeds_that_all_configurations_have(demo: Sweep) -> None:
    found = confirmed(demo, gap=0.05, spread=0.01)
    told = attainments(found, backbone_of(found))
    assert sorted(told) == ["full", "repsim"]
    assert (told["repsim"].n, told["repsim"].configurations, len(told["repsim"].surfaces)) == (4, 1, 3)
    few = confirmed(demo, gap=0.05, spread=0.01, seeds=2)
    assert attainments(few, backbone_of(few))["repsim"].surfaces == ()


def test_a_surface_of_fresh_seeds_is_where_they_are(demo: Sweep) -> None:
    """With one configuration and equal similarities, the quartiles are order statistics of the accuracies."""
    found = confirmed(demo, gap=0.05, spread=0.01)
    rows = found.trials[(found.trials["stage"] == "confirm") & (found.trials["method"] == "repsim")]
    falling = sorted(rows["val_accuracy"], reverse=True)
    surfaces = attainments(found, backbone_of(found))["repsim"].surfaces
    assert [stairs[-1][1] for stairs in surfaces] == [falling[0], falling[1], falling[2]]


def test_what_breaks_the_constraints_attains_nothing_and_stands_for_nobody(demo: Sweep) -> None:
    strict = replace(demo, constraints=("val_accuracy >= 0.83",))
    found = confirmed(strict, gap=0.1, spread=0.001)
    assert list(attainments(found, found.means[0].backbone)) == ["repsim"]
    assert list(champions(found, found.means[0].backbone)) == ["repsim"]
    assert compared(found) == []


def test_three_objectives_have_no_surfaces(demo: Sweep) -> None:
    third = Objective(metric="sharpness", direction="minimize")
    found = confirmed(replace(demo, objectives=(*demo.objectives, third)), gap=0.05, spread=0.01)
    assert len(found.means) == 2
    assert attainments(found, backbone_of(found)) == {}


def test_the_best_configuration_is_chosen_by_val_means_and_says_of_how_many(demo: Sweep) -> None:
    found = confirmed(demo, gap=0.0, spread=0.02)
    mean = next(point for point in found.means if point.method == "repsim")
    backbone = mean.backbone
    other = next(p for p in found.points if p.method == "repsim" and p.run_id != mean.run_id and p.eligible)
    rows = found.trials[(found.trials["stage"] == "confirm") & (found.trials["method"] == "repsim")].copy()
    config = found.trials.set_index("mlflow_run_id").loc[other.run_id, "config_id"]
    rows["config_id"], rows["test_accuracy"] = config, rows["test_accuracy"] + 0.3
    better = replace(mean, run_id=other.run_id, trial_id=other.trial_id, values=(mean.values[0] - 0.01, mean.values[1]))
    both = replace(found, means=(*found.means, better), trials=pd.concat([found.trials, rows], ignore_index=True))
    champion = champions(both, backbone)["repsim"]
    assert (champion.of, champion.point.trial_id) == (2, mean.trial_id), "better on test alone is no reason"
    raised = replace(better, values=(mean.values[0] + 0.01, mean.values[1]))
    both = replace(both, means=(*found.means, raised))
    assert champions(both, backbone)["repsim"].point.trial_id == other.trial_id


UNIT = Box(worst=(0.0, 0.0), ideal=(1.0, 1.0), directions=("maximize", "maximize"))
MIXED = Box(worst=(0.1, 0.9, 2.0), ideal=(0.8, 0.2, -1.0), directions=("maximize", "minimize", "minimize"))


@pytest.mark.parametrize("measured", [UNIT, MIXED])
def test_the_expected_hypervolume_is_the_mean_over_all_subsets(measured: Box) -> None:
    """Against enumeration, with failed trials, ties, points outside the box and points beyond its ideal corner."""
    rng = random.Random(8)
    differ = 0
    for _ in range(12):
        n = rng.randrange(2, 8)
        points = [
            tuple(
                w + (i - w) * rng.choice([-0.2, 0.1, 0.4, 0.4, 0.8, 1.1])
                for w, i in zip(measured.worst, measured.ideal, strict=True)
            )
            for _ in range(rng.randrange(n + 1))
        ]
        trials = [*points, *[None] * (n - len(points))]
        means = []
        for m in range(1, n + 1):
            subsets = itertools.combinations(trials, m)
            volumes = [measured.share([point for point in some if point is not None]) for some in subsets]
            means.append(statistics.fmean(volumes))
            assert expected(points, n, m, measured) == (pytest.approx(means[-1], abs=1e-12), True)
        assert expected(points, n, n, measured)[0] == pytest.approx(measured.share(points), abs=1e-12)
        assert means == sorted(means), "more trials are never worth less"
        shuffled = rng.sample(points, len(points))
        assert expected(shuffled, n, 1, measured)[0] == pytest.approx(means[0], abs=1e-12)
        differ += means[0] < means[-1] - 1e-6
    assert differ > 5, "cutting down must make a difference"


def test_many_points_in_three_objectives_are_judged_at_random_places(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(9)
    points = [
        tuple(w + (i - w) * rng.random() for w, i in zip(MIXED.worst, MIXED.ideal, strict=True)) for _ in range(20)
    ]
    exact, yes = expected(points, 25, 6, MIXED)
    monkeypatch.setattr(rarefaction, "EXACT_POINTS", 10)
    near, no = expected(points, 25, 6, MIXED)
    assert (yes, no) == (True, False)
    assert near != exact
    assert near == pytest.approx(exact, abs=4 * 0.5 / rarefaction.PLACES**0.5)


@pytest.mark.parametrize(("points", "n", "m"), [(1, 3, 0), (1, 3, 4), (4, 3, 2)])
def test_what_cannot_be_drawn_is_refused(points: int, n: int, m: int) -> None:
    with pytest.raises(ValueError, match="cannot be drawn"):
        expected([(0.5, 0.5)] * points, n, m, UNIT)


def test_ten_thousand_trials_are_cut_down_in_seconds() -> None:
    rng = random.Random(10)
    points = [(rng.random(), rng.random()) for _ in range(3000)]
    before = time.perf_counter()
    found, exact = expected(points, 10_000, 500, UNIT)
    assert exact
    assert 0.9 < found < 1.0
    assert time.perf_counter() - before < 20


def test_methods_are_cut_down_to_the_least_tried(demo: Sweep) -> None:
    whole = study(demo, DATA)
    backbone = whole.backbones[0]
    found = rarefied(whole, backbone)
    assert len(found) > 1
    assert len({one.m for one in found}) == 1
    assert min(one.n for one in found) == found[0].m
    least = next(one for one in found if one.n == one.m)
    assert all(one.exact for one in found)
    assert least.mean == pytest.approx(least.whole)
    assert [one.mean for one in found] == sorted((one.mean for one in found), reverse=True)
    more = next(one for one in found if one.n > one.m)
    assert more.mean < more.whole
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


def balanced(sweep: Sweep) -> Sweep:
    """The demo on one backbone, with what the search was told to do."""
    trials = sweep.trials.assign(backbone="tf_efficientnet_lite0").astype(sweep.trials.dtypes.to_dict())
    return replace(sweep, trials=trials, search={"search": {"balance": "method"}})


@pytest.mark.parametrize(
    ("worst", "ideal"),
    [
        ({"val_accuracy": 0.5}, {"val_accuracy": 1.0, "val_cka": 1.0}),
        ({"val_accuracy": 0.5, "val_cka": 1.0}, {"val_accuracy": 1.0, "val_cka": 1.0}),
        ({"val_accuracy": 0.5, "val_cka": "a lot"}, {"val_accuracy": 1.0, "val_cka": 1.0}),
    ],
)
def test_a_box_that_measures_nothing_is_said_and_breaks_nothing(
    demo: Sweep, tmp_path: Path, worst: dict[str, float], ideal: dict[str, float]
) -> None:
    sweep = replace(balanced(demo), references={DATA: Reference(worst=worst, ideal=ideal)})
    found = confirmed(sweep, gap=0.05, spread=0.002)
    assert box(found) is None
    assert rarefied(found, backbone_of(found)) == []
    assert len(champions(found, backbone_of(found))) == 2
    html = section(chapter(sweep, (found,), tmp_path))
    assert "no box to measure a hypervolume in" in html
    assert "Differences found" in html
    assert box(study(demo, DATA)) is not None


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
    assert "over all tests of this chapter (1)" in html, "equal similarities in every seed are no test"
    assert "full lower" in html
    assert "the same in every seed: not tested" in html
    none = section(chapter(demo, (confirmed(demo, gap=0.0, spread=0.02),), tmp_path))
    assert "No difference was found" in none


def test_two_data_sets_are_corrected_together(demo: Sweep, tmp_path: Path) -> None:
    one = confirmed(replace(balanced(demo), search={}), gap=0.05, spread=0.002)
    both = section(chapter(demo, (one, replace(one, data="another")), tmp_path))
    assert "over all tests of this chapter (2)" in both
    assert both.count("<h3>On ") == 2
    shown = [float(p) for p in re.findall(r"p = ([\d.e-]+) \(Holm\)", both)]
    alone = next(test.adjusted for test in compared(one) if test.found)
    assert alone is not None
    assert shown == pytest.approx([2 * alone] * 2, rel=0.01)


def test_words_say_when_only_some_differ() -> None:
    said, lines = paired_words([replace(bare(0.01), adjusted=0.02), replace(bare(0.5), adjusted=0.5)], 2)
    assert said.endswith("Differences found; in the other tests none was found:")
    assert lines == ["a against b: test similarity (CKA) +0.1 ± 0.01 (mean difference ± SEM), n = 3, p = 0.02 (Holm)"]


def test_equal_shares_are_fair_and_only_they(demo: Sweep, tmp_path: Path) -> None:
    fair = balanced(demo)
    assert equal_shares(fair.search, study(fair, DATA))
    html = section(chapter(fair, (study(fair, DATA),), tmp_path))
    assert "an equal share of trials (search.balance: method)" in html
    assert "no error bars" in html
    assert "Exploratory" not in html
    other = replace(fair, search={"search": {"balance": "backbone"}})
    assert "Exploratory" in section(chapter(other, (study(other, DATA),), tmp_path))
    # within a backbone that the methods chose among, shares are not equal
    assert not equal_shares(fair.search, study(demo, DATA))


def test_equal_shares_are_compared_beside_confirmed_configurations(demo: Sweep, tmp_path: Path) -> None:
    fair = balanced(demo)
    found = confirmed(fair, gap=0.05, spread=0.002)
    html = section(chapter(fair, (found,), tmp_path))
    assert "paired t-tests" in html
    assert "an equal share of trials" in html
    html = section(chapter(replace(fair, search={}), (found,), tmp_path))
    assert "paired t-tests" in html
    assert "hypervolume" not in html


def test_the_sweep_records_how_it_searched(demo: Sweep, tmp_path: Path) -> None:
    """From the space over MLflow's tags to the report, and nothing where an older sweep recorded nothing."""
    document = {
        "name": "balanced", "objectives": list(ACCURACY_AND_CKA),
        "search": {"balance": "method", "seed": 3}, "space": {"method": ["full", "repsim"]},
    }  # fmt: skip
    told = sweep_tags(space_from_dict(document), "balanced", {}, "python sweeps/launch.py")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    prepare_store(uri)
    client = MlflowClient(tracking_uri=uri)
    record(client, "new", [], tags={Tag.SEARCH: told[Tag.SEARCH]})
    record(client, "old", [])
    found = study(balanced(demo), DATA)
    assert equal_shares(load_sweep(open_store(uri), "new").search, found)
    assert not equal_shares(load_sweep(open_store(uri), "old").search, found)


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
    drawn = [place for panel in picture.panels for place in (*panel.points, *panel.infeasible)]
    assert sorted(drawn) == sorted(picture.everything)
    assert methods_picture(found, styles, backbone, methods[:1]) is None
    assert not picture.sampled
    assert [panel.trials for panel in picture.panels] == [
        len(panel.points) + len(panel.infeasible) for panel in picture.panels
    ]
    assert picture.panels[0].attained == Attainment()


def test_of_many_trials_a_sample_is_drawn_and_every_front(demo: Sweep) -> None:
    found = study(demo, DATA)
    backbone = found.backbones[0]
    some = next(p for p in found.points if p.method == "repsim" and p.backbone == backbone and p.eligible)
    ramp = [replace(some, run_id=f"r{i}", values=(0.5 + i / 10**4, 0.9 - i / 10**4)) for i in range(1000)]
    below = [replace(some, run_id=f"b{i}", values=(0.4 + i / 10**5, 0.3)) for i in range(3000)]
    methods = tuple(dict.fromkeys(point.method for point in found.points))
    picture = methods_picture(
        replace(found, points=(*found.points, *ramp[:10], *below)),
        choose_styles(methods, found.backbones),
        backbone,
        methods,
    )
    assert picture is not None
    assert picture.sampled
    panel = next(panel for panel in picture.panels if panel.method == "repsim")
    assert panel.trials > 3000
    assert DRAWN / 2 < len(panel.points) <= DRAWN + len(panel.steps)
    assert len(picture.everything) <= DRAWN
    corners = set(panel.steps[::2])
    assert corners <= set(panel.points), "no corner of a front is left out"


def test_means_have_the_front_of_their_method(demo: Sweep) -> None:
    found = confirmed(demo, gap=0.05, spread=0.002)
    methods = tuple(dict.fromkeys(point.method for point in found.points))
    picture = methods_picture(found, choose_styles(methods, found.backbones), backbone_of(found), methods)
    assert picture is not None
    panels = {panel.method: panel for panel in picture.panels}
    mean = next(point for point in found.means if point.method == "repsim")
    assert panels["repsim"].steps == panels["repsim"].means == ((mean.values[1], mean.values[0]),)
    assert panels["hcs"].means == ()
    assert panels["hcs"].steps
    assert "n = 4 seeds" in panels["repsim"].note
    assert "seeds" not in panels["hcs"].note


def test_surfaces_are_drawn_as_lines_and_single_corners_as_points(demo: Sweep) -> None:
    found = confirmed(demo, gap=0.05, spread=0.002)
    methods = ("full", "repsim")
    picture = methods_picture(found, choose_styles(methods, found.backbones), backbone_of(found), methods)
    assert picture is not None
    stairs = ((0.2, 0.9), (0.4, 0.9), (0.4, 0.8))
    longer = replace(picture.panels[0], attained=Attainment(n=3, configurations=2, surfaces=(stairs, stairs, stairs)))
    axes = draw_methods(replace(picture, panels=(longer, picture.panels[1])), LIGHT).axes
    dark = [[line for line in one.lines if line.get_color() == LIGHT.ink] for one in axes[:2]]
    assert [line.get_marker() for line in dark[0]] == ["none"] * 3
    assert [list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in dark[0]] == [list(stairs)] * 3
    assert [line.get_marker() for line in dark[1]] == ["."] * 3
