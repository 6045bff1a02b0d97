"""The highest loss within a ball around the weights, found by projected gradient ascent (worst-case m-sharpness).

Each batch of m images has a worst step of its own, and the increases are averaged: max over |u| <= ρ of
L_B(w + T u) - L_B(w). Plain: T = 1. Adaptive: T = |w|, element by element, which makes the ball shrink and grow with
the weights, so that rescaling a filter and undoing it in the next layer changes nothing (Kwon et al. 2021,
arXiv 2102.11600; Andriushchenko et al. 2023, arXiv 2302.07011).

The ascent is APGD (Croce & Hein 2020, arXiv 2003.01690, algorithm 1) in the Euclidean ball: normalised gradient steps
of length 2ρ at first, momentum 0.75, and at checkpoints that begin at 22 % of the iterations and draw closer, the step
is halved and the search returns to the best point when fewer than three quarters of the steps since the last checkpoint
went up, or when nothing has changed since. It starts at w, so that its first point is SAM's one-step perturbation and
the result is never below that one's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repsim.seeding import torch_generator
from repsim.sharpness.surface import LARGEST, Batches, Loss, Surface, finite_loss, flat, norm, surface

_MOMENTUM = 0.75
_RISING = 0.75


def worst_case(
    model: nn.Module,
    batches: Batches,
    *,
    rho: float,
    adaptive: bool = False,
    iterations: int = 20,
    loss: Loss = nn.functional.cross_entropy,
) -> float:
    """Mean over the images of their batch's worst increase (nats, >= 0) within radius ``rho``; one batch = one m.

    ``adaptive``: the radius is relative to each weight's size; weights that are 0 stay. Costs ``iterations`` + 1
    gradients. Raises ValueError unless rho > 0 and iterations >= 1, FloatingPointError when the loss at w is not
    finite; a loss within the ball beyond fp32 counts as the largest fp32 number.
    """
    if not rho > 0 or iterations < 1:
        raise ValueError(f"needs rho > 0 and iterations >= 1, not rho = {rho} and iterations = {iterations}")
    total, count = 0.0, 0
    with surface(model, batches, loss) as around:
        weights = around.flat_weights()
        scale = weights.abs() if adaptive else torch.ones_like(weights)
        for images, labels in batches():
            rise = _Ascent(around.one_batch(images, labels), scale, rho).run(iterations)
            total += rise * len(labels)
            count += len(labels)
    return total / count


def checkpoints(iterations: int) -> list[int]:
    """Iterations at which the step is reconsidered: shares 0, 0.22, 0.41, … of ``iterations``, rounded up."""
    shares = [0.0, 0.22]
    while shares[-1] < 1.0:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    # the sums of shares are rounded first: 0.7 comes out a little above itself
    return sorted({math.ceil(round(share * iterations, 6)) for share in shares[1:] if share < 1.0})


@dataclass(frozen=True)
class _Point:
    """A step u inside the ball, the loss there, and the loss's gradient in u."""

    u: Tensor
    loss: float
    gradient: Tensor


class _Ascent:
    """One batch's search. ``scale`` (T) is a vector over all weights."""

    def __init__(self, around: Surface, scale: Tensor, rho: float) -> None:
        self._around, self._scale, self._rho = around, scale, rho

    def run(self, iterations: int) -> float:
        """The best increase found."""
        start = self._at(torch.zeros_like(self._scale))
        finite_loss(start.loss)
        best = previous = here = start
        step, halved, best_before, rises, since = 2 * self._rho, False, start.loss, 0, 0
        reconsider = set(checkpoints(iterations))
        for iteration in range(1, iterations + 1):
            following = self._at(self._next(here, previous, step))
            if not math.isfinite(following.loss):
                return LARGEST - start.loss
            rises, since = rises + (following.loss > here.loss), since + 1
            previous, here = here, following
            best = max(best, here, key=lambda point: point.loss)
            if iteration in reconsider:
                stuck = not halved and best.loss == best_before
                halved = rises < _RISING * since or stuck
                if halved:
                    step, here, previous = step / 2, best, best  # the momentum of the path that was left is dropped
                best_before, rises, since = best.loss, 0, 0
        return best.loss - start.loss

    def _next(self, here: _Point, previous: _Point, step: float) -> Tensor:
        length = norm(here.gradient)
        direction = here.gradient / length if length > 0 else self._random()
        ascended = self._inside(here.u + step * direction)
        if previous is here:
            return ascended
        return self._inside(here.u + _MOMENTUM * (ascended - here.u) + (1 - _MOMENTUM) * (here.u - previous.u))

    def _random(self) -> Tensor:
        """A direction to leave a stationary point by."""
        noise = torch.randn(len(self._scale), generator=torch_generator(0, "stationary point"))
        return noise.to(self._scale) / norm(noise)

    def _inside(self, u: Tensor) -> Tensor:
        length = norm(u)
        return u * (self._rho / length) if length > self._rho else u

    def _at(self, u: Tensor) -> _Point:
        self._around.move(self._around.parts(self._scale * u))
        loss, gradient = self._around.loss_and_gradient()
        return _Point(u, loss, self._scale * flat(gradient))
