"""Synthetic sweeps in a real MLflow store, written as the sweep's own writer lays them out."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from repsim.config import TrialConfig
from repsim.records import KIND_SWEEP, KIND_TRIAL, Tag

HOSTILE = "<script>alert(1)</script>'\"&"
ACCURACY_AND_CKA = (
    {"metric": "val_accuracy", "direction": "maximize"},
    {"metric": "val_cka", "direction": "maximize"},
)
FACTS: dict[str, object] = {
    "n_train": 360, "n_val": 120, "n_test": 120, "n_probe": 120, "n_classes": 3, "largest_class_fraction": 0.4,
    "smallest_class_fraction": 0.3, "data_hash": "d4", "probe_hash": "9a", "weights_id": "w1",
    "pretraining": "supervised", "skipped_images": [], "duplicates_across_splits": [], "threads": 3,
}  # fmt: skip


@dataclass
class FakeTrial:
    """One child run."""

    trial_id: str
    config: TrialConfig
    metrics: Mapping[str, float] = field(default_factory=dict)
    status: str = "completed"
    stage: str = "search"
    reason: str = ""
    feasible: bool | None = True
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=lambda: dict(FACTS))
    ended: str | None = "2026-11-20T07:10:00+00:00"


def written(value: object) -> str:
    """A parameter as the sweep's writer spells it."""
    if value is None:
        return "null"
    return value if isinstance(value, str) else json.dumps(value)


def record(
    client: MlflowClient,
    name: str,
    trials: Sequence[FakeTrial],
    *,
    objectives: Sequence[Mapping[str, str]] = ACCURACY_AND_CKA,
    tags: Mapping[str, str] | None = None,
    ended: bool = True,
) -> str:
    """Write one sweep; returns the parent's run id."""
    experiment = client.create_experiment(f"space of {name}"[:80])
    parent = client.create_run(
        experiment,
        run_name=name,
        tags={
            Tag.KIND: KIND_SWEEP,
            Tag.SWEEP: name,
            Tag.QUESTION: "Which method keeps most of the representation per point of accuracy?",
            Tag.OBJECTIVES: json.dumps(list(objectives)),
            Tag.CONSTRAINTS: "[]",
            Tag.REFERENCE: json.dumps({}),
            Tag.COMMAND: f"python sweeps/launch.py --space pareto.yaml --name {name}",
            Tag.GIT_COMMIT: "0123456789abcdef",
            Tag.GIT_DIRTY: "false",
            Tag.VERSIONS: json.dumps({"torch": "2.13.0", "timm": "1.0.15"}),
            Tag.SPACE_HASH: "5ace",
            **(tags or {}),
        },
    ).info.run_id
    for trial in trials:
        _record_trial(client, experiment, parent, name, trial)
    if ended:
        client.set_terminated(parent)
    return parent


def _record_trial(client: MlflowClient, experiment: str, parent: str, name: str, trial: FakeTrial) -> None:
    config = trial.config
    tags = {
        "mlflow.parentRunId": parent,
        Tag.KIND: KIND_TRIAL,
        Tag.SWEEP: name,
        Tag.STATUS: trial.status,
        Tag.STAGE: trial.stage,
        Tag.TRIAL_ID: trial.trial_id,
        Tag.CONFIG_ID: config.config_id,
        Tag.METHOD: config.method,
        Tag.BACKBONE: config.backbone.name,
        Tag.DATA: config.data.source,
        Tag.ATTEMPTS: "1",
        Tag.REASON: trial.reason,
        Tag.CHOSEN_EPOCH: "6",
        Tag.STARTED: "2026-11-20T07:05:00+00:00",
        Tag.DATA_HASH: "d4",
        Tag.PROBE_HASH: "9a",
        Tag.FACTS: json.dumps(dict(trial.facts)),
        **({} if trial.ended is None else {Tag.ENDED: trial.ended}),
        **({} if trial.feasible is None else {Tag.FEASIBLE: str(trial.feasible).lower()}),
        **trial.tags,
    }
    run_id = client.create_run(experiment, tags=tags).info.run_id
    method = config.parsed_method
    values = {**config.flat(), "adapter": method.adapter, "penalty": method.penalty}
    params = {key: written(value) for key, value in values.items()} | dict(trial.params)
    client.log_batch(
        run_id,
        metrics=[Metric(key, value, 0, 0) for key, value in trial.metrics.items()],
        params=[Param(key, value) for key, value in params.items()],
        tags=[RunTag("extra", "1")],
    )


def config(**flat: object) -> TrialConfig:
    """A configuration from dotted keys, dots written as double underscores."""
    return TrialConfig.from_flat({key.replace("__", "."): value for key, value in flat.items()})


