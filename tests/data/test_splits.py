"""The split's theorems: stratified within rounding, every class in every part, groups whole, seeded."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repsim.data.splits import (
    allocate,
    duplicates_across_splits,
    grouped_split,
    own_split,
    stratified_sample,
    stratified_split,
)
from repsim.errors import RequestError

FRACTIONS = (0.6, 0.2, 0.2)
shares = st.tuples(*[st.floats(0.01, 1.0)] * 3).map(lambda raw: tuple(value / sum(raw) for value in raw))


@given(total=st.integers(3, 500), fractions=shares)
def test_shares_add_up_and_are_within_one(total: int, fractions: tuple[float, ...]) -> None:
    free = allocate(total, fractions, least=0)
    assert sum(free) == total
    assert all(abs(share - total * fraction) < 1 + 1e-6 for share, fraction in zip(free, fractions, strict=True))
    kept = allocate(total, fractions, least=1)
    assert sum(kept) == total
    assert min(kept) >= 1


def test_too_few_cannot_be_shared() -> None:
    with pytest.raises(ValueError, match="2 cannot be cut into 3 shares of at least 1"):
        allocate(2, FRACTIONS, least=1)


@settings(deadline=None, max_examples=40)
@given(counts=st.lists(st.integers(3, 60), min_size=2, max_size=6), fractions=shares, seed=st.integers(0, 2**32 - 1))
def test_every_class_is_cut_by_the_fractions(counts: list[int], fractions: tuple[float, ...], seed: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    parts = stratified_split(labels, (fractions[0], fractions[1], fractions[2]), seed)
    for label, count in enumerate(counts):
        found = np.bincount(parts[labels == label], minlength=3)
        assert found.tolist() == allocate(count, fractions, least=1)


def test_the_seed_decides_and_only_the_seed() -> None:
    labels = np.repeat(np.arange(3), 40)
    first = stratified_split(labels, FRACTIONS, 0)
    np.testing.assert_array_equal(first, stratified_split(labels, FRACTIONS, 0))
    assert (first != stratified_split(labels, FRACTIONS, 1)).mean() > 0.2


def test_another_class_growing_leaves_a_class_where_it_is() -> None:
    small = stratified_split(np.repeat([0, 1], [20, 20]), FRACTIONS, 5)
    large = stratified_split(np.repeat([0, 1], [20, 50]), FRACTIONS, 5)
    np.testing.assert_array_equal(small[:20], large[:20])


def _check_groups(labels: np.ndarray, groups: list[str], parts: np.ndarray) -> None:
    for group in set(groups):
        inside = parts[np.array([name == group for name in groups])]
        assert len(set(inside.tolist())) == 1
    for label, part in product(range(int(labels.max()) + 1), range(3)):
        assert ((labels == label) & (parts == part)).any()


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.lists(st.integers(1, 9), min_size=3, max_size=12), min_size=2, max_size=5),
    seed=st.integers(0, 1000),
)
def test_groups_of_one_class_can_always_be_split(sizes: list[list[int]], seed: int) -> None:
    labels, groups = [], []
    for label, of_class in enumerate(sizes):
        for number, size in enumerate(of_class):
            labels += [label] * size
            groups += [f"{label}-{number}"] * size
    parts = grouped_split(np.array(labels), groups, FRACTIONS, seed)
    _check_groups(np.array(labels), groups, parts)


def test_groups_with_several_classes_meet_the_fractions() -> None:
    rng = np.random.default_rng(0)
    patient = np.sort(rng.integers(0, 120, 1500))
    labels = (rng.random(1500)[:, None] > [0.5, 0.85]).sum(axis=1)
    groups = [f"p{number}" for number in patient]
    parts = grouped_split(labels, groups, FRACTIONS, 3)
    _check_groups(labels, groups, parts)
    for label in range(3):
        found = np.bincount(parts[labels == label], minlength=3) / (labels == label).sum()
        np.testing.assert_allclose(found, FRACTIONS, atol=0.03)
    np.testing.assert_array_equal(parts, grouped_split(labels, groups, FRACTIONS, 3))
    assert (parts != grouped_split(labels, groups, FRACTIONS, 4)).mean() > 0.2


def test_groups_of_one_image_are_split_like_images() -> None:
    labels = np.repeat(np.arange(3), [50, 30, 7])
    parts = grouped_split(labels, [str(index) for index in range(87)], FRACTIONS, 0)
    for label, count in enumerate((50, 30, 7)):
        found = np.bincount(parts[labels == label], minlength=3)
        assert np.abs(found - np.array(FRACTIONS) * count).max() <= 1 + 1e-9


def test_a_large_group_does_not_leave_a_part_empty() -> None:
    labels = np.repeat([0, 1], [103, 103])
    groups = ["big"] * 100 + ["a", "b", "c"] + ["huge"] * 100 + ["d", "e", "f"]
    parts = grouped_split(labels, groups, FRACTIONS, 0)
    _check_groups(labels, groups, parts)
    assert parts[0] == parts[103] == 0


def _possible(has: np.ndarray) -> bool:
    """By trying every assignment: can each class (column) be brought into all three parts?"""
    for assigned in product(range(3), repeat=has.shape[0]):
        parts = np.array(assigned)
        if all(has[parts == part].any(axis=0).all() for part in range(3)):
            return True
    return False


def test_overlapping_groups_are_split_whenever_they_can_be() -> None:
    rng = np.random.default_rng(1)
    refused = 0
    for seed in range(60):
        has = rng.random((6, 4)) < 0.6
        if (has.sum(axis=0) < 3).any() or not has.any(axis=1).all():
            continue
        pairs = np.argwhere(has)
        groups, labels = [str(group) for group in pairs[:, 0]], pairs[:, 1]
        if _possible(has):
            _check_groups(labels, groups, grouped_split(labels, groups, FRACTIONS, seed))
        else:
            refused += 1
            with pytest.raises(RequestError, match="no split keeps the groups whole"):
                grouped_split(labels, groups, FRACTIONS, seed)
    assert refused < 30


def test_groups_that_cannot_be_split_are_refused() -> None:
    pairs = [(group, label) for label in range(4) for group in range(4) if group != label]
    groups, labels = [str(group) for group, _ in pairs], np.array([label for _, label in pairs])
    with pytest.raises(RequestError, match=r"my.csv: data.group: no split keeps the groups whole and every class"):
        grouped_split(labels, groups, FRACTIONS, 0, "my.csv")


def test_the_own_split_is_read_off() -> None:
    assert own_split(["test", "train", "val"]).tolist() == [2, 0, 1]


def test_duplicates_are_paired_across_parts_only() -> None:
    hashes = ["a", "b", "a", "c", "b", "a", "d", "d"]
    parts = np.array([1, 0, 0, 0, 0, 2, 2, 2])
    assert duplicates_across_splits(hashes, parts) == [(2, 0), (2, 5)]
    assert duplicates_across_splits(["a"] * 100, np.arange(100) % 3) == [(0, k) for k in range(100) if k % 3]
    assert duplicates_across_splits(["a", "b", "c"], np.array([0, 1, 2])) == []


@given(counts=st.lists(st.integers(1, 50), min_size=1, max_size=5), size=st.integers(1, 120))
def test_a_sample_keeps_the_proportions(counts: list[int], size: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    picked = stratified_sample(labels, size, [1])
    assert picked.size == min(size, labels.size)
    assert (np.diff(picked) > 0).all()
    found = np.bincount(labels[picked], minlength=len(counts))
    assert np.abs(found - np.array(counts) * picked.size / labels.size).max() < 1 + 1e-6
    np.testing.assert_array_equal(picked, stratified_sample(labels, size, [1]))
