"""What a sweep was asked and what it searched, on its run; and which code trained a trial, on the trial's."""

from __future__ import annotations

import json
from pathlib import Path

from mlflow.tracking import MlflowClient
from tracking_samples import PROVENANCE, Children, completed, running, space, trial, writer

from reports.load import load_sweep

OTHER = {**PROVENANCE, "git_commit": "d" * 40, "git_dirty": True}


def test_settings_and_space_stand_on_the_sweeps_run(store_uri: str, client: MlflowClient, artifacts: Path) -> None:
    sweep = writer(store_uri, "settings", artifacts)
    parent = sweep.start()
    sweep.close("completed")
    tags, document = client.get_run(parent).data.tags, space("settings").to_dict()
    assert json.loads(tags["search"]) == {key: document[key] for key in ("search", "budget", "confirm", "resources")}
    assert json.loads(tags["space"]) == json.loads(json.dumps(document["space"]))
    read = load_sweep(client, "settings-1")
    assert read.search == json.loads(tags["search"])
    assert read.space == json.loads(tags["space"])
    assert read.notes == ()


def test_a_resume_with_other_code_leaves_what_is_said_of_finished_trials(
    store_uri: str, client: MlflowClient, children: Children, artifacts: Path
) -> None:
    first = writer(store_uri, "other-code", artifacts)
    first.start()
    first.update(completed(trial(0)))
    first.update(running(trial(1)))
    first.close("interrupted")
    second = writer(store_uri, "other-code", artifacts, provenance=OTHER)
    parent = second.start()
    for record in (completed(trial(0)), completed(trial(1)), completed(trial(2))):
        second.update(record)
    second.close("completed")
    assert second.errors == ()
    said = {name: run.data.tags["git_commit"] for name, run in children("other-code", parent).items()}
    assert said == {"t0000": "c" * 40, "t0001": "d" * 40, "t0002": "d" * 40}
    read = load_sweep(client, "other-code-1")
    assert read.git_commit == "c" * 40
    assert sorted(read.code.values()) == [("c" * 40, False), ("d" * 40, True), ("d" * 40, True)]
