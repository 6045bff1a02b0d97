"""Tables of runs with the columns worth sorting by, saved where MLflow's UI looks for saved views. No MLflow here.

A view is a tag of the experiment, written as the UI's own "Save as new view" writes it (MLflow 3.17). To an MLflow that
knows no such views it is one more tag. Without it the UI shows no metric at all until somebody picks columns.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence

from repsim.records import KIND_TRIAL, Objective, Tag

_PREFIX = "mlflow.sharedViewState."
_TAGS = (Tag.ON_FRONT, Tag.STATUS, Tag.METHOD, Tag.BACKBONE, Tag.DATA)


def saved_views(sweep: str, run_id: str, objectives: Sequence[Objective]) -> dict[str, str]:
    """Tags of the experiment: a view of the sweep's trials, and one of the fronts of all its sweeps.

    The best in the first objective stands first.
    """
    quote = "'" if "'" not in sweep else '"'
    trials = f"tags.{Tag.KIND} = '{KIND_TRIAL}' and tags.{Tag.SWEEP} = {quote}{sweep}{quote}"
    return {
        f"{_PREFIX}{_key(run_id)}": _view(f"{sweep}: trials", trials, objectives),
        f"{_PREFIX}{_key('fronts')}": _view("fronts of all sweeps", f"tags.{Tag.ON_FRONT} = 'true'", objectives),
    }


def trials_page(experiment_id: str, run_id: str) -> str:
    """Where the UI shows the view of a sweep's trials, behind the address that it is served on."""
    return f"#/experiments/{experiment_id}/runs?viewStateShareKey={_key(run_id)}&workflowType=machine_learning"


def _key(name: str) -> str:
    return f"repsim-{name}"


def _view(name: str, condition: str, objectives: Sequence[Objective]) -> str:
    first = objectives[0]
    metrics = [objective.metric for objective in objectives]
    metrics += [metric.replace("val_", "test_", 1) for metric in metrics if metric.startswith("val_")]
    state = {
        "searchFilter": condition,
        "orderByKey": f"metrics.`{first.metric}`",
        "orderByAsc": first.direction == "minimize",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [
            *(f"metrics.`{metric}`" for metric in metrics),
            *(f"tags.`{tag}`" for tag in _TAGS),
            "params.`strength`",
            "attributes.`Models`",
        ],
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode("ascii")
    return json.dumps({"name": name, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"})
