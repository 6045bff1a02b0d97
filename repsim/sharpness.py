"""How steep the loss is around a solution, by one step against the gradient's direction (definitions: docs/methods).

Relative (the headline): L(w + e) - L(w) with e_t = ρ |w_t| g_t / |g_t| for each tensor t, so that a tensor's step is a
fraction ρ of its own norm; tensors of zero norm or zero gradient stay. Absolute: e = ρ g / |g| over all tensors at once
(the first step of SAM, arXiv 2010.01412, eq. 2). L is the mean cross-entropy on a fixed set of training images, in eval
mode, over backbone and head for every method alike.

The forward passes run in fp32 and the losses are summed in float64: at ρ = 1e-4 the differences are 1e-3 and more, the
rounding of an fp32 loss averaged over 512 images some 1e-7, and fp64 convolutions cost ten times as much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from repsim.records import RHO_ABSOLUTE, RHO_CURVE, RHO_HEADLINE, sharpness_name

Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]
"""Yields (images (b, 3, h, w), labels (b,)), the same ones each time it is called."""


def sharpness(model: nn.Module, batches: Batches) -> dict[str, float]:
    """All sharpness values of ``records.METRICS`` and ``train_nll``; the model's weights come back bit for bit.

    ``model`` maps images to (features, logits). Raises FloatingPointError when the loss at w is not finite; a loss at
    w + e beyond fp32 counts as the largest fp32 number.
    """
    was_training, parameters = model.training, list(model.parameters())
    model.eval()
    required = [parameter.requires_grad for parameter in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
    saved = [parameter.detach().clone() for parameter in parameters]
    try:
        loss, gradient = _loss_and_gradient(model, parameters, batches)
        curve = {
            sharpness_name(rho): _loss_at(model, parameters, saved, _relative(saved, gradient, rho), batches) - loss
            for rho in RHO_CURVE
        }
        absolute = _loss_at(model, parameters, saved, _absolute(gradient, RHO_ABSOLUTE), batches) - loss
    finally:
        _set(parameters, saved)
        for parameter, flag in zip(parameters, required, strict=True):
            parameter.requires_grad_(flag)
        model.train(was_training)
    headline = curve[sharpness_name(RHO_HEADLINE)]
    return {"sharpness": headline, **curve, "sharpness_absolute": absolute, "train_nll": loss}


def _loss_and_gradient(
    model: nn.Module, parameters: Sequence[nn.Parameter], batches: Batches
) -> tuple[float, list[Tensor]]:
    total, count = 0.0, 0
    gradient = [torch.zeros_like(parameter) for parameter in parameters]
    for images, labels in batches():
        loss = nn.functional.cross_entropy(model(images)[1].float(), labels, reduction="sum")
        for sum_, part in zip(gradient, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
            if part is not None:
                sum_.add_(part)
        total += float(loss.detach())
        count += len(labels)
    mean = total / count
    if not torch.isfinite(torch.tensor(mean)):
        raise FloatingPointError(f"the loss at the trained weights is {mean}; sharpness is not defined")
    return mean, [part / count for part in gradient]


@torch.no_grad()
def _loss_at(
    model: nn.Module,
    parameters: Sequence[nn.Parameter],
    saved: Sequence[Tensor],
    step: Sequence[Tensor],
    batches: Batches,
) -> float:
    _set(parameters, [weight + part for weight, part in zip(saved, step, strict=True)])
    total, count = 0.0, 0
    for images, labels in batches():
        losses = nn.functional.cross_entropy(model(images)[1].float(), labels, reduction="none")
        finite = torch.nan_to_num(losses.double(), nan=torch.finfo(torch.float32).max)
        total += float(finite.clamp_max(torch.finfo(torch.float32).max).sum())
        count += len(labels)
    return total / count


def _relative(weights: Sequence[Tensor], gradient: Sequence[Tensor], rho: float) -> list[Tensor]:
    steps = []
    for weight, part in zip(weights, gradient, strict=True):
        norm = part.norm()
        steps.append(part * (rho * weight.norm() / norm) if float(norm) > 0.0 else torch.zeros_like(part))
    return steps


def _absolute(gradient: Sequence[Tensor], rho: float) -> list[Tensor]:
    norm = float(torch.stack([part.double().norm() for part in gradient]).norm())
    return [part * (rho / norm) if norm > 0.0 else torch.zeros_like(part) for part in gradient]


@torch.no_grad()
def _set(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
