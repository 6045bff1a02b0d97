"""The penalties: what holds the representation. One file each; adding one is an entry here and one in the catalogue."""

from __future__ import annotations

from collections.abc import Callable

from repsim.config import PenaltyConfig
from repsim.penalties.base import Penalty
from repsim.penalties.feature_mse import FeatureMSE
from repsim.penalties.hcs import HCS
from repsim.penalties.repsim import RepSim

__all__ = ["REGISTRY", "Penalty", "build_penalty"]

REGISTRY: dict[str, Callable[[int, PenaltyConfig], Penalty]] = {
    "repsim": lambda dim, config: RepSim(dim, q_lr=config.q_lr),
    "hcs": lambda dim, config: HCS(dim),
    "feature_mse": lambda dim, config: FeatureMSE(dim),
}
"""Penalty name to builder (feature dimension, settings); the same names as ``repsim.catalogue.PENALTIES``."""


def build_penalty(name: str, dim: int, config: PenaltyConfig) -> Penalty:
    """The penalty called ``name`` for features of ``dim`` columns; KeyError when it is not registered."""
    return REGISTRY[name](dim, config)
