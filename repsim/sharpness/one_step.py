"""How far the loss rises in one step along the gradient (definitions: docs/methods).

Relative (the headline): L(w + e) - L(w) with e_t = ρ |w_t| g_t / |g_t| for each tensor t, so that a tensor's step is a
fraction ρ of its own norm; tensors of zero norm or zero gradient stay. Absolute: e = ρ g / |g| over all tensors at once
(the first step of SAM, arXiv 2010.01412, eq. 2).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from repsim.records import RHO_ABSOLUTE, RHO_CURVE, RHO_HEADLINE, sharpness_name
from repsim.sharpness.surface import Batches, finite_loss, surface


def sharpness(model: nn.Module, batches: Batches) -> dict[str, float]:
    """The one-step values of ``records.METRICS``, and ``train_nll``; the model's weights come back bit for bit.

    ``model`` maps images to (features, logits). Raises FloatingPointError when the loss at w is not finite; a loss at
    w + e beyond fp32 counts as the largest fp32 number.
    """
    with surface(model, batches) as around:
        loss, gradient = around.loss_and_gradient()
        finite_loss(loss)
        curve = {
            sharpness_name(rho): around.loss_at(_relative(around.weights, gradient, rho)) - loss for rho in RHO_CURVE
        }
        absolute = around.loss_at(_absolute(gradient, RHO_ABSOLUTE)) - loss
    headline = curve[sharpness_name(RHO_HEADLINE)]
    return {"sharpness": headline, **curve, "sharpness_absolute": absolute, "train_nll": loss}


def _relative(weights: Sequence[Tensor], gradient: Sequence[Tensor], rho: float) -> list[Tensor]:
    steps = []
    for weight, part in zip(weights, gradient, strict=True):
        norm = part.norm()
        steps.append(part * (rho * weight.norm() / norm) if float(norm) > 0.0 else torch.zeros_like(part))
    return steps


def _absolute(gradient: Sequence[Tensor], rho: float) -> list[Tensor]:
    norm = float(torch.stack([part.double().norm() for part in gradient]).norm())
    return [part * (rho / norm) if norm > 0.0 else torch.zeros_like(part) for part in gradient]
