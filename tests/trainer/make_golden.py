"""Write golden_losses.json anew: ``python -m tests.trainer.make_golden`` from the repository's root.

Only after a change of computation that the changelog explains.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden_losses.json"
METHODS = ("full", "repsim", "hcs", "feature_mse")


def main() -> int:
    """Run the tiny configurations and store their losses."""
    import tempfile

    from repsim.trainer import Trainer
    from tests.trainer.stripes import tiny_config, tiny_workspace, write_images

    with tempfile.TemporaryDirectory() as folder:
        root = write_images(Path(folder) / "stripes")
        workspace = tiny_workspace(Path(folder) / "cache")
        found = {}
        for method in METHODS:
            trainer = Trainer(tiny_config(root, method=method, **{"optim.epochs": 3}), workspace=workspace)
            found[method] = [trainer.step().train_loss for _ in range(3)]
    GOLDEN.write_text(json.dumps(found, indent=2) + "\n")
    print(GOLDEN)
    return 0


if __name__ == "__main__":
    sys.exit(main())
