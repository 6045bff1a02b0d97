"""RSA: the batch's distances stay in proportion.

R = mean over pairs i ≠ j of h((D_ij - D0_ij) / s0), with D, D0 the Euclidean distances between the rows of the
finetuned and the pretrained features (n, d), each divided by its mean; s0 the standard deviation of D0 over pairs; h
Huber's function with δ = 1. The distance part of relational distillation (Park et al. 2019, arXiv 1904.05068, eqs. 5 to
8), held in units of the teacher's own spread: without them R would vanish with the width of the features, because
distances concentrate. Dimensionless; in [0, ∞), about 0.7 for unrelated features; zero, with zero gradient, at the
pretrained weights and wherever Z = s Z0 Q + 1b.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import huber_loss

from repsim.penalties.base import FeaturePenalty
from repsim.penalties.relations import mean_of_pairs, relative_distances, spread


class RSA(FeaturePenalty):
    """Huber distance between two relative distance matrices."""

    def value(self, features: Tensor, teacher: Tensor) -> Tensor:
        """Scalar for features and teacher (n, d)."""
        theirs = relative_distances(teacher)
        unit = spread(theirs)
        return mean_of_pairs(huber_loss(relative_distances(features) / unit, theirs / unit, reduction="none"))
