"""DELTA: feature maps stay where they were, position by position.

R = mean over layers l of |F_l - F0_l|² / |F0_l|², with F_l, F0_l (n, c, positions…) the outputs of the watched layers
of the training and the pretrained network for the same augmented images (Li et al. 2019, arXiv 1901.09229, eqs. 3 and 4
with equal channel weights). Dimensionless, in [0, ∞); zero, with zero gradient, at the pretrained weights. Normalised
for each layer, where the original sums, so that λ does not depend on size or backbone.

The attention-free variant: the original weighs channels by how much the loss rises when each is switched off, which
takes one forward pass for each filter beforehand and means nothing for a transformer's tokens. Feature maps are too
large to keep, so the pretrained network runs beside the training one at every step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from repsim.penalties.base import Batch, Penalty, energy


class Delta(Penalty):
    """Relative squared distance of feature maps, averaged over layers."""

    def of(self, batch: Batch) -> Tensor:
        """Scalar; RuntimeError when no map was given."""
        if not batch.maps:
            raise RuntimeError("this penalty was not given the feature maps it needs")
        parts = []
        for name, ours in batch.maps.items():
            theirs = batch.teacher_maps[name].float()
            parts.append((ours.float() - theirs).square().sum() / energy(theirs))
        return torch.stack(parts).mean()
