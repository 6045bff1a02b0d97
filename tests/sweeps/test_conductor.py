"""The sweep between search, journal and engine, driven by hand: no Ray, no training."""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO, cast

import pytest

from repsim.records import EPOCH_METRICS, FACTS, METRICS, EpochResult, Status, TrialResult
from sweeps import disk as disk_module
from sweeps.conductor import GIVE_UP_AFTER, MAX_NODES, MAX_RETRIES, Sweep
from sweeps.disk import Disk
from sweeps.journal import Journal, read_history
from sweeps.placement import Node
from sweeps.run_folder import RunFolder
from sweeps.search import Search
from sweeps.slots import Slots
from sweeps.space import Space, load_space
from sweeps.trainable import Assignment, Report
from sweeps.trial import TrialRecord
from sweeps.watchdog import Watchdog

FOUR = Slots(parallel=4, threads=1)


class Audience:
    """Notes the state of every change it hears of."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Status]] = []

    def changed(self, record: TrialRecord) -> None:
        self.heard.append((record.trial.trial_id, record.status))


class Stage:
    """A sweep of four trials, with everything at hand."""

    def __init__(self, folder: RunFolder, space: Space, *, reserve: int = 0, slots: Slots = FOUR) -> None:
        self.folder, self.space, self.audience, self.slots = folder, space, Audience(), slots
        self.said: list[str] = []
        fresh = not folder.journal.exists()
        self.journal = Journal.create(folder.journal, {"name": "x"}) if fresh else Journal.open(folder.journal)
        self.search = Search(space)
        self.search.restore(list(self.journal.history.records.values()))
        self.sweep = self.begin(reserve)

    def begin(self, reserve: int = 0) -> Sweep:
        """The sweep, as a driver begins it from what the journal holds."""
        return Sweep(
            space=self.space,
            search=self.search,
            journal=self.journal,
            folder=self.folder,
            listener=self.audience,
            disk=Disk(self.folder.root, reserve=reserve, say=self.said.append, check=lambda: None),
            slots=self.slots,
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
    assert stage.sweep.reported(assignment, Report(epochs=[epoch(1)]))
    assert not stage.sweep.reported(assignment, Report(epochs=[epoch(2)], result=result()))
    assert stage.status(assignment) is Status.COMPLETED
    assert stage.audience.heard == [
        ("t0000", Status.RUNNING),
        ("t0000", Status.RUNNING),
        ("t0000", Status.COMPLETED),
    ]


def test_the_budget_is_all_there_is(stage: Stage) -> None:
    assignments = [stage.next() for _ in range(3)]
    assert not stage.sweep.exhausted
    assignments.append(stage.next())
    assert stage.sweep.next_assignment() is None
    assert stage.sweep.exhausted
    assert len({assignment.trial_id for assignment in assignments}) == 4


def test_a_trials_own_error_fails_it_at_once(stage: Stage) -> None:
    assignment = stage.next()
    stage.sweep.broke(assignment, "NonFiniteLossError: the training loss became nan at step 3", "own")
    assert stage.status(assignment) is Status.FAILED
    assert "became nan at step 3" in stage.reason(assignment)
    assert stage.next().trial_id == "t0001"


def test_a_dead_process_is_retried_then_given_up(stage: Stage) -> None:
    assignment = stage.next()
    for death in range(1, MAX_RETRIES + 1):
        stage.sweep.broke(assignment, "killed", "died")
        assert stage.status(assignment) is Status.WAITING
        assert f"retry {death} of {MAX_RETRIES}" in stage.reason(assignment)
        again = stage.next()
        assert (again.trial_id, again.attempt) == (assignment.trial_id, death + 1)
        assignment = again
    stage.sweep.broke(assignment, "killed", "died")
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
    stage.sweep.reported(assignment, Report(epochs=[epoch(1)], result=result(val_cka=float("inf"))))
    assert stage.status(assignment) is Status.FAILED
    assert "val_cka is inf" in stage.reason(assignment)
    assert stage.journal.history.records[assignment.trial_id].result is None


def test_five_failures_in_a_row_with_one_cause_end_the_sweep(tmp_path: Path) -> None:
    made = Stage(RunFolder.create(tmp_path / "runs", "x"), load_space("quick.yaml", trials=12))
    try:
        for number in range(3):
            made.sweep.broke(made.next(), f"RuntimeError: no space left after {number}.5 MB", "own")
        made.sweep.reported(made.next(), Report(epochs=[epoch(1)], result=result()))
        for number in range(GIVE_UP_AFTER):
            assert made.sweep.gave_up is None
            made.sweep.broke(made.next(), f"RuntimeError: no space left after {number}.5 MB", "own")
        assert made.sweep.gave_up is not None
        assert "5 trials in a row failed with the same cause: RuntimeError: no space left" in made.sweep.gave_up
        assert made.sweep.next_assignment() is None
        assert made.sweep.exhausted
    finally:
        made.journal.close()


def test_failures_with_different_causes_do_not_end_it(stage: Stage) -> None:
    for number in range(4):
        stage.sweep.broke(stage.next(), f"Error{'abcd'[number]}: no", "own")
    assert stage.sweep.gave_up is None


def test_what_was_in_flight_goes_first_after_a_resume(stage: Stage) -> None:
    done, running = stage.next(), stage.next()
    stage.sweep.reported(done, Report(epochs=[epoch(1)], result=result()))
    stage.sweep.reported(running, Report(epochs=[epoch(1)]))
    stage.journal.close()
    resumed = Stage(stage.folder, stage.space)
    again = resumed.next()
    assert (again.trial_id, again.attempt) == (running.trial_id, 2)
    assert resumed.next().trial_id == "t0002"
    assert resumed.status(done) is Status.COMPLETED
    resumed.journal.close()


def reopened(stage: Stage) -> Stage:
    """The same sweep, taken up by another driver."""
    stage.journal.close()
    return Stage(stage.folder, stage.space)


def test_deaths_survive_a_resume(stage: Stage) -> None:
    first = stage.next()
    stage.sweep.broke(first, "killed", "died")
    for death in range(2, MAX_RETRIES + 1):
        stage = reopened(stage)
        again = stage.next()
        assert again.trial_id == first.trial_id
        stage.sweep.broke(again, "killed", "died")
        assert f"retry {death} of {MAX_RETRIES}" in stage.reason(again)
    stage = reopened(stage)
    stage.sweep.broke(stage.next(), "killed", "died")
    assert stage.status(first) is Status.FAILED
    assert f"given up after {MAX_RETRIES + 1} times" in stage.reason(first)
    stage.journal.close()


def test_being_put_back_or_resumed_is_no_death(stage: Stage) -> None:
    first = stage.next()
    for _ in range(2 * MAX_RETRIES):
        stage.sweep.put_back(first)
        first = stage.next()
        assert stage.status(first) is Status.RUNNING
    resumed = reopened(stage)
    again = resumed.next()
    assert (again.trial_id, again.attempt) == (first.trial_id, 2 * MAX_RETRIES + 2)
    resumed.sweep.broke(again, "killed", "died")
    assert f"retry 1 of {MAX_RETRIES}" in resumed.reason(again)
    resumed.journal.close()


def test_a_process_that_crashed_says_where(stage: Stage) -> None:
    assignment = stage.next()
    note = [
        "Fatal Python error: Segmentation fault",
        "",
        "Stack (most recent call first):",
        '  File "/x/a.py", line 7 in f',
    ]
    stage.folder.crash_note(assignment.trial_id).write_text("\n".join(note))
    stage.sweep.broke(assignment, "", "died")
    said = stage.reason(assignment)
    assert said == f"the trial's process crashed: Segmentation fault, a.py:7; retry 1 of {MAX_RETRIES}"


def test_a_process_that_was_killed_left_no_note(stage: Stage) -> None:
    assignment = stage.next()
    stage.folder.crash_note(assignment.trial_id).touch()
    stage.sweep.broke(assignment, "", "died")
    assert "the trial's process was killed from outside" in stage.reason(assignment)
    for _ in range(MAX_RETRIES):
        stage.sweep.broke(stage.next(), "", "died")
    assert stage.status(assignment) is Status.FAILED
    assert "if it was memory: lower --parallel, optim.batch_size or data.image_size" in stage.reason(assignment)


def test_what_ray_saw_goes_before_the_note(stage: Stage) -> None:
    assignment = stage.next()
    stage.folder.crash_note(assignment.trial_id).write_text("Fatal Python error: Aborted\n")
    stage.sweep.broke(assignment, "hung: no epoch for 301 s", "died")
    assert stage.reason(assignment).startswith("hung: no epoch for 301 s; retry 1")


def test_a_note_is_read_once(stage: Stage) -> None:
    assignment = stage.next()
    stage.folder.crash_note(assignment.trial_id).write_text("Fatal Python error: Aborted\n")
    stage.sweep.broke(assignment, "", "died")
    assert "crashed: Aborted" in stage.reason(assignment)
    stage.sweep.broke(stage.next(), "", "died")  # killed before it could begin
    assert "was killed from outside" in stage.reason(assignment)


def test_a_trial_that_hangs_is_named_and_tried_again_with_more_patience(stage: Stage) -> None:
    now = [0.0]
    stage.sweep._watchdog = Watchdog(60.0, clock=lambda: now[0])
    hung, fine = stage.next(), stage.next()
    now[0] = 50.0
    assert stage.sweep.reported(fine, Report(epochs=[epoch(1)]))
    now[0] = 61.0
    assert stage.sweep.overdue() == {
        hung.trial_id: "hung: no epoch for 61 s (limit 60 s, resources.epoch_timeout)",
    }
    stage.sweep.broke(hung, stage.sweep.overdue()[hung.trial_id], "died")
    assert stage.reason(hung).startswith("hung: no epoch for 61 s (limit 60 s")
    assert stage.sweep.overdue() == {}
    again = stage.next()
    assert again.trial_id == hung.trial_id
    now[0] = 61.0 + 119.0
    assert list(stage.sweep.overdue()) == [fine.trial_id], "twice the time the second time"
    stage.sweep.reported(fine, Report(epochs=[epoch(2)], result=result()))
    now[0] += 2.0
    assert list(stage.sweep.overdue()) == [hung.trial_id]
    stage.sweep.put_back(again)
    now[0] += 1000.0
    assert stage.sweep.overdue() == {}, "one has ended, the other one waits"


def test_the_spaces_limit_is_the_watchdogs(stage: Stage, tmp_path: Path) -> None:
    space = replace(stage.space, resources=replace(stage.space.resources, epoch_timeout=1e-9))
    strict = Stage(RunFolder.create(tmp_path / "runs", "y"), space)
    assignment = strict.next()
    assert "resources.epoch_timeout" in strict.sweep.overdue()[assignment.trial_id]
    strict.journal.close()
    stage.next()
    assert stage.sweep.overdue() == {}


@pytest.mark.parametrize(("overrides", "kept"), [([], True), (["resources.models=none"], False)])
def test_search_trials_keep_their_models_and_fresh_seeds_do_not(
    tmp_path: Path, overrides: list[str], kept: bool
) -> None:
    space = load_space("quick.yaml", ["confirm.seeds=3", *overrides], trials=2)
    stage = Stage(RunFolder.create(tmp_path / "runs", "y"), space)
    for ordinal in range(2):
        assignment = stage.next()
        assert assignment.keep_model is kept
        values = {"val_accuracy": 0.5 + ordinal / 10, "val_cka": 0.9 - ordinal / 10}
        stage.sweep.reported(assignment, Report(epochs=[epoch(1)], result=result(**values)))
    fresh = stage.next()
    assert stage.journal.history.records[fresh.trial_id].trial.confirms == "t0000"
    assert not fresh.keep_model
    assert Assignment.from_config(fresh.to_config()) == fresh
    stage.journal.close()


def test_trials_learn_from_their_like_alone(stage: Stage) -> None:
    now = [0.0]
    stage.sweep._watchdog = Watchdog(None, clock=lambda: now[0])
    probe, full = stage.next(), stage.next()  # the anchors: linear_probe and full
    now[0] = 1.0
    stage.sweep.reported(probe, Report(epochs=[epoch(1)]))
    now[0] = 1000.0
    assert list(stage.sweep.overdue()) == [probe.trial_id]
    stage.sweep.reported(full, Report(epochs=[epoch(1)]))
    assert list(stage.sweep.overdue()) == [probe.trial_id]


def test_a_resume_does_not_make_the_watchdog_more_patient(stage: Stage) -> None:
    now = [0.0]
    for _ in range(6):
        stage.next()
        stage = reopened(stage)
    stage.sweep._watchdog = Watchdog(60.0, clock=lambda: now[0])
    hung = stage.next()
    now[0] = 61.0
    found = list(stage.sweep.overdue())
    stage.journal.close()
    assert found == [hung.trial_id]


def test_complete_means_that_all_that_was_to_run_has_ended(stage: Stage) -> None:
    assert not stage.sweep.complete
    running = [stage.next() for _ in range(4)]
    assert stage.sweep.next_assignment() is None
    assert stage.sweep.exhausted
    for assignment in running:
        assert not stage.sweep.complete
        stage.sweep.reported(assignment, Report(epochs=[epoch(1)], result=result()))
    assert stage.sweep.complete


def test_all_ended_is_not_complete_while_there_is_budget(stage: Stage) -> None:
    stage.sweep.reported(stage.next(), Report(epochs=[epoch(1)], result=result()))
    assert not stage.sweep.complete


# a full disk


def test_a_full_disk_is_nobodys_death(stage: Stage, naps: list[float]) -> None:
    first, other = stage.next(), stage.next()
    for _ in range(2 * MAX_RETRIES):
        stage.sweep.broke(first, "OSError: [Errno 28] No space left on device", "disk")
        assert stage.status(first) is Status.WAITING
        assert stage.reason(first) == "OSError: [Errno 28] No space left on device; tried again once there is space"
        again = stage.next()
        assert (again.trial_id, again.attempt) == (first.trial_id, first.attempt + 1), "it goes first"
        first = again
    assert stage.journal.history.records[first.trial_id].deaths == 0
    dead = stage.next()
    stage.sweep.broke(dead, "killed", "died")
    stage.sweep.broke(first, "OSError: [Errno 28] No space left on device", "disk")
    first = stage.next()
    assert first.trial_id == again.trial_id, "before one that died"
    stage.sweep.broke(first, "killed", "died")
    assert f"retry 1 of {MAX_RETRIES}" in stage.reason(first)
    assert stage.sweep.gave_up is None
    assert stage.status(other) is Status.RUNNING


def test_no_trial_begins_without_room_but_those_that_run_go_on(stage: Stage) -> None:
    running = stage.next()
    stage.journal.close()
    crowded = Stage(stage.folder, stage.space, reserve=10**18)
    before = crowded.journal.path.read_bytes()
    assert crowded.sweep.next_assignment() is None
    assert crowded.sweep.next_assignment() is None
    assert not crowded.sweep.exhausted
    assert crowded.journal.path.read_bytes() == before, "nothing is proposed for later"
    assert crowded.said == [crowded.said[0]]
    assert crowded.said[0].startswith("paused: the disk of ")
    crowded.journal.close()
    free = Stage(stage.folder, stage.space)
    assert free.next().trial_id == running.trial_id
    free.journal.close()


class FullAtFirst:
    """A journal's file on a disk that is full at the first ``tries`` of each write, or of write ``only`` alone.

    ``share`` of it is written even so; ``cuttable`` says whether that can be taken back (a file system that
    copies on write needs space to make a file shorter).
    """

    def __init__(
        self, file: BinaryIO, share: float, *, only: int | None = None, tries: int = 1, cuttable: bool = True
    ) -> None:
        self._file, self._share, self._only, self._tries, self._cuttable = file, share, only, tries, cuttable
        self._refused: dict[int, int] = {}
        self.writes = 0

    def write(self, content: bytes) -> int:
        if self._refuses():
            self._file.write(content[: int(self._share * len(content))])
            raise OSError(errno.ENOSPC, "No space left on device")
        self.writes += 1
        return self._file.write(content)

    def truncate(self, size: int) -> int:
        if not self._cuttable:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.truncate(size)

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def _refuses(self) -> bool:
        if self._only is not None and self.writes != self._only:
            return False
        self._refused[self.writes] = self._refused.get(self.writes, 0) + 1
        return self._refused[self.writes] <= self._tries


def play(stage: Stage) -> None:
    """A whole sweep: a death, a full disk, a replaced slot, a trial's own error, and three good ends."""
    told: dict[str, int] = {}
    while (assignment := stage.sweep.next_assignment()) is not None:
        name, turn = assignment.trial_id, told.get(assignment.trial_id, 0)
        told[name] = turn + 1
        if name == "t0001" and turn == 0:
            stage.sweep.reported(assignment, Report(epochs=[epoch(1)]))
            stage.sweep.broke(assignment, "killed", "died")
        elif name == "t0002" and turn == 0:
            stage.sweep.broke(assignment, "OSError: no space", "disk")
        elif name == "t0002" and turn == 1:
            stage.sweep.put_back(assignment)
        elif name == "t0003":
            stage.sweep.broke(assignment, "ValueError: no", "own")
        else:
            stage.sweep.reported(assignment, Report(epochs=[epoch(1)]))
            stage.sweep.reported(assignment, Report(epochs=[epoch(2)], result=result()))
    assert stage.sweep.complete


