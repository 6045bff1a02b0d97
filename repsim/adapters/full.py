"""Full finetuning: every parameter of backbone and head moves. LP-FT moves the same ones, from a probed head."""

from __future__ import annotations

import torch

from repsim.adapters.base import Adapter
from repsim.config import AdapterConfig
from repsim.model import FineTuned


def _prepare(model: FineTuned, config: AdapterConfig, generator: torch.Generator) -> None:
    model.requires_grad_(True)


FULL = Adapter(prepare=_prepare)
