"""The paper's table: who stands for a method, what its numbers are, the marks, and that LaTeX takes all of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from reports import latex, paper_render, paper_tables
from reports.build import build_report
from reports.confirmed import Estimate
from reports.load import Sweep
from reports.paper_style import BEST, SECOND, Entry, PaperTable, paper_table, representatives
from repsim.records import METRICS, Tag
from sweeps.tracking import prepare_store
from tests.reports.recorded_sweeps import HOSTILE, FakeTrial, config, numbers, record
from tests.reports.sweep_samples import (
    ACCURACY,
    CKA,
    DATA,
    SHARPNESS,
    Keep,
    again,
    facts,
    keeper,
    recorded,
    studies,
    trial,
)

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
NASTY = r"\input{/etc/passwd}\\[3cm] & % $x^2$ #_{}~ [1] * -- `` '' ,, 中文 é Ħ 😀 λ ± " + HOSTILE + "\x07\u202e"
NEEDED = "booktabs.sty"


@pytest.fixture(scope="module")
def keep(tmp_path_factory: pytest.TempPathFactory) -> Keep:
    return keeper(tmp_path_factory)


def table_of(sweep: Sweep) -> PaperTable:
    found = paper_table(sweep, studies(sweep))
    assert found is not None
    return found


def entry(table: PaperTable, method: str, data: str = DATA, backbone: str = "tf_efficientnet_lite0") -> Entry:
    rows = [row for row in table.rows if (row.method, row.backbone) == (method, backbone)]
    assert len(rows) == 1
    return rows[0].entries[data]


def marks(table: PaperTable, measure: str, data: str = DATA) -> dict[tuple[str, str], str]:
    found = {
        (row.backbone, row.method): row.entries[data].marks.get(measure) for row in table.rows if data in row.entries
    }
    return {place: mark for place, mark in found.items() if mark is not None}


def plain() -> list[FakeTrial]:
    return [
        trial("t0000", "linear_probe", 0.75, 1.0, 0.5),
        trial("t0001", "full", 0.92, 0.40, 0.05),
        trial("t0002", "repsim", 0.90, 0.50, 0.03, strength=0.1),
        trial("t0003", "repsim", 0.89, 0.70, 0.02, strength=1.0),
        trial("t0004", "repsim", 0.80, 0.95, 0.01, strength=10.0),
        trial("t0005", "hcs", 0.88, 0.60, 0.02, strength=1.0),
    ]


@pytest.fixture(scope="module")
def single(keep: Keep) -> Sweep:
    return keep("single runs", plain())


def test_the_most_similar_within_one_standard_error_stands_for_a_method(single: Sweep) -> None:
    # one standard error at 0.90 of 120 images is 0.027
    assert entry(table_of(single), "repsim").trial_id == "t0003"
    assert entry(table_of(single), "full").trial_id == "t0001"


def test_with_many_images_nothing_is_within_one_standard_error(keep: Keep) -> None:
    trials = plain()
    for item in trials:
        item.facts = facts(n_val=100_000)
    assert entry(table_of(keep("many images", trials)), "repsim").trial_id == "t0002"


def test_without_a_standard_error_the_best_first_objective_stands_for_a_method(keep: Keep) -> None:
    sweep = keep("auc", plain(), objectives=[{"metric": "val_auc", "direction": "maximize"}, CKA])
    table = table_of(sweep)
    assert entry(table, "repsim").trial_id == "t0002"
    assert table.measures[0].name == "auc"
    assert "by its configuration with the best val AUC. Test metrics chose nothing" in table.caption
    assert "standard error of its best" not in table.caption


def test_test_metrics_choose_nothing(single: Sweep, keep: Keep) -> None:
    trials = plain()
    for number, item in enumerate(trials):
        item.metrics = {
            name: (0.1 * number if name.startswith("test_") else value) for name, value in item.metrics.items()
        }
    other = keep("other test values", trials)
    chosen = [
        {place: point.trial_id for place, point in representatives(studies(s)[0]).items()} for s in (single, other)
    ]
    assert chosen[0] == chosen[1]
    assert chosen[0][("tf_efficientnet_lite0", "repsim")] == "t0003"


def test_only_completed_feasible_trials_stand_for_a_method(keep: Keep) -> None:
    trials = plain()
    partial = {"curve/val_accuracy": 0.99, "curve/val_cka": 0.99}
    setup = config(data=DATA, method="repsim", strength=5.0)
    trials.append(FakeTrial("t0006", setup, partial, status="pruned", reason="stopped", feasible=None))
    setup = config(data=DATA, method="repsim", strength=6.0)
    trials.append(FakeTrial("t0007", setup, numbers(0.99, 0.99), feasible=False))
    setup = config(data=DATA, method="rsa")
    trials.append(FakeTrial("t0008", setup, {}, status="failed", reason="no memory", feasible=None, facts={}))
    point = config(data=DATA, method="repsim", strength=1.0, wise_alpha=0.5)
    tags = {Tag.DERIVED_FROM: "t0003"}
    trials.append(FakeTrial("t0003-w05", point, numbers(0.90, 0.99), stage="derived", tags=tags))
    table = table_of(keep("not all count", trials))
    assert entry(table, "repsim").trial_id == "t0003"
    assert [row.entries for row in table.rows if row.method == "rsa"] == [{}]
    assert "–: no completed run within the constraints" in table.caption
    assert "between pretrained and finetuned weights are left out" in table.caption
    assert "| rsa | – | – | – |" in paper_render.markdown(table)


def test_a_sweep_without_a_result_has_no_table(keep: Keep) -> None:
    broken = FakeTrial("t0000", config(data=DATA), {}, status="failed", reason="x", feasible=None, facts={})
    sweep = keep("nothing came", [broken])
    assert paper_table(sweep, studies(sweep)) is None
    assert paper_render.section(None) == ""
    empty = keep("nothing at all", [])
    assert paper_table(empty, studies(empty)) is None


# ---- what the numbers are


def test_single_runs_are_validation_values_and_say_so(single: Sweep) -> None:
    table = table_of(single)
    found = entry(table, "repsim")
    assert (found.split, found.n, found.values["accuracy"].error) == ("val", 1, None)
    assert found.values["accuracy"].mean == pytest.approx(0.89)
    assert not table.counted
    assert "Validation metrics of single runs (n = 1, no error bars)" in table.caption
    assert "±" not in paper_render.latex(table)


@pytest.fixture(scope="module")
def confirmed(keep: Keep) -> Sweep:
    trials = plain()
    fresh = [("t0000", 0.75, 1.0, 3), ("t0001", 0.90, 0.40, 3), ("t0003", 0.86, 0.70, 4), ("t0002", 0.70, 0.5, 1)]
    for name, accuracy, cka, n in fresh:
        original = next(item for item in trials if item.trial_id == name)
        for seed in range(1, n + 1):
            shift = 0.02 * (seed - 1) if name != "t0000" else 0.0
            trials.append(again(original, f"t{len(trials):04d}", seed, accuracy + shift, cka))
    return keep("with fresh seeds", trials)


def test_confirmed_points_are_test_means_with_their_error_and_n(confirmed: Sweep) -> None:
    table = table_of(confirmed)
    found = entry(table, "repsim")
    # test accuracy is a hundredth below val: 0.85, 0.87, 0.89, 0.91
    assert (found.trial_id, found.split, found.n) == ("t0003", "test", 4)
    assert found.values["accuracy"].mean == pytest.approx(0.88)
    assert found.values["accuracy"].error == pytest.approx((0.02**2 * 5 / 3) ** 0.5 / 2)
    assert found.values["cka"].mean == pytest.approx(0.69)
    assert "Test metrics, means over n = 3 to 4 fresh seeds" in table.caption
    assert "| repsim | **0.880 ± 0.013** |" not in paper_render.markdown(table)
    assert "<u>0.880 ± 0.013</u>" in paper_render.markdown(table)
    assert r"\textbf{0.910 $\pm$ 0.012}" in paper_render.latex(table)


def test_a_single_run_among_means_bears_a_dagger_and_no_mark(confirmed: Sweep, single: Sweep) -> None:
    table = table_of(confirmed)
    found = entry(table, "hcs")
    assert (found.split, found.n, dict(found.marks)) == ("val", 1, {})
    assert "† no fresh seeds: validation metrics" in table.caption
    assert "| hcs | 0.880† | 0.600† | 0.02† | 1 |" in paper_render.markdown(table)
    assert r"0.880\textdagger{}" in paper_render.latex(table)
    assert "†" not in paper_render.markdown(table_of(single))


def test_one_fresh_seed_gives_way_to_several(confirmed: Sweep) -> None:
    # t0002 has better values in the search and one fresh seed alone
    assert entry(table_of(confirmed), "repsim").trial_id == "t0003"


def test_a_beaten_anchor_with_fresh_seeds_still_stands_for_its_method(confirmed: Sweep) -> None:
    beaten = replace(studies(confirmed)[0].means[0], beaten=True)
    study = replace(studies(confirmed)[0], means=(beaten, *studies(confirmed)[0].means[1:]))
    assert representatives(study)[("tf_efficientnet_lite0", beaten.method)].trial_id == beaten.trial_id


def test_the_csv_says_what_every_number_is_of(confirmed: Sweep, tmp_path: Path) -> None:
    paths = paper_render.write_paper(table_of(confirmed), tmp_path)
    assert [path.name for path in paths] == ["paper.csv", "paper.md", "paper.tex"]
    table = pd.read_csv(tmp_path / "paper.csv").set_index("method")
    assert dict(table["trial"]) == {"linear_probe": "t0000", "full": "t0001", "repsim": "t0003", "hcs": "t0005"}
    assert dict(table["images"]) == {"linear_probe": "test", "full": "test", "repsim": "test", "hcs": "val"}
    assert dict(table["n"]) == {"linear_probe": 3, "full": 3, "repsim": 4, "hcs": 1}
    assert table.loc["repsim", "accuracy"] == pytest.approx(0.88)
    assert table.loc["repsim", "accuracy ±"] == pytest.approx(0.0129, abs=1e-4)
    assert pd.isna(table.loc["hcs", "accuracy ±"])


# ---- the marks


def test_best_and_second_by_their_own_direction(single: Sweep) -> None:
    table, place = table_of(single), "tf_efficientnet_lite0"
    assert marks(table, "accuracy") == {(place, "full"): BEST, (place, "repsim"): SECOND}
    # repsim and hcs share the lowest sharpness
    assert marks(table, "sharpness") == {(place, "repsim"): BEST, (place, "hcs"): BEST, (place, "full"): SECOND}
    assert marks(table, "cka") == {(place, "repsim"): BEST, (place, "hcs"): SECOND}, "a probe's 1 is no merit"
    assert paper_render.latex(table).count(r"\textbf{0.02}") == 2


def test_values_equal_as_printed_share_a_mark(keep: Keep) -> None:
    values = {"full": 0.90004, "repsim": 0.89996, "hcs": 0.8996, "rsa": 0.8}
    trials = [trial(f"t{n:04d}", method, value, 0.5) for n, (method, value) in enumerate(values.items())]
    found = marks(table_of(keep("nearly equal", trials)), "accuracy")
    assert {place[1]: mark for place, mark in found.items()} == {
        "full": BEST, "repsim": BEST, "hcs": BEST, "rsa": SECOND,
    }  # fmt: skip
    trials[2] = trial("t0002", "hcs", 0.8994, 0.5)
    found = marks(table_of(keep("less equal", trials)), "accuracy")
    assert {place[1]: mark for place, mark in found.items()} == {"full": BEST, "repsim": BEST, "hcs": SECOND}


def test_marks_are_given_within_a_backbone(keep: Keep) -> None:
    trials = [
        trial("t0000", "full", 0.95, 0.4, backbone="mobilenetv2_100"),
        trial("t0001", "repsim", 0.94, 0.8, backbone="mobilenetv2_100"),
        trial("t0002", "full", 0.80, 0.3),
        trial("t0003", "repsim", 0.70, 0.5),
        trial("t0004", "full", 0.99, 0.9, backbone="resnet50"),
    ]
    table = table_of(keep("backbones", trials))
    assert table.backbones == ("mobilenetv2_100", "resnet50", "tf_efficientnet_lite0")
    assert marks(table, "accuracy") == {
        ("mobilenetv2_100", "full"): BEST,
        ("mobilenetv2_100", "repsim"): SECOND,
        ("tf_efficientnet_lite0", "full"): BEST,
        ("tf_efficientnet_lite0", "repsim"): SECOND,
    }, "and one value alone is not the best of anything"
    assert "means nothing between backbones" in table.caption
    tex = paper_render.latex(table)
    assert tex.count(r"\midrule") == 3
    assert r"\multicolumn{4}{l}{\emph{tf\_efficientnet\_lite0}} \\" in tex


def test_sharpness_is_not_compared_between_heads(keep: Keep) -> None:
    trials = [trial("t0000", "full", 0.9, 0.4, 0.05), trial("t0001", "repsim", 0.8, 0.5, 0.01, head="cosine")]
    table = table_of(keep("heads", trials))
    assert marks(table, "sharpness") == {}
    assert len(marks(table, "accuracy")) == 2
    assert "Sharpness is not compared between different heads" in table.caption
    same = [trial("t0000", "full", 0.9, 0.4, 0.05), trial("t0001", "repsim", 0.8, 0.5, 0.01)]
    assert len(marks(table_of(keep("one head", same)), "sharpness")) == 2


# ---- columns


def test_data_sets_are_groups_of_columns(keep: Keep) -> None:
    trials = [
        trial("t0000", "full", 0.9, 0.4, data="folder:/a"),
        trial("t0001", "full", 0.8, 0.3, data="folder:/b"),
        trial("t0002", "repsim", 0.85, 0.6, data="folder:/b"),
    ]
    table = table_of(keep("two sets", trials, objectives=[ACCURACY, CKA, SHARPNESS]))
    assert table.data_sets == ("folder:/a", "folder:/b")
    assert entry(table, "full", "folder:/a").marks == {}, "alone on its data set"
    assert marks(table, "accuracy", "folder:/b") == {
        ("tf_efficientnet_lite0", "full"): SECOND,
        ("tf_efficientnet_lite0", "repsim"): BEST,
    }
    tex = paper_render.latex(table)
    assert r" & \multicolumn{3}{c}{folder:/a} & \multicolumn{3}{c}{folder:/b} \\" in tex
    assert r"\cmidrule(lr){2-4}\cmidrule(lr){5-7}" in tex
    assert r"repsim & \textendash{} & \textendash{} & \textendash{} & \textbf{0.850}" in tex
    assert '<th scope="colgroup" colspan="3">folder:/b</th>' in paper_render.html(table)
    assert len(pd.DataFrame(paper_render.listed(table).rows)) == 3


def test_the_columns_are_those_of_the_objectives(keep: Keep) -> None:
    names = ("val_balanced_accuracy", "val_procrustes")
    objectives = [{"metric": name, "direction": "maximize"} for name in names]
    table = table_of(keep("other objectives", plain(), objectives=objectives))
    assert [measure.name for measure in table.measures] == ["balanced_accuracy", "procrustes", "sharpness"]


def test_balanced_accuracy_joins_where_classes_are_imbalanced(single: Sweep, keep: Keep) -> None:
    trials = plain()
    for item in trials:
        item.facts = facts(largest_class_fraction=0.7, smallest_class_fraction=0.1)
    found = table_of(keep("imbalanced", trials))
    assert [measure.name for measure in found.measures] == ["accuracy", "balanced_accuracy", "cka", "sharpness"]
    assert [measure.name for measure in table_of(single).measures] == ["accuracy", "cka", "sharpness"]


def test_long_names_are_shortened_while_they_stay_apart() -> None:
    long, other = "folder:/" + "x" * 60 + "/a", "folder:/" + "x" * 60 + "/b"
    assert paper_render.headings([long, "busi"]) == (f"…{long[-39:]}", "busi")
    assert paper_render.headings([long, other])[0] != paper_render.headings([long, other])[1]
    twins = ["a" * 10 + "x" * 60, "b" * 10 + "x" * 60]
    assert paper_render.headings(twins) == tuple(twins)


# ---- LaTeX


def test_powers_of_ten_are_set_as_such_in_values_only(keep: Keep) -> None:
    trials = [trial("t0000", "full", 0.9, 0.4, 6.28e-05), trial("t0001", "repsim", 0.8, 0.5, 0.3, data="npz:1e-05.npz")]
    tex = paper_render.latex(table_of(keep("small sharpness", trials)))
    assert r"6.28$\times10^{-5}$" in tex
    assert "npz:1e-05.npz" in tex


def test_what_the_fonts_lack_is_named() -> None:
    assert latex.tex_escape("é中Ħ–") == r"é{[}U+4E2D{]}{[}U+0126{]}\textendash{}"
    assert latex.tex_escape("a,,b") == "a,{},b"


def test_only_wide_tables_are_fitted_to_the_line() -> None:
    narrow = paper_tables.Table(name="x", caption="", columns=("a", "b"), rows=(("c", "d"),), metrics={})
    assert "resizebox" not in paper_tables.to_latex(narrow)
    wide = replace(narrow, rows=(("c" * 80, "d"),))
    lines = paper_tables.to_latex(wide).splitlines()
    assert lines[5].startswith(r"\resizebox")
    assert lines[-2] == r"\end{tabular}}"


def test_long_heads_stand_in_several_lines() -> None:
    assert latex.stacked("similarity (CKA) ↑") == r"\shortstack[r]{similarity\\(CKA) $\uparrow$}"
    assert latex.stacked("accuracy ↑") == r"accuracy $\uparrow$"
    assert latex.stacked("[a] & *b* c d e", "l").startswith(r"\shortstack[l]{{[}a{]}")


def test_latex_gets_the_columns_that_fit_on_a_page(single: Sweep) -> None:
    table = paper_tables.front_table(single, studies(single))
    tex, csv = paper_tables.to_latex(table), paper_tables.to_csv(table)
    assert "train_seconds" not in tex
    assert "NLL" in csv.splitlines()[0]
    assert "NLL" not in tex
    assert tex.count(r"0.400") >= 1
    assert paper_tables.to_latex(replace(table, printed=())).count("NLL") > 0


def test_an_error_has_the_decimals_of_its_mean() -> None:
    shown = {
        (0.1, 0.004, "sharpness"): "0.100 ± 0.004",
        (0.0123, 0.00468, "sharpness"): "0.0123 ± 0.0047",
        (6.28e-5, 5.3e-6, "sharpness"): "6.28e-05 ± 5.3e-06",
        (123.0, 4.0, "sharpness"): "123 ± 4",
        (0.05, 0.004, "val_accuracy"): "0.050 ± 0.004",
    }
    for (mean, error, name), text in shown.items():
        assert paper_tables.show(Estimate(mean=mean, error=error), METRICS[name]) == text


def test_captions_are_escaped_in_markdown() -> None:
    table = paper_tables.Table(name="x", caption="of ![i](u) <b>", columns=("a",), rows=(), metrics={})
    assert paper_tables.to_markdown(table).endswith("of !\\[i\\](u) &lt;b&gt;\n")


def _latex_missing() -> str:
    if shutil.which("pdflatex") is None:
        return "pdflatex is not installed"
    found = subprocess.run(["kpsewhich", NEEDED], capture_output=True, text=True, check=False)
    return "" if found.stdout.strip() else f"LaTeX has no {NEEDED}"


needs_latex = pytest.mark.skipif(bool(_latex_missing()), reason=_latex_missing() or "LaTeX is there")


def compiled(bodies: list[str], folder: Path) -> tuple[int, str]:
    """Exit status and log of pdflatex on a minimal document; the log's lines are not broken."""
    body = "\n\\clearpage\n".join(bodies)
    text = rf"\documentclass{{article}}{latex.PREAMBLE}" + "\n\\begin{document}\n" + body + "\n\\end{document}\n"
    (folder / "paper.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-no-shell-escape", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=120)
    return done.returncode, (folder / "paper.log").read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of a sweep in which everything that can bear a name bears a hostile one, two data sets wide."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('hostile') / 'mlflow.db'}"
    prepare_store(uri)
    trials = []
    for number in range(12):
        named = {
            Tag.METHOD: f"{NASTY} {number % 3}",
            Tag.BACKBONE: f"{NASTY} b{number % 2}",
            Tag.DATA: f"{number // 6} {NASTY}",
        }
        item = trial(f"t{number:04d}", ("linear_probe", "full", "repsim")[number % 3], 0.9 - 0.01 * number, 0.5)
        item.tags, item.params = named, {"head": NASTY, "optim.lr": NASTY, "penalty.layers": f"{number}{NASTY}"}
        trials.append(item)
    trials.append(again(trials[0], "t0012", 1, 0.8, 0.6))
    trials[-1].tags = trials[0].tags
    space = {"optim.lr": {"value": [NASTY], "when": {"method": NASTY}}, NASTY: {"low": 1, "high": 2}}
    tags = {**recorded(space=space), Tag.QUESTION: NASTY, Tag.COMMAND: NASTY, Tag.GIT_COMMIT: NASTY}
    record(MlflowClient(tracking_uri=uri), "hostile_%_$&#", trials, tags={**tags, Tag.VERSIONS: f'{{"a_b": "{1}&"}}'})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reports.interactive.plotly_source", lambda: "/* plotly.js */")
        return build_report("hostile_%_$&#", uri, tmp_path_factory.mktemp("report"), log=False)


