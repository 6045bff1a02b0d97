"""The engine's messages, passed by hand: no Ray is started."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import tune
from ray._private import ray_constants
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from sweeps import engine
from sweeps.engine import Place, drive
from sweeps.placement import Machine
from sweeps.placement import Node as Spot
from sweeps.ray_cluster import QUIET, EngineLost, cluster
from sweeps.slots import Slots
from sweeps.trainable import PAYLOAD, Assignment, Fault, Report, TrialProcess
from sweeps.trial_errors import TrialFailed, TrialNotBegun, TrialOutOfDisk, TrialOutOfMemory

RECYCLED = "sweeps.trial_errors.TrialNotBegun: its process is replaced after 64 trials"
DIED = "The actor died unexpectedly before finishing this task. Worker exit type: SYSTEM_ERROR"


def assignment(number: int) -> Assignment:
    return Assignment(
        trial_id=f"t{number:04d}",
        attempt=1,
        config={"method": "full"},
        objective=("val_accuracy", "maximize"),
        known_epochs=0,
        run_folder="/runs/x",
        launched_from="/",
        cache_dir=None,
        threads=1,
    )


@dataclass
class Sweep:
    """A conductor that notes what it hears, and hands out ``trials`` assignments."""

    trials: int = 2
    goes_on: bool = True
    heard: list[tuple[object, ...]] = field(default_factory=list)
    late: dict[str, str] = field(default_factory=dict)
    nowhere: dict[str, str] = field(default_factory=dict)
    waited: list[tuple[list[str], bool]] = field(default_factory=list)
    asked: int = 0
    broken: Exception | None = None

    def next_assignment(self) -> Assignment | None:
        if self.broken is not None:
            raise self.broken
        if self.asked == self.trials:
            return None
        self.asked += 1
        return assignment(self.asked - 1)

    @property
    def exhausted(self) -> bool:
        return self.asked == self.trials

    def reported(self, assignment: Assignment, report: Report) -> bool:
        if self.broken is not None:
            raise self.broken
        self.heard.append(("reported", assignment.trial_id, report))
        return self.goes_on

    def broke(self, assignment: Assignment, reason: str, fault: Fault) -> None:
        self.heard.append(("broke", assignment.trial_id, reason, fault))

    def began(self, assignment: Assignment) -> None:
        self.heard.append(("began", assignment.trial_id))

    def stood_still(self, seconds: float) -> None:
        self.heard.append(("stood still", seconds))

    def overdue(self) -> Mapping[str, str]:
        return self.late

    def unplaced(
        self, waiting: Sequence[Assignment], busy: bool, machines: Callable[[], Sequence[Machine]]
    ) -> Mapping[str, str]:
        self.waited.append(([one.trial_id for one in waiting], busy))
        return self.nowhere

    def put_back(self, assignment: Assignment) -> None:
        self.heard.append(("put back", assignment.trial_id))


class RayTrial:
    """What the engine looks at of one of Ray's trials."""

    def __init__(self, trial_id: str, folder: Path, text: str | None = None, actor: object = None) -> None:
        self.trial_id = trial_id
        self.status = "RUNNING"
        self.temporary_state = SimpleNamespace(ray_actor=actor)
        self.error_file: str | None = None
        if text is not None:
            (folder / f"{trial_id}.txt").write_text(text, encoding="utf-8")
            self.error_file = str(folder / f"{trial_id}.txt")


class Stage:
    """Searcher, scheduler and watch over one conductor, as ``drive`` puts them together."""

    def __init__(self, conductor: Sweep, parallel: int = 1) -> None:
        self.conductor = conductor
        self.guarded = engine._Guarded(conductor)
        self.live: dict[str, Assignment] = {}
        self.hung: dict[str, str] = {}
        self.checks = 0
        self.searcher = engine._Searcher(self.guarded, self.live, lambda: parallel, self.check)
        self.scheduler = engine._Scheduler(self.guarded, self.live, self.hung)
        self.watch = engine._Watch(self.guarded, self.live, self.hung, self.check, self.scheduler)

    def check(self) -> None:
        self.checks += 1

    def step(self, *trials: RayTrial) -> None:
        self.watch.on_step_begin(0, list(trials))


