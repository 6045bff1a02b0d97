"""The sweep between search, journal and engine, driven by hand: no Ray, no training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from repsim.records import EPOCH_METRICS, FACTS, METRICS, EpochResult, Status, TrialResult
from sweeps.conductor import GIVE_UP_AFTER, MAX_RETRIES, Sweep
from sweeps.journal import Journal
from sweeps.run_folder import RunFolder
from sweeps.search import Search
from sweeps.space import Space, load_space
from sweeps.trainable import Assignment, Report
from sweeps.trial import TrialRecord


class Audience:
    """Notes the state of every change it hears of."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Status]] = []

    def changed(self, record: TrialRecord) -> None:
        self.heard.append((record.trial.trial_id, record.status))


class Stage:
    """A sweep of four trials, with everything at hand."""

    def __init__(self, folder: RunFolder, space: Space) -> None:
        self.folder, self.space, self.audience = folder, space, Audience()
        fresh = not folder.journal.exists()
        self.journal = Journal.create(folder.journal, {"name": "x"}) if fresh else Journal.open(folder.journal)
        self.search = Search(space)
        self.search.restore(list(self.journal.history.records.values()))
        self.sweep = Sweep(
            space=space,
            search=self.search,
            journal=self.journal,
            folder=folder,
            listener=self.audience,
            threads=1,
            cache_dir=None,
        )

    def next(self) -> Assignment:
        assignment = self.sweep.next_assignment()
        assert assignment is not None
        return assignment

    def status(self, assignment: Assignment) -> Status:
        return self.journal.history.records[assignment.trial_id].status

    def reason(self, assignment: Assignment) -> str:
        return self.journal.history.records[assignment.trial_id].reason


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    space = load_space("quick.yaml", trials=4)
    made = Stage(RunFolder.create(tmp_path / "runs", "x"), space)
    yield made
    made.journal.close()


def epoch(number: int) -> dict[str, object]:
    return EpochResult(
        epoch=number,
        values=dict.fromkeys(EPOCH_METRICS, 0.5),
        train_loss=1.0,
        train_penalty=None,
        learning_rate=1e-3,
        steps=3,
        train_seconds=0.1,
        seconds=0.2,
    ).to_dict()


def result(**changes: float) -> dict[str, object]:
    values = dict.fromkeys(METRICS, 0.5) | changes
    return TrialResult(chosen_epoch=2, epochs=2, values=values, facts=dict.fromkeys(FACTS, 1)).to_dict()


def test_a_trial_goes_from_proposed_to_completed(stage: Stage) -> None:
    assignment = stage.next()
    assert (assignment.trial_id, assignment.attempt) == ("t0000", 1)
    assert stage.folder.current_attempt("t0000") == 1
    assert stage.sweep.reported(assignment, Report(epoch=epoch(1)))
    assert not stage.sweep.reported(assignment, Report(epoch=epoch(2), result=result()))
    assert stage.status(assignment) is Status.COMPLETED
    assert stage.audience.heard == [
        ("t0000", Status.RUNNING),
        ("t0000", Status.RUNNING),
        ("t0000", Status.COMPLETED),
    ]


def test_the_budget_is_all_there_is(stage: Stage) -> None:
    assignments = [stage.next() for _ in range(4)]
    assert not stage.sweep.exhausted
    assert stage.sweep.next_assignment() is None
    assert stage.sweep.exhausted
    assert len({assignment.trial_id for assignment in assignments}) == 4


def test_a_trials_own_error_fails_it_at_once(stage: Stage) -> None:
    assignment = stage.next()
    stage.sweep.broke(assignment, "NonFiniteLossError: the training loss became nan at step 3", died=False)
    assert stage.status(assignment) is Status.FAILED
    assert "became nan at step 3" in stage.reason(assignment)
    assert stage.next().trial_id == "t0001"


def test_a_dead_process_is_retried_then_given_up(stage: Stage) -> None:
    assignment = stage.next()
    for death in range(1, MAX_RETRIES + 1):
        stage.sweep.broke(assignment, "killed", died=True)
        assert stage.status(assignment) is Status.WAITING
        assert f"retry {death} of {MAX_RETRIES}" in stage.reason(assignment)
        again = stage.next()
        assert (again.trial_id, again.attempt) == (assignment.trial_id, death + 1)
        assignment = again
    stage.sweep.broke(assignment, "killed", died=True)
    assert stage.status(assignment) is Status.FAILED
    assert f"given up after {MAX_RETRIES + 1} times" in stage.reason(assignment)


def test_a_replaced_slot_puts_its_trial_back_to_the_front(stage: Stage) -> None:
    first, second = stage.next(), stage.next()
    stage.sweep.put_back(second)
    assert stage.status(second) is Status.WAITING
    assert stage.next().trial_id == second.trial_id
    assert stage.status(first) is Status.RUNNING


def test_a_result_without_a_usable_objective_is_a_failure(stage: Stage) -> None:
    assignment = stage.next()
    stage.sweep.reported(assignment, Report(epoch=epoch(1), result=result(val_cka=float("inf"))))
    assert stage.status(assignment) is Status.FAILED
    assert "val_cka is inf" in stage.reason(assignment)
    assert stage.journal.history.records[assignment.trial_id].result is None


def test_five_failures_in_a_row_with_one_cause_end_the_sweep(tmp_path: Path) -> None:
    made = Stage(RunFolder.create(tmp_path / "runs", "x"), load_space("quick.yaml", trials=12))
    try:
        for number in range(3):
            made.sweep.broke(made.next(), f"RuntimeError: no space left after {number}.5 MB", died=False)
        made.sweep.reported(made.next(), Report(epoch=epoch(1), result=result()))
        for number in range(GIVE_UP_AFTER):
            assert made.sweep.gave_up is None
            made.sweep.broke(made.next(), f"RuntimeError: no space left after {number}.5 MB", died=False)
        assert made.sweep.gave_up is not None
        assert "5 trials in a row failed with the same cause: RuntimeError: no space left" in made.sweep.gave_up
        assert made.sweep.next_assignment() is None
        assert made.sweep.exhausted
    finally:
        made.journal.close()


def test_failures_with_different_causes_do_not_end_it(stage: Stage) -> None:
    for number in range(4):
        stage.sweep.broke(stage.next(), f"Error{'abcd'[number]}: no", died=False)
    assert stage.sweep.gave_up is None


def test_what_was_in_flight_goes_first_after_a_resume(stage: Stage) -> None:
    done, running = stage.next(), stage.next()
    stage.sweep.reported(done, Report(epoch=epoch(1), result=result()))
    stage.sweep.reported(running, Report(epoch=epoch(1)))
    stage.journal.close()
    resumed = Stage(stage.folder, stage.space)
    again = resumed.next()
    assert (again.trial_id, again.attempt) == (running.trial_id, 2)
    assert resumed.next().trial_id == "t0002"
    assert resumed.status(done) is Status.COMPLETED
    resumed.journal.close()