def lines(stage: Stage) -> list[dict[str, object]]:
    """The journal without its times, and so without its sums."""
    found = [json.loads(line) for line in stage.journal.path.read_bytes().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("at", "crc")} for line in found]


def written(told: list[dict[str, object]]) -> list[int]:
    """How many lines there are after each write: some wait for the next one, and go with it."""
    ends = []
    for number, (line, after) in enumerate(zip(told, [*told[1:], {}], strict=True), start=1):
        with_result = line["event"] == "epoch" and after.get("event") == "ended" and after["result"] is not None
        if line["event"] != "proposed" and not with_result:
            ends.append(number)
    return ends


@pytest.fixture
def undisturbed(stage: Stage) -> list[dict[str, object]]:
    play(stage)
    return lines(stage)


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A pause takes no time."""
    slept: list[float] = []
    monkeypatch.setattr(
        disk_module, "time", SimpleNamespace(sleep=slept.append, monotonic=itertools.count(0.0, 100.0).__next__)
    )
    return slept


def fill(stage: Stage, share: float, *, only: int | None = None, tries: int = 1, cuttable: bool = True) -> FullAtFirst:
    file = FullAtFirst(stage.journal._file, share, only=only, tries=tries, cuttable=cuttable)
    stage.journal._file = cast(BinaryIO, file)
    return file


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0], ids=["nothing", "half a line", "a line but for the word that it is"])
def test_a_disk_full_at_every_line_loses_and_repeats_nothing(
    tmp_path: Path, naps: list[float], undisturbed: list[dict[str, object]], stage: Stage, share: float
) -> None:
    crowded = Stage(RunFolder.create(tmp_path / "runs", "crowded"), stage.space)
    file = fill(crowded, share)
    play(crowded)
    crowded.journal.close()
    assert lines(crowded) == undisturbed
    assert read_history(crowded.journal.path) == crowded.journal.history
    assert len(naps) == file.writes == len(written(undisturbed)) - 1
    assert len(crowded.said) == 2 * file.writes, "each pause, and each end of one"
    assert crowded.audience.heard == stage.audience.heard


def test_a_torn_line_that_cannot_be_cut_off_yet_is_written_over(stage: Stage, naps: list[float]) -> None:
    assignment = stage.next()
    file = fill(stage, 0.5, cuttable=False)
    stage.sweep.reported(assignment, Report(epochs=[epoch(1)]))
    assert file.writes == 1
    assert read_history(stage.journal.path) == stage.journal.history


def test_a_disk_full_at_every_sync_loses_and_repeats_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    naps: list[float],
    undisturbed: list[dict[str, object]],
    stage: Stage,
) -> None:
    """The attempts' files too: every fsync fails at first."""
    crowded = Stage(RunFolder.create(tmp_path / "runs", "crowded"), stage.space)
    sync, calls = os.fsync, [0]

    def full(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] % 3 == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        play(crowded)
    crowded.journal.close()
    assert lines(crowded) == undisturbed
    assert len(naps) > 5
    pauses = sum(said.startswith("paused: ") for said in crowded.said)
    assert pauses == crowded.said.count("there is space again: the sweep goes on") >= len(naps)
    attempts = {trial_id: record.attempts for trial_id, record in crowded.journal.history.records.items()}
    assert {trial_id: crowded.folder.current_attempt(trial_id) for trial_id in attempts} == attempts
    assert list(crowded.folder.root.rglob(".*")) == [], "no half-written files"