@pytest.fixture
def stage() -> Stage:
    return Stage(Sweep())


def result(report: Report) -> dict[str, Any]:
    return {PAYLOAD: json.dumps(asdict(report)), "training_iteration": 1}


# what the conductor raises


def test_what_is_asked_is_answered_until_it_fails() -> None:
    guarded = engine._Guarded(Sweep(trials=3))
    assert guarded.ask(lambda sweep: sweep.exhausted, True) is False
    assert guarded.failure is None


def test_the_first_failure_is_kept_and_nobody_is_asked_again() -> None:
    guarded = engine._Guarded(Sweep())
    first, asked = OSError(5, "Input/output error"), []

    def fail(error: Exception) -> Callable[[engine.Conductor], str]:
        def question(conductor: engine.Conductor) -> str:
            asked.append(error)
            raise error

        return question

    assert guarded.ask(fail(first), "otherwise") == "otherwise"
    assert guarded.ask(fail(ValueError("second")), "otherwise") == "otherwise"
    assert guarded.failure is first
    assert asked == [first]


def test_a_signal_is_not_kept() -> None:
    guarded = engine._Guarded(Sweep())

    def interrupted(conductor: engine.Conductor) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guarded.ask(interrupted, None)
    assert guarded.failure is None


# the searcher


def test_free_slots_are_filled_and_no_more(stage: Stage) -> None:
    config = stage.searcher.suggest("a")
    assert isinstance(config, dict)
    assert config == assignment(0).to_config()
    assert Assignment.from_config(config).trial_id == "t0000"
    assert stage.searcher.suggest("b") is None
    assert stage.conductor.asked == 1
    del stage.live["a"]
    assert isinstance(stage.searcher.suggest("b"), dict)
    assert stage.live == {"b": assignment(1)}


def test_the_number_of_slots_may_change(stage: Stage) -> None:
    most = {"now": 1}
    searcher = engine._Searcher(stage.guarded, stage.live, lambda: most["now"], stage.check)
    assert isinstance(searcher.suggest("a"), dict)
    assert searcher.suggest("b") is None
    most["now"] = 2
    assert isinstance(searcher.suggest("b"), dict)


def test_it_is_over_when_nothing_runs_any_more() -> None:
    stage = Stage(Sweep(trials=1), parallel=2)
    stage.searcher.suggest("a")
    assert stage.searcher.suggest("b") is None, "the one that runs may be put back"
    stage.live.clear()
    assert stage.searcher.suggest("b") == Searcher.FINISHED


def test_nothing_now_is_not_the_end(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage.conductor, "next_assignment", lambda: None)
    assert stage.searcher.suggest("a") is None
    assert stage.live == {}


def test_a_failed_conductor_ends_the_search(stage: Stage) -> None:
    stage.conductor.broken = RuntimeError("x")
    assert stage.searcher.suggest("a") == Searcher.FINISHED
    assert stage.guarded.failure is stage.conductor.broken


def test_ray_has_nothing_to_restore(stage: Stage, tmp_path: Path) -> None:
    stage.searcher.save(str(tmp_path / "state"))
    assert (tmp_path / "state").read_bytes() == b""
    assert [part.__getstate__() for part in (stage.searcher, stage.scheduler, stage.watch)] == [{}, {}, {}]
    with pytest.raises(NotImplementedError, match="resumed from its journal"):
        stage.searcher.restore(str(tmp_path / "state"))


# the scheduler


def test_epochs_and_results_are_passed_on(stage: Stage, tmp_path: Path) -> None:
    stage.searcher.suggest("a")
    trial = RayTrial("a", tmp_path)
    epoch, end = Report(epochs=[{"epoch": 1}]), Report(epochs=[{"epoch": 2}], result={"values": {}})
    assert stage.scheduler.on_trial_result(None, trial, result(epoch)) == TrialScheduler.CONTINUE
    assert "a" in stage.live
    stage.scheduler.on_trial_complete(None, trial, result(end))
    assert stage.live == {}
    assert stage.conductor.heard == [("reported", "t0000", epoch), ("reported", "t0000", end)]
    stage.scheduler.on_trial_complete(None, trial, result(end))
    assert len(stage.conductor.heard) == 2, "a result counts once"


