"""What no single key of a space can show: every method, backbone, head and anchor must make a configuration."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from repsim.catalogue import ADAPTERS, parse_method
from repsim.errors import RequestError
from sweeps.space_notes import Notes
from sweeps.space_types import Choice, Domain, Range, Space, contains


def check_whole(notes: Notes, space: Space) -> None:
    """Note what is wrong with the configurations the space can ask for, one line per mistake."""
    for data in space.data:
        _check_heads(notes, space, data)
        if notes.mistakes:
            return
        for proposal in [*space.anchors(data), *_one_of_each(space, data)]:
            try:
                space.config(proposal, data=data, seed=space.search.seed)
            except RequestError as error:
                for mistake in error.mistakes:
                    notes.add(mistake.key, mistake.problem, allowed=mistake.allowed, suggestion=mistake.suggestion)


def methods_and_backbones(space: Space, data: str) -> Iterator[dict[str, object]]:
    """Every method and backbone that a proposal can bring together."""
    searched = [dimension.key for dimension in space.dimensions if dimension.key in ("method", "backbone")]
    for combination in itertools.product(*(space.values(key) for key in searched)):
        chosen = dict(zip(searched, combination, strict=True))
        domains = {key: space.domain(key, chosen, data) for key in searched}
        if all(domain is not None and contains(domain, chosen[key]) for key, domain in domains.items()):
            yield {"method": space.values("method")[0], "backbone": space.values("backbone")[0], **chosen}


def ends(domain: Domain | None) -> tuple[object, ...]:
    """A choice's values, a range's ends, and None for a value that is absent."""
    if domain is None:
        return (None,)
    return (domain.low, domain.high) if isinstance(domain, Range) else domain.values


def _check_heads(notes: Notes, space: Space, data: str) -> None:
    """A probed head is linear: no other may meet a method that fits one, or a line that begins at one."""
    searched = any(dimension.key == "head" for dimension in space.dimensions)
    line = space.fixed.get("measure.wise", False) is True or space.fixed.get("wise_alpha", 1.0) != 1.0
    for chosen in methods_and_backbones(space, data):
        method = str(chosen["method"])
        probed = ADAPTERS[parse_method(method).adapter].linear_head
        if not probed and not line:
            continue
        heads = ends(space.domain("head", chosen, data)) if searched else space.values("head")
        for head in heads:
            if head not in (None, "linear"):
                key = "space.head" if searched else "fixed.head"
                if probed:
                    allowed = "linear, or a 'when' that leaves such methods out"
                    notes.add(key, f"{head!r} meets method {method!r}, which fits a linear head", allowed=allowed)
                else:
                    notes.add(
                        key, f"{head!r} meets the line of weights, which begins at a linear probe", allowed="linear"
                    )


def _one_of_each(space: Space, data: str) -> Iterator[Mapping[str, object]]:
    """A proposal for each method and backbone, with the first value of everything else."""
    for pair in methods_and_backbones(space, data):
        chosen = dict(pair)
        for dimension in space.dimensions:
            if dimension.key not in chosen:
                domain = space.domain(dimension.key, chosen, data)
                first = domain.values[0] if isinstance(domain, Choice) else domain.low if domain else None
                chosen[dimension.key] = first
        yield chosen
