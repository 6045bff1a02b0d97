"""The Ray side of a trial: one class Trainable whose process outlives its trials.

A step is an epoch. ``reset_config`` starts the next trial in the same process, so that torch, the images and the
teacher's features stay loaded. Nothing is imported here that Ray does not need to find the class.

What a process may write is fenced: each start of a trial has an attempt number, and a process whose attempt is not the
current one (the orphan of a dead driver, a worker believed dead) writes no checkpoint, predictions or model. A process
whose engine is gone ends by itself; one that crashes leaves a note that says where.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ray.tune import Trainable

from sweeps.processes import CrashNote, end_with, node_name
from sweeps.run_folder import RunFolder
from sweeps.trial_errors import TrialNotBegun, told
from sweeps.worker_group import Task, WorkerGroup

if TYPE_CHECKING:
    from repsim.records import TrialResult
    from repsim.trainer import Trainer

Fault = Literal["own", "died", "disk", "node"]
"""Why a trial broke. ``own``: it raised; ``died``: its process ended or hung, or memory ran out; ``disk``: no space;
``node``: the machine that it ran on is gone."""
PAYLOAD = "payload"
RECYCLED_AFTER = 64
"""A process is replaced after this many trials or later, once it has grown, so that no slow leak goes on for ever."""
GROWN_MIB = 256.0
"""So much more memory than after its first trial is growth; less is not worth the seconds that a new process takes."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What a slot is told to run.

    ``config`` is the flat configuration, ``objective`` the first val objective, ``known_epochs`` how many epochs the
    journal holds already, ``launched_from`` the folder that relative paths in the configuration start from. Each
    of ``workers`` processes has ``threads`` CPU threads and ``gpus`` GPUs. ``data_hashes`` are those of the images that
    the driver has seen (any where it has seen none). With ``keep_model`` the model is left in the run folder as well.
    """

    trial_id: str
    attempt: int
    config: Mapping[str, object]
    objective: tuple[str, str]
    known_epochs: int
    run_folder: str
    launched_from: str
    cache_dir: str | None
    threads: int
    workers: int = 1
    gpus: float = 0.0
    keep_model: bool = False
    data_hashes: Sequence[str] = ()

    def to_config(self) -> dict[str, object]:
        """As Ray's trial configuration: one string, so that Ray neither flattens nor logs it key by key."""
        return {PAYLOAD: json.dumps(asdict(self))}

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Assignment:
        """Read back what ``to_config`` wrote."""
        fields = json.loads(str(config[PAYLOAD]))
        return cls(**fields | {"objective": tuple(fields["objective"])})


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a step sends to the driver: the epochs it has not been told of yet, and in the end the result.

    More than one epoch where an earlier driver was killed between a checkpoint and the journal.
    """

    epochs: Sequence[dict[str, object]] = ()
    result: dict[str, object] | None = None

    @classmethod
    def from_result(cls, result: Mapping[str, object]) -> Report:
        """From a Ray result."""
        return cls(**json.loads(str(result[PAYLOAD])))


class TrialProcess(Trainable):  # type: ignore[misc]
    """A slot: runs one trial after the other in one process. Ray replaces the process when a step raises."""

    def setup(self, config: dict[str, Any]) -> None:
        """Ray's entry for the process's first trial."""
        engine = threading.Thread(target=end_with, args=(os.getppid(),), name="engine watch", daemon=True)
        engine.start()
        self._group: WorkerGroup | None = None
        self._crash_note = CrashNote()
        self._served = 0
        self._first_mib: float | None = None
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Ray's entry for the next trial; always True, because Ray loses the trial of a process that refuses it."""
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        """Ray's exit."""
        if self._group is not None:
            self._group.close()
        self._crash_note.close()

    def _begin(self, config: Mapping[str, object]) -> None:
        self._served += 1
        if self._served == 2:
            self._first_mib = resident_mib()
        self._began = time.time()
        self._assignment = Assignment.from_config(config)
        self._folder = RunFolder(Path(self._assignment.run_folder))
        # Ray starts its processes in folders of its own.
        os.chdir(self._assignment.launched_from)
        self._crash_note.leave_at(self._folder.crash_note(self._assignment.trial_id))
        self._told = self._assignment.known_epochs
        self._trainer: Trainer | None = None

    def step(self) -> dict[str, object]:
        """One epoch; the last one also finishes the trial.

        Raises TrialFailed with a readable reason, TrialNotBegun when the process is due to be replaced.
        """
        if self._served > RECYCLED_AFTER and self._has_grown():
            raise TrialNotBegun(f"its process has grown over {self._served - 1} trials and is replaced")
        try:
            report = self._advance()
        # The process boundary: any error of the trial is the trial's reason, never the sweep's end.
        except Exception as error:
            raise told(error) from error
        return {PAYLOAD: json.dumps(asdict(report)), "done": report.result is not None}

    def _has_grown(self) -> bool:
        """Whether it holds much more memory than after its first trial; taken for granted where nobody can say."""
        now = resident_mib()
        return now is None or self._first_mib is None or now - self._first_mib > GROWN_MIB

    def _advance(self) -> Report:
        group = self._workers()
        trainer = self._open(group) if self._trainer is None else self._trainer
        if not trainer.done:
            measured = group.together("step", trainer.step)
            _check_finite({**measured.values, "train_loss": measured.train_loss})
        epochs = [epoch.to_dict() for epoch in trainer.epochs if epoch.epoch > self._told]
        self._told = len(trainer.epochs)
        if not trainer.done:
            self._write_checkpoint(trainer)
            return Report(epochs=epochs)
        found = group.together("finish", trainer.finish)
        _check_finite(found.values)
        self._write_predictions(found)
        if self._assignment.keep_model:
            self._write_model(trainer)
        result = found.to_dict()
        times = {"began": self._began, "finished": time.time()}
        where = {"node": node_name(), "slot": os.getpid(), **times, **_gpu()}
        return Report(epochs=epochs, result=result | {"facts": found.facts | where})

    def _workers(self) -> WorkerGroup:
        """As many as the trial asks for; for later trials the same, because Ray keeps a process for one size."""
        if self._group is None:
            self._group = WorkerGroup(self._assignment.workers, self._task(), self._crash_note.end)
        return self._group

    def _task(self) -> Task:
        asked = self._assignment
        return Task(
            trial_id=asked.trial_id,
            config=asked.config,
            objective=asked.objective,
            run_folder=asked.run_folder,
            launched_from=asked.launched_from,
            cache_dir=asked.cache_dir,
            threads=asked.threads,
            gpus=asked.gpus,
            data_hashes=asked.data_hashes,
        )

    def _open(self, group: WorkerGroup) -> Trainer:
        checkpoint = self._checkpoint_path()
        state = checkpoint.read_bytes() if checkpoint.exists() else None
        self._trainer = trainer = group.open(self._task(), state)
        return trainer

    def _checkpoint_path(self) -> Path:
        return self._folder.checkpoint(self._assignment.trial_id)

    def _check_current(self) -> None:
        """RuntimeError when this process may not write any more."""
        if self._folder.current_attempt(self._assignment.trial_id) != self._assignment.attempt:
            raise RuntimeError("another attempt has taken over this trial")

    def _write_checkpoint(self, trainer: Trainer) -> None:
        import io

        import torch

        from sweeps.run_folder import write_atomically

        buffer = io.BytesIO()
        torch.save(trainer.state_dict(), buffer)
        self._check_current()
        write_atomically(self._checkpoint_path(), buffer.getvalue())

    def _write_predictions(self, result: TrialResult) -> None:
        import io

        import pyarrow as pa
        import pyarrow.parquet as pq

        from sweeps.derived import derived_id
        from sweeps.run_folder import write_atomically

        self._check_current()
        own = self._assignment.trial_id
        models = {own: result.predictions, **{derived_id(own, p.alpha): p.predictions for p in result.derived}}
        for name, predictions in models.items():
            for split, columns in predictions.items():
                buffer = io.BytesIO()
                pq.write_table(pa.table(dict(columns)), buffer)
                write_atomically(self._folder.predictions / f"{name}_{split}.parquet", buffer.getvalue())

    def _write_model(self, trainer: Trainer) -> None:
        from repsim.export import model_files
        from sweeps.run_folder import write_atomically

        folder = self._folder.models / self._assignment.trial_id
        files = model_files(trainer)
        self._check_current()
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():  # the one that names the others' checksums comes last
            write_atomically(folder / name, content)


def resident_mib() -> float | None:
    """Memory of this process that is in RAM; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _gpu() -> dict[str, object]:
    """The memory of the GPU that the trial was on, if it was on one."""
    import torch

    return {"gpu_bytes": torch.cuda.get_device_properties(0).total_memory} if torch.cuda.is_available() else {}


def _check_finite(values: Mapping[str, float]) -> None:
    wrong = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    if wrong:
        raise FloatingPointError(", ".join(wrong))
