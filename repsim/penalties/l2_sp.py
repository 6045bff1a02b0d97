"""L2-SP: the weights stay near where they started.

R = G Σ_g |w_g - w0_g|² / |w0_g|², summed over the backbone's G layers (a layer's weight and bias are one vector), w0
being the pretrained values (Li et al. 2018, arXiv 1802.01483, eq. 3; there an unnormalised sum). The head is free.
Zero, with zero gradient, at the pretrained weights; dimensionless, in [0, ∞).

Why this normalisation: a relative change ε_g of layer g changes the features by about ε_g of their size, and finetuning
moves all layers towards one goal, so their effects add: relative to its size, the feature moves by up to Σ ε_g. By
Cauchy and Schwarz (Σ ε_g)² <= G Σ ε_g² = R, so R is a first-order estimate of :mod:`repsim.penalties.feature_mse` and
λ = 1 weighs alike in both (tf_efficientnet_lite0 after 38 plain steps: 0.8 here, 1.4 there). |w - w0|²/|w0|² over all
weights together would be about G² times smaller, some 10,000 on that network, and would hold a few wide layers alone.

Parameters that an adapter adds are held where they started too. A layer that starts at zero has no size of its own: it
is measured against what variance 1/fan_in would give.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from repsim.penalties.base import Batch, Penalty, PenaltyContext, given


class L2SP(Penalty):
    """Relative squared distance of the backbone's weights from the pretrained ones, layer by layer."""

    def __init__(self, context: PenaltyContext) -> None:
        super().__init__()
        self._start = {name: weight.detach().clone() for name, weight in context.pretrained_weights.items()}
        self._scales = _scales(self._start)

    def of(self, batch: Batch) -> Tensor:
        """Scalar; the features do not matter."""
        parameters = dict(given(batch.backbone, "backbone").named_parameters())
        chosen = [parameters[name] for name in self._start]
        value: Tensor = _Distance.apply(list(self._start.values()), self._scales, *chosen)  # type: ignore[no-untyped-call]
        return value


class _Distance(torch.autograd.Function):
    """One node for all tensors: hundreds of small graphs would cost more than the arithmetic."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, start: list[Tensor], scales: list[float], *weights: Tensor
    ) -> Tensor:
        differences = [weight - before for weight, before in zip(weights, start, strict=True)]
        squares = [torch.linalg.vector_norm(d).square() * s for d, s in zip(differences, scales, strict=True)]
        ctx.save_for_backward(*differences)
        ctx.scales = scales  # type: ignore[attr-defined]
        return torch.stack(squares).sum()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        differences = ctx.saved_tensors  # type: ignore[attr-defined]
        scales = ctx.scales  # type: ignore[attr-defined]
        return (None, None, *(d * (upstream[0] * (2.0 * s)) for d, s in zip(differences, scales, strict=True)))


def _scales(start: Mapping[str, Tensor]) -> list[float]:
    """G / |w0_g|² of each tensor's layer."""
    sizes: dict[str, float] = {}
    usual: dict[str, float] = {}
    for name, weight in start.items():
        layer = name.rpartition(".")[0]
        sizes[layer] = sizes.get(layer, 0.0) + float(weight.square().sum())
        fan_in = weight[0].numel() if weight.ndim > 1 else 1
        usual[layer] = usual.get(layer, 0.0) + weight.numel() / fan_in
    layers = [name.rpartition(".")[0] for name in start]
    return [len(sizes) / (sizes[layer] if sizes[layer] > 0 else usual[layer]) for layer in layers]
