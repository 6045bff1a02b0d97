"""RepSim: finetune a pretrained image backbone, and measure what it keeps of what it knew.

``import repsim`` is light; the names below load what they need when they are first used (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repsim.config import TrialConfig
    from repsim.records import EpochResult, TrialResult
    from repsim.trainer import Trainer, train

__all__ = ["EpochResult", "Trainer", "TrialConfig", "TrialResult", "train"]
__version__ = "0.1.0"

_HOME = {
    "EpochResult": "repsim.records",
    "Trainer": "repsim.trainer",
    "TrialConfig": "repsim.config",
    "TrialResult": "repsim.records",
    "train": "repsim.trainer",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'repsim' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
