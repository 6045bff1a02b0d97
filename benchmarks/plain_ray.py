"""The same sweep as a careful person writes it today from the documentation of Ray Tune, Optuna and MLflow.

    python benchmarks/plain_ray.py --images DIR --storage DIR --trials 4 --epochs 6 [--tracking-uri URI] [--resume]
    python benchmarks/plain_ray.py --storage DIR --record

A function trainable that reports a checkpoint at every epoch, OptunaSearch with two objectives, MLflowLoggerCallback,
FailureConfig(max_failures=2). ``--resume`` is Tuner.restore, which goes on with unfinished trials, and with errored
ones from their last checkpoints. Ray's experiment state is saved every second (TUNE_GLOBAL_CHECKPOINT_S), which suits
trials of a few seconds better than Ray's own choice of at least ten. ``--record`` prints what Ray and Optuna have kept,
as JSON.

It is the other side of faults_vs_ray.py. The space is the same as there, and so are the two first trials.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1")

import optuna
import ray
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.search.optuna import OptunaSearch

NAME = "plain"
METRICS, MODES = ["val_accuracy", "val_cka"], ["max", "max"]
FIRST = [{"method": "linear_probe", "optim.lr": 3e-4}, {"method": "full", "optim.lr": 3e-4}]


def space(trial: Any) -> None:
    """Which method, how strong, how fast; a module-level function, because Ray pickles it."""
    method = trial.suggest_categorical("method", ["full", "linear_probe", "repsim", "hcs"])
    if method in ("repsim", "hcs"):
        trial.suggest_float("strength", 0.1, 10.0, log=True)
    trial.suggest_float("optim.lr", 1e-4, 1e-3, log=True)


def finetune(config: Mapping[str, Any], fixed: Mapping[str, Any], cache: str) -> None:
    """One trial: an epoch, a report, a checkpoint, until done."""
    import torch

    from repsim.config import TrialConfig
    from repsim.trainer import Trainer
    from repsim.workspace import Workspace

    torch.set_num_threads(1)
    trainer = Trainer(TrialConfig.from_flat({**fixed, **config}), workspace=Workspace(cache_dir=Path(cache)))
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            trainer.load_state_dict(torch.load(Path(folder) / "state.pt", weights_only=True))
    while not trainer.done:
        values = trainer.step().values
        if trainer.done:
            values = trainer.finish().values
        with tempfile.TemporaryDirectory() as folder:
            torch.save(trainer.state_dict(), Path(folder) / "state.pt")
            tune.report(dict(values), checkpoint=tune.Checkpoint.from_directory(folder))


def new_search() -> OptunaSearch:
    """NSGA-II on both objectives; metric and mode stand here and not in TuneConfig."""
    sampler = optuna.samplers.NSGAIISampler(seed=11)
    return OptunaSearch(space, metric=METRICS, mode=MODES, points_to_evaluate=FIRST, sampler=sampler)


def tuner(arguments: argparse.Namespace) -> tune.Tuner:
    """A new experiment, or the one that was interrupted."""
    fixed = {
        "data": str(arguments.images),
        "data.image_size": 32,
        "backbone": "test_efficientnet",
        "backbone.weights": "random",
        "optim.batch_size": 8,
        "optim.epochs": arguments.epochs,
    }
    parameters = tune.with_parameters(finetune, fixed=fixed, cache=os.environ["REPSIM_CACHE"])
    trainable = tune.with_resources(parameters, {"cpu": 1})
    folder = str(arguments.storage / NAME)
    if arguments.resume and tune.Tuner.can_restore(folder):
        return tune.Tuner.restore(folder, trainable, resume_unfinished=True, resume_errored=True)
    mlflow = MLflowLoggerCallback(tracking_uri=arguments.tracking_uri, experiment_name=NAME)
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(search_alg=new_search(), num_samples=arguments.trials, max_concurrent_trials=2),
        run_config=tune.RunConfig(
            name=NAME,
            storage_path=str(arguments.storage),
            callbacks=[mlflow],
            failure_config=tune.FailureConfig(max_failures=2),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            verbose=1,
        ),
    )


def record(storage: Path) -> dict[str, object]:
    """Trials (``config``, ``status``) in Ray's last saved state, and Optuna's trials by state in the searcher's."""
    folder = storage / NAME
    if not tune.Tuner.can_restore(str(folder)):
        return {"trials": [], "optuna": {}}
    analysis = tune.ExperimentAnalysis(str(folder))
    trials = [{"config": trial.config, "status": trial.status} for trial in analysis.trials or []]
    states: Counter[str] = Counter()
    saved = sorted(folder.glob("searcher-state-*.pkl"), key=lambda path: path.stat().st_mtime)
    if saved:
        search = new_search()
        search.restore(str(saved[-1]))
        states.update(trial.state.name for trial in search._ot_study.get_trials(deepcopy=False))
    return {"trials": trials, "optuna": dict(states)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--storage", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--tracking-uri", default="sqlite:///mlflow.db")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    if arguments.record:
        print(json.dumps(record(arguments.storage)))
        return 0
    ray.init(address="local", num_cpus=2, include_dashboard=False)
    results = tuner(arguments).fit()
    return 1 if results.errors else 0


if __name__ == "__main__":
    sys.exit(main())