class Enough(BaseException):
    """The signal that ends a driver in its pause."""


def test_a_driver_stopped_in_any_pause_is_resumed_as_if_nothing_had_been(
    tmp_path: Path, naps: list[float], undisturbed: list[dict[str, object]], stage: Stage
) -> None:
    def stop() -> None:
        raise Enough

    whole = stage.journal.history.records
    for number, there in enumerate(written(undisturbed)[:-1]):
        stopped = Stage(RunFolder.create(tmp_path / "runs", f"stopped{number}"), stage.space)
        fill(stopped, 0.5, only=number, tries=10**9)
        stopped.sweep._disk._check = stop
        with pytest.raises(Enough):
            play(stopped)
        assert lines(stopped) == undisturbed[:there], "what was not written did not happen"
        resumed = reopened(stopped)
        play(resumed)
        resumed.journal.close()
        found = resumed.journal.history.records
        assert list(found) == list(whole)
        for trial_id, record in whole.items():
            assert (found[trial_id].status, found[trial_id].trial) == (record.status, record.trial)
        ended = [entry["trial_id"] for entry in lines(resumed) if entry["event"] == "ended"]
        assert sorted(map(str, ended)) == sorted(whole), "each of them once"


@pytest.mark.parametrize("act", ["propose", "report"])
def test_a_disk_that_is_broken_rather_than_full_ends_the_sweep(stage: Stage, naps: list[float], act: str) -> None:
    assignment = stage.next()

    def broken(content: bytes) -> int:
        raise OSError(errno.EIO, "Input/output error")

    fill(stage, 0.0).write = broken  # type: ignore[method-assign]
    acts: dict[str, Callable[[], object]] = {
        "propose": stage.sweep.next_assignment,
        "report": lambda: stage.sweep.reported(assignment, Report(epochs=[epoch(1)])),
    }
    with pytest.raises(OSError, match="Input/output error"):
        acts[act]()
    assert (naps, stage.said) == ([], [])


