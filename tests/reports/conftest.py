"""The store that most tests of the report read."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from mlflow import MlflowClient

from reports.load import Sweep, load_sweep
from reports.store import open_store
from repsim.records import Tag
from tests.reports.front_sweep import TAGS, front_trials
from tests.reports.recorded_sweeps import (
    ACCURACY_AND_CKA,
    DEMO_REFERENCE,
    HOSTILE,
    FakeTrial,
    Store,
    config,
    demo_trials,
    numbers,
    record,
    two_sets,
)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One real sqlite store with a sweep for every state a report has to say something about."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        client = MlflowClient(tracking_uri=uri)
        third = {"metric": "sharpness", "direction": "minimize"}
        running = config(method="repsim", strength=1.0)
        hostile = FakeTrial(
            "t0002",
            config(method="hcs"),
            numbers(0.9, 0.7),
            tags={Tag.METHOD: HOSTILE, Tag.BACKBONE: f"b{HOSTILE}", Tag.DATA: HOSTILE},
            params={"method": HOSTILE, "optim.lr": HOSTILE},
        )
        twin = [
            FakeTrial(f"t{i:04d}", config(method=m, data=HOSTILE), numbers(0.9, 0.7))
            for i, m in enumerate(["linear_probe", "full"])
        ]
        lacking = FakeTrial("t0001", config(method="full"), {"val_accuracy": 0.9, "val_cka": math.nan})
        parents = {
            "demo": record(client, "demo", demo_trials(), tags={Tag.REFERENCE: DEMO_REFERENCE, Tag.GIT_DIRTY: "true"}),
            "two": record(client, "two", two_sets(), objectives=[*ACCURACY_AND_CKA, third]),
            "single": record(client, "single", [FakeTrial("t0000", config(method="full", seed=5), numbers(0.9, 0.5))]),
            "hostile": record(client, "hostile", [*twin, hostile], tags={Tag.QUESTION: HOSTILE, Tag.COMMAND: HOSTILE}),
            "running": record(
                client,
                "running",
                [FakeTrial("t0000", running, status="running", facts={}, feasible=None, ended=None)],
                ended=False,
            ),
            "failed": record(
                client,
                "failed",
                [
                    FakeTrial(f"t{i:04d}", running, status="failed", reason="no memory", facts={}, feasible=None)
                    for i in range(3)
                ],
            ),
            "lacking": record(
                client, "lacking", [FakeTrial("t0000", config(method="linear_probe"), numbers(0.8, 1.0)), lacking]
            ),
            "nothing": record(client, "nothing", []),
        }
        yield Store(uri=uri, folder=folder, parents=parents)


@pytest.fixture(scope="session")
def front_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of a store with the confirmed sweep ``front``."""
    from sweeps.tracking import prepare_store

    uri = f"sqlite:///{tmp_path_factory.mktemp('front') / 'mlflow.db'}"
    prepare_store(uri)
    record(MlflowClient(tracking_uri=uri), "front", front_trials(), tags=TAGS)
    return uri


@pytest.fixture(scope="session")
def front_sweep(front_store: str) -> Sweep:
    """The confirmed sweep, read back."""
    return load_sweep(open_store(front_store), "front")
