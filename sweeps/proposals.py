"""How one proposal is drawn: a pure function of the space, the seed, the history and the proposal's ordinal.

Nothing survives from one proposal to the next: every draw builds its Optuna study anew from the history (where that is
long, from a choice: :mod:`sweeps.experience`) and takes a new sampler seeded from (search.seed, data set, ordinal,
try). So a sweep rebuilt from its journal proposes exactly what an uninterrupted one would have.

What each sampler does stands in :mod:`sweeps.samplers`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial
from scipy.stats import qmc

from sweeps.domains import (
    Params,
    all_values,
    encode,
    enumerate_points,
    key_of,
    listed,
    scaled,
    silent_genes,
    suggest,
    uniform,
    walk,
)
from sweeps.experience import LEARNT, Experience
from sweeps.gain import Gain
from sweeps.past import Past
from sweeps.samplers import BLIND, EVIDENCE, GENETIC, IGNORE_PRUNED, ORDINAL, SAMPLERS, Learnt, make_sampler, startup
from sweeps.space import Choice, Domain, Space

TRIES = 20
"""How often a proposal that was made before is drawn again."""
MODELLED = 400
"""In a study of more trials than this a model of all of them takes too long, and TPE goes on."""
GP_TRIES = 2
"""The same for the Gaussian process, of which a draw takes half a second."""
_ENOUGH_TO_LEARN = 4
_COMBINATIONS, _SEQUENCE, _GRID, _SILENT, _LEFT_OVER, _SILENT_EARLIER, _GAIN = range(1, 8)


STOPPED = "stopped"
"""Name of the constraint that trials stopped early violate, for samplers that look at completed trials alone."""


class Proposer:
    """Draws proposals for one data set of a space. Holds no state but what it may recompute.

    ``stream`` tells it apart from the other studies of the same seed. ``evidence`` are completed trials of earlier
    sweeps, from which samplers learn as from their own.
    """

    def __init__(self, space: Space, data: str, *, stream: Sequence[int] = (), evidence: Sequence[Past] = ()) -> None:
        self._sampler = space.search.sampler
        if self._sampler not in SAMPLERS:
            raise ValueError(f"{self._sampler!r} is not a known sampler; allowed: {', '.join(SAMPLERS)}")
        self._space = space
        self._data = data
        self._stream = tuple(stream) or (space.data.index(data),)
        self._combinations = enumerate_points(space, data, listed)
        self._points = enumerate_points(space, data, all_values)
        self._frozen: dict[int, tuple[TrialState, FrozenTrial]] = {}
        self._gain = Gain(space, data)
        self._earlier = [entry for entry in evidence if encode(space, data, entry.params) is not None]
        self._directions = [objective.direction for objective in space.objectives]
        self._evidence = self._told_of_earlier(evidence)
        if self._sampler == "auto" and self._points is not None and len(self._points) <= space.budget.trials:
            self._sampler = "grid"

    def draw(self, ordinal: int, past: Experience, is_new: Callable[[Params], bool]) -> Params | None:
        """The params of proposal ``ordinal``, or None when nothing new is left in a finite space.

        ``is_new`` tells whether params were not proposed before. A duplicate is drawn again up to ``TRIES`` times, then
        drawn as in the stratified start (TPE can be sure of a linear probe, which is the same run whatever else it
        says). After that a finite space yields a point not tried yet; an infinite one accepts the duplicate.
        """
        if self._sampler == "grid" and self._points is not None:
            order = self._rng(_GRID).permutation(len(self._points))
            return next((self._points[i] for i in order if is_new(self._points[i])), None)
        candidate: Params = {}
        stratified = (self._stratified(ordinal, attempt, past.entries) for attempt in range(1, TRIES + 1))
        for candidate in itertools.chain(self._candidates(ordinal, past), stratified):
            if is_new(candidate):
                return candidate
        if self._points is None:
            return candidate
        left = [point for point in self._points if is_new(point)]
        return left[int(self._rng(_LEFT_OVER, ordinal).integers(len(left)))] if left else None

    def study(self, past: Iterable[tuple[int, Past]]) -> optuna.Study:
        """Proposals, by their ordinals, as an Optuna study in memory; those outside the space are left out."""
        study = optuna.create_study(directions=self._directions, sampler=RandomSampler(seed=0))
        for frozen in self._evidence:
            study.add_trial(frozen)
        for number, entry in past:
            state, found = self._frozen.get(number, (None, None))
            if state is not entry.state:
                found = self._freeze(number, entry)
            if found is not None:
                self._frozen[number] = entry.state, found
                study.add_trial(found)
        return study

    def startup(self) -> int:
        """How many proposals (anchors included) are made before results are looked at; 0 when they never are."""
        combinations = None if self._combinations is None else len(self._combinations)
        return max(0, startup(self._sampler, self._space.budget.trials, combinations) - len(self._evidence))

    def _seed(self, ordinal: int, attempt: int) -> int:
        """The seed of one draw's sampler."""
        sequence = np.random.SeedSequence([self._space.search.seed, *self._stream, ordinal, attempt])
        return int(sequence.generate_state(1)[0])

    def _rng(self, purpose: int, *entropy: int) -> np.random.Generator:
        """A generator for everything Optuna does not draw, apart from all of the above."""
        sequence = np.random.SeedSequence([self._space.search.seed, *self._stream, *entropy], spawn_key=(purpose,))
        return np.random.default_rng(sequence)

    def _told_of_earlier(self, evidence: Sequence[Past]) -> list[FrozenTrial]:
        """Earlier sweeps' trials that lie in the space, or a choice of them, which leaves room for this sweep's own."""
        within = {number: self._freeze(number, entry, earlier=True) for number, entry in enumerate(evidence)}
        known = [(evidence[number], frozen) for number, frozen in within.items() if frozen is not None]
        told = Experience(self._directions, (entry for entry, _ in known)).told(LEARNT // 2)
        return [known[number][1] for number in told]

    def _candidates(self, ordinal: int, past: Experience) -> Iterator[Params]:
        informative = len(self._evidence) + past.informative
        starting = ordinal < self.startup() or informative < _ENOUGH_TO_LEARN
        if self._sampler == "qmc":
            for attempt in range(TRIES + 1):
                yield self._quasirandom(ordinal, attempt)
        elif self._sampler in ("auto", "gp") and starting:
            for attempt in range(TRIES + 1):
                yield self._stratified(ordinal, attempt, past.entries)
        elif self._sampler == "auto" and len(past) + len(self._earlier) <= MODELLED:
            yield from self._modelled(ordinal, past.entries)
        else:
            yield from self._sampled(ordinal, past)

    def _sampled(self, ordinal: int, past: Experience) -> Iterator[Params]:
        told = () if self._sampler in BLIND else past.told(LEARNT - len(self._evidence))
        study = self.study((number, past.entries[number]) for number in told)
        self._frozen = {number: self._frozen[number] for number in told if number in self._frozen}
        learnt: Learnt = {}
        for attempt in range((GP_TRIES if self._sampler == "gp" else TRIES) + 1):
            study.sampler = make_sampler(
                self._sampler,
                seed=self._seed(ordinal, attempt),
                trials=self._space.budget.trials,
                ordinal=ordinal,
                objectives=len(self._space.objectives),
                evidence=bool(self._evidence),
                learnt=learnt,
            )
            trial = study.ask()
            yield walk(self._space, self._data, partial(suggest, trial))
            study.tell(trial, state=TrialState.FAIL)  # otherwise the rejected draw would count as pending

    def _modelled(self, ordinal: int, past: Sequence[Past]) -> Iterator[Params]:
        yield from self._gain.ranked([*self._earlier, *past], self._rng(_GAIN, ordinal), self._points)

    def _stratified(self, ordinal: int, attempt: int, past: Sequence[Past]) -> Params:
        if self._combinations is None:
            rng = self._rng(_COMBINATIONS, ordinal, attempt)
            return self._numbers_from_sequence(
                ordinal, attempt, lambda _, values: values[int(rng.integers(len(values)))]
            )
        ranked = _least_tried(self._combinations, past, self._rng(_COMBINATIONS).permutation(len(self._combinations)))
        chosen = ranked[attempt % len(ranked)]
        return self._numbers_from_sequence(ordinal, attempt, lambda key, _: chosen[key])

    def _quasirandom(self, ordinal: int, attempt: int) -> Params:
        coordinates = self._coordinates(ordinal, attempt)
        return self._numbers_from_sequence(
            ordinal, attempt, lambda key, values: values[int(coordinates[key] * len(values))]
        )

    def _numbers_from_sequence(
        self, ordinal: int, attempt: int, pick: Callable[[str, Sequence[object]], object]
    ) -> Params:
        coordinates = self._coordinates(ordinal, attempt)

        def choose(name: str, domain: Domain) -> object:
            key = key_of(name)
            return pick(key, domain.values) if isinstance(domain, Choice) else scaled(domain, coordinates[key])

        return walk(self._space, self._data, choose)

    def _coordinates(self, ordinal: int, attempt: int) -> dict[str, float]:
        """A point of the unit cube per searched key; later tries take points from behind the budget's."""
        keys = [dimension.key for dimension in self._space.dimensions]
        if not keys:
            return {}
        index = ordinal if attempt == 0 else self._space.budget.trials + ordinal * TRIES + attempt
        sequence = qmc.Halton(len(keys), scramble=True, seed=int(self._rng(_SEQUENCE).integers(2**32)))
        sequence.num_generated = index  # fast_forward would draw all that lie before
        return dict(zip(keys, sequence.random(1)[0].tolist(), strict=True))

    def _freeze(self, number: int, entry: Past, *, earlier: bool = False) -> FrozenTrial | None:
        """A trial (of an ``earlier`` sweep) as Optuna sees it; None when it lies outside the space."""
        encoded = encode(self._space, self._data, entry.params)
        if encoded is None:
            return None
        if self._sampler in GENETIC:
            rng = self._rng(_SILENT_EARLIER if earlier else _SILENT, number)
            for name, distribution in silent_genes(self._space).items():
                encoded.setdefault(name, (uniform(distribution, rng.random()), distribution))
        told = stand_in(entry, self._sampler) if self._space.search.stopping != "none" else entry
        complete = told.state is TrialState.COMPLETE
        frozen = create_trial(
            state=told.state,
            values=list(told.values) if complete and told.values is not None else None,
            params={name: value for name, (value, _) in encoded.items()},
            distributions={name: distribution for name, (_, distribution) in encoded.items()},
            constraints=dict(told.violations) if complete and told.violations is not None else None,
            user_attrs={ORDINAL: EVIDENCE if earlier else number},
        )
        frozen.__class__ = _Settled
        return frozen


class _Settled(FrozenTrial):
    """A trial of the past: it was checked when it was made, and a copy of it may share its parts.

    Optuna checks and copies it whole each time it is added to a study.
    """

    def _validate(self) -> None:
        pass

    def __deepcopy__(self, memo: dict[int, object]) -> FrozenTrial:
        copied = FrozenTrial.__new__(FrozenTrial)
        copied.__dict__.update(self.__dict__)
        return copied


def stand_in(entry: Past, sampler: str) -> Past:
    """What a sampler is told of trials in a search that stops some of them early.

    TPE with several objectives puts a pruned trial, as it is, among those to keep away from. NSGA and the Gaussian
    process look at completed trials alone: to them a stopped one has completed with the values it had, and violates a
    constraint of its own, ``stopped`` (1 for it, 0 for the rest). It loses every comparison, and its values, which are
    not those of a full training (similarity is too high, accuracy too low), are never taken for a good result.
    """
    if sampler not in IGNORE_PRUNED or entry.state not in (TrialState.COMPLETE, TrialState.PRUNED):
        return entry
    if entry.values is None:
        return replace(entry, state=TrialState.FAIL)
    stopped = float(entry.state is TrialState.PRUNED)
    return replace(entry, state=TrialState.COMPLETE, violations={**(entry.violations or {}), STOPPED: stopped})


def _least_tried(combinations: Sequence[Params], past: Sequence[Past], order: NDArray[np.int64]) -> list[Params]:
    """Combinations by how often they, then their single values, were tried; ties in the given order.

    A value's count weighs as much as its key has values, so that long lists are covered as evenly as short ones.
    """
    weights = {key: len({repr(point[key]) for point in combinations}) for key in combinations[0]}
    keys = [key for key in weights if any(point[key] is not None for point in combinations)]
    tried = [tuple((key, repr(entry.params.get(key))) for key in keys) for entry in past]
    whole, single = Counter(tried), Counter(itertools.chain.from_iterable(tried))

    def rank(index: int) -> tuple[int, int, int]:
        pairs = tuple((key, repr(combinations[index][key])) for key in keys)
        return whole[pairs], sum(weights[pair[0]] * single[pair] for pair in pairs), int(order[index])

    return [combinations[index] for index in sorted(range(len(combinations)), key=rank)]
