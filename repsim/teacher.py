"""The pretrained network's features, computed once and kept on disk, so that training never runs the teacher.

Training draws from a finite set of augmented views, so every feature a penalty will ask for can be cached: one array
per view, plus one of the images as they are. Keyed by weights, images, split and view definition. What a module deeper
in the network is given can be kept in the same way, for trainings in which nothing in front of it moves.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from repsim.backbones import Backbone
from repsim.data.dataset import ImageSet
from repsim.data.views import VIEWS_VERSION, Views, to_tensor
from repsim.layers import collected, pooled, stage_widths, unreadable, watched
from repsim.model import FineTuned
from repsim.penalties.base import Statistics

_BATCH = 64
_ROWS = 4096
Features = NDArray[np.float32]
Index = NDArray[np.int64]


class Teacher:
    """Features of one frozen backbone on one data set.

    ``clean()`` is (n, d) over all images; ``view(v)`` is (n_train, d) over the training images in the order of
    ``images.train``. Two processes asking at once compute once: the second waits for the first.
    """

    def __init__(self, backbone: Backbone, images: ImageSet, views: Views, folder: Path, device: torch.device) -> None:
        self._images, self._views, self._device = images, views, device
        shape = (1, 3, 1, 1)
        mean, std = torch.tensor(backbone.mean).view(shape), torch.tensor(backbone.std).view(shape)
        self._model = FineTuned(backbone.module, torch.nn.Identity(), mean, std).to(device).eval()
        size = str(images.images.shape[1])
        self._statistics: Statistics | None = None
        base = "|".join([backbone.name, backbone.weights_id, images.data_hash, size, device.type])
        train = hashlib.sha256(np.ascontiguousarray(images.train).tobytes()).hexdigest()
        self._clean_folder = folder / "features" / _digest(base)
        self._view_folder = (
            folder / "features" / _digest(f"{base}|{views.kind}|{views.seed_entropy}|{VIEWS_VERSION}|{train}")
        )

    def clean(self) -> Features:
        """Features of every image as it is, (n, d) float32."""
        everything = np.arange(len(self._images.images))
        return self._cached(self._clean_folder / "clean.npy", everything, None, self._last)

    def view(self, view: int) -> Features:
        """Features of the training images as augmented view ``view``, (n_train, d) float32."""
        return self._cached(self._view_folder / f"view_{view:04d}.npy", self._images.train, view, self._last)

    def inputs(self, view: int, name: str) -> Features:
        """What the module called ``name`` is given for the training images as augmented view ``view``: (n_train, …)."""
        path = self._view_folder / f"view_{view:04d}_{_digest(f'input of {name}')}.npy"
        return self._cached(path, self._images.train, view, partial(self._input_of, name))

    def layers(self, view: int, names: Sequence[str]) -> dict[str, Features]:
        """Pooled outputs (n_train, c) of the watched layers ``names`` for augmented view ``view``."""
        path = self._view_folder / f"view_{view:04d}_{_digest('|'.join(names))}.npy"
        return self._apart(self._cached(path, self._images.train, view, partial(self._layers_of, names)), names)

    @cached_property
    def unreadable_layers(self) -> dict[str, str]:
        """Stages that cannot be watched, though timm names them, each with the reason."""
        side = self._images.images.shape[1]
        return unreadable(self._model.backbone, self._model.mean.new_zeros(1, 3, side, side))

    def clean_layers(self, indices: Index, names: Sequence[str]) -> dict[str, Features]:
        """Pooled outputs (m, c) of the watched layers ``names`` for images number ``indices`` (m,) as they are."""
        which = hashlib.sha256(np.ascontiguousarray(indices).tobytes()).hexdigest()
        path = self._clean_folder / f"layers_{_digest('|'.join([which, *names]))}.npy"
        return self._apart(self._cached(path, indices, None, partial(self._means_of, names)), names)

    def _apart(self, together: Features, names: Sequence[str]) -> dict[str, Features]:
        widths = stage_widths(self._model.backbone)
        ends = np.cumsum([widths[name] for name in names])
        return {name: together[:, end - widths[name] : end] for name, end in zip(names, ends, strict=True)}

    @torch.no_grad()
    def maps(self, images: Tensor, names: Sequence[str], *, bf16: bool) -> dict[str, Tensor]:
        """Outputs (b, c, positions…) of the watched layers for images (b, 3, h, w), by running the network now."""
        with watched(self._model.backbone, names) as seen:
            with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=bf16):
                self._model.features(images)
            return dict(seen)

    def statistics(self) -> Statistics:
        """Mean and covariance of ``view(0)``, on the CPU."""
        if self._statistics is None:
            self._statistics = feature_statistics(self.view(0))
        return self._statistics

    def _cached(self, path: Path, indices: Index, view: int | None, of: Callable[[Tensor], Tensor]) -> Features:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                if not path.exists():
                    temporary = path.with_suffix(f".{os.getpid()}.tmp")
                    with temporary.open("wb") as file:
                        np.save(file, self._compute(indices, view, of))
                        file.flush()
                        os.fsync(file.fileno())
                    temporary.replace(path)
        loaded: Features = np.load(path, mmap_mode="r", allow_pickle=False)
        return loaded

    @torch.inference_mode()
    def _compute(self, indices: Index, view: int | None, of: Callable[[Tensor], Tensor]) -> Features:
        found: Features | None = None
        for start in range(0, len(indices), _BATCH):
            rows = indices[start : start + _BATCH]
            pixels = self._images.images[rows]
            batch = to_tensor(pixels) if view is None else self._views.augment(pixels, rows, view)
            part = of(batch.to(self._device)).float().cpu().numpy()
            if found is None:
                found = np.empty((len(indices), *part.shape[1:]), dtype=np.float32)
            found[start : start + len(rows)] = part
        if found is None:
            raise ValueError("there are no images to compute features of")
        return found

    def _last(self, images: Tensor) -> Tensor:
        return self._model.features(images)

    def _layers_of(self, names: Sequence[str], images: Tensor) -> Tensor:
        with watched(self._model.backbone, names) as seen:
            self._model.features(images)
        found = pooled(seen)
        return torch.cat([found[name] for name in names], dim=1)

    def _means_of(self, names: Sequence[str], images: Tensor) -> Tensor:
        """As evaluation collects them: in passing, before what follows could write into a layer's output."""
        with collected(self._model.backbone, names, np.arange(len(images))) as found:
            self._model.features(images)
        return torch.cat([found[name][0] for name in names], dim=1)

    def _input_of(self, name: str, images: Tensor) -> Tensor:
        seen: list[Tensor] = []
        module = self._model.backbone.get_submodule(name)
        handle = module.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
        try:
            self._model.features(images)
        finally:
            handle.remove()
        return seen[0]


def feature_statistics(features: Features) -> Statistics:
    """Mean (d,) and covariance (d, d, divided by n - 1) of features (n, d), accumulated in float64."""
    total = np.zeros(features.shape[1])
    for start in range(0, len(features), _ROWS):
        total += features[start : start + _ROWS].sum(axis=0, dtype=np.float64)
    mean = total / len(features)
    scatter = np.zeros((features.shape[1], features.shape[1]))
    for start in range(0, len(features), _ROWS):
        rows = features[start : start + _ROWS] - mean
        scatter += rows.T @ rows
    covariance = scatter / max(1, len(features) - 1)
    return Statistics(mean=torch.from_numpy(mean).float(), covariance=torch.from_numpy(covariance).float())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]
