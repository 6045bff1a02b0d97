"""What every similarity asks of its two feature matrices."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repsim.errors import DegenerateInputError

Matrix = NDArray[np.float64]
Floats = NDArray[np.floating]
Float = TypeVar("Float", bound=np.floating)

_CONSTANT = 1e-12  # spread below this share of the features' size is rounding, not variance
_TAME = 2.0**100  # products of four such values, summed over any realistic matrix, neither overflow nor vanish


def paired(x: ArrayLike, y: ArrayLike, *, least: int) -> tuple[Matrix, Matrix]:
    """Both as float64 (n, d_x) and (n, d_y), row i of each describing the same image.

    Features too large or too small for their fourth powers are brought near 1 by a power of two, which no measure
    here can see. Raises :class:`DegenerateInputError` when they are not matrices of equally many rows, there are fewer
    than ``least`` rows, or a value is not finite.
    """
    first, second = same_rows(x, y, least=least)
    return tamed(first.astype(np.float64, copy=False)), tamed(second.astype(np.float64, copy=False))


def same_rows(x: ArrayLike, y: ArrayLike, *, least: int) -> tuple[Floats, Floats]:
    """As :func:`paired`, in the precision (float64 for integers) and at the scale they came in."""
    first, second = _floats(x), _floats(y)
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second):
        raise DegenerateInputError(f"need two matrices with equally many rows, not {first.shape} and {second.shape}")
    if len(first) < least:
        raise DegenerateInputError(f"needs at least {least} rows, not {len(first)}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise DegenerateInputError("features must be finite")
    return first, second


def _floats(features: ArrayLike) -> Floats:
    array = np.asarray(features)
    if array.dtype in (np.float16, np.float32, np.float64):
        return array
    return array.astype(np.float64)


def tamed(features: NDArray[Float]) -> NDArray[Float]:
    """Times a power of two where fourth powers would overflow or vanish."""
    largest = max(features.max(initial=0.0), -features.min(initial=0.0))
    if largest == 0 or 1 / _TAME <= largest <= _TAME:
        return features
    exponent = int(np.frexp(largest)[1])
    half = exponent // 2  # in two steps: 2**-exponent itself may not be a double
    scaled: NDArray[Float] = np.ldexp(np.ldexp(features, -half), half - exponent)
    return scaled


def centred(features: Matrix) -> Matrix:
    """Columns shifted to mean 0; :class:`DegenerateInputError` when all rows are equal."""
    mean = features.mean(axis=0)
    shifted: Matrix = features - mean
    refuse_constant(np.square(shifted).sum(), len(features), mean)
    return shifted


def refuse_constant(spread: float, n: int, mean: Matrix) -> None:
    """:class:`DegenerateInputError` when the squared deviations of ``n`` rows from ``mean`` add up to rounding."""
    if spread <= _CONSTANT**2 * n * np.square(mean).sum():
        raise DegenerateInputError("features are constant: every row is the same")
