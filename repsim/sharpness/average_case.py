"""How far the loss rises under random noise in proportion to each weight: average-case sharpness.

E[L(w + e)] - L(w) with e ~ N(0, (ρ |w|)²), element by element, as in arXiv 2302.07011 (adaptive average case, ℓ2).
Where the loss is a quadratic with Hessian H this is ½ ρ² Σ H_ii w_i². Noise is drawn in antithetic pairs ±e, whose mean
is free of the first-order term: fewer draws give the same error. Weights that are 0 stay.
"""

from __future__ import annotations

import torch
from torch import nn

from repsim.seeding import torch_generator
from repsim.sharpness.surface import Batches, Loss, mean_and_error, surface


def average_case(
    model: nn.Module,
    batches: Batches,
    *,
    rho: float,
    pairs: int = 20,
    seed: int = 0,
    loss: Loss = nn.functional.cross_entropy,
) -> tuple[float, float]:
    """Mean increase (nats; may be negative) and its standard error over ``pairs`` antithetic pairs of draws.

    A function of the weights, the images and ``seed``. Raises ValueError unless rho > 0 and pairs >= 2,
    FloatingPointError when the loss at w is not finite; losses beyond fp32 count as the largest fp32 number.
    """
    if not rho > 0 or pairs < 2:
        raise ValueError(f"needs rho > 0 and pairs >= 2, not rho = {rho} and pairs = {pairs}")
    found = []
    with surface(model, batches, loss) as around:
        weights = around.flat_weights()
        base = around.loss()
        for pair in range(pairs):
            noise = torch.randn(len(weights), generator=torch_generator(seed, "average case", pair))
            step = rho * weights.abs() * noise.to(weights)
            up, down = around.loss_at(around.parts(step)), around.loss_at(around.parts(-step))
            found.append((up + down) / 2 - base)
    return mean_and_error(found)
