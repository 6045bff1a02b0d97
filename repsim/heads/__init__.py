"""The heads: classifiers on the pooled features. One file each; a new one is an entry here and one in the catalogue."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from repsim.config import HeadConfig
from repsim.heads.cosine import CosineHead
from repsim.heads.linear import linear_head
from repsim.heads.mlp import mlp_head
from repsim.heads.tversky import TverskyHead

HeadMaker = Callable[[HeadConfig, int, int, torch.Generator], nn.Module]

MAKERS: dict[str, HeadMaker] = {
    "linear": lambda config, dim, n_classes, generator: linear_head(dim, n_classes, generator),
    "cosine": lambda config, dim, n_classes, generator: CosineHead(dim, n_classes, generator, scale=config.scale),
    "mlp": lambda config, dim, n_classes, generator: mlp_head(dim, n_classes, generator),
    "tversky": lambda config, dim, n_classes, generator: TverskyHead(
        dim,
        n_classes,
        generator,
        bank=config.bank,
        normalise=config.normalise,
        intersection=config.intersection,
        difference=config.difference,
        per_feature=config.per_feature,
    ),
}
"""Head name to builder (settings, d, classes, generator); the same names as ``repsim.catalogue.HEADS``."""


def build_head(config: HeadConfig, dim: int, n_classes: int, generator: torch.Generator) -> nn.Module:
    """A freshly initialised head mapping features (b, ``dim``) to logits (b, ``n_classes``).

    ``generator`` alone decides the numbers.
    """
    return MAKERS[config.name](config, dim, n_classes, generator)
