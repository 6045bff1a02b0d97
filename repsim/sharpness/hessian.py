"""Curvature of the loss at the weights: the Hessian's largest eigenvalue and its trace, from products with vectors.

A product H v is the gradient of <gradient, v> (Pearlmutter 1994): double backward, in the weights' precision. fp32 is
enough: on small and mobile networks it moves the eigenvalue and the trace by 1e-6 to 4e-5 of their value, far below the
tolerance of the one and the sampling error of the other, while fp64 convolutions cost ten times as much. Inner products
are summed in float64. Attention runs in its plain form meanwhile: the fused kernels have no second derivative.

Both depend on the scale of the weights (no invariance under rescaling a filter), unlike the relative measures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from repsim.seeding import torch_generator
from repsim.sharpness.surface import Batches, Loss, Surface, dot, flat, mean_and_error, norm, surface

_NOT_FINITE = "the curvature at the trained weights is not finite"


@dataclass(frozen=True)
class Eigenvalue:
    """``value``; the Hessian has an eigenvalue within ``error`` of it, found in ``iterations`` products."""

    value: float
    error: float
    iterations: int


def hessian_top(
    model: nn.Module,
    batches: Batches,
    *,
    iterations: int = 20,
    tolerance: float = 0.01,
    seed: int = 0,
    loss: Loss = nn.functional.cross_entropy,
) -> Eigenvalue:
    """The largest (not the largest in size) eigenvalue of the Hessian of the mean loss, by Lanczos iteration.

    Stops when the error bound is below ``tolerance`` times the value. The bound is that of the Ritz value, |beta s|; it
    ensures that an eigenvalue is near, and a random start makes it the largest with near certainty. The recurrence
    keeps two vectors and does not reorthogonalise: that repeats converged eigenvalues and leaves the largest as it is.
    Raises ValueError unless iterations >= 1, FloatingPointError when a loss or product is not finite.
    """
    if iterations < 1:
        raise ValueError(f"needs iterations >= 1, not {iterations}")
    with _curvature(model, batches, loss) as around:
        weights = around.flat_weights()
        start = torch.randn(len(weights), generator=torch_generator(seed, "hessian top")).to(weights)
        before, here = torch.zeros_like(start), start / norm(start)
        alphas: list[float] = []
        betas: list[float] = []
        found = Eigenvalue(0.0, 0.0, 0)
        for iteration in range(1, iterations + 1):
            following = _product(around, here)
            if betas:
                following -= betas[-1] * before
            alphas.append(dot(following, here))
            following -= alphas[-1] * here
            beta = norm(following)
            found = _largest_ritz_value(alphas, betas, beta, iteration)
            if found.error <= tolerance * abs(found.value):
                break
            betas.append(beta)
            before, here = here, following / beta
    return found


def hessian_trace(
    model: nn.Module,
    batches: Batches,
    *,
    draws: int = 10,
    seed: int = 0,
    loss: Loss = nn.functional.cross_entropy,
) -> tuple[float, float]:
    """The trace of the Hessian of the mean loss and its standard error: Hutchinson's estimate over ``draws``.

    The vectors are of random signs, for which the diagonal is exact and only off-diagonal entries add noise. Raises
    ValueError unless draws >= 2, FloatingPointError when a loss or product is not finite.
    """
    if draws < 2:
        raise ValueError(f"needs draws >= 2, not {draws}")
    quadratic_forms, count = [0.0] * draws, 0
    with _curvature(model, batches, loss) as around:
        weights = around.flat_weights()
        for images, labels in batches():
            # one graph for all draws of a batch; the signs are made again, which is cheaper than keeping them
            gradient = _gradient_with_graph(around, images, labels)
            for draw in range(draws):
                generator = torch_generator(seed, "hessian trace", draw)
                signs = 2 * torch.randint(0, 2, (len(weights),), generator=generator).to(weights) - 1
                quadratic_forms[draw] += dot(_product_of(around, gradient, around.parts(signs)), signs)
            count += len(labels)
    if not np.isfinite(quadratic_forms).all():
        raise FloatingPointError(_NOT_FINITE)
    return mean_and_error([form / count for form in quadratic_forms])


@contextmanager
def _curvature(model: nn.Module, batches: Batches, loss: Loss) -> Iterator[Surface]:
    with surface(model, batches, loss) as around, sdpa_kernel(SDPBackend.MATH):
        around.loss()
        yield around


def _product(around: Surface, vector: Tensor) -> Tensor:
    """H v for the mean loss over all batches."""
    total, count = torch.zeros_like(vector), 0
    for images, labels in around.batches():
        gradient = _gradient_with_graph(around, images, labels)
        total += _product_of(around, gradient, around.parts(vector))
        count += len(labels)
    if not bool(torch.isfinite(total).all()):
        raise FloatingPointError(_NOT_FINITE)
    return total / count


def _gradient_with_graph(around: Surface, images: Tensor, labels: Tensor) -> list[Tensor | None]:
    """Of the summed loss; None where a parameter does not matter."""
    loss = around.loss_of(around.logits(images), labels, reduction="sum")
    return list(torch.autograd.grad(loss, around.parameters, create_graph=True, allow_unused=True))


def _product_of(around: Surface, gradient: Sequence[Tensor | None], vector: Sequence[Tensor]) -> Tensor:
    """The part of a batch: derivative of <gradient, vector>; the graph is kept."""
    pairs = [(g, v) for g, v in zip(gradient, vector, strict=True) if g is not None and g.requires_grad]
    if not pairs:
        return torch.zeros_like(flat(around.weights))
    outputs, directions = zip(*pairs, strict=True)
    found = torch.autograd.grad(outputs, around.parameters, directions, retain_graph=True, allow_unused=True)
    return flat([torch.zeros_like(w) if part is None else part for part, w in zip(found, around.weights, strict=True)])


def _largest_ritz_value(alphas: list[float], betas: list[float], beta: float, iteration: int) -> Eigenvalue:
    last = len(alphas) - 1
    values, vectors = eigh_tridiagonal(np.array(alphas), np.array(betas), select="i", select_range=(last, last))
    return Eigenvalue(value=float(values[0]), error=abs(beta * float(vectors[-1, 0])), iterations=iteration)
