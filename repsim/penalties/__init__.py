"""The penalties: what holds the representation. One file each; adding one is an entry here and one in the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from repsim.penalties.base import Batch, FeaturePenalty, Penalty, PenaltyContext, Statistics
from repsim.penalties.bss import BSS
from repsim.penalties.co_tuning import CoTuning
from repsim.penalties.delta import Delta
from repsim.penalties.feature_mse import FeatureMSE
from repsim.penalties.hcs import HCS
from repsim.penalties.knn_edge import KNNEdge
from repsim.penalties.l2_sp import L2SP
from repsim.penalties.layerwise import LAST, LayerWise
from repsim.penalties.lwf import LwF
from repsim.penalties.procrustes import Procrustes
from repsim.penalties.repsim import RepSim
from repsim.penalties.rift import RIFT
from repsim.penalties.rsa import RSA
from repsim.penalties.triplet import Triplet

__all__ = ["REGISTRY", "Batch", "Penalty", "PenaltyContext", "Statistics", "build_penalty"]

_OF_FEATURES: dict[str, Callable[[PenaltyContext], FeaturePenalty]] = {
    "repsim": RepSim,
    "procrustes": lambda context: Procrustes(),
    "hcs": HCS,
    "feature_mse": lambda context: FeatureMSE(),
    "rsa": lambda context: RSA(),
    "knn_edge": KNNEdge,
    "triplet": Triplet,
    "bss": BSS,
}
_OTHERS: dict[str, Callable[[PenaltyContext], Penalty]] = {
    "rift": RIFT,
    "l2_sp": L2SP,
    "delta": lambda context: Delta(),
    "lwf": LwF,
    "co_tuning": CoTuning,
}
REGISTRY: dict[str, Callable[[PenaltyContext], Penalty]] = {**_OF_FEATURES, **_OTHERS}
"""Penalty name to builder; the same names as ``repsim.catalogue.PENALTIES``."""


def build_penalty(name: str, context: PenaltyContext, layers: Mapping[str, int] | None = None) -> Penalty:
    """The penalty called ``name``; KeyError when it is not registered.

    ``layers`` (name to width) makes a feature penalty layer-wise; None, or the last features alone, leaves it as it is.
    """
    if layers is None or set(layers) == {LAST} or name not in _OF_FEATURES:
        return REGISTRY[name](context)
    return LayerWise(_OF_FEATURES[name], context, layers)
