"""The course of every trial over its epochs, as one long table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from reports.values import finite
from repsim.records import CURVE_PREFIX

CURVE_COLUMNS = ("mlflow_run_id", "metric", "epoch", "value")


def load_curves(client: Any, runs: Sequence[Any]) -> pd.DataFrame:
    """A row per run, metric (without its prefix: ``val_cka``, ``train_loss``) and epoch, in that order."""
    rows = []
    for run in runs:
        for name in sorted(key for key in run.data.metrics if key.startswith(CURVE_PREFIX)):
            history = client.get_metric_history(run.info.run_id, name)
            found = {point.step: finite(point.value) for point in history}
            known = [(epoch, value) for epoch, value in sorted(found.items()) if value is not None]
            rows += [(run.info.run_id, name.removeprefix(CURVE_PREFIX), epoch, value) for epoch, value in known]
    table = pd.DataFrame(rows, columns=list(CURVE_COLUMNS))
    return table.astype({"mlflow_run_id": "string", "metric": "string", "epoch": "int64", "value": "float64"})
