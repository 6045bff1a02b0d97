"""What the numbers say: builders on values written by hand."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from reports.figures import choose_styles, front_picture, shorten, staircase
from reports.fronts import (
    Point,
    Study,
    choose_axes,
    front_order,
    hypervolume_course,
    knee,
    meets,
    recommend,
    separated,
    standard_error,
)
from reports.load import Reference, param_value
from reports.paper_tables import Table, show, tex_escape, to_csv, to_latex, to_markdown
from reports.points import file_name, space_name, yaml_scalar
from reports.style import DARK, LIGHT
from reports.values import finite
from reports.words import headline
from repsim.records import Objective

ACCURACY = Objective(metric="val_accuracy", direction="maximize")
CKA = Objective(metric="val_cka", direction="maximize")
SHARPNESS = Objective(metric="sharpness", direction="minimize")
BOTH = (ACCURACY, CKA)


def point(
    trial_id: str,
    *values: float,
    se: float | None = 0.02,
    eligible: bool = True,
    backbone: str = "b",
    anchor: bool = False,
) -> Point:
    return Point(
        trial_id=trial_id,
        run_id=f"run-{trial_id}",
        method="repsim",
        backbone=backbone,
        strength=float(trial_id[1:]) + 1,
        values=values,
        se=se,
        eligible=eligible,
        anchor=anchor,
    )


def study_of(points: list[Point], status: str = "completed", trials: int | None = None) -> Study:
    front = front_order(points, BOTH)
    count = len(points) if trials is None else trials
    frame = pd.DataFrame({"stage": ["search"] * count, "status": [status] * count, "n_val": [100] * count})
    return Study(
        data="d",
        axes=choose_axes(BOTH),
        trials=frame,
        points=tuple(points),
        front=front,
        picks=recommend([points[i] for i in front], BOTH),
        separated=None,
        counts={},
        incomplete=(),
        reference=None,
        course=(),
        course_note="",
    )


def test_axes_put_accuracy_up_and_a_third_objective_into_colour() -> None:
    axes = choose_axes([SHARPNESS, CKA, ACCURACY])
    assert (axes.y, axes.x, axes.colour) == (ACCURACY, CKA, SHARPNESS)
    assert choose_axes([CKA]).x is None


def test_front_keeps_equal_points_and_never_takes_an_ineligible_one() -> None:
    points = [
        point("t0000", 0.9, 0.5),
        point("t0001", 0.9, 0.5),
        point("t0002", 0.8, 0.9),
        point("t0003", 0.85, 0.4),
        point("t0004", 0.99, 0.99, eligible=False),
    ]
    assert front_order(points, BOTH) == (0, 1, 2)


def test_front_with_a_minimised_objective() -> None:
    points = [point("t0000", 0.9, 0.05), point("t0001", 0.9, 0.01), point("t0002", 0.8, 0.02)]
    assert front_order(points, (ACCURACY, SHARPNESS)) == (1,)


def test_standard_error_is_binomial() -> None:
    assert standard_error(0.9, 100) == pytest.approx(0.03)
    assert standard_error(1.0, 50) == 0.0
    assert standard_error(0.9, 0) is None
    assert standard_error(1.2, 10) is None
    draws = np.random.default_rng(0).binomial(50, 0.7, size=20_000) / 50
    assert standard_error(0.7, 50) == pytest.approx(draws.std(), rel=0.02)


@pytest.mark.parametrize(
    ("values", "error", "expected"),
    [([0.9, 0.89, 0.88, 0.87, 0.80], 0.02, 3), ([0.9, 0.9], 0.0, 1), ([0.9, 0.8, 0.7], 0.05, 3), ([], 0.1, 0)],
)
def test_separated_counts_points_pairwise_more_than_an_error_apart(
    values: list[float], error: float, expected: int
) -> None:
    assert separated(values, [error] * len(values)) == expected


def test_separated_uses_the_larger_of_two_errors() -> None:
    assert separated([0.95, 0.92], [0.02, 0.02]) == 2
    assert separated([0.95, 0.92], [0.02, 0.04]) == 1


def test_knee_is_nearest_to_the_scaled_ideal() -> None:
    members = [point("t0000", 0.95, 0.4), point("t0001", 0.93, 0.85), point("t0002", 0.78, 1.0)]
    found = knee(members, BOTH)
    assert found is not None
    assert found.trial_id == "t0001"
    assert knee(members[:2], BOTH) is None
    assert knee([point(f"t000{i}", 0.9, 0.5) for i in range(3)], BOTH) is None


def test_recommended_points() -> None:
    members = [
        point("t0000", 0.95, 0.4),
        point("t0001", 0.94, 0.6),
        point("t0002", 0.90, 0.9),
        point("t0003", 0.8, 1.0),
    ]
    assert [(pick.role, pick.point.trial_id) for pick in recommend(members, BOTH)] == [
        ("best val accuracy", "t0000"),
        ("knee of the front", "t0002"),
        ("best val similarity (CKA) within one standard error of the best val accuracy", "t0001"),
    ]
    without = [replace(member, se=None) for member in members]
    assert not any("standard error" in pick.role for pick in recommend(without, BOTH))
    assert recommend([], BOTH) == ()
    assert len(recommend(members, (ACCURACY,))) == 1


def test_constraints_are_judged_and_unreadable_ones_do_not_hold() -> None:
    assert meets(["val_accuracy >= 0.7", "sharpness<=0.1"], {"val_accuracy": 0.7, "sharpness": 0.1})
    assert not meets(["val_accuracy >= 0.7"], {"val_accuracy": 0.69})
    assert not meets(["val_accuracy >= 0.7"], {"val_accuracy": None})
    assert not meets(["val_accuracy is nice"], {"val_accuracy": 0.9})
    assert meets([], {})


def test_staircase_turns_on_the_dominated_side() -> None:
    members = [point("t0000", 0.9, 0.4), point("t0001", 0.8, 0.6), point("t0002", 0.8, 0.6)]
    assert staircase(members, "maximize") == ((0.4, 0.9), (0.4, 0.8), (0.6, 0.8))
    rising = [point("t0000", 0.8, 0.1), point("t0001", 0.9, 0.3)]
    assert staircase(rising, "minimize") == ((0.1, 0.8), (0.3, 0.8), (0.3, 0.9))
    assert staircase([], "maximize") == ()


def test_hypervolume_course_follows_the_end_times_and_says_why_it_is_missing() -> None:
    points = [point("t0000", 0.8, 1.0), point("t0001", 1.0, 0.5)]
    trials = pd.DataFrame(
        {
            "stage": ["search"] * 3,
            "status": ["completed", "completed", "failed"],
            "ended": pd.Series(["2026-01-01T02", "2026-01-01T01", None], dtype="string"),
            "mlflow_run_id": ["run-t0000", "run-t0001", "run-t0002"],
        }
    )
    box = Reference(worst={"val_accuracy": 0.6, "val_cka": 0.0}, ideal={"val_accuracy": 1.0, "val_cka": 1.0})
    course, note = hypervolume_course(trials, points, BOTH, box)
    assert note == ""
    assert [count for count, _ in course] == [1, 2, 3]
    assert [value for _, value in course] == pytest.approx([0.5, 0.75, 0.75])
    assert "no reference" in hypervolume_course(trials, points, BOTH, None)[1]
    assert "single objective" in hypervolume_course(trials, points, (ACCURACY,), box)[1]
    lacking = Reference(worst={"val_accuracy": 0.6}, ideal=box.ideal)
    assert "lacks an objective" in hypervolume_course(trials, points, BOTH, lacking)[1]
    swapped = Reference(worst=box.ideal, ideal=box.worst)
    assert "not worse" in hypervolume_course(trials, points, BOTH, swapped)[1]


def test_pictures_of_nothing_and_of_one_point() -> None:
    styles = choose_styles(["repsim"], ["b"])
    assert front_picture(study_of([]), styles) is None
    alone = front_picture(study_of([point("t0000", 0.9, 0.5)]), styles)
    assert alone is not None
    assert alone.x_range[0] < 0.5 < alone.x_range[1]
    assert alone.steps == ((0.5, 0.9),)


def test_a_panel_has_its_own_front_and_the_common_range() -> None:
    study = study_of([point("t0000", 0.9, 0.9), point("t0001", 0.8, 0.8, backbone="c")])
    styles = choose_styles(["repsim"], ["b", "c"])
    whole, panel = front_picture(study, styles), front_picture(study, styles, "c")
    assert whole is not None
    assert panel is not None
    assert [mark.on_front for mark in whole.marks] == [True, False]
    assert [(mark.trial_id, mark.on_front) for mark in panel.marks] == [("t0001", True)]
    assert panel.x_range == whole.x_range


def test_a_method_has_the_same_colour_in_every_report() -> None:
    few, many = choose_styles(["hcs"], []), choose_styles(["zeta", "hcs", "full", "alpha"], ["b", "a", "b"])
    assert few.methods.index("hcs") == many.methods.index("hcs")
    assert many.methods[-2:] == ("alpha", "zeta")
    assert many.backbones == ("a", "b")


@pytest.mark.parametrize(
    ("study", "expected"),
    [
        (study_of([], trials=2, status="running"), "No trial has completed"),
        (study_of([], trials=3, status="failed"), "All 3 trials failed"),
        (study_of([point("t0000", 0.9, 0.5)]), "A single run"),
        (study_of([point("t0000", 0.9, 0.5), point("t0001", 0.8, 0.4)]), "nothing to pay"),
        (study_of([point("t0000", 0.9, 0.5, eligible=False)], trials=2), "feasible"),
        (
            study_of([point("t0000", 0.9, 0.5), point("t0001", 0.89, 0.8)]),
            "1.0 points of val accuracy for +0.300 val similarity (CKA), from 0.500 (t0000) to 0.800 (t0001). "
            "The loss is less than one standard error (2.0 points).",
        ),
        (
            study_of([point("t0000", 0.9, 0.5), point("t0001", 0.8, 0.8)]),
            "10.0 points of val accuracy for +0.300 val similarity (CKA), from 0.500 (t0000) to 0.800 (t0001). "
            "The loss is more than one standard error (2.0 points).",
        ),
        (
            study_of([point("t0000", 0.9, 0.5), point("t0001", 0.89, 0.8), point("t0002", 0.895, 0.9, backbone="c")]),
            "On b, 1.0 points of val accuracy for +0.300 val similarity (CKA), from 0.500 (t0000) to 0.800 (t0001)",
        ),
    ],
)
def test_headline_says_what_it_is(study: Study, expected: str) -> None:
    assert expected in headline(study)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("null", None),
        ("0.0003", 0.0003),
        ("6", 6),
        ("[0.6, 0.2, 0.2]", [0.6, 0.2, 0.2]),
        ("True", True),
        ("auto", "auto"),
    ],
)
def test_parameters_are_read_back(value: str, expected: object) -> None:
    assert param_value("optim.x", value) == expected


def test_names_that_look_like_numbers_stay_text() -> None:
    assert param_value("data.group", "12") == "12"


def test_infinities_and_words_are_not_numbers() -> None:
    assert finite(1.797e308) is None
    assert finite(math.nan) is None
    assert finite(math.inf) is None
    assert finite(-0.25) == -0.25
    assert finite("x") is None
    assert finite(True) is None
    assert finite("0.5") == 0.5


@pytest.mark.parametrize(
    "value", [1e-05, 3e-4, 1e22, 0.1, 2.5e-7, 7, None, True, "yes", "1e-5", 'a"b\\\n\u0085é', [0.6, 0.2], "null"]
)
def test_yaml_values_survive_the_way_through_a_file(value: object) -> None:
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load(f"key: {yaml_scalar(value)}") == {"key": value}


def test_point_files_have_safe_names() -> None:
    assert file_name("t0007") == "t0007.yaml"
    assert file_name("../../x y") == "x-y.yaml"
    assert space_name("pareto", "t0007") == "pareto-t0007"
    assert re.fullmatch("[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", space_name("-<b> ü" + "x" * 90, "t" + "9" * 30))


def test_tables_escape_what_their_format_would_read() -> None:
    nasty = r"50%_$x^{2}$ & <b> \ ~ # |"
    table = Table(name="x", caption="c_1", columns=("a", "b"), rows=((nasty, None), ("u\nv", 0.123456)), metrics={})
    tex = to_latex(table)
    assert r"50\%\_\$x\textasciicircum{}\{2\}\$ \& \textless{}b\textgreater{} \textbackslash{}" in tex
    assert r"\caption{c\_1}" in tex
    assert tex.count(r" \\") == 3
    markdown = to_markdown(table).splitlines()
    assert "&lt;b&gt;" in markdown[2]
    assert "\\|" in markdown[2]
    assert markdown[3] == "| u v | 0.123 |"
    assert to_csv(table).splitlines()[-1].endswith("0.123456")
    assert tex_escape("λ ± ρ") == r"$\lambda$ $\pm$ $\rho$"


def test_names_cannot_act_on_the_table_around_them() -> None:
    assert tex_escape("[1] *") == "{[}1{]} {*}"  # after a row's end, LaTeX would take them for its arguments
    assert tex_escape("--x---") == "-{}-x-{}-{}-"
    assert tex_escape("a\x1b\u202e–`'") == r"a??\textendash{}\textasciigrave{}\textquotesingle{}"
    table = Table(name="x", caption="", columns=("a",), rows=(("![i](http://x/y.png) **b**",), ("c\rd",)), metrics={})
    assert r"| !\[i\](http://x/y.png) \*\*b\*\* |" in to_markdown(table)
    assert to_csv(table).split("\n")[2:] == ["c d", ""]


def test_shown_values() -> None:
    assert [show(value) for value in (None, math.nan, True, 0, 12345, 0.00031234, "a", [1, 2])] == [
        "", "", "yes", "0", "12,345", "0.000312", "a", "[1, 2]",
    ]  # fmt: skip
    assert shorten("a\nb" + "c" * 50).startswith("a?b")
    assert len(shorten("c" * 50)) == 40


def test_the_methods_of_a_report_have_colours_of_their_own() -> None:
    methods = ["full", "linear_probe", "repsim", "hcs", "feature_mse", "lora", "lora+repsim", "lp_ft"]
    styles = choose_styles(methods, ["b"])
    for theme in (LIGHT, DARK):
        assert len({theme.colour(styles.methods.index(method)) for method in methods}) == len(methods)
    alone = choose_styles(["repsim"], ["b"])
    assert alone.methods.index("full") == styles.methods.index("full"), "the anchors keep theirs"
