"""A confirmed front in the report: means over fresh seeds, what luck lifted is off it, stopped trials beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from reports import fronts, paper_tables, words
from reports.build import build_report
from reports.confirmed import Estimate, repeats, standard_error_of_mean
from reports.figures import choose_styles, front_picture
from reports.interactive import figure_data
from reports.load import Sweep, load_sweep
from reports.store import open_store
from reports.trial_details import Details
from repsim.records import Tag
from tests.reports.recorded_sweeps import FakeTrial, config, numbers, record

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
DATA = "phantom:tiny"
METHODS = {"t0000": "linear_probe", "t0001": "full", "t0002": "repsim", "t0003": "hcs", "t0004": "feature_mse"}
SEARCHED = {
    "t0000": (0.75, 1.0), "t0001": (0.90, 0.40), "t0002": (0.97, 0.70), "t0003": (0.88, 0.75), "t0004": (0.80, 0.30),
}  # fmt: skip
FRESH = {
    "t0000": [(0.75, 1.0)] * 3,
    "t0001": [(0.90, 0.40), (0.92, 0.42), (0.94, 0.38)],
    "t0002": [(0.83, 0.66), (0.84, 0.68), (0.85, 0.70)],
    "t0003": [(0.86, 0.74), (0.88, 0.76), (0.90, 0.78)],
}
TOLD = {
    "end": "membership unchanged",
    "reason": "the front kept its 3 members when every candidate had seed 3",
    "delta": {"val_accuracy": 0.05, "val_cka": 0.02},
    "candidates": ["t0000", "t0002", "t0003", "t0001"],
}
STOPPED = "stopped at epoch 2 of 12: with luck it would have ended at val accuracy 0.4; 9 of 14 results dominate that"


def setting(name: str, seed: int = 0) -> object:
    return config(data=DATA, method=METHODS[name], seed=seed)


def searched() -> list[FakeTrial]:
    found = [FakeTrial(name, setting(name), numbers(*SEARCHED[name])) for name in METHODS]  # type: ignore[arg-type]
    for number, reason in ((5, STOPPED), (6, STOPPED), (7, STOPPED.replace("epoch 2", "epoch 4"))):
        partial = {"curve/val_accuracy": 0.99, "curve/val_cka": 0.99, "curve/train_loss": 1.0}
        own = config(data=DATA, optim__lr=1e-4 * number)
        found.append(FakeTrial(f"t000{number}", own, partial, status="pruned", reason=reason, feasible=None, facts={}))
    return found


def fresh() -> list[FakeTrial]:
    found = []
    for name, values in FRESH.items():
        for seed, (accuracy, cka) in enumerate(values, start=1):
            number = f"t{10 + len(found):04d}"
            found.append(FakeTrial(number, setting(name, seed), numbers(accuracy, cka), stage="confirm"))  # type: ignore[arg-type]
    broken = setting("t0003", 4)
    found.append(FakeTrial("t0090", broken, {}, stage="confirm", status="failed", reason="no memory", feasible=None))  # type: ignore[arg-type]
    return found


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    from sweeps.tracking import prepare_store

    found = f"sqlite:///{tmp_path_factory.mktemp('confirmed') / 'mlflow.db'}"
    prepare_store(found)
    client = MlflowClient(tracking_uri=found)
    tags = {Tag.CONFIRMATION: json.dumps({DATA: TOLD})}
    record(client, "confirmed", [*searched(), *fresh()], tags=tags)
    record(client, "plain", searched())
    early = TOLD | {"end": "not yet", "reason": "three seeds of each anchor", "delta": {}, "candidates": []}
    anchors = [trial for trial in fresh() if trial.config.method in ("full", "linear_probe")]
    record(client, "early", [*searched(), *anchors], tags={Tag.CONFIRMATION: json.dumps({DATA: early})})
    return found


@pytest.fixture(scope="module")
def sweeps(uri: str) -> dict[str, Sweep]:
    return {name: load_sweep(open_store(uri), name) for name in ("confirmed", "plain", "early")}


@pytest.fixture(scope="module")
def studies(sweeps: dict[str, Sweep]) -> dict[str, fronts.Study]:
    return {name: fronts.study(sweep, DATA) for name, sweep in sweeps.items()}


def names(study: fronts.Study) -> list[str]:
    return [point.trial_id for point in study.members]


def test_the_front_is_that_of_the_means(studies: dict[str, fronts.Study]) -> None:
    assert names(studies["plain"]) == ["t0002", "t0003", "t0000"]
    # t0002 was lucky: its means are behind those of t0003
    assert names(studies["confirmed"]) == ["t0001", "t0003", "t0000"]
    full = studies["confirmed"].members[0]
    assert full.values == pytest.approx((0.92, 0.40)), "the search's own run is no part of the mean"
    assert full.repeats is not None
    assert full.repeats.n == 3
    assert full.se == pytest.approx(0.02 / 3**0.5)


def test_an_anchor_that_is_no_candidate_is_on_no_confirmed_front(sweeps: dict[str, Sweep]) -> None:
    sweep = sweeps["confirmed"]
    without = replace(sweep.confirmations[DATA], candidates=frozenset({"t0000", "t0002", "t0003"}))
    study = fronts.study(replace(sweep, confirmations={DATA: without}), DATA)
    assert names(study) == ["t0003", "t0000"]
    assert [point.trial_id for point in study.means if point.beaten] == ["t0001"]


def test_a_mean_is_judged_against_the_constraints_anew(sweeps: dict[str, Sweep]) -> None:
    study = fronts.study(replace(sweeps["confirmed"], constraints=("val_accuracy >= 0.89",)), DATA)
    assert names(study) == ["t0001"]


def test_while_no_candidate_has_two_seeds_the_front_is_the_searchs(studies: dict[str, fronts.Study]) -> None:
    assert names(studies["early"]) == names(studies["plain"])
    assert studies["early"].means == ()
    said = words.confirmation(studies["early"])
    assert "n = 1, no error bars" in said
    assert "was not complete when this was built: three seeds of each anchor" in said
    assert words.confirmation(studies["plain"]) == ""


def test_without_a_record_whatever_has_fresh_seeds_is_a_candidate(sweeps: dict[str, Sweep]) -> None:
    study = fronts.study(replace(sweeps["confirmed"], confirmations={}), DATA)
    assert names(study) == ["t0001", "t0003", "t0000"]
    assert "ended" not in words.confirmation(study)


def test_the_text_says_how_it_ended_and_what_luck_was_taken_to_explain(studies: dict[str, fronts.Study]) -> None:
    said = words.confirmation(studies["confirmed"])
    assert "4 configurations were candidates, 3 are on the confirmed front" in said
    assert "over 3 fresh seeds" in said
    assert "δ = val accuracy 0.05, val similarity (CKA) 0.02" in said
    assert "ended: membership unchanged (the front kept its 3 members" in said
    assert words.on_test(studies["confirmed"], studies["confirmed"].members[0]) == (
        "Over 3 fresh seeds: test accuracy 0.910 ± 0.012, test similarity (CKA) 0.390 ± 0.012."
    )


def test_stopped_trials_are_counted_by_when_and_never_on_the_front(studies: dict[str, fronts.Study]) -> None:
    for study in studies.values():
        assert words.stopped_early(study) == (
            "3 trials were stopped early: 2 at epoch 2 of 12, 1 at epoch 4 of 12. None is on the front."
        )
        stopped = [point for point in study.points if point.pruned]
        assert [point.values for point in stopped] == [(0.99, 0.99)] * 3
        assert not {point.trial_id for point in stopped} & set(names(study))
    assert words.stopped_early(replace(studies["plain"], trials=studies["plain"].trials.head(5))) == ""


def test_the_picture_has_means_with_bars_and_the_runs_small_behind(studies: dict[str, fronts.Study]) -> None:
    study = studies["confirmed"]
    styles = choose_styles([point.method for point in study.points], ["b", *study.backbones])
    picture = front_picture(study, styles)
    assert picture is not None
    means = {mark.trial_id: mark for mark in picture.marks if mark.n}
    assert sorted(means) == ["t0000", "t0001", "t0002", "t0003"]
    assert means["t0001"].errors == pytest.approx((0.02 / 3**0.5, 0.02 / 3**0.5))
    assert [mark.trial_id for mark in picture.marks if mark.on_front] == ["t0000", "t0001", "t0003"]
    runs = [mark for mark in picture.marks if not mark.n]
    assert all(mark.small and not mark.on_front and mark.errors == (None, None) for mark in runs)
    assert picture.error is None
    assert picture.steps[-1] == (1.0, 0.75)
    assert len({mark.key for mark in picture.marks}) == len(picture.marks)
    data = figure_data(picture, Details(marks={}, shared=(), opens=""))
    light = data["light"]
    assert isinstance(light, dict)
    bars = {axis: [trace[axis]["array"] for trace in light["data"] if axis in trace] for axis in ("error_x", "error_y")}
    assert [len(array) for array in bars["error_x"]] == [1, 1, 1], "seeds do not move a linear probe"
    assert [len(array) for array in bars["error_y"]] == [1, 1, 1, 1]
    assert all(array[0] is not None for both in bars.values() for array in both), "a run has none, its mean has"


def test_the_tables_have_n_and_standard_errors(sweeps: dict[str, Sweep], studies: dict[str, fronts.Study]) -> None:
    table = paper_tables.front_table(sweeps["confirmed"], [studies["confirmed"]])
    row = dict(zip(table.columns, table.cells()[0], strict=True))
    assert (row["trial"], row["n"], row["test accuracy"]) == ("t0001", "3", "0.910 ± 0.012")
    assert "seed" not in row
    csv = paper_tables.to_csv(table).splitlines()
    values = dict(zip(csv[0].split(","), csv[1].split(","), strict=True))
    assert float(values["test accuracy"]) == pytest.approx(0.91)
    assert float(values["test accuracy ±"]) == pytest.approx(0.02 / 3**0.5)
    assert "trial ±" not in values
    plain = paper_tables.front_table(sweeps["plain"], [studies["plain"]])
    assert "n" not in plain.columns
    assert "±" not in paper_tables.to_markdown(plain)


def test_the_written_report(uri: str, tmp_path: Path) -> None:
    build_report("confirmed", uri, tmp_path, log=False)
    trials = pd.read_parquet(tmp_path / "trials.parquet").set_index("trial_id")
    assert trials.index[trials["on_front"].fillna(False)].tolist() == ["t0000", "t0001", "t0003"]
    assert trials.loc[trials["stage"] == "confirm", "on_front"].isna().all()
    assert trials.loc["t0005", "val_accuracy"] == 0.99
    assert pd.isna(trials.loc["t0005", "test_accuracy"])
    page = (tmp_path / "index.html").read_text()
    assert "membership unchanged" in page
    assert "n = 1, no error bars" not in page
    assert "3 trials were stopped early" in page
    build_report("plain", uri, tmp_path, log=False)
    assert "n = 1, no error bars" in (tmp_path / "index.html").read_text()


def test_repeats_hold_what_every_seed_has() -> None:
    told = repeats([{"val_accuracy": 0.8, "val_cka": 0.5}, {"val_accuracy": 0.9, "val_cka": None}])
    assert told is not None
    assert told.means == pytest.approx({"val_accuracy": 0.85})
    assert told.errors["val_accuracy"] == pytest.approx(0.05)
    assert repeats([]) is None
    assert standard_error_of_mean([0.7]) is None
    assert paper_tables.show(Estimate(mean=0.7, error=None)) == "0.7"
