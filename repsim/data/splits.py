"""Which images train, which choose, which are held out: stratified, seeded, groups kept whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from repsim.data.listing import SPLITS
from repsim.errors import Mistake, RequestError

_ENTROPY = 0x5B117
_ATTEMPTS = 100
"""Orders tried before groups that overlap in classes are called impossible to split."""
Fractions = tuple[float, float, float]


def allocate(total: int, fractions: Sequence[float], least: int) -> list[int]:
    """Whole shares of ``total`` by largest remainder, each at least ``least``.

    Without the minimum, every share is within one of ``fraction * total``. Raises ValueError when ``total`` is too
    small for the minimum.
    """
    if total < least * len(fractions):
        raise ValueError(f"{total} cannot be cut into {len(fractions)} shares of at least {least}")
    whole = sum(fractions)
    exact = [total * fraction / whole for fraction in fractions]
    shares = [int(value + 1e-9) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda index: (shares[index] - exact[index], index))
    for index in by_remainder[: total - sum(shares)]:
        shares[index] += 1
    while min(shares) < least:
        shares[shares.index(max(shares))] -= 1
        shares[shares.index(min(shares))] += 1
    return shares


def stratified_split(labels: NDArray[np.int64], fractions: Fractions, seed: int) -> NDArray[np.int64]:
    """Part (0 train, 1 val, 2 test) of every image, shape (n,); each class is cut by the fractions within one image.

    Every class gets at least one image in each part. A class's images are permuted by its own generator, so another
    class growing leaves them where they are. Raises ValueError when a class has fewer than 3 images.
    """
    parts = np.empty(labels.shape[0], dtype=np.int64)
    for label in range(int(labels.max()) + 1):
        members = np.flatnonzero(labels == label)
        shares = allocate(members.size, fractions, least=1)
        order = np.random.default_rng([_ENTROPY, seed, label]).permutation(members)
        parts[order] = np.repeat(np.arange(3), shares)
    return parts


def grouped_split(
    labels: NDArray[np.int64], groups: Sequence[str], fractions: Fractions, seed: int, where: str = "data"
) -> NDArray[np.int64]:
    """Like :func:`stratified_split`, but images of one group stay together; the fractions are met as nearly as the
    groups allow, per class.

    Raises :class:`RequestError` when no way was found to put every class into each part.
    """
    names = sorted(set(groups))
    number = {name: index for index, name in enumerate(names)}
    member_of = np.array([number[group] for group in groups], dtype=np.int64)
    counts = np.zeros((len(names), int(labels.max()) + 1))
    np.add.at(counts, (member_of, labels), 1)
    totals = counts.sum(axis=0)
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng([_ENTROPY, seed, 1, attempt])
        found = _assign(counts / totals, np.array(fractions), rng, explore=attempt > 0)
        if found is not None:
            return found[member_of]
    problem = "no split keeps the groups whole and every class in train, val and test"
    raise RequestError(
        Mistake(where=where, key="data.group", problem=problem, allowed="more groups of the rarest classes")
    )


def _assign(
    shares: NDArray[np.float64], fractions: NDArray[np.float64], rng: np.random.Generator, *, explore: bool
) -> NDArray[np.int64] | None:
    """One greedy try: a part for every group, or None when a class would be missing from a part.

    ``shares`` (groups, classes) is each group's share of a class. First every class is brought into every part, the
    class with the fewest spare groups first; then the rest go where the class shares are furthest below the fractions,
    large groups first. ``explore`` chooses at random in the first step, favouring groups that bring many classes.
    """
    n_groups, n_classes = shares.shape
    parts = np.full(n_groups, -1, dtype=np.int64)
    filled = np.zeros((3, n_classes))
    has = shares > 0
    noise = rng.permutation(n_groups)
    while True:
        missing = ~(filled > 0)
        if not missing.any():
            break
        free = parts < 0
        spare = np.where(missing.any(axis=0), has[free].sum(axis=0) - missing.sum(axis=0), n_groups + 1)
        label = int(np.argmin(spare))
        if spare[label] < 0:
            return None
        candidates = np.flatnonzero(free & has[:, label])
        if explore:
            part = int(rng.choice(np.flatnonzero(missing[:, label])))
            brought = (has[candidates] & missing[part]).sum(axis=1)
            chosen = candidates[np.argmax(brought + 2.0 * rng.random(size=candidates.shape))]
        else:
            part = int(np.argmin(np.where(missing[:, label], fractions, np.inf)))
            overshoot = ((filled[part] + shares[candidates] - fractions[part]).clip(min=0) ** 2).sum(axis=1)
            chosen = candidates[np.lexsort((noise[candidates], np.round(overshoot, 9)))[0]]
        parts[chosen] = part
        filled[part] += shares[chosen]
    rest = np.flatnonzero(parts < 0)
    for group in rest[np.lexsort((noise[rest], -shares[rest].sum(axis=1)))]:
        cost = ((filled - fractions[:, None]) * shares[group]).sum(axis=1)
        part = int(np.argmin(cost))
        parts[group] = part
        filled[part] += shares[group]
    return parts


def own_split(splits: Sequence[str]) -> NDArray[np.int64]:
    """Part (0 train, 1 val, 2 test) of every image from the names a source gives."""
    number = {name: index for index, name in enumerate(SPLITS)}
    return np.array([number[name] for name in splits], dtype=np.int64)


def duplicates_across_splits(hashes: Sequence[str], parts: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Pairs of images with equal ``hashes`` in different parts.

    Of each set of equal images, the first one of the earliest part (train before val before test) is paired with every
    one in a later part: no more pairs than images. Sorted.
    """
    same: dict[str, list[int]] = {}
    for index, value in enumerate(hashes):
        same.setdefault(value, []).append(index)
    pairs = []
    for indices in same.values():
        first = min(indices, key=lambda index: (int(parts[index]), index))
        pairs += [(first, index) for index in indices if parts[index] != parts[first]]
    return sorted(pairs)


def stratified_sample(labels: NDArray[np.int64], size: int, entropy: Sequence[int]) -> NDArray[np.int64]:
    """Sorted positions of at most ``size`` entries of ``labels``, the classes in proportion (within one)."""
    if size >= labels.shape[0]:
        return np.arange(labels.shape[0])
    values, counts = np.unique(labels, return_counts=True)
    shares = allocate(size, (counts / labels.shape[0]).tolist(), least=0)
    picked = [
        np.random.default_rng([*entropy, int(value)]).permutation(np.flatnonzero(labels == value))[:share]
        for value, share in zip(values, shares, strict=True)
    ]
    return np.sort(np.concatenate(picked))
