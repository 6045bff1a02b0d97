"""Co-tuning: each image keeps being recognised as the source classes its own class used to look like.

R = - mean over images of Σ_s p(s | y) ln q(s) / ln S, with q the softmax of the frozen source classifier's S logits on
the finetuned features (n, d), y the image's class, and p(s | y) the mean of the source classifier's softmax over the
training images of class y, measured once on the pretrained features of one augmented view (You et al. 2020, "Co-Tuning
for Transfer Learning", eq. 3 with the direct estimate of the category relationship). Dimensionless: 1 is what a source
classifier that answers uniformly pays. Neither value nor gradient is zero at the pretrained weights: images are drawn
towards the mean answer of their class. The original finetunes the source classifier too; here it is frozen, so that the
features have to do it, and nothing but the features is needed.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from repsim.penalties.base import Batch, Penalty, PenaltyContext, given
from repsim.penalties.source import FrozenHead


class CoTuning(Penalty):
    """Cross-entropy between a class's source classes and the source classifier's answer."""

    relationship: Tensor

    def __init__(self, context: PenaltyContext) -> None:
        super().__init__()
        self.source = FrozenHead(context)
        features = given(context.train_features, "pretrained training features")
        labels = given(context.train_labels, "training labels")
        self.register_buffer(
            "relationship", _relationship(self.source, features, labels, context.n_classes), persistent=False
        )

    def of(self, batch: Batch) -> Tensor:
        """Scalar."""
        log_q = log_softmax(self.source(batch.features), dim=1)
        wanted = self.relationship[given(batch.labels, "labels")]
        return -(wanted * log_q).sum(dim=1).mean() / self.source.log_classes


@torch.no_grad()
def _relationship(source: FrozenHead, features: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """p(s | y), (n_classes, S): class means of the source classifier's softmax."""
    total = torch.zeros(n_classes, len(source.bias))
    for rows, which in zip(torch.split(features, 1024), torch.split(labels, 1024), strict=True):
        total.index_add_(0, which, source(rows).softmax(dim=1))
    return total / torch.bincount(labels, minlength=n_classes).clamp_min(1)[:, None]