def test_a_trial_that_is_told_to_stop_frees_its_slot(stage: Stage, tmp_path: Path) -> None:
    stage.conductor.goes_on = False
    stage.searcher.suggest("a")
    trial = RayTrial("a", tmp_path)
    assert stage.scheduler.on_trial_result(None, trial, result(Report())) == TrialScheduler.STOP
    assert stage.live == {}
    assert stage.scheduler.on_trial_result(None, trial, result(Report())) == TrialScheduler.STOP
    assert len(stage.conductor.heard) == 1


def test_a_failed_conductor_stops_what_runs(stage: Stage, tmp_path: Path) -> None:
    stage.searcher.suggest("a")
    stage.conductor.broken = RuntimeError("x")
    assert stage.scheduler.on_trial_result(None, RayTrial("a", tmp_path), result(Report())) == TrialScheduler.STOP


ERRORS = [
    (f"ray::TrialProcess.train()\n  File ...\nsweeps.trial_errors.{TrialFailed.__name__}: ValueError: no (a.py:3)\n",
     "ValueError: no (a.py:3)", "own"),
    (f"x\nsweeps.trial_errors.{TrialOutOfMemory.__name__}: MemoryError: 8 GiB\nmore\n", "MemoryError: 8 GiB", "died"),
    (f"x\nsweeps.trial_errors.{TrialOutOfDisk.__name__}: OSError: full", "OSError: full", "disk"),
    ("ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.",
     "killed by Ray because the machine's memory ran out", "died"),
    (DIED, "", "died"),
    ("", "", "died"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "reason", "fault"), ERRORS, ids=["own", "memory", "disk", "ray", "died", "nothing"])
def test_rays_words_become_a_reason_and_a_fault(text: str, reason: str, fault: str) -> None:
    assert engine._told(text) == (reason, fault)


def test_an_error_before_the_first_step_is_told_as_well() -> None:
    text = "ray::TrialProcess.__init__() (pid=1)\n  File ...\nModuleNotFoundError: No module named 'sweeps'\n"
    assert "No module named 'sweeps'" in engine._told(text)[0]


def test_every_kind_of_error_is_told_apart() -> None:
    kinds: list[type[TrialFailed]] = [TrialFailed, *TrialFailed.__subclasses__()]
    assert sorted([*engine._ERRORS, engine._NOT_BEGUN]) == sorted(f"{kind.__name__}: " for kind in kinds)
    for kind in kinds:
        if kind is TrialNotBegun:
            continue
        assert engine._told(f"sweeps.trial_errors.{kind.__name__}: why")[0] == "why"


def test_an_error_is_passed_on_with_its_reason(stage: Stage, tmp_path: Path) -> None:
    stage.searcher.suggest("a")
    stage.scheduler.on_trial_error(None, RayTrial("a", tmp_path, ERRORS[2][0]))
    assert stage.conductor.heard == [("broke", "t0000", "OSError: full", "disk")]
    assert stage.live == {}
    stage.scheduler.on_trial_error(None, RayTrial("a", tmp_path, ERRORS[2][0]))
    assert len(stage.conductor.heard) == 1


@pytest.mark.parametrize("written", [False, True])
def test_an_error_that_ray_did_not_write_down_has_no_reason(stage: Stage, tmp_path: Path, written: bool) -> None:
    stage.searcher.suggest("a")
    trial = RayTrial("a", tmp_path, "" if written else None)
    if written:
        Path(str(trial.error_file)).unlink()
    stage.scheduler.on_trial_error(None, trial)
    assert stage.conductor.heard == [("broke", "t0000", "", "died")]


class ActorID:
    """Ray's number of a process, inside its handle."""

    def hex(self) -> str:
        return "abc"


