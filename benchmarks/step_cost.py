"""What a penalised training step costs, relative to a plain one: the teacher's features come from the cache.

    python benchmarks/step_cost.py [--quick]

Interleaved: in every round each method makes one step on the same batch (tf_efficientnet_lite0, 96 px, batch 32, one
CPU thread); the ratio to ``full`` is taken round by round, and its median is the figure. Goal: every penalty <= 1.05.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from repsim.catalogue import PENALTIES
from repsim.config import TrialConfig
from repsim.trainer import Trainer
from repsim.workspace import Workspace

GOAL = 1.05
BATCH, SIDE = 32, 96


def write_images(folder: Path, n: int) -> None:
    """Noise in two classes: a step costs the same whatever the images show."""
    rng = np.random.default_rng(0)
    for index in range(n):
        target = folder / ("a" if index % 2 else "b")
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).save(target / f"{index}.png")


def steppers(folder: Path, cache: Path) -> dict[str, Trainer]:
    """A trainer per method on the same images, its teacher features ready."""
    workspace = Workspace(cache_dir=cache, device=torch.device("cpu"))
    trainers = {}
    for method in ("full", *PENALTIES):
        config = TrialConfig.from_flat(
            {
                "data": str(folder),
                "data.image_size": SIDE,
                "optim.batch_size": BATCH,
                "optim.epochs": 1,
                "method": method,
            }
        )
        trainers[method] = Trainer(config, workspace=workspace)
    return trainers


def measure(trainers: dict[str, Trainer], rounds: int) -> dict[str, list[float]]:
    """Seconds of each method's step in each round."""
    seconds: dict[str, list[float]] = {method: [] for method in trainers}
    rows = np.arange(BATCH)
    for number in range(rounds + 2):
        order = list(trainers)[number % len(trainers) :] + list(trainers)[: number % len(trainers)]
        for method in order:
            fit = trainers[method]._fit
            fit.prepare_epoch(1)
            trainers[method].model.train()
            started = time.perf_counter()
            fit._step(rows, fit._view(1), 1, number)  # type: ignore[attr-defined]
            if number >= 2:
                seconds[method].append(time.perf_counter() - started)
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 rounds instead of 40")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder) / "images", 60)
        trainers = steppers(Path(folder) / "images", Path(folder) / "cache")
        seconds = measure(trainers, 10 if arguments.quick else 40)
    print(f"{'method':14} {'median ms':>10} {'ratio to full: median':>22} {'quartiles':>16}")
    worst = 0.0
    for method, times in seconds.items():
        ratios = [time_ / plain for time_, plain in zip(times, seconds["full"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{method:14} {1e3 * statistics.median(times):10.1f} {middle:22.3f} {low:8.3f} {high:7.3f}")
        worst = max(worst, middle)
    ok = worst <= GOAL
    print(f"step_cost: {worst:.3f} (goal {GOAL}) {'ok' if ok else 'short'}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
