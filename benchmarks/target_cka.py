"""Does a trial arrive at the similarity it is asked for? Mean val_cka against the target, over seeds, on your images.

    python benchmarks/target_cka.py --data SOURCE... [--methods repsim hcs] [--targets 0.7 0.9] [--quick]

Every seed is a split and a training of its own (tf_efficientnet_lite0, 64 px, one CPU thread). λ is steered by training
images alone. Prints, per data set, method and target: mean val_cka ± SEM over the seeds, n_probe (images val_cka is
measured on), outcomes, last λ, test accuracy, and control's share of the training time. A seed whose outcome is not
``reached`` is printed with its reason. The last line holds the largest |mean val_cka - target|; a case in which every
seed is ``not binding`` is left out of it, for then there is nothing to hold. Goal: 0.03. ``--out FILE`` appends a JSON
line per run and skips those already there; ``--quick`` is one seed and two epochs, to see it work.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import torch

from repsim.config import TrialConfig
from repsim.trainer import Trainer
from repsim.workspace import Workspace

GOAL = 0.03
ENOUGH = 200
Row = Mapping[str, object]


def run(job: Mapping[str, object], workspace: Workspace) -> dict[str, object]:
    """Train one configuration and keep what the table needs; without sharpness, which would cost more than training."""
    started = time.process_time()
    trainer = Trainer(TrialConfig.from_flat(job), workspace=workspace)
    while not trainer.done:
        trainer.step()
    control = trainer._fit._control.seconds  # type: ignore[attr-defined]
    facts = trainer._facts() | trainer._fit.facts()
    test = trainer._measure("test", trainer._outputs("test"))
    kept = ("target_outcome", "target_reason", "strength_final", "control_cka", "n_control", "n_probe")
    return {
        "job": dict(job),
        "val_cka": trainer.epochs[-1].values["val_cka"],
        "test_cka": test["test_cka"],
        "test_accuracy": test["test_accuracy"],
        "control_share": control / sum(epoch.train_seconds for epoch in trainer.epochs),
        "cpu_seconds": time.process_time() - started,
        **{name: facts[name] for name in kept},
    }


def jobs(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """One flat configuration per data set, method, target and seed."""
    return [
        {
            "data": source,
            "data.image_size": arguments.image_size,
            "data.split_seed": seed,
            "data.views": arguments.epochs,
            "seed": seed,
            "optim.epochs": arguments.epochs,
            "method": method,
            "strength.target_cka": target,
        }
        for source, seed, method, target in product(
            arguments.data, range(arguments.seeds), arguments.methods, arguments.targets
        )
    ]


def mean(rows: Sequence[Row], name: str) -> float:
    """Over the seeds."""
    return statistics.fmean(float(str(row[name])) for row in rows)


def report(case: tuple[str, str, float], rows: Sequence[Row]) -> float | None:
    """Print one case; |mean val_cka - target|, or None where every seed says that the target does not bind."""
    source, method, target = case
    ckas = [float(str(row["val_cka"])) for row in rows]
    sem = f"{statistics.stdev(ckas) / len(ckas) ** 0.5:.3f}" if len(ckas) > 1 else "-"
    outcomes = [str(row["target_outcome"]) for row in rows]
    said = ", ".join(f"{outcomes.count(one)} {one}" for one in dict.fromkeys(outcomes))
    strengths = " ".join(f"{float(str(row['strength_final'])):.2g}" for row in rows)
    print(
        f"{Path(source).name} {method} {target:g}: val_cka {mean(rows, 'val_cka'):.3f} ± {sem} "
        f"(control {mean(rows, 'control_cka'):.3f}, test {mean(rows, 'test_cka'):.3f}), "
        f"n_probe {rows[0]['n_probe']}, {said}, λ {strengths}, test accuracy {mean(rows, 'test_accuracy'):.3f}, "
        f"control {100 * mean(rows, 'control_share'):.0f} % of training ({rows[0]['n_control']} images)"
    )
    for row in rows:
        if row["target_outcome"] != "reached":
            print(f"  seed {row['job']['seed']}: {row['target_outcome']}: {row['target_reason']}")  # type: ignore[index]
    if int(str(rows[0]["n_probe"])) < ENOUGH:
        print(f"  fewer than {ENOUGH} images measure val_cka: its own scatter is of the order of the goal")
    return None if set(outcomes) == {"not binding"} else abs(mean(rows, "val_cka") - target)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, metavar="SOURCE")
    parser.add_argument("--methods", nargs="+", default=["repsim", "hcs"])
    parser.add_argument("--targets", nargs="+", type=float, default=[0.7, 0.9])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--out", type=Path, help="JSON lines, to go on from")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.epochs = 1, 2
    torch.set_num_threads(1)
    workspace = Workspace(device=torch.device("cpu"))
    known: list[dict[str, object]] = []
    if arguments.out is not None and arguments.out.exists():
        known = [json.loads(line) for line in arguments.out.read_text().splitlines()]
    cases: dict[tuple[str, str, float], list[Row]] = {}
    for job in jobs(arguments):
        row = next((row for row in known if row["job"] == job), None)
        if row is None:
            row = run(job, workspace)
            if arguments.out is not None:
                with arguments.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        cases.setdefault((str(job["data"]), str(job["method"]), float(str(job["strength.target_cka"]))), []).append(row)
    misses = [miss for case, rows in cases.items() if (miss := report(case, rows)) is not None]
    worst = max(misses, default=0.0)
    print(f"target_cka: {worst:.3f} |mean val_cka − target| (goal {GOAL}) {'ok' if worst <= GOAL else 'short'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