def test_a_death_without_a_reason_may_be_the_nodes(stage: Stage, tmp_path: Path) -> None:
    asked: list[str] = []

    def lost(actor: str) -> str:
        asked.append(actor)
        return "host1" if actor == "abc" else ""

    scheduler = engine._Scheduler(stage.guarded, stage.live, stage.hung, lost)
    watch = engine._Watch(stage.guarded, stage.live, stage.hung, lambda: None, scheduler, lambda: None)
    stage.searcher.suggest("a")
    watch.on_trial_start(0, [], RayTrial("a", tmp_path, actor=SimpleNamespace(_actor_id=ActorID())))
    scheduler.on_trial_error(None, RayTrial("a", tmp_path, DIED))
    stage.searcher.suggest("b")
    scheduler.on_trial_error(None, RayTrial("b", tmp_path, DIED))
    assert stage.conductor.heard[1:] == [
        ("broke", "t0000", "its node is gone: host1", "node"),
        ("broke", "t0001", "", "died"),
    ]
    assert asked == ["abc", ""], "it was never seen in a process"


def test_an_error_with_a_reason_is_not_the_nodes(stage: Stage, tmp_path: Path) -> None:
    scheduler = engine._Scheduler(stage.guarded, stage.live, stage.hung, lambda actor: "host1")
    stage.searcher.suggest("a")
    scheduler.on_trial_error(None, RayTrial("a", tmp_path, ERRORS[0][0]))
    assert stage.conductor.heard == [("broke", "t0000", "ValueError: no (a.py:3)", "own")]


def test_a_replaced_slot_puts_its_trial_back(stage: Stage, tmp_path: Path) -> None:
    stage.searcher.suggest("a")
    stage.scheduler.on_trial_error(None, RayTrial("a", tmp_path, RECYCLED))
    stage.searcher.suggest("b")
    stage.scheduler.on_trial_remove(None, RayTrial("b", tmp_path))
    stage.scheduler.on_trial_remove(None, RayTrial("b", tmp_path))
    assert stage.conductor.heard == [("put back", "t0000"), ("put back", "t0001")]
    assert stage.live == {}


# what hangs, and what is gone


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    killed: list[object] = []

    def kill(actor: object, *, no_restart: bool) -> None:
        assert no_restart
        killed.append(actor)

    monkeypatch.setattr(ray, "kill", kill)
    return killed


class Process:
    """Ends when the test says so."""


class Node:
    """A node of Ray, some of whose processes are dead."""

    def __init__(self, *dead: str) -> None:
        self.dead = dead
        self.ended: list[dict[str, object]] = []

    def dead_processes(self) -> list[tuple[str, Process]]:
        return [(name, Process()) for name in self.dead]

    def kill_all_processes(self, **how: object) -> None:
        self.ended.append(how)


def set_node(monkeypatch: pytest.MonkeyPatch, node: Node | None) -> None:
    monkeypatch.setattr(ray._private.worker, "_global_node", node)


def test_signals_are_looked_for_at_every_turn(stage: Stage, clock: SimpleNamespace) -> None:
    for _ in range(5):
        stage.step()
        clock.now += 0.1
    assert stage.checks == 5


def test_what_the_check_raises_ends_the_run(stage: Stage) -> None:
    def check() -> None:
        raise KeyboardInterrupt

    watch = engine._Watch(stage.guarded, stage.live, stage.hung, check, stage.scheduler)
    with pytest.raises(KeyboardInterrupt):
        watch.on_step_begin(0, [])


def test_a_failed_conductor_ends_the_run(stage: Stage) -> None:
    stage.guarded.failure = RuntimeError("x")
    with pytest.raises(engine._Stopped):
        stage.step()
    assert not issubclass(engine._Stopped, Exception)


@pytest.mark.parametrize(
    ("dead", "match"),
    [(("raylet",), "Ray's raylet died"), (("raylet", "gcs_server", "raylet"), "Ray's gcs_server, raylet died")],
)
def test_a_dead_process_of_rays_is_seen(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace, dead: tuple[str, ...], match: str
) -> None:
    node = Node()
    set_node(monkeypatch, node)
    stage.step()
    node.dead = dead
    clock.now += 0.5
    stage.step()  # it looks once a second
    clock.now += 0.6
    with pytest.raises(EngineLost, match=f"^{match}$"):
        stage.step()
    assert not issubclass(EngineLost, Exception), "Ray would take it for one of its own"


