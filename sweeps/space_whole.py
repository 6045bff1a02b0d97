"""What no single key of a space can show: every method, backbone, head and anchor must make a configuration."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from repsim.catalogue import ADAPTERS, parse_method
from repsim.config import line_problem
from repsim.errors import RequestError
from sweeps.space_notes import Notes
from sweeps.space_types import Domain, Range, Space, contains

_TOGETHER = ("penalty.margin", "penalty.estimator")
"""Keys whose values are judged against each other: all of them are tried."""
_LINE = ("measure.wise", "wise_alpha")


def check_whole(notes: Notes, space: Space) -> None:
    """Note what is wrong with the configurations the space can ask for, one line per mistake."""
    for data in space.data:
        noted = {**_check_heads(notes, space, data), **_check_line(notes, space, data)}
        for proposal in [*space.anchors(data), *_one_of_each(space, data)]:
            try:
                # what has been noted already is put right, so that it does not stand before the rest
                space.config({**proposal, **noted}, data=data, seed=space.search.seed)
            except RequestError as error:
                for mistake in error.mistakes:
                    key = _written(space, mistake.key)
                    notes.add(key, mistake.problem, allowed=mistake.allowed, suggestion=mistake.suggestion)


def _written(space: Space, key: str) -> str:
    """Where the file says something about a key."""
    if key in space.fixed:
        return f"fixed.{key}"
    return f"space.{key}" if any(dimension.key == key for dimension in space.dimensions) else key


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


def _check_heads(notes: Notes, space: Space, data: str) -> Mapping[str, object]:
    """A probed head is linear: no other may meet a method that fits one, or a line that begins at one.

    Returns what puts the mistakes right; empty when there are none.
    """
    searched = any(dimension.key == "head" for dimension in space.dimensions)
    key, line, before = "space.head" if searched else "fixed.head", _asks_for_a_line(space), len(notes.mistakes)
    for chosen in methods_and_backbones(space, data):
        method = str(chosen["method"])
        probed = ADAPTERS[parse_method(method).adapter].linear_head
        if not probed and not line:
            continue
        heads = ends(space.domain("head", chosen, data)) if searched else space.values("head")
        for head in heads:
            if head in (None, "linear"):
                continue
            if probed:
                allowed = "linear, or a 'when' that leaves such methods out"
                notes.add(key, f"{head!r} meets method {method!r}, which fits a linear head", allowed=allowed)
            if line:
                problem = f"{head!r} meets the line of weights, which begins at a linear probe"
                notes.add(key, problem, allowed="linear")
    return {"head": "linear"} if len(notes.mistakes) > before else {}


def _check_line(notes: Notes, space: Space, data: str) -> Mapping[str, object]:
    """Where points between the pretrained and the finetuned weights are asked for, every method must have such a line.

    Returns what puts the mistakes right; empty when there are none.
    """
    if not _asks_for_a_line(space):
        return {}
    every, key = space.fixed.get("measure.wise") is True, "fixed.measure.wise"
    if not every:
        key = "fixed.wise_alpha"
    before = len(notes.mistakes)
    methods = [str(anchor["method"]) for anchor in space.anchors(data)]
    for method in dict.fromkeys([*methods, *(str(pair["method"]) for pair in methods_and_backbones(space, data))]):
        problem = line_problem(method, at_a_point=not every)
        if problem:
            allowed = "methods that begin at the pretrained network" if every else "1"
            notes.add(key, f"there is no line of weights for method {method!r}, which {problem}", allowed=allowed)
    return {"measure.wise": False, "wise_alpha": 1.0} if len(notes.mistakes) > before else {}


def _asks_for_a_line(space: Space) -> bool:
    return space.fixed.get("measure.wise", False) is True or space.fixed.get("wise_alpha", 1.0) != 1.0


def _one_of_each(space: Space, data: str) -> Iterator[Mapping[str, object]]:
    """Proposals for each method and backbone: every value of what is judged together, the first of everything else."""
    for pair in methods_and_backbones(space, data):
        chosen = dict(pair)
        together = []
        for dimension in space.dimensions:
            if dimension.key in chosen:
                continue
            values = ends(space.domain(dimension.key, chosen, data))
            chosen[dimension.key] = values[0]
            if dimension.key in _TOGETHER:
                together.append([(dimension.key, value) for value in values])
        for combination in itertools.product(*together):
            yield {**chosen, **dict(combination)}
