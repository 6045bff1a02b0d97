"""What a trial is asked: one frozen value, unknown keys refused, every default in this file.

A configuration has two spellings. Nested (the fields below) and *flat*: dotted keys as written in search spaces and
shown in tables (``optim.lr``), where ``data``, ``backbone`` and ``head`` alone stand for their first field. This module
needs pydantic and the standard library only; whether a file can be read or a backbone exists is found out later.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from repsim.catalogue import ADAPTERS, HEADS, Method, method_names, parse_method
from repsim.errors import Mistake, RequestError, nearest, one_line, unknown

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


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class DataConfig(_Frozen):
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


class BackboneConfig(_Frozen):
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


class HeadConfig(_Frozen):
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


class OptimConfig(_Frozen):
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


class AdapterConfig(_Frozen):
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


class PenaltyConfig(_Frozen):
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


class MeasureConfig(_Frozen):
    """What is measured at the end, beside the standard numbers; nothing here changes the training."""

    sharpness: Literal["standard", "full"] = "standard"
    """``full`` adds worst-case and average-case sharpness, the Hessian's top eigenvalue and trace; minutes on a CPU."""
    similarity: Literal["standard", "full"] = "standard"
    """``full`` adds the other similarity measures with the pretrained features."""
    quality: Literal["standard", "full"] = "standard"
    """``full`` adds equal-mass ECE, quadratic kappa, k-NN accuracy and three measures of the features' rank."""


class TrialConfig(_Frozen):
    """One finetuning run, complete: the same value gives the same numbers on the same machine and thread count."""

    data: DataConfig = DataConfig()
    backbone: BackboneConfig = BackboneConfig()
    head: HeadConfig = HeadConfig()
    optim: OptimConfig = OptimConfig()
    adapter: AdapterConfig = AdapterConfig()
    penalty: PenaltyConfig = PenaltyConfig()
    measure: MeasureConfig = MeasureConfig()
    method: str = "full"
    """``ADAPTER[+PENALTY]``."""
    strength: NonNegative | None = None
    """λ, dimensionless: the penalty's weight. Null without a penalty; 1.0 when a penalty is named without it."""
    seed: Seed = 0
    """Head initialisation, batch and view order, dropout."""
    checkpoint: Literal["last", "best"] = "last"
    """Which epoch's weights are reported."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        fields = dict(value)
        for name, first in _FIRST_FIELD.items():
            if isinstance(fields.get(name), str):
                fields[name] = {first: fields[name]}
        if fields.get("strength") is None and isinstance(fields.get("method"), str):
            try:
                method = parse_method(fields["method"])
            except ValueError:
                return fields
            fields["strength"] = None if method.penalty is None else 1.0
        return fields

    @field_validator("method")
    @classmethod
    def _known_method(cls, value: str) -> str:
        return parse_method(value).name

    @model_validator(mode="after")
    def _strength_fits(self) -> Self:
        if self.strength is not None and self.parsed_method.penalty is None:
            raise ValueError(f"strength is {self.strength:g}, but method {self.method!r} has no penalty; leave it out")
        return self

    @model_validator(mode="after")
    def _head_fits(self) -> Self:
        if ADAPTERS[self.parsed_method.adapter].linear_head and self.head.name != "linear":
            raise ValueError(f"method {self.method!r} fits a linear head, but head is {self.head.name!r}")
        return self

    @property
    def parsed_method(self) -> Method:
        """Adapter and penalty."""
        return parse_method(self.method)

    @property
    def n_views(self) -> int:
        """Size of the finite set of training views."""
        if self.data.augment == "none":
            return 1
        return 2 * self.optim.epochs if self.data.views == "auto" else self.data.views

    def flat(self) -> dict[str, object]:
        """Dotted keys to JSON values, in field order; ``from_flat`` reads it back."""
        found: dict[str, object] = {}
        for key, value in self.model_dump(mode="json").items():
            if isinstance(value, dict):
                for inner, inner_value in value.items():
                    short = key if _FIRST_FIELD.get(key) == inner else f"{key}.{inner}"
                    found[short] = inner_value
            else:
                found[key] = value
        return found

    @property
    def config_id(self) -> str:
        """Twelve hexadecimal digits naming the configuration without its seed."""
        canonical = {key: value for key, value in self.flat().items() if key != "seed"}
        text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @classmethod
    def from_flat(cls, flat: Mapping[str, object], *, where: str = "configuration") -> Self:
        """Build from dotted keys.

        Raises :class:`RequestError` with one mistake per key that is unknown or holds a value out of range; ``where``
        is the file the person wrote them in.
        """
        mistakes = [
            unknown(where, key, key, FLAT_KEYS, "key") for key in flat if key not in FLAT_KEYS and key not in _NESTED
        ]
        if mistakes:
            raise RequestError(*mistakes)
        nested: dict[str, object] = {}
        for key, value in flat.items():
            section, dot, name = key.partition(".")
            if not dot and section in _FIRST_FIELD:
                dot, name = ".", _FIRST_FIELD[section]
            if not dot:
                nested[section] = value
                continue
            inner = nested.setdefault(section, {})
            if isinstance(inner, dict):
                inner[name] = value
        try:
            return cls.model_validate(nested)
        except ValidationError as error:
            raise RequestError(*mistakes_from(error, where)) from None


_FIRST_FIELD = {"data": "source", "backbone": "name", "head": "name"}
FLAT_KEYS: tuple[str, ...] = tuple(TrialConfig().flat())
"""Every dotted key a trial's configuration has."""
_NAMES: dict[str, tuple[str, ...]] = {"method": method_names(), "head": tuple(HEADS)}
_NESTED = {f"{section}.{first}" for section, first in _FIRST_FIELD.items()}


