"""What front members leave in MLflow: once, after everything else, and never at the sweep's cost."""

from __future__ import annotations

import csv
import html.parser
import io
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from tracking_samples import Children, completed, trial, writer

from repsim.export import MANIFEST, WEIGHTS, load_model, save_model
from repsim.records import Tag
from repsim.trainer import Trainer
from sweeps.artifacts import CONFUSION, MODEL, PREDICTIONS, FrontArtifacts
from sweeps.confusion import confusion, csv_text, page
from sweeps.derived import alpha_of, derived_id
from sweeps.run_folder import RunFolder
from tests.trainer.stripes import tiny_config, tiny_workspace, write_images

COLUMNS: Mapping[str, list[object]] = {
    "image": ["a.png", "b.png", "c.png", "d.png"],
    "label": ["cyst", "cyst", "node", "node"],
    "predicted": ["cyst", "node", "node", "node"],
    "probability cyst": [0.9, 0.4, 0.1, 0.2],
    "probability node": [0.1, 0.6, 0.9, 0.8],
}
EVERYTHING = {
    f"{MODEL}/{WEIGHTS}",
    f"{MODEL}/{MANIFEST}",
    *(f"{PREDICTIONS}/{split}.parquet" for split in ("val", "test")),
    *(f"{CONFUSION}/{split}.{kind}" for split in ("val", "test") for kind in ("csv", "html")),
}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs", "x")


def fill(folder: RunFolder, trial_id: str, *, model: bool = True) -> None:
    """What a finished trial leaves on disk; its model is none that could be loaded."""
    for split in ("val", "test"):
        pq.write_table(pa.table(dict(COLUMNS)), folder.predictions / f"{trial_id}_{split}.parquet")
    if model:
        (folder.models / trial_id).mkdir()
        (folder.models / trial_id / WEIGHTS).write_bytes(f"weights of {trial_id}".encode())
        (folder.models / trial_id / MANIFEST).write_text("{}")


def paths(client: MlflowClient, run_id: str, below: str | None = None) -> set[str]:
    found: set[str] = set()
    for entry in client.list_artifacts(run_id, below):
        found |= paths(client, run_id, entry.path) if entry.is_dir else {entry.path}
    return found


def fetched(client: MlflowClient, run_id: str, path: str) -> Path:
    return Path(client.download_artifacts(run_id, path))


Leave = Callable[..., list[str]]


@pytest.fixture
def leave(store_uri: str, artifacts: Path, folder: RunFolder) -> Leave:
    """One launch of a sweep, in which three trials have ended, up to its end; returns what was said."""

    def launch(name: str, front: list[str], *, models: bool = True, status: str = "completed") -> list[str]:
        said: list[str] = []
        sweep = writer(store_uri, name, artifacts, on_error=said.append)
        sweep.start()
        for number in range(3):
            sweep.update(completed(trial(number)))
        sweep.set_front(front)
        left = FrontArtifacts(folder, models=models, report=said.append)
        for member in front:
            sweep.attach(member, partial(left.send, member))
        sweep.close(status)
        assert sweep.errors == ()
        return said

    return launch


def runs_of(client: MlflowClient, children: Children, name: str) -> Mapping[str, str]:
    """Run ids by trial."""
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], "tags.kind = 'sweep'")
    return {trial_id: run.info.run_id for trial_id, run in children(name, parent.info.run_id).items()}


def test_members_of_the_front_leave_everything_and_the_others_nothing(
    client: MlflowClient, children: Children, folder: RunFolder, leave: Leave
) -> None:
    for trial_id in ("t0000", "t0001", "t0002"):
        fill(folder, trial_id)
    assert leave("everything", ["t0000", "t0002"]) == []
    runs = runs_of(client, children, "everything")
    assert {name: paths(client, run_id) for name, run_id in runs.items()} == {
        "t0000": EVERYTHING,
        "t0001": set(),
        "t0002": EVERYTHING,
    }
    tags = {name: client.get_run(run_id).data.tags.get(Tag.ARTIFACTS) for name, run_id in runs.items()}
    assert tags == {
        "t0000": "model, predictions, confusion_matrix",
        "t0001": None,
        "t0002": "model, predictions, confusion_matrix",
    }
    assert fetched(client, runs["t0002"], f"{MODEL}/{WEIGHTS}").read_bytes() == b"weights of t0002"
    assert pq.read_table(fetched(client, runs["t0002"], f"{PREDICTIONS}/test.parquet")).to_pydict() == COLUMNS
    text = fetched(client, runs["t0002"], f"{CONFUSION}/val.csv").read_text()
    assert text == "true class,cyst,node\ncyst,1,1\nnode,0,2\n"
    assert sorted(path.name for path in folder.root.iterdir()) == ["checkpoints", "models", "predictions", "report"]


