"""The tables that MLflow's UI offers as saved views: which runs, which columns, and whose they are once changed."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

from mlflow.tracking import MlflowClient
from tracking_samples import completed, trial, writer

from repsim.records import Objective
from sweeps.tracking_views import saved_views, trials_page

OBJECTIVES = (Objective(metric="val_nll", direction="minimize"), Objective(metric="val_cka", direction="maximize"))


def opened(value: str) -> tuple[str, dict[str, object]]:
    """Name and state of a view, as the UI unpacks it."""
    document = json.loads(value)
    kind, _, packed = document["state"].partition(";")
    assert kind == "deflate"
    return document["name"], json.loads(zlib.decompress(base64.b64decode(packed)))


def test_a_view_has_the_objectives_their_test_twins_and_what_trials_differ_in() -> None:
    views = saved_views("mine", "run1", OBJECTIVES)
    (name, state), (other, fronts) = map(opened, views.values())
    assert (name, other) == ("mine: trials", "fronts of all sweeps")
    assert state["searchFilter"] == "tags.kind = 'trial' and tags.sweep = 'mine'"
    assert fronts["searchFilter"] == "tags.on_front = 'true'"
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`val_nll`", True)
    columns = state["selectedColumns"]
    assert isinstance(columns, list)
    metrics = {column for column in columns if column.startswith("metrics.")}
    assert metrics == {f"metrics.`{metric}`" for metric in ("val_nll", "val_cka", "test_nll", "test_cka")}
    assert {"tags.`on_front`", "tags.`method`", "params.`strength`"} <= set(columns)
    assert not any("curve/" in column for column in columns)
    assert all(len(value) < 5000 for value in views.values()), "more than a store takes"
    key = next(key for key in views if "run1" in key).removeprefix("mlflow.sharedViewState.")
    assert f"viewStateShareKey={key}&" in trials_page("7", "run1")
    assert trials_page("7", "run1").startswith("#/experiments/7/runs?")


def test_a_quote_in_a_name_does_not_end_the_condition() -> None:
    _, state = opened(next(iter(saved_views("it's", "r", OBJECTIVES).values())))
    assert state["searchFilter"] == "tags.kind = 'trial' and tags.sweep = \"it's\""


def test_the_store_understands_the_conditions_and_a_persons_changes_stay(
    store_uri: str, client: MlflowClient, artifacts: Path
) -> None:
    def launch() -> str:
        sweep = writer(store_uri, "views", artifacts)
        sweep.start()
        for number in range(3):
            sweep.update(completed(trial(number), 0.7 + 0.1 * number))
        sweep.set_front(["t0002"])
        sweep.close("completed")
        assert sweep.errors == ()
        return sweep.page

    page = launch()
    experiment = client.get_experiment_by_name("views")
    assert experiment is not None
    views = {key: value for key, value in experiment.tags.items() if key.startswith("mlflow.sharedViewState.")}
    assert len(views) == 2
    found = {}
    for key, value in views.items():
        name, state = opened(value)
        direction = "ASC" if state["orderByAsc"] else "DESC"
        runs = client.search_runs(
            [experiment.experiment_id], str(state["searchFilter"]), order_by=[f"{state['orderByKey']} {direction}"]
        )
        found[name] = [run.data.tags["trial_id"] for run in runs]
        client.set_experiment_tag(experiment.experiment_id, key, "mine now")
    assert found == {"views-1: trials": ["t0002", "t0001", "t0000"], "fronts of all sweeps": ["t0002"]}
    assert launch() == page
    tags = client.get_experiment(experiment.experiment_id).tags
    assert {tags[key] for key in views} == {"mine now"}