def mistakes_from(error: ValidationError, where: str) -> list[Mistake]:
    """Translate pydantic's report into one :class:`Mistake` per wrong value."""
    mistakes = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        section, _, name = key.partition(".")
        if _FIRST_FIELD.get(section) == name:
            key = section
        message = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        if item["type"] == "extra_forbidden":
            mistakes.append(unknown(where, key, key, FLAT_KEYS, "key"))
            continue
        given = item.get("input")
        if key == "method" and isinstance(given, str) and "+" in given:
            mistakes.append(Mistake(where=where, key=key, problem=message, allowed=", ".join(_NAMES[key])))
        elif key in _NAMES:
            mistakes.append(unknown(where, key, given, _NAMES[key], key))
        elif item["type"] == "value_error":
            mistakes.append(Mistake(where=where, key=key, problem=message))
        else:
            hint = " (YAML reads 1e-5 as text: write 1.0e-5)" if _looks_like_a_number(given) else ""
            mistakes.append(
                Mistake(
                    where=where,
                    key=key,
                    problem=f"{one_line(given)} is not allowed{hint}",
                    allowed=message,
                    suggestion=nearest(given, re.findall(r"'([^']*)'", message)),
                )
            )
    return mistakes


def _looks_like_a_number(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        float(value)
    except ValueError:
        return False
    return True


def load_config(path: Path) -> TrialConfig:
    """Read a trial's configuration (nested or dotted keys) from a YAML file; RequestError when it is wrong."""
    import yaml

    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(Mistake(where=str(path), key="", problem=f"cannot be read: {error.strerror}")) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(Mistake(where=str(path), key="", problem=f"is not YAML: {error}")) from None
    if not isinstance(loaded, dict):
        raise RequestError(Mistake(where=str(path), key="", problem="must hold keys and values"))
    flat: dict[str, object] = {}
    for key, value in loaded.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{inner}": inner_value for inner, inner_value in value.items()})
        else:
            flat[str(key)] = value
    return TrialConfig.from_flat(flat, where=str(path))
