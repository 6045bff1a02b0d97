"""``runs/NAME/``: what a sweep leaves behind on disk, and the fence that keeps orphaned processes out."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Self

from repsim.errors import Mistake, RequestError, nearest, one_line
from sweeps.durable import sync_folder, write_atomically

__all__ = ["RESUME_COMMAND", "RunFolder", "check_name", "write_atomically"]

RESUME_COMMAND = "python sweeps/launch.py --resume {name}"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")
_FRAME = re.compile(r'^  File "([^"]+)", line (\d+)')
_FOLDERS = ("checkpoints", "models", "predictions", "report")


@dataclass(frozen=True)
class RunFolder:
    """The paths of one sweep's folder. A value: safe to send to workers."""

    root: Path

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self.root.name

    @property
    def space(self) -> Path:
        """The space as resolved."""
        return self.root / "space.yaml"

    @property
    def journal(self) -> Path:
        """The append-only journal."""
        return self.root / "journal.jsonl"

    @property
    def checkpoints(self) -> Path:
        """One folder per trial: ``checkpoints/t0007/``."""
        return self.root / "checkpoints"

    @property
    def models(self) -> Path:
        """One folder per trial whose model is kept: ``models/t0007/``. Not there in sweeps from before models were."""
        return self.root / "models"

    @property
    def predictions(self) -> Path:
        """Per-image predictions of finished trials."""
        return self.root / "predictions"

    @property
    def report(self) -> Path:
        """The report."""
        return self.root / "report"

    @property
    def resume_command(self) -> str:
        """What takes this sweep up again."""
        return RESUME_COMMAND.format(name=self.name)

    def checkpoint(self, trial_id: str) -> Path:
        """A trial's last epoch checkpoint (it may not exist); its folder does once ``set_attempt`` was called."""
        return self.checkpoints / trial_id / "checkpoint.pt"

    def forget_checkpoint(self, trial_id: str) -> None:
        """Remove a trial's checkpoint, and what killed writers left of it; the fence stays."""
        path = self.checkpoint(trial_id)
        for left in (path, *path.parent.glob(f".{path.name}.*")):
            left.unlink(missing_ok=True)
        self.forget_crashes(trial_id)

    def crash_note(self, trial_id: str, rank: int = 0) -> Path:
        """Where a trial's process, or another of its workers, writes as it crashes what happened; empty until then."""
        return self.checkpoints / trial_id / (f"crash-{rank}.txt" if rank else "crash.txt")

    def forget_crashes(self, trial_id: str) -> None:
        """Remove what earlier attempts' processes have left."""
        for note in (self.checkpoints / trial_id).glob("crash*.txt"):
            note.unlink(missing_ok=True)

    def read_crash(self, trial_id: str, rank: int = 0) -> str | None:
        """How a trial's process crashed, in a few words; None when it left no note (it was killed)."""
        try:
            lines = self.crash_note(trial_id, rank).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return None
        told = [line for line in lines if line.startswith("Fatal Python error: ")]
        if not told:
            return None
        frames = [_FRAME.search(line) for line in lines]
        where = next((f", {Path(found[1]).name}:{found[2]}" for found in frames if found is not None), "")
        return f"{told[0].removeprefix('Fatal Python error: ')}{where}"

    @classmethod
    def create(cls, runs_dir: Path, name: str, files: Mapping[str, bytes] | None = None) -> Self:
        """Make ``runs_dir/name`` with its subfolders and ``files`` (by file name), all or nothing.

        RequestError when the name is not a plain one, is taken (the message holds the resume command), or when
        ``runs_dir`` cannot be written.
        """
        check_name(name)
        root = runs_dir / name
        building: Path | None = None
        try:
            runs_dir.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(root):
                _taken(root)
            building = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=runs_dir))
            building.chmod(0o777 & ~_umask())
            for folder in _FOLDERS:
                (building / folder).mkdir()
            for file_name, content in (files or {}).items():
                write_atomically(building / file_name, content)
            building.rename(root)  # fails where a folder that is not empty, or a file, took the name meanwhile
            sync_folder(runs_dir)
        except OSError as error:
            if os.path.lexists(root) and building is not None and building.exists():
                _taken(root)
            _refuse(str(runs_dir), f"cannot be written: {error.strerror}")
        finally:
            if building is not None and building.exists():
                shutil.rmtree(building)
        return cls(root)

    @staticmethod
    def check_free(runs_dir: Path, name: str) -> None:
        """RequestError when ``name`` is taken (with the resume command) or cannot be made there; nothing is made."""
        check_name(name)
        if os.path.lexists(runs_dir / name):
            _taken(runs_dir / name)
        there = next(folder for folder in (runs_dir, *runs_dir.parents) if folder.exists())
        if not there.is_dir():
            _refuse(str(there), "cannot be written: it is a file, not a folder")
        if not os.access(there, os.W_OK | os.X_OK):
            _refuse(str(there), "cannot be written: permission denied")

    @classmethod
    def open_existing(cls, runs_dir: Path, name: str, *, to: str = "resume") -> Self:
        """The folder of a sweep that was started; RequestError, with the nearest name, when it has no journal.

        ``to`` says in the message what it was wanted for.
        """
        check_name(name, "--resume")
        folder = cls(runs_dir / name)
        if not folder.journal.is_file():
            names = [path.parent.name for path in sorted(runs_dir.glob("*/journal.jsonl"))]
            raise RequestError(
                Mistake(
                    where=str(folder.root),
                    key="",
                    problem=f"has no journal, so there is nothing to {to}",
                    allowed=", ".join(names) or f"nothing yet: {runs_dir} holds no sweep",
                    suggestion=nearest(name, names),
                )
            )
        return folder

    def current_attempt(self, trial_id: str) -> int:
        """The attempt that may write for this trial; 0 before the first.

        Raises ValueError when the file holds anything but a number.
        """
        try:
            text = self._fence(trial_id).read_text(encoding="ascii")
        except FileNotFoundError:
            return 0
        return int(text)

    def set_attempt(self, trial_id: str, attempt: int) -> None:
        """Fence off every earlier attempt; ValueError when a later one is current.

        Setting the current one again is fine: a driver may be killed after this and before the start is journaled. So
        is losing it in a power failure, which ends every attempt.
        """
        current = self.current_attempt(trial_id)
        if attempt < current:
            raise ValueError(f"trial {trial_id}: attempt {attempt} is over, {current} is the current one")
        fence = self._fence(trial_id)
        fence.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(fence, f"{attempt}\n".encode("ascii"), name_survives=False)

    def _fence(self, trial_id: str) -> Path:
        return self.checkpoints / trial_id / "attempt"


def check_name(name: str, where: str = "--name") -> None:
    """RequestError unless ``name`` is a plain file name: letters, digits and ``_ . + -``, at most 128."""
    if _NAME.fullmatch(name) is None:
        allowed = "up to 128 letters, digits, '_', '.', '+' and '-', not starting with '.', '+' or '-'"
        raise RequestError(Mistake(where=where, key="", problem=f"{one_line(name)} is not a name", allowed=allowed))


def _umask() -> int:
    """The process's file mode mask (mkdtemp ignores it; others of the group may have to read a sweep)."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _taken(root: Path) -> NoReturn:
    name = root.name
    _refuse(str(root), f"exists already; resume it with `{RESUME_COMMAND.format(name=name)}`, or choose another --name")


def _refuse(where: str, problem: str) -> NoReturn:
    raise RequestError(Mistake(where=where, key="", problem=problem)) from None