def test_what_is_not_needed_any_more_is_not_kept(stage: Stage) -> None:
    first, second = stage.next(), stage.next()
    for assignment in (first, second):
        stage.folder.checkpoint(assignment.trial_id).write_bytes(b"weights")
    stage.sweep.broke(first, "killed", "died")
    assert stage.folder.checkpoint(first.trial_id).exists(), "it goes on from there"
    stage.sweep.reported(second, Report(epochs=[epoch(1)], result=result()))
    assert not stage.folder.checkpoint(second.trial_id).exists()


def test_a_resume_removes_what_a_killed_driver_kept(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(folder: RunFolder, trial_id: str) -> None:
        raise Enough

    assignment = stage.next()
    stage.folder.checkpoint(assignment.trial_id).write_bytes(b"weights")
    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "forget_checkpoint", killed)
        with pytest.raises(Enough):
            stage.sweep.reported(assignment, Report(epochs=[epoch(1)], result=result()))
    resumed = reopened(stage)
    assert resumed.status(assignment) is Status.COMPLETED
    left = resumed.folder.checkpoint(assignment.trial_id).exists()
    resumed.journal.close()
    assert not left


def test_failures_in_a_row_are_counted_across_drivers(tmp_path: Path) -> None:
    made = Stage(RunFolder.create(tmp_path / "runs", "x"), load_space("quick.yaml", trials=16))
    for _ in range(GIVE_UP_AFTER - 1):
        made.sweep.broke(made.next(), "RuntimeError: no", "own")
    made = reopened(made)
    assert made.sweep.gave_up is None
    made.sweep.broke(made.next(), "RuntimeError: no", "own")
    assert made.sweep.gave_up is not None
    made = reopened(made)  # somebody has seen to it, and the count begins anew
    assert made.sweep.gave_up is None
    made.sweep.broke(made.next(), "RuntimeError: no", "own")
    assert made.sweep.gave_up is None
    made.journal.close()


