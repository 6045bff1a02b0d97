"""A made-up table for trying the comparison out: curves of the usual shape, without any training.

Accuracy rises from the linear probe's, faster and further at larger learning rates until these spoil it; similarity
falls from 1, less so under a strong penalty or where little moves. Seeds differ by noise. Not evidence of anything.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from search_grid import SEEDS, Point, points
from search_replay import Curve, Table

from repsim.catalogue import parse_method
from repsim.records import EPOCH_METRICS
from sweeps.space import Space

PROBE_ACCURACY = 0.60
_MOVES = {"full": 1.0, "partial": 0.4, "lora": 0.5, "norm_only": 0.3, "bitfit": 0.25}
_BEST_LR = {"full": 3e-4, "partial": 1e-3, "lora": 2e-3, "norm_only": 3e-3, "bitfit": 3e-3}


def synthetic(space: Space) -> Table:
    """The whole grid; the same every time."""
    runs = ((point, seed) for point in points(space) for seed in SEEDS)
    return Table(space, {run: _curve(*run, space.budget.epochs) for run in runs})


def _curve(point: Point, seed: int, epochs: int) -> Curve:
    method, strength, rate = point
    parsed = parse_method(method)
    digest = hashlib.sha256(repr((point, seed)).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    if parsed.adapter == "linear_probe":
        return Curve(epochs=[_values(PROBE_ACCURACY + rng.normal(0, 0.005), 1.0)], seconds=[1.0])
    moves, off = _MOVES[parsed.adapter], math.log10(rate / _BEST_LR[parsed.adapter])
    held = 0.0 if strength is None else strength / (1 + strength)
    taste = int.from_bytes(hashlib.sha256(method.encode()).digest()[:2], "little") / 65536
    gain = 0.22 * moves**0.5 * math.exp(-(off**2)) * (1 - 0.35 * held * (0.5 + taste)) - 0.1 * max(0.0, off)
    fall = min(0.95, moves * 0.6 * (rate / _BEST_LR[parsed.adapter]) ** 0.5) * (1 - held * (0.6 + 0.4 * taste))
    pace = 3.0 / max(0.3, 1 + off)
    luck = rng.normal(0, 0.012)
    found = []
    for epoch in range(1, epochs + 1):
        learnt = 1 - math.exp(-epoch / pace)
        accuracy = PROBE_ACCURACY - 0.1 * math.exp(-epoch / 1.5) + gain * learnt + luck + rng.normal(0, 0.008)
        found.append(_values(accuracy, 1 - fall * (1 - math.exp(-1.5 * epoch / pace))))
    return Curve(epochs=found, seconds=[1.0] * epochs)


def _values(accuracy: float, cka: float) -> dict[str, float]:
    known = {"val_accuracy": min(max(accuracy, 0.0), 1.0), "val_cka": min(max(cka, 0.0), 1.0)}
    return dict.fromkeys(EPOCH_METRICS, 0.0) | known
