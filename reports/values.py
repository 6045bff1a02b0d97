"""Numbers as the store gives them."""

from __future__ import annotations

import pandas as pd

_STORED_INFINITY = 1.7e308


def finite(value: object) -> float | None:
    """``value`` as a finite float, else None. MLflow stores an infinity as the largest double."""
    if type(value) is float:  # nearly all are, and text takes ten times as long
        return value if abs(value) < _STORED_INFINITY else None
    if value is None or value is pd.NA or isinstance(value, bool):
        return None
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if abs(number) < _STORED_INFINITY else None
