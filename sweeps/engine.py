"""Ray Tune as the engine: a searcher and a scheduler that only pass messages between Ray and our own sweep.

Everything that matters is decided elsewhere (``sweeps.search``) and written down elsewhere (``sweeps.journal``): Ray's
experiment folder is disposable, and nothing is ever restored from it.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune
from ray._private import ray_constants
from ray.tune import Callback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from repsim.errors import one_line
from sweeps.slots import Slots
from sweeps.trainable import Assignment, Report, TrialFailed, TrialProcess

_QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Ray's snapshots are never read: make them rare.
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}
_RECYCLED = "requires reset_config() to be"
_OWN_ERROR = f"{TrialFailed.__name__}: "


class Conductor(Protocol):
    """What the engine asks of the sweep. All calls come from one thread."""

    def next_assignment(self) -> Assignment | None:
        """What the free slot should run; None when there is nothing (now)."""

    @property
    def exhausted(self) -> bool:
        """Whether ``next_assignment`` will never give anything again, unless a running trial is put back."""

    def reported(self, assignment: Assignment, report: Report) -> bool:
        """An epoch, or the result, has come in; returns whether the trial goes on."""

    def broke(self, assignment: Assignment, reason: str, *, died: bool) -> None:
        """The trial raised (``died`` False) or its process went away (True)."""

    def put_back(self, assignment: Assignment) -> None:
        """The slot was recycled before the trial began: run it elsewhere."""


class _Searcher(Searcher):  # type: ignore[misc]
    def __init__(self, conductor: Conductor, live: dict[str, Assignment], parallel: int) -> None:
        super().__init__(metric=None, mode=None)
        self._conductor, self._live, self._parallel = conductor, live, parallel

    def suggest(self, trial_id: str) -> dict[str, object] | str | None:
        if len(self._live) >= self._parallel:
            return None
        assignment = self._conductor.next_assignment()
        if assignment is not None:
            self._live[trial_id] = assignment
            return assignment.to_config()
        finished: str = Searcher.FINISHED
        return finished if self._conductor.exhausted and not self._live else None

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
    def __init__(self, conductor: Conductor, live: dict[str, Assignment]) -> None:
        super().__init__()
        self._conductor, self._live = conductor, live

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        assignment = self._live.get(trial.trial_id)
        if assignment is None:
            return str(TrialScheduler.STOP)
        if self._conductor.reported(assignment, Report.from_result(result)):
            return str(TrialScheduler.CONTINUE)
        del self._live[trial.trial_id]
        return str(TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        assignment = self._live.pop(trial.trial_id, None)
        if assignment is not None:
            self._conductor.reported(assignment, Report.from_result(result))

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        assignment = self._live.pop(trial.trial_id, None)
        if assignment is None:
            return
        text = _error_text(trial)
        if _RECYCLED in text:
            self._conductor.put_back(assignment)
        elif _OWN_ERROR in text:
            reason = text.rsplit(_OWN_ERROR, 1)[-1].strip().splitlines()[0]
            self._conductor.broke(assignment, reason, died=False)
        else:
            self._conductor.broke(assignment, _death(text), died=True)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        assignment = self._live.pop(trial.trial_id, None)
        if assignment is not None:
            self._conductor.put_back(assignment)

    def __getstate__(self) -> dict[str, object]:
        return {}


def _error_text(trial: Any) -> str:
    """What Ray wrote about a trial's error; ``Trial.get_error`` would only find it after one of Ray's snapshots."""
    path = trial.error_file
    return Path(path).read_text(encoding="utf-8", errors="replace") if path and Path(path).exists() else ""


def _death(text: str) -> str:
    if "OutOfMemory" in text:
        return "the trial's process was killed for memory; lower --parallel, optim.batch_size or data.image_size"
    told = [line.strip() for line in text.splitlines() if "Error" in line or "died" in line]
    detail = f": {one_line(told[-1], 200)[1:-1]}" if told else ""
    return f"the trial's process died (killed, crashed, or its machine went away){detail}"


@contextmanager
def cluster(slots: Slots, address: str | None) -> Iterator[None]:
    """A Ray of our own for the time of the sweep (loopback only), or the cluster at ``address``."""
    os.environ.update(_QUIET)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(slots.threads)
    for name in ("ray", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    options: dict[str, object] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        # Ray binds to the machine's public address even on a laptop, except where it believes it cannot form clusters.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        ray_constants.ENABLE_RAY_CLUSTER = False
        options |= {
            "address": "local",
            "num_cpus": slots.parallel * slots.threads,
            "include_dashboard": False,
        }
    else:
        options["address"] = address
    ray.init(**options)
    try:
        yield
    finally:
        ray.shutdown()


class _Watch(Callback):  # type: ignore[misc]
    """Calls ``check`` in every turn of Ray's loop, from Python code, where an exception may be raised safely."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check

    def on_step_begin(self, iteration: int, trials: list[Any], **info: object) -> None:
        self._check()

    def __getstate__(self) -> dict[str, object]:
        return {}


def drive(conductor: Conductor, slots: Slots, check: Callable[[], None]) -> None:
    """Run until the conductor has nothing more to run. Needs a :func:`cluster`.

    ``check`` is called some ten times a second; what it raises ends the run.
    """
    live: dict[str, Assignment] = {}
    with tempfile.TemporaryDirectory(prefix="repsim-ray-") as disposable:
        tuner = tune.Tuner(
            tune.with_resources(TrialProcess, {"cpu": slots.threads, "gpu": slots.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=_Searcher(conductor, live, slots.parallel),
                scheduler=_Scheduler(conductor, live),
                num_samples=-1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=disposable,
                verbose=0,
                callbacks=[_Watch(check)],
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        )
        tuner.fit()
