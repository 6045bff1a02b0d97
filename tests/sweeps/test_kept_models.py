"""Which models stay in the run folder: never one too few, and on the front's side alone in the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from repsim.records import METRICS, DerivedResult, Stage, Status, TrialResult
from sweeps.kept_models import forget_models
from sweeps.run_folder import RunFolder
from sweeps.search import Outcome, Search
from sweeps.space import Space, load_space
from sweeps.trial import Trial, TrialRecord


class Ground:
    """A search whose trials' models are empty files."""

    def __init__(self, folder: RunFolder, space: Space) -> None:
        self.folder, self.search = folder, Search(space)
        self.records: dict[str, TrialRecord] = {}

    def begin(self) -> Trial:
        """The next trial, whose model is there before anybody has heard that it has ended."""
        trial = self.search.ask()
        assert trial is not None
        self.records[trial.trial_id] = TrialRecord(trial=trial, status=Status.RUNNING)
        if trial.stage is Stage.SEARCH:
            (folder := self.folder.models / trial.trial_id).mkdir()
            (folder / "model.safetensors").write_bytes(b"weights")
        return trial

    def end(self, trial: Trial, accuracy: float, cka: float, derived: tuple[DerivedResult, ...] = ()) -> None:
        values = dict.fromkeys(METRICS, 0.5) | {"val_accuracy": accuracy, "val_cka": cka}
        result = TrialResult(chosen_epoch=1, epochs=1, values=values, facts={"n_val": 50}, derived=derived)
        self.search.tell(trial, Outcome.completed(trial.trial_id, result))
        self.records[trial.trial_id] = TrialRecord(trial=trial, status=Status.COMPLETED, result=result)
        forget_models(self.folder, self.search, self.records)

    def left(self) -> set[str]:
        return {path.name for path in self.folder.models.iterdir()}


@pytest.fixture
def ground(tmp_path: Path) -> Callable[..., Ground]:
    def make(*overrides: str, trials: int = 6) -> Ground:
        return Ground(RunFolder.create(tmp_path / "runs", "x"), load_space("quick.yaml", overrides, trials=trials))

    return make


def test_a_beaten_trials_model_goes_at_once_and_those_of_the_front_stay(ground: Callable[..., Ground]) -> None:
    here = ground()
    here.end(here.begin(), 0.6, 1.0)
    here.end(here.begin(), 0.9, 0.5)
    here.end(here.begin(), 0.8, 0.8)
    assert here.left() == {"t0000", "t0001", "t0002"}
    running = here.begin()
    here.end(here.begin(), 0.85, 0.85)
    assert here.left() == {"t0000", "t0001", running.trial_id, "t0004"}, "t0002 is beaten; t0003 is still at work"
    here.end(running, 0.5, 0.5)
    assert here.left() == {"t0000", "t0001", "t0004"}


@pytest.mark.parametrize("status", [Status.FAILED, Status.PRUNED])
def test_what_an_attempt_left_of_a_trial_without_a_result_goes_too(
    ground: Callable[..., Ground], status: Status
) -> None:
    here = ground()
    trial = here.begin()
    here.search.tell(trial, Outcome(status=status, reason="out of luck"))
    here.records[trial.trial_id] = replace(here.records[trial.trial_id], status=status)
    forget_models(here.folder, here.search, here.records)
    assert here.left() == set()


def test_a_trial_stays_for_a_point_between_its_weights(ground: Callable[..., Ground]) -> None:
    here = ground("fixed.measure.wise=true")
    here.end(here.begin(), 0.6, 1.0)
    better = dict.fromkeys(METRICS, 0.5) | {"val_accuracy": 0.95, "val_cka": 0.9}
    here.end(here.begin(), 0.7, 0.7, (DerivedResult(alpha=0.5, values=better),))
    assert here.search.front(here.records["t0000"].trial.data) == ["t0000", "t0001-w05"]
    assert here.left() == {"t0000", "t0001"}


def test_no_model_goes_before_fresh_seeds_have_told_how_far_luck_reaches(ground: Callable[..., Ground]) -> None:
    here = ground("confirm.seeds=3", "confirm.runs=40", trials=4)
    searched = [(0.6, 1.0), (0.9, 0.5), (0.89, 0.495), (0.5, 0.4)]
    for accuracy, cka in searched:
        here.end(here.begin(), accuracy, cka)
    data = here.records["t0000"].trial.data
    assert here.search.front(data) == ["t0000", "t0001"]
    assert here.left() == {"t0000", "t0001", "t0002", "t0003"}
    seeds = 0
    while (trial := here.search.ask()) is not None:
        here.records[trial.trial_id] = TrialRecord(trial=trial, status=Status.RUNNING)
        confirmed = trial.confirms
        assert confirmed is not None
        accuracy, cka = searched[int(confirmed[1:])]
        here.end(trial, accuracy + 0.02 * (seeds % 3 - 1), cka + 0.01 * (seeds % 3 - 1))
        seeds += 1
    assert set(here.search.candidates(data)) == {"t0000", "t0001", "t0002"}, "t0002 may be as good, t0003 may not"
    assert here.left() == {"t0000", "t0001", "t0002"}
    front = here.search.confirmed_front(data)
    assert front is not None
    assert set(front) <= here.left()


def test_a_search_that_was_closed_before_it_could_be_confirmed_keeps_its_front(ground: Callable[..., Ground]) -> None:
    here = ground("confirm.seeds=3", trials=4)
    for accuracy, cka in [(0.6, 1.0), (0.9, 0.5), (0.8, 0.4)]:
        here.end(here.begin(), accuracy, cka)
    assert here.left() == {"t0000", "t0001", "t0002"}
    here.search.close("budget.hours")
    forget_models(here.folder, here.search, here.records)
    assert here.left() == {"t0000", "t0001"}


def test_a_folder_that_is_nobodys_is_left_alone_and_one_that_is_not_there_is_no_mistake(
    ground: Callable[..., Ground],
) -> None:
    here = ground()
    (here.folder.models / "mine").mkdir()
    here.end(here.begin(), 0.6, 1.0)
    assert here.left() == {"mine", "t0000"}
    for path in sorted(here.folder.models.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    here.folder.models.rmdir()  # a sweep from before models were kept
    forget_models(here.folder, here.search, here.records)
