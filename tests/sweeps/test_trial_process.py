"""A slot's process, driven without Ray's scheduling: what it reports, what it writes, and what the fence forbids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sweeps.run_folder import RunFolder
from sweeps.trainable import RECYCLED_AFTER, Assignment, Report, TrialFailed, TrialProcess
from tests.trainer.stripes import tiny_config, write_images


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "stripes")


@pytest.fixture
def assignment(images: Path, tmp_path: Path) -> Assignment:
    folder = RunFolder.create(tmp_path / "runs", "x")
    folder.set_attempt("t0000", 1)
    return Assignment(
        trial_id="t0000",
        attempt=1,
        config=tiny_config(images, method="repsim").flat(),
        objective=("val_accuracy", "maximize"),
        run_folder=str(folder.root),
        launched_from=str(tmp_path),
        cache_dir=str(tmp_path / "cache"),
        threads=1,
    )


@pytest.fixture
def slot(assignment: Assignment, monkeypatch: pytest.MonkeyPatch) -> TrialProcess:
    """A process as Ray makes it, in this one."""
    monkeypatch.chdir("/")  # not where the sweep was launched from; and the old folder comes back afterwards
    process = TrialProcess.__new__(TrialProcess)
    process.setup(assignment.to_config())
    return process


def test_a_trial_reports_its_epochs_and_its_result(slot: TrialProcess, assignment: Assignment) -> None:
    folder = RunFolder(Path(assignment.run_folder))
    first = slot.step()
    assert not first["done"]
    assert Report.from_result(first).result is None
    assert folder.checkpoint("t0000").exists()
    last = slot.step()
    assert last["done"]
    report = Report.from_result(last)
    assert report.epoch is not None
    assert report.result is not None
    facts = report.result["facts"]
    assert isinstance(facts, dict)
    assert facts["finished"] > facts["began"]
    assert (folder.predictions / "t0000_val.parquet").exists()


def test_relative_paths_start_where_the_sweep_was_launched(
    slot: TrialProcess, assignment: Assignment, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").symlink_to(images)
    slot.reset_config(replace(assignment, config=assignment.config | {"data": "mine", "optim.epochs": 1}).to_config())
    assert slot.step()["done"]


def test_the_next_attempt_continues_from_the_checkpoint(slot: TrialProcess, assignment: Assignment) -> None:
    slot.step()
    RunFolder(Path(assignment.run_folder)).set_attempt("t0000", 2)
    assert slot.reset_config(replace(assignment, attempt=2).to_config())
    report = Report.from_result(slot.step())
    assert report.epoch is not None
    assert report.epoch["epoch"] == 2
    assert report.result is not None


def test_a_process_whose_attempt_is_over_writes_nothing(slot: TrialProcess, assignment: Assignment) -> None:
    folder = RunFolder(Path(assignment.run_folder))
    folder.set_attempt("t0000", 2)
    with pytest.raises(TrialFailed, match="another attempt has taken over"):
        slot.step()
    assert not folder.checkpoint("t0000").exists()
    slot.reset_config(replace(assignment, config=assignment.config | {"optim.epochs": 1}).to_config())
    with pytest.raises(TrialFailed, match="another attempt has taken over"):
        slot.step()
    assert list(folder.predictions.iterdir()) == []


def test_a_failure_says_what_happened_on_one_line(slot: TrialProcess, assignment: Assignment) -> None:
    wrong = dict(assignment.config) | {"data": "folder:gone"}
    slot.reset_config(replace(assignment, config=wrong).to_config())
    with pytest.raises(TrialFailed, match=r"RequestError: .*gone") as caught:
        slot.step()
    assert "\n" not in str(caught.value)


def test_a_process_is_replaced_after_a_while(slot: TrialProcess, assignment: Assignment) -> None:
    answers = [slot.reset_config(assignment.to_config()) for _ in range(RECYCLED_AFTER + 1)]
    assert answers == [True] * (RECYCLED_AFTER - 1) + [False] * 2
