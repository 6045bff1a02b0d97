"""LwF: learning without forgetting, the source classifier goes on saying what it said.

R = T² KL(p0 ‖ p) / ln S, with p0, p the softmax at temperature T (``penalty.temperature``, 2) of the source
classifier's S logits on the pretrained and on the finetuned features (n, d) of the same images (Li & Hoiem 2016, arXiv
1606.09282, eqs. 2 to 4, as a divergence; T² keeps the gradient's size independent of T, Hinton et al. 2015).
Dimensionless: ln S is what knowing nothing of S classes costs. In [0, ∞); zero, with zero gradient, at the pretrained
weights.

The source classifier is frozen (the original finetunes it too): a classifier that may move can follow the features, and
what is to be held here is the features. Its logits on the pretrained features are those of the cached features, so the
pretrained network is not run while training.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from repsim.penalties.base import Batch, Penalty, PenaltyContext, given
from repsim.penalties.source import FrozenHead


class LwF(Penalty):
    """Divergence of the source classifier's answers."""

    def __init__(self, context: PenaltyContext) -> None:
        super().__init__()
        self.source = FrozenHead(context)
        self._temperature = context.config.temperature

    def of(self, batch: Batch) -> Tensor:
        """Scalar."""
        features, teacher = batch.features, given(batch.teacher, "pretrained features")
        before, now = (log_softmax(self.source(rows) / self._temperature, dim=1) for rows in (teacher, features))
        divergence = kl_div(now, before, reduction="batchmean", log_target=True)
        return self._temperature**2 * divergence / self.source.log_classes
