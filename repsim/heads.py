"""Classifiers on the pooled features, by name. :mod:`repsim.catalogue` tells people about them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from repsim.errors import RequestError, unknown

_LINEAR_STD = 0.01  # near-zero logits at the start, so that the first steps do not shake the backbone

HeadMaker = Callable[[int, int, torch.Generator], nn.Module]


def _linear(dim: int, n_classes: int, generator: torch.Generator) -> nn.Module:
    head = nn.Linear(dim, n_classes)
    nn.init.normal_(head.weight, 0.0, _LINEAR_STD, generator=generator)
    nn.init.zeros_(head.bias)
    return head


MAKERS: dict[str, HeadMaker] = {"linear": _linear}
"""The code behind every head of the catalogue: ``(dim, n_classes, generator) -> module``."""


def build_head(name: str, dim: int, n_classes: int, generator: torch.Generator) -> nn.Module:
    """A freshly initialised head mapping features (b, ``dim``) to logits (b, ``n_classes``).

    ``generator`` alone decides the numbers. Raises :class:`RequestError` when no head has this name.
    """
    if name not in MAKERS:
        raise RequestError(unknown("configuration", "head", name, list(MAKERS), "head"))
    return MAKERS[name](dim, n_classes, generator)
