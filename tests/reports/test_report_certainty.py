"""How sure a confirmed value is: seeds that change nothing are no certainty."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.axes import Axes

from reports import answer, certainty, fronts, paper_style, paper_tables, words
from reports.build import build_report
from reports.chapters.strength import strength_picture
from reports.confirmed import Estimate, standard_error_of_mean
from reports.drawing import draw_front
from reports.figures import FrontPicture, choose_styles, front_picture
from reports.fronts import Point, Study
from reports.load import Sweep
from reports.run_links import run_links
from reports.style import LIGHT
from tests.reports.front_sweep import DATA

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
PROBE = math.sqrt(0.775 * 0.225 / 120)
"""The binomial standard error of the linear probe of the sweep."""


@pytest.fixture
def study(front_sweep: Sweep) -> Study:
    return fronts.study(front_sweep, DATA)


def member(study: Study, trial_id: str) -> Point:
    return next(point for point in study.means if point.trial_id == trial_id)


def picture(study: Study) -> FrontPicture:
    styles = choose_styles([point.method for point in study.points], list(study.backbones))
    found = front_picture(study, styles)
    assert found is not None
    return found


def test_equal_values_show_no_spread() -> None:
    assert standard_error_of_mean([0.75, 0.75, 0.75]) is None
    assert standard_error_of_mean([1.0, 1.0 - 1e-9]) is None, "rounding is no spread"
    assert standard_error_of_mean([0.0, 0.0]) is None
    assert standard_error_of_mean([0.75, 0.7525]) == pytest.approx(0.00125)


def test_a_linear_probe_has_the_error_of_its_images(study: Study) -> None:
    probe = member(study, "t0000")
    assert probe.binomial
    assert probe.se == pytest.approx(PROBE)
    assert not member(study, "t0001").binomial
    assert certainty.of_value(study, probe) == (
        "A linear probe is fitted and not trained, so that every seed gives the same model, which says nothing of how "
        "sure it is: ± of val accuracy is 3.8 points (binomial, 120 val images)."
    )
    assert certainty.of_difference(study, member(study, "t0001"), probe)[-1] == (
        "t0000: a linear probe is fitted and not trained, so that every seed gives the same model, so the spread is "
        "that of t0001 alone; its val accuracy is sure to ± 3.8 points (binomial, 120 val images)"
    )
    assert "sure to" not in " ".join(certainty.of_difference(study, member(study, "t0001"), member(study, "t0003")))


def test_trained_seeds_that_happen_to_agree_are_no_certainty_either(study: Study) -> None:
    agreed = replace(member(study, "t0000"), method="repsim")
    assert certainty.of_value(study, agreed).startswith("All n = 3 fresh seeds gave the same val accuracy, which says")
    assert agreed.repeats is not None
    once = replace(agreed, repeats=replace(agreed.repeats, n=1))
    assert certainty.of_value(study, once) == (
        "One fresh seed (n = 1), which shows no spread: ± of val accuracy is 3.8 points (binomial, 120 val images)."
    )
    blind = replace(once, se=None)
    assert certainty.of_value(study, blind) == "n = 1, and no standard error of val accuracy is known."
    same = {1: 0.5, 2: 0.5, 3: 0.5}
    found = certainty.paired(same, {seed: value + 0.1 for seed, value in same.items()})
    assert found is not None
    assert found.same
    found = certainty.paired(same, {1: 0.6, 2: 0.61, 3: 0.6})
    assert found is not None
    assert not found.same


def test_no_interval_is_told_where_no_seed_changes_the_difference(study: Study) -> None:
    probe = member(study, "t0000")
    told = certainty.of_difference(study, probe, replace(probe, trial_id="t0099"))
    assert told[1] == "+0.0 points of val accuracy with every seed, so there is no interval"
    assert "there is no spread" in told[-1]


def test_the_price_is_held_against_the_larger_error(study: Study) -> None:
    best, probe = study.members[0], member(study, "t0000")
    assert words.size_of_loss(study, best, probe) == "more than one standard error (3.8 points, binomial, of t0000)"
    near = replace(probe, values=(best.values[0] - 0.03, 1.0))
    assert words.size_of_loss(study, best, near).startswith("less than one standard error (3.8 points")
    assert "over fresh seeds)" in words.size_of_loss(study, best, study.members[1])
    assert words.size_of_loss(study, replace(best, se=None), replace(probe, se=None)) == ""


def test_points_are_told_apart_by_the_binomial_error_where_seeds_do_not_vary(study: Study) -> None:
    assert study.separated == 4, "t0001 and t0002 are not told apart, the others are"
    probe = member(study, "t0000")
    values = [point.values[0] for point in study.members]
    lifted = [*values[:-1], values[-2] - 0.03]
    errors = [point.se for point in study.members if point.se is not None]
    assert fronts.separated(lifted, errors) == 3, "0.03 is less than the probe's 0.038"
    assert fronts.separated(lifted, [*errors[:-1], 0.0]) == 4, "which seeds alone would not have said"
    assert "over seeds, or binomial where seeds show no spread;" in words.separation(study)
    assert "binomial" not in words.separation(replace(study, front=study.front[:2]))
    assert probe in study.members


def test_cards_and_tables_have_no_error_of_nothing(front_sweep: Sweep, study: Study, tmp_path: Path) -> None:
    probe = member(study, "t0000")
    picks = (study.picks[0], replace(study.picks[1], point=probe))
    text = answer.section(front_sweep, [replace(study, picks=picks)], tmp_path, run_links("http://a:1", "3"))
    assert "<dd>0.775 ± 0.038</dd>" in text
    assert "<dd>1.000</dd>" in text
    assert "± 0.000" not in text
    assert "Over 3 fresh seeds: test accuracy 0.765, test similarity (CKA) 0.990." in text
    table = paper_tables.to_markdown(paper_tables.front_table(front_sweep, [study]))
    assert "± 0.000" not in table
    assert "without ± where no seed changed the value" in table
    paper = paper_style.paper_table(front_sweep, [study])
    assert paper is not None
    row = next(row for row in paper.rows if row.method == "linear_probe")
    assert row.entries[DATA].values["accuracy"] == Estimate(mean=pytest.approx(0.765), error=None)
    assert "(n = 1, or a linear probe, the same with each) give no ±" in paper.caption


def test_the_front_has_a_vertical_bar_alone_for_a_probe(
    study: Study, front_sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = picture(study)
    mark = next(mark for mark in shown.marks if mark.key == "t0000 mean")
    assert mark.binomial
    assert mark.errors == (None, pytest.approx(PROBE))
    drawn: list[tuple[object, object]] = []
    before = Axes.errorbar

    def watched(self: Axes, *args: object, **options: object) -> object:
        drawn.append((options.get("xerr"), options.get("yerr")))
        return before(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Axes, "errorbar", watched)
    draw_front(shown, LIGHT)
    assert (None, [pytest.approx(PROBE)]) in drawn
    assert len(drawn) == len(study.means)
    # equal seeds of a method with a strength keep their place in the curves
    curves = strength_picture(front_sweep, study, shown.styles)
    assert curves is not None
    assert curves.confirmed


def test_the_page_says_which_bars_are_binomial(front_store: str, tmp_path: Path) -> None:
    page = (build_report("front", front_store, tmp_path, log=False) / "index.html").read_text()
    assert "the vertical bar is the binomial standard error" in page
    assert "± 0.000" not in page
