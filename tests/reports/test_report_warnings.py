"""What stands at the top of a report: every warning where it is due, and none where it is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from reports import words
from reports.load import Sweep
from reports.points import space_text
from reports.searched import LOWER, UPPER, Choices, Interval, branches, domain, fits
from repsim.catalogue import method_names, parse_method
from repsim.config import TARGET_KEY
from repsim.records import Objective, Tag
from sweeps.space import Choice, load_space, matches
from tests.reports.recorded_sweeps import FakeTrial
from tests.reports.sweep_samples import (
    SEARCH,
    SPACE,
    Keep,
    again,
    keeper,
    recorded,
    studies,
    trial,
)

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
ALWAYS = {"n = 1, no error bars"}
CODE = {Tag.GIT_COMMIT: "a" * 40, Tag.GIT_DIRTY: "false"}


@pytest.fixture(scope="module")
def keep(tmp_path_factory: pytest.TempPathFactory) -> Keep:
    return keeper(tmp_path_factory)


def sound() -> list[FakeTrial]:
    """A sweep with which nothing is wrong: enough trials, evenly spread, inside their ranges."""
    found = [trial("t0000", "linear_probe", 0.75, 1.0), trial("t0001", "full", 0.92, 0.40)]
    for number in range(2, 38):
        method = ("full", "repsim", "hcs")[number % 3]
        settings = {} if method == "full" else {"strength": 0.3 + 0.2 * number}
        own = trial(f"t{number:04d}", method, 0.90 - 0.003 * number, 0.5 + 0.01 * number, optim__lr=2e-4, **settings)
        found.append(own)
    for item in found:
        item.tags = dict(CODE)
    return found


@pytest.fixture(scope="module")
def fine(keep: Keep) -> Sweep:
    return keep("fine", sound(), tags=recorded(space=SPACE | {"method": ["full", "repsim", "hcs"]}) | CODE)


def told(sweep: Sweep) -> dict[str, str]:
    """Sentences by their short form, all in one where a form occurs twice."""
    found: dict[str, str] = {}
    for short, text in words.warnings_for(sweep, studies(sweep)):
        found[short] = f"{found[short]} {text}" if short in found else text
    return found


def edited(sweep: Sweep, change: Callable[[str, Mapping[str, object]], Mapping[str, object]]) -> Sweep:
    """The sweep with other facts; ``change`` gets a trial's id and its facts."""
    names = dict(zip(sweep.trials["mlflow_run_id"], sweep.trials["trial_id"], strict=True))
    return replace(sweep, facts={run: change(names[run], known) for run, known in sweep.facts.items()})


def test_a_sound_sweep_is_told_its_n_and_nothing_else(fine: Sweep) -> None:
    assert set(told(fine)) == ALWAYS


def test_a_point_is_repeated_with_as_many_workers_as_it_had(fine: Sweep) -> None:
    for workers, expected in ((1, {"cpus_per_worker": 3}), (4, {"workers": 4, "cpus_per_worker": 3})):
        shared = edited(fine, lambda _, known, workers=workers: {**known, "workers": workers})  # type: ignore[misc]
        (study,) = studies(shared)
        text = space_text(shared, study, study.members[0])
        assert yaml.safe_load(text)["resources"] == expected


def only(sweep: Sweep, wanted: Callable[[pd.Series], bool]) -> Sweep:
    """The sweep with the trials that are ``wanted``."""
    rows = [bool(wanted(row)) for _, row in sweep.trials.iterrows()]
    return replace(sweep, trials=sweep.trials[rows].reset_index(drop=True))


def with_column(sweep: Sweep, name: str, value: object, which: Callable[[pd.Series], bool]) -> Sweep:
    """The sweep with another value of a column where ``which`` says so."""
    trials = sweep.trials.copy()
    trials.loc[[bool(which(row)) for _, row in trials.iterrows()], name] = value
    return replace(sweep, trials=trials)


def everywhere(_: pd.Series) -> bool:
    return True


# ---- the code


