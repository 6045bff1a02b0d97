"""``search.balance``: one study for each method (or backbone), so that each gets the same number of trials.

Within such a study conditions on the method are settled: a strength is there throughout or never, and a sampler that
knows one flat space alone (a Gaussian process) can learn it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from repsim.catalogue import ADAPTERS, parse_method
from sweeps.domains import Params, all_values, enumerate_points
from sweeps.experience import Experience
from sweeps.identity import UNREAD_BY_A_PROBE
from sweeps.past import Past
from sweeps.proposals import Proposer
from sweeps.space import Branch, Choice, Dimension, Domain, Space


class Balanced:
    """Draws proposals in turn from a study for each value of the balanced key; the same doors as a ``Proposer``."""

    def __init__(self, space: Space, data: str, *, evidence: Sequence[Past] = ()) -> None:
        self._key = str(space.search.balance)
        self._values = list(space.values(self._key))
        share = -(-space.budget.trials // len(self._values))
        stream = space.data.index(data)
        pinned = [_pinned(space, self._key, value, share) for value in self._values]
        self._proposers = [
            Proposer(one, data, stream=(stream, number), evidence=evidence) for number, one in enumerate(pinned)
        ]
        self._runs = [_runs(one, data) for one in pinned]

    def draw(self, ordinal: int, past: Experience, is_new: Callable[[Params], bool]) -> Params | None:
        """The next params for the value with the fewest proposals (ties: the first); None when all are exhausted."""
        parts = [past.part(value) for value in self._values]
        for number in sorted(range(len(parts)), key=lambda index: len(parts[index])):
            runs = self._runs[number]
            if runs is not None and not any(is_new(point) for point in runs):
                continue
            found = self._proposers[number].draw(len(parts[number]), parts[number], is_new)
            if found is not None:
                return found
        return None

    def startup(self) -> int:
        """As many proposals as all studies together make before they look at results."""
        return sum(proposer.startup() for proposer in self._proposers)


def _pinned(space: Space, key: str, value: object, trials: int) -> Space:
    """The space with one value of a key, and its share of the trials."""
    one = Dimension(key=key, branches=(Branch(when={}, domain=Choice(values=(value,))),))
    dimensions = tuple(one if dimension.key == key else dimension for dimension in space.dimensions)
    return replace(space, dimensions=dimensions, budget=replace(space.budget, trials=trials), initial=())


def _runs(space: Space, data: str) -> list[Params] | None:
    """A point for every run there is, when they can be listed: a linear probe does not read its learning rate."""
    probes = not any(ADAPTERS[parse_method(str(name)).adapter].trains_backbone for name in space.values("method"))
    dimensions = tuple(
        replace(dimension, branches=tuple(replace(b, domain=_first(b.domain)) for b in dimension.branches))
        if probes and dimension.key.startswith(UNREAD_BY_A_PROBE)
        else dimension
        for dimension in space.dimensions
    )
    return enumerate_points(replace(space, dimensions=dimensions), data, all_values)


def _first(domain: Domain) -> Choice:
    return Choice(values=(domain.values[0] if isinstance(domain, Choice) else domain.low,))
