"""Triplets: of any three images, the two that were most alike stay so.

For three images the pretrained features name the closest pair P1, P2 and the odd one N. With D the distances of the
finetuned features (n, d) relative to their mean over pairs, in units of the standard deviation s0 of the teacher's,

    R = mean over triplets of  [D(P1,P2) - D(P1,N) + m]₊ + [D(P2,P1) - D(P2,N) + m]₊ :

SIRL's symmetric triplet loss (Bobu et al. 2023, arXiv 2301.00810, eq. 2), with the pretrained network in the place of
the person who is asked. m = ``penalty.margin`` (0.1) is in units of s0, which keeps it comparable where distances
concentrate. Dimensionless; in [0, ∞), about 1 for unrelated features, 2m for constant ones. Only the order of distances
is held, so it is not zero at the pretrained weights: triplets decided by less than m pull. It knows no rotation, scale
or offset. All triplets of the batch, or a seeded 8,192 of them when there are more (n > 37).
"""

from __future__ import annotations

import torch
from torch import Tensor

from repsim.penalties.base import FeaturePenalty, PenaltyContext
from repsim.penalties.relations import relative_distances, spread
from repsim.seeding import torch_generator

_MOST = 8192
_MARGIN = 0.1


class Triplet(FeaturePenalty):
    """Hinge on the teacher's order of the three distances in every triplet."""

    def __init__(self, context: PenaltyContext) -> None:
        super().__init__()
        self._margin = _MARGIN if context.config.margin is None else context.config.margin
        self._seed = context.seed
        self._pairs: dict[int, Tensor] = {}

    def value(self, features: Tensor, teacher: Tensor) -> Tensor:
        """Scalar for features and teacher (n, d)."""
        theirs = relative_distances(teacher)
        pairs = self._pairs_of(len(features), theirs.device)
        sides = (relative_distances(features) / spread(theirs)).flatten()[pairs]
        near = sides.gather(1, theirs.flatten()[pairs].argmin(dim=1, keepdim=True))
        # the near side stands among the three and pays the margin against itself, which is taken off again
        return (near - sides + self._margin).clamp_min(0.0).sum(dim=1).mean() - self._margin

    def _pairs_of(self, n: int, device: torch.device) -> Tensor:
        """Places of the three sides of every triplet in a flattened (n, n) matrix: (triplets, 3)."""
        if n not in self._pairs:
            every = torch.combinations(torch.arange(n), 3)
            if len(every) > _MOST:
                chosen = torch.randperm(len(every), generator=torch_generator(self._seed, "triplets", n))[:_MOST]
                every = every[chosen]
            i, j, k = every.T
            self._pairs[n] = torch.stack([i * n + j, i * n + k, j * n + k], dim=1).to(device)
        return self._pairs[n]
