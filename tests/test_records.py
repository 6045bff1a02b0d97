"""The names that writers and readers share: each once, objectives never of test images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace

import pytest

from repsim.config import MeasureConfig
from repsim.records import (
    CURVE_PREFIX,
    EPOCH_METRICS,
    FACTS,
    METRICS,
    OBJECTIVE_METRICS,
    PARAM_PREFIX,
    PER_SPLIT,
    RHO_CURVE,
    RHO_HEADLINE,
    SINGLE,
    STANDARD_METRICS,
    TRIAL_COLUMNS,
    DerivedResult,
    EpochResult,
    Objective,
    Stage,
    Status,
    Tag,
    TrialResult,
    sharpness_name,
)

TAGS = [value for name, value in vars(Tag).items() if name.isupper()]


@pytest.mark.parametrize("names", [PER_SPLIT, SINGLE, TRIAL_COLUMNS, FACTS, EPOCH_METRICS, OBJECTIVE_METRICS, TAGS])
def test_every_name_is_there_once(names: Sequence[str]) -> None:
    assert len(names) > 5
    assert len(set(names)) == len(names)
    assert all(name and name == name.strip() for name in names)


def test_metrics_are_called_what_they_are_filed_under() -> None:
    assert all(name == metric.name for name, metric in METRICS.items())
    assert len(METRICS) == 2 * len(PER_SPLIT) + len(SINGLE)
    assert all(metric.label and metric.description for metric in METRICS.values())
    assert not any(name.startswith((CURVE_PREFIX, PARAM_PREFIX)) for name in METRICS)


def test_no_objective_looks_at_test_images() -> None:
    assert not any("test" in name for name in OBJECTIVE_METRICS)
    assert {name for name in METRICS if name.startswith("test_")} == {f"test_{name}" for name in PER_SPLIT}
    assert {"val_accuracy", "val_cka", "sharpness"} <= set(OBJECTIVE_METRICS)


def test_what_a_trial_may_leave_out_is_no_objective_and_no_curve() -> None:
    optional = {name for name, metric in METRICS.items() if metric.asked_by is not None}
    assert {"val_qwk", "test_cknna", "hessian_top"} <= optional
    assert optional.isdisjoint(STANDARD_METRICS)
    assert optional | set(STANDARD_METRICS) == set(METRICS)
    assert optional.isdisjoint(OBJECTIVE_METRICS)
    assert set(EPOCH_METRICS) == {name for name in STANDARD_METRICS if name.startswith("val_")}
    assert {METRICS[name].asked_by for name in optional} == {
        f"measure.{name}" for name in MeasureConfig.model_fields if name not in ("wise", "layers")
    }, "points answer the standard metrics, and layers' similarity is a course, no metric"


def test_what_has_no_better_direction_is_no_objective() -> None:
    assert METRICS["train_nll"].direction is None
    assert "train_nll" not in OBJECTIVE_METRICS
    assert {METRICS[name].direction for name in OBJECTIVE_METRICS} == {"maximize", "minimize"}


def test_every_radius_has_its_sharpness() -> None:
    assert RHO_HEADLINE in RHO_CURVE
    assert [sharpness_name(rho) for rho in RHO_CURVE] == [
        "sharpness_rho_0.0001",
        "sharpness_rho_0.0005",
        "sharpness_rho_0.002",
        "sharpness_rho_0.01",
    ]
    assert all(sharpness_name(rho) in METRICS for rho in RHO_CURVE)


def test_the_columns_hold_every_metric_after_who_and_before_when() -> None:
    start = TRIAL_COLUMNS.index(next(iter(METRICS)))
    assert TRIAL_COLUMNS[start : start + len(METRICS)] == tuple(METRICS)
    assert TRIAL_COLUMNS[:4] == ("sweep", "data", "trial_id", "config_id")
    assert TRIAL_COLUMNS[-1] == "mlflow_run_id"


def test_states_are_spelled_as_agreed_and_three_are_final() -> None:
    assert [status.value for status in Status] == ["proposed", "running", "waiting", "completed", "pruned", "failed"]
    assert [status.value for status in Status if status.terminal] == ["completed", "pruned", "failed"]
    assert [stage.value for stage in Stage] == ["search", "confirm", "derived"]


@pytest.mark.parametrize(
    ("direction", "value", "than", "better"),
    [
        ("maximize", 2, 1, True),
        ("maximize", 1, 2, False),
        ("maximize", 1, 1, False),
        ("minimize", 1, 2, True),
        ("minimize", 2, 1, False),
        ("minimize", 1, 1, False),
    ],
)
def test_better_is_strict_and_follows_the_direction(direction: str, value: float, than: float, better: bool) -> None:
    objective = Objective(metric="val_nll", direction="maximize" if direction == "maximize" else "minimize")
    assert objective.better(value, than) is better


EPOCH = EpochResult(
    epoch=1,
    values={"val_accuracy": 0.5},
    train_loss=0.7,
    train_penalty=None,
    learning_rate=1e-4,
    steps=3,
    train_seconds=1.0,
    seconds=1.5,
)
RESULT = TrialResult(
    chosen_epoch=1,
    epochs=2,
    values={"val_accuracy": 0.5},
    facts={"n_train": 31},
    derived=(DerivedResult(alpha=0.3, values={"val_accuracy": 0.4}, predictions={"val": {"image": ["a.png"]}}),),
    predictions={"val": {"image": ["a.png"]}},
)


def test_an_epoch_travels_through_json() -> None:
    written = json.loads(json.dumps(EPOCH.to_dict(), allow_nan=False))
    assert set(written) == {field.name for field in fields(EpochResult)} - {"layers"}, "as before there were any"
    assert EpochResult.from_dict(written) == EPOCH
    layered = replace(EPOCH, layers={"blocks.1": 0.5, "blocks.0": 1.0})
    again = EpochResult.from_dict(json.loads(json.dumps(layered.to_dict(), allow_nan=False)))
    assert (again, list(again.layers)) == (layered, ["blocks.1", "blocks.0"])


def test_a_result_travels_through_json_without_its_predictions() -> None:
    written = json.loads(json.dumps(RESULT.to_dict(), allow_nan=False))
    assert "predictions" not in written
    found = TrialResult.from_dict(written)
    assert found == RESULT
    assert found.predictions == found.derived[0].predictions == {}
    assert TrialResult.from_dict({key: value for key, value in written.items() if key != "derived"}).derived == ()
    written["values"]["val_accuracy"] = 0.6
    assert RESULT.values["val_accuracy"] == 0.5


@pytest.mark.parametrize("kind", [EpochResult, TrialResult])
def test_unknown_keys_are_refused(kind: type[EpochResult] | type[TrialResult]) -> None:
    whole = EPOCH.to_dict() if kind is EpochResult else RESULT.to_dict()
    with pytest.raises(TypeError, match="unexpected keyword argument 'surprise'"):
        kind.from_dict({**whole, "surprise": 1})
    with pytest.raises(TypeError, match="missing"):
        kind.from_dict({})