def numbers(accuracy: float, cka: float, sharpness: float = 0.02) -> dict[str, float]:
    """A plausible full set of final values around two chosen ones, and a curve that must not be mistaken for them."""
    return {
        "val_accuracy": accuracy, "val_balanced_accuracy": accuracy - 0.03, "val_auc": min(1.0, accuracy + 0.05),
        "val_nll": 1.2 * (1 - accuracy), "val_ece": 0.05, "val_cka": cka, "val_cka_biased": min(1.0, cka + 0.05),
        "val_procrustes": min(1.0, cka + 0.1), "val_knn_overlap": cka * 0.7, "test_accuracy": accuracy - 0.01,
        "test_balanced_accuracy": accuracy - 0.04, "test_auc": min(1.0, accuracy + 0.04),
        "test_nll": 1.3 * (1 - accuracy), "test_ece": 0.06, "test_cka": cka - 0.01, "sharpness": sharpness,
        "train_nll": 0.2, "train_seconds": 11.0, "overhead_seconds": 3.5, "images_per_second": 190.0,
        "peak_memory_bytes": 9.0e8, "trainable_parameters": 3_374_003.0, "curve/val_accuracy": 0.01,
    }  # fmt: skip


def demo_trials() -> list[FakeTrial]:
    """Thirty trials over five methods and two backbones: anchors, failures, a pruned and an infeasible one."""
    rng = random.Random(7)
    facts = {
        **FACTS,
        "largest_class_fraction": 0.56,
        "smallest_class_fraction": 0.17,
        "skipped_images": [f"broken {HOSTILE}.png", "cut.jpg"],
        "duplicates_across_splits": [["train/a.png", "val/b.png"]],
    }
    trials = []
    backbones = ("tf_efficientnet_lite0", "mobilenetv2_100")
    shapes = {"repsim": (0.55, 1.1), "hcs": (0.35, 0.9), "feature_mse": (0.62, 1.0)}
    for number in range(27):
        backbone = backbones[0] if number < 2 else backbones[rng.randrange(2)]
        shift = 0.0 if backbone == backbones[0] else 0.012
        method = ("linear_probe", "full")[number] if number < 2 else rng.choice([*shapes, *shapes, "full"])
        strength = round(10 ** rng.uniform(-1.5, 1.48), 4) if method in shapes else None
        lr = 3e-4 if number < 2 else round(10 ** rng.uniform(-4.5, -3.0), 7)
        if method == "linear_probe":
            values = numbers(0.775 + shift, 1.0, 0.008)
        elif strength is None:
            values = numbers(0.925 + shift + rng.gauss(0, 0.006), 0.42 - 3 * shift + rng.gauss(0, 0.03), 0.05)
        else:
            floor, power = shapes[method]
            held = strength**power / (1 + strength**power)
            cka = floor + (0.99 - floor) * held - 2 * shift + rng.gauss(0, 0.012)
            values = numbers(0.93 + shift - 0.08 * held**3 + rng.gauss(0, 0.01), min(cka, 0.995), 0.05 - 0.03 * held)
        trial = config(data="phantom:ultrasound", backbone=backbone, method=method, strength=strength, optim__lr=lr)
        ended = f"2026-11-20T07:{10 + number:02d}:00+00:00"
        trials.append(FakeTrial(f"t{number:04d}", trial, values, facts=facts, ended=ended))
    late = "2026-11-20T07:59:00+00:00"
    base = {"data": "phantom:ultrasound"}
    reason = f"the loss became NaN in step 12 {HOSTILE}"
    trials.append(
        FakeTrial(
            "t0027", config(**base, optim__lr=9e-4), status="failed", reason=reason, feasible=None, facts={}, ended=late
        )
    )
    partial = {"val_accuracy": 0.99, "val_cka": 0.99}
    trials.append(
        FakeTrial(
            "t0028",
            config(**base, method="hcs"),
            partial,
            status="pruned",
            reason="behind the front",
            feasible=None,
            facts={},
            ended=late,
        )
    )
    trials.append(
        FakeTrial(
            "t0029",
            config(**base, method="repsim", strength=2.5),
            numbers(0.98, 0.985),
            feasible=False,
            facts=facts,
            ended=late,
        )
    )
    return trials


DEMO_REFERENCE = json.dumps(
    {
        "phantom:ultrasound": {
            "reference": {"val_accuracy": 0.7675, "val_cka": 0.391},
            "ideal": {"val_accuracy": 1.0, "val_cka": 1.0},
        }
    }
)


def two_sets() -> list[FakeTrial]:
    """Twelve trials over two data sets of hostile names."""
    trials = []
    for number in range(12):
        data = ("folder:/images/<b>a</b>", "npz:b_%_$x^2$.npz")[number % 2]
        method = "linear_probe" if number < 2 else ("full" if number < 4 else "repsim")
        strength = None if number < 4 else float(number)
        accuracy, cka = (0.8, 1.0) if number < 2 else (0.95 - 0.005 * number, 0.3 + 0.05 * number)
        trial = config(data=data, method=method, strength=strength, seed=3)
        trials.append(FakeTrial(f"t{number:04d}", trial, numbers(accuracy, cka, 0.01 * (number % 5 + 1))))
    return trials


@dataclass(frozen=True)
class Store:
    """Where the synthetic sweeps are."""

    uri: str
    folder: Path
    parents: Mapping[str, str]
