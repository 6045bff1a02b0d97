"""The adapters: which parameters move, and how they are fitted. A new one is an entry here and one in the catalogue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from repsim.model import FineTuned


def _train_everything(model: FineTuned) -> None:
    model.requires_grad_(True)


def _freeze_backbone(model: FineTuned) -> None:
    model.backbone.requires_grad_(False)
    model.head.requires_grad_(True)


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """``prepare`` sets ``requires_grad`` (and may change modules); ``fit`` says how the trainable part is found.

    ``gradient``: optimiser steps, an epoch at a time. ``features``: in one step, to convergence, on cached features;
    then the backbone must not move.
    """

    prepare: Callable[[FineTuned], None]
    fit: Literal["gradient", "features"]


REGISTRY: dict[str, Adapter] = {
    "full": Adapter(prepare=_train_everything, fit="gradient"),
    "linear_probe": Adapter(prepare=_freeze_backbone, fit="features"),
}
"""The same names as ``repsim.catalogue.ADAPTERS``."""
