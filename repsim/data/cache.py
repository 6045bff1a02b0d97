"""Images decoded once, kept as one memory-mapped array that every process shares.

``<cache>/images/<key>/`` holds ``pixels.npy`` (uint8, (n, size, size, 3)) and ``meta.json`` (which images, their
hashes, what was skipped). An entry is built in a temporary folder under a lock and renamed when it is complete, so a
half-built one is never seen and two processes that want it at once both get it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from filelock import FileLock

from repsim.data import decode
from repsim.data.listing import ImageItem, Listing, Pixels, first_mistakes
from repsim.errors import Mistake, RequestError, one_line

Progress = Callable[[int, int], None]
"""Called with (images done, images in all), from the calling thread."""
_FORMAT = 1
_THREADS = 4
_CHUNK = 32
_FILTERS = threading.Lock()
"""Held while warnings are silenced: the filters belong to the whole process, so two threads may not swap them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """What the cache holds for a listing.

    ``pixels``: uint8 (n, size, size, 3), memory-mapped, read-only. ``kept``: position in the listing of each of the n.
    ``hashes``: SHA-256 of each image's pixels. ``skipped``: names of the images that could not be decoded.
    """

    pixels: Pixels
    kept: tuple[int, ...]
    hashes: tuple[str, ...]
    skipped: tuple[str, ...]


def default_cache_dir() -> Path:
    """``$REPSIM_CACHE``, else ``$XDG_CACHE_HOME/repsim``, else ``~/.cache/repsim``."""
    named = os.environ.get("REPSIM_CACHE")
    if named:
        return Path(named).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "repsim"


def decode_all(
    listing: Listing,
    *,
    size: int,
    resize: decode.Resize,
    on_error: Literal["fail", "skip"],
    cache_dir: Path,
    progress: Progress | None = None,
) -> Decoded:
    """The images of ``listing`` decoded, from the cache when they are there.

    Raises :class:`RequestError` when the folder cannot be written, when an image cannot be decoded (``fail``), or when
    none can.
    """
    key = _key(listing, size, resize, on_error)
    entry = cache_dir / "images" / key
    found = _open(entry, listing)
    if found is not None:
        return found
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(entry.parent / f"{key}.lock"):
            found = _open(entry, listing)
            if found is not None:
                return found
            _clear(entry)
            built = entry.parent / f".{key}-{os.getpid()}-{secrets.token_hex(4)}"
            built.mkdir()
            try:
                _build(built, listing, size, resize, on_error, progress)
                os.replace(built, entry)
            finally:
                shutil.rmtree(built, ignore_errors=True)
        found = _open(entry, listing)
    except OSError as error:
        problem = f"the cache folder cannot be written: {error.strerror or error}; set REPSIM_CACHE to another folder"
        raise RequestError(Mistake(where=str(cache_dir), key="", problem=problem)) from None
    if found is None:
        raise RuntimeError(f"{entry} vanished while it was being opened")
    return found


def _key(listing: Listing, size: int, resize: str, on_error: str) -> str:
    parts = [_FORMAT, decode.VERSION, size, resize, on_error, listing.stamp, listing.names]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _open(entry: Path, listing: Listing) -> Decoded | None:
    """The entry when it is complete and undamaged, else None."""
    try:
        meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        pixels = np.load(entry / "pixels.npy", mmap_mode="r", allow_pickle=False)
        kept, hashes = tuple(meta["kept"]), tuple(meta["hashes"])
        if pixels.dtype != np.uint8 or list(pixels.shape) != meta["shape"] or len(kept) != len(hashes):
            return None
        return Decoded(
            pixels=pixels,
            kept=kept,
            hashes=hashes,
            skipped=tuple(listing.names[index] for index in meta["skipped"]),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def _clear(entry: Path) -> None:
    """Remove a damaged entry and what killed builders of the same entry left; the lock is held."""
    shutil.rmtree(entry, ignore_errors=True)
    for left in entry.parent.glob(f".{entry.name}-*"):
        shutil.rmtree(left, ignore_errors=True)


def _build(
    folder: Path,
    listing: Listing,
    size: int,
    resize: decode.Resize,
    on_error: Literal["fail", "skip"],
    progress: Progress | None,
) -> None:
    total = len(listing)
    shape = (total, size, size, 3)
    path = folder / "pixels.npy"
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    _reserve(path)
    hashes: list[str | None] = [None] * total
    mistakes: list[Mistake] = []
    skipped: list[int] = []
    for index, found in _decoded(listing.read(), size, resize):
        if isinstance(found, str):
            name = listing.names[index]
            mistakes.append(Mistake(where=listing.title, key="", problem=f"image {one_line(name)} {found}"))
            skipped.append(index)
        else:
            pixels[index] = found
            hashes[index] = hashlib.sha256(found.tobytes()).hexdigest()
        if progress is not None:
            progress(index + 1, total)
    if skipped and (on_error == "fail" or len(skipped) == total):
        raise RequestError(*_refusal(mistakes, listing.title, on_error))
    pixels.flush()
    del pixels
    if skipped:
        _drop(path, skipped)
    kept = [index for index in range(total) if hashes[index] is not None]
    meta = {
        "shape": [len(kept), size, size, 3],
        "source": listing.title,
        "kept": kept,
        "hashes": [value for value in hashes if value is not None],
        "skipped": skipped,
    }
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _refusal(mistakes: list[Mistake], where: str, on_error: str) -> list[Mistake]:
    lines = first_mistakes(mistakes, where)
    if on_error == "fail":
        advice = "data.on_error: skip leaves such images out and names them in the report"
        lines.append(Mistake(where=where, key="", problem=advice))
    return lines


def _reserve(path: Path) -> None:
    """Claim the disk space now: a full disk then is an error here, not a crash when a mapped page is written."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _drop(path: Path, skipped: Sequence[int]) -> None:
    """Rewrite the array without the rows of the skipped images."""
    whole = np.load(path, mmap_mode="r")
    keep = np.setdiff1d(np.arange(whole.shape[0]), np.array(skipped))
    shorter = path.with_name("shorter.npy")
    target = np.lib.format.open_memmap(shorter, mode="w+", dtype=np.uint8, shape=(keep.size, *whole.shape[1:]))
    for start in range(0, keep.size, 1024):
        target[start : start + 1024] = whole[keep[start : start + 1024]]
    target.flush()
    os.replace(shorter, path)


def _decoded(items: Sequence[ImageItem], size: int, resize: decode.Resize) -> Iterator[tuple[int, Pixels | str]]:
    """(index, pixels or what is wrong with it) of every image, in order, decoded by a few threads."""

    def chunk(start: int) -> list[Pixels | str]:
        return [_one(item, size, resize) for item in items[start : start + _CHUNK]]

    workers = max(2, min(_THREADS, os.cpu_count() or 1))
    # Pillow warns about oddities in files that it reads all the same; the workers share the filter set here.
    with _FILTERS, warnings.catch_warnings(), ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        warnings.simplefilter("ignore")
        starts = range(0, len(items), _CHUNK)
        for wave in range(0, len(starts), 4 * workers):
            window = starts[wave : wave + 4 * workers]
            for start, found in zip(window, pool.map(chunk, window), strict=True):
                yield from enumerate(found, start)


def _one(item: ImageItem, size: int, resize: decode.Resize) -> Pixels | str:
    try:
        return decode.decode(item, size, resize)
    except decode.UnreadableImageError as error:
        return str(error)
