"""Distances within a batch, in units that no rotation, scale or offset of the features changes."""

from __future__ import annotations

import torch
from torch import Tensor

from repsim.penalties.base import centred

_FLOOR = 1e-8
_SMALLEST_SPREAD = 1e-4


def relative_distances(features: Tensor) -> Tensor:
    """Euclidean distances between the rows of (n, d), divided by their mean: (n, n), zero on the diagonal.

    Squared distances below 1e-8 of the mean are raised to that and carry no gradient, as a root's would be infinite.
    """
    rows = centred(features)
    squares = rows.square().sum(dim=1)
    squared = squares[:, None] + squares[None, :] - 2.0 * (rows @ rows.T)
    floor = _FLOOR * float(squared.detach().mean().clamp_min(1e-12))
    apart = 1.0 - torch.eye(len(features), dtype=features.dtype, device=features.device)
    distances = squared.clamp_min(floor).sqrt() * apart
    return distances / mean_of_pairs(distances)


def mean_of_pairs(values: Tensor) -> Tensor:
    """Mean over the pairs of different rows of an (n, n) matrix whose diagonal is zero."""
    n = len(values)
    return values.sum() / (n * (n - 1))


def spread(relative: Tensor) -> Tensor:
    """Standard deviation of relative distances over pairs: what a difference of distances is measured against.

    In many dimensions all distances are nearly equal, so differences are small in units of the mean for reasons that
    have nothing to do with similarity.
    """
    deviation = (mean_of_pairs(relative.square()) - mean_of_pairs(relative).square()).clamp_min(0.0).sqrt()
    return deviation.clamp_min(_SMALLEST_SPREAD)