def test_a_resume_sends_what_is_missing_and_nothing_twice(
    client: MlflowClient, children: Children, folder: RunFolder, leave: Leave
) -> None:
    for trial_id in ("t0000", "t0001", "t0002"):
        fill(folder, trial_id)
    leave("resumed", ["t0000", "t0001"], status="interrupted")
    runs = runs_of(client, children, "resumed")
    for trial_id in ("t0000", "t0001"):
        (folder.models / trial_id / WEIGHTS).write_bytes(b"something else")
    assert leave("resumed", ["t0000", "t0002"]) == []
    assert fetched(client, runs["t0000"], f"{MODEL}/{WEIGHTS}").read_bytes() == b"weights of t0000", "sent before"
    assert paths(client, runs["t0002"]) == EVERYTHING
    assert client.get_run(runs["t0001"]).data.tags["on_front"] == "false"
    assert paths(client, runs["t0001"]) == EVERYTHING, "it has left the front; a registered model may rest on it"


def test_without_models_the_rest_is_sent_and_nothing_is_missed(
    client: MlflowClient, children: Children, folder: RunFolder, leave: Leave
) -> None:
    fill(folder, "t0000")
    assert leave("modelless", ["t0000"], models=False) == []
    run_id = runs_of(client, children, "modelless")["t0000"]
    assert not any(path.startswith(MODEL) for path in paths(client, run_id))
    assert client.get_run(run_id).data.tags[Tag.ARTIFACTS] == "predictions, confusion_matrix"


def test_a_model_that_should_be_there_is_missed_once(
    client: MlflowClient, children: Children, folder: RunFolder, leave: Leave
) -> None:
    fill(folder, "t0000", model=False)  # and t0001 has left nothing at all
    said = leave("missed", ["t0000", "t0001"])
    assert said == [f"MLflow: t0000 is on the front, but there is no model of it in {folder.models}"]
    runs = runs_of(client, children, "missed")
    assert PREDICTIONS in {path.partition("/")[0] for path in paths(client, runs["t0000"])}
    assert paths(client, runs["t0001"]) == set()
    assert Tag.ARTIFACTS not in client.get_run(runs["t0001"]).data.tags


def test_what_cannot_be_read_costs_the_artifacts_alone_and_is_said_once(
    client: MlflowClient, children: Children, folder: RunFolder, leave: Leave
) -> None:
    for trial_id in ("t0000", "t0001", "t0002"):
        fill(folder, trial_id)
    for trial_id in ("t0000", "t0001"):
        (folder.predictions / f"{trial_id}_val.parquet").write_bytes(b"not parquet")
    said = leave("damaged", ["t0000", "t0001", "t0002"])
    assert len(said) == 1
    assert said[0].startswith("MLflow: the artifacts of t0000 were not kept (ArrowInvalid: ")
    runs = runs_of(client, children, "damaged")
    assert paths(client, runs["t0002"]) == EVERYTHING
    assert Tag.ARTIFACTS not in client.get_run(runs["t0000"]).data.tags


class Stubborn:
    """A client whose artifact store refuses, in some library's own way."""

    def __init__(self, error: Exception) -> None:
        self.error, self.asked = error, 0

    def log_artifacts(self, run_id: str, folder: str) -> None:
        self.asked += 1
        raise self.error


def test_an_outage_is_left_to_the_writer_and_a_refusal_is_said(folder: RunFolder) -> None:
    fill(folder, "t0000")
    said: list[str] = []
    left = FrontArtifacts(folder, models=True, report=said.append)
    away = Stubborn(MlflowException("connection refused", error_code=1))
    with pytest.raises(MlflowException, match="connection refused"):
        left.send("t0000", away, "run", {})  # type: ignore[arg-type]
    assert said == []
    gone = Stubborn(MlflowException.invalid_parameter_value("no such run"))
    for _ in range(2):
        assert left.send("t0000", gone, "run", {}) == {}  # type: ignore[arg-type]
    assert said == ["MLflow: the artifacts of t0000 were not kept (MlflowException: 'no such run')"]
    theirs = FrontArtifacts(folder, models=True, report=said.append)
    assert theirs.send("t0000", Stubborn(KeyError("credentials")), "run", {}) == {}  # type: ignore[arg-type]
    assert "(KeyError: " in said[-1]
    before = Stubborn(AssertionError("not asked"))
    assert theirs.send("t0000", before, "run", {Tag.ARTIFACTS: "model"}) == {}  # type: ignore[arg-type]
    assert before.asked == 0


