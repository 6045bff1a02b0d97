"""Distances between the rows of one matrix."""

from __future__ import annotations

import numpy as np

from repsim.similarity.inputs import Matrix


def squared_distances(features: Matrix) -> Matrix:
    """|x_i - x_j|^2 (n, n) of ``features`` (n, d), symmetric with a diagonal of exact zeros.

    Through the Gram matrix: centre the features first, or a common shift eats the digits. Rounded to 1e-12 of the
    largest, so that distances which are equal but for rounding are equal.
    """
    gram = features @ features.T
    norms = np.diagonal(gram)
    squared: Matrix = norms[:, None] + norms[None, :] - 2.0 * gram
    np.fill_diagonal(squared, 0.0)
    largest = squared.max()
    squared /= largest
    np.round(squared, 12, out=squared)
    squared *= largest
    return squared
