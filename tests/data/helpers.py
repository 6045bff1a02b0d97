"""Small image sources made on the spot."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def picture(seed: int, height: int = 20, width: int = 24) -> NDArray[np.uint8]:
    """Smooth random colours: uint8 (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def write_png(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed)).save(path, format="PNG")
    return path


def write_folder(root: Path, counts: Mapping[str, int]) -> Path:
    """A folder per class with so many images; every image differs."""
    seed = 0
    for label, count in counts.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            write_png(root / label / f"{number:03d}.png", seed)
            seed += 1
    return root


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


def npz_arrays(side: int = 12, channels: int | None = None) -> dict[str, NDArray[np.uint8]]:
    """Arrays in the MedMNIST layout: 9, 6 and 3 images of 3 classes."""
    arrays = {}
    rng = np.random.default_rng(0)
    for part, count in (("train", 9), ("val", 6), ("test", 3)):
        shape = (count, side, side) if channels is None else (count, side, side, channels)
        arrays[f"{part}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        arrays[f"{part}_labels"] = (np.arange(count, dtype=np.uint8) % 3).reshape(-1, 1)
    return arrays
