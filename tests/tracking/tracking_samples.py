"""Small spaces and records for the tests of what is written to MLflow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from mlflow.entities import Run

from repsim.config import TrialConfig
from repsim.records import METRICS, EpochResult, Objective, Stage, Status, TrialResult
from sweeps.space import Budget, Constraint, Resources, SearchSettings, Space
from sweeps.tracking import SweepWriter
from sweeps.trial import Trial, TrialRecord

Children = Callable[[str, str], dict[str, Run]]
"""Experiment and parent run to the runs under it, by trial id."""
PROVENANCE: Mapping[str, object] = {
    "git_commit": "c" * 40,
    "git_dirty": False,
    "versions": {"python": "3.11.9", "torch": "2.13.0"},
    "platform": "Linux",
    "cpu_count": 2,
    "host": "0123456789ab",
}


def space(name: str, data: tuple[str, ...] = ("phantom:ultrasound",)) -> Space:
    return Space(
        name=name,
        question="Which method keeps most?",
        data=data,
        objectives=(
            Objective(metric="val_accuracy", direction="maximize"),
            Objective(metric="val_cka", direction="maximize"),
        ),
        constraints=(Constraint(metric="val_accuracy", sense=">=", bound=0.7),),
        budget=Budget(trials=4, epochs=3),
        search=SearchSettings(),
        confirm_seeds=0,
        resources=Resources(),
        fixed={"data.image_size": 64},
        dimensions=(),
    )


def trial(
    number: int,
    method: str = "repsim",
    strength: float | None = 1.2,
    *,
    stage: Stage = Stage.SEARCH,
    seed: int = 0,
    data: str = "phantom:ultrasound",
    confirms: str | None = None,
) -> Trial:
    flat: dict[str, object] = {"method": method, "strength": strength, "optim.epochs": 3, "seed": seed, "data": data}
    return Trial(
        trial_id=f"t{number:04d}",
        number=number,
        data=data,
        stage=stage,
        params={"method": method, "strength": strength},
        config=TrialConfig.from_flat(flat),
        confirms=confirms,
    )


def epoch(number: int, accuracy: float = 0.5) -> EpochResult:
    return EpochResult(
        epoch=number,
        values={"val_accuracy": accuracy + 0.1 * number, "val_cka": 1.0 - 0.1 * number},
        train_loss=1.0 / number,
        train_penalty=0.1,
        learning_rate=1e-3,
        steps=10,
        train_seconds=1.0,
        seconds=2.0,
    )


def running(sample: Trial, epochs: int = 1, attempts: int = 1) -> TrialRecord:
    return TrialRecord(
        trial=sample,
        status=Status.RUNNING,
        attempts=attempts,
        epochs=[epoch(number) for number in range(1, epochs + 1)],
        started="2026-01-01T10:00:00+00:00",
    )


def completed(sample: Trial, accuracy: float = 0.8, **values: float) -> TrialRecord:
    every = dict.fromkeys(METRICS, 0.5) | {"val_accuracy": accuracy} | values
    facts: dict[str, object] = {"n_train": 30, "n_val": 10, "data_hash": "d" * 12, "probe_hash": "p" * 12}
    return dataclasses.replace(
        running(sample, epochs=3),
        status=Status.COMPLETED,
        result=TrialResult(chosen_epoch=3, epochs=3, values=every, facts=facts),
        feasible=True,
        ended="2026-01-01T10:00:12+00:00",
    )


def failed(sample: Trial, reason: str, status: Status = Status.FAILED) -> TrialRecord:
    return dataclasses.replace(
        running(sample), status=status, reason=reason, attempts=2, ended="2026-01-01T10:00:05+00:00"
    )


def writer(uri: str, name: str, root: Path, **options: object) -> SweepWriter:
    settings: dict[str, object] = {
        "uri": uri,
        "space": space(name),
        "sweep": f"{name}-1",
        "provenance": PROVENANCE,
        "command": f"python sweeps/launch.py --space {name}.yaml",
        "artifact_root": root,
    }
    return SweepWriter(**(settings | options))  # type: ignore[arg-type]
