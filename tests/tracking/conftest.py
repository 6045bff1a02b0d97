from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from tracking_samples import Children

from sweeps.tracking import prepare_store
from sweeps.tracking_uri import open_client


@pytest.fixture(scope="session")
def store_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for the session (its tables take seconds); every test has an experiment of its own."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    prepare_store(uri)
    return uri


@pytest.fixture(scope="session")
def client(store_uri: str) -> MlflowClient:
    return open_client(store_uri)


@pytest.fixture
def children(client: MlflowClient) -> Children:
    """Runs nested directly under a parent, by trial id; a trial with two runs fails the test."""

    def find(experiment: str, parent: str) -> dict[str, Run]:
        found = client.get_experiment_by_name(experiment)
        assert found is not None
        runs = client.search_runs([found.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
        ids = [run.data.tags["trial_id"] for run in runs]
        assert len(ids) == len(set(ids))
        return {run.data.tags["trial_id"]: run for run in runs}

    return find


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    return tmp_path / "mlruns"
