"""What stays loaded between trials of one process: images, pretrained backbones, teacher features."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from repsim.backbones import Backbone, built_for, load_backbone
from repsim.config import DataConfig, TrialConfig
from repsim.data.cache import default_cache_dir
from repsim.data.dataset import ImageSet, load_images
from repsim.data.views import Views
from repsim.teacher import Teacher

_KEPT = 4
V = TypeVar("V")


class Workspace:
    """Loads on first use and keeps the few most recent of each kind; holds nothing that a trial changes.

    ``cache_dir`` defaults to the user's cache folder; ``device`` to the first GPU, else the CPU.
    """

    def __init__(self, *, cache_dir: Path | None = None, device: torch.device | None = None) -> None:
        self.cache_dir = default_cache_dir() if cache_dir is None else cache_dir
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu") if device is None else device
        self._images: OrderedDict[object, ImageSet] = OrderedDict()
        self._backbones: OrderedDict[object, Backbone] = OrderedDict()
        self._teachers: OrderedDict[object, Teacher] = OrderedDict()

    def images(self, config: DataConfig) -> ImageSet:
        """The decoded, split data set."""
        return _remember(self._images, config, lambda: load_images(config, cache_dir=self.cache_dir))

    def backbone(self, config: TrialConfig) -> Backbone:
        """The pretrained backbone, to be copied and never trained."""
        side = config.data.image_size
        return _remember(
            self._backbones,
            (config.backbone, built_for(config.backbone.name, side)),
            lambda: load_backbone(config.backbone, cache_dir=self.cache_dir, image_size=side),
        )

    def views(self, config: TrialConfig) -> Views:
        """The finite set of augmented views."""
        return Views(n_views=config.n_views, image_size=config.data.image_size, kind=config.data.augment)

    def teacher(self, config: TrialConfig) -> Teacher:
        """The frozen backbone's features on the data set's views."""
        return _remember(
            self._teachers,
            (config.data, config.backbone, config.n_views),
            lambda: Teacher(
                self.backbone(config), self.images(config.data), self.views(config), self.cache_dir, self.device
            ),
        )


def _remember(kept: OrderedDict[object, V], key: object, make: Callable[[], V]) -> V:
    if key not in kept:
        kept[key] = make()
        while len(kept) > _KEPT:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return kept[key]