def test_without_a_ray_of_our_own_nothing_is_looked_at(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    set_node(monkeypatch, None)
    stage.step()


def test_a_signal_goes_before_a_dead_process(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    set_node(monkeypatch, Node("raylet"))

    def check() -> None:
        raise KeyboardInterrupt

    watch = engine._Watch(stage.guarded, stage.live, stage.hung, check, stage.scheduler)
    with pytest.raises(KeyboardInterrupt):
        watch.on_step_begin(0, [])


def test_a_trial_that_hangs_is_killed_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace, killed: list[object]
) -> None:
    stage = Stage(Sweep(trials=2), parallel=2)
    set_node(monkeypatch, None)
    stage.searcher.suggest("a")
    stage.searcher.suggest("b")
    trials = [RayTrial(name, tmp_path, DIED, actor=f"actor {name}") for name in ("a", "b", "gone")]
    stage.step(*trials)
    assert killed == []
    stage.conductor.late = {"t0001": "hung: no epoch for 301 s"}
    for _ in range(3):
        clock.now += 1.1
        stage.step(*trials)
    assert killed == ["actor b"], "once"
    stage.scheduler.on_trial_error(None, trials[1])
    assert stage.conductor.heard == [("broke", "t0001", "hung: no epoch for 301 s", "died")]
    assert stage.hung == {}
    stage.conductor.late = {}
    clock.now += 100.0
    stage.step(*trials)


def test_a_hung_trial_that_stays_means_that_ray_is_broken(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace, killed: list[object]
) -> None:
    set_node(monkeypatch, None)
    stage.searcher.suggest("a")
    trial = RayTrial("a", tmp_path, actor="actor a")
    stage.conductor.late = {"t0000": "hung"}
    stage.step(trial)
    clock.now += engine._KILL_SECONDS
    stage.step(trial)
    clock.now += 1.1
    with pytest.raises(EngineLost, match="a trial that hung could not be ended"):
        stage.step(trial)
    assert killed == ["actor a"]


def test_a_trial_that_hangs_again_later_has_its_time_again(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace, killed: list[object]
) -> None:
    set_node(monkeypatch, None)
    stage.searcher.suggest("a")
    trial = RayTrial("a", tmp_path, DIED, actor="first")
    stage.conductor.late = {"t0000": "hung"}
    stage.step(trial)
    stage.scheduler.on_trial_error(None, trial)
    stage.conductor.late = {}
    clock.now += 2.0
    stage.step(trial)
    stage.live["b"] = assignment(0)  # tried again
    stage.conductor.late = {"t0000": "hung"}
    clock.now += 100.0
    stage.step(RayTrial("b", tmp_path, actor="second"))
    assert killed == ["first", "second"]


def test_its_own_error_is_the_reason_of_a_trial_that_was_slow(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace, killed: list[object]
) -> None:
    """Overdue while it still waited for a process, so nobody killed it."""
    set_node(monkeypatch, None)
    stage.searcher.suggest("a")
    stage.conductor.late = {"t0000": "hung"}
    stage.step(RayTrial("a", tmp_path, actor=None))
    assert killed == []
    stage.scheduler.on_trial_error(None, RayTrial("a", tmp_path, ERRORS[0][0]))
    assert stage.conductor.heard == [("broke", "t0000", "ValueError: no (a.py:3)", "own")]


def test_a_trial_that_waits_for_a_process_does_not_end_the_engine(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace, killed: list[object]
) -> None:
    set_node(monkeypatch, None)
    stage.searcher.suggest("a")
    stage.conductor.late = {"t0000": "hung"}
    trial = RayTrial("a", tmp_path, actor=None)
    stage.step(trial)
    clock.now += engine._KILL_SECONDS + 2.0
    stage.step(trial)


# starting, running, cleaning up


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What ``cluster`` changes in this process is changed back."""
    levels = {name: logging.getLogger(name).level for name in ("ray", "ray.tune", "ray.data")}
    for name in (*QUIET, "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "")
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", ray_constants.ENABLE_RAY_CLUSTER)
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@dataclass
class FakeRay:
    """Ray's start and end, noted."""

    options: dict[str, object] = field(default_factory=dict)
    ends: int = 0
    fails: Exception | None = None
    handlers: list[object] = field(default_factory=list)

    def init(self, **options: object) -> None:
        self.options = options
        ray._private.utils.set_sigterm_handler(lambda number, frame: None)  # as Ray does
        self.handlers.append(signal.getsignal(signal.SIGTERM))
        if self.fails is not None:
            raise self.fails

    def shutdown(self) -> None:
        self.ends += 1


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, quiet: None) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setattr(ray, "init", fake.init)
    monkeypatch.setattr(ray, "shutdown", fake.shutdown)
    set_node(monkeypatch, None)
    return fake


