"""One rank: ``python -m tests.ranks.worker RANK SIZE PORT FOLDER [CASE…]`` leaves each case's answer in FOLDER."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import torch

from repsim.ranks import connect
from tests.ranks.cases import CASES, Bench
from tests.trainer.stripes import tiny_workspace


def main() -> int:
    """Every case in turn; "die" ends rank 1 in the middle of one."""
    rank, size, port = (int(text) for text in sys.argv[1:4])
    folder, names = Path(sys.argv[4]), sys.argv[5:]
    bench = Bench(folder / "stripes", folder / "weights", tiny_workspace(folder / f"cache{rank}"))
    ranks = connect(rank, size, "127.0.0.1", port, device=torch.device("cpu"), timeout=120.0)
    for name in names:
        if name == "die":
            return die(bench, rank, ranks, folder)
        answer = CASES[name](bench, ranks)
        (folder / f"{size}-{rank}-{name}.pickle").write_bytes(pickle.dumps(answer))
    ranks.close()
    return 0


def die(bench: Bench, rank: int, ranks: object, folder: Path) -> int:
    """Rank 1 is gone after the first step; the others say how they learned of it."""
    from repsim.fitting import GradientFit
    from repsim.ranks import RankLost, Ranks
    from repsim.trainer import Trainer

    assert isinstance(ranks, Ranks)
    trainer = Trainer(bench.config("repsim"), workspace=bench.workspace, ranks=ranks)
    assert isinstance(trainer._fit, GradientFit)
    if rank == 1:
        trainer._fit._optimizer.step = lambda: os._exit(9)  # type: ignore[method-assign, assignment]
    try:
        trainer.step()
    except RankLost as lost:
        (folder / f"lost-{rank}").write_text(str(lost))
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
