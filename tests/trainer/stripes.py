"""A tiny real data set on disk and a tiny backbone: a whole trial in a second or two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from repsim.config import TrialConfig
from repsim.workspace import Workspace

SIDE = 32
PER_CLASS = 17  # 3 x 17 = 51 images, 30 of them for training: batches of 8 leave a partial one


def write_images(root: Path) -> Path:
    """Three classes of noisy stripes that differ in direction and colour."""
    rng = np.random.default_rng(0)
    down, across = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    for number, name in enumerate(("fine", "middle", "coarse")):
        (root / name).mkdir(parents=True)
        for index in range(PER_CLASS):
            wave = np.sin(2 * np.pi * ((number + 1) * 2 * across + number * down + rng.random()))
            colour = np.array([1.0, 0.5, number / 2])
            pixels = 127 + 60 * wave[..., None] * colour + rng.normal(0, 40, (SIDE, SIDE, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{index:03d}.png")
    return root


def tiny_workspace(cache: Path) -> Workspace:
    """One CPU thread, a cache of its own."""
    torch.set_num_threads(1)
    return Workspace(cache_dir=cache, device=torch.device("cpu"))


def tiny_config(root: Path, **changes: object) -> TrialConfig:
    """A configuration on the tiny data: ``tiny_config(root, method="repsim", **{"optim.epochs": 3})``."""
    flat: dict[str, object] = {
        "data": f"folder:{root}",
        "data.image_size": SIDE,
        "backbone": "test_efficientnet",
        "backbone.weights": "random",
        "optim.epochs": 2,
        "optim.batch_size": 8,
    }
    return TrialConfig.from_flat(flat | changes)
