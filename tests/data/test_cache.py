"""Decoded once, shared, never half-built."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repsim.config import DataConfig
from repsim.data import cache, load_images
from repsim.data.cache import default_cache_dir
from repsim.errors import RequestError
from tests.data.helpers import npz_arrays, picture, write_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "images", {"a": 5, "b": 7})


def _config(source: Path | str, **changes: object) -> DataConfig:
    return DataConfig.model_validate({"source": str(source), "image_size": 16, **changes})


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "images").iterdir() if path.is_dir())


def test_images_are_decoded_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_images(_config(folder), cache_dir=tmp_path / "cache")
    monkeypatch.setattr(cache, "_build", lambda *_: pytest.fail("decoded again"))
    second = load_images(_config(folder), cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(first.images, second.images)
    assert first.data_hash == second.data_hash
    assert isinstance(second.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        second.images[0] = 0


def test_another_size_resize_or_file_is_another_entry(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "cache"
    hashes = {
        load_images(_config(folder, **changes), cache_dir=store).data_hash
        for changes in ({}, {"image_size": 17}, {"resize": "squash"}, {"resize": "crop"})
    }
    assert len(hashes) == len(_entries(store)) == 4
    Image.fromarray(picture(99)).save(folder / "a" / "000.png")
    os.utime(folder / "a" / "000.png", ns=(1, 1))
    assert load_images(_config(folder), cache_dir=store).data_hash not in hashes
    assert len(_entries(store)) == 5


def test_the_data_hash_is_that_of_a_copy_elsewhere(folder: Path, tmp_path: Path) -> None:
    original = load_images(_config(folder), cache_dir=tmp_path / "cache")
    shutil.copytree(folder, tmp_path / "elsewhere" / "copy")
    copy = load_images(_config(tmp_path / "elsewhere" / "copy"), cache_dir=tmp_path / "other")
    assert copy.data_hash == original.data_hash
    assert copy.probe_hash("val", 100) == original.probe_hash("val", 100)


def test_the_data_hash_does_not_depend_on_the_split_but_on_labels(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "cache"
    original = load_images(_config(folder), cache_dir=store)
    other = load_images(_config(folder, split_seed=1), cache_dir=store)
    assert other.data_hash == original.data_hash
    assert other.val.tolist() != original.val.tolist()
    (folder / "a").rename(folder / "c")
    assert load_images(_config(folder), cache_dir=store).data_hash != original.data_hash


def test_progress_ends_at_the_total(folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    thread = []
    load_images(
        _config(folder),
        cache_dir=tmp_path / "cache",
        progress=lambda done, total: (seen.append((done, total)), thread.append(threading.current_thread())),
    )
    assert seen == [(done, 12) for done in range(1, 13)]
    assert set(thread) == {threading.main_thread()}


def _truncate(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 50, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])


def test_an_unreadable_image_is_refused_and_nothing_is_left(folder: Path, tmp_path: Path) -> None:
    _truncate(folder / "a" / "001.png")
    (folder / "b" / "link.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(RequestError, match=r"image 'a/001.png' cannot be decoded: .*truncated") as caught:
        load_images(_config(folder), cache_dir=tmp_path / "cache")
    lines = [str(mistake) for mistake in caught.value.mistakes]
    assert "image 'b/link.png' is not a file that can be read" in lines[1]
    assert "data.on_error: skip" in lines[2]
    assert list((tmp_path / "cache" / "images").glob("**/*.npy")) == []


def test_an_unreadable_image_is_skipped_and_named(folder: Path, tmp_path: Path) -> None:
    whole = load_images(_config(folder), cache_dir=tmp_path / "cache")
    _truncate(folder / "a" / "001.png")
    images = load_images(_config(folder, on_error="skip"), cache_dir=tmp_path / "cache")
    assert images.skipped == ("a/001.png",)
    assert len(images) == len(images.images) == 11
    assert "a/001.png" not in images.names
    keep = [index for index, name in enumerate(whole.names) if name != "a/001.png"]
    np.testing.assert_array_equal(images.images, whole.images[keep])
    np.testing.assert_array_equal(images.labels, whole.labels[keep])
    again = load_images(_config(folder, on_error="skip"), cache_dir=tmp_path / "cache")
    assert again.skipped == images.skipped


def test_skipping_may_not_leave_a_class_too_small(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", {"a": 3, "b": 4})
    _truncate(folder / "a" / "000.png")
    with pytest.raises(RequestError, match="class 'a' has 2 images; allowed: 3 or more"):
        load_images(_config(folder, on_error="skip"), cache_dir=tmp_path / "cache")


def test_nothing_readable_is_refused_even_when_skipping(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", {"a": 3, "b": 3})
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(RequestError, match=r"image 'a/000.png' cannot be decoded"):
        load_images(_config(folder, on_error="skip"), cache_dir=tmp_path / "cache")


def _load(source: str, store: str, start: object, results: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    images = load_images(_config(source), cache_dir=Path(store))
    results.put((images.data_hash, int(images.images.sum()), "torch" in sys.modules))  # type: ignore[attr-defined]


def test_processes_that_build_at_once_all_succeed(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", {"a": 60, "b": 60})
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(2), context.Queue()
    arguments = (str(folder), str(tmp_path / "cache"), start, results)
    processes = [context.Process(target=_load, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert found[0] == found[1]
    assert not found[0][2], "loading images must not import torch"
    assert len(_entries(tmp_path / "cache")) == 1


def test_threads_that_build_at_once_all_succeed(folder: Path, tmp_path: Path) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(load_images(_config(folder), cache_dir=tmp_path / "cache").data_hash)
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_oddities_of_files_are_not_warned_about_and_the_filters_come_back(folder: Path, tmp_path: Path) -> None:
    Image.fromarray(picture(1)).save(folder / "a" / "z.jpg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    before = list(warnings.filters)
    assert len(load_images(_config(folder), cache_dir=tmp_path / "cache")) == 13
    assert list(warnings.filters) == before


def test_a_builder_that_dies_leaves_nothing_that_is_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "cache"
    expected = load_images(_config(folder), cache_dir=tmp_path / "other")
    (entry,) = _entries(tmp_path / "other")
    abandoned = store / "images" / f".{entry.name}-killed"
    abandoned.mkdir(parents=True)
    np.save(abandoned / "pixels.npy", np.zeros((12, 16, 16, 3), dtype=np.uint8))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_build", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_images(_config(folder), cache_dir=store)
    assert _entries(store) == []
    np.testing.assert_array_equal(load_images(_config(folder), cache_dir=store).images, expected.images)


@pytest.mark.parametrize("damage", ["no meta", "half a meta", "no pixels", "half the pixels", "other meta"])
def test_a_damaged_entry_is_built_again(folder: Path, tmp_path: Path, damage: str) -> None:
    expected = load_images(_config(folder), cache_dir=tmp_path / "cache")
    pixels = np.array(expected.images)
    (entry,) = _entries(tmp_path / "cache")
    meta, array = entry / "meta.json", entry / "pixels.npy"
    if damage == "no meta":
        meta.unlink()
    elif damage == "half a meta":
        meta.write_text(meta.read_text()[:50])
    elif damage == "no pixels":
        array.unlink()
    elif damage == "half the pixels":
        content = array.read_bytes()
        array.unlink()
        array.write_bytes(content[: len(content) // 2])
    else:
        meta.write_text(json.dumps({"shape": [1, 2, 3]}))
    again = load_images(_config(folder), cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(again.images, pixels)
    assert again.data_hash == expected.data_hash


def test_the_cache_folder_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("REPSIM_CACHE", raising=False)
    assert default_cache_dir() == Path("/home/someone/.cache/repsim")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert default_cache_dir() == Path("/caches/repsim")
    monkeypatch.setenv("REPSIM_CACHE", "~/mine")
    assert default_cache_dir() == Path("/home/someone/mine")


def test_a_cache_that_cannot_be_written_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / "file"))
    with pytest.raises(RequestError, match=r"the cache folder cannot be written: .*set REPSIM_CACHE to another folder"):
        load_images(_config(folder))


def test_an_entry_that_vanishes_is_an_error(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_open", lambda *_: None)
    with pytest.raises(RuntimeError, match="vanished while it was being opened"):
        load_images(_config(folder), cache_dir=tmp_path / "cache")


def test_gray_npz_images_are_gray_in_the_cache(tmp_path: Path) -> None:
    arrays = npz_arrays(side=16)
    np.savez(tmp_path / "a.npz", **arrays)
    images = load_images(_config(tmp_path / "a.npz"), cache_dir=tmp_path)
    first = images.names.index("val/0000000")
    np.testing.assert_array_equal(images.images[first], np.repeat(arrays["val_images"][0][..., None], 3, axis=2))
    assert images.classes == ("0", "1", "2")
    assert (len(images.train), len(images.val), len(images.test)) == (9, 6, 3)
