"""What every penalty is: a dimensionless scalar of a batch's features, and what it keeps beside the model."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Penalty(nn.Module, ABC):
    """R(Z, Z0) of finetuned features Z (n, d) and pretrained features Z0 (n, d) of the same images.

    Dimensionless: of order 1 when the features have nothing in common, whatever the backbone. Computed in fp32, also
    under autocast. A penalty that learns something of its own does so in :meth:`after_step`, without touching the
    model's optimiser, from what it remembered of the batch in :meth:`value`; it keeps what it learns in buffers, so
    that it travels with ``state_dict``.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, features: Tensor, teacher: Tensor) -> Tensor:
        """The penalty of one batch: features (n, d) with gradient, teacher (n, d) without; a scalar, fp32."""
        with torch.autocast(device_type=features.device.type, enabled=False):
            return self.value(features.float(), teacher.float())

    @abstractmethod
    def value(self, features: Tensor, teacher: Tensor) -> Tensor:
        """The formula, in fp32."""

    def after_step(self) -> None:
        """Called once after every optimiser step; the default keeps nothing."""

    def after_epoch(self) -> None:
        """Called once after every epoch, for upkeep that would be too dear at every step."""


def centred(features: Tensor) -> Tensor:
    """Columns of (n, d) with their batch mean taken off."""
    return features - features.mean(dim=0, keepdim=True)


def energy(centred_features: Tensor) -> Tensor:
    """Squared Frobenius norm, kept away from 0 so that constant features cannot divide by it."""
    return centred_features.square().sum().clamp_min(1e-12)
