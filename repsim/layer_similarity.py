"""What training leaves of each layer: debiased linear CKA of every stage with its pretrained self, epoch by epoch.

A layer is a stage that timm names (a transformer's block), and its features of an image are the means of its output
over positions; over the patches' tokens in a transformer, without class token and prompts. The images are those that
measure ``val_cka``, which says the same of the features before the head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repsim.config import TrialConfig
from repsim.data.dataset import ImageSet
from repsim.errors import DegenerateInputError
from repsim.layers import collected, stage_widths
from repsim.model import FineTuned
from repsim.ranks import ALONE, Ranks
from repsim.records import LAYER_PREFIX
from repsim.similarity.cka import debiased_cka
from repsim.teacher import Teacher


class LayerSimilarity:
    """Listens to an evaluation on the val images, and compares what it heard with the pretrained network.

    ``names`` are the layers from input to output, ``missing`` those that cannot or could not be measured, each with the
    first reason. ``moves`` says whether the backbone is trained; one that is not is not run at all.
    """

    def __init__(
        self,
        config: TrialConfig,
        model: FineTuned,
        images: ImageSet,
        teacher: Teacher,
        *,
        moves: bool,
        ranks: Ranks = ALONE,
    ) -> None:
        self.names = tuple(stage_widths(model.backbone))
        self.missing = dict(teacher.unreadable_layers)
        if not self.names:
            self.missing = {"*": f"{config.backbone.name} has no stages that timm names"}
        self._readable = tuple(name for name in self.names if name not in teacher.unreadable_layers)
        self._backbone, self._teacher, self._moves = model.backbone, teacher, moves
        self._probe = images.probe("val", config.data.probe_size)
        self._rows = np.searchsorted(images.val, self._probe)
        self._ranks, self._share = ranks, ranks.share(len(images.val))
        self._heard: dict[str, list[Tensor]] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, the model is run on this rank's share of the val images once, in order, and on nothing else."""
        inside = (self._rows >= self._share.start) & (self._rows < self._share.stop)
        with collected(self._backbone, self._readable, self._rows[inside] - self._share.start) as self._heard:
            yield

    def measure(self, epoch: int) -> dict[str, float]:
        """Similarity by layer, in [-1, 1], of what was heard last; without the layers for which it is not defined."""
        before = self._teacher.clean_layers(self._probe, self._readable) if self._readable else {}
        found = {}
        for name, features in before.items():
            now = self._all(torch.cat(self._heard[name]).numpy()) if self._moves else features
            try:
                found[name] = debiased_cka(features, now)
            except DegenerateInputError as error:
                self.missing.setdefault(name, f"{error} (epoch {epoch})")
        self._heard = {}
        return found

    def _all(self, own: NDArray[np.float32]) -> NDArray[np.float32]:
        """The probe's rows of every rank; there may be more of them in one share than in another."""
        return np.concatenate(self._ranks.every(own)) if self._ranks.size > 1 else own

    def facts(self, not_measured: Sequence[object]) -> dict[str, object]:
        """The facts ``layers`` and ``not_measured``, the latter behind what others could not measure."""
        missing = [[LAYER_PREFIX + name, reason] for name, reason in self.missing.items()]
        return {"layers": list(self.names), "not_measured": [*not_measured, *missing]}