def test_an_interrupted_sweep_is_ended_before_its_artifacts_are_sent(
    store_uri: str, client: MlflowClient, artifacts: Path
) -> None:
    sweep = writer(store_uri, "hurried", artifacts)
    parent = sweep.start()
    sweep.update(completed(trial(0)))

    def slow(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> Mapping[str, str]:
        time.sleep(3.0)
        return {}

    sweep.attach("t0000", slow)
    sweep.attach("t0001", slow)  # has no run, and takes no time
    sweep.close("interrupted", timeout=0.5)
    assert client.get_run(parent).info.status == "KILLED"
    assert len(sweep.errors) == 1
    assert "updates not written" in sweep.errors[0]


def test_a_point_between_the_weights_leaves_a_model_of_its_own(
    client: MlflowClient, children: Children, folder: RunFolder, tmp_path: Path
) -> None:
    config = tiny_config(write_images(tmp_path / "images"), **{"optim.epochs": 1, "measure.wise": True})
    trainer = Trainer(config, workspace=tiny_workspace(tmp_path / "cache"))
    trainer.step()
    result = trainer.finish()
    save_model(trainer, folder.models / "t0000")
    point = next(point for point in result.derived if point.alpha == 0.3)
    name = derived_id("t0000", point.alpha)
    assert (name, alpha_of(name), alpha_of("t0000")) == ("t0000-w03", 0.3, None)
    for split, columns in point.predictions.items():
        pq.write_table(pa.table(columns), folder.predictions / f"{name}_{split}.parquet")
    experiment = client.create_experiment("points", (tmp_path / "mlruns").as_uri())
    run_id = client.create_run(experiment).info.run_id
    said: list[str] = []
    sent = FrontArtifacts(folder, models=True, report=said.append).send(name, client, run_id, {})
    assert sent == {Tag.ARTIFACTS: "model, predictions, confusion_matrix"}
    assert said == []
    assert paths(client, run_id) == EVERYTHING
    found = load_model(fetched(client, run_id, MODEL))
    assert found.config.wise_alpha == 0.3
    images = [tmp_path / "images" / str(image) for image in point.predictions["test"]["image"]]
    expected = [point.predictions["test"][f"probability {name}"] for name in found.classes]
    assert found.probabilities(images).T.tolist() == expected
    assert sorted(path.name for path in folder.models.iterdir()) == ["t0000"]


# the confusion matrix itself


def test_a_confusion_matrix_counts_and_reads_back_as_csv() -> None:
    hostile = "=1+1,\"<script>alert('x')</script>\n"
    columns: dict[str, list[object]] = {
        "label": [hostile, hostile, "node"],
        "predicted": ["node", hostile, "node"],
        f"probability {hostile}": [0.1, 0.9, 0.2],
        "probability node": [0.9, 0.1, 0.8],
        "probability never seen": [0.0, 0.0, 0.0],
    }
    found = confusion(columns)
    assert found.classes == (hostile, "node", "never seen")
    assert found.counts == ((1, 1, 0), (0, 1, 0), (0, 0, 0))
    rows = list(csv.reader(io.StringIO(csv_text(found))))
    assert rows[0] == ["true class", hostile, "node", "never seen"]
    assert rows[1] == [hostile, "1", "1", "0"]
    text = page(found, "t0000 <b>")
    assert "<script" not in text
    assert "<b>" not in text
    assert "2 of 3 images right" in text
    seen: list[str] = []

    class Reader(html.parser.HTMLParser):
        def handle_data(self, data: str) -> None:
            seen.append(data)

    Reader().feed(text)
    assert seen.count(hostile) == 2


def test_a_label_that_is_no_class_is_no_confusion_matrix() -> None:
    with pytest.raises(KeyError, match="gone"):
        confusion({"label": ["gone"], "predicted": ["a"], "probability a": [1.0]})
