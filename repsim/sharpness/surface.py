"""The loss as a function of a model's weights: where every sharpness measure takes its values from.

L is the mean loss (cross-entropy) on a fixed set of images, in eval mode. All parameters count, trained or not. A trial
hands over ``FineTuned.merged()``, whose parameters are the pretrained network's and the head's for every method alike,
so that a method that moves few of them does not look flat for that reason; branches and prompts beside them stay fixed.

Forward passes run in the weights' precision (fp32) and losses are summed in float64. At the radii in use the increases
are 1e-3 and more, the rounding of an fp32 loss averaged over some hundred images is 1e-7, and fp64 convolutions cost
ten times as much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]
"""Yields (images (b, 3, h, w), labels (b,)), the same ones each time it is called."""

LARGEST = torch.finfo(torch.float32).max
"""What a loss beyond fp32 counts as."""


class Loss(Protocol):
    """Losses of logits (b, c) and labels (b,): one per image, or their sum."""

    def __call__(self, logits: Tensor, labels: Tensor, /, *, reduction: str) -> Tensor:
        """``reduction`` is ``none`` (b,) or ``sum`` ()."""


@dataclass(frozen=True, kw_only=True)
class Surface:
    """The loss of ``batches`` around ``weights``, which are copies of the values of ``parameters``.

    Made by :func:`surface`. Steps are lists with one tensor per parameter.
    """

    model: nn.Module
    parameters: Sequence[nn.Parameter]
    weights: Sequence[Tensor]
    batches: Batches
    loss_of: Loss

    def one_batch(self, images: Tensor, labels: Tensor) -> Surface:
        """The same weights, these images alone."""
        return replace(self, batches=lambda: iter([(images, labels)]))

    def logits(self, images: Tensor) -> Tensor:
        """Logits (b, c) at the weights last set, fp32 at least."""
        logits: Tensor = self.model(images)[1]
        return logits if logits.dtype == torch.float64 else logits.float()

    def loss_and_gradient(self) -> tuple[float, list[Tensor]]:
        """L(w) and its gradient at the weights last set; the loss may be infinite or NaN there."""
        total, count = 0.0, 0
        gradient = [torch.zeros_like(parameter) for parameter in self.parameters]
        for images, labels in self.batches():
            loss = self.loss_of(self.logits(images), labels, reduction="sum")
            for sum_, part in zip(gradient, torch.autograd.grad(loss, self.parameters, allow_unused=True), strict=True):
                if part is not None:
                    sum_.add_(part)
            total += float(loss.detach())
            count += len(labels)
        return total / count, [part / count for part in gradient]

    @torch.no_grad()
    def loss_at(self, step: Sequence[Tensor]) -> float:
        """L(w + step); the loss of an image that is not finite, or beyond fp32, counts as the largest fp32 number."""
        self.move(step)
        total, count = 0.0, 0
        for losses in self._losses():
            finite = torch.nan_to_num(losses, nan=LARGEST)
            total += float(finite.clamp_max(LARGEST).sum())
            count += len(losses)
        return total / count

    @torch.no_grad()
    def loss(self) -> float:
        """L(w); FloatingPointError when it is not finite."""
        self.restore()
        losses = torch.cat(list(self._losses()))
        return finite_loss(float(losses.mean()))

    def _losses(self) -> Iterator[Tensor]:
        """Float64 losses (b,) of each batch."""
        for images, labels in self.batches():
            yield self.loss_of(self.logits(images), labels, reduction="none").double()

    @torch.no_grad()
    def move(self, step: Sequence[Tensor]) -> None:
        """Set the model to w + step."""
        for parameter, weight, part in zip(self.parameters, self.weights, step, strict=True):
            parameter.copy_(weight + part)

    @torch.no_grad()
    def restore(self) -> None:
        """Set the model to w, bit for bit."""
        for parameter, weight in zip(self.parameters, self.weights, strict=True):
            parameter.copy_(weight)

    def flat_weights(self) -> Tensor:
        """w as one vector."""
        return flat(self.weights)

    def parts(self, vector: Tensor) -> list[Tensor]:
        """A vector cut into one tensor per parameter."""
        chunks = torch.split(vector, [weight.numel() for weight in self.weights])
        return [chunk.view_as(weight) for chunk, weight in zip(chunks, self.weights, strict=True)]


@contextmanager
def surface(model: nn.Module, batches: Batches, loss: Loss = nn.functional.cross_entropy) -> Iterator[Surface]:
    """The surface of a model that maps images to (features, logits), while it is in eval mode and may be moved.

    Weights, modes and ``requires_grad`` flags come back as they were, bit for bit, whatever happens inside.
    """
    was_training = [(module, module.training) for module in model.modules()]
    parameters = list(model.parameters())
    required = [parameter.requires_grad for parameter in parameters]
    model.eval()
    for parameter in parameters:
        parameter.requires_grad_(True)
    weights = [parameter.detach().clone() for parameter in parameters]
    found = Surface(model=model, parameters=parameters, weights=weights, batches=batches, loss_of=loss)
    try:
        yield found
    finally:
        found.restore()
        for parameter, flag in zip(parameters, required, strict=True):
            parameter.requires_grad_(flag)
        for module, mode in was_training:
            module.training = mode


def finite_loss(loss: float) -> float:
    """The loss at the trained weights; FloatingPointError when it is not finite."""
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss at the trained weights is {loss}; sharpness is not defined")
    return loss


def flat(parts: Sequence[Tensor]) -> Tensor:
    """All tensors as one vector."""
    return torch.cat([part.detach().reshape(-1) for part in parts])


def norm(vector: Tensor) -> float:
    """Euclidean norm, summed in float64."""
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))


def dot(a: Tensor, b: Tensor) -> float:
    """Inner product, summed in float64."""
    return float((a * b).sum(dtype=torch.float64))


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error; ValueError for fewer than two values."""
    if len(values) < 2:
        raise ValueError(f"needs at least two draws for a standard error, not {len(values)}")
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))
