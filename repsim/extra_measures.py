"""What ``measure`` asks for beside the standard numbers, taken once, when a trial is finished.

A measure that is not defined on a trial's images (PWCCA with fewer images than features, say) is left out, and the
reason recorded: the trial is none the worse for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
from torch import Tensor

from repsim.config import MeasureConfig
from repsim.data.dataset import ImageSet, Split
from repsim.errors import DegenerateInputError
from repsim.evaluation import Float32, Index, Outputs, labelled_batches, sharpness_indices
from repsim.metrics import equal_mass_error, quadratic_kappa
from repsim.model import FineTuned
from repsim.quality import alpha_req, effective_rank, knn_accuracy, rankme
from repsim.sharpness import FULL
from repsim.similarity.comparison import HEADLINE, compare
from repsim.similarity.registry import REGISTRY

IMAGES = 128
"""Of the sharpness images, for the measures that take dozens of gradients."""
SHUFFLES = 5
"""Shuffles of the rows that give a similarity's null."""

Take = Callable[[], Mapping[str, float]]
_HELD_OUT: tuple[Split, ...] = ("val", "test")


def extra_measures(
    measure: MeasureConfig,
    model: FineTuned,
    images: ImageSet,
    outputs: Mapping[Split, Outputs],
    pretrained: Float32,
    probe_size: int,
) -> tuple[dict[str, float], dict[str, object]]:
    """Values by their names in METRICS, and facts.

    ``outputs`` holds val and test, and train where ``measure.quality`` is ``full``; ``pretrained`` (n, d) the features
    of all images before training. Facts are ``not_measured``: pairs of measure and reason; ``similarity_null``: pairs
    of a similarity's name and its mean over reorderings of the images. Each is there when something was asked for.
    """
    values: dict[str, float] = {}
    missing: list[list[str]] = []
    null: list[list[object]] = []
    takes: list[tuple[str, Take]] = []
    if measure.sharpness == "full":
        takes += _sharpness(model, images)
    for split in _HELD_OUT:
        if measure.similarity == "full":
            rows = images.probe(split, probe_size)
            now = outputs[split].features[np.searchsorted(images.split(split), rows)]
            takes += _similarity(split, pretrained[rows], now, null)
        if measure.quality == "full":
            takes += _quality(split, images, outputs)
    for what, take in takes:
        try:
            values |= take()
        except (DegenerateInputError, FloatingPointError) as error:
            missing.append([what, str(error)])
    facts: dict[str, object] = {"not_measured": missing} if takes else {}
    return values, facts | ({"similarity_null": null} if measure.similarity == "full" else {})


def few_indices(images: ImageSet) -> Index:
    """At most IMAGES of the sharpness images, evenly spread."""
    chosen = sharpness_indices(images)
    if len(chosen) <= IMAGES:
        return chosen
    few: Index = chosen[np.linspace(0, len(chosen) - 1, IMAGES).round().astype(np.int64)]
    return few


def _sharpness(model: FineTuned, images: ImageSet) -> Iterator[tuple[str, Take]]:
    rows = few_indices(images)
    plain = model.merged()

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        return labelled_batches(images, rows, model.mean.device)

    for name, take in FULL.items():
        yield name, partial(take, plain, batches)


def _similarity(split: Split, before: Float32, after: Float32, null: list[list[object]]) -> Iterator[tuple[str, Take]]:
    def take(name: str) -> Mapping[str, float]:
        found = compare(before, after, [name], null=SHUFFLES)[name]
        mean = found.null_mean
        null.append([f"{split}_{name}", None if mean is None else round(mean, 4)])  # facts are stored in few characters
        return {} if name in HEADLINE else {f"{split}_{name}": found.value}

    for name in REGISTRY:
        yield f"{split}_{name}", partial(take, name)


def _quality(split: Split, images: ImageSet, outputs: Mapping[Split, Outputs]) -> Iterator[tuple[str, Take]]:
    features, logits, labels = outputs[split].features, outputs[split].logits, images.labels[images.split(split)]
    bank, bank_labels = outputs["train"].features, images.labels[images.train]
    measures: dict[str, Callable[[], float]] = {
        "ece_equal_mass": lambda: equal_mass_error(logits, labels),
        "qwk": lambda: quadratic_kappa(logits, labels),
        "knn_accuracy": lambda: knn_accuracy(features, labels, bank, bank_labels),
        "rankme": lambda: rankme(features),
        "effective_rank": lambda: effective_rank(features),
        "alpha_req": lambda: alpha_req(features),
    }

    def take(name: str) -> Mapping[str, float]:
        return {f"{split}_{name}": measures[name]()}

    for name in measures:
        yield f"{split}_{name}", partial(take, name)
