"""The linear head: one affine layer, logits = W z + b, starting near zero."""

from __future__ import annotations

import torch
from torch import nn

_STD = 0.01  # near-zero logits at the start, so that the first steps do not shake the backbone


def linear_head(dim: int, n_classes: int, generator: torch.Generator) -> nn.Linear:
    """W (classes, d) ~ N(0, 0.01²), b = 0."""
    head = nn.Linear(dim, n_classes)
    nn.init.normal_(head.weight, 0.0, _STD, generator=generator)
    nn.init.zeros_(head.bias)
    return head
