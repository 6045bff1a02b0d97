"""Run one trial: ``python -m repsim --config x.yaml [--out result.json]``.

Progress goes to stderr, the result to stdout or a file, so that the result alone can be piped.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from repsim.config import TrialConfig, load_config
from repsim.errors import DegenerateInputError, Mistake, NonFiniteLossError, RequestError
from repsim.records import EpochResult, TrialResult

_DESCRIPTION = """\
Finetune one model and measure it. FILE holds the trial's configuration in YAML, nested or with dotted keys; what is
left out keeps its default. search_spaces/README.md lists every key.
"""
_EPILOG = """\
example of a FILE:
  data: folder:my/images
  data.image_size: 224
  backbone: tf_efficientnet_lite0
  method: repsim
  strength: 1.0
  optim.epochs: 10

several processes as one training, each with its share of every batch:
  torchrun --standalone --nproc-per-node 4 -m repsim --config trial.yaml --out result.json

exit codes: 0 done; 1 the training broke off; 2 the request is wrong (one line per mistake, nothing was trained)
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="python -m repsim",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--config", required=True, metavar="FILE", type=Path, help="the trial's configuration, YAML")
    found.add_argument("--out", metavar="FILE", type=Path, help="write the result here (default: stdout)")
    return found


def run(config: TrialConfig) -> TrialResult | None:
    """Train and measure, saying one line per epoch on stderr; None on all ranks of a training but the first."""
    from repsim.ranks import connect_as_launched
    from repsim.trainer import Trainer
    from repsim.workspace import Workspace

    ranks, device = connect_as_launched()
    trainer = Trainer(config, workspace=Workspace(device=device), ranks=ranks)
    while not trainer.done:
        result = trainer.step()
        if ranks.rank == 0:
            print(epoch_line(result, trainer.n_epochs), file=sys.stderr, flush=True)
    found = trainer.finish()
    ranks.close()
    return found if ranks.rank == 0 else None


def epoch_line(result: EpochResult, n_epochs: int) -> str:
    """``epoch 2/6: loss 0.4012, val_accuracy 0.8300, …``."""
    losses = {"loss": result.train_loss}
    if result.train_penalty is not None:
        losses["penalty"] = result.train_penalty
    values = ", ".join(f"{name} {value:.4f}" for name, value in (losses | result.values).items())
    return f"epoch {result.epoch}/{n_epochs}: {values}"


def result_text(config: TrialConfig, result: TrialResult) -> str:
    """The result as JSON, beside the complete configuration that gave it."""
    document = {"config_id": config.config_id, "config": config.flat(), **result.to_dict()}
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def check_out(path: Path) -> None:
    """RequestError when the result could not be written there: found out before the training, not after it."""
    parent = path.absolute().parent
    problem = ""
    if path.is_dir():
        problem = "is a folder"
    elif not parent.is_dir():
        problem = f"cannot be written: there is no folder {parent}"
    elif not os.access(path if path.exists() else parent, os.W_OK):
        problem = "cannot be written"
    if problem:
        raise RequestError(
            Mistake(where="--out", key=str(path), problem=problem, allowed="a file in a folder that exists")
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        if options.out is not None:
            check_out(options.out)
        config = load_config(options.config)
        result = run(config)
    except RequestError as error:
        for mistake in error.mistakes if os.environ.get("RANK", "0") == "0" else ():  # the others say the same
            print(mistake, file=sys.stderr)
        return 2
    except (NonFiniteLossError, DegenerateInputError) as error:
        print(error, file=sys.stderr)
        return 1
    if result is None:
        return 0
    text = result_text(config, result)
    if options.out is None:
        sys.stdout.write(text)
    else:
        options.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
