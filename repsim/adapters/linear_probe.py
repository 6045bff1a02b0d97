"""The linear probe: the backbone stays as it is, the head is a converged logistic regression (repsim/probe.py)."""

from __future__ import annotations

import torch

from repsim.adapters.base import Adapter, train_only
from repsim.config import AdapterConfig
from repsim.model import FineTuned


def _prepare(model: FineTuned, config: AdapterConfig, generator: torch.Generator) -> None:
    train_only(model, lambda name: False)


LINEAR_PROBE = Adapter(prepare=_prepare, fit="features")
