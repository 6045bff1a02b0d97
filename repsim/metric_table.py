"""Every number a trial answers with: name, unit, direction, meaning, and which configuration key asks for it.

Read it through :mod:`repsim.records`, which is the door. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number a trial answers with. ``direction`` is None where neither way is better.

    ``asked_by`` is the configuration key that must be ``full`` for it to be there at all, None where it always is.
    """

    name: str
    label: str
    unit: str
    direction: Direction | None
    description: str
    per_split: bool = False
    asked_by: str | None = None

    @property
    def best(self) -> float | None:
        """The value that nothing betters: 1 for shares and similarities, 0 for errors, losses and seconds.

        None where there is none, and where neither way is better.
        """
        if self.direction == "maximize":
            return 1.0 if self.unit in ("fraction", "") else None
        if self.direction == "minimize":
            return 0.0 if self.unit in ("fraction", "nats", "s") else None
        return None


RHO_CURVE: tuple[float, ...] = (1e-4, 5e-4, 2e-3, 1e-2)
"""Relative radii ρ at which sharpness is kept; the headline is 5e-4."""
RHO_HEADLINE = 5e-4
RHO_ABSOLUTE = 0.05
RHO_WORST_ADAPTIVE = 0.05
"""Radius of the adaptive worst case, relative to each weight's size and over all weights at once."""
RHO_AVERAGE = 0.05
"""Standard deviation of the average case's noise, relative to each weight's size."""


def sharpness_name(rho: float) -> str:
    """Name of the relative sharpness at radius ``rho``: ``sharpness_rho_0.0005``."""
    return f"sharpness_rho_{rho:g}"


_PER_SPLIT: tuple[Metric, ...] = (
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
_SINGLE: tuple[Metric, ...] = (
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


def _asked(key: str, *rows: tuple[str, str, str, Direction | None, str], per_split: bool = False) -> tuple[Metric, ...]:
    """Metrics (name, label, unit, direction, description) that ``key: full`` adds."""
    names = ("name", "label", "unit", "direction", "description")
    return tuple(
        Metric(**dict(zip(names, row, strict=True)), per_split=per_split, asked_by=key)  # type: ignore[arg-type]
        for row in rows
    )


_PER_SPLIT += _asked(
    "measure.similarity",
    ("cka_minibatch", "CKA, minibatch", "", "maximize", "debiased linear CKA, its three terms averaged over batches"),
    ("cka_rbf", "CKA, RBF kernel", "", "maximize", "debiased CKA with a Gaussian kernel, 0.8 of the median distance"),
    (
        "shape_angle",
        "shape distance",
        "rad",
        "minimize",
        "angle between the features' shapes (rotation, scale, shift free)",
    ),
    (
        "svcca",
        "SVCCA",
        "",
        "maximize",
        "mean canonical correlation of 99 % of the variance; needs far more images than features",
    ),
    (
        "pwcca",
        "PWCCA",
        "",
        "maximize",
        "projection-weighted canonical correlation; needs more images than both ranks together",
    ),
    ("rsa", "RSA", "", "maximize", "Spearman correlation of the dissimilarities, 1 - Pearson"),
    ("rsa_euclidean", "RSA, Euclidean", "", "maximize", "Spearman correlation of the Euclidean distances"),
    ("cknna", "CKNNA", "", "maximize", "kernel alignment restricted to mutual 10 nearest neighbours"),
    (
        "triplet_agreement",
        "triplet agreement",
        "fraction",
        "maximize",
        "share of triplets whose order of distances is kept",
    ),
    ("ridge_r2", "ridge R²", "", "maximize", "how well the features predict the pretrained ones, leave one out"),
    per_split=True,
)
_PER_SPLIT += _asked(
    "measure.quality",
    ("ece_equal_mass", "ECE, equal mass", "fraction", "minimize", "calibration error, 15 bins of equally many images"),
    ("qwk", "quadratic kappa", "", "maximize", "quadratic weighted kappa; for classes in a meaningful order (grades)"),
    ("knn_accuracy", "20-NN accuracy", "fraction", "maximize", "20 cosine neighbours among the training features vote"),
    ("rankme", "RankMe", "", None, "exp of the entropy of the features' singular values"),
    ("effective_rank", "effective rank", "", None, "exp of the entropy of the features' covariance spectrum"),
    ("alpha_req", "α-ReQ", "", None, "decay exponent of the covariance spectrum over ranks 4 to 100"),
    per_split=True,
)
_SINGLE += _asked(
    "measure.sharpness",
    (
        "sharpness_worst_case",
        "worst-case sharpness",
        "nats",
        "minimize",
        f"APGD in a ball of {RHO_ABSOLUTE:g} over all parameters, per batch of 64 (128 training images)",
    ),
    (
        "sharpness_worst_case_adaptive",
        "worst-case sharpness, adaptive",
        "nats",
        "minimize",
        f"the same in a ball of {RHO_WORST_ADAPTIVE:g} in units of each weight's size",
    ),
    (
        "sharpness_average_case",
        "average-case sharpness",
        "nats",
        "minimize",
        f"mean rise under Gaussian noise of {RHO_AVERAGE:g} of each weight's size (20 antithetic pairs, 128 images)",
    ),
    ("sharpness_average_case_sem", "SEM of the average case", "nats", None, "standard error over the pairs of draws"),
    ("hessian_top", "top Hessian eigenvalue", "nats", "minimize", "largest eigenvalue (Lanczos, 128 training images)"),
    ("hessian_top_error", "error of the eigenvalue", "nats", None, "bound: an eigenvalue is within this distance"),
    ("hessian_trace", "Hessian trace", "nats", "minimize", "Hutchinson's estimate, 10 draws (128 training images)"),
    ("hessian_trace_sem", "SEM of the trace", "nats", None, "standard error over the draws"),
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
            asked_by=metric.asked_by,
        )
        for split in ("val", "test")
        for metric in _PER_SPLIT
    },
    **{metric.name: metric for metric in _SINGLE},
}
"""Every reported value by its full name (``val_accuracy``, ``test_cka``, ``sharpness`` …)."""

STANDARD_METRICS: tuple[str, ...] = tuple(name for name, metric in METRICS.items() if metric.asked_by is None)
"""What every completed trial reports; the others are there when the configuration asks for them, and null otherwise."""
OBJECTIVE_METRICS: tuple[str, ...] = tuple(
    name for name in STANDARD_METRICS if not name.startswith("test_") and METRICS[name].direction is not None
)
"""What may be an objective or a constraint: never a test metric, and nothing that a trial may not report."""
EPOCH_METRICS: tuple[str, ...] = tuple(f"val_{m.name}" for m in _PER_SPLIT if m.asked_by is None)
"""Values known after every epoch."""
