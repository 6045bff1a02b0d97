from __future__ import annotations

import dataclasses
import json
import logging
import math
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from tracking_samples import PROVENANCE, Children, completed, epoch, failed, running, space, trial, writer

from repsim.errors import RequestError
from repsim.records import METRICS, Stage, Status, Tag
from sweeps.tracking import describe, space_hash
from sweeps.tracking_children import Child
from sweeps.tracking_rows import clean, metric_name, params, points
from sweeps.tracking_uri import sqlite_path


def _history(client: MlflowClient, run: Run, key: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, key)]


def test_the_front_moves_without_a_look_at_every_trial(
    store_uri: str, client: MlflowClient, children: Children, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = writer(store_uri, "moving", artifacts)
    parent = sweep.start()
    sweep.set_front(["t0000"])
    for number in range(12):
        sweep.update(completed(trial(number)))
    assert sweep.flush(60)
    looked: list[str] = []
    settled = Child.settled.fget

    def counting(child: Child) -> bool:
        looked.append(child.tags[Tag.TRIAL_ID])
        return bool(settled(child))

    monkeypatch.setattr(Child, "settled", property(counting))
    sweep.set_front(["t0003", "t0004", "t0099"])
    assert sweep.flush(60)
    assert set(looked) == {"t0000", "t0003", "t0004"}
    sweep.set_front(["t0003", "t0004"])
    sweep.close("completed")
    fronts = {name: run.data.tags["on_front"] for name, run in children("moving", parent).items()}
    assert {name for name, value in fronts.items() if value == "true"} == {"t0003", "t0004"}
    assert set(fronts.values()) == {"true", "false"}
    assert len(fronts) == 12
    assert sweep.errors == ()


def test_a_resumed_writer_knows_who_says_what_of_the_front(
    store_uri: str, client: MlflowClient, children: Children, artifacts: Path
) -> None:
    first = writer(store_uri, "whose", artifacts)
    first.start()
    first.update(completed(trial(0)))  # says nothing: there is no front yet
    assert first.flush(60)
    first.set_front(["t0001"])
    first.update(completed(trial(1)))
    first.close("interrupted")
    again = writer(store_uri, "whose", artifacts)
    parent = again.start()
    again.set_front(["t0002"])
    again.update(completed(trial(2)))
    again.close("completed")
    fronts = {name: run.data.tags["on_front"] for name, run in children("whose", parent).items()}
    assert fronts == {"t0000": "false", "t0001": "false", "t0002": "true"}


def test_values_of_the_sweep_that_wait_are_written_together(
    store_uri: str, client: MlflowClient, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = writer(store_uri, "together", artifacts)
    sweep._thread.put("values", lambda: None)
    calls: list[int] = []
    log = MlflowClient.log_batch

    def counting(self: MlflowClient, run_id: str, metrics: Sequence[Metric] = (), **rest: object) -> None:
        if metrics:
            calls.append(len(metrics))
        if len(calls) == 1 and metrics:
            raise MlflowException("away")
        log(self, run_id, metrics=metrics, **rest)

    monkeypatch.setattr(MlflowClient, "log_batch", counting)
    for step in range(1, 301):
        sweep.sweep_values(step, {"curve/hypervolume": step / 1000})
    parent = sweep.start()
    sweep.close("completed")
    assert calls == [300, 300], "once more after the outage, all of them"
    values = _history(client, client.get_run(parent), "curve/hypervolume")
    assert values == [(step, step / 1000) for step in range(1, 301)]


def test_a_sweep_is_found_as_a_person_would_look_for_it(
    store_uri: str, client: MlflowClient, children: Children, artifacts: Path
) -> None:
    sweep = writer(store_uri, "found", artifacts)
    parent_id = sweep.start()
    records = [completed(trial(k), accuracy) for k, accuracy in enumerate([0.8, 0.9, 0.7])]
    sweep.update(completed(trial(9, "full", None)))
    for record in records:
        sweep.update(record)
    sweep.set_front(["t0001", "t0002"])
    sweep.set_reference("phantom:ultrasound", {"val_accuracy": 0.6}, {"val_accuracy": 1.0})
    sweep.sweep_values(1, {"curve/hypervolume": 0.2})
    sweep.sweep_values(2, {"curve/hypervolume": 0.3})
    sweep.close("completed")
    assert sweep.errors == ()

    parent = client.get_run(parent_id)
    tags = parent.data.tags
    assert (parent.info.run_name, parent.info.status) == ("found-1", "FINISHED")
    assert (tags["kind"], tags["sweep"], tags["status"]) == ("sweep", "found-1", "completed")
    assert json.loads(tags["objectives"])[1] == {"metric": "val_cka", "direction": "maximize"}
    assert json.loads(tags["constraints"]) == ["val_accuracy >= 0.7"]
    assert json.loads(tags["versions"])["torch"] == "2.13.0"
    assert json.loads(tags["hypervolume_reference"]) == {
        "phantom:ultrasound": {"reference": {"val_accuracy": 0.6}, "ideal": {"val_accuracy": 1.0}}
    }
    assert (tags["git_commit"], tags["git_dirty"]) == ("c" * 40, "false")
    assert tags["space_hash"] == space_hash(space("found"))
    assert "Which method keeps most?" in tags["mlflow.note.content"]
    assert "reports/build.py --sweep found-1" in tags["mlflow.note.content"]
    report = f"#/experiments/{parent.info.experiment_id}/runs/{parent_id}/artifacts/report/index.html"
    assert tags["mlflow.note.content"].startswith(
        f"[The report]({report}) · [Its trials, to sort and filter]({sweep.page})"
    )
    assert _history(client, parent, "curve/hypervolume") == [(1, 0.2), (2, 0.3)]
    experiment = client.get_experiment_by_name("found")
    assert experiment is not None
    assert experiment.artifact_location == (artifacts / "found").as_uri()

    runs = children("found", parent_id)
    assert sorted(runs) == ["t0000", "t0001", "t0002", "t0009"]
    assert {name: run.data.tags["on_front"] for name, run in runs.items()} == {
        "t0000": "false",
        "t0001": "true",
        "t0002": "true",
        "t0009": "false",
    }
    run = runs["t0001"]
    assert run.info.run_name == "t0001 repsim λ=1.2 tf_efficientnet_lite0"
    assert run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time == 12_000
    assert {name for name in run.data.metrics if not name.startswith("curve/")} == set(METRICS)
    assert _history(client, run, "val_accuracy") == [(3, 0.9)]
    curve = _history(client, run, "curve/val_accuracy")
    assert [step for step, _ in curve] == [1, 2, 3]
    assert [value for _, value in curve] == pytest.approx([0.6, 0.7, 0.8])
    assert [step for step, _ in _history(client, run, "curve/train_loss")] == [1, 2, 3]
    assert json.loads(run.data.tags["facts"])["n_train"] == 30
    assert (run.data.tags["data_hash"], run.data.tags["chosen_epoch"]) == ("d" * 12, "3")
    assert (run.data.tags["feasible"], run.data.tags["kind"], run.data.tags["attempts"]) == ("true", "trial", "1")
    assert run.data.params["strength"] == "1.2"
    assert runs["t0009"].data.params["strength"] == runs["t0009"].data.params["penalty"] == "null"
    assert run.data.params["adapter"] == "full"

    ordered = client.search_runs(
        [experiment.experiment_id], "tags.kind = 'trial'", order_by=["metrics.val_accuracy DESC"]
    )
    assert [run.data.tags["trial_id"] for run in ordered][:1] == ["t0001"]
    assert [run.data.metrics["val_accuracy"] for run in ordered] == [0.9, 0.8, 0.8, 0.7]


def test_failed_and_pruned_trials_say_why_and_have_no_finals(
    store_uri: str, client: MlflowClient, children: Children, artifacts: Path
) -> None:
    sweep = writer(store_uri, "unlucky", artifacts)
    parent = sweep.start()
    sweep.update(failed(trial(0), "loss became NaN at step 17"))
    sweep.update(failed(trial(1), "dominated", Status.PRUNED))
    sweep.update(dataclasses.replace(running(trial(2)), status=Status.PROPOSED))
    sweep.close("failed")
    runs = children("unlucky", parent)
    assert sorted(runs) == ["t0000", "t0001"]  # a trial that was only proposed has no run
    assert (runs["t0000"].info.status, runs["t0000"].data.tags["status"]) == ("FAILED", "failed")
    assert runs["t0000"].data.tags["reason"] == "loss became NaN at step 17"
    assert (runs["t0001"].info.status, runs["t0001"].data.tags["status"]) == ("KILLED", "pruned")
    for run in runs.values():
        assert all(name.startswith("curve/") for name in run.data.metrics)
        assert len(_history(client, run, "curve/val_accuracy")) == 1
    assert client.get_run(parent).info.status == "FAILED"


def test_resume_continues_the_same_runs_and_replay_writes_nothing_twice(
    store_uri: str, client: MlflowClient, children: Children, artifacts: Path
) -> None:
    first = writer(store_uri, "again", artifacts)
    parent = first.start()
    first.update(completed(trial(0)))
    first.update(running(trial(1), epochs=2))
    first.sweep_values(1, {"curve/hypervolume": 0.2})
    first.set_reference("phantom:ultrasound", {"val_accuracy": 0.6}, {"val_accuracy": 1.0})
    first.close("interrupted")
    before = children("again", parent)
    assert (before["t0001"].info.status, before["t0001"].data.tags["status"]) == ("KILLED", "waiting")
    assert client.get_run(parent).info.status == "KILLED"

    second = writer(store_uri, "again", artifacts, command="python sweeps/launch.py --resume again-1")
    assert second.start() == parent
    assert client.get_run(parent).info.status == "RUNNING"
    second.update(completed(trial(0)))
    second.update(running(trial(1), epochs=3, attempts=2))
    second.sweep_values(1, {"curve/hypervolume": 0.2})
    assert second.flush(20)
    between = children("again", parent)
    assert (between["t0001"].info.status, between["t0001"].data.tags["status"]) == ("RUNNING", "running")
    second.update(completed(trial(1)))
    second.close("completed")
    assert second.errors == ()

    after = children("again", parent)
    assert {name: run.info.run_id for name, run in after.items()} == {
        name: run.info.run_id for name, run in before.items()
    }
    for run in after.values():
        assert [step for step, _ in _history(client, run, "curve/val_accuracy")] == [1, 2, 3]
        assert len(_history(client, run, "val_accuracy")) == 1
        assert run.info.status == "FINISHED"
    again = client.get_run(parent)
    assert len(_history(client, again, "curve/hypervolume")) == 1
    assert again.data.tags["command"] == "python sweeps/launch.py --space again.yaml"
    assert "phantom:ultrasound" in json.loads(again.data.tags["hypervolume_reference"])


def test_a_second_sweep_of_the_same_name_gets_runs_of_its_own_unless_it_resumes(
    store_uri: str, children: Children, artifacts: Path
) -> None:
    first = writer(store_uri, "twice", artifacts)
    old = first.start()
    first.update(completed(trial(0), 0.8))
    first.close("completed")
    second = writer(store_uri, "twice", artifacts, resume=False)
    new = second.start()
    second.update(completed(trial(0), 0.6))
    second.close("completed")
    assert new != old
    assert children("twice", old)["t0000"].data.metrics["val_accuracy"] == 0.8
    assert children("twice", new)["t0000"].data.metrics["val_accuracy"] == 0.6


def test_everything_can_be_sent_again_after_the_store_was_lost(
    store_uri: str, client: MlflowClient, children: Children, artifacts: Path
) -> None:
    first = writer(store_uri, "lost", artifacts)
    parent = first.start()
    first.update(completed(trial(0)))
    first.close("completed")
    for run_id in (parent, children("lost", parent)["t0000"].info.run_id):
        client.delete_run(run_id)
    second = writer(store_uri, "lost", artifacts)
    again = second.start()
    second.update(completed(trial(0)))
    second.close("completed")
    assert again != parent
    assert children("lost", again)["t0000"].data.metrics["val_accuracy"] == 0.8


def test_confirmations_nest_under_their_trial(store_uri: str, children: Children, artifacts: Path) -> None:
    def send() -> str:
        sweep = writer(store_uri, "confirmed", artifacts)
        parent = sweep.start()
        sweep.update(completed(trial(0)))
        sweep.update(completed(trial(1, strength=3.0)))
        sweep.update(completed(trial(2, stage=Stage.CONFIRM, seed=1, confirms="t0000")))
        sweep.close("completed")
        assert sweep.errors == ()
        return parent

    parent = send()
    assert send() == parent  # the second time finds the nested run again
    runs = children("confirmed", parent)
    assert sorted(runs) == ["t0000", "t0001"]
    nested = children("confirmed", runs["t0000"].info.run_id)
    assert sorted(nested) == ["t0002"]
    assert nested["t0002"].info.run_name == "t0002 repsim λ=1.2 tf_efficientnet_lite0 seed 1"
    assert children("confirmed", runs["t0001"].info.run_id) == {}


def test_how_far_a_confirmation_is_stands_on_the_sweeps_run(
    store_uri: str, client: MlflowClient, artifacts: Path
) -> None:
    sweep = writer(store_uri, "told", artifacts)
    parent = sweep.start()
    told = {"end": "not yet", "reason": "δ is not known", "delta": {}, "candidates": []}
    sweep.set_confirmation({"a": told, "b": told})
    sweep.set_confirmation({"a": told | {"end": "membership unchanged", "candidates": ["t0002"]}})
    sweep.close("completed")
    assert sweep.errors == ()
    kept = json.loads(client.get_run(parent).data.tags[Tag.CONFIRMATION])
    assert kept == {"a": told | {"end": "membership unchanged", "candidates": ["t0002"]}}


def test_the_report_is_an_artifact_of_the_sweep(store_uri: str, client: MlflowClient, artifacts: Path) -> None:
    report = artifacts.parent / "report"
    (report / "tables").mkdir(parents=True)
    (report / "index.html").write_text("<p>front</p>")
    (report / "tables" / "front.csv").write_text("a,b\n")
    sweep = writer(store_uri, "reported", artifacts)
    parent = sweep.start()
    sweep.end("completed")
    assert sweep.flush(20)
    assert client.get_run(parent).info.status == "FINISHED"
    sweep.log_report(report)
    sweep.close("completed")
    assert [item.path for item in client.list_artifacts(parent, "report")] == ["report/index.html", "report/tables"]
    sweep = writer(store_uri, "reported", artifacts)
    sweep.start()
    sweep.log_report(artifacts.parent / "nowhere")
    sweep.close("completed")
    assert len(sweep.errors) == 1
    assert "there is no report to keep at" in sweep.errors[0]


def test_updates_return_at_once_and_copy(
    store_uri: str, client: MlflowClient, children: Children, artifacts: Path
) -> None:
    sweep = writer(store_uri, "quick", artifacts)
    parent = sweep.start()
    path = sqlite_path(store_uri)
    assert path is not None
    blocker = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    blocker.execute("BEGIN EXCLUSIVE")
    try:
        record = running(trial(0), epochs=1)
        began = time.monotonic()
        for _ in range(200):
            sweep.update(record)
        sweep.set_front(["t0000"])
        assert time.monotonic() - began < 0.5
        record.epochs.append(epoch(2))
        record.status = Status.FAILED
    finally:
        blocker.execute("ROLLBACK")
        blocker.close()
    assert sweep.flush(20)
    run = children("quick", parent)["t0000"]
    assert (run.data.tags["status"], len(_history(client, run, "curve/val_cka"))) == ("running", 1)
    sweep.close("completed")


def test_a_locked_database_is_waited_for(
    store_uri: str, client: MlflowClient, children: Children, artifacts: Path
) -> None:
    sweep = writer(store_uri, "locked", artifacts)
    parent = sweep.start()
    path = sqlite_path(store_uri)
    assert path is not None
    blocker = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    blocker.execute("BEGIN EXCLUSIVE")

    def release() -> None:
        blocker.execute("ROLLBACK")
        blocker.close()

    timer = threading.Timer(2.0, release)
    timer.start()
    for number in range(3):
        sweep.update(completed(trial(number)))
    assert not sweep.flush(0.5)
    sweep.close("completed")
    timer.join()
    assert sorted(children("locked", parent)) == ["t0000", "t0001", "t0002"]
    assert client.get_run(parent).info.status == "FINISHED"


class _Flaky:
    """A client whose calls fail, after doing their work or before it."""

    def __init__(self, client: MlflowClient, failures: dict[str, list[bool]]) -> None:
        self._client, self._failures = client, failures

    def __getattr__(self, name: str) -> object:
        method = getattr(self._client, name)

        def call(*args: object, **kwargs: object) -> object:
            pending = self._failures.get(name)
            if not pending:
                return method(*args, **kwargs)
            if pending.pop(0):  # the answer is lost, the work is done
                method(*args, **kwargs)
            raise MlflowException("connection refused")

        return call


@pytest.mark.parametrize("done", [False, True])
def test_an_outage_loses_and_doubles_nothing(
    store_uri: str,
    client: MlflowClient,
    children: Children,
    artifacts: Path,
    monkeypatch: pytest.MonkeyPatch,
    done: bool,
) -> None:
    monkeypatch.setattr("sweeps.patient.PAUSES", (0.01, 0.02))
    name = f"outage {done}"
    heard: list[str] = []
    sweep = writer(store_uri, name, artifacts, on_error=heard.append)
    parent = sweep.start()
    failures = {"create_run": [done], "log_batch": [done, done], "set_terminated": [done], "search_runs": [False]}
    sweep._client = _Flaky(client, failures)  # type: ignore[assignment]
    sweep.update(running(trial(0)))
    sweep.update(completed(trial(0)))
    sweep.update(completed(trial(1)))
    sweep.sweep_values(1, {"curve/hypervolume": 0.5})
    sweep.close("completed", timeout=60)
    assert not any(failures.values())
    runs = children(name, parent)
    assert sorted(runs) == ["t0000", "t0001"]
    for run in runs.values():
        assert run.info.status == "FINISHED"
        assert [step for step, _ in _history(client, run, "curve/val_accuracy")] == [1, 2, 3]
        assert len(_history(client, run, "val_accuracy")) == 1
    assert len(_history(client, client.get_run(parent), "curve/hypervolume")) == 1
    assert client.get_run(parent).info.status == "FINISHED"
    assert heard == list(sweep.errors)
    assert "connection refused" in heard[0]
    assert len(heard) < 6  # once per outage, not once per attempt


def test_a_run_deleted_meanwhile_is_reported_once_and_stops_nothing(
    store_uri: str, client: MlflowClient, children: Children, artifacts: Path
) -> None:
    sweep = writer(store_uri, "deleted", artifacts)
    parent = sweep.start()
    sweep.update(running(trial(0)))
    assert sweep.flush(20)
    client.delete_run(children("deleted", parent)["t0000"].info.run_id)
    sweep.update(completed(trial(0)))
    sweep.update(completed(trial(1)))
    assert sweep.flush(20)
    assert len(sweep.errors) == 1
    assert "t0000" in sweep.errors[0]
    assert "t0001" in children("deleted", parent)
    sweep.close("completed")


def test_a_store_that_stays_away_does_not_hold_up_the_end(
    store_uri: str, client: MlflowClient, artifacts: Path
) -> None:
    sweep = writer(store_uri, "gone", artifacts)
    sweep.start()
    sweep._client = _Flaky(client, {"create_run": [False] * 1000, "log_batch": [False] * 1000})  # type: ignore[assignment]
    sweep.update(completed(trial(0)))
    began = time.monotonic()
    sweep.close("completed", timeout=1.0)
    assert time.monotonic() - began < 3.0
    assert "updates not written" in sweep.errors[-1]
    assert "--resume" in sweep.errors[-1]


def test_a_deleted_experiment_is_a_request_error(store_uri: str, client: MlflowClient, artifacts: Path) -> None:
    client.delete_experiment(client.create_experiment("thrown away"))
    with pytest.raises(RequestError, match=r"'thrown away' was deleted; restore it \(mlflow experiments restore"):
        writer(store_uri, "thrown away", artifacts).start()
    with pytest.raises(RequestError, match="'thrown away' was deleted"):
        writer(store_uri, "thrown away", artifacts).check()
    writer(store_uri, "not there yet", artifacts).check()
    assert client.get_experiment_by_name("not there yet") is None
    with pytest.raises(RequestError, match=r"MLflow refuses: "):
        writer(store_uri, "", artifacts).start()


def test_another_sweep_may_make_the_experiment_first(
    store_uri: str, client: MlflowClient, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = writer(store_uri, "raced", artifacts)
    find = sweep._find_experiment
    answers = iter([None, *[0] * 9])
    monkeypatch.setattr(sweep, "_find_experiment", lambda: None if next(answers) is None else find())
    made = client.create_experiment("raced")
    assert client.get_run(sweep.start()).info.experiment_id == made
    sweep.close("completed")


def test_not_a_number_and_infinity_are_never_sent() -> None:
    record = completed(trial(0), val_ece=math.nan, sharpness=math.inf)
    record.epochs[1] = dataclasses.replace(record.epochs[1], train_loss=math.inf)
    sent = points(record)
    assert all(math.isfinite(point.value) for point in sent)
    assert {"val_ece", "sharpness"}.isdisjoint(point.key for point in sent)
    assert [point.step for point in sent if point.key == "curve/train_loss"] == [1, 3]
    assert sent == points(record)


def test_similarity_by_layer_is_a_course_under_names_every_store_takes(
    store_uri: str, children: Children, artifacts: Path
) -> None:
    record = running(trial(0), epochs=2)
    record.epochs = [
        dataclasses.replace(one, layers={"blocks.3": 1.0 - 0.1 * one.epoch, "a//../b@c": 0.5}) for one in record.epochs
    ]
    sweep = writer(store_uri, "layers", artifacts)
    parent = sweep.start()
    sweep.update(record)
    record.epochs.append(dataclasses.replace(epoch(3), layers={"blocks.3": 0.7, "a//../b@c": math.nan}))
    sweep.update(record)
    sweep.close("completed")
    client = MlflowClient(store_uri)
    run = children("layers", parent)["t0000"]
    assert _history(client, run, "curve/layer_cka/blocks.3") == [(1, 0.9), (2, 0.8), (3, 0.7)]
    assert _history(client, run, "curve/layer_cka/b_c") == [(1, 0.5), (2, 0.5)]
    assert all(name.startswith("curve/") for name in run.data.metrics)


def test_hostile_text_is_stored_as_text(store_uri: str, children: Children, artifacts: Path) -> None:
    data = "folder:/a'b\"c\udcff/ü 日本"
    name = "od'd / näme"
    for _ in range(2):
        sweep = writer(store_uri, name, artifacts, space=space(name, (data, "npz:x")), sweep="it's 1")
        parent = sweep.start()
        sweep.update(failed(trial(0, data=data), "<script>\x00\n" + "x" * 9000))
        sweep.sweep_values(1, {f"curve/hypervolume/{data}": 0.5})
        sweep.close("completed")
        assert sweep.errors == ()
    run = children(name, parent)["t0000"]
    assert run.data.tags["data"] == data.replace("\udcff", "?")
    assert run.data.tags["reason"].startswith("<script>?\nxxx")
    assert len(run.data.tags["reason"]) == 5000


def test_more_values_than_one_call_takes(
    store_uri: str, client: MlflowClient, children: Children, artifacts: Path
) -> None:
    sweep = writer(store_uri, "long", artifacts)
    parent = sweep.start()
    record = completed(trial(0))
    record.epochs = [epoch(number, accuracy=0.0) for number in range(1, 401)]
    sweep.update(record)
    sweep.close("completed")
    assert sweep.errors == ()
    run = children("long", parent)["t0000"]
    assert [step for step, _ in _history(client, run, "curve/val_cka")] == list(range(1, 401))
    assert run.data.tags["status"] == "completed"


def test_nothing_reaches_the_terminal(tmp_path: Path) -> None:
    script = f"""
        import warnings; warnings.simplefilter("error")
        import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]
        from pathlib import Path
        from tracking_samples import writer, completed, trial
        from sweeps.tracking import resolve_tracking_uri
        sweep = writer(resolve_tracking_uri(None), "quiet", Path("mlruns"))
        sweep.start(); sweep.update(completed(trial(0))); sweep.set_front(["t0000"])
        sweep.close("completed")
        assert sweep.errors == (), sweep.errors
        assert "torch" not in sys.modules and "ray" not in sys.modules
    """
    folder = tmp_path / "odd ü #1 100% folder"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {path.name for path in folder.iterdir()} <= {"mlflow.db", ".mlflow.db.lock", "mlruns"}


def test_small_things() -> None:
    assert describe(trial(0, "full", None)) == "full tf_efficientnet_lite0"
    assert params(trial(0))["data.fractions"] == "[0.6, 0.2, 0.2]"
    assert metric_name("curve/hypervolume//data/a@b/../c") == "curve/hypervolume/data/c"
    assert clean("a\x00b\udc80") == "a?b?"
    assert space_hash(space("a")) == space_hash(space("a")) != space_hash(space("b"))
    assert logging.getLogger("mlflow").getEffectiveLevel() >= logging.WARNING
    assert PROVENANCE["git_commit"] == "c" * 40


def test_a_servers_experiment_is_not_written_to_behind_its_back(
    store_uri: str, client: MlflowClient, artifacts: Path
) -> None:
    client.create_experiment("served", "mlflow-artifacts:/1")
    with pytest.raises(RequestError, match=r"'served' was made by an MLflow server.*allowed: the server's address"):
        writer(store_uri, "served", artifacts).check()
