"""HCS: the batch's similarity index itself is the penalty.

R = 1 - CKA(Z, Z0), linear CKA (Kornblith et al. 2019, arXiv 1905.00414, eq. 1 with linear kernels) of the batch's
centred features (n, d), through the n x n Gram matrices. The hard-similarity comparator of arXiv 2503.07399. In
[0, 1]; zero, with zero gradient, at the pretrained weights and wherever Z = s Z0 Q + 1b for a scale s, an orthogonal Q
and an offset b. The biased estimator: with n below d it is lenient, because CKA of unrelated features is then far above
0.

``penalty.estimator: debiased`` uses U-centred Gram matrices (Song et al. 2012, eq. 5; Székely & Rizzo 2014), whose CKA
of unrelated features is about 0 for any n >= 4; then R lies in [0, 2] and single batches scatter. ``penalty.margin`` ε
is the hinge max(0, 1 - ε - CKA), the relaxation of "at least 1 - ε similar": no pull inside. ``penalty.queue`` M
appends the last M rows of features and pretrained features, without gradient, so that the index is taken on n + M rows;
the rows are as old as the steps since, so M should be a few batches.
"""

from __future__ import annotations

import torch
from torch import Tensor

from repsim.penalties.base import FeaturePenalty, PenaltyContext, centred

_FLOOR = 1e-24


class HCS(FeaturePenalty):
    """1 - linear CKA of the batch, of the batch and a queue of past ones, or the excess of it over a margin."""

    past: Tensor
    past_teacher: Tensor
    filled: Tensor

    def __init__(self, context: PenaltyContext) -> None:
        super().__init__()
        config = context.config
        self._debiased = config.estimator == "debiased"
        self._margin = 0.0 if config.margin is None else config.margin
        for name in ("past", "past_teacher"):
            self.register_buffer(name, torch.zeros(config.queue, context.dim))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self._batch: tuple[Tensor, Tensor] | None = None

    def value(self, features: Tensor, teacher: Tensor) -> Tensor:
        """Scalar for features and teacher (n, d); remembers the batch for :meth:`after_step`."""
        if len(self.past):
            if self.remembers:
                self._batch = (features.detach(), teacher)
            kept = int(self.filled)
            features = torch.cat([features, self.past[:kept]])
            teacher = torch.cat([teacher, self.past_teacher[:kept]])
        features_c, teacher_c = centred(features), centred(teacher)
        gram, teacher_gram = features_c @ features_c.T, teacher_c @ teacher_c.T
        if self._debiased:
            gram, teacher_gram = u_centred(gram), u_centred(teacher_gram)
        cross = (gram * teacher_gram).sum()
        distance = 1.0 - cross / (_norm(gram) * _norm(teacher_gram))
        return (distance - self._margin).clamp_min(0.0) if self._margin > 0 else distance

    @torch.no_grad()
    def after_step(self) -> None:
        """Put the batch at the head of the queue."""
        if self._batch is None:
            return
        (features, teacher), self._batch = self._batch, None
        length = len(self.past)
        for queue, rows in ((self.past, features), (self.past_teacher, teacher)):
            queue.copy_(torch.cat([rows, queue])[:length])
        self.filled.copy_((self.filled + len(features)).clamp_max(length))


def _norm(gram: Tensor) -> Tensor:
    """Frobenius norm, kept away from 0 under the root, whose gradient is not finite there (constant features)."""
    return gram.square().sum().clamp_min(_FLOOR).sqrt()


def u_centred(gram: Tensor) -> Tensor:
    """The U-centred (n, n) matrix: zero diagonal, zero row sums; n >= 4."""
    n = len(gram)
    off = gram * (1.0 - torch.eye(n, dtype=gram.dtype, device=gram.device))
    rows = off.sum(dim=0) / (n - 2)
    rows = rows - rows.sum() / (2 * (n - 1))
    centred_gram = off - rows[None, :] - rows[:, None]
    return centred_gram * (1.0 - torch.eye(n, dtype=gram.dtype, device=gram.device))
