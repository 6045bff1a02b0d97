"""The sections of a trial's configuration: data, backbone, head, optimiser, adapter, penalty, what is measured.

Read them through :mod:`repsim.config`, which is the door. Every default stands here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from repsim.catalogue import HEADS
from repsim.errors import one_line

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
MOST_VIEWS = 10_000
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _three_numbers(value: object) -> object:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ValueError(f"{one_line(value)} is not allowed; allowed: three numbers that add up to 1")
    return tuple(value)


def _count_or_auto(value: object) -> object:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_VIEWS):
        return value
    raise ValueError(f"{one_line(value)} is not allowed; allowed: 'auto', or a whole number from 1 to {MOST_VIEWS}")


def _joined(value: object) -> object:
    if isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value):
        value = ",".join(value)
    if not isinstance(value, str):
        return value
    names = [name.strip() for name in value.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(f"{one_line(value)} is not allowed; allowed: auto, last, all, or layer names, each once")
    return ",".join(names)


class Frozen(BaseModel):
    """A section: frozen, unknown keys refused, no value converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class DataConfig(Frozen):
    """Which images, how they are read, and how they are split."""

    source: str = "phantom:ultrasound"
    """SOURCE: ``phantom:NAME``, ``folder:DIR``, ``csv:FILE``, ``npz:FILE``, ``medmnist:NAME``, or a bare path."""
    task: Literal["multiclass"] = "multiclass"
    """Exactly one class per image."""
    image_size: Annotated[int, Field(ge=16, le=1024)] = 96
    """Side of the square the images are brought to, pixels."""
    resize: Literal["pad", "squash", "crop"] = "pad"
    """How a rectangle becomes a square: black borders, distortion, or the centre cut out."""
    fractions: Annotated[tuple[Positive, Positive, Positive], BeforeValidator(_three_numbers)] = (0.6, 0.2, 0.2)
    """Shares of train, val and test; they add up to 1. Ignored when the source brings its own split."""
    split_seed: Seed = 0
    """Seed of the split; constant within a search."""
    group: str | None = None
    """Column of the csv whose value (a patient) never crosses splits."""
    augment: Literal["standard", "none"] = "standard"
    """Training views: flips, crops, small rotations and brightness; or the images as they are."""
    views: Annotated[Annotated[int, Field(ge=1, le=MOST_VIEWS)] | Literal["auto"], BeforeValidator(_count_or_auto)] = (
        "auto"
    )
    """Size of the finite set of augmented views per image; ``auto`` is 2 x epochs."""
    probe_size: Annotated[int, Field(ge=8, le=50_000)] = 2000
    """At most this many images (stratified) measure similarity."""
    class_weights: Literal["none", "balanced"] = "none"
    """``balanced`` weighs the training loss by the inverse class frequency."""
    on_error: Literal["fail", "skip"] = "fail"
    """What an unreadable image does: refuse to start, or be left out, counted and named."""

    @field_validator("source")
    @classmethod
    def _source_is_said(cls, value: str) -> str:
        if not value.strip() or "\x00" in value:
            raise ValueError("must name a data source")
        return value

    @field_validator("fractions")
    @classmethod
    def _fractions_add_up(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if abs(sum(value) - 1.0) > 1e-6:
            raise ValueError(f"must add up to 1, these make {sum(value):g}")
        return value


class BackboneConfig(Frozen):
    """The pretrained network."""

    name: str = "tf_efficientnet_lite0"
    """A timm model name."""
    weights: str = "auto"
    """``auto`` (installed package, registry package, timm's hub), ``random`` (tests), or a local weight file."""

    @field_validator("name", "weights")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value.strip() or "\x00" in value:
            raise ValueError("must not be empty")
        return value


class HeadConfig(Frozen):
    """The classifier on the pooled features."""

    name: str = "linear"
    """A head from the catalogue."""
    scale: Positive = 10.0
    """``cosine``: the scale at the start; it is learned."""
    bank: Annotated[int, Field(ge=1, le=4096)] = 64
    """``tversky``: size of the learnable bank of features."""
    normalise: bool = True
    """``tversky``: bring features, prototypes and bank to length 1; without it the logits grow with their square."""
    intersection: Literal["product", "min", "max", "mean", "gmean", "softmin"] = "product"
    """``tversky``: how the saliences of a shared feature are joined."""
    difference: Literal["ignorematch", "subtractmatch"] = "ignorematch"
    """``tversky``: what one side has beyond the other: unshared features alone, or the excess of shared ones too."""
    per_feature: bool = False
    """``tversky``: join the saliences feature by feature (the paper), instead of after summing (its library)."""

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in HEADS:
            raise ValueError(f"{one_line(value)} is not a known head")
        return value


class OptimConfig(Frozen):
    """How the weights move (AdamW)."""

    lr: Positive = 3e-4
    """Peak learning rate of the backbone."""
    head_lr: Positive | None = None
    """Peak learning rate of the head; null is ``lr`` times the adapter's factor (10 for full finetuning)."""
    weight_decay: NonNegative = 0.05
    """Decoupled weight decay on matrices and kernels (not on biases or norms)."""
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 6
    """Passes over the training images."""
    batch_size: Annotated[int, Field(ge=4, le=65_536)] = 32
    """Images per optimiser step; a last batch of fewer than 4 joins the one before it."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Course of the learning rate after the warm-up."""
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Linear warm-up, as a fraction of all steps."""
    clip_norm: Positive | None = 1.0
    """Largest L2 norm of the model's gradient; null turns clipping off."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward pass; penalties are computed in fp32 always."""
    batch_norm: Literal["frozen", "train"] = "frozen"
    """Frozen statistics keep the features equal to the pretrained ones at step 0."""
    sam: Literal["none", "sam", "asam"] = "none"
    """Sharpness-aware steps: the gradient is taken at the worst neighbour, at twice the time."""
    sam_rho: Positive | None = None
    """Distance of that neighbour; null is 0.05 for ``sam``, 0.5 for ``asam`` (small convnets learn with a tenth)."""
    average: Literal["none", "ema", "swa"] = "none"
    """Weights that are measured and kept: the last ones, their moving average, or the mean over the last steps."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """``ema``: share of the average that a step leaves as it is; smaller in the first steps."""
    swa_start: Annotated[float, Field(ge=0, lt=1)] = 0.75
    """``swa``: the mean is taken over the steps after this fraction of all."""


class AdapterConfig(Frozen):
    """Settings of the adapters."""

    stages: Annotated[int, Field(ge=1, le=1000)] = 1
    """``partial``: how many of the last stages (transformer blocks) are trained."""
    rank: Annotated[int, Field(ge=1, le=1024)] = 8
    """``lora``: rank of the change."""
    alpha: Positive = 8.0
    """``lora``: the change is multiplied by ``alpha / rank``."""
    bottleneck: Annotated[int, Field(ge=1, le=4096)] = 64
    """``adaptformer``: width of the branch."""
    scale: Positive = 0.1
    """``adaptformer``: factor on what the branch adds."""
    prompts: Annotated[int, Field(ge=1, le=1000)] = 10
    """``vpt``: learnable tokens per block."""
    prompt_depth: Literal["deep", "shallow"] = "deep"
    """``vpt``: new prompts in every block, or in the first one only."""


class PenaltyConfig(Frozen):
    """Settings of the penalties beside their strength."""

    layers: Annotated[str, BeforeValidator(_joined)] = "auto"
    """``last``: the features before the head; ``all``: every stage too, averaged; or names, joined by commas.

    ``auto`` is ``all`` for ``delta`` and ``last`` for the others. Names are timm's, such as ``blocks.4``, and ``last``.
    """
    q_lr: Positive = 1.0
    """``repsim``: step size of the descent on the orthogonal map, relative to the features' energy; ``rift``: of Q."""
    map: Literal["riemannian", "procrustes", "cayley", "low_rank"] = "riemannian"
    """``repsim``: how the orthogonal map is learned."""
    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """``repsim`` with the map ``low_rank``: it turns at most twice as many directions."""
    scale: bool = False
    """``repsim``: learn one factor on the features beside the map."""
    center: bool = True
    """``repsim``: take the batch's mean off before comparing."""
    estimator: Literal["biased", "debiased"] = "biased"
    """``hcs``: which CKA of the batch."""
    margin: NonNegative | None = None
    """``hcs``: dissimilarity that is free (null is 0); ``triplet``: its margin (null is 0.1)."""
    queue: Annotated[int, Field(ge=0, le=65_536)] = 0
    """``hcs``: past images the index is taken on beside the batch."""
    momentum: Annotated[float, Field(gt=0, le=1)] = 0.1
    """``rift``, and ``repsim`` with the map ``procrustes``: weight of the newest batch in the running average."""
    q: Literal["fixed", "learned"] = "fixed"
    """``rift``: compare covariances as they are, or up to one learnable rotation."""
    neighbours: Annotated[int, Field(ge=1, le=1024)] = 5
    """``knn_edge``: edges per image."""
    smallest: Annotated[int, Field(ge=1, le=1024)] = 1
    """``bss``: how many of the smallest singular values are pressed down."""
    temperature: Positive = 2.0
    """``lwf``: temperature of the softmax."""


class MeasureConfig(Frozen):
    """What is measured beside the standard numbers; nothing here changes the training."""

    sharpness: Literal["standard", "full"] = "standard"
    """``full`` adds worst-case and average-case sharpness, the Hessian's top eigenvalue and trace; minutes on a CPU."""
    similarity: Literal["standard", "full"] = "standard"
    """``full`` adds the other similarity measures with the pretrained features."""
    quality: Literal["standard", "full"] = "standard"
    """``full`` adds equal-mass ECE, quadratic kappa, k-NN accuracy and three measures of the features' rank."""
    layers: Literal["none", "full"] = "none"
    """``full`` adds, after every epoch, the debiased CKA of each of the backbone's stages with what it was."""
    wise: bool = False
    """Also take the points 0, 0.1, … 0.9 on the line from the pretrained weights: results of their own, no trials."""