def test_a_dirty_tree(fine: Sweep) -> None:
    assert "so the commit alone does not name" in told(replace(fine, git_dirty=True))["dirty tree"]
    run = str(fine.trials["mlflow_run_id"][3])
    resumed = replace(fine, code={**fine.code, run: ("a" * 40, True)})
    assert "uncommitted changes when 1 of 38 trials ran" in told(resumed)["dirty tree"]


def test_mixed_code(fine: Sweep) -> None:
    runs = [str(run) for run in fine.trials["mlflow_run_id"]]
    resumed = replace(fine, code={**fine.code, **dict.fromkeys(runs[30:], ("b" * 40, False))})
    text = told(resumed)["mixed code"]
    assert "2 commits (aaaaaaaaaaaa: 30 trials, bbbbbbbbbbbb: 8 trials)" in text
    assert "Versions of packages are recorded once" in text
    other = replace(fine, code=dict.fromkeys(runs, ("b" * 40, False)))
    assert "aaaaaaaaaaaa: 0 trials, bbbbbbbbbbbb: 38 trials" in told(other)["mixed code"]
    unsaid = replace(fine, code=dict.fromkeys(runs, ("", False)))
    assert set(told(unsaid)) == ALWAYS, "an older sweep's trials named no commit"


def test_unknown_code(fine: Sweep) -> None:
    runs = [str(run) for run in fine.trials["mlflow_run_id"]]
    nothing = replace(fine, git_commit="", code=dict.fromkeys(runs, ("", False)), versions={})
    assert "did not record its commit and package versions" in told(nothing)["unknown code"]
    assert "did not record its package versions" in told(replace(fine, versions={}))["unknown code"]


def test_trials_tell_of_their_code_in_the_store(keep: Keep) -> None:
    trials = sound()[:3]
    trials[2].tags = {Tag.GIT_COMMIT: "b" * 40, Tag.GIT_DIRTY: "true"}
    found = told(keep("resumed", trials, tags=recorded() | CODE))
    assert {"mixed code", "dirty tree"} <= set(found)


# ---- the ground


def test_strong_imbalance_with_plain_accuracy(fine: Sweep) -> None:
    skewed = edited(fine, lambda _, known: {**known, "largest_class_fraction": 0.7, "smallest_class_fraction": 0.1})
    assert "always answering the largest class would score 0.70" in told(skewed)["imbalanced classes"]
    balanced = (Objective(metric="val_balanced_accuracy", direction="maximize"), *fine.objectives[1:])
    assert "imbalanced classes" not in told(replace(skewed, objectives=balanced))


@pytest.mark.parametrize(("place", "what"), [(0, "different images"), (1, "different similarity probes")])
def test_mixed_hashes(fine: Sweep, place: int, what: str) -> None:
    run = str(fine.trials["mlflow_run_id"][7])
    pair = list(fine.hashes[run])
    pair[place] = "other"
    assert what in told(replace(fine, hashes={**fine.hashes, run: tuple(pair)}))["mixed ground"]
    pair[place] = ""
    assert "mixed ground" not in told(replace(fine, hashes={**fine.hashes, run: tuple(pair)})), (
        "a failed trial has none"
    )


def test_mixed_weights(fine: Sweep) -> None:
    mixed = edited(fine, lambda name, known: {**known, "weights_id": "w2"} if name == "t0009" else known)
    assert "started from different weights" in told(mixed)["mixed ground"]
    every = edited(fine, lambda _, known: {**known, "weights_id": "w2"})
    assert "mixed ground" not in told(every)
    sizes = {run: {**flat, "data.image_size": 64} for run, flat in fine.configs.items() if run in mixed.facts}
    fitted = {run: flat for run, flat in sizes.items() if mixed.facts[run]["weights_id"] == "w2"}
    searched = replace(mixed, configs={**fine.configs, **fitted})
    assert "mixed ground" not in told(searched), "a transformer's weights are fitted to the size of the images"


def test_random_weights(fine: Sweep) -> None:
    random = edited(fine, lambda _, known: {**known, "pretraining": "random"})
    assert "no pretrained representation to keep" in told(random)["not pretrained"]