@needs_latex
def test_every_latex_file_of_a_hostile_sweep_compiles(hostile: Path, tmp_path: Path) -> None:
    files = sorted((hostile / "tables").glob("*.tex"))
    assert {file.name for file in files} >= {"front.tex", "methods.tex", "methods_paragraph.tex", "paper.tex"}
    status, log = compiled([file.read_text(encoding="utf-8") for file in files], tmp_path)
    assert status == 0, log[-3000:]
    assert (tmp_path / "paper.pdf").read_bytes().startswith(b"%PDF")
    assert "etc/passwd)" not in log


@needs_latex
def test_no_table_is_wider_than_the_page(hostile: Path, tmp_path: Path) -> None:
    files = [file for file in (hostile / "tables").glob("*.tex") if "paragraph" not in file.name]
    tables = [re.sub(r"\\caption\{.*\}\n", "", file.read_text(encoding="utf-8")) for file in files]
    status, log = compiled(tables, tmp_path)
    assert status == 0
    assert "Overfull" not in log
    unfitted = [re.sub(r"\\resizebox.*\n", "", text).replace(r"\end{tabular}}", r"\end{tabular}") for text in tables]
    assert "Overfull" in compiled(unfitted, tmp_path)[1], "and they would be"


@needs_latex
@pytest.mark.parametrize("raw", ["50%_of", "a & b & c", r"\undefinedcommand", "{", "中"])
def test_what_is_not_escaped_does_not_compile(raw: str, tmp_path: Path) -> None:
    table = paper_tables.Table(name="x", caption="c", columns=("a",), rows=(("MARK",),), metrics={})
    text = paper_tables.to_latex(table)
    assert compiled([text.replace("MARK", raw)], tmp_path)[0] != 0
    assert compiled([text.replace("MARK", latex.tex_escape(raw))], tmp_path)[0] == 0


def test_hostile_names_are_escaped_on_the_page(hostile: Path) -> None:
    text = (hostile / "index.html").read_text(encoding="utf-8")
    start, end = text.index("<h2>Methods by data set</h2>"), text.index("<h2>Points on the front</h2>")
    assert "&lt;script&gt;" in text[start:end]
    assert "<script>" not in text[start:end]
    shown = (hostile / "tables" / "paper.md").read_text(encoding="utf-8")
    assert "<script>" not in shown
    assert "<script>" not in (hostile / "tables" / "methods_paragraph.md").read_text(encoding="utf-8")
