"""Finite views: functions of (entropy, view, image) alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repsim.data import views as views_module
from repsim.data.views import Views, to_tensor
from tests.data.helpers import picture

SIDE = 32


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.stack([picture(seed, SIDE, SIDE) for seed in range(40)])


def _views(**changes: object) -> Views:
    return Views(**({"n_views": 4, "image_size": SIDE} | changes))  # type: ignore[arg-type]


def test_plain_tensors(images: np.ndarray) -> None:
    found = to_tensor(images)
    assert found.shape == (40, 3, SIDE, SIDE)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(found.numpy().transpose(0, 2, 3, 1), images / 255.0, atol=1e-6)


def test_read_only_images_are_taken_without_a_warning(images: np.ndarray) -> None:
    images = images[:2].copy()
    images.setflags(write=False)
    assert torch.equal(to_tensor(images), to_tensor(images.copy()))
    _views().augment(images, np.arange(2), 0)


def test_views_have_shape_range_and_layout(images: np.ndarray) -> None:
    found = _views().augment(images, np.arange(40), 1)
    assert found.shape == (40, 3, SIDE, SIDE)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert found.min() >= 0.0
    assert found.max() <= 1.0
    assert not torch.equal(found, to_tensor(images))


def test_a_view_does_not_depend_on_the_batch(images: np.ndarray) -> None:
    whole = _views().augment(images, np.arange(40), 2)
    order = np.random.default_rng(0).permutation(40)
    for batch in (order[:1], order[:7], order[7:39], np.array([3, 3])):
        assert torch.equal(Views(n_views=9, image_size=SIDE).augment(images[batch], batch, 2), whole[batch])


def test_parameters_depend_on_entropy_view_and_image_alone() -> None:
    one = _views()
    wanted = one.parameters(np.array([5, 5000, 6]), 1)
    np.testing.assert_array_equal(_views(n_views=100).parameters(np.array([5000]), 1), wanted[1:2])
    assert len({row.tobytes() for row in wanted}) == 3
    for other in (one.parameters(np.array([5]), 2), _views(seed_entropy=1).parameters(np.array([5]), 1)):
        assert not np.array_equal(other[0], wanted[0])
    np.testing.assert_array_equal(one.parameters(np.array([5]), 1)[0], wanted[0])


def test_parameters_stay_in_their_ranges() -> None:
    rows = np.concatenate([_views().parameters(np.arange(3000), view) for view in range(3)]).astype(np.float64)
    linear = rows[:, [0, 1, 3, 4]].reshape(-1, 2, 2)
    determinant = np.linalg.det(linear)
    assert 0.45 < (determinant < 0).mean() < 0.55
    scale = np.sqrt(np.abs(determinant))
    assert scale.min() >= 0.8 - 1e-6
    assert scale.max() <= 1.25 + 1e-6
    angle = np.degrees(np.arctan2(linear[:, 1, 0], linear[:, 1, 1]))
    assert 9.5 < np.abs(angle).max() <= 10 + 1e-4
    assert 0.155 < np.abs(rows[:, [2, 5]]).max() <= 0.16 + 1e-6, "8 % of a side that is 2 long"
    gain = rows[:, 6] * 255.0
    assert gain.min() >= 0.8 - 1e-6
    assert gain.max() <= 1.2 + 1e-6
    assert np.abs(rows[:, 7] - 0.5 * (1 - gain)).max() <= 0.15 + 1e-6


def test_a_view_is_the_affine_picture(images: np.ndarray) -> None:
    """Against a plain loop: pixel centres mapped, bilinear, borders repeated."""
    views = _views()
    index = np.array([7])
    xx, xy, x0, yx, yy, y0, gain, offset = views.parameters(index, 0)[0].astype(np.float64)
    source = np.pad(images[7].astype(np.float64), ((1, 1), (1, 1), (0, 0)), mode="edge")
    expected = np.zeros((SIDE, SIDE, 3))
    for row in range(SIDE):
        for column in range(SIDE):
            across, down = (2 * column + 1) / SIDE - 1, (2 * row + 1) / SIDE - 1
            x = np.clip(((xx * across + xy * down + x0 + 1) * SIDE - 1) / 2, 0, SIDE - 1)
            y = np.clip(((yx * across + yy * down + y0 + 1) * SIDE - 1) / 2, 0, SIDE - 1)
            left, top = int(x), int(y)
            patch = source[top + 1 : top + 3, left + 1 : left + 3]
            weights = np.outer([1 - (y - top), y - top], [1 - (x - left), x - left])
            expected[row, column] = (patch * weights[..., None]).sum(axis=(0, 1)) * gain + offset
    found = views.augment(images[index], index, 0)[0].numpy().transpose(1, 2, 0)
    np.testing.assert_allclose(found, np.clip(expected, 0, 1), atol=1e-4)


def test_the_identity_changes_nothing(images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = np.array([[1, 0, 0, 0, 1, 0, 1 / 255, 0]], dtype=np.float32).repeat(40, axis=0)
    monkeypatch.setattr(Views, "parameters", lambda *_: identity)
    found = _views().augment(images, np.arange(40), 0)
    np.testing.assert_allclose(found.numpy(), to_tensor(images).numpy(), atol=1e-4)


def test_no_views_is_the_plain_picture(images: np.ndarray) -> None:
    assert torch.equal(_views(kind="none").augment(images, np.arange(40), 3), to_tensor(images))


def test_parameters_are_made_once_per_block() -> None:
    views_module._block_of_parameters.cache_clear()
    views = _views()
    for _ in range(5):
        views.parameters(np.arange(1500), 0)
    assert views_module._block_of_parameters.cache_info().misses == 2


def test_wrong_requests_are_refused(images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="n_views must be at least 1, not 0"):
        _views(n_views=0)
    with pytest.raises(ValueError, match="'strong' is not a kind of view; allowed: standard, none"):
        _views(kind="strong")
    with pytest.raises(ValueError, match="view 4 is not one of the 4 views"):
        _views().augment(images, np.arange(40), 4)
    with pytest.raises(ValueError, match=r"images have shape \(40, 32, 32, 3\), expected \(39, 32, 32, 3\)"):
        _views().augment(images, np.arange(39), 0)
