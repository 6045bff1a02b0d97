"""What a training step of each method costs, relative to plain finetuning: the teacher's features come from the cache.

    python benchmarks/step_cost.py [--quick] [--rounds N] [--only METHOD]

Interleaved: in every round each method makes one step on the same batch (tf_efficientnet_lite0, 96 px, batch 32, one
CPU thread); the ratio to ``full`` is taken round by round, and its median counts. Goals: at most 1.05 for repsim,
procrustes, hcs, feature_mse and rift, at most 1.10 for the other penalties. Shown and exempt: ``delta`` (it runs the
pretrained network too), ``lwf`` (a second classifier), RepSim's other maps, layer-wise versions, and the adapters. The
figure is the worst ratio divided by its goal. ``--only`` shows one method beside ``full``, without a figure.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from repsim.catalogue import ADAPTERS, PENALTIES
from repsim.config import TrialConfig
from repsim.errors import RequestError
from repsim.fitting import GradientFit
from repsim.trainer import Trainer
from repsim.workspace import Workspace

GOALS: Mapping[str, float] = dict.fromkeys(("repsim", "procrustes", "hcs", "feature_mse", "rift"), 1.05)
OTHER_GOAL = 1.10
EXEMPT = ("delta", "lwf")
BATCH, SIDE = 32, 96
WARM_UP = 2
Case = Mapping[str, object]


def cases() -> dict[str, Case]:
    """Label to what it asks for beside the data: every penalty on full, variants of RepSim, every adapter."""
    found: dict[str, Case] = {"full": {"method": "full"}}
    found |= {name: {"method": name} for name in PENALTIES}
    maps = ("procrustes", "cayley", "low_rank")
    found |= {f"repsim, {name}": {"method": "repsim", "penalty.map": name} for name in maps}
    layerwise = [name for name, info in PENALTIES.items() if info.layerwise and name not in EXEMPT]
    found |= {f"{name}, all layers": {"method": name, "penalty.layers": "all"} for name in layerwise}
    moving = [name for name, info in ADAPTERS.items() if info.trains_backbone and name != "full"]
    return found | {name: {"method": name} for name in moving}


def goal_of(label: str) -> float | None:
    """The largest ratio that is good enough; None where there is no goal."""
    if label not in PENALTIES or label in EXEMPT:
        return None
    return GOALS.get(label, OTHER_GOAL)


def write_images(folder: Path, n: int) -> None:
    """Noise in two classes: a step costs the same whatever the images show."""
    rng = np.random.default_rng(0)
    for index in range(n):
        target = folder / ("a" if index % 2 else "b")
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).save(target / f"{index}.png")


def fits(
    folder: Path, cache: Path, chosen: Mapping[str, Case]
) -> tuple[dict[str, tuple[Trainer, GradientFit]], dict[str, str]]:
    """A trainer per case on the same images, all that is cached ready; and why the others cannot be had."""
    workspace = Workspace(cache_dir=cache, device=torch.device("cpu"))
    common = {"data": str(folder), "data.image_size": SIDE, "optim.batch_size": BATCH, "optim.epochs": 1}
    found, refused = {}, {}
    for label, case in chosen.items():
        try:
            trainer = Trainer(TrialConfig.from_flat(common | dict(case)), workspace=workspace)
        except RequestError as error:
            refused[label] = error.mistakes[0].problem
            continue
        if not isinstance(trainer._fit, GradientFit):
            raise TypeError(f"{label} takes no steps")
        trainer._fit.prepare_epoch(1)
        found[label] = (trainer, trainer._fit)
    return found, refused


def measure(fitted: Mapping[str, tuple[Trainer, GradientFit]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each method's step in each round, after ``WARM_UP`` rounds that do not count."""
    seconds: dict[str, list[float]] = {label: [] for label in fitted}
    rows, labels = np.arange(BATCH), list(fitted)
    for number in range(rounds + WARM_UP):
        first = number % len(labels)
        for label in labels[first:] + labels[:first]:
            trainer, fit = fitted[label]
            trainer.model.train()
            started = time.perf_counter()
            fit._step(rows, fit._view(1), 1, number)
            if number >= WARM_UP:
                seconds[label].append(time.perf_counter() - started)
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 rounds instead of 40")
    parser.add_argument("--rounds", type=int, metavar="N", help="that many rounds (at least 2)")
    parser.add_argument("--only", choices=list(cases()), metavar="METHOD", help="that one beside full")
    arguments = parser.parse_args()
    if arguments.rounds is not None and arguments.rounds < 2:
        parser.error("--rounds needs at least 2")
    rounds = arguments.rounds or (10 if arguments.quick else 40)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder) / "images", 60)
        chosen = {k: v for k, v in cases().items() if arguments.only in (None, k) or k == "full"}
        fitted, refused = fits(Path(folder) / "images", Path(folder) / "cache", chosen)
        seconds = measure(fitted, rounds)
    print(f"{'method':24} {'median ms':>10} {'ratio to full: median':>22} {'quartiles':>16} {'goal':>7}")
    worst = 0.0
    for label, times in seconds.items():
        ratios = [time_ / plain for time_, plain in zip(times, seconds["full"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        goal = goal_of(label)
        shown = "" if goal is None else f"{goal:.2f}"
        print(f"{label:24} {1e3 * statistics.median(times):10.1f} {middle:22.3f} {low:8.3f} {high:7.3f} {shown:>7}")
        worst = max(worst, 0.0 if goal is None else middle / goal)
    for label, problem in refused.items():
        print(f"{label:24} not measured: {problem}")
    if arguments.only is not None:
        return 0
    missing = sorted(label for label in refused if goal_of(label) is not None)
    ok = worst <= 1.0 and not missing
    print(f"step_cost: {worst:.3f} (goal 1.000) {'ok' if ok else 'short'}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
