"""The workers of one trial. The first is the trial's own process; the others are actors in its placement group.

Whatever the first does, :meth:`WorkerGroup.together` has all do at the same time; a group of one does it alone, in
process. Ray reserves the whole group at once, one bundle for each worker, and Tune removes it with the trial's process,
so that no part of it can be left over, whatever ends it.

Workers that exchange tensors wait for each other. When one dies, the others' exchange fails, or it waits on: then the
first worker ends itself, for the trial to be tried again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sweeps.processes import CrashNote, end_with, node_name, only_granted_gpus
from sweeps.run_folder import RunFolder
from sweeps.trial_errors import TrialFailed, TrialOutOfMemory, TrialRankLost, told

if TYPE_CHECKING:
    import torch

    from repsim.ranks import Ranks
    from repsim.trainer import Trainer
    from repsim.workspace import Workspace

T = TypeVar("T")
LOOKS_EVERY = 1.0
GRACE = 5.0
"""Seconds in which the first worker notices by itself that another has failed, or never will."""
ANSWERS_WITHIN = 15.0
"""Seconds that workers have to say why, after the first has lost them; Ray knows of a death within a few."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every worker of a trial has to know; ``data_hashes`` as in ``sweeps.trainable.Assignment``."""

    trial_id: str
    config: Mapping[str, object]
    objective: tuple[str, str]
    run_folder: str
    launched_from: str
    cache_dir: str | None
    threads: int
    gpus: float
    data_hashes: Sequence[str] = ()

    def note(self, rank: int) -> Path:
        """Where a worker leaves word as it crashes."""
        return RunFolder(Path(self.run_folder)).crash_note(self.trial_id, rank)

    def workspace(self) -> Workspace:
        """What stays loaded between the trials of a process."""
        only_granted_gpus(self.gpus)
        from repsim.workspace import Workspace

        return Workspace(cache_dir=None if self.cache_dir is None else Path(self.cache_dir))

    def trainer(self, workspace: Workspace, ranks: Ranks, state: bytes | None) -> Trainer:
        """The trainer, going on from a checkpoint's content where there is one."""
        import io

        import torch

        from repsim.config import TrialConfig
        from repsim.records import Objective
        from repsim.trainer import Trainer

        torch.set_num_threads(self.threads)
        metric, direction = self.objective
        best_by = Objective(metric=metric, direction="maximize" if direction == "maximize" else "minimize")
        config = TrialConfig.from_flat(self.config, where=self.trial_id)
        self._check_images(workspace.images(config.data).data_hash)
        trainer = Trainer(config, workspace=workspace, best_by=best_by, ranks=ranks)
        if state is not None:
            trainer.load_state_dict(torch.load(io.BytesIO(state), map_location="cpu", weights_only=True))
        return trainer

    def _check_images(self, found: str) -> None:
        """RuntimeError when the images here are not the driver's: another machine may have others under their names."""
        if self.data_hashes and found not in self.data_hashes:
            wanted = ", ".join(self.data_hashes)
            raise RuntimeError(
                f"node {node_name()} has other images than the driver: data hash {found} instead of {wanted}"
            )


def device_of(workspace: Workspace) -> torch.device:
    """With its number, as torch's process groups want it; Ray shows each worker its own GPU as the first."""
    import torch

    return torch.device("cuda", 0) if workspace.device.type == "cuda" else workspace.device


class RankProcess:
    """A worker of a trial but the first, as a Ray actor. Outlives its trials, as the first does."""

    def __init__(self, rank: int, size: int) -> None:
        engine = threading.Thread(target=end_with, args=(os.getppid(),), name="engine watch", daemon=True)
        engine.start()
        self._rank, self._size = rank, size
        self._note = CrashNote()
        self._workspace: Workspace | None = None
        self._ranks: Ranks | None = None
        self._trainer: Trainer | None = None

    def meet(self, address: str, port: int, task: Task) -> None:
        """Find the others at the first one's address."""

        def met() -> None:
            self._note.leave_at(task.note(self._rank))
            self._workspace = task.workspace()
            from repsim.ranks import connect

            self._ranks = connect(self._rank, self._size, address, port, device=device_of(self._workspace))

        _telling(met)

    def open(self, task: Task, state: bytes | None) -> None:
        """Begin a trial."""

        def opened() -> None:
            os.chdir(task.launched_from)
            self._note.leave_at(task.note(self._rank))
            if self._workspace is None or self._ranks is None:
                raise RuntimeError("a worker has to meet the others before a trial")
            self._trainer = task.trainer(self._workspace, self._ranks, state)

        _telling(opened)

    def step(self) -> None:
        """One epoch."""
        _telling(lambda: self._begun().step())

    def finish(self) -> None:
        """The trial's last measurements."""
        _telling(lambda: self._begun().finish())

    def leave(self) -> None:
        """Close the connections, so that whoever waits for this worker hears of it."""
        if self._ranks is not None:
            self._ranks.close()

    def _begun(self) -> Trainer:
        if self._trainer is None:
            raise RuntimeError("no trial was begun")
        return self._trainer