def test_the_hours_of_earlier_drivers_are_spent(tmp_path: Path) -> None:
    space = load_space("quick.yaml", trials=16)
    space = replace(space, budget=replace(space.budget, hours=1.0))
    made = Stage(RunFolder.create(tmp_path / "runs", "x"), space)
    made.sweep.reported(made.next(), Report(epochs=[epoch(1)], result=result()))
    made.journal.history.active_seconds = 3601.0
    made.sweep = made.begin()
    assert made.sweep.next_assignment() is None
    made.journal.close()


def test_a_stopped_trial_is_pruned_with_the_rules_reason(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage.search, "report", lambda trial, epoch, values: epoch < 2)
    monkeypatch.setattr(stage.search, "reason", lambda trial: "stopped at epoch 2 of 6: behind")
    assignment = stage.next()
    assert stage.sweep.reported(assignment, Report(epochs=[epoch(1)]))
    assert not stage.sweep.reported(assignment, Report(epochs=[epoch(2)]))
    record = read_history(stage.folder.journal).records[assignment.trial_id]
    assert (record.status, record.reason) == (Status.PRUNED, "stopped at epoch 2 of 6: behind")
    assert [one.epoch for one in record.epochs] == [1, 2]
    assert record.result is None


def test_a_verdict_that_a_kill_left_unspoken_is_spoken_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, folder = load_space("quick.yaml", trials=3), RunFolder.create(tmp_path / "runs", "x")
    before = Stage(folder, space)
    first, second = before.next(), before.next()
    for assignment in (first, second):
        before.journal.epoch(assignment.trial_id, 1, EpochResult.from_dict(epoch(1)))
    before.journal.close()  # killed here: the verdict on the first would have been to stop

    after = Stage(folder, space)
    monkeypatch.setattr(after.search, "report", lambda trial, epoch, values: trial.trial_id != first.trial_id)
    monkeypatch.setattr(after.search, "reason", lambda trial: "stopped at epoch 1 of 2: behind")
    assert after.next().trial_id == second.trial_id
    assert (after.status(first), after.reason(first)) == (Status.PRUNED, "stopped at epoch 1 of 2: behind")
    assert after.next().trial_id == "t0002"
    after.journal.close()


