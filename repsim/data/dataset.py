"""The images of a trial: decoded, labelled, split, hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from repsim.config import DataConfig
from repsim.data.cache import decode_all, default_cache_dir
from repsim.data.listing import Listing, Pixels, check_enough
from repsim.data.sources import list_images
from repsim.data.splits import (
    duplicates_across_splits,
    grouped_split,
    own_split,
    stratified_sample,
    stratified_split,
)

Split = Literal["train", "val", "test"]
Indices = NDArray[np.int64]
_PROBE_ENTROPY = 0x9B0BE


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """Images with their labels and their split.

    ``images``: uint8 RGB (n, size, size, 3), memory-mapped, read-only. ``labels``: int64 (n,), positions in
    ``classes``. ``names``: unique, relative to the source. ``train``, ``val``, ``test``: sorted int64 indices.
    ``hashes``: SHA-256 of each image's pixels. ``data_hash``: 16 hexadecimal digits of pixels, labels and names; the
    split and the place of the source do not matter. ``skipped``: names of the images that could not be decoded.
    ``duplicates``: pairs of names with equal pixels in different parts of the split.
    """

    images: Pixels
    labels: Indices
    names: tuple[str, ...]
    classes: tuple[str, ...]
    train: Indices
    val: Indices
    test: Indices
    hashes: tuple[str, ...]
    data_hash: str
    skipped: tuple[str, ...]
    duplicates: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def split(self, name: Split) -> Indices:
        """Sorted indices of one part. Raises ValueError for an unknown name."""
        parts = {"train": self.train, "val": self.val, "test": self.test}
        if name not in parts:
            raise ValueError(f"{name!r} is not a part of a split; allowed: train, val, test")
        return parts[name]

    def probe(self, split: Split, size: int) -> Indices:
        """Sorted indices of at most ``size`` images of one part, the classes in proportion; the same at every call."""
        part = self.split(split)
        return part[stratified_sample(self.labels[part], size, [_PROBE_ENTROPY])]

    def probe_hash(self, split: Split, size: int) -> str:
        """Sixteen hexadecimal digits of the names and pixels of ``probe(split, size)``."""
        digest = hashlib.sha256()
        for index in self.probe(split, size):
            digest.update(f"{self.names[index]}\0{self.hashes[index]}\0".encode())
        return digest.hexdigest()[:16]

    def class_weights(self) -> NDArray[np.float64]:
        """Inverse training frequency of each class, shape (n_classes,), mean 1."""
        inverse = 1.0 / np.bincount(self.labels[self.train], minlength=self.n_classes)
        return np.asarray(inverse / inverse.mean(), dtype=np.float64)

    @property
    def largest_class_fraction(self) -> float:
        """Share of all images that the largest class has."""
        return float(np.bincount(self.labels).max() / len(self))

    @property
    def smallest_class_fraction(self) -> float:
        """Share of all images that the smallest class has."""
        return float(np.bincount(self.labels, minlength=self.n_classes).min() / len(self))


def load_images(
    config: DataConfig,
    *,
    cache_dir: Path | None = None,
    where: str = "data",
    progress: Callable[[int, int], None] | None = None,
) -> ImageSet:
    """List, decode (or find in the cache), and split the images ``config`` asks for.

    ``cache_dir`` defaults to :func:`repsim.data.cache.default_cache_dir`; ``where`` is the file the request was written
    in; ``progress`` is called with (done, total) while images are decoded. Raises :class:`RequestError`.
    """
    listing = list_images(config.source, group=config.group, where=where)
    check_enough(listing.title, listing.labels, listing.splits, listing.groups)
    decoded = decode_all(
        listing,
        size=config.image_size,
        resize=config.resize,
        on_error=config.on_error,
        cache_dir=default_cache_dir() if cache_dir is None else cache_dir,
        progress=progress,
    )
    names = _pick(listing.names, decoded.kept)
    label_names = _pick(listing.labels, decoded.kept)
    if decoded.skipped:
        check_enough(
            listing.title,
            label_names,
            None if listing.splits is None else _pick(listing.splits, decoded.kept),
            None if listing.groups is None else _pick(listing.groups, decoded.kept),
            expected=listing.classes,
        )
    number = {name: index for index, name in enumerate(listing.classes)}
    labels = np.array([number[name] for name in label_names], dtype=np.int64)
    parts = _parts(listing, decoded.kept, labels, config)
    train, val, test = (np.flatnonzero(parts == part) for part in range(3))
    return ImageSet(
        images=decoded.pixels,
        labels=_frozen(labels),
        names=names,
        classes=listing.classes,
        train=_frozen(train),
        val=_frozen(val),
        test=_frozen(test),
        hashes=decoded.hashes,
        data_hash=_data_hash(names, label_names, decoded.hashes),
        skipped=decoded.skipped,
        duplicates=tuple(
            (names[first], names[second]) for first, second in duplicates_across_splits(decoded.hashes, parts)
        ),
    )


def _parts(listing: Listing, kept: Sequence[int], labels: Indices, config: DataConfig) -> Indices:
    if listing.splits is not None:
        return own_split(_pick(listing.splits, kept))
    if listing.groups is not None:
        groups = _pick(listing.groups, kept)
        return grouped_split(labels, groups, config.fractions, config.split_seed, listing.title)
    return stratified_split(labels, config.fractions, config.split_seed)


def _pick(values: Sequence[str], kept: Sequence[int]) -> tuple[str, ...]:
    return tuple(values[index] for index in kept)


def _frozen(values: Indices) -> Indices:
    values = values.astype(np.int64, copy=False)
    values.setflags(write=False)
    return values


def _data_hash(names: Sequence[str], labels: Sequence[str], hashes: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for row in zip(names, labels, hashes, strict=True):
        digest.update("\0".join((*row, "")).encode())
    return digest.hexdigest()[:16]
