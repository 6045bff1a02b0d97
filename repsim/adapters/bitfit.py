"""BitFit: of the backbone, only the biases move, those of normalisation layers included (arXiv 2106.10199, section 3).

ViT-B/16: 102,912 of 85.8 million (0.12 %); EfficientNet-Lite0: 21,008 of 3.4 million (0.62 %). A convnet whose
convolutions have no bias keeps those of its batch norms.
"""

from __future__ import annotations

import torch
from torch import nn

from repsim.adapters.base import Adapter, Refusal, train_only
from repsim.config import AdapterConfig
from repsim.model import FineTuned


def _is_bias(name: str) -> bool:
    return name.endswith("bias")


def _refuse(backbone: nn.Module, config: AdapterConfig) -> Refusal | None:
    if any(_is_bias(name) for name, _ in backbone.named_parameters()):
        return None
    return Refusal("method", "bitfit trains biases, and this backbone has none", "a backbone with biases")


def _prepare(model: FineTuned, config: AdapterConfig, generator: torch.Generator) -> None:
    train_only(model, _is_bias)


BITFIT = Adapter(prepare=_prepare, refuse=_refuse)