def test_few_images(fine: Sweep) -> None:
    few = with_column(with_column(fine, "n_val", 40, everywhere), "n_test", 100, everywhere)
    assert told(few)["few images"] == "There are only 40 val images (one is 2.5 points of accuracy)."


def test_mixed_threads(fine: Sweep) -> None:
    mixed = edited(fine, lambda name, known: {**known, "threads": 1} if name == "t0009" else known)
    assert "Runs had 1 and 3 CPU threads" in told(mixed)["mixed threads"]


def test_what_could_not_be_measured(fine: Sweep) -> None:
    missing = [["svcca", "needs more images"], ["pwcca", "needs more images"]]
    lacking = edited(fine, lambda name, known: {**known, "not_measured": missing} if name < "t0002" else known)
    assert "pwcca in 2 runs, svcca in 2 runs" in told(lacking)["not measured"]
    assert "not measured" not in told(edited(fine, lambda _, known: {**known, "not_measured": []}))


# ---- the seeds


@pytest.fixture(scope="module")
def confirmed(keep: Keep) -> Sweep:
    trials = sound()[:6]
    for name, count in {"t0000": 3, "t0001": 3, "t0002": 2, "t0004": 1}.items():
        original = next(item for item in trials if item.trial_id == name)
        for seed in range(1, count + 1):
            accuracy, cka = original.metrics["val_accuracy"], original.metrics["val_cka"]
            trials.append(again(original, f"t{len(trials):04d}", seed, accuracy + 0.001 * seed, cka))
    return keep("fresh seeds", trials, tags=recorded() | CODE)


def test_few_fresh_seeds(confirmed: Sweep) -> None:
    found = told(confirmed)
    assert not ALWAYS & set(found)
    assert found["few seeds"] == (
        "On the front with fewer than 3 fresh seeds, so that a standard error says little: t0002, t0004."
    )
    anchors = ("t0000", "t0001")
    names = set(confirmed.trials.loc[confirmed.trials["trial_id"].isin(anchors), "config_id"])
    enough = told(only(confirmed, lambda row: row["stage"] == "search" or row["config_id"] in names))
    assert "few seeds" not in enough
    assert not ALWAYS & set(enough)


def test_n_is_one_until_a_candidate_has_several_fresh_seeds(confirmed: Sweep) -> None:
    assert set(told(only(confirmed, lambda row: row["stage"] == "search"))) >= ALWAYS
    last = max(confirmed.trials["trial_id"])
    assert set(told(only(confirmed, lambda row: row["stage"] == "search" or row["trial_id"] == last))) >= ALWAYS


# ---- the search


def test_a_small_budget(fine: Sweep) -> None:
    small = only(fine, lambda row: row["trial_id"] < "t0024")
    text = told(small)["small budget"]
    assert text.startswith("24 trials are few for 3 searched settings (method, strength, optim.lr)")
    assert "small budget" not in told(fine)
    assert "small budget" not in told(replace(small, search=SEARCH | {"search": {"sampler": "grid"}}))
    unsaid = told(replace(small, space={}))["small budget"]
    assert unsaid.startswith("24 trials are few for 3 searched settings (method, strength, optim.lr)")
    fixed = replace(small, space={"method": ["full", "repsim"], "strength": 1.0})
    assert "small budget" not in told(fixed), "a single value is not searched"


def test_uneven_effort(fine: Sweep) -> None:
    first = min(fine.trials.loc[fine.trials["method"] == "hcs", "trial_id"])
    text = told(only(fine, lambda row: row["method"] != "hcs" or row["trial_id"] == first))["uneven effort"]
    assert "Methods were not tried equally often (full 13 times, hcs 1)" in text
    assert "uneven effort" not in told(fine), "a linear probe has nothing to try"


def test_a_method_with_nothing_to_try_is_not_tried_too_seldom(fine: Sweep) -> None:
    once = only(fine, lambda row: row["method"] != "full" or row["trial_id"] == "t0001")
    assert "full 1" in told(once)["uneven effort"]
    space = {key: value for key, value in SPACE.items() if key != "optim.lr"}
    assert "uneven effort" not in told(replace(once, space=space))


