"""Norms only: of the backbone, only scale and shift of its normalisation layers move (arXiv 2003.00152).

Running statistics are another matter: ``optim.batch_norm`` decides about them. ViT-B/16: 38,400 of 85.8 million
(0.04 %); EfficientNet-Lite0: 42,016 of 3.4 million (1.25 %).
"""

from __future__ import annotations

import torch
from torch import nn

from repsim.adapters.base import Adapter, Refusal, train_only
from repsim.config import AdapterConfig
from repsim.model import FineTuned


def norm_parameters(backbone: nn.Module) -> set[str]:
    """Names of the parameters that belong to a normalisation layer, whoever wrote it: timm has several of its own."""
    return {
        f"{layer_name}.{name}" if layer_name else name
        for layer_name, layer in backbone.named_modules()
        if "norm" in type(layer).__name__.lower()
        for name, _ in layer.named_parameters(recurse=False)
    }


def _refuse(backbone: nn.Module, config: AdapterConfig) -> Refusal | None:
    if norm_parameters(backbone):
        return None
    return Refusal(
        "method",
        "norm_only trains scale and shift of normalisation layers, and this backbone has none",
        "a backbone with affine normalisation layers",
    )


def _prepare(model: FineTuned, config: AdapterConfig, generator: torch.Generator) -> None:
    train_only(model, norm_parameters(model.backbone).__contains__)


NORM_ONLY = Adapter(prepare=_prepare, refuse=_refuse)
