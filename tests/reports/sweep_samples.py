"""Sweeps for the tests of tables, sentences and warnings: recorded in a real store and read back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

import pytest
from mlflow import MlflowClient

from reports import fronts
from reports.load import Sweep, load_sweep
from reports.store import open_store
from repsim.records import Tag
from sweeps.tracking import prepare_store
from tests.reports.recorded_sweeps import FACTS, FakeTrial, config, numbers, record

DATA = "phantom:tiny"
ACCURACY = {"metric": "val_accuracy", "direction": "maximize"}
CKA = {"metric": "val_cka", "direction": "maximize"}
SHARPNESS = {"metric": "sharpness", "direction": "minimize"}
SEARCH = {
    "search": {"sampler": "auto", "stopping": "none", "parallel": "auto", "seed": 7},
    "budget": {"trials": 40, "epochs": 6},
    "confirm": {"seeds": 0},
    "resources": {"workers": 1, "cpus_per_worker": "auto", "gpus_per_worker": "auto", "epoch_timeout": "auto"},
}
SPACE = {
    "method": ["full", "linear_probe", "repsim", "hcs"],
    "strength": {"low": 0.03, "high": 30, "log": True, "when": {"penalty": "any"}},
    "optim.lr": {"low": 3e-5, "high": 1e-3, "log": True, "when": {"adapter": "full"}},
}
Keep = Callable[..., Sweep]


def trial(
    name: str, method: str, accuracy: float, cka: float, sharpness: float = 0.02, **settings: object
) -> FakeTrial:
    """A completed trial; ``settings`` are dotted keys, dots as double underscores."""
    setup = config(**{"data": DATA, "method": method, **settings})
    return FakeTrial(name, setup, numbers(accuracy, cka, sharpness))


def again(original: FakeTrial, name: str, seed: int, accuracy: float, cka: float) -> FakeTrial:
    """A fresh seed of a trial."""
    flat = original.config.flat() | {"seed": seed}
    own = type(original.config).from_flat({key: value for key, value in flat.items() if value is not None})
    return FakeTrial(name, own, numbers(accuracy, cka), stage="confirm")


def recorded(search: Mapping[str, object] | None = None, space: Mapping[str, object] | None = None) -> dict[str, str]:
    """Tags with the settings of the search and what it searched."""
    return {Tag.SEARCH: json.dumps(search or SEARCH), Tag.SPACE: json.dumps(space or SPACE)}


def keeper(factory: pytest.TempPathFactory) -> Keep:
    """Something that records a sweep in a store of its own and reads it back."""
    uri = f"sqlite:///{factory.mktemp('kept') / 'mlflow.db'}"
    prepare_store(uri)
    client = MlflowClient(tracking_uri=uri)

    def keep(name: str, trials: Sequence[FakeTrial], **options: object) -> Sweep:
        record(client, name, trials, **options)
        return load_sweep(open_store(uri), name)

    return keep


def studies(sweep: Sweep) -> list[fronts.Study]:
    """Every data set's."""
    return [fronts.study(sweep, data) for data in sweep.data_sets]


def facts(**changes: object) -> dict[str, object]:
    """The facts of a trial, with changes."""
    return {**FACTS, **changes}
