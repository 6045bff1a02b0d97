"""How much of a sweep is training and measuring, and how much is everything else.

    python benchmarks/slot_utilisation.py [--quick] [--space FILE] [--keep DIR]

Runs the default sweep in a folder of its own, with an empty feature cache, and reads its journal. Useful seconds are
the steps and the evaluations that the configurations asked for (val at every epoch, test and sharpness at the end);
teacher features, loading, imports, checkpoints and waiting are not. Divided by slots x the time from the moment the
first slot turned to its first trial until the last trial ended. Goal: 0.90.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from sweeps.journal import read_history

GOAL = 0.90
REPOSITORY = Path(__file__).resolve().parent.parent


def run_sweep(folder: Path, space: str, extra: list[str]) -> None:
    """One launch, in ``folder``."""
    command = [sys.executable, str(REPOSITORY / "sweeps" / "launch.py"), "--space", space, "--name", "bench", *extra]
    environment = os.environ | {"REPSIM_CACHE": str(folder / "cache")}
    subprocess.run(command, cwd=folder, env=environment, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 trials instead of the space's own budget")
    parser.add_argument("--space", default="pareto.yaml")
    parser.add_argument("--keep", type=Path, help="run here and keep what is left behind")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if arguments.keep is None else arguments.keep
        folder.mkdir(parents=True, exist_ok=True)
        run_sweep(folder, arguments.space, ["--no-report", *(["--trials", "8"] if arguments.quick else [])])
        history = read_history(folder / "runs" / "bench" / "journal.jsonl")
    results = [record.result for record in history.records.values() if record.result is not None]
    facts = [result.facts for result in results]
    slots = {fact["slot"] for fact in facts}
    began = min(float(str(fact["began"])) for fact in facts)
    span = max(float(str(fact["finished"])) for fact in facts) - began
    training = sum(result.values["train_seconds"] for result in results)
    evaluation = sum(result.values["evaluation_seconds"] for result in results)
    overhead = sum(result.values["overhead_seconds"] for result in results) - evaluation
    inside = sum(float(str(fact["finished"])) - float(str(fact["began"])) for fact in facts)
    whole = len(slots) * span
    print(f"trials {len(results)}, slots {len(slots)}, span {span:.1f} s")
    for name, seconds in (
        ("optimiser steps", training),
        ("evaluation and sharpness", evaluation),
        ("teacher features, loading", overhead),
        ("imports, checkpoints, reports", inside - training - evaluation - overhead),
        ("slot idle", whole - inside),
    ):
        print(f"{name:30} {seconds:8.1f} s  {100 * seconds / whole:5.1f} %")
    figure = (training + evaluation) / whole
    ok = figure >= GOAL
    print(f"slot_utilisation: {figure:.3f} (goal {GOAL}) {'ok' if ok else 'short'}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
