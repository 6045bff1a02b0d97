"""Ray Tune as the engine: a searcher and a scheduler that only pass messages between Ray and our own sweep.

Everything that matters is decided elsewhere (``sweeps.search``) and written down elsewhere (``sweeps.journal``): Ray's
experiment folder is disposable, and nothing is ever restored from it.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import ray
from ray import tune
from ray.tune import Callback
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.util import placement_group_table

from repsim.errors import one_line
from sweeps.placement import Machine, Node
from sweeps.ray_cluster import LOOK_EVERY, EngineLost, check_own_processes
from sweeps.slots import Slots
from sweeps.trainable import Assignment, Fault, Report, TrialProcess
from sweeps.trial_errors import TrialFailed, TrialNotBegun, TrialOutOfDisk, TrialOutOfMemory, TrialRankLost

_NOT_BEGUN = f"{TrialNotBegun.__name__}: "
_ERRORS: Mapping[str, Fault] = {
    f"{TrialFailed.__name__}: ": "own",
    f"{TrialOutOfMemory.__name__}: ": "died",
    f"{TrialRankLost.__name__}: ": "died",
    f"{TrialOutOfDisk.__name__}: ": "disk",
}
_PYTHON_ERROR = re.compile(r"^(?!ray\.)[\w.]*(Error|Exception|Exit)\b.*: ")
_DISPOSABLE = "repsim-ray-"
_PENDING = "PENDING"
_STOOD_STILL = 5.0
"""Two turns of Ray's loop are never so many seconds apart unless the driver was kept from running."""
_KILL_SECONDS = 30.0
"""A trial's process that is not gone so long after it was killed cannot be reached: Ray itself is broken."""

T = TypeVar("T")


class Conductor(Protocol):
    """What the engine asks of the sweep. All calls come from one thread."""

    def next_assignment(self) -> Assignment | None:
        """What the free slot should run; None when there is nothing (now)."""

    @property
    def exhausted(self) -> bool:
        """Whether ``next_assignment`` will never give anything again, unless a running trial is put back."""

    def reported(self, assignment: Assignment, report: Report) -> bool:
        """An epoch, or the result, has come in; returns whether the trial goes on."""

    def broke(self, assignment: Assignment, reason: str, fault: Fault) -> None:
        """The trial raised, its process went away, or the disk was full."""

    def began(self, assignment: Assignment) -> None:
        """The trial has got its process."""

    def stood_still(self, seconds: float) -> None:
        """Nobody listened to the trials for so long."""

    def overdue(self) -> Mapping[str, str]:
        """Trials that have hung, by id, and that in words."""

    def put_back(self, assignment: Assignment) -> None:
        """The slot was recycled before the trial began: run it elsewhere."""

    def unplaced(
        self, waiting: Sequence[Assignment], busy: bool, machines: Callable[[], Sequence[Machine]]
    ) -> Mapping[str, str]:
        """Trials, by id, that have waited for too long for a place, and that in words."""


class _Guarded:
    """The conductor as Ray's callbacks reach it: what it raises is kept, because Ray would take it for a trial's error.

    ``failure`` is the first one; afterwards nothing is passed on any more.
    """

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor
        self.failure: Exception | None = None

    def ask(self, question: Callable[[Conductor], T], otherwise: T) -> T:
        """What the conductor answers; ``otherwise`` after a failure."""
        if self.failure is not None:
            return otherwise
        try:
            return question(self._conductor)
        # Kept, and raised again by `drive`: nothing is swallowed.
        except Exception as failure:
            self.failure = failure
            return otherwise


def _here(actor: str) -> str:
    """Where everything is one machine, no trial outlives its node."""
    return ""


class _Stopped(BaseException):
    """Ends Ray's loop after the conductor has failed."""


