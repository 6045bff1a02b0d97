"""What every similarity asks of its two feature matrices."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repsim.errors import DegenerateInputError

Matrix = NDArray[np.float64]

_CONSTANT = 1e-12  # spread below this share of the features' size is rounding, not variance


def paired(x: ArrayLike, y: ArrayLike, *, least: int) -> tuple[Matrix, Matrix]:
    """Both as float64 (n, d_x) and (n, d_y), row i of each describing the same image.

    Raises ValueError when they are not matrices of equally many rows, :class:`DegenerateInputError` when there are
    fewer than ``least`` rows or a value is not finite.
    """
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second):
        raise ValueError(f"need two matrices with equally many rows, not {first.shape} and {second.shape}")
    if len(first) < least:
        raise DegenerateInputError(f"needs at least {least} rows, not {len(first)}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise DegenerateInputError("features must be finite")
    return first, second


def centred(features: Matrix) -> Matrix:
    """Columns shifted to mean 0; :class:`DegenerateInputError` when all rows are equal."""
    shifted: Matrix = features - features.mean(axis=0)
    if np.linalg.norm(shifted) <= _CONSTANT * np.linalg.norm(features):
        raise DegenerateInputError("features are constant: every row is the same")
    return shifted
