"""Is the built-in phantom hard enough to show a trade-off, and easy enough to be learnt?

    python benchmarks/phantom_difficulty.py [--quick] [--backbone NAME ...]

Test accuracy of a linear probe and of full finetuning (the default sweep's settings: 64 px, 6 epochs, lr 3e-4) for each
packaged backbone, over 3 seeds. Goal: probe 0.70 to 0.82 and full 0.86 to 0.95, as means over the seeds.
"""

from __future__ import annotations

import argparse
import statistics
import sys

import torch

from repsim.config import TrialConfig
from repsim.trainer import train
from repsim.workspace import Workspace

BACKBONES = ("tf_efficientnet_lite0", "mobilenetv2_100")
BANDS = {"linear_probe": (0.70, 0.82), "full": (0.86, 0.95)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed instead of three")
    parser.add_argument("--backbone", nargs="+", default=list(BACKBONES), choices=BACKBONES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    workspace = Workspace()
    seeds = range(1 if arguments.quick else 3)
    inside = 0
    print(f"{'backbone':24} {'method':14} {'test accuracy':>14} {'per seed':>22} {'val':>7}  {'band':>12}")
    for backbone in arguments.backbone:
        for method, (low, high) in BANDS.items():
            results = []
            for seed in seeds:
                config = TrialConfig.from_flat(
                    {
                        "data": "phantom:ultrasound",
                        "data.image_size": 64,
                        "backbone": backbone,
                        "method": method,
                        "seed": seed,
                    }
                )
                results.append(train(config, workspace=workspace).values)
            accuracies = [values["test_accuracy"] for values in results]
            mean = statistics.fmean(accuracies)
            inside += low <= mean <= high
            listed = " ".join(f"{value:.3f}" for value in accuracies)
            val = statistics.fmean(values["val_accuracy"] for values in results)
            print(
                f"{backbone:24} {method:14} {mean:14.3f} {listed:>22} {val:7.3f}  {low:.2f} to {high:.2f}", flush=True
            )
    wanted = len(arguments.backbone) * len(BANDS)
    print(f"phantom_difficulty: {inside} of {wanted} in band (goal {wanted}) {'ok' if inside == wanted else 'short'}")
    return 0 if inside == wanted else 1


if __name__ == "__main__":
    sys.exit(main())
