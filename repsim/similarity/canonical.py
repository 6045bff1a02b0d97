"""What the measures built on canonical correlations share."""

from __future__ import annotations

import numpy as np

from repsim.similarity.inputs import Matrix

RANK = 1e-10
"""Directions whose singular value is below this share of the largest are rounding."""


def principal(shifted: Matrix, least: float) -> tuple[Matrix, Matrix]:
    """Left singular vectors (n, r) and values (r,) of centred features, without those below ``least`` x the largest."""
    directions, lengths, _ = np.linalg.svd(shifted, full_matrices=False)
    kept = lengths > least * lengths[0]
    return directions[:, kept], lengths[kept]


def leading(shifted: Matrix, variance: float) -> Matrix:
    """The fewest principal directions (n, r) of centred features that hold ``variance`` (0-1) of their variance."""
    directions, lengths = principal(shifted, RANK)
    held = np.cumsum(np.square(lengths))
    count = int(np.searchsorted(held, variance * held[-1] * (1.0 - RANK))) + 1
    return directions[:, :count]
