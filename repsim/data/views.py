"""Training views: a finite, seeded set of augmented versions of every image, made a batch at a time.

View ``v`` of image ``i`` is a function of (entropy, v, i) alone, neither of the batch nor of a training seed, so that
features of the frozen teacher can be computed once per view and kept.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

VIEW_ENTROPY = 0x51EE7
"""Constant that fixes the views of every image for good."""
FLIP_PROBABILITY = 0.5
ZOOM = 1.25
"""Largest magnification; the smallest is its inverse; log-uniform between."""
SHIFT = 0.08
"""Largest translation, as a fraction of the side."""
ROTATION_DEGREES = 10.0
BRIGHTNESS = 0.15
"""Largest change of the mean, on the 0-1 scale."""
CONTRAST = (0.8, 1.2)

VIEWS_VERSION = 1
"""Raised whenever the views of the same entropy change: cached features are keyed by it."""
_BLOCK = 1024
_COLUMNS = 8


class Views:
    """``n_views`` versions of each image of side ``image_size``.

    ``standard``: horizontal flip, zoom, translation, rotation, brightness and contrast. ``none``: the images as they
    are, whatever the view.
    """

    def __init__(
        self,
        *,
        n_views: int,
        image_size: int,
        seed_entropy: int = VIEW_ENTROPY,
        kind: Literal["standard", "none"] = "standard",
    ) -> None:
        if n_views < 1:
            raise ValueError(f"n_views must be at least 1, not {n_views}")
        if kind not in ("standard", "none"):
            raise ValueError(f"{kind!r} is not a kind of view; allowed: standard, none")
        self.n_views = n_views
        self.image_size = image_size
        self.seed_entropy = seed_entropy
        self.kind = kind
        centres = (torch.arange(image_size, dtype=torch.float32) + 0.5) * (2.0 / image_size) - 1.0
        self._across = centres.reshape(1, 1, image_size)
        self._down = centres.reshape(1, image_size, 1)

    def augment(self, images: NDArray[np.uint8], indices: NDArray[np.int64], view: int) -> torch.Tensor:
        """View number ``view`` of some images.

        ``images``: uint8 (batch, side, side, 3); ``indices``: (batch,), each image's position in the whole set. Returns
        float32 (batch, 3, side, side) in [0, 1], channels last. Raises ValueError for an unknown view or another shape.
        """
        side = self.image_size
        if not 0 <= view < self.n_views:
            raise ValueError(f"view {view} is not one of the {self.n_views} views")
        if images.shape != (len(indices), side, side, 3):
            raise ValueError(f"images have shape {images.shape}, expected ({len(indices)}, {side}, {side}, 3)")
        if self.kind == "none":
            return to_tensor(images)
        table = torch.from_numpy(self.parameters(indices, view)).reshape(len(indices), _COLUMNS, 1, 1).unbind(1)
        xx, xy, x0, yx, yy, y0, gain, offset = table
        # Separate products and sums, not a batched matrix product: its rounding would depend on the batch size.
        grid = torch.empty(len(indices), side, side, 2)
        grid[..., 0] = self._across * xx + (self._down * xy + x0)
        grid[..., 1] = self._across * yx + (self._down * yy + y0)
        planar = _as_torch(images).permute(0, 3, 1, 2).contiguous().float()
        moved = functional.grid_sample(planar, grid, mode="bilinear", padding_mode="border", align_corners=False)
        moved.mul_(gain.unsqueeze(1)).add_(offset.unsqueeze(1)).clamp_(0.0, 1.0)
        return moved.contiguous(memory_format=torch.channels_last)

    def parameters(self, indices: NDArray[np.int64], view: int) -> NDArray[np.float32]:
        """Affine map from output to input coordinates (6), gain and offset of each image: float32 (batch, 8)."""
        blocks = np.asarray(indices) // _BLOCK
        rows = np.empty((len(indices), _COLUMNS), dtype=np.float32)
        for block in np.unique(blocks):
            chosen = blocks == block
            rows[chosen] = _block_of_parameters(self.seed_entropy, view, int(block))[indices[chosen] % _BLOCK]
        return rows


@lru_cache(maxsize=512)
def _block_of_parameters(entropy: int, view: int, block: int) -> NDArray[np.float32]:
    """Parameters of ``_BLOCK`` neighbouring images: a whole block at a time, whichever of them are asked for."""
    draws = np.random.default_rng([entropy, view, block]).random((_BLOCK, 7))
    signed = 2.0 * draws - 1.0
    flip = np.where(draws[:, 0] < FLIP_PROBABILITY, -1.0, 1.0)
    scale = np.exp(-np.log(ZOOM) * signed[:, 1])
    shift_x, shift_y = 2.0 * SHIFT * signed[:, 2], 2.0 * SHIFT * signed[:, 3]
    angle = np.deg2rad(ROTATION_DEGREES) * signed[:, 4]
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    contrast = CONTRAST[0] + (CONTRAST[1] - CONTRAST[0]) * draws[:, 5]
    # Contrast turns about mid grey; pixels come as 0..255.
    offset = 0.5 * (1.0 - contrast) + BRIGHTNESS * signed[:, 6]
    columns = (flip * cosine, -flip * sine, shift_x, sine, cosine, shift_y, contrast / 255.0, offset)
    rows = np.stack(columns, axis=1).astype(np.float32)
    rows.setflags(write=False)
    return rows


def to_tensor(images: NDArray[np.uint8]) -> torch.Tensor:
    """uint8 (batch, height, width, 3) as float32 (batch, 3, height, width) in [0, 1], channels last."""
    return _as_torch(images).permute(0, 3, 1, 2).float().mul_(1.0 / 255.0)


def _as_torch(images: NDArray[np.uint8]) -> torch.Tensor:
    """torch cannot hold read-only memory, such as a slice of a memory-mapped array: that is copied."""
    return torch.from_numpy(images if images.flags.writeable else np.array(images))