def test_fresh_seeds_come_after_the_search_and_after_a_restart(tmp_path: Path) -> None:
    space = load_space("quick.yaml", ["confirm.seeds=3"], trials=3)
    folder = RunFolder.create(tmp_path / "runs", "x")

    def finish(stage: Stage, assignment: Assignment, number: int) -> None:
        seed = stage.journal.history.records[assignment.trial_id].trial.config.seed
        values = {"val_accuracy": 0.5 + number / 10 + seed / 1000, "val_cka": 0.9 - number / 10}
        stage.sweep.reported(assignment, Report(epochs=[epoch(1)], result=result(**values)))

    before = Stage(folder, space)
    running = [before.next() for _ in range(3)]
    assert before.sweep.next_assignment() is None
    assert not before.sweep.exhausted, "fresh seeds are due when these have ended"
    for number, assignment in enumerate(running):
        finish(before, assignment, number)
    fresh = before.next()
    assert before.journal.history.records[fresh.trial_id].trial.confirms == "t0000"
    before.journal.close()

    after = Stage(folder, space)
    assert after.next().trial_id == fresh.trial_id, "what was under way goes first"
    made = 0
    pending: Assignment | None = fresh
    while pending is not None or (pending := after.sweep.next_assignment()) is not None:
        trial = after.journal.history.records[pending.trial_id].trial
        attempt = after.journal.history.records[pending.trial_id].attempts
        finish(after, replace(pending, attempt=attempt), int(str(trial.confirms).removeprefix("t")))
        made, pending = made + 1, None
    assert made >= 3 * 3
    assert after.sweep.exhausted
    assert after.sweep.complete
    assert after.search.counts[Status.COMPLETED] == 3
    after.journal.close()


