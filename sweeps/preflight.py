"""Everything that needs torch or the data, checked in the driver before Ray starts: decode, split, find weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from repsim.catalogue import parse_method
from repsim.config import BackboneConfig, TrialConfig
from repsim.errors import Mistake, RequestError
from sweeps.identity import settings_of
from sweeps.space import Choice, Space
from sweeps.space_resource_settings import sizes
from sweeps.space_whole import ends, methods_and_backbones

if TYPE_CHECKING:
    from repsim.backbones import Backbone

_LOOKED_AT = ("data", "backbone")

Ground = tuple[str, str]
"""What trials are measured on: the hash of the images, and that of the val images similarity is taken on."""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What was found: images per data set (by SOURCE), parameters of the largest backbone, what is measured on."""

    n_images: Mapping[str, int]
    parameters: int
    grounds: Mapping[str, frozenset[Ground]] = field(default_factory=dict)


def preflight(
    space: Space, *, cache_dir: Path | None, say: Callable[[str], None], unseen: Collection[str] = ()
) -> Looked:
    """Look at everything a trial will need; RequestError with every mistake found.

    Afterwards the images are decoded and the weights are on this machine, so that no trial has to wait for either.
    Data sets in ``unseen`` are not decoded, and nothing is known of them.
    """
    from repsim.backbones import check_image_size
    from repsim.data.dataset import load_images
    from repsim.workspace import Workspace

    workspace = Workspace(cache_dir=cache_dir)
    counts: dict[str, int] = {}
    grounds: dict[str, frozenset[Ground]] = {}
    parameters = 0
    mistakes: list[Mistake] = []
    sources = set()
    backbones: dict[tuple[BackboneConfig, int], Backbone] = {}
    for data, config in _configurations(space):
        try:
            if config.data not in sources and data not in unseen:
                sources.add(config.data)
                images = load_images(config.data, cache_dir=workspace.cache_dir, progress=_progress(data, say))
                counts[data] = len(images.labels)
                ground = (images.data_hash, images.probe_hash("val", config.data.probe_size))
                grounds[data] = grounds.get(data, frozenset()) | {ground}
                _check(config, _most_workers(space, data), images.train, images.val, images.test)
            asked = (config.backbone, config.data.image_size)
            if asked not in backbones:
                backbones[asked] = backbone = workspace.backbone(config)
                parameters = max(parameters, sum(parameter.numel() for parameter in backbone.module.parameters()))
                check_image_size(backbone, config.data.image_size)
        except RequestError as error:
            mistakes += [mistake for mistake in error.mistakes if mistake not in mistakes]
    found = {asked: backbone for (asked, _), backbone in backbones.items()}
    mistakes += [mistake for mistake in _refusals(space, found) if mistake not in mistakes]
    if mistakes:
        raise RequestError(*mistakes)
    return Looked(n_images=counts, parameters=parameters, grounds=grounds)


def _configurations(space: Space) -> Iterator[tuple[str, TrialConfig]]:
    """One configuration for every combination of data set, image choices and backbone the search can ask for."""
    choices: dict[str, list[object]] = {}
    for dimension in space.dimensions:
        if dimension.key.partition(".")[0] in _LOOKED_AT:
            values = [v for b in dimension.branches if isinstance(b.domain, Choice) for v in b.domain.values]
            if values:
                choices[dimension.key] = values
    for data in space.data:
        anchor = {} if space.is_single_run else dict(space.anchors(data)[-1])
        for combination in itertools.product(*choices.values()):
            params = anchor | dict(zip(choices, combination, strict=True))
            yield data, space.config(params, data=data, seed=space.search.seed)


def _refusals(space: Space, backbones: Mapping[BackboneConfig, Backbone]) -> list[Mistake]:
    """What the space asks of a backbone that it cannot do: each mistake once."""
    from repsim.adapters import check_adapter
    from repsim.penalties.checks import check_penalty

    mistakes: list[Mistake] = []
    for data in space.data:
        for params in [*space.anchors(data), *_methods(space, data)]:
            config = space.config(params, data=data, seed=space.search.seed)
            backbone = backbones.get(config.backbone)
            if backbone is None:  # it could not be had, which is a mistake noted already
                continue
            for check in (check_adapter, check_penalty):
                try:
                    check(config, backbone)
                except RequestError as error:
                    mistakes += [mistake for mistake in error.mistakes if mistake not in mistakes]
    return mistakes


def _methods(space: Space, data: str) -> Iterator[Mapping[str, object]]:
    """Params for every method on every backbone it can meet, with all choices (of ranges, the ends) that it reads."""
    for pair in methods_and_backbones(space, data):
        method = parse_method(str(pair["method"]))
        read = settings_of(method.adapter, method.penalty) | {"backbone.weights"}
        asked = [dimension.key for dimension in space.dimensions if dimension.key in read]
        for values in itertools.product(*(ends(space.domain(key, pair, data)) for key in asked)):
            yield {**pair, **dict(zip(asked, values, strict=True))}


def _most_workers(space: Space, data: str) -> int:
    """Of any trial on the data set: each of them needs an image of every split."""
    return max(asked.workers for _, where, asked in sizes(space) if where == data)


def _check(config: TrialConfig, workers: int, *splits: object) -> None:
    from repsim.trainer import check_splits

    names = ("train", "val", "test")
    found = {name: len(split) for name, split in zip(names, splits, strict=True)}  # type: ignore[arg-type]
    check_splits(config, found, workers)


def _progress(data: str, say: Callable[[str], None]) -> Callable[[int, int], None]:
    """Says how far decoding is at every tenth, when there is enough to do to wonder."""
    said = -1

    def progress(done: int, total: int) -> None:
        nonlocal said
        tenth = 10 * done // max(1, total)
        if total >= 500 and tenth > said:
            said = tenth
            say(f"decoding {data}: {done}/{total}")

    return progress