def test_a_method_without_a_result(fine: Sweep) -> None:
    failing = with_column(fine, "status", "failed", lambda row: row["method"] == "hcs")
    assert told(failing)["no result"] == "Nothing is known of methods none of whose trials completed: hcs (12 tried)."
    some = with_column(fine, "status", "failed", lambda row: row["method"] == "hcs" and row["trial_id"] > "t0010")
    assert "no result" not in told(some)


def test_a_missing_baseline(fine: Sweep) -> None:
    without = only(fine, lambda row: row["method"] != "full")
    assert "full has no completed trial" in told(without)["missing baseline"]
    assert "missing baseline" not in told(replace(without, state="running"))
    assert "missing baseline" not in told(fine)


def test_a_target_that_was_not_reached(fine: Sweep) -> None:
    outcomes = {"t0010": ("reached", 0.9), "t0013": ("not reached", 0.82), "t0016": ("not binding", 0.99)}
    asked = at(fine, TARGET_KEY, dict.fromkeys(outcomes, 0.9))

    def outcome(name: str, known: Mapping[str, object]) -> Mapping[str, object]:
        end, cka = outcomes.get(name, ("", 0.0))
        return {**known, "target_outcome": end, "control_cka": cka} if end else known

    found = told(edited(asked, outcome))["target not reached"]
    assert found == "1 of 3 runs did not reach the similarity that was asked for: t0013 (asked 0.9, came to 0.82)."
    del outcomes["t0013"]
    assert "target not reached" not in told(edited(asked, outcome))


# ---- the ends of the ranges


def at(fine: Sweep, key: str, values: Mapping[str, float]) -> Sweep:
    """The sweep with another setting of some trials."""
    names = dict(zip(fine.trials["trial_id"], fine.trials["mlflow_run_id"], strict=True))
    changed = {names[name]: {**fine.configs[names[name]], key: value} for name, value in values.items()}
    return replace(fine, configs={**fine.configs, **changed})


def members(sweep: Sweep, method: str) -> list[str]:
    front = [point for study in studies(sweep) for point in study.members]
    return [point.trial_id for point in front if point.method == method]


def test_front_members_at_the_end_of_a_range(fine: Sweep) -> None:
    first, second = members(fine, "hcs")[:2]
    found = told(at(fine, "strength", {first: 29.9, second: 28.0}))
    assert f"have the largest λ searched ({first}, {second}): the range may be too narrow" in found["edge of the range"]
    assert "edge of the range" not in told(at(fine, "strength", {first: 29.9})), "one alone may be chance"
    assert "edge of the range" not in told(at(fine, "strength", {first: 20.0, second: 18.0}))


def test_the_most_accurate_point_at_the_end_of_a_range(fine: Sweep) -> None:
    best = studies(fine)[0].members[0]
    assert best.method == "full"
    found = told(at(fine, "optim.lr", {best.trial_id: 1e-3}))["edge of the range"]
    assert f"the largest learning rate searched ({best.trial_id})" in found
    assert "smallest learning rate" in told(at(fine, "optim.lr", {best.trial_id: 3.0e-5}))["edge of the range"]


def test_no_penalty_was_tried_so_a_small_one_is_no_end(fine: Sweep) -> None:
    pair = dict.fromkeys(members(fine, "hcs")[:2], 0.0301)
    assert "edge of the range" not in told(at(fine, "strength", pair))


def test_without_a_record_of_the_ranges_nothing_is_said_of_their_ends(fine: Sweep) -> None:
    pair = dict.fromkeys(members(fine, "hcs")[:2], 29.9)
    assert "edge of the range" in told(at(fine, "strength", pair))
    assert "edge of the range" not in told(replace(at(fine, "strength", pair), space={}))