STUCK: list[str] = []
SLOTS = Slots(parallel=2, threads=3)


def test_a_ray_of_our_own_is_started_and_ended(fake: FakeRay) -> None:
    before, install = signal.getsignal(signal.SIGTERM), ray._private.utils.set_sigterm_handler
    with cluster(SLOTS, None, STUCK.append):
        assert fake.ends == 0
    assert fake.ends == 1
    assert (fake.options["address"], fake.options["num_cpus"]) == ("local", 6)
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert fake.handlers == [before], "Ray's handler would go over ours"
    assert ray._private.utils.set_sigterm_handler is install


def test_a_running_cluster_is_joined(fake: FakeRay) -> None:
    with cluster(SLOTS, "10.0.0.1:6379", STUCK.append):
        pass
    assert fake.options["address"] == "10.0.0.1:6379"
    assert "num_cpus" not in fake.options


@pytest.mark.parametrize("error", [ConnectionError, TimeoutError, RuntimeError, OSError, Exception])
def test_a_ray_that_does_not_start_is_lost(fake: FakeRay, error: type[Exception]) -> None:
    install = ray._private.utils.set_sigterm_handler
    fake.fails = error("first line\nsecond line " + "x" * 500)
    lost = pytest.raises(EngineLost, match=r"^Ray does not start: 'first line second line x+…$")
    with lost as caught, cluster(SLOTS, None, STUCK.append):
        raise AssertionError("it did not start")
    assert "\n" not in str(caught.value)
    assert ray._private.utils.set_sigterm_handler is install
    assert fake.ends == 0


