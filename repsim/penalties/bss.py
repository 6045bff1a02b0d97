"""BSS: batch spectral shrinkage, the smallest singular values of the features are pressed down.

R = Σ σ_i(Z)² / max(Σ σ_i(Z0)², k/100 · mean σ(Z0)²), summed over the k = ``penalty.smallest`` smallest singular values
of the batch's features (n, d), Z0 being the pretrained ones (Chen et al. 2019, "Catastrophic Forgetting Meets Negative
Transfer", eq. 7; there without the denominator). Dimensionless, in [0, ∞): 1 at the pretrained weights unless their
smallest value is below a hundredth of the mean (then less), 0 when the features have lost k directions. It does not
hold the features where they were: it suppresses directions that small data cannot support.

The squares are the smallest eigenvalues of the smaller Gram matrix, in float64; the gradient of their sum,
2 Σ u_i u_iᵀ Z, needs no differences of eigenvalues and stays finite where they coincide.
"""

from __future__ import annotations

import torch
from torch import Tensor

from repsim.penalties.base import FeaturePenalty, PenaltyContext, attach_gradient

_FLOOR = 0.01


class BSS(FeaturePenalty):
    """Energy in the weakest directions of the batch, relative to what the pretrained features have there."""

    def __init__(self, context: PenaltyContext) -> None:
        super().__init__()
        self._smallest = context.config.smallest

    def value(self, features: Tensor, teacher: Tensor) -> Tensor:
        """Scalar for features and teacher (n, d)."""
        rows, theirs = features.detach().double(), teacher.double()
        long = rows.shape[0] > rows.shape[1]
        values, vectors = torch.linalg.eigh(rows.T @ rows if long else rows @ rows.T)
        before = torch.linalg.eigvalsh(theirs.T @ theirs if long else theirs @ theirs.T)
        k = min(self._smallest, len(values))
        unit = torch.maximum(before[:k].sum(), _FLOOR * k * before.mean()).clamp_min(1e-24)
        weakest = vectors[:, :k]
        gradient = rows @ weakest @ weakest.T if long else weakest @ (weakest.T @ rows)
        value = values[:k].clamp_min(0.0).sum() / unit
        return attach_gradient(features, value.to(features.dtype), (2.0 / unit * gradient).to(features.dtype))
