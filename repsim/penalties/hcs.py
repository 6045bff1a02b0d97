"""HCS: the batch's similarity index itself is the penalty.

R = 1 - CKA(Z, Z0), linear CKA (Kornblith et al. 2019, arXiv 1905.00414, eq. 1 with linear kernels) of the batch's
centred features (n, d), through the n x n Gram matrices. The hard-similarity comparator of arXiv 2503.07399. In
[0, 1]; zero, with zero gradient, at the pretrained weights and wherever Z = s Z0 Q + 1b for a scale s, an orthogonal Q
and an offset b. The biased estimator: with n below d it is lenient, because CKA of unrelated features is then far above
0.
"""

from __future__ import annotations

from torch import Tensor

from repsim.penalties.base import Penalty, centred


class HCS(Penalty):
    """1 - linear CKA of the batch."""

    def value(self, features: Tensor, teacher: Tensor) -> Tensor:
        """Scalar for features and teacher (n, d)."""
        features_c, teacher_c = centred(features), centred(teacher)
        gram, teacher_gram = features_c @ features_c.T, teacher_c @ teacher_c.T
        cross = (gram * teacher_gram).sum()
        norm = gram.square().sum().sqrt() * teacher_gram.square().sum().sqrt()
        return 1.0 - cross / norm.clamp_min(1e-12)