def test_a_lost_ray_is_killed_and_not_asked_to_end(fake: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node("raylet")
    set_node(monkeypatch, node)
    with pytest.raises(EngineLost, match="raylet"), cluster(SLOTS, None, STUCK.append):
        raise EngineLost("Ray's raylet died")
    assert node.ended == [{"check_alive": False, "allow_graceful": False}]
    assert fake.ends == 0
    set_node(monkeypatch, None)  # lost before it had a node
    with pytest.raises(EngineLost, match="raylet"), cluster(SLOTS, None, STUCK.append):
        raise EngineLost("Ray's raylet died")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_any_other_end_is_an_orderly_one(fake: FakeRay, error: type[BaseException]) -> None:
    with pytest.raises(error), cluster(SLOTS, None, STUCK.append):
        raise error
    assert fake.ends == 1


class Tuner:
    """Ray's Tuner: keeps what it was made of; ``fit`` is the test's."""

    made: dict[str, Any]
    fit_with: Callable[[], None]

    def __init__(self, trainable: object, *, tune_config: Any, run_config: Any) -> None:
        Tuner.made = {"trainable": trainable, "tune": tune_config, "run": run_config}

    def fit(self) -> None:
        Tuner.fit_with()


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The system's temporary folder, and a Tuner that runs nothing."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tune, "Tuner", Tuner)
    return tmp_path


def test_a_run_is_put_together_and_leaves_nothing(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tuner, "fit_with", lambda: Path(Tuner.made["run"].storage_path, "left").touch(), raising=False)
    drive(Sweep(), Slots(parallel=2, threads=1), lambda: None)
    storage = Path(Tuner.made["run"].storage_path)
    assert storage.parent == temporary
    assert storage.name.startswith(f"repsim-ray-{os.getpid()}-")
    assert Tuner.made["run"].failure_config.max_failures == 0
    assert list(temporary.iterdir()) == []
    assert issubclass(Tuner.made["trainable"], TrialProcess)


def test_on_a_cluster_rays_files_lie_where_every_node_sees_them(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = temporary / "runs"
    (scratch / f"repsim-ray-{os.getppid()}-left").mkdir(parents=True)
    (scratch / "checkpoints").mkdir()
    seen: list[Path] = []
    monkeypatch.setattr(Tuner, "fit_with", lambda: seen.append(Path(Tuner.made["run"].storage_path)), raising=False)
    place = Place(alive=lambda: None, most=lambda: 7, scratch=scratch)
    drive(Sweep(), Slots(parallel=2, threads=1), lambda: None, place)
    assert seen[0].parent == scratch
    assert Tuner.made["tune"].search_alg._most() == 7
    assert [path.name for path in scratch.iterdir()] == ["checkpoints"], "what killed drivers left is gone as well"


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), RuntimeError("the lease is lost")])
def test_what_the_conductor_raised_is_raised_again(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    conductor = Sweep(broken=error)

    def fit() -> None:
        Tuner.made["tune"].search_alg.suggest("a")
        Tuner.made["run"].callbacks[0].on_step_begin(0, [])
        raise AssertionError("Ray's loop goes on")

    monkeypatch.setattr(Tuner, "fit_with", fit, raising=False)
    with pytest.raises(type(error)) as caught:
        drive(conductor, Slots(parallel=1, threads=1), lambda: None)
    assert caught.value is error
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        ray.exceptions.GetTimeoutError("the cluster's store does not answer"),
        ray.exceptions.RpcError("unavailable"),
        ConnectionError("no Ray instance"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_ray_raises_means_that_it_is_broken(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fit() -> None:
        raise error

    monkeypatch.setattr(Tuner, "fit_with", fit, raising=False)
    with pytest.raises(EngineLost):
        drive(Sweep(), Slots(parallel=1, threads=1), lambda: None)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="whether a process lives is read from /proc")
def test_only_what_dead_drivers_left_is_swept_away(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    names = {
        "dead": f"repsim-ray-{ended.pid}-abc",
        "mine": f"repsim-ray-{os.getpid()}-abc",
        "parent": f"repsim-ray-{os.getppid()}-abc",
        "nobody": "repsim-ray-x-abc",
        "other": f"ray-{ended.pid}-abc",
    }
    for name in names.values():
        (temporary / name / "sweep").mkdir(parents=True)
        (temporary / name / "sweep" / "error.txt").touch()
    engine._sweep_away_leftovers(None)
    assert sorted(path.name for path in temporary.iterdir()) == sorted(set(names.values()) - {names["dead"]})
    engine._sweep_away_leftovers(None)
    monkeypatch.setattr(Tuner, "fit_with", lambda: None, raising=False)
    (temporary / names["dead"]).mkdir()
    drive(Sweep(), Slots(parallel=1, threads=1), lambda: None)
    assert not (temporary / names["dead"]).exists()


def test_a_trial_that_gets_its_process_is_heard_of(stage: Stage, tmp_path: Path) -> None:
    watch = engine._Watch(stage.guarded, stage.live, stage.hung, lambda: None, stage.scheduler)
    watch.on_trial_start(0, [], RayTrial("nobody", tmp_path))
    stage.searcher.suggest("a")
    watch.on_trial_start(0, [], RayTrial("a", tmp_path))
    assert stage.conductor.heard == [("began", "t0000")]


def test_a_driver_that_stood_still_says_so(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace
) -> None:
    set_node(monkeypatch, None)
    watch = engine._Watch(stage.guarded, stage.live, stage.hung, lambda: None, stage.scheduler)
    for wait in (0.0, 4.0, 60.0, 0.1):
        clock.now += wait
        watch.on_step_begin(0, [])
    assert stage.conductor.heard == [("stood still", 60.0)]


def test_a_signal_is_heard_while_ray_only_asks_for_trials(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stage.searcher, "_check", check)
    with pytest.raises(KeyboardInterrupt):
        stage.searcher.suggest("a")
    assert stage.live == {}


# places


def test_a_trial_is_given_a_bundle_for_each_worker() -> None:
    asked = replace(assignment(0), workers=3, threads=2, gpus=0.5)
    group = engine.bundles(asked.to_config())
    assert group.bundles == [{"CPU": 2.0, "GPU": 0.5}] * 3
    assert group.strategy == "PACK"
    assert engine.bundles(assignment(0).to_config()) == tune.PlacementGroupFactory([{"CPU": 1}])
    assert engine.bundles(asked.to_config()) != engine.bundles(replace(asked, workers=2).to_config())


class Controller:
    """Ray's, as far as the scheduler uses it; a trial that is stopped is removed, as Ray does with one that waits."""

    def __init__(self, scheduler: engine._Scheduler, *trials: RayTrial) -> None:
        self.trials, self._scheduler, self.stopped = set(trials), scheduler, list[str]()

    def get_live_trials(self) -> set[RayTrial]:
        return self.trials

    def get_trials(self) -> list[RayTrial]:
        return []

    def stop_trial(self, trial: RayTrial) -> None:
        self.stopped.append(trial.trial_id)
        self.trials.discard(trial)
        self._scheduler.on_trial_remove(self, trial)


GROUP = {"state": "PENDING", "bundles": {0: {"CPU": 1.0}}}


@pytest.mark.parametrize(
    ("groups", "waits"),
    [
        ([GROUP], True),
        ([], False),
        ([GROUP | {"state": "CREATED"}], False),
        ([GROUP | {"bundles": {0: {"CPU": 2.0}}}], False),
    ],
    ids=["no place", "nothing", "its process begins", "another's"],
)
def test_a_trial_waits_for_a_place_as_long_as_ray_has_found_none(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: list[dict[str, object]], waits: bool
) -> None:
    set_node(monkeypatch, None)
    monkeypatch.setattr(engine, "placement_group_table", lambda: dict(enumerate(groups)))
    stage.searcher.suggest("a")
    trial = RayTrial("a", tmp_path)
    trial.status = "PENDING"
    stage.step(trial)
    assert stage.conductor.waited == [(["t0000"] if waits else [], False)]


def test_while_others_run_that_is_said_too(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_node(monkeypatch, None)
    monkeypatch.setattr(engine, "placement_group_table", dict)
    stage.searcher._most = lambda: 2
    stage.searcher.suggest("a")
    stage.step(RayTrial("a", tmp_path), RayTrial("gone", tmp_path))
    assert stage.conductor.waited == [([], True)]


def test_a_trial_that_finds_no_place_is_ended_with_the_reason(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_node(monkeypatch, None)
    monkeypatch.setattr(engine, "placement_group_table", dict)
    stage.searcher._most = lambda: 2
    stage.searcher.suggest("a")
    stage.searcher.suggest("b")
    waiting, running = RayTrial("a", tmp_path), RayTrial("b", tmp_path)
    waiting.status = "PENDING"
    stage.conductor.nowhere = {"t0000": "waited 601 s for 4 workers", "t0001": "it began just now"}
    stage.step(waiting, running)
    controller = Controller(stage.scheduler, waiting, running)
    stage.scheduler.choose_trial_to_run(controller)
    assert controller.stopped == ["a"]
    assert stage.conductor.heard == [("broke", "t0000", "waited 601 s for 4 workers", "own")]
    assert list(stage.live) == ["b"]
    assert stage.scheduler.unplaced == {}, "what has got its place is not remembered"
    stage.scheduler.choose_trial_to_run(controller)
    assert controller.stopped == ["a"]


def test_the_machines_are_rays_nodes_that_live(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0, "memory": 1e9}},
        {"Alive": False, "Resources": {"CPU": 64.0}},
        {"Alive": True, "Resources": {}},
    ]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert engine._machines() == [Spot(cpus=8.0, gpus=2.0), Spot(cpus=0.0)]


@pytest.mark.parametrize(("callback", "says"), [(TrialProgressCallback, True), (engine._Silent, False)])
def test_ray_says_nothing_of_a_trial_that_never_ran(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], callback: type[TrialProgressCallback], says: bool
) -> None:
    trial: Any = RayTrial("a", tmp_path)
    trial.last_result = {}
    callback().on_trial_complete(0, [], trial)
    assert ("completed" in capsys.readouterr().out) == says
