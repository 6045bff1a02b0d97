"""The penalties as the catalogue tells of them: what each holds, needs and costs.

Read it through :mod:`repsim.catalogue`, which is the door. Plain data, standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Need = Literal[
    "teacher_features",  # the pretrained network's features of the batch, cached for every view
    "teacher_statistics",  # its features of one view of the training images, and their mean and covariance
    "pretrained_weights",  # what the trained parameters were before the first step
    "source_head",  # the classifier the backbone was pretrained with
    "layers",  # pooled outputs of watched layers, of both networks
    "feature_maps",  # whole outputs of watched layers, of both networks: the pretrained one runs at every step
]


@dataclass(frozen=True, kw_only=True)
class PenaltyInfo:
    """What holds the representation.

    ``strength_range`` is the range of λ worth searching (dimensionless). ``zero_at_start`` and
    ``gradient_zero_at_start`` declare whether the penalty, and its gradient with respect to the features, vanish at the
    pretrained weights. ``raises_cka``: a large enough λ brings the CKA with the pretrained features up; where it does
    not (the features may go elsewhere at no cost), no similarity can be asked for. ``needs`` lists what the trainer
    must provide; ``min_batch`` is the smallest batch it is defined on. ``layerwise`` tells whether ``penalty.layers``
    can name other layers than the last. ``settings`` are the other keys of ``penalty`` that it reads. ``cost`` is the
    time of a training step relative to plain finetuning, in words, ``step_cost`` the same as a number for estimates.
    """

    name: str
    title: str
    summary: str
    paper: str
    strength_range: tuple[float, float]
    zero_at_start: bool
    gradient_zero_at_start: bool
    raises_cka: bool = True
    needs: frozenset[Need]
    min_batch: int
    layerwise: bool
    settings: tuple[str, ...] = ()
    cost: str
    step_cost: float
    when_to_use: str


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
            layerwise=True,
            settings=("map", "q_lr", "rank", "scale", "center", "momentum"),
            cost="at most 1.05 x (map cayley about 1.1 x, all layers 1.07 x)",
            step_cost=1.05,
            when_to_use="the default: keeps each image's place, and lets the whole space turn",
        ),
        PenaltyInfo(
            name="procrustes",
            title="Procrustes",
            summary="features equal the pretrained ones up to the best rotation and scale of each batch",
            paper="arXiv 2503.07399; distance: arXiv 2108.01661",
            strength_range=(0.03, 30.0),
            zero_at_start=True,
            gradient_zero_at_start=True,
            needs=frozenset({"teacher_features"}),
            min_batch=4,
            layerwise=True,
            cost="at most 1.05 x",
            step_cost=1.05,
            when_to_use="like repsim with nothing to learn or tune; more lenient when batches are small",
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
            layerwise=True,
            settings=("estimator", "margin", "queue"),
            cost="at most 1.05 x",
            step_cost=1.05,
            when_to_use="when CKA itself is the goal, or (with a margin) some least value of it",
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
            layerwise=True,
            cost="at most 1.05 x",
            step_cost=1.05,
            when_to_use="when a classifier or index built on the old features must go on working",
        ),
        PenaltyInfo(
            name="rift",
            title="RIFT",
            summary="the covariance of the features stays what it was",
            paper="arXiv 2503.07399v3; CORAL: arXiv 1607.01719",
            strength_range=(0.03, 30.0),
            zero_at_start=False,
            gradient_zero_at_start=False,
            raises_cka=False,
            needs=frozenset({"teacher_statistics"}),
            min_batch=4,
            layerwise=False,
            settings=("momentum", "q", "q_lr"),
            cost="at most 1.05 x",
            step_cost=1.05,
            when_to_use="when the pretrained network cannot be run on every view; holds a distribution, not images",
        ),
        PenaltyInfo(
            name="rsa",
            title="RSA",
            summary="distances between the images of a batch stay in proportion",
            paper="arXiv 1904.05068 (distance part)",
            strength_range=(0.03, 30.0),
            zero_at_start=True,
            gradient_zero_at_start=True,
            needs=frozenset({"teacher_features"}),
            min_batch=4,
            layerwise=True,
            cost="at most 1.10 x",
            step_cost=1.1,
            when_to_use="when neighbourhoods and distances matter more than directions",
        ),
        PenaltyInfo(
            name="knn_edge",
            title="kNN edges",
            summary="distances to the pretrained features' nearest neighbours stay in proportion",
            paper="arXiv 2306.11925 (edge term)",
            strength_range=(0.03, 30.0),
            zero_at_start=True,
            gradient_zero_at_start=True,
            needs=frozenset({"teacher_features"}),
            min_batch=4,
            layerwise=True,
            settings=("neighbours",),
            cost="at most 1.10 x",
            step_cost=1.1,
            when_to_use="when retrieval must keep working; far images may move",
        ),
        PenaltyInfo(
            name="triplet",
            title="triplets",
            summary="of any three images, the two most alike for the pretrained network stay so",
            paper="arXiv 2301.00810, eq. 2",
            strength_range=(0.03, 30.0),
            zero_at_start=False,
            gradient_zero_at_start=False,
            needs=frozenset({"teacher_features"}),
            min_batch=4,
            layerwise=True,
            settings=("margin",),
            cost="at most 1.10 x",
            step_cost=1.1,
            when_to_use="when the order of similarities matters, not their size",
        ),
        PenaltyInfo(
            name="l2_sp",
            title="L2-SP",
            summary="each layer's weights stay near the pretrained ones, relative to their size",
            paper="arXiv 1802.01483",
            strength_range=(0.03, 30.0),
            zero_at_start=True,
            gradient_zero_at_start=True,
            needs=frozenset({"pretrained_weights"}),
            min_batch=1,
            layerwise=False,
            cost="at most 1.10 x",
            step_cost=1.1,
            when_to_use="as the weight-space baseline; needs no pretrained features",
        ),
        PenaltyInfo(
            name="delta",
            title="DELTA",
            summary="the feature maps of every stage stay what they were, position by position",
            paper="arXiv 1901.09229 (without attention)",
            strength_range=(0.03, 30.0),
            zero_at_start=True,
            gradient_zero_at_start=True,
            needs=frozenset({"feature_maps"}),
            min_batch=1,
            layerwise=True,
            cost="about 1.25 x: the pretrained network runs too",
            step_cost=1.25,
            when_to_use="when where things are must be kept as well, as for detection",
        ),
        PenaltyInfo(
            name="bss",
            title="BSS",
            summary="the smallest singular values of a batch's features are pressed down",
            paper="Chen et al., NeurIPS 2019",
            strength_range=(0.03, 30.0),
            zero_at_start=False,
            gradient_zero_at_start=False,
            raises_cka=False,
            needs=frozenset({"teacher_features"}),
            min_batch=4,
            layerwise=True,
            settings=("smallest",),
            cost="at most 1.10 x",
            step_cost=1.1,
            when_to_use="against negative transfer from few images; it does not hold the features",
        ),
        PenaltyInfo(
            name="lwf",
            title="LwF",
            summary="the source classifier goes on giving the answers it gave",
            paper="arXiv 1606.09282",
            strength_range=(0.03, 30.0),
            zero_at_start=True,
            gradient_zero_at_start=True,
            needs=frozenset({"teacher_features", "source_head"}),
            min_batch=1,
            layerwise=False,
            settings=("temperature",),
            cost="at most 1.10 x",
            step_cost=1.1,
            when_to_use="when the source classes must still be told apart",
        ),
        PenaltyInfo(
            name="co_tuning",
            title="co-tuning",
            summary="the source classifier sees in each image what it saw in the image's class",
            paper="You et al., NeurIPS 2020",
            strength_range=(0.03, 30.0),
            zero_at_start=False,
            gradient_zero_at_start=False,
            raises_cka=False,
            needs=frozenset({"source_head", "teacher_statistics"}),
            min_batch=1,
            layerwise=False,
            cost="at most 1.10 x",
            step_cost=1.1,
            when_to_use="few labelled images close to the source classes",
        ),
    )
}
