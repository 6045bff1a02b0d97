"""The images made on the spot: fixed, balanced as planned, and different by class."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from repsim.config import DataConfig
from repsim.data import count_images, load_images, phantom


@pytest.fixture(scope="module")
def tiny() -> np.ndarray:
    return phantom.render("tiny")


def test_the_plan_has_the_sizes_and_shares() -> None:
    plan = phantom.plan("ultrasound")
    assert list(plan.names) == sorted(set(plan.names))
    assert [plan.splits.count(part) for part in ("train", "val", "test")] == [600, 200, 200]
    assert [plan.labels.count(label) for label in phantom.CLASSES] == [400, 250, 350]
    assert count_images("phantom:ultrasound") == 1000
    assert count_images("phantom:tiny") == 150


def test_images_are_fixed_by_the_seed_and_their_number(tiny: np.ndarray) -> None:
    assert tiny.shape == (150, phantom.SIDE, phantom.SIDE)
    assert len({image.tobytes() for image in tiny}) == 150
    recipe = phantom.RECIPES["tiny"]
    label = phantom.plan("tiny").labels[40]
    for entropy, same in ((recipe.entropy, True), (recipe.entropy + 1, False)):
        again = phantom.render_one(label, recipe.difficulty, np.random.default_rng([entropy, 40]))
        assert np.array_equal(again, tiny[40]) is same


def test_images_look_like_b_mode(tiny: np.ndarray) -> None:
    images = tiny / 255.0
    assert 0.2 < images.mean() < 0.5
    assert (images == 1.0).mean() < 0.02
    gland = images[:, 35:55, 10:86]
    contrast = gland.std(axis=(1, 2)) / gland.mean(axis=(1, 2))
    assert 0.2 < np.median(contrast) < 0.8, "speckle"
    skin, muscle = images[:, :3].mean(), images[:, -6:].mean()
    assert skin > 1.5 * muscle


def _lesion_map(label: str, difficulty: phantom.Difficulty) -> np.ndarray:
    """Mean change (dB) over many lesions, each moved to the middle column."""
    total = np.zeros((phantom.SIDE, phantom.SIDE))
    for seed in range(80):
        lesion = phantom._lesion(label, difficulty, np.random.default_rng(seed), 0.2, 0.75)
        column = int(np.argmin(lesion[:60].sum(axis=0)))
        total += np.roll(lesion, phantom.SIDE // 2 - column, axis=1)
    return total / 80


def test_benign_and_malignant_differ_as_they_should() -> None:
    benign, malignant = (_lesion_map(label, phantom.EASY) for label in ("benign", "malignant"))
    below = (slice(80, 96), slice(42, 54))
    assert benign[below].mean() > 2.0, "enhancement behind"
    assert malignant[below].mean() < -4.0, "shadow behind"
    wide, tall = (np.ptp(np.flatnonzero((benign < -4.0).any(axis=axis))) for axis in (0, 1))
    assert wide > tall
    assert (
        np.abs(
            _lesion_map("benign", replace(phantom.EASY, overlap=1.0))[below].mean()
            - _lesion_map("malignant", replace(phantom.EASY, overlap=1.0))[below].mean()
        )
        < 0.5
    )


def test_spiculation_makes_the_outline_rough() -> None:
    angle = np.linspace(-np.pi, np.pi, 720, endpoint=False)
    rough, smooth = (
        np.mean([np.abs(np.diff(phantom._outline(angle, amount, np.random.default_rng(k)))).sum() for k in range(20)])
        for amount in (0.8, 0.05)
    )
    assert rough > 5 * smooth


def _accuracy(difficulty: phantom.Difficulty) -> float:
    """Of a linear classifier on block means: knows brightness and place, no shape."""
    recipe = replace(phantom.RECIPES["tiny"], sizes=(180, 90, 3), difficulty=difficulty)
    plan = phantom.plan_of(recipe)
    images = phantom.render_recipe(recipe).reshape(-1, 12, 8, 12, 8).mean(axis=(2, 4)).reshape(-1, 144) / 255.0
    labels, splits = np.array(plan.labels), np.array(plan.splits)
    model = LogisticRegression(C=1.0, max_iter=2000).fit(images[splits == "train"], labels[splits == "train"])
    return float(model.score(images[splits == "val"], labels[splits == "val"]))


def test_difficulty_makes_it_harder() -> None:
    easy = _accuracy(phantom.EASY)
    hard = _accuracy(phantom.Difficulty(overlap=1.0, spread=0.5, faintness=10.0, clutter=1.0))
    assert easy > 0.6
    assert hard < easy - 0.15


def test_a_thousand_images_take_seconds() -> None:
    start = time.process_time()
    phantom.render("tiny")
    assert (time.process_time() - start) * 1000 / 150 < 15.0


def test_an_unknown_phantom_is_refused() -> None:
    with pytest.raises(KeyError, match="nothing"):
        phantom.plan("nothing")


def test_a_phantom_goes_through_the_cache(tmp_path: Path) -> None:
    images = load_images(DataConfig(source="phantom:tiny", image_size=64), cache_dir=tmp_path)
    assert images.images.shape == (150, 64, 64, 3)
    assert (len(images.train), len(images.val), len(images.test)) == (90, 30, 30)
    assert images.classes == phantom.CLASSES
    assert images.duplicates == ()
    assert all(
        name.split("/")[1].startswith(images.classes[label])
        for name, label in zip(images.names, images.labels, strict=True)
    )
