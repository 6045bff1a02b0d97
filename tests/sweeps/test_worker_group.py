"""The first worker of a trial and the others, without Ray: who is asked, what is waited for, what is told."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayTaskError

from repsim.ranks import ALONE, RankLost
from sweeps import processes, worker_group
from sweeps.run_folder import RunFolder
from sweeps.trial_errors import TrialFailed, TrialOutOfDisk, TrialOutOfMemory, TrialRankLost, told
from sweeps.worker_group import RankProcess, Task, WorkerGroup
from tests.trainer.stripes import tiny_config

KILLED = "worker 3 of 3 was killed from outside (by hand, or by the system when memory ran out)"


class Answer:
    """What Ray holds of a worker that was asked to do something."""

    def __init__(self, error: Exception | None = None, *, done: bool = True) -> None:
        self.error, self.done = error, done


class Actor:
    """A worker elsewhere: notes what it is asked, answers what the test says."""

    def __init__(self, *answers: Answer) -> None:
        self.asked: list[tuple[str, tuple[object, ...]]] = []
        self._answers = list(answers)

    def __getattr__(self, name: str) -> Any:
        def remote(*arguments: object) -> Answer:
            self.asked.append((name, arguments))
            return self._answers.pop(0) if self._answers else Answer()

        return type("Method", (), {"remote": staticmethod(remote)})


@pytest.fixture(autouse=True)
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Ray's waiting, for answers of ours; the actors that are killed."""
    killed: list[object] = []

    def wait(
        answers: Sequence[Answer], *, num_returns: int, timeout: float | None
    ) -> tuple[list[Answer], list[Answer]]:
        deadline = time.monotonic() + min(10.0 if timeout is None else timeout, 10.0)
        while not all(answer.done for answer in answers) and time.monotonic() < deadline:
            time.sleep(0.005)
        return [answer for answer in answers if answer.done], [answer for answer in answers if not answer.done]

    def get(answer: Answer) -> None:
        if answer.error is not None:
            raise answer.error

    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(ray, "kill", killed.append)
    monkeypatch.setattr(worker_group, "LOOKS_EVERY", 0.01)
    monkeypatch.setattr(worker_group, "GRACE", 0.05)
    monkeypatch.setattr(worker_group, "ANSWERS_WITHIN", 0.2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return killed


@pytest.fixture
def task(tmp_path: Path) -> Task:
    folder = RunFolder.create(tmp_path / "runs", "x")
    folder.set_attempt("t0000", 1)
    return Task(
        trial_id="t0000",
        config=tiny_config(tmp_path).flat(),
        objective=("val_accuracy", "maximize"),
        run_folder=str(folder.root),
        launched_from=str(tmp_path),
        cache_dir=None,
        threads=1,
        gpus=0.0,
    )


def raised(error: Exception) -> Answer:
    """As Ray hands over what a worker raised."""
    return Answer(RayTaskError("step", "traceback", told(error)))


def group_of(
    monkeypatch: pytest.MonkeyPatch, task: Task, *actors: Actor, stuck: Callable[[str], None] | None = None
) -> WorkerGroup:
    """A group whose other workers are these."""
    monkeypatch.setattr(worker_group, "_actors", lambda size, task: list(actors))
    monkeypatch.setattr(WorkerGroup, "_meet", lambda self: ALONE)

    def never(why: str) -> None:
        raise AssertionError(why)

    return WorkerGroup(1 + len(actors), task, never if stuck is None else stuck)


def test_a_group_of_one_asks_nobody(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*arguments: object) -> None:
        raise AssertionError

    monkeypatch.setattr(worker_group, "_actors", nobody)
    group = WorkerGroup(1, task, nobody)
    before = threading.active_count()
    assert group.together("step", threading.active_count) == before, "in this thread, without another"
    with pytest.raises(ValueError, match="as it is"):
        group.together("step", failing(ValueError("as it is")))
    group.close()


def failing(error: Exception) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


def test_all_do_the_same_and_the_first_ones_answer_counts(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    actors = Actor(), Actor()
    group = group_of(monkeypatch, task, *actors)
    asked_first = group.together("step", lambda: [len(actor.asked) for actor in actors])
    assert asked_first == [1, 1], "the others are asked before the first begins"
    assert [actor.asked for actor in actors] == [[("step", ())]] * 2


def test_a_trial_begins_on_all_with_the_same_checkpoint(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    actor = Actor()
    group = group_of(monkeypatch, task, actor)
    begun: list[object] = []
    monkeypatch.setattr(Task, "trainer", lambda self, *given: begun.append((self, *given[1:])))
    group.open(task, b"state")
    assert begun == [(task, ALONE, b"state")]
    assert actor.asked == [("open", (task, b"state"))]


def test_the_first_is_done_when_all_are(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Answer(done=False)
    group = group_of(monkeypatch, task, Actor(slow))
    threading.Timer(0.1, lambda: setattr(slow, "done", True)).start()
    began = time.monotonic()
    group.together("step", lambda: None)
    assert time.monotonic() - began >= 0.09


@pytest.mark.parametrize(
    ("answer", "kind", "match"),
    [
        (Answer(ActorDiedError()), TrialRankLost, f"^{KILLED.replace('(', '.').replace(')', '.')}$"),
        (Answer(OutOfMemoryError("x")), TrialOutOfMemory, "^worker 3 of 3 was killed by Ray because the machine's mem"),
        (raised(MemoryError()), TrialOutOfMemory, "^MemoryError"),
        (raised(OSError(28, "No space left on device")), TrialOutOfDisk, "No space left"),
        (raised(ValueError("its own")), TrialFailed, "^ValueError: its own$"),
        (Answer(RayTaskError("step", "traceback", KeyError("x"))), TrialFailed, "RayTaskError"),
    ],
    ids=["killed", "Ray's memory", "memory", "disk", "its own", "not ours"],
)
def test_what_befell_another_is_told(
    task: Task, monkeypatch: pytest.MonkeyPatch, answer: Answer, kind: type[TrialFailed], match: str
) -> None:
    group = group_of(monkeypatch, task, Actor(), Actor(answer))
    with pytest.raises(TrialFailed, match=match) as caught:
        group.together("step", lambda: None)
    assert type(caught.value) is kind


def test_a_crashed_worker_says_where(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    task.note(1).write_text('Fatal Python error: Segmentation fault\n\n  File "/x/a.py", line 7 in f\n')
    group = group_of(monkeypatch, task, Actor(Answer(ActorDiedError())))
    with pytest.raises(TrialRankLost, match=r"^worker 2 of 2 crashed: Segmentation fault, a\.py:7$"):
        group.together("step", lambda: None)


LOST = RankLost("rank 0 of 3 lost the others: Connection closed by peer")


@pytest.mark.parametrize(
    ("answers", "match"),
    [
        ([raised(LOST), Answer(ActorDiedError())], "^worker 3 of 3 was killed"),
        ([raised(LOST), raised(ValueError("its own"))], "^ValueError: its own$"),
        ([raised(LOST), raised(LOST)], "^RankLost: rank 0 of 3 lost the others: Connection closed"),
        ([Answer(done=False), Answer(ActorDiedError())], "^worker 3 of 3 was killed"),
        ([Answer(done=False), Answer(done=False)], "^RankLost: rank 0 of 3 lost the others"),
    ],
    ids=["one died", "one failed", "nobody knows", "one hangs and one died", "all hang"],
)
def test_the_cause_is_told_before_what_followed_from_it(
    task: Task, monkeypatch: pytest.MonkeyPatch, answers: list[Answer], match: str
) -> None:
    group = group_of(monkeypatch, task, *map(Actor, answers))
    with pytest.raises(TrialFailed, match=match) as caught:
        group.together("step", failing(LOST))
    assert caught.value.__cause__ is LOST


def test_the_first_ones_own_error_is_the_trials(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    group = group_of(monkeypatch, task, Actor(Answer(done=False)))
    with pytest.raises(TrialFailed, match=r"^FloatingPointError: the training loss became nan$"):
        group.together("step", failing(FloatingPointError("the training loss became nan")))


def test_a_first_worker_that_waits_for_one_that_is_gone_ends_with_the_reason(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    ended = threading.Event()

    def end(why: str) -> None:
        said.append(why)
        ended.set()

    actors = Actor(Answer(done=False)), Actor(Answer(ActorDiedError()))
    group = group_of(monkeypatch, task, *actors, stuck=end)
    with pytest.raises(TrialRankLost, match=r"^worker 3 of 3 was killed"):
        group.together("step", failing_after(ended, LOST))
    assert said == [KILLED]
    assert actors[0].asked == [("step", ()), ("leave", ())], "first the others are asked to close their connections"


def failing_after(event: threading.Event, error: Exception) -> Callable[[], object]:
    def wait() -> object:
        assert event.wait(10)
        raise error

    return wait


def test_a_first_worker_that_notices_in_time_is_not_ended(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_to_leave = threading.Event()

    class Leaving(Actor):
        def __getattr__(self, name: str) -> Any:
            if name == "leave":
                asked_to_leave.set()
            return super().__getattr__(name)

    group = group_of(monkeypatch, task, Leaving(raised(ValueError("its own"))))
    with pytest.raises(TrialFailed, match=r"^ValueError: its own$"):
        group.together("step", failing_after(asked_to_leave, LOST))
    time.sleep(0.2)  # on_stuck would raise in its thread, which pytest reports


def test_the_others_end_with_the_group(task: Task, monkeypatch: pytest.MonkeyPatch, fake_ray: list[object]) -> None:
    actors = Actor(), Actor()
    group = group_of(monkeypatch, task, *actors)
    group.close()
    group.close()
    assert fake_ray == list(actors)


def test_several_workers_need_a_placement_group(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray.util, "get_current_placement_group", lambda: None)
    with pytest.raises(RuntimeError, match="a trial of 2 workers has to be started in a placement group"):
        WorkerGroup(2, task, lambda why: None)


# another worker


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> RankProcess:
    monkeypatch.setattr(worker_group, "end_with", lambda engine: None)
    return RankProcess(1, 2)


def test_a_worker_does_things_in_order(worker: RankProcess, task: Task) -> None:
    with pytest.raises(TrialFailed, match="RuntimeError: a worker has to meet the others before a trial"):
        worker.open(task, None)
    worker._note.close()
    for early in (worker.step, worker.finish):
        with pytest.raises(TrialFailed, match="RuntimeError: no trial was begun"):
            early()
    worker.leave()


def test_a_worker_that_meets_nobody_says_so(worker: RankProcess, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*arguments: object, device: object) -> None:
        raise RankLost("rank 1 of 2 did not meet the others within 600 s")

    monkeypatch.setattr("repsim.ranks.connect", connect)
    with pytest.raises(TrialRankLost, match="RankLost: rank 1 of 2 did not meet the others"):
        worker.meet("127.0.0.1", 1, task)
    worker._note.close()
    assert task.note(1).exists()


# processes


def test_a_process_that_ends_itself_leaves_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder.create(tmp_path / "runs", "x")
    folder.set_attempt("t0000", 1)
    ends: list[int] = []
    monkeypatch.setattr(os, "_exit", ends.append)
    note = processes.CrashNote()
    note.end("said nowhere")
    note.leave_at(folder.crash_note("t0000"))
    note.end(KILLED)
    note.close()
    assert ends == [1, 1]
    assert folder.read_crash("t0000") == KILLED
    folder.forget_crashes("t0000")
    assert folder.read_crash("t0000") is None


@pytest.mark.parametrize(("gpus", "seen"), [(0.0, ""), (0.5, "3"), (1.0, "3")])
def test_a_process_without_gpus_sees_none(monkeypatch: pytest.MonkeyPatch, gpus: float, seen: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    processes.only_granted_gpus(gpus)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen
