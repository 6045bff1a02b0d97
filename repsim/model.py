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
        self._pretrained = frozenset(name for name, _ in backbone.named_parameters())
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
        """The same function in plain layers, for comparing weights across adapters; itself if it is that already.

        Its parameters are those of the pretrained network and of the head, whatever the adapter. What the adapter added
        and cannot be folded in (prompts, parallel branches) becomes buffers: part of the function and of the state, but
        not of the weights that are compared.
        """
        if not any(isinstance(layer, Mergeable) for layer in self.modules()) and not self._added():
            return self
        plain = copy.deepcopy(self)
        found = [(name, layer) for name, layer in plain.named_modules() if isinstance(layer, Mergeable)]
        for name, layer in found:
            plain.set_submodule(name, layer.merged())
        for name in plain._added():
            owner, _, last = name.rpartition(".")
            module, value = plain.backbone.get_submodule(owner), plain.backbone.get_parameter(name).detach()
            delattr(module, last)
            module.register_buffer(last, value)
        return plain

    def _added(self) -> list[str]:
        """Parameters of the backbone that the pretrained network has not."""
        return [name for name, _ in self.backbone.named_parameters() if name not in self._pretrained]


def build_model(config: TrialConfig, backbone: Backbone, n_classes: int) -> FineTuned:
    """A fresh copy of the pretrained backbone with a new head, seeded by ``config.seed``."""
    module = copy.deepcopy(backbone.module)
    if config.optim.batch_norm == "frozen":
        freeze_batch_norm(module)
    head = build_head(config.head, backbone.dim, n_classes, torch_generator(config.seed, "head"))
    shape = (1, 3, 1, 1)
    return FineTuned(module, head, torch.tensor(backbone.mean).view(shape), torch.tensor(backbone.std).view(shape))
