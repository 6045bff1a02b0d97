"""Sources that are one npz file in the MedMNIST layout, and the files the medmnist package downloads."""

from __future__ import annotations

import importlib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import IO

import numpy as np

from repsim.data.listing import SPLITS, ImageItem, Listing, refuse_special, stamp_files
from repsim.errors import Mistake, RequestError, one_line, unknown

_SIDES = ("", "28", "64", "128", "224")
_LAYOUT = "train_images, train_labels, val_images, val_labels, test_images, test_labels"


def list_npz(path: Path) -> Listing:
    """List the images of ``path``: ``{train,val,test}_images`` uint8 (n, height, width[, 3]) and ``_labels`` (n[, 1]).

    The file's own split is kept. Only headers and labels are read here. Raises :class:`RequestError` when keys are
    missing, shapes or types are wrong, lengths differ, or the file needs pickle.
    """
    title = str(path)
    refuse_special(path)
    shapes = _shapes(path)
    mistakes = [
        Mistake(where=title, key=f"{part}_{what}", problem="is missing", allowed=_LAYOUT)
        for part in SPLITS
        for what in ("images", "labels")
        if f"{part}_{what}" not in shapes
    ]
    if mistakes:
        raise RequestError(*mistakes)
    for part in SPLITS:
        mistakes += _part_mistakes(title, part, shapes)
    if mistakes:
        raise RequestError(*mistakes)
    with _readable(path), np.load(path, allow_pickle=False) as arrays:
        labels = [(part, str(label)) for part in SPLITS for label in arrays[f"{part}_labels"].reshape(-1)]
    names = [f"{part}/{number:07d}" for part in SPLITS for number in range(shapes[f"{part}_images"][0][0])]
    order = sorted(range(len(names)), key=names.__getitem__)
    return Listing(
        title=title,
        names=tuple(names[index] for index in order),
        labels=tuple(labels[index][1] for index in order),
        splits=tuple(labels[index][0] for index in order),
        groups=None,
        stamp=stamp_files(path.parent, [path]),
        read=lambda: _read(path, order),
    )


def _read(path: Path, order: list[int]) -> list[ImageItem]:
    with _readable(path), np.load(path, allow_pickle=False) as arrays:
        images = [image for part in SPLITS for image in arrays[f"{part}_images"]]
    return [images[index] for index in order]


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    return shape, dtype


def _shapes(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[np.generic]]]:
    """Shape and type of every array, from the headers alone."""
    found = {}
    with _readable(path), zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".npy"):
                with archive.open(name) as member:
                    found[name.removesuffix(".npy")] = _header(member)
    return found


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what zipfile and numpy raise on a file that is missing, damaged or something else into a mistake."""
    try:
        yield
        return
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError) as error:
        problem = f"is not an npz file, or is damaged: {one_line(str(error))}"
    raise RequestError(Mistake(where=str(path), key="", problem=problem, allowed=_LAYOUT))


def _part_mistakes(
    title: str, part: str, shapes: dict[str, tuple[tuple[int, ...], np.dtype[np.generic]]]
) -> list[Mistake]:
    mistakes = []
    shape, dtype = shapes[f"{part}_images"]
    label_shape, label_dtype = shapes[f"{part}_labels"]
    gray_or_color = len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)
    if dtype != np.uint8 or not gray_or_color or 0 in shape[1:3]:
        problem = f"has shape {shape} and type {_type(dtype)}"
        allowed = "uint8 of shape (n, height, width) or (n, height, width, 3)"
        mistakes.append(Mistake(where=title, key=f"{part}_images", problem=problem, allowed=allowed))
    if label_dtype.kind not in "iuU" or not (len(label_shape) == 1 or (len(label_shape) == 2 and label_shape[1] == 1)):
        problem = f"has shape {label_shape} and type {_type(label_dtype)}"
        allowed = "whole numbers or text of shape (n,) or (n, 1): one class per image"
        mistakes.append(Mistake(where=title, key=f"{part}_labels", problem=problem, allowed=allowed))
    elif shape and label_shape[0] != shape[0]:
        problem = f"holds {label_shape[0]} labels for {shape[0]} images"
        mistakes.append(Mistake(where=title, key=f"{part}_labels", problem=problem))
    return mistakes


def _type(dtype: np.dtype[np.generic]) -> str:
    return "pickled objects" if dtype.hasobject else str(dtype)


def medmnist_file(name: str, *, where: str, key: str) -> Path:
    """Path of MedMNIST's ``NAME`` or ``NAME_64`` (side in pixels); the medmnist package downloads it when needed.

    Raises :class:`RequestError` when the package is absent, the name unknown, the task unfit, or the download fails.
    """
    package, flag, side = _medmnist(name, where=where, key=key)
    root = Path.home() / ".medmnist"
    path = root / (f"{flag}.npz" if side in ("", "28") else f"{flag}_{side}.npz")
    if path.is_file():
        return path
    try:
        root.mkdir(parents=True, exist_ok=True)
        download = getattr(package, package.INFO[flag]["python_class"])
        download(split="train", download=True, root=str(root), size=int(side or 28))
    except (ImportError, OSError, RuntimeError) as error:
        problem = f"{one_line('medmnist:' + name)} could not be downloaded: {one_line(str(error))}"
        raise RequestError(Mistake(where=where, key=key, problem=problem)) from None
    return path


def count_medmnist(name: str, *, where: str, key: str) -> int:
    """Number of images of ``medmnist:NAME``, as the package states it; nothing is downloaded."""
    package, flag, _ = _medmnist(name, where=where, key=key)
    return sum(int(package.INFO[flag]["n_samples"][part]) for part in SPLITS)


def _medmnist(name: str, *, where: str, key: str) -> tuple[ModuleType, str, str]:
    try:
        package = importlib.import_module("medmnist")
    except ImportError:
        problem = f"{one_line('medmnist:' + name)} needs the medmnist package: pip install 'repsim-sweeps[medmnist]'"
        raise RequestError(Mistake(where=where, key=key, problem=problem)) from None
    flag, _, side = name.partition("_")
    fit = sorted(known for known, info in package.INFO.items() if _one_class_each(known, info))
    if flag not in fit:
        raise RequestError(unknown(where, key, flag, fit, "MedMNIST set of flat images with one class each"))
    if side not in _SIDES:
        problem = f"{one_line(name)} asks for a size that MedMNIST does not have"
        allowed = ", ".join([flag, *(f"{flag}_{known}" for known in _SIDES[2:])])
        raise RequestError(Mistake(where=where, key=key, problem=problem, allowed=allowed))
    return package, flag, side


def _one_class_each(flag: str, info: dict[str, str]) -> bool:
    return not flag.endswith("3d") and "multi-label" not in info["task"]