def test_ends_of_ranges_and_lists() -> None:
    log = Interval(low=0.03, high=30, log=True)
    assert [log.end(value) for value in (0.03, 0.035, 1.0, 25.0, 30.0, 0.0)] == [LOWER, LOWER, None, UPPER, UPPER, None]
    assert Interval(low=0, high=1, log=False).end(0.99) == UPPER
    assert [Choices(values=(0.1, 1, 10)).end(value) for value in (0.1, 1, 10)] == [LOWER, None, UPPER]
    assert Choices(values=(0.1, 10)).end(10) is None, "two values are two ends"
    assert Choices(values=("a", 1, 2, 3)).end(3) is None


def test_what_a_space_says_is_read_as_the_search_reads_it() -> None:
    compared = 0
    for path in sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml")):
        space = load_space(str(path))
        document = space.to_dict()["space"]
        assert isinstance(document, dict)
        for key in document:
            for method in method_names():
                parsed = parse_method(method)
                known = {"method": parsed.name, "adapter": parsed.adapter, "penalty": parsed.penalty}
                mine = domain(branches(document[key]), {**known, "backbone": "resnet50", "data": "phantom:tiny"})
                theirs = space.dimension(key).domain(method=method, backbone="resnet50", data="phantom:tiny")
                compared += mine is not None
                if theirs is None:
                    assert mine is None
                elif isinstance(theirs, Choice):
                    assert mine == Choices(values=theirs.values)
                else:
                    assert mine == Interval(low=theirs.low, high=theirs.high, log=theirs.log)
    assert compared > 100
    for pattern in ("any", "none", "full", "l*", "[f]ull"):
        for value in (None, "full", "lora", "any"):
            assert fits(pattern, value) == matches(pattern, value)


@pytest.mark.parametrize(
    "broken", [None, 3, "x", {}, {"low": 2, "high": 1}, {"low": "a", "high": 3}, {"when": 3, "low": 1}]
)
def test_what_cannot_be_read_has_no_domain(broken: object) -> None:
    assert domain(branches(broken), {"method": "full"}) is None


# ---- the training


def course(sweep: Sweep, values: list[float]) -> Sweep:
    rows = [
        (str(run), "val_accuracy", epoch, value)
        for run in sweep.trials["mlflow_run_id"]
        for epoch, value in enumerate(values, start=1)
    ]
    return replace(sweep, curves=pd.DataFrame(rows, columns=list(sweep.curves.columns)))


def test_training_that_was_still_getting_somewhere(fine: Sweep) -> None:
    rising = told(course(fine, [0.3, 0.4, 0.5, 0.6, 0.7, 0.8]))["short training"]
    assert rising.startswith(
        "Val accuracy still rose by more than one standard error over the last third of the epochs"
    )
    # one standard error at 0.8 of 120 images is 0.037
    assert "short training" not in told(course(fine, [0.3, 0.4, 0.5, 0.77, 0.79, 0.8]))
    assert "short training" not in told(course(fine, [0.2, 0.8]))
    assert "short training" not in told(fine), "without curves nothing is said"


# ---- all of them


def test_a_sweep_of_two_data_sets_names_the_one_that_is_meant(fine: Sweep) -> None:
    last = with_column(fine, "data", "phantom:other", lambda row: row["trial_id"] > "t0030")
    found = told(with_column(last, "n_val", 50, lambda row: row["data"] == "phantom:other"))
    assert found["few images"].startswith("phantom:other: There are only 50 val images")


def test_nothing_to_warn_of_in_a_sweep_without_trials(keep: Keep) -> None:
    assert words.warnings_for(keep("empty", []), []) == []


def test_a_single_run_is_not_blamed_for_being_one(keep: Keep) -> None:
    sweep = keep("one run", [trial("t0000", "repsim", 0.9, 0.5)])
    assert studies(sweep)[0].single
    assert set(told(sweep)) == ALWAYS


def test_warnings_do_not_depend_on_the_order_of_trials(fine: Sweep) -> None:
    changed = at(fine, "strength", dict.fromkeys(members(fine, "hcs")[:2], 29.9))
    turned = replace(changed, trials=changed.trials.iloc[::-1].reset_index(drop=True))
    assert set(told(turned)) == set(told(changed))
