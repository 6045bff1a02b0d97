"""Feature MSE: the finetuned features stay where they were.

R = |Zc - Z0c|² / |Z0c|², with Zc, Z0c the batch-centred finetuned and pretrained features (n, d). Feature distillation
in the manner of FitNets (arXiv 1412.6550), normalised so that λ means the same on every backbone. The strictest of the
family: no rotation, no rescaling. Zero, with zero gradient, at the pretrained weights; in [0, ∞), 2 for unrelated
features of equal energy.
"""

from __future__ import annotations

from torch import Tensor

from repsim.penalties.base import FeaturePenalty, centred, energy


class FeatureMSE(FeaturePenalty):
    """|Zc - Z0c|² / |Z0c|²."""

    def value(self, features: Tensor, teacher: Tensor) -> Tensor:
        """Scalar for features and teacher (n, d)."""
        teacher_c = centred(teacher)
        return (centred(features) - teacher_c).square().sum() / energy(teacher_c)