class _Searcher(Searcher):  # type: ignore[misc]
    def __init__(
        self, guarded: _Guarded, live: dict[str, Assignment], most: Callable[[], int], check: Callable[[], None]
    ) -> None:
        super().__init__(metric=None, mode=None)
        self._guarded, self._live, self._most, self._check = guarded, live, most, check

    def suggest(self, trial_id: str) -> dict[str, object] | str | None:
        # as long as nothing runs and nothing is proposed (a full disk), Ray asks here and nowhere else
        self._check()
        if self._guarded.failure is not None:
            raise _Stopped
        if len(self._live) >= self._most():
            return None
        assignment = self._guarded.ask(lambda conductor: conductor.next_assignment(), None)
        if assignment is not None:
            self._live[trial_id] = assignment
            return assignment.to_config()
        finished: str = Searcher.FINISHED
        exhausted = self._guarded.ask(lambda conductor: conductor.exhausted, True)
        return finished if exhausted and not self._live else None

    def on_trial_complete(self, trial_id: str, result: dict[str, object] | None = None, error: bool = False) -> None:
        """The scheduler, which is told the same with more detail, has dealt with it."""

    def save(self, checkpoint_path: str) -> None:
        """The journal is the truth; Ray's snapshot holds nothing."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a sweep is resumed from its journal")

    def __getstate__(self) -> dict[str, object]:
        return {}


class _Scheduler(FIFOScheduler):  # type: ignore[misc]
    def __init__(
        self,
        guarded: _Guarded,
        live: dict[str, Assignment],
        hung: dict[str, str],
        lost_node: Callable[[str], str] = _here,
    ) -> None:
        super().__init__()
        self._guarded, self._live, self._hung, self._lost_node = guarded, live, hung, lost_node
        self.actors: dict[str, str] = {}
        """Ray's number of the process that each trial was last seen in; no handle, which would keep it alive."""
        self.unplaced: dict[str, str] = {}
        """Trials that are to wait no longer, and why; by our own ids."""

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        if self.unplaced:
            for trial in list(tune_controller.get_live_trials()):
                assignment = self._live.get(trial.trial_id)
                if assignment is not None and assignment.trial_id in self.unplaced and trial.status == _PENDING:
                    tune_controller.stop_trial(trial)
            self.unplaced.clear()
        return super().choose_trial_to_run(tune_controller)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        assignment = self._live.get(trial.trial_id)
        if assignment is None:
            return str(TrialScheduler.STOP)
        report = Report.from_result(result)
        if self._guarded.ask(lambda conductor: conductor.reported(assignment, report), False):
            return str(TrialScheduler.CONTINUE)
        del self._live[trial.trial_id]
        return str(TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        assignment = self._live.pop(trial.trial_id, None)
        if assignment is not None:
            report = Report.from_result(result)
            self._guarded.ask(lambda conductor: conductor.reported(assignment, report), False)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        assignment = self._live.pop(trial.trial_id, None)
        if assignment is None:
            return
        hung = self._hung.pop(assignment.trial_id, None)
        text = _error_text(trial)
        if hung is None and _NOT_BEGUN in text:
            self._guarded.ask(lambda conductor: conductor.put_back(assignment), None)
            return
        reason, fault = _told(text) if hung is None else (hung, "died")
        gone = "" if reason else self._lost_node(self.actors.get(trial.trial_id, ""))
        if gone:
            reason, fault = f"its node is gone: {gone}", "node"
        self._guarded.ask(lambda conductor: conductor.broke(assignment, reason, fault), None)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        assignment = self._live.pop(trial.trial_id, None)
        if assignment is None:
            return
        late = self.unplaced.get(assignment.trial_id)
        if late is None:
            self._guarded.ask(lambda conductor: conductor.put_back(assignment), None)
        else:
            self._guarded.ask(lambda conductor: conductor.broke(assignment, late, "own"), None)

    def __getstate__(self) -> dict[str, object]:
        return {}


def _error_text(trial: Any) -> str:
    """What Ray wrote about a trial's error; ``Trial.get_error`` would only find it after one of Ray's snapshots."""
    path = trial.error_file
    return Path(path).read_text(encoding="utf-8", errors="replace") if path and Path(path).exists() else ""


def _told(text: str) -> tuple[str, Fault]:
    """The reason people read, and whose fault it was."""
    for mark, fault in _ERRORS.items():
        if mark in text:
            return text.rsplit(mark, 1)[-1].strip().splitlines()[0], fault
    if "OutOfMemory" in text:
        return "killed by Ray because the machine's memory ran out", "died"
    lines = text.strip().splitlines()
    if lines and _PYTHON_ERROR.match(lines[-1]):  # before its first step: in an import, in its folder
        return f"the trial's process could not begin: {lines[-1].strip()}", "died"
    return "", "died"


class _Watch(Callback):  # type: ignore[misc]
    """Calls ``check`` in every turn of Ray's loop, from Python code, where an exception may be raised safely.

    Looks, once a second, whether Ray is ``alive`` (else Ray waits for a minute, or for ever) and kills the processes
    of trials that have hung: their errors then reach the scheduler.
    """

    def __init__(
        self,
        guarded: _Guarded,
        live: dict[str, Assignment],
        hung: dict[str, str],
        check: Callable[[], None],
        scheduler: _Scheduler,
        alive: Callable[[], None] = check_own_processes,
    ) -> None:
        self._guarded, self._live, self._hung, self._check, self._alive = guarded, live, hung, check, alive
        self._unplaced, self._actors = scheduler.unplaced, scheduler.actors
        self._killed: dict[str, float] = {}
        self._looked = self._stepped = 0.0

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        assignment = self._live.get(trial.trial_id)
        if assignment is not None:
            actor = trial.temporary_state.ray_actor
            if actor is not None:
                self._actors[trial.trial_id] = actor._actor_id.hex()
            self._guarded.ask(lambda conductor: conductor.began(assignment), None)

    def on_step_begin(self, iteration: int, trials: list[Any], **info: object) -> None:
        self._check()
        if self._guarded.failure is not None:
            raise _Stopped
        now = time.monotonic()
        gap, self._stepped = now - self._stepped, now
        if _STOOD_STILL < gap < now:
            self._guarded.ask(lambda conductor: conductor.stood_still(gap), None)
        if now - self._looked < LOOK_EVERY:
            return
        self._looked = now
        self._alive()
        nothing: Mapping[str, str] = {}
        live = [trial for trial in trials if trial.trial_id in self._live]
        pending = [self._live[trial.trial_id] for trial in live if trial.status == _PENDING]
        waiting, busy = _without_place(pending), len(pending) < len(live)
        late = self._guarded.ask(lambda conductor: conductor.unplaced(waiting, busy, _machines), nothing)
        self._unplaced.update(late)
        overdue = self._guarded.ask(lambda conductor: conductor.overdue(), nothing)
        self._killed = {trial_id: when for trial_id, when in self._killed.items() if trial_id in overdue}
        if any(now - when > _KILL_SECONDS for when in self._killed.values()):
            for hung in [a for a in self._live.values() if a.trial_id in self._killed]:
                self._guarded.ask(partial(_hung, hung, overdue[hung.trial_id]), None)
            raise EngineLost("a trial that hung could not be ended")
        for trial in trials if overdue else ():
            assignment = self._live.get(trial.trial_id)
            if assignment is not None and assignment.trial_id in overdue and assignment.trial_id not in self._killed:
                actor = trial.temporary_state.ray_actor
                if actor is not None:
                    self._killed[assignment.trial_id] = now
                    self._hung[assignment.trial_id] = overdue[assignment.trial_id]
                    ray.kill(actor, no_restart=True)

    def __getstate__(self) -> dict[str, object]:
        return {}


class _Silent(TrialProgressCallback):  # type: ignore[misc]
    """Ray's own would say on stdout, whatever its verbosity, that a trial without a result has ended."""

    def _print(self, msg: str) -> None:
        """The live view says what there is to say."""


def _hung(assignment: Assignment, reason: str, conductor: Conductor) -> None:
    conductor.broke(assignment, reason, "died")


def _without_place(pending: Sequence[Assignment]) -> list[Assignment]:
    """Those that Ray has found no place for yet; the processes of the others are about to begin."""
    if not pending:
        return []
    groups = [group for group in placement_group_table().values() if group["state"] == _PENDING]
    wanted = [list(group["bundles"].values()) for group in groups]
    return [one for one in pending if bundles(one.to_config()).bundles in wanted]


def _machines() -> list[Node]:
    """What the nodes have that are alive."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(cpus=resources.get("CPU", 0.0), gpus=resources.get("GPU", 0.0)) for resources in found]


def bundles(config: Mapping[str, object]) -> tune.PlacementGroupFactory:
    """What Ray reserves for a trial, all at once: a bundle for each worker, its process in the first."""
    asked = Assignment.from_config(config)
    return tune.PlacementGroupFactory([{"CPU": asked.threads, "GPU": asked.gpus} for _ in range(asked.workers)])


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where trials run. ``alive``, called once a second, raises when Ray is broken.

    ``most`` says, whenever a slot is free, how many trials may run at once (``slots.parallel`` of them without);
    ``lost_node`` names the node that a trial's process (Ray's number of it) ran on, if that is gone, else nothing.
    ``scratch`` is a folder for Ray's files that every node sees (the system's temporary one without).
    """

    alive: Callable[[], None] = check_own_processes
    most: Callable[[], int] | None = None
    lost_node: Callable[[str], str] = _here
    scratch: Path | None = None


def drive(conductor: Conductor, slots: Slots, check: Callable[[], None], place: Place | None = None) -> None:
    """Run until the conductor has nothing more to run. Needs a :func:`sweeps.ray_cluster.cluster`.

    ``check`` is called some ten times a second; what it raises ends the run, as does what ``place.alive`` raises.
    Raises EngineLost when Ray is broken, and what the conductor raises.
    """
    place = place or Place()
    live: dict[str, Assignment] = {}
    hung: dict[str, str] = {}
    guarded = _Guarded(conductor)
    scheduler = _Scheduler(guarded, live, hung, place.lost_node)
    _sweep_away_leftovers(place.scratch)
    prefix = f"{_DISPOSABLE}{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=place.scratch, ignore_cleanup_errors=True) as disposable:
        tuner = tune.Tuner(
            tune.with_resources(TrialProcess, bundles),
            tune_config=tune.TuneConfig(
                search_alg=_Searcher(guarded, live, place.most or (lambda: slots.parallel), check),
                scheduler=scheduler,
                num_samples=-1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=disposable,
                verbose=0,
                callbacks=[_Watch(guarded, live, hung, check, scheduler, place.alive), _Silent()],
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        )
        try:
            tuner.fit()
        except _Stopped:
            pass
        except (ray.exceptions.RayError, tune.TuneError, ConnectionError) as error:
            # not ours: what the conductor raises is kept in the guard
            raise EngineLost(f"Ray broke: {one_line(' '.join(str(error).split()), 200)}") from error
    if guarded.failure is not None:
        raise guarded.failure


def _sweep_away_leftovers(scratch: Path | None) -> None:
    """Remove the disposable folders of drivers that were killed; in a sweep's own folder, all are."""
    for folder in () if scratch is None else scratch.glob(f"{_DISPOSABLE}*"):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in Path(tempfile.gettempdir()).glob(f"{_DISPOSABLE}*"):
        owner = folder.name.removeprefix(_DISPOSABLE).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)
