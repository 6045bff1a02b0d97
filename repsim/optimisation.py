"""AdamW with a warm-up and a schedule: parameter groups, and the learning rate of each step."""

from __future__ import annotations

import math

import torch
from torch import nn

from repsim.config import OptimConfig
from repsim.model import FineTuned

HEAD_LR_FACTOR = 10.0
"""A new head learns this much faster than the backbone unless ``optim.head_lr`` says otherwise."""


def build_optimizer(model: FineTuned, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over the parameters that require a gradient; no weight decay on vectors (biases, norms)."""
    head_lr = config.lr * HEAD_LR_FACTOR if config.head_lr is None else config.head_lr
    groups = []
    for module, lr in ((model.backbone, config.lr), (model.head, head_lr)):
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for decays in (True, False):
            chosen = [parameter for parameter in trained if (parameter.ndim > 1) == decays]
            if chosen:
                decay = config.weight_decay if decays else 0.0
                groups.append({"params": chosen, "lr": lr, "peak_lr": lr, "weight_decay": decay})
    return torch.optim.AdamW(groups, fused=True)


def lr_scale(step: int, n_steps: int, config: OptimConfig) -> float:
    """Factor on the peak learning rate at step 0 … n_steps - 1: linear warm-up, then cosine to 0 or constant."""
    warmup = round(config.warmup_fraction * n_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.schedule == "constant":
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, n_steps - warmup)))


def set_lr(optimizer: torch.optim.Optimizer, scale: float) -> None:
    """Set every group's learning rate to ``scale`` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * scale


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that require a gradient, in order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
