"""What a trial gets: labels, split, probe, weights, hashes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from repsim.config import DataConfig
from repsim.data import ImageSet, load_images
from repsim.errors import RequestError
from tests.data.helpers import write_csv, write_folder, write_png


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    folder = write_folder(tmp_path / "images", {"a": 30, "b": 10, "c": 20})
    return load_images(DataConfig(source=str(folder), image_size=16), cache_dir=tmp_path / "cache")


def test_the_parts_cover_everything_once(images: ImageSet) -> None:
    together = np.concatenate([images.train, images.val, images.test])
    assert sorted(together.tolist()) == list(range(60))
    for part in (images.train, images.val, images.test):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()
    assert [np.bincount(images.labels[images.split(part)]).tolist() for part in ("train", "val", "test")] == [
        [18, 6, 12],
        [6, 2, 4],
        [6, 2, 4],
    ]


def test_labels_are_positions_in_the_classes(images: ImageSet) -> None:
    assert images.n_classes == 3
    assert [images.classes[label] for label in images.labels] == [name.split("/")[0] for name in images.names]


def test_nothing_in_a_set_can_be_written(images: ImageSet) -> None:
    for array in (images.labels, images.train, images.val, images.test, images.images):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_an_unknown_part_is_refused(images: ImageSet) -> None:
    with pytest.raises(ValueError, match="'dev' is not a part of a split; allowed: train, val, test"):
        images.split("dev")  # type: ignore[arg-type]


def test_the_probe_is_stratified_and_stays(images: ImageSet) -> None:
    probe = images.probe("train", 18)
    assert set(probe) <= set(images.train)
    assert np.bincount(images.labels[probe]).tolist() == [9, 3, 6]
    np.testing.assert_array_equal(probe, images.probe("train", 18))
    np.testing.assert_array_equal(images.probe("val", 2000), images.val)
    hashes = {images.probe_hash(part, size) for part in ("val", "test") for size in (8, 100)}
    assert len(hashes) == 4
    assert all(len(text) == 16 for text in hashes)


def test_class_weights_undo_the_frequency(images: ImageSet) -> None:
    weights = images.class_weights()
    np.testing.assert_allclose(weights.mean(), 1.0)
    np.testing.assert_allclose(weights * [18, 6, 12] / (weights[0] * 18), 1.0)
    assert images.largest_class_fraction == 0.5
    assert images.smallest_class_fraction == pytest.approx(1 / 6)


def test_exact_duplicates_across_parts_are_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", {"a": 6, "b": 6})
    for part, number in (("train", 1), ("test", 2), ("test", 3)):
        write_png(folder / "copies" / f"{part}{number}.png", 500)
    rows = [
        [f"{label}/{number:03d}.png", label, ("train", "val", "test")[number // 2]]
        for label in "ab"
        for number in range(6)
    ]
    rows += [[f"copies/{part}.png", "a", part[:-1]] for part in ("train1", "test2", "test3")]
    path = write_csv(folder / "a.csv", ["image", "label", "split"], rows)
    images = load_images(DataConfig(source=str(path), image_size=16), cache_dir=tmp_path / "cache")
    assert images.duplicates == (("copies/train1.png", "copies/test2.png"), ("copies/train1.png", "copies/test3.png"))
    assert len(images) == 15


def test_the_own_split_of_a_csv_is_honoured_whatever_the_seed(tmp_path: Path) -> None:
    write_folder(tmp_path, {"x": 9})
    rows = [[f"x/{k:03d}.png", "abc"[k % 3], ("test", "val", "train")[k // 3]] for k in range(9)]
    path = write_csv(tmp_path / "a.csv", ["image", "label", "split"], rows)
    for seed in (0, 1):
        config = DataConfig(source=str(path), image_size=16, split_seed=seed, fractions=(0.2, 0.4, 0.4))
        images = load_images(config, cache_dir=tmp_path / "cache")
        assert [images.names[index] for index in images.train] == ["x/006.png", "x/007.png", "x/008.png"]


def test_a_patient_never_crosses_the_parts(tmp_path: Path) -> None:
    write_folder(tmp_path, {"x": 40})
    rows = [[f"x/{k:03d}.png", "ab"[k // 20], f"patient {k // 4}"] for k in range(40)]
    path = write_csv(tmp_path / "a.csv", ["image", "label", "patient"], rows)
    patient = {row[0]: row[2] for row in rows}
    for seed in range(5):
        config = DataConfig(source=str(path), image_size=16, split_seed=seed, group="patient")
        images = load_images(config, cache_dir=tmp_path / "cache")
        owners = [{patient[images.names[index]] for index in images.split(part)} for part in ("train", "val", "test")]
        assert owners[0].isdisjoint(owners[1] | owners[2])
        assert owners[1].isdisjoint(owners[2])
        assert all(np.bincount(images.labels[images.split(part)]).min() > 0 for part in ("train", "val", "test"))
    without = DataConfig(source=str(path), image_size=16)
    images = load_images(without, cache_dir=tmp_path / "cache")
    owners = [{patient[images.names[index]] for index in images.split(part)} for part in ("train", "val", "test")]
    assert not owners[0].isdisjoint(owners[1]), "the test must be able to fail"


def test_a_class_with_too_few_images_is_refused_before_decoding(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", {"a": 5, "b": 1})
    with pytest.raises(RequestError, match="class 'b' has 1 image; allowed: 3 or more"):
        load_images(DataConfig(source=str(folder)), cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_where_the_request_was_written_is_named() -> None:
    with pytest.raises(RequestError, match=r"^pareto.yaml: source: 'nowhere' does not exist"):
        load_images(DataConfig(source="nowhere"), where="pareto.yaml")
