"""The MLP head: two hidden layers with ReLU, d -> d/4 -> d/8 -> classes.

For the 2048 features of a ResNet-50 these are the 512 and 256 of LVM-Med's classification head (arXiv 2306.11925); at
other widths the proportions are kept, and no layer is narrower than there are classes.
"""

from __future__ import annotations

import itertools

import torch
from torch import nn

from repsim.heads.linear import linear_head


def mlp_head(dim: int, n_classes: int, generator: torch.Generator) -> nn.Sequential:
    """Hidden layers drawn for ReLU (He et al., arXiv 1502.01852) with zero biases; the last starts near zero."""
    sizes = [dim, max(n_classes, dim // 4), max(n_classes, dim // 8)]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        hidden = nn.Linear(before, after)
        nn.init.kaiming_normal_(hidden.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(hidden.bias)
        layers += [hidden, nn.ReLU()]
    return nn.Sequential(*layers, linear_head(sizes[-1], n_classes, generator))