def test_a_lost_node_is_no_fault_of_its_trials(stage: Stage) -> None:
    for number in range(1, MAX_NODES + 1):
        assignment = stage.next()
        assert (assignment.trial_id, assignment.attempt) == ("t0000", number)
        stage.sweep.broke(assignment, "its node is gone: host1", "node")
        assert stage.reason(assignment) == "its node is gone: host1; goes on elsewhere"
        assert stage.journal.history.records["t0000"].deaths == 0
    for _ in range(MAX_RETRIES + 1):
        assignment = stage.next()
        stage.sweep.broke(assignment, "its node is gone: host1", "node")
    assert stage.status(assignment) is Status.FAILED, "a trial that takes node after node down does not go on for ever"
    assert stage.reason(assignment) == f"its node is gone: host1; given up after {MAX_RETRIES + 1} times"


def test_a_trial_is_told_which_images_the_driver_saw(stage: Stage) -> None:
    assert stage.next().data_hashes == []
    sweep = Sweep(
        space=stage.space,
        search=stage.search,
        journal=stage.journal,
        folder=stage.folder,
        listener=stage.audience,
        disk=Disk(stage.folder.root, reserve=0, say=stage.said.append, check=lambda: None),
        slots=FOUR,
        cache_dir=None,
        data_hashes={stage.space.data[0]: {"b", "a"}, "other": {"c"}},
    )
    assignment = sweep.next_assignment()
    assert assignment is not None
    assert assignment.data_hashes == ["a", "b"]
    assert Assignment.from_config(assignment.to_config()).data_hashes == ["a", "b"]


