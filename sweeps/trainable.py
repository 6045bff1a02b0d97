"""The Ray side of a trial: one class Trainable whose process outlives its trials.

A step is an epoch. ``reset_config`` starts the next trial in the same process, so that torch, the images and the
teacher's features stay loaded. Nothing is imported here that Ray does not need to find the class.

What a process may write is fenced: each start of a trial has an attempt number, and a process whose attempt is not the
current one (the orphan of a dead driver, a worker believed dead) writes no checkpoint, predictions or model. A process
whose engine is gone ends by itself; one that crashes leaves a note that says where.
"""

from __future__ import annotations

import errno
import faulthandler
import json
import math
import os
import re
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ray.tune import Trainable

from sweeps.disk import is_full
from sweeps.run_folder import RunFolder

if TYPE_CHECKING:
    from repsim.records import TrialResult
    from repsim.trainer import Trainer
    from repsim.workspace import Workspace

Fault = Literal["own", "died", "disk"]
"""Why a trial broke. ``own``: it raised; ``died``: its process ended or hung, or memory ran out; ``disk``: no space."""
PAYLOAD = "payload"
RECYCLED_AFTER = 64
"""A process is replaced after this many trials or later, once it has grown, so that no slow leak goes on for ever."""
GROWN_MIB = 256.0
"""So much more memory than after its first trial is growth; less is not worth the seconds that a new process takes."""
_LOOKS_FOR_ITS_ENGINE_EVERY = 2.0
_ALLOCATION = "can't allocate memory"  # torch's CPU allocator raises a plain RuntimeError
_NUMPYS_FULL_DISK = re.compile(r"^\d+ requested and \d+ written$")  # an OSError without a number


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What a slot is told to run.

    ``config`` is the flat configuration, ``objective`` the first val objective, ``known_epochs`` how many epochs the
    journal holds already, ``launched_from`` the folder that relative paths in the configuration start from. Each
    of ``workers`` processes has ``threads`` CPU threads and ``gpus`` GPUs. With ``keep_model`` the model is left in the
    run folder as well.
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


class TrialFailed(Exception):  # noqa: N818 - the words a person reads in Ray's own logs
    """A trial's own error; its message is the reason people read."""


class TrialNotBegun(TrialFailed):
    """Not an error at all: the trial is to run elsewhere."""


class TrialOutOfMemory(TrialFailed):
    """The machine's fault rather than the configuration's: worth another try in a fresh process."""


class TrialOutOfDisk(TrialFailed):
    """Nobody's fault: to be tried again once there is space."""


class TrialProcess(Trainable):  # type: ignore[misc]
    """A slot: runs one trial after the other in one process. Ray replaces the process when a step raises."""

    def setup(self, config: dict[str, Any]) -> None:
        """Ray's entry for the process's first trial."""
        engine = threading.Thread(target=_end_with, args=(os.getppid(),), name="engine watch", daemon=True)
        engine.start()
        self._workspace: Workspace | None = None
        self._crash_note: int | None = None
        self._served = 0
        self._first_mib: float | None = None
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Ray's entry for the next trial; always True, because Ray loses the trial of a process that refuses it."""
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        """Ray's exit."""
        if self._crash_note is not None:
            faulthandler.disable()
            os.close(self._crash_note)
            self._crash_note = None

    def _begin(self, config: Mapping[str, object]) -> None:
        self._served += 1
        if self._served == 2:
            self._first_mib = resident_mib()
        self._began = time.time()
        self._assignment = Assignment.from_config(config)
        self._folder = RunFolder(Path(self._assignment.run_folder))
        # Ray starts its processes in folders of its own.
        os.chdir(self._assignment.launched_from)
        self._leave_crash_notes()
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
            raise _kind(error)(_reason(error)) from error
        return {PAYLOAD: json.dumps(asdict(report)), "done": report.result is not None}

    def _has_grown(self) -> bool:
        """Whether it holds much more memory than after its first trial; taken for granted where nobody can say."""
        now = resident_mib()
        return now is None or self._first_mib is None or now - self._first_mib > GROWN_MIB

    def _leave_crash_notes(self) -> None:
        path = self._folder.crash_note(self._assignment.trial_id)
        try:
            note = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        except OSError:  # a full disk; the trial itself will find out
            return
        before, self._crash_note = self._crash_note, note
        # Ray's own handler lies over the one that Ray has Python install; it may hang, for three seconds and without a
        # note, where the signal comes amid an allocation. Disabled and enabled, ours is the first and the only one.
        faulthandler.disable()
        faulthandler.enable(note, all_threads=False)
        if before is not None:
            os.close(before)

    def _advance(self) -> Report:
        trainer = self._open() if self._trainer is None else self._trainer
        if not trainer.done:
            measured = trainer.step()
            _check_finite({**measured.values, "train_loss": measured.train_loss})
        epochs = [epoch.to_dict() for epoch in trainer.epochs if epoch.epoch > self._told]
        self._told = len(trainer.epochs)
        if not trainer.done:
            self._write_checkpoint(trainer)
            return Report(epochs=epochs)
        found = trainer.finish()
        _check_finite(found.values)
        self._write_predictions(found)
        if self._assignment.keep_model:
            self._write_model(trainer)
        result = found.to_dict()
        timing = {"slot": os.getpid(), "began": self._began, "finished": time.time()}
        return Report(epochs=epochs, result=result | {"facts": found.facts | timing})

    def _open(self) -> Trainer:
        import torch

        from repsim.config import TrialConfig
        from repsim.records import Objective
        from repsim.trainer import Trainer
        from repsim.workspace import Workspace

        asked = self._assignment
        torch.set_num_threads(asked.threads)
        if self._workspace is None:
            self._workspace = Workspace(cache_dir=None if asked.cache_dir is None else Path(asked.cache_dir))
        metric, direction = asked.objective
        best_by = Objective(metric=metric, direction="maximize" if direction == "maximize" else "minimize")
        config = TrialConfig.from_flat(asked.config, where=asked.trial_id)
        trainer = Trainer(config, workspace=self._workspace, best_by=best_by)
        checkpoint = self._checkpoint_path()
        if checkpoint.exists():
            trainer.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
        self._trainer = trainer
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


def _end_with(engine: int) -> None:
    """End this process as soon as ``engine``, the process that started it, is gone: nobody is listening any more."""
    while os.getppid() == engine:
        time.sleep(_LOOKS_FOR_ITS_ENGINE_EVERY)
    os._exit(1)


def _kind(error: Exception) -> type[TrialFailed]:
    """Whose fault an error is; the errors it came from are asked as well."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError" or _ALLOCATION in str(cause):
            return TrialOutOfMemory
        if isinstance(cause, OSError):
            if cause.errno == errno.ENOMEM:
                return TrialOutOfMemory
            if is_full(cause) or _NUMPYS_FULL_DISK.search(str(cause)):
                return TrialOutOfDisk
        cause = cause.__cause__ or cause.__context__
    return TrialFailed


def _check_finite(values: Mapping[str, float]) -> None:
    wrong = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    if wrong:
        raise FloatingPointError(", ".join(wrong))


def _reason(error: Exception) -> str:
    """One line for people: what happened, and where in our code when it is not a message written for them."""
    text = " ".join(str(error).split()) or type(error).__name__
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "repsim" in frame.filename]
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{where}"
