"""The cosine head: logit_c = s · cos(z, w_c), with a learnable scale s (Gidaris & Komodakis 2018, arXiv 1804.09458).

It sees the direction of the features alone, so a backbone cannot raise its confidence by growing their length.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CosineHead(nn.Module):
    """Directions (classes, d), drawn normally; ``scale`` is the scale's start."""

    def __init__(self, dim: int, n_classes: int, generator: torch.Generator, *, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_classes, dim).normal_(generator=generator))
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, features: Tensor) -> Tensor:
        """Logits (b, classes) of features (b, d), each within ± the scale."""
        cosines = nn.functional.linear(
            nn.functional.normalize(features, dim=-1), nn.functional.normalize(self.weight, dim=-1)
        )
        return self.scale * cosines
