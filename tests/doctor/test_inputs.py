"""Images and weights of a space, as each machine sees them."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from repsim.catalogue import PACKAGED_WEIGHTS
from sweeps.doctor_checks import inputs
from sweeps.space import load_space
from tests.trainer.stripes import write_images


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "stripes")


def test_images_are_counted_and_marked(images: Path) -> None:
    found, mark = inputs.data(str(images), None)
    assert (found.level, found.found) == ("ok", "51 images of 3 classes")
    assert len(mark) == 16
    assert inputs.data(f"folder:{images}", None)[1] == mark


def test_a_copy_has_the_same_mark_and_a_changed_one_has_not(images: Path, tmp_path: Path) -> None:
    mark = inputs.data(str(images), None)[1]
    copy = tmp_path / "copy"
    shutil.copytree(images, copy)
    first = next(copy.rglob("*.png"))
    os.utime(first, (1, 1))
    assert inputs.data(str(copy), None)[1] == mark, "times and places do not count"
    with first.open("ab") as file:
        file.write(b"x")
    changed = inputs.data(str(copy), None)[1]
    assert changed != mark
    first.rename(first.with_name("renamed.png"))
    assert inputs.data(str(copy), None)[1] not in (mark, changed)


def test_arrays_and_phantoms_have_marks_too(tmp_path: Path) -> None:
    parts = {f"{part}_images": np.zeros((6, 8, 8), dtype=np.uint8) for part in ("train", "val", "test")}
    labels = {f"{part}_labels": np.arange(6).reshape(6, 1) % 2 for part in ("train", "val", "test")}
    np.savez(tmp_path / "a.npz", **parts, **labels)
    shutil.copy(tmp_path / "a.npz", tmp_path / "b.npz")
    first, second = (inputs.data(str(tmp_path / name), None) for name in ("a.npz", "b.npz"))
    assert first[0].level == "ok", first
    assert first[1] == second[1]
    assert inputs.data("phantom:tiny", None)[1] != inputs.data("phantom:ultrasound", None)[1]


def test_images_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, mark = inputs.data(str(tmp_path / "gone"), None)
    assert (found.level, mark) == ("FAIL", "")
    assert "does not exist" in found.found
    shutil.copytree(write_images(tmp_path / "stripes"), tmp_path / "closed")

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    found, mark = inputs.data(str(tmp_path / "closed"), None)
    assert (found.level, "Permission denied" in found.found, mark) == ("FAIL", True, "")


def test_medmnist_is_not_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "count_images", lambda source: 780)
    found, mark = inputs.data("medmnist:breastmnist", None)
    assert (found.level, mark) == ("ok", "medmnist:breastmnist")


def test_other_images_elsewhere_are_told() -> None:
    here = {"a": "1", "b": "2", "c": ""}
    assert inputs.compared(["a", "b", "c"], here, {"a": "1", "b": "2", "c": "3"}) == []
    (found,) = inputs.compared(["a", "b"], here, {"a": "1", "b": "9"})
    assert (found.level, found.name) == ("FAIL", "data b")


def test_every_backbone_of_a_space_is_asked_for() -> None:
    assert inputs.backbones(load_space("quick.yaml")) == [("tf_efficientnet_lite0", "auto")]
    space = load_space("quick.yaml", ["backbone=[mobilenetv2_100, test_vit]", "backbone.weights=random"])
    assert inputs.backbones(space) == [("mobilenetv2_100", "random"), ("test_vit", "random")]


def test_packaged_weights_are_verified_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "repsim.weights", None)
    assert inputs.weights("tf_efficientnet_lite0", "auto").level == "ok"
    assert inputs.weights("anything", "random").level == "ok"
    fetched = tmp_path / "weights" / Path(PACKAGED_WEIGHTS["mobilenetv2_100"].file).name
    fetched.parent.mkdir()
    fetched.write_bytes(b"half of it")
    found = inputs.weights("mobilenetv2_100", "auto", tmp_path)
    assert (found.level, "is damaged" in found.found) == ("FAIL", True)


def test_weights_that_only_torch_can_judge(tmp_path: Path) -> None:
    found = inputs.weights("tf_efficientnet_lite0", str(tmp_path / "gone.pt"), tmp_path)
    assert found.level == "FAIL"
    assert "gone.pt" in found.found
    import torch

    from repsim.weights import build_module

    torch.save(build_module("test_efficientnet").state_dict(), tmp_path / "there.pt")
    assert inputs.weights("test_efficientnet", str(tmp_path / "there.pt"), tmp_path).level == "ok"
