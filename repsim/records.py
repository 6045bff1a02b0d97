"""What a trial answers: every metric, tag, state and column name, with unit and direction, spelled once.

Writers (trainer, journal, MLflow) and readers (search, reports) import the names from here. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Literal, Self

Direction = Literal["maximize", "minimize"]


class Status(StrEnum):
    """A trial's state; ``completed``, ``pruned`` and ``failed`` are final."""

    PROPOSED = "proposed"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    PRUNED = "pruned"
    FAILED = "failed"

    @property
    def terminal(self) -> bool:
        """Whether nothing more will happen to the trial."""
        return self in (Status.COMPLETED, Status.PRUNED, Status.FAILED)


class Stage(StrEnum):
    """Why a trial exists: proposed by the search, a fresh seed of a candidate, or computed from other trials."""

    SEARCH = "search"
    CONFIRM = "confirm"
    DERIVED = "derived"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number a trial answers with. ``direction`` is None where neither way is better."""

    name: str
    label: str
    unit: str
    direction: Direction | None
    description: str
    per_split: bool = False


RHO_CURVE: tuple[float, ...] = (1e-4, 5e-4, 2e-3, 1e-2)
"""Relative radii ρ at which sharpness is kept; the headline is 5e-4."""
RHO_HEADLINE = 5e-4
RHO_ABSOLUTE = 0.05


def sharpness_name(rho: float) -> str:
    """Name of the relative sharpness at radius ``rho``: ``sharpness_rho_0.0005``."""
    return f"sharpness_rho_{rho:g}"


_PER_SPLIT = (
    Metric(
        name="accuracy",
        label="accuracy",
        unit="fraction",
        direction="maximize",
        description="share classified right",
        per_split=True,
    ),
    Metric(
        name="balanced_accuracy",
        label="balanced accuracy",
        unit="fraction",
        direction="maximize",
        description="mean recall over the classes",
        per_split=True,
    ),
    Metric(
        name="auc",
        label="AUC",
        unit="fraction",
        direction="maximize",
        description="macro one-vs-rest area under the ROC curve",
        per_split=True,
    ),
    Metric(
        name="nll",
        label="NLL",
        unit="nats",
        direction="minimize",
        description="mean negative log-likelihood",
        per_split=True,
    ),
    Metric(
        name="ece",
        label="ECE",
        unit="fraction",
        direction="minimize",
        description="expected calibration error, 15 equal-width bins",
        per_split=True,
    ),
    Metric(
        name="cka",
        label="similarity (CKA)",
        unit="",
        direction="maximize",
        description="debiased linear CKA with the pretrained features",
        per_split=True,
    ),
    Metric(
        name="cka_biased",
        label="CKA, biased",
        unit="",
        direction="maximize",
        description="biased linear CKA, for comparison with papers",
        per_split=True,
    ),
    Metric(
        name="procrustes",
        label="Procrustes similarity",
        unit="",
        direction="maximize",
        description="nuclear norm of the cross-covariance over the norms",
        per_split=True,
    ),
    Metric(
        name="knn_overlap",
        label="10-NN overlap",
        unit="fraction",
        direction="maximize",
        description="mean share of common 10 nearest neighbours",
        per_split=True,
    ),
)
_SINGLE = (
    Metric(
        name="sharpness",
        label="sharpness",
        unit="nats",
        direction="minimize",
        description=f"relative one-step sharpness at rho {RHO_HEADLINE:g} (512 training images)",
    ),
    *(
        Metric(
            name=sharpness_name(rho),
            label=f"sharpness at ρ={rho:g}",
            unit="nats",
            direction="minimize",
            description=f"relative one-step sharpness at rho {rho:g}",
        )
        for rho in RHO_CURVE
    ),
    Metric(
        name="sharpness_absolute",
        label="absolute sharpness",
        unit="nats",
        direction="minimize",
        description=f"one step of length {RHO_ABSOLUTE:g} over all parameters",
    ),
    Metric(
        name="train_nll",
        label="train NLL",
        unit="nats",
        direction=None,
        description="loss on the sharpness images at the chosen weights",
    ),
    Metric(
        name="train_seconds",
        label="training time",
        unit="s",
        direction="minimize",
        description="optimiser steps (or the probe's fit)",
    ),
    Metric(
        name="overhead_seconds",
        label="other time",
        unit="s",
        direction="minimize",
        description="teacher features, evaluation, sharpness, checkpoints",
    ),
    Metric(
        name="evaluation_seconds",
        label="evaluation time",
        unit="s",
        direction="minimize",
        description="val and test evaluation, similarity and sharpness; part of the other time",
    ),
    Metric(
        name="images_per_second", label="images/s", unit="1/s", direction="maximize", description="training throughput"
    ),
    Metric(
        name="peak_memory_bytes",
        label="peak memory",
        unit="B",
        direction="minimize",
        description="largest resident set of the process (device memory on a GPU)",
    ),
    Metric(
        name="trainable_parameters",
        label="trainable parameters",
        unit="",
        direction="minimize",
        description="parameters that moved",
    ),
)

PER_SPLIT: tuple[str, ...] = tuple(metric.name for metric in _PER_SPLIT)
SINGLE: tuple[str, ...] = tuple(metric.name for metric in _SINGLE)
METRICS: dict[str, Metric] = {
    **{
        f"{split}_{metric.name}": Metric(
            name=f"{split}_{metric.name}",
            label=f"{split} {metric.label}",
            unit=metric.unit,
            direction=metric.direction,
            description=f"{metric.description} ({split} images)",
            per_split=True,
        )
        for split in ("val", "test")
        for metric in _PER_SPLIT
    },
    **{metric.name: metric for metric in _SINGLE},
}
"""Every reported value by its full name (``val_accuracy``, ``test_cka``, ``sharpness`` …)."""

OBJECTIVE_METRICS: tuple[str, ...] = tuple(
    name for name, metric in METRICS.items() if not name.startswith("test_") and metric.direction is not None
)
"""What may be an objective or a constraint: never a test metric."""
EPOCH_METRICS: tuple[str, ...] = tuple(f"val_{name}" for name in PER_SPLIT)
"""Values known after every epoch."""

CURVE_PREFIX = "curve/"
PARAM_PREFIX = "param/"

TRIAL_COLUMNS: tuple[str, ...] = (
    "sweep",
    "data",
    "trial_id",
    "config_id",
    "stage",
    "status",
    "reason",
    "attempts",
    "method",
    "adapter",
    "penalty",
    "strength",
    "backbone",
    "head",
    "seed",
    "epochs",
    "chosen_epoch",
    "on_front",
    "feasible",
    "derived_from",
    *METRICS,
    "n_train",
    "n_val",
    "n_test",
    "n_probe",
    "started",
    "ended",
    "mlflow_run_id",
)
"""Columns of trials.parquet, before ``param/KEY`` for the rest of the configuration."""

FACTS: tuple[str, ...] = (
    "n_train",
    "n_val",
    "n_test",
    "n_probe",
    "n_classes",
    "largest_class_fraction",
    "smallest_class_fraction",
    "data_hash",
    "probe_hash",
    "weights_id",
    "pretraining",
    "skipped_images",
    "duplicates_across_splits",
    "threads",
    "optimiser_steps",
    "slot",
    "began",
    "finished",
)
"""What a finished trial says about the ground it was measured on."""


class Tag:
    """MLflow tag names: on the sweep's parent run, on the trials, or on both."""

    SWEEP = "sweep"
    KIND = "kind"
    STATUS = "status"
    STAGE = "stage"
    REASON = "reason"
    TRIAL_ID = "trial_id"
    CONFIG_ID = "config_id"
    METHOD = "method"
    BACKBONE = "backbone"
    DATA = "data"
    ATTEMPTS = "attempts"
    FEASIBLE = "feasible"
    ON_FRONT = "on_front"
    CHOSEN_EPOCH = "chosen_epoch"
    STARTED = "started"
    ENDED = "ended"
    DATA_HASH = "data_hash"
    PROBE_HASH = "probe_hash"
    SPACE_HASH = "space_hash"
    QUESTION = "question"
    OBJECTIVES = "objectives"
    CONSTRAINTS = "constraints"
    REFERENCE = "hypervolume_reference"
    COMMAND = "command"
    GIT_COMMIT = "git_commit"
    GIT_DIRTY = "git_dirty"
    VERSIONS = "versions"
    FACTS = "facts"


