"""The grid that search_table.py measures and search_vs_peers.py searches: a space, and levels for its ranges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from pathlib import Path

from repsim.catalogue import parse_method
from sweeps.space import Space, load_space

DATA = Path(__file__).resolve().parent / "data"
SPACE = DATA / "busi_search_space.yaml"
TABLE = DATA / "busi_search_table.parquet"
SEEDS = (1, 2)
"""Training seeds of every configuration: the search sees the first, fronts are scored on the second."""
LEVELS: Mapping[str, tuple[float, ...]] = {
    "strength": (0.03, 0.2, 1.0, 5.0, 30.0),
    "optim.lr": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
}
"""Values of the ranges that were measured, from low to high; evenly spaced in the logarithm, or nearly."""
DEFAULT_LR = 3e-4

Point = tuple[str, float | None, float]
"""``(method, strength, optim.lr)`` on the grid; ``strength`` is None without a penalty."""


def grid_space() -> Space:
    """The space as written in the file."""
    return load_space(str(SPACE))


def points(space: Space) -> list[Point]:
    """Every point of the grid: per method, only the keys that it has. ``linear_probe`` has no learning rate."""
    found: list[Point] = []
    for method in space.values("method"):
        parsed = parse_method(str(method))
        strengths = (None,) if parsed.penalty is None else LEVELS["strength"]
        rates = (DEFAULT_LR,) if parsed.adapter == "linear_probe" else LEVELS["optim.lr"]
        found += [(parsed.name, strength, rate) for strength, rate in product(strengths, rates)]
    return found


def params_of(point: Point) -> dict[str, object]:
    """What a search over the space would have proposed."""
    method, strength, rate = point
    return {"method": method, "strength": strength, "optim.lr": rate}


def snap(params: Mapping[str, object]) -> Point:
    """The nearest point of the grid, in the logarithm of each number."""
    method = parse_method(str(params["method"]))
    strength = None if method.penalty is None else _nearest(params["strength"], LEVELS["strength"])
    rate = params.get("optim.lr")
    if method.adapter == "linear_probe" or rate is None:
        return method.name, strength, DEFAULT_LR
    return method.name, strength, _nearest(rate, LEVELS["optim.lr"])


def _nearest(value: object, levels: tuple[float, ...]) -> float:
    if not isinstance(value, int | float) or value <= 0:
        raise ValueError(f"{value!r} is not a positive number")
    return min(levels, key=lambda level: abs(math.log(level / value)))
