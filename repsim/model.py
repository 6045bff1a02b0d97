"""The network of a trial: a timm backbone and a head, with features and logits from one pass."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor, nn

from repsim.backbones import Backbone, freeze_batch_norm
from repsim.config import TrialConfig
from repsim.heads import build_head
from repsim.seeding import torch_generator


class Mergeable(nn.Module, ABC):
    """A layer with a learned change beside its frozen weights that can be folded into them."""

    @abstractmethod
    def merged(self) -> nn.Module:
        """The plain layer of the same function, with weights of its own."""


class FineTuned(nn.Module):
    """``backbone`` gives pooled pre-logits (b, d), ``head`` turns them into logits (b, classes)."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, head: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def features(self, images: Tensor) -> Tensor:
        """Pre-logits (b, d) of images (b, 3, h, w) on a 0-1 scale."""
        features: Tensor = self.backbone((images - self.mean) / self.std)
        return features

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (b, d) and logits (b, classes) of images (b, 3, h, w) on a 0-1 scale."""
        features = self.features(images)
        return features, self.head(features)

    def merged(self) -> Self:
        """The same function in plain layers, for comparing weights across adapters; itself if there is nothing to fold.

        Parameters that cannot be folded (prompts, parallel branches) stay parameters of their own.
        """
        if not any(isinstance(layer, Mergeable) for layer in self.modules()):
            return self
        plain = copy.deepcopy(self)
        found = [(name, layer) for name, layer in plain.named_modules() if isinstance(layer, Mergeable)]
        for name, layer in found:
            plain.set_submodule(name, layer.merged())
        return plain


def build_model(config: TrialConfig, backbone: Backbone, n_classes: int) -> FineTuned:
    """A fresh copy of the pretrained backbone with a new head, seeded by ``config.seed``."""
    module = copy.deepcopy(backbone.module)
    if config.optim.batch_norm == "frozen":
        freeze_batch_norm(module)
    head = build_head(config.head, backbone.dim, n_classes, torch_generator(config.seed, "head"))
    shape = (1, 3, 1, 1)
    return FineTuned(module, head, torch.tensor(backbone.mean).view(shape), torch.tensor(backbone.std).view(shape))
