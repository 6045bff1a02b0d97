"""An independent witness: with this folder on PYTHONPATH, every training process logs what it has really done.

Python imports this module at the start of every process. Where ``FAULT_LOG`` names a file, ``Trainer.step`` and
``Trainer.finish`` append one fsynced JSON line each when they return: ``event`` (``epoch`` or ``finish``), ``key`` (the
configuration), ``epoch``, ``pid``, ``began`` and ``ended`` (seconds since 1970). Nothing is imported early: the two
methods are wrapped when the process imports ``repsim.trainer`` itself.

A file ``FAULT_LOG.diverge`` names one key: from then on the val accuracy of that trial is NaN.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

WRAPPED = "repsim.trainer"


def key_of(trainer: Any) -> str:
    """What tells configurations of this benchmark apart, whoever proposed them."""
    flat = trainer.config.flat()
    strength = flat["strength"]
    return f"{flat['method']} {'-' if strength is None else float(strength)} {float(flat['optim.lr'])}"


def note(log: Path, event: str, trainer: Any, began: float) -> None:
    """One line, in one write, on disk before anything else happens."""
    line = {"event": event, "key": key_of(trainer), "epoch": len(trainer.epochs), "pid": os.getpid()}
    text = json.dumps(line | {"began": began, "ended": time.time()}) + "\n"
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, text.encode())
        os.fsync(file)
    finally:
        os.close(file)


def spoil(log: Path, trainer: Any, result: Any) -> None:
    """Make the first objective NaN where this trial is to diverge."""
    order = log.with_name(log.name + ".diverge")
    if order.exists() and order.read_text() == key_of(trainer):
        result.values["val_accuracy"] = math.nan


def witnessed(log: Path, event: str, method: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``method``, and then a line."""

    def call(trainer: Any) -> Any:
        began = time.time()
        result = method(trainer)
        spoil(log, trainer, result)
        note(log, event, trainer, began)
        return result

    return call


class Finder(importlib.abc.MetaPathFinder):
    """Lets the usual machinery load the trainer, and wraps it afterwards."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != WRAPPED:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_wrap(module: Any) -> None:
            load(module)
            module.Trainer.step = witnessed(self._log, "epoch", module.Trainer.step)
            module.Trainer.finish = witnessed(self._log, "finish", module.Trainer.finish)

        spec.loader.exec_module = load_and_wrap  # type: ignore[method-assign]
        return spec


if "FAULT_LOG" in os.environ:
    sys.meta_path.insert(0, Finder(Path(os.environ["FAULT_LOG"])))
