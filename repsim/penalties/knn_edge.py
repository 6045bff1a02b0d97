"""kNN edges: who was near stays as near.

R = mean over edges (i, j) of h((D_ij - D0_ij) / s0): the penalty of :mod:`repsim.penalties.rsa`, on the edges of the
pretrained features' k-nearest-neighbour graph of the batch alone (k = ``penalty.neighbours``, 5). D, D0 are the
distances relative to the mean over all pairs, s0 the standard deviation of D0 over all pairs, h Huber's function. Far
pairs are free to move. The edge term of second-order graph matching (LVM-Med, arXiv 2306.11925), with lengths in place
of directions, because a direction is not comparable after a rotation. Dimensionless; in [0, ∞), 1 to 2 for unrelated
features; zero, with zero gradient, at the pretrained weights and wherever Z = s Z0 Q + 1b. With n <= k + 1 rows every
pair is an edge.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from repsim.penalties.base import FeaturePenalty, PenaltyContext
from repsim.penalties.relations import relative_distances, spread


class KNNEdge(FeaturePenalty):
    """Huber distance between the lengths of the teacher's k-NN edges."""

    def __init__(self, context: PenaltyContext) -> None:
        super().__init__()
        self._neighbours = context.config.neighbours

    def value(self, features: Tensor, teacher: Tensor) -> Tensor:
        """Scalar for features and teacher (n, d)."""
        theirs = relative_distances(teacher)
        unit = spread(theirs)
        itself = torch.diag(torch.full((len(theirs),), float("inf"), dtype=theirs.dtype, device=theirs.device))
        nearest = (theirs + itself).topk(min(self._neighbours, len(theirs) - 1), largest=False).indices
        ours = relative_distances(features).gather(1, nearest)
        return huber_loss(ours / unit, theirs.gather(1, nearest) / unit)
