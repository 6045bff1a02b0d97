"""What penalties are given: once when they are built, and for every batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repsim.backbones import Backbone
from repsim.config import TrialConfig
from repsim.data.dataset import ImageSet
from repsim.layers import pooled, watched
from repsim.model import FineTuned
from repsim.penalties import Batch, Penalty, PenaltyContext, build_penalty
from repsim.penalties.checks import check_penalty, needs_of, watched_widths
from repsim.penalties.layerwise import LAST
from repsim.ranks import ALONE, Ranks
from repsim.teacher import Teacher

Index = NDArray[np.int64]


def make_penalty(
    config: TrialConfig, backbone: Backbone, model: FineTuned, images: ImageSet, teacher: Teacher
) -> Penalty | None:
    """The configuration's penalty, on the model's device, or None.

    ``model`` is what will be trained, before its first step. RequestError when the backbone cannot give what it needs.
    """
    name = config.parsed_method.penalty
    if name is None:
        return None
    check_penalty(config, backbone)
    needs = needs_of(config)
    statistics = teacher.statistics() if "teacher_statistics" in needs else None
    weights = {key: value for key, value in model.backbone.named_parameters() if value.requires_grad}
    context = PenaltyContext(
        dim=backbone.dim,
        n_classes=len(images.classes),
        config=config.penalty,
        seed=config.seed,
        train_labels=torch.from_numpy(np.array(images.labels[images.train])),
        train_features=None if statistics is None else torch.from_numpy(np.array(teacher.view(0))),
        statistics=statistics,
        pretrained_weights=weights if "pretrained_weights" in needs else {},
        source_head=backbone.source_head if "source_head" in needs else None,
    )
    return build_penalty(name, context, watched_widths(config, backbone)).to(model.mean.device)


class Feed:
    """Fills a :class:`Batch` as far as the configuration's penalty needs it."""

    def __init__(
        self, config: TrialConfig, backbone: Backbone, model: FineTuned, teacher: Teacher, ranks: Ranks = ALONE
    ) -> None:
        self._ranks = ranks
        self._needs = needs_of(config)
        self._layers = tuple(name for name in watched_widths(config, backbone) if name != LAST)
        self._model, self._teacher = model, teacher
        self._bf16 = config.optim.precision == "bf16"
        self._view: int | None = None
        self._features: NDArray[np.float32] | None = None
        self._pooled: Mapping[str, NDArray[np.float32]] = {}

    @property
    def watches(self) -> bool:
        """Whether the penalty looks at layers before the last features."""
        return bool(self._layers)

    def prepare(self, view: int) -> None:
        """Fetch what the pretrained network says of the training images in augmented view ``view``."""
        if self._view == view:
            return
        self._view = view
        if "teacher_features" in self._needs:
            self._features = self._teacher.view(view)
        if "layers" in self._needs:
            self._pooled = self._teacher.layers(view, self._layers)

    @contextmanager
    def watching(self) -> Iterator[Mapping[str, Tensor]]:
        """Inside, the training network's forward pass leaves its watched layers' outputs."""
        if not self._layers:
            yield {}
            return
        with watched(self._model.backbone, self._layers) as seen:
            yield seen

    def batch(self, features: Tensor, labels: Tensor, rows: Index, images: Tensor, seen: Mapping[str, Tensor]) -> Batch:
        """What the penalty sees of one batch.

        ``features`` (n, d) are the training network's for training images number ``rows`` in the prepared view.
        ``images`` (m, 3, h, w) are this rank's share of these, ``seen`` the watched layers' outputs for that share.
        """
        device = features.device
        whole = "feature_maps" in self._needs
        ours = dict(seen) if whole else pooled(seen)
        joined = {name: self._ranks.join(output, len(rows)) for name, output in ours.items()}
        theirs = self._teacher.maps(images, self._layers, bf16=self._bf16) if whole else {}
        return Batch(
            features=features,
            labels=labels,
            backbone=self._model.backbone,
            teacher=None if self._features is None else torch.from_numpy(self._features[rows]).to(device),
            layers={} if whole else joined,
            teacher_layers={name: torch.from_numpy(found[rows]).to(device) for name, found in self._pooled.items()},
            maps=joined if whole else {},
            teacher_maps={name: self._ranks.join(output, len(rows)) for name, output in theirs.items()},
        )
