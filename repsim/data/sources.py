"""From a SOURCE to a :class:`Listing`: which images there are and what they are called, before any is decoded.

``phantom:NAME``, ``folder:DIR`` (a sub-folder per class), ``csv:FILE``, ``npz:FILE`` (MedMNIST layout) and
``medmnist:NAME``; a bare path is recognised. Everything wrong with a source is collected and raised at once.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from repsim.data import phantom
from repsim.data.listing import SPLITS, Listing, first_mistakes, printable, stamp_files
from repsim.data.npz import count_medmnist, list_npz, medmnist_file
from repsim.data.tables import list_csv
from repsim.errors import Mistake, RequestError, nearest, one_line, unknown

KINDS = ("phantom", "folder", "csv", "npz", "medmnist")
EXTENSIONS = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pgm", ".ppm"))
"""What makes a file an image, whatever its case."""
_IGNORED_FOLDERS = frozenset(("__macosx",))
_SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def parse_source(source: str, *, where: str = "data", key: str = "source") -> tuple[str, str]:
    """Split ``source`` into (kind, rest): ``("folder", "/images")``; a bare path or phantom name is recognised.

    Raises :class:`RequestError` when the source names nothing that exists or an unknown kind.
    """
    try:
        source.encode("utf-8")
    except UnicodeEncodeError:  # it has to be written into space files, journals and databases
        problem = f"{one_line(source)} is not UTF-8: rename it (the images inside may be called anything)"
        raise RequestError(Mistake(where=where, key=key, problem=problem)) from None
    kind, colon, rest = source.partition(":")
    if colon and kind in KINDS:
        if not rest.strip():
            raise RequestError(
                Mistake(where=where, key=key, problem=f"{one_line(source)} names nothing after the colon")
            )
        return kind, rest
    path = path_of(source)
    if os.path.isdir(path):
        return "folder", source
    if os.path.isfile(path):
        suffix = path.suffix.lower()
        if suffix in (".csv", ".npz"):
            return suffix[1:], source
        problem = f"{one_line(source)} is neither a folder nor a .csv or .npz file"
        raise RequestError(Mistake(where=where, key=key, problem=problem, allowed=_allowed()))
    if source in phantom.NAMES:
        return "phantom", source
    if colon and "/" not in kind and len(kind) > 1:
        raise RequestError(unknown(where, key, kind, [f"{name}:" for name in KINDS], "kind of source"))
    close = nearest(source, phantom.NAMES)
    raise RequestError(
        Mistake(
            where=where,
            key=key,
            problem=f"{one_line(source)} does not exist",
            allowed=_allowed(),
            suggestion=None if close is None else f"phantom:{close}",
        )
    )


def list_images(source: str, *, group: str | None = None, where: str = "data", key: str = "source") -> Listing:
    """List the images of ``source``; no pixel is decoded.

    ``group`` names the csv's column whose value never crosses splits. Raises :class:`RequestError` with every mistake
    found (at most ten are printed).
    """
    kind, rest = parse_source(source, where=where, key=key)
    if group is not None and kind != "csv":
        problem = f"{one_line(group)} names a column, but {one_line(source)} is not a csv"
        raise RequestError(Mistake(where=where, key="data.group", problem=problem, allowed="null"))
    if kind == "phantom":
        return _list_phantom(rest, where=where, key=key)
    if kind == "folder":
        return list_folder(path_of(rest))
    if kind == "csv":
        return list_csv(path_of(rest), group=group)
    if kind == "npz":
        return list_npz(path_of(rest))
    return list_npz(medmnist_file(rest, where=where, key=key))


def count_images(source: str, *, where: str = "data", key: str = "source") -> int:
    """Number of images ``source`` lists, for an estimate: nothing is decoded or downloaded."""
    kind, rest = parse_source(source, where=where, key=key)
    if kind == "medmnist":
        return count_medmnist(rest, where=where, key=key)
    return len(list_images(source, where=where, key=key))


def path_of(text: str) -> Path:
    """The path a person wrote; ``~`` is their home, and stays as it is where there is no such person."""
    return Path(os.path.expanduser(text))


def _allowed() -> str:
    return "phantom:NAME, folder:DIR, csv:FILE, npz:FILE, medmnist:NAME, or a path"


def _list_phantom(name: str, *, where: str, key: str) -> Listing:
    if name not in phantom.NAMES:
        raise RequestError(unknown(where, key, name, phantom.NAMES, "phantom"))
    plan = phantom.plan(name)
    return Listing(
        title=f"phantom:{name}",
        names=plan.names,
        labels=plan.labels,
        splits=plan.splits,
        groups=None,
        stamp=phantom.stamp(name),
        read=lambda: list(phantom.render(name)),
    )


def list_folder(root: Path) -> Listing:
    """List ``root``: a sub-folder per class, images anywhere inside it.

    Sub-folders called train, val and test that hold the class folders are taken as the images' own split. Hidden
    files, ``__MACOSX`` and files that are no images (a ``labels.csv``) are ignored.
    """
    title = str(root)
    if not os.path.isdir(root):
        raise RequestError(Mistake(where=title, key="", problem="is not a folder"))
    classes = _sub_folders(root)
    if not classes:
        raise RequestError(_no_class_folders(root))
    parts = {folder: _SPLIT_FOLDERS.get(folder.name.lower()) for folder in classes}
    if all(part is not None for part in parts.values()) and any(_sub_folders(folder) for folder in classes):
        return _list_split_folders(root, {folder: part for folder, part in parts.items() if part is not None})
    found = [(path, folder.name, None) for folder in classes for path in _images_under(folder)]
    _refuse_empty(root, classes, {label for _, label, _ in found})
    if len(classes) == 1:
        raise RequestError(_one_class(root, classes[0]))
    return _folder_listing(root, found)


def _list_split_folders(root: Path, parts: dict[Path, str]) -> Listing:
    if sorted(parts.values()) != sorted(SPLITS):
        names = ", ".join(sorted(folder.name for folder in parts))
        problem = f"holds the parts of a split ({names}) in place of classes, but not each of train, val and test once"
        allowed = "train/CLASS, val/CLASS and test/CLASS; or a folder per class; or csv:FILE with a split column"
        raise RequestError(Mistake(where=str(root), key="", problem=problem, allowed=allowed))
    found = [
        (path, label.name, part)
        for folder, part in parts.items()
        for label in _sub_folders(folder)
        for path in _images_under(label)
    ]
    if not found:
        raise RequestError(Mistake(where=str(root), key="", problem="holds no image", allowed=_image_files()))
    return _folder_listing(root, found)


def _folder_listing(root: Path, found: Sequence[tuple[Path, str, str | None]]) -> Listing:
    named = sorted(
        (printable(path.relative_to(root).as_posix()), path, printable(label), part) for path, label, part in found
    )
    shown, labels = {name for name, _, _, _ in named}, {label for _, _, label, _ in named}
    if len(shown) < len(named) or len(labels) < len({label for _, label, _ in found}):
        problem = "holds names that look alike once bytes that are not UTF-8 are shown as \\xNN; rename one of each"
        raise RequestError(Mistake(where=str(root), key="", problem=problem))
    paths = [path for _, path, _, _ in named]
    splits = [part for _, _, _, part in named if part is not None]
    return Listing(
        title=str(root),
        names=tuple(name for name, _, _, _ in named),
        labels=tuple(label for _, _, label, _ in named),
        splits=tuple(splits) if splits else None,
        groups=None,
        stamp=stamp_files(root, paths),
        read=lambda: paths,
    )


def _image_files() -> str:
    return f"image files ({' '.join(sorted(extension[1:] for extension in EXTENSIONS))}) in a folder per class"


def _no_class_folders(root: Path) -> Mistake:
    loose = next(_images_under(root), None)
    if loose is None:
        return Mistake(where=str(root), key="", problem="is empty of images", allowed=_image_files())
    return Mistake(
        where=str(root),
        key="",
        problem=f"holds images ({loose.name}) but no class folders",
        allowed="a folder per class, or csv:FILE with the columns image and label",
    )


def _one_class(root: Path, only: Path) -> Mistake:
    inner = _sub_folders(only)
    return Mistake(
        where=str(root),
        key="",
        problem=f"holds the single class folder {one_line(only.name)}",
        allowed="two classes or more",
        suggestion=f"folder:{only}" if len(inner) > 1 else None,
    )


def _refuse_empty(root: Path, classes: list[Path], filled: set[str]) -> None:
    if not filled:
        raise RequestError(Mistake(where=str(root), key="", problem="is empty of images", allowed=_image_files()))
    empty = [
        Mistake(
            where=str(root),
            key="",
            problem=f"class folder {one_line(folder.name)} holds no image",
            allowed="3 images or more, or remove the folder",
        )
        for folder in classes
        if folder.name not in filled
    ]
    if empty:
        raise RequestError(*first_mistakes(empty, str(root)))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise RequestError(Mistake(where=str(folder), key="", problem=f"cannot be read: {error.strerror}")) from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir() and entry.name.lower() not in _IGNORED_FOLDERS
    except OSError:  # a link to itself
        return False


def _sub_folders(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in _entries(folder) if _is_folder(entry)]


def _images_under(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """Image files inside ``folder``, links followed; ``above`` (device, inode) stops a link that points upwards."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in _entries(folder):
        if _is_folder(entry):
            yield from _images_under(Path(entry.path), above | {here})
        elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS and not _is_special(entry):
            yield Path(entry.path)


def _is_special(entry: os.DirEntry[str]) -> bool:
    """A pipe, socket or device; a broken link is not special: it is an image that cannot be read."""
    try:
        mode = entry.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
