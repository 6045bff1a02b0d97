"""Learning curves without training: accuracy rises and saturates, CKA falls from 1, the last epoch is the result.

The shapes are those of real sweeps: most of the similarity is lost in the first epochs; a penalty gives some of it back
once the learning rate falls; early accuracy is noisy; a low learning rate looks similar because it has not moved yet.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Values = dict[str, float]
PROBE: Values = {"val_accuracy": 0.79, "val_cka": 1.0}
"""What a linear probe has, whatever the epoch."""
NOISE = 0.015
"""A seed changes accuracy by up to this much either way."""


@dataclass(frozen=True)
class Setting:
    """What a trial is trained with; ``skill`` (in accuracy) and ``keep`` (0 to 1) belong to its method and backbone."""

    strength: float
    lr: float
    skill: float = 0.0
    keep: float = 1.0
    seed: int = 0


def curve(setting: Setting, epochs: int = 12) -> list[Values]:
    """The values after epochs 1 to ``epochs``, each within [0, 1]."""
    rng = random.Random(repr(setting))
    pull = setting.keep * setting.strength / (1 + setting.strength)
    speed = 0.5 * (setting.lr / 3e-4) ** 0.6
    missed = 0.02 * max(0.0, abs(math.log10(setting.lr / 4e-4)) - 0.2) ** 2
    best = 0.91 + setting.skill - 0.11 * pull**3 - missed + rng.uniform(-NOISE, NOISE)
    kept = 0.3 + 0.68 * pull - 0.1 * math.log10(setting.lr / 3e-4) * (1 - pull) + rng.uniform(-NOISE, NOISE)
    found = []
    for epoch in range(1, epochs + 1):
        rough = 1 + 3 * math.exp(-epoch / 2)
        accuracy = best - 0.25 * math.exp(-speed * epoch) + rng.gauss(0.0, NOISE / 3) * rough
        not_yet = (0.98 - kept) * math.exp(-3 * speed * epoch)
        lost = 0.12 * pull * (setting.lr / 1e-3) * math.exp(-epoch / 4)
        cka = kept + not_yet - lost + rng.gauss(0.0, NOISE / 4)
        found.append({"val_accuracy": min(1.0, max(0.0, accuracy)), "val_cka": min(1.0, max(0.0, cka))})
    return found


def settings(number: int, seed: int) -> list[Setting]:
    """Random settings of three methods, strengths and learning rates spread evenly in the logarithm."""
    rng = random.Random(seed)
    methods = ((0.0, 1.0), (-0.012, 0.85), (-0.02, 0.95))
    found = []
    for number_of in range(number):
        skill, keep = methods[rng.randrange(len(methods))]
        strength, lr = 10 ** rng.uniform(-1.5, 1.5), 10 ** rng.uniform(math.log10(3e-5), -3)
        found.append(Setting(strength, lr, skill, keep, seed=1000 * seed + number_of))
    return found


def replay(
    curves: Sequence[Sequence[Mapping[str, float]]],
    report: Callable[[str, int, Mapping[str, float]], bool],
    parallel: int = 4,
) -> Iterator[tuple[str, int]]:
    """Train the curves, ``parallel`` at a time and each epoch equally long; yields each trial's last epoch."""
    waiting = [(0.0, number, 1) for number in range(min(parallel, len(curves)))]
    following = len(waiting)
    while waiting:
        now, number, epoch = heapq.heappop(waiting)
        name = f"t{number:04d}"
        goes_on = report(name, epoch, curves[number][epoch - 1])
        if goes_on and epoch < len(curves[number]):
            heapq.heappush(waiting, (now + 1.0, number, epoch + 1))
            continue
        yield name, epoch
        if following < len(curves):
            heapq.heappush(waiting, (now + 1.0, following, 1))
            following += 1
