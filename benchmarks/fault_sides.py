"""The two sides of faults_vs_ray.py: how each is started and resumed, and what it keeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
NAME = "faults"
EPOCH_TIMEOUT = 60
"""Seconds after which our side takes a trial for hung; Ray Tune has nothing of the kind."""
SPACE = """
name: faults
data: {images}
objectives:
  - {{metric: val_accuracy, direction: maximize}}
  - {{metric: val_cka, direction: maximize}}
budget: {{trials: {trials}, epochs: {epochs}}}
search: {{sampler: nsga2, parallel: 2, seed: 3}}
resources: {{cpus_per_worker: 1, epoch_timeout: {timeout}}}
fixed: {{data.image_size: 32, backbone: test_efficientnet, backbone.weights: random, optim.batch_size: 8}}
space:
  method: [full, linear_probe, repsim, hcs]
  strength: {{low: 0.1, high: 10, log: true, when: {{penalty: any}}}}
  optim.lr: {{low: 1.0e-4, high: 1.0e-3, log: true}}
"""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where a run lives, and what is asked of it. ``disk`` is the folder it is started in."""

    folder: Path
    disk: Path
    images: Path
    cache: Path
    trials: int
    epochs: int
    uri: str

    @property
    def database(self) -> Path:
        """MLflow's."""
        return self.disk / "mlflow.db"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What is there in the end: (key, status) of each trial in the record and of each run in MLflow."""

    record: list[tuple[str, str]]
    mlflow: list[tuple[str, str]]
    zombies: int


@dataclass(frozen=True, kw_only=True)
class Side:
    """Commands and records of one of the two. ``record`` gives (key, status) per trial, and Optuna's zombies."""

    name: str
    start: Callable[[Setting], list[str]]
    resume: Callable[[Setting], list[str]]
    record: Callable[[Setting], tuple[list[tuple[str, str]], int]]


def fixed(images: Path, epochs: int) -> dict[str, object]:
    """What is the same in all trials, as plain_ray.py has it, too."""
    return {
        "data": str(images),
        "data.image_size": 32,
        "backbone": "test_efficientnet",
        "backbone.weights": "random",
        "optim.batch_size": 8,
        "optim.epochs": epochs,
    }


def key_of(method: object, strength: object, rate: object) -> str:
    """As the witness writes it."""
    return f"{method} {'-' if strength in (None, 'null') else float(str(strength))} {float(str(rate))}"


def our_start(setting: Setting) -> list[str]:
    space = setting.folder / "faults.yaml"
    images = json.dumps(str(setting.images))
    space.write_text(SPACE.format(images=images, trials=setting.trials, epochs=setting.epochs, timeout=EPOCH_TIMEOUT))
    return [*_ours(setting), "--space", str(space), "--name", NAME]


def our_resume(setting: Setting) -> list[str]:
    return [*_ours(setting), "--resume", NAME]


def _ours(setting: Setting) -> list[str]:
    return [sys.executable, str(REPOSITORY / "sweeps" / "launch.py"), "--no-report", "--tracking-uri", setting.uri]


def our_record(setting: Setting) -> tuple[list[tuple[str, str]], int]:
    from sweeps.journal import read_history

    path = setting.disk / "runs" / NAME / "journal.jsonl"
    if not path.exists():
        return [], 0
    found = []
    for record in read_history(path).records.values():
        flat = record.trial.config.flat()
        found.append((key_of(flat["method"], flat["strength"], flat["optim.lr"]), record.status.value))
    return found, 0


def plain_start(setting: Setting) -> list[str]:
    asked = ["--images", str(setting.images), "--trials", str(setting.trials), "--epochs", str(setting.epochs)]
    return [*_plain(setting), *asked, "--tracking-uri", setting.uri]


def plain_resume(setting: Setting) -> list[str]:
    return [*plain_start(setting), "--resume"]


def _plain(setting: Setting) -> list[str]:
    return [sys.executable, str(HERE / "plain_ray.py"), "--storage", str(setting.disk / "ray")]


def plain_record(setting: Setting) -> tuple[list[tuple[str, str]], int]:
    asked = subprocess.run(
        [*_plain(setting), "--record"],
        env=environment(setting),
        cwd=setting.disk,
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode != 0:
        print(f"Ray's record cannot be read: {asked.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return [], 0
    kept = json.loads(asked.stdout.strip().splitlines()[-1])
    words = {"TERMINATED": "completed", "ERROR": "failed"}
    found = []
    for trial in kept["trials"]:
        config = trial["config"]
        key = key_of(config["method"], config.get("strength"), config["optim.lr"])
        found.append((key, words.get(trial["status"], trial["status"].lower())))
    return found, kept["optuna"].get("RUNNING", 0)


SIDES = (
    Side(name="ours", start=our_start, resume=our_resume, record=our_record),
    Side(name="Ray", start=plain_start, resume=plain_resume, record=plain_record),
)


def mlflow_runs(database: Path) -> list[tuple[str, str]]:
    """Key and status of every run of a trial; the run of a sweep has the key ``sweep``."""
    if not database.exists():
        return []
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        client = MlflowClient(f"sqlite:///{database}")
        experiments = [item.experiment_id for item in client.search_experiments()]
        runs = client.search_runs(experiments, max_results=1000)
    except MlflowException as error:
        print(f"MLflow's database cannot be read: {error}", file=sys.stderr)
        return []
    found = []
    for run in runs:
        asked = run.data.params
        whole = run.data.tags.get("kind") == "sweep" or "optim.lr" not in asked
        key = "sweep" if whole else key_of(asked["method"], asked.get("strength"), asked["optim.lr"])
        found.append((key, run.info.status))
    return found


def environment(setting: Setting) -> dict[str, str]:
    """One thread, no lower priority for Ray's workers, temporary files of its own, and the witness."""
    own = {
        "FAULT_LOG": str(setting.folder / "log"),
        "PYTHONPATH": f"{HERE / 'fault_shim'}{os.pathsep}{REPOSITORY}",
        "REPSIM_CACHE": str(setting.cache),
        "RAY_TMPDIR": str(setting.folder / "r"),
        "TMPDIR": str(setting.folder / "t"),
        "OMP_NUM_THREADS": "1",
        "RAY_worker_niceness": "0",
    }
    return os.environ | own


def kept_by(side: Side, setting: Setting) -> Kept:
    """The final record and MLflow's."""
    record, zombies = side.record(setting)
    runs = mlflow_runs(setting.database)
    zombies += sum(status == "RUNNING" for _, status in runs)
    return Kept(record=record, mlflow=[run for run in runs if run[0] != "sweep"], zombies=zombies)