def _telling(work: Callable[[], object]) -> None:
    """Errors cross to the first worker as a trial's errors do to the engine."""
    try:
        work()
    # The process boundary: whatever it is, the first worker decides what to make of it.
    except Exception as error:
        raise told(error) from error


class WorkerGroup:
    """The ``size`` workers of the trials that one process runs, itself as the first.

    ``on_stuck`` must end the process: it is called, on a thread of its own, with the reason, when another worker is
    gone and this one waits for it still.
    """

    def __init__(self, size: int, task: Task, on_stuck: Callable[[str], None]) -> None:
        self._size, self._task, self._on_stuck = size, task, on_stuck
        self._workspace = task.workspace()
        self._others: list[Any] = [] if size == 1 else _actors(size, task)
        self._ranks = self._meet()

    def _meet(self) -> Ranks:
        from repsim.ranks import ALONE, connect, listening

        if not self._others:
            return ALONE
        address = ray.util.get_node_ip_address()
        listener, device = listening(address), device_of(self._workspace)
        port = listener.getsockname()[1]
        return self._all(
            lambda: connect(0, self._size, address, port, device=device, listener=listener),
            [actor.meet.remote(address, port, self._task) for actor in self._others],
        )

    def open(self, task: Task, state: bytes | None) -> Trainer:
        """Begin a trial on all workers, from a checkpoint's content where there is one."""
        self._task = task
        shared = ray.put(state) if self._others else None
        others = [actor.open.remote(task, shared) for actor in self._others]
        return self._all(lambda: task.trainer(self._workspace, self._ranks, state), others)

    def together(self, method: str, own: Callable[[], T]) -> T:
        """What ``own`` gives, while all other workers do ``method``.

        Raises what ``own`` does, TrialRankLost when another worker died, or the error of one that failed.
        """
        return self._all(own, [getattr(actor, method).remote() for actor in self._others])

    def close(self) -> None:
        """End the other workers."""
        others, self._others = self._others, []
        for actor in others:
            ray.kill(actor)

    def _all(self, own: Callable[[], T], others: Sequence[Any]) -> T:
        if not others:
            return own()
        try:
            with self._watched(others):
                found = own()
        except Exception as error:
            failure = told(error)
            if isinstance(failure, TrialRankLost):
                failure = self._failure(others, ANSWERS_WITHIN) or failure
            raise failure from error
        failed = self._failure(others, None)
        if failed is not None:
            raise failed
        return found

    @contextmanager
    def _watched(self, others: Sequence[Any]) -> Iterator[None]:
        """Within, the failure of another worker ends this process, unless this one notices it by itself."""
        over = threading.Event()
        threading.Thread(target=self._stand_by, args=(others, over), name="workers' watch", daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def _stand_by(self, others: Sequence[Any], over: threading.Event) -> None:
        failure = None
        while failure is None:
            if over.wait(LOOKS_EVERY):
                return
            failure = self._failure(others, 0.0)
        if over.wait(GRACE):
            return
        for actor in self._others:
            actor.leave.remote()
        if not over.wait(GRACE):
            self._on_stuck(str(failure))

    def _failure(self, others: Sequence[Any], timeout: float | None) -> TrialFailed | None:
        """What befell the workers that have answered by then, the cause before what followed from it."""
        done, _ = ray.wait(list(others), num_returns=len(others), timeout=timeout)
        found: list[TrialFailed] = []
        for rank, waiting in enumerate(others, start=1):
            if waiting not in done:
                continue
            try:
                ray.get(waiting)
            except ray.exceptions.RayTaskError as error:
                found.append(error.cause if isinstance(error.cause, TrialFailed) else told(error))
            except ray.exceptions.RayError as error:
                return self._death(rank, error)
        causes = [failure for failure in found if not isinstance(failure, TrialRankLost)]
        return next(iter([*causes, *found]), None)

    def _death(self, rank: int, error: Exception) -> TrialFailed:
        who = f"worker {rank + 1} of {self._size}"
        if "OutOfMemory" in f"{type(error).__name__} {error}":
            return TrialOutOfMemory(f"{who} was killed by Ray because the machine's memory ran out")
        crash = RunFolder(Path(self._task.run_folder)).read_crash(self._task.trial_id, rank)
        if crash is not None:
            return TrialRankLost(f"{who} crashed: {crash}")
        return TrialRankLost(f"{who} was killed from outside (by hand, or by the system when memory ran out)")


def _actors(size: int, task: Task) -> list[Any]:
    """One in each bundle of the trial's placement group but the first, where this process is."""
    group = ray.util.get_current_placement_group()
    if group is None:
        raise RuntimeError(f"a trial of {size} workers has to be started in a placement group")
    return [
        ray.remote(RankProcess)
        .options(
            num_cpus=task.threads,
            num_gpus=task.gpus,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                placement_group=group, placement_group_bundle_index=rank
            ),
        )
        .remote(rank, size)
        for rank in range(1, size)
    ]
