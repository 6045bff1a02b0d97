"""One training among one, two and three ranks: how far apart they end.

    python benchmarks/rank_equivalence.py [--quick]

Twenty steps of a small convnet (and of a small transformer, for LoRA) on 30 images in batches of 8, 8, 8 and 6, which
no number of ranks divides evenly, on CPU processes that talk through gloo. The cases are those of tests/ranks:

- ``exact``: float64 and SGD with momentum. Largest difference between the weights of one process and of several, as a
  share of the largest weight, and of the longest way that a weight went.
- ``usual``: float32 and AdamW. Relative difference of the first gradients, and of the loss at step 20.
- ``without the factor``: ``exact`` with the classic mistake, a gradient's parts averaged that are to be added.

Goals: 1e-9 of the weights (exact), 1e-5 of the first gradients and 1e-3 of the loss (usual). The last line holds the
worst of the first.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from repsim.ranks import ALONE
from tests.ranks.cases import CASES, STEPS, Bench
from tests.ranks.processes import start_ranks
from tests.trainer.penalty_tools import weights_with_classifier
from tests.trainer.stripes import tiny_workspace, write_images

GOAL, GRADIENT_GOAL, LOSS_GOAL = 1e-9, 1e-5, 1e-3
QUICK = ("exact full", "exact repsim", "usual repsim", "without the factor")


def apart(one: Any, other: Any, unit: Any) -> float:
    """Largest difference, as a share of the largest of ``unit``."""
    return float(np.abs(one - other).max() / np.abs(unit).max())


def several(folder: Path, size: int, names: list[str]) -> dict[str, Any]:
    """What rank 0 of ``size`` answers."""
    ranks = start_ranks(folder, size, names)
    said = [rank.communicate(timeout=900)[1] for rank in ranks]
    if any(rank.returncode for rank in ranks):
        raise RuntimeError("\n".join(said))
    return {name: pickle.loads((folder / f"{size}-0-{name}.pickle").read_bytes()) for name in names}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two ranks and a few cases")
    quick: bool = parser.parse_args().quick
    compared = [name for name in CASES if name.startswith(("exact", "usual")) and name != "usual bf16"]
    names = list(QUICK) if quick else [*compared, "without the factor"]
    with tempfile.TemporaryDirectory(prefix="ranks-") as temporary:
        folder = Path(temporary)
        write_images(folder / "stripes")
        (folder / "weights").mkdir()
        for backbone in ("test_efficientnet", "test_vit"):
            weights_with_classifier(backbone, folder / "weights")
        bench = Bench(folder / "stripes", folder / "weights", tiny_workspace(folder / "cache"))
        alone = {name: CASES[name](bench, ALONE) for name in names}
        answers = {size: several(folder, size, names) for size in ((2,) if quick else (2, 3))}
    worst, ok = 0.0, True
    print(f"{'case':20}{'ranks':>6}{'of the weights':>16}{'of the way':>12}{'gradients':>12}{'loss, step 20':>15}")
    for name, one in alone.items():
        for size, all_of_them in answers.items():
            other, cells = all_of_them[name], ["", "", "", ""]
            if name.startswith("usual"):
                gradient = float(np.linalg.norm(other["gradients"] - one["gradients"]))
                gradient /= float(np.linalg.norm(one["gradients"]))
                loss = abs(other["losses"][STEPS - 1] / one["losses"][STEPS - 1] - 1.0)
                cells[2:] = [f"{gradient:.1e}", f"{loss:.1e}"]
                ok = ok and gradient <= GRADIENT_GOAL and loss <= LOSS_GOAL
            else:
                of_weights = apart(one["weights"], other["weights"], one["weights"])
                cells[:2] = [f"{of_weights:.1e}", f"{apart(one['moved'], other['moved'], one['moved']):.1e}"]
                if name.startswith("exact"):
                    worst = max(worst, of_weights)
            print(f"{name:20}{size:6}{cells[0]:>16}{cells[1]:>12}{cells[2]:>12}{cells[3]:>15}", flush=True)
    ok = ok and worst <= GOAL
    print(f"rank_equivalence: {worst:.1e} (goal {GOAL:.0e}) {'ok' if ok else 'short'}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
