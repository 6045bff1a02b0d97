"""What a trial answers: every metric, tag, state and column name, with unit and direction, spelled once.

Writers (trainer, journal, MLflow) and readers (search, reports) import the names from here. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from sys import intern
from typing import Self, cast

from repsim.metric_table import EPOCH_METRICS as EPOCH_METRICS
from repsim.metric_table import METRICS as METRICS
from repsim.metric_table import OBJECTIVE_METRICS as OBJECTIVE_METRICS
from repsim.metric_table import PER_SPLIT as PER_SPLIT
from repsim.metric_table import RHO_ABSOLUTE as RHO_ABSOLUTE
from repsim.metric_table import RHO_AVERAGE as RHO_AVERAGE
from repsim.metric_table import RHO_CURVE as RHO_CURVE
from repsim.metric_table import RHO_HEADLINE as RHO_HEADLINE
from repsim.metric_table import RHO_WORST_ADAPTIVE as RHO_WORST_ADAPTIVE
from repsim.metric_table import SINGLE as SINGLE
from repsim.metric_table import STANDARD_METRICS as STANDARD_METRICS
from repsim.metric_table import Direction as Direction
from repsim.metric_table import Metric as Metric
from repsim.metric_table import sharpness_name as sharpness_name


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


WISE_ALPHAS: tuple[float, ...] = tuple(tenths / 10 for tenths in range(10))
"""Where ``measure.wise`` takes points between pretrained (0) and finetuned (1) weights; at 1 is the trial itself."""
CURVE_PREFIX = "curve/"
LAYER_PREFIX = "layer_cka/"
"""Before a layer's name (timm's), behind CURVE_PREFIX: a trial's ``EpochResult.layers``."""
PARAM_PREFIX = "param/"
PROBABILITY_PREFIX = "probability "
"""Of the columns of predictions, one for each class."""

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

GROUND_FACTS: tuple[str, ...] = (
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
    "threads",
    "workers",
)
"""The facts that do not depend on how the model was trained."""

FACTS: tuple[str, ...] = (
    *GROUND_FACTS,
    "skipped_images",
    "duplicates_across_splits",
    "optimiser_steps",
    "slot",
    "began",
    "finished",
    "gpu_bytes",
    "not_measured",
    "similarity_null",
    "target_outcome",
    "target_reason",
    "strength_final",
    "control_cka",
    "n_control",
    "not_derived",
    "layers",
)
"""What a finished trial says about the ground it was measured on.

``gpu_bytes`` is the memory of the GPU, where there was one. ``not_measured`` and ``similarity_null`` are there where
``measure`` asks for more; the five from ``target_outcome`` on where the strength is a target: ``reached``, ``not
binding`` or ``not reached``, the reason, the last λ, and the debiased CKA of the model on the ``n_control`` training
images that λ was steered by. ``not_derived`` is there where ``measure.wise`` asks for points: pairs of α and why that
one could not be measured. ``layers``, where ``measure.layers`` asks for them, are the names of the backbone's stages
from input to output.
"""


SIMILARITIES = frozenset({"val_cka", "val_cka_biased", "val_procrustes", "val_knn_overlap"})
"""What is highest before any training; it says what a trial may be compared with, not how good it is."""


class Tag:
    """MLflow tag names: on the sweep's parent run, on the trials, or on both."""

    SWEEP = "sweep"
    KIND = "kind"
    STATUS = "status"
    STAGE = "stage"
    DERIVED_FROM = "derived_from"
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
    CONFIRMATION = "confirmation"
    SEARCH = "search"
    SPACE = "space"
    COMMAND = "command"
    GIT_COMMIT = "git_commit"
    GIT_DIRTY = "git_dirty"
    VERSIONS = "versions"
    FACTS = "facts"
    ARTIFACTS = "artifacts"


COMPACT_TRIALS, COMPACT_CURVES = "compact/trials.parquet", "compact/curves.parquet"
"""Artifacts of a sweep's run: its ended trials and their curves, for readers that cannot wait for the store."""
COMPACT_FORMAT = 1
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
    """What one step of the trainer answers. ``values`` holds EPOCH_METRICS; losses are means over the epoch.

    ``layers``, where ``measure.layers`` asks for it: the debiased CKA of each of the backbone's stages with what it was
    before training, on the val images that measure similarity; in order from input to output.
    """

    epoch: int
    values: dict[str, float]
    train_loss: float
    train_penalty: float | None
    learning_rate: float
    steps: int
    train_seconds: float
    seconds: float
    layers: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """JSON-able; without ``layers`` where there are none, as before there were any."""
        found: dict[str, object] = {**vars(self), "values": dict(self.values), "layers": dict(self.layers)}
        if not self.layers:
            del found["layers"]
        return found

    @classmethod
    def from_dict(cls, value: Mapping[str, object]) -> Self:
        """Read back what ``to_dict`` wrote; unknown keys raise TypeError."""
        return cls(**_shared_names(value))  # type: ignore[arg-type]


Predictions = dict[str, dict[str, list[object]]]
"""``val`` and ``test``, each with columns: ``image``, ``label``, ``predicted``, and one probability per class."""


@dataclass(frozen=True, kw_only=True)
class DerivedResult:
    """What the model at ``alpha`` between a trial's pretrained (0) and finetuned (1) weights answers.

    ``values`` holds every name in STANDARD_METRICS. Training time, throughput, memory and trainable parameters are the
    trial's, for without that training there is no such model; ``overhead_seconds`` and ``evaluation_seconds`` are what
    this point took beside the trial's. ``predictions`` are left out of ``to_dict``.
    """

    alpha: float
    values: dict[str, float]
    predictions: Predictions = field(default_factory=dict, repr=False, compare=False)

    def to_dict(self) -> dict[str, object]:
        """JSON-able, without the predictions."""
        return {"alpha": self.alpha, "values": dict(self.values)}

    @classmethod
    def from_dict(cls, value: Mapping[str, object]) -> Self:
        """Read back what ``to_dict`` wrote; unknown keys raise TypeError."""
        return cls(**_shared_names(value))  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """What a completed trial answers, all of it at ``chosen_epoch``.

    ``values`` holds every name in STANDARD_METRICS and what the configuration asked for beside them, ``facts`` the
    names in FACTS. ``derived`` are the points between pretrained and finetuned weights, by rising α, where
    ``measure.wise`` asks for them. ``predictions`` are left out of ``to_dict``.
    """

    chosen_epoch: int
    epochs: int
    values: dict[str, float]
    facts: dict[str, object]
    derived: tuple[DerivedResult, ...] = ()
    predictions: Predictions = field(default_factory=dict, repr=False, compare=False)

    def to_dict(self) -> dict[str, object]:
        """JSON-able, without the predictions."""
        return {
            "chosen_epoch": self.chosen_epoch,
            "epochs": self.epochs,
            "values": dict(self.values),
            "facts": dict(self.facts),
            "derived": [point.to_dict() for point in self.derived],
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, object]) -> Self:
        """Read back what ``to_dict`` wrote, today or before there were derived points."""
        points = cast(Sequence[Mapping[str, object]], value.get("derived", ()))
        derived = tuple(map(DerivedResult.from_dict, points))
        return cls(**{**_shared_names(value), "derived": derived})  # type: ignore[arg-type]


def _shared_names(value: Mapping[str, object]) -> dict[str, object]:
    """``value``, its mappings with names that all results share: read from JSON, each would have copies of its own."""
    return {
        key: {intern(name): one for name, one in inner.items()} if isinstance(inner, dict) else inner
        for key, inner in value.items()
    }
