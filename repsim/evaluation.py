"""Measure a model on a split: one pass gives features and logits, and those give every val or test metric."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repsim.data.dataset import ImageSet, Split
from repsim.data.views import to_tensor
from repsim.metrics import classification_metrics
from repsim.model import FineTuned
from repsim.ranks import ALONE, Ranks
from repsim.records import PROBABILITY_PREFIX
from repsim.seeding import generator
from repsim.similarity import similarity_metrics

EVALUATION_BATCH = 64
SHARPNESS_IMAGES = 512

Index = NDArray[np.int64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Outputs:
    """A model's answers on some images: features (n, d) and logits (n, classes), float32."""

    features: Float32
    logits: Float32


def outputs_of(model: FineTuned, images: ImageSet, indices: Index, ranks: Ranks = ALONE) -> Outputs:
    """Run the model in eval mode and fp32 on the images as they are, each rank on its share; all know all answers."""
    n, own = len(indices), indices[ranks.share(len(indices))]
    found = outputs_on(model, (pixels for pixels, _ in _batches(images, own, model.mean.device)))
    return Outputs(ranks.collect(found.features, n), ranks.collect(found.logits, n))


def outputs_on(model: FineTuned, batches: Iterable[Tensor]) -> Outputs:
    """Run the model in eval mode and fp32 on batches of images (b, 3, h, w) in 0-1, one of them at least."""
    features, logits = [], []
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for pixels in batches:
            some_features, some_logits = model(pixels)
            features.append(some_features.float().cpu().numpy())
            logits.append(some_logits.float().cpu().numpy())
    model.train(was_training)
    return Outputs(np.concatenate(features), np.concatenate(logits))


def outputs_of_head(model: FineTuned, features: Float32) -> Outputs:
    """The head's answers on features that are known already, because the backbone has not moved."""
    with torch.inference_mode():
        logits: Tensor = model.head(torch.from_numpy(features).to(model.mean.device))
    return Outputs(features, logits.float().cpu().numpy())


def split_metrics(
    split: Split, outputs: Outputs, pretrained: Float32, images: ImageSet, probe: Index
) -> dict[str, float]:
    """Every ``val_*`` or ``test_*`` metric.

    ``outputs`` and ``pretrained`` (n, d) belong to the split's images in order; ``probe`` (m,) are the indices of the
    images that measure similarity, all of them in the split.
    """
    indices = images.split(split)
    rows = np.searchsorted(indices, probe)
    values = classification_metrics(outputs.logits, images.labels[indices])
    values |= similarity_metrics(pretrained[rows], outputs.features[rows])
    return {f"{split}_{name}": value for name, value in values.items()}


def predictions(split: Split, outputs: Outputs, images: ImageSet) -> dict[str, list[object]]:
    """Per-image columns: ``image``, ``label``, ``predicted`` (class names), and a probability per class."""
    indices = images.split(split)
    shares = probabilities(outputs.logits)
    columns: dict[str, list[object]] = {
        "image": [images.names[i] for i in indices],
        "label": [images.classes[images.labels[i]] for i in indices],
        "predicted": [images.classes[i] for i in shares.argmax(axis=1)],
    }
    for number, name in enumerate(images.classes):
        columns[f"{PROBABILITY_PREFIX}{name}"] = list(shares[:, number].tolist())
    return columns


def probabilities(logits: Float32) -> NDArray[np.float64]:
    """Softmax of logits (n, classes), row by row in float64."""
    exact = logits.astype(np.float64)
    shifted = np.exp(exact - exact.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return shares


def sharpness_indices(images: ImageSet) -> Index:
    """At most SHARPNESS_IMAGES training images, the same ones for every trial on this split."""
    if len(images.train) <= SHARPNESS_IMAGES:
        return images.train
    chosen = generator(0, "sharpness").choice(len(images.train), SHARPNESS_IMAGES, replace=False)
    picked: Index = images.train[np.sort(chosen)]
    return picked


def labelled_batches(images: ImageSet, indices: Index, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches (images (b, 3, h, w) in 0-1, labels (b,)) of the images as they are, in order."""
    for pixels, rows in _batches(images, indices, device):
        yield pixels, torch.from_numpy(images.labels[rows]).to(device)


def _batches(images: ImageSet, indices: Index, device: torch.device) -> Iterator[tuple[Tensor, Index]]:
    for start in range(0, len(indices), EVALUATION_BATCH):
        rows = indices[start : start + EVALUATION_BATCH]
        yield to_tensor(images.images[rows]).to(device), rows
