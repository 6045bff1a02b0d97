"""AdamW with a warm-up and a schedule: parameter groups, the learning rate of each step, and sharpness-aware steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from repsim.config import OptimConfig
from repsim.model import FineTuned

SAM_RHO = {"sam": 0.05, "asam": 0.5}
"""How far the worst neighbour is, unless ``optim.sam_rho`` says otherwise (arXiv 2010.01412 and 2102.11600)."""
_ASAM_ETA = 0.01


def build_optimizer(model: FineTuned, config: OptimConfig, head_lr_factor: float) -> torch.optim.AdamW:
    """AdamW over the parameters that require a gradient; no weight decay on vectors (biases, norms).

    The head learns at ``config.head_lr``, or else ``head_lr_factor`` times as fast as the backbone.
    """
    head_lr = config.lr * head_lr_factor if config.head_lr is None else config.head_lr
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


Named = Sequence[tuple[str, nn.Parameter]]


def ascent(named: Named, kind: str, rho: float) -> list[Tensor]:
    """The step from the weights to their worst neighbour, from the gradients that the parameters hold.

    ``sam`` (arXiv 2010.01412, eq. 2): e = ρ g / |g|, so |e| = ρ over all parameters together. ``asam`` (arXiv
    2102.11600): e = ρ T² g / |T g| with T = |w| + 0.01, so |T⁻¹ e| = ρ; T = 1 for biases, as in the authors' code.
    Zeros where there is no gradient.
    """
    scales = [
        parameter.detach().abs() + _ASAM_ETA if kind == "asam" and not name.endswith("bias") else None
        for name, parameter in named
    ]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for _, p in named]
    scaled = [g if scale is None else scale * g for g, scale in zip(gradients, scales, strict=True)]
    norm = torch.stack([part.norm() for part in scaled]).norm()
    factor = rho / norm if float(norm) > 0.0 else torch.zeros_like(norm)
    return [factor * (part if scale is None else scale * part) for part, scale in zip(scaled, scales, strict=True)]


@contextmanager
def at_worst_neighbour(model: nn.Module, named: Named, config: OptimConfig) -> Iterator[None]:
    """Inside, the weights stand at their worst neighbour and batch norms keep their running statistics.

    Afterwards, also after an error, the weights are what they were, bit for bit.
    """
    rho = SAM_RHO[config.sam] if config.sam_rho is None else config.sam_rho
    saved = [parameter.detach().clone() for _, parameter in named]
    tracking = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    steps = ascent(named, config.sam, rho)
    try:
        with torch.no_grad():
            for (_, parameter), step in zip(named, steps, strict=True):
                parameter.add_(step)
        for layer in tracking:
            layer.track_running_stats = not layer.training
        yield
    finally:
        for layer in tracking:
            layer.track_running_stats = True
        with torch.no_grad():
            for (_, parameter), weight in zip(named, saved, strict=True):
                parameter.copy_(weight)