KIND_SWEEP = "sweep"
KIND_TRIAL = "trial"


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One axis of the trade-off."""

    metric: str
    direction: Direction

    def better(self, value: float, than: float) -> bool:
        """Whether ``value`` is strictly better."""
        return value > than if self.direction == "maximize" else value < than


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """What one step of the trainer answers. ``values`` holds EPOCH_METRICS; losses are means over the epoch."""

    epoch: int
    values: dict[str, float]
    train_loss: float
    train_penalty: float | None
    learning_rate: float
    steps: int
    train_seconds: float
    seconds: float

    def to_dict(self) -> dict[str, object]:
        """JSON-able."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, object]) -> Self:
        """Read back what ``to_dict`` wrote; unknown keys raise TypeError."""
        return cls(**value)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """What a completed trial answers, all of it at ``chosen_epoch``.

    ``values`` holds every name in METRICS; ``facts`` the names in FACTS. ``predictions`` maps ``val`` and ``test`` to
    columns (``image``, ``label``, and one probability column per class); it is left out of ``to_dict``.
    """

    chosen_epoch: int
    epochs: int
    values: dict[str, float]
    facts: dict[str, object]
    predictions: dict[str, dict[str, list[object]]] = field(default_factory=dict, repr=False, compare=False)

    def to_dict(self) -> dict[str, object]:
        """JSON-able, without the predictions."""
        return {
            "chosen_epoch": self.chosen_epoch,
            "epochs": self.epochs,
            "values": dict(self.values),
            "facts": dict(self.facts),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, object]) -> Self:
        """Read back what ``to_dict`` wrote."""
        return cls(**value)  # type: ignore[arg-type]