# what trials get


def sized(tmp_path: Path, workers: str, slots: Slots, *more: str) -> Stage:
    space = load_space("quick.yaml", [f"resources.workers={workers}", "method=[full, repsim]", *more], trials=4)
    return Stage(RunFolder.create(tmp_path / "runs", "y"), space, slots=slots)


def test_a_trial_is_told_what_it_gets(tmp_path: Path) -> None:
    workers = "[{when: {method: linear_probe}, value: 3}, {value: 2}]"
    stage = sized(tmp_path, workers, Slots(parallel=4, threads=2, gpus=1.0))
    probe, full = stage.next(), stage.next()
    assert (probe.workers, probe.threads, probe.gpus) == (3, 2, 1.0)
    assert (full.workers, full.threads, full.gpus) == (2, 2, 1.0)
    assert Assignment.from_config(probe.to_config()) == probe
    stage.journal.close()


def test_nothing_is_proposed_before_there_is_room_for_it(tmp_path: Path) -> None:
    stage = sized(tmp_path, "2", Slots(parallel=4, threads=1, cpus=5))
    first, second = stage.next(), stage.next()
    assert stage.sweep.next_assignment() is None
    assert not stage.sweep.exhausted
    stage.sweep.broke(first, "killed", "died")
    assert stage.next().trial_id == first.trial_id
    assert stage.sweep.next_assignment() is None
    stage.sweep.reported(second, Report(epochs=[epoch(1)], result=result()))
    third = stage.next()
    assert third.trial_id == "t0002"
    stage.sweep.put_back(third)
    assert stage.next().trial_id == third.trial_id
    stage.journal.close()


def test_what_trials_were_measured_to_need_is_known_after_a_resume_as_well(tmp_path: Path) -> None:
    stage = sized(tmp_path, "1", Slots(parallel=4, threads=1, gpus=1.0, cpus=8, all_gpus=1, packs=True))
    measured = result(peak_memory_bytes=2**31)
    measured["facts"] = dict.fromkeys(FACTS, 1) | {"gpu_bytes": 2**34}
    probe = stage.next()
    assert probe.gpus == 1.0
    stage.sweep.reported(probe, Report(epochs=[epoch(1)], result=measured))
    assert stage.next().gpus == 0.25
    resumed = reopened(stage)
    resumed.slots = stage.slots
    resumed.sweep = resumed.begin()
    again = resumed.next()
    assert again.gpus == 0.25
    resumed.sweep.broke(again, "CUDA out of memory", "died")
    assert resumed.next().gpus == 1.0, "it may have been for memory"
    resumed.journal.close()


def test_a_trial_that_waits_for_too_long_is_named_by_the_spaces_limit(tmp_path: Path) -> None:
    stage = sized(tmp_path, "3", Slots(parallel=4, threads=1), "resources.placement_timeout=1.0e-9")
    first = stage.next()
    late = stage.sweep.unplaced([first], True, lambda: [Node(cpus=2)])
    assert list(late) == [first.trial_id]
    assert "for 3 workers with 1 CPU each (limit 1e-09 s, resources.placement_timeout)" in late[first.trial_id]
    assert stage.sweep.unplaced([first], True, lambda: [Node(cpus=3)]) == {}
    stage.sweep.broke(first, late[first.trial_id], "own")
    assert stage.status(first) is Status.FAILED
    stage.journal.close()
