"""Which images a source lists, and every way a source can be wrong."""

from __future__ import annotations

import os
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from repsim.data import count_images
from repsim.data.listing import check_enough, sort_classes
from repsim.data.sources import list_images, parse_source
from repsim.errors import RequestError
from tests.data.helpers import npz_arrays, write_csv, write_folder, write_png

HOSTILE = (
    "ünïcödé 图像.png",
    "two  spaces.PNG",
    "new\nline.jpeg",
    "quo'te\".png",
    "semi;colon,comma.png",
    "-dash.png",
    "{brace} %s.png",
    "a.b.c.Png",
    "tab\t.png",
    "🩺.png",
)


def test_a_folder_is_listed_by_class_and_sorted_by_name(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {"malignant": 3, "benign": 4})
    listing = list_images(f"folder:{root}")
    assert listing.classes == ("benign", "malignant")
    assert listing.names == (*(f"benign/{k:03d}.png" for k in range(4)), *(f"malignant/{k:03d}.png" for k in range(3)))
    assert listing.labels == ("benign",) * 4 + ("malignant",) * 3
    assert listing.splits is None
    assert listing.groups is None
    assert count_images(str(root)) == 7


def test_images_deep_inside_a_class_count_and_other_files_do_not(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {"a": 3, "b": 3})
    write_png(root / "a" / "patient 1" / "left" / "X.JPG", 50)
    (root / "labels.csv").write_text("image,label\na/000.png,b\n")
    (root / "a" / "notes.txt").write_text("hello")
    (root / "a" / "Thumbs.db").write_bytes(b"x")
    write_png(root / "a" / ".hidden.png", 51)
    write_png(root / "__MACOSX" / "a" / "000.png", 52)
    write_png(root / "a" / "__macosx" / "000.png", 53)
    write_png(root / ".git" / "000.png", 54)
    listing = list_images(str(root))
    assert listing.classes == ("a", "b")
    assert [name for name in listing.names if name.startswith("a/")] == [
        "a/000.png",
        "a/001.png",
        "a/002.png",
        "a/patient 1/left/X.JPG",
    ]


@pytest.mark.parametrize("extension", ["png", "JPG", "jpeg", "BMP", "tif", "TIFF", "webp", "gif", "pgm", "ppm"])
def test_every_extension_is_an_image(tmp_path: Path, extension: str) -> None:
    root = write_folder(tmp_path, {"a": 3, "b": 3})
    write_png(root / "a" / f"z.{extension}", 9)
    assert f"a/z.{extension}" in list_images(str(root)).names


def test_odd_file_names_are_kept(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {"normal": 3})
    for seed, name in enumerate(HOSTILE):
        write_png(root / "odd class é" / name, seed)
    listing = list_images(str(root))
    assert {name.removeprefix("odd class é/") for name in listing.names if name.startswith("odd")} == set(HOSTILE)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse file names that are not UTF-8")
def test_a_name_that_is_not_utf8_becomes_printable(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {"a": 3, "b": 3})
    write_png(root / "plain.png", 77).rename(os.fsdecode(os.fsencode(root) + b"/a/caf\xe9.png"))
    listing = list_images(str(root))
    assert "a/caf\\xe9.png" in listing.names
    "".join(listing.names).encode("utf-8")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse file names that are not UTF-8")
@pytest.mark.parametrize("place", ["", "a/"])
def test_names_that_would_look_alike_are_refused(tmp_path: Path, place: str) -> None:
    root = write_folder(tmp_path, {"a": 3, "b": 3})
    for number, name in enumerate((f"{place}caf\udce9", f"{place}caf\\xe9")):
        write_png(root / f"{name}.png", number) if place else write_png(root / name / f"{number}.png", number)
    with pytest.raises(RequestError, match=r"names that look alike once bytes .* are shown as \\xNN"):
        list_images(str(root))


def test_links_are_followed_and_a_link_upwards_ends(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "root", {"a": 3, "b": 3})
    outside = write_folder(tmp_path / "outside", {"more": 2})
    (root / "a" / "linked").symlink_to(outside / "more")
    (root / "a" / "loop").symlink_to(root)
    (root / "b" / "one.png").symlink_to(outside / "more" / "000.png")
    names = list_images(str(root)).names
    assert "a/linked/001.png" in names
    assert "b/one.png" in names
    assert len(names) == len(set(names))


def test_a_pipe_with_an_image_name_is_ignored(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {"a": 3, "b": 3})
    os.mkfifo(root / "a" / "pipe.png")
    assert len(list_images(str(root))) == 6


def test_folders_of_a_split_are_the_own_split(tmp_path: Path) -> None:
    for part in ("Train", "valid", "test"):
        write_folder(tmp_path / part, {"a": 2, "b": 1})
    listing = list_images(str(tmp_path))
    assert listing.classes == ("a", "b")
    assert listing.splits is not None
    assert dict(zip(listing.names, listing.splits, strict=True))["valid/b/000.png"] == "val"


def test_classes_called_test_and_train_without_folders_inside_are_classes(tmp_path: Path) -> None:
    write_folder(tmp_path, {"test": 3, "train": 3})
    assert list_images(str(tmp_path)).classes == ("test", "train")


def test_a_csv_lists_its_rows(tmp_path: Path) -> None:
    write_folder(tmp_path / "images", {"x": 6})
    rows = [[f"images/x/{k:03d}.png", "ab"[k % 2], ("train", "VAL", "test")[k // 2], f"p{k}"] for k in range(6)]
    listing = list_images(f"csv:{write_csv(tmp_path / 'my.csv', ['Image', 'label', 'split', 'group'], rows)}")
    assert listing.names == tuple(row[0] for row in rows)
    assert listing.labels == ("a", "b") * 3
    assert listing.splits == ("train", "train", "val", "val", "test", "test")
    assert listing.groups == ("p0", "p1", "p2", "p3", "p4", "p5")


def test_a_csv_with_semicolons_a_mark_and_another_group_column(tmp_path: Path) -> None:
    write_folder(tmp_path, {"x": 2})
    path = tmp_path / "a.csv"
    path.write_text("image;label;Patient;split\nx/000.png;a;p1;\n\nx/001.png;b;p2;\n", encoding="utf-8-sig")
    listing = list_images(str(path), group="Patient")
    assert listing.groups == ("p1", "p2")
    assert listing.splits is None


def test_csv_names_do_not_depend_on_where_the_csv_lies(tmp_path: Path) -> None:
    write_folder(tmp_path, {"x": 1})
    path = write_csv(tmp_path / "a.csv", ["image", "label"], [[str(tmp_path / "x" / "000.png"), "a"]])
    assert list_images(str(path)).names == ("x/000.png",)


@pytest.mark.parametrize("channels", [None, 3])
def test_an_npz_keeps_its_own_split(tmp_path: Path, channels: int | None) -> None:
    arrays = npz_arrays(channels=channels)
    path = tmp_path / "set.npz"
    np.savez(path, **arrays)
    listing = list_images(str(path))
    assert len(listing) == 18
    assert listing.splits is not None
    items = listing.read()
    for index, (name, label, part) in enumerate(zip(listing.names, listing.labels, listing.splits, strict=True)):
        number = int(name.split("/")[1])
        assert name.startswith(f"{part}/")
        assert label == str(arrays[f"{part}_labels"][number, 0])
        np.testing.assert_array_equal(items[index], arrays[f"{part}_images"][number])


def test_whole_numbers_are_sorted_by_value_and_text_by_name() -> None:
    assert sort_classes(["10", "2", "1", "2"]) == ("1", "2", "10")
    assert sort_classes(["10", "2", "a"]) == ("10", "2", "a")


@pytest.mark.parametrize(
    ("source", "expected"),
    [("phantom:tiny", ("phantom", "tiny")), ("tiny", ("phantom", "tiny")), ("csv:a:b.csv", ("csv", "a:b.csv"))],
)
def test_the_kind_is_read_off(source: str, expected: tuple[str, str]) -> None:
    assert parse_source(source) == expected


def test_a_folder_called_like_a_phantom_wins_over_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert parse_source("tiny") == ("folder", "tiny")


@pytest.mark.parametrize(
    ("source", "match"),
    [
        (
            "phantom:ultrasond",
            r"'ultrasond' is not a known phantom; allowed: ultrasound, tiny; did you mean 'ultrasound'",
        ),
        ("ultrasond", r"does not exist; .*did you mean 'phantom:ultrasound'"),
        ("no/such/place", r"space.yaml: data: 'no/such/place' does not exist; allowed: phantom:NAME, folder:DIR"),
        ("foldr:x", r"'foldr' is not a known kind of source; .*did you mean 'folder:'"),
        ("folder:", r"'folder:' names nothing after the colon"),
        ("folder:/no/such/place", r"/no/such/place: is not a folder"),
        ("csv:/no/such.csv", r"/no/such.csv: cannot be read: No such file"),
        ("npz:/no/such.npz", r"/no/such.npz: cannot be read: No such file"),
        ("x" * 300, r"'x{78}… does not exist"),
        ("folder:" + "x" * 300, r"x: is not a folder"),
        ("csv:\ud800.csv", r"'csv:.ud800\.csv' is not UTF-8"),
        ("folder:caf\udce9", r"'folder:caf.udce9' is not UTF-8: rename it"),
        ("~nobody-here/x", r"'~nobody-here/x' does not exist"),
        ("folder:~nobody-here", r"~nobody-here: is not a folder"),
        ("csv:/dev/zero", r"/dev/zero: is a pipe or a device, not a file"),
        ("npz:/dev/zero", r"/dev/zero: is a pipe or a device, not a file"),
    ],
)
def test_a_source_that_is_not_there_is_refused(source: str, match: str) -> None:
    with pytest.raises(RequestError, match=match):
        list_images(source, where="space.yaml", key="data")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", 0)
    with pytest.raises(RequestError, match=r"is neither a folder nor a \.csv or \.npz file"):
        list_images(str(path))


def test_a_group_without_a_csv_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"data\.group: 'patient' names a column, but 'phantom:tiny' is not a csv"):
        list_images("phantom:tiny", group="patient")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is empty of images"):
        list_images(str(tmp_path))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(RequestError, match="is empty of images"):
        list_images(str(tmp_path))


def test_images_without_class_folders_are_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", 0)
    with pytest.raises(RequestError, match=r"holds images \(a.png\) but no class folders; allowed: .* csv:FILE"):
        list_images(str(tmp_path))


def test_an_empty_class_folder_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 3, "b": 3, "c": 0})
    with pytest.raises(RequestError, match="class folder 'c' holds no image"):
        list_images(str(tmp_path))


def test_a_single_class_points_to_the_folder_inside(tmp_path: Path) -> None:
    write_folder(tmp_path / "set", {"a": 3, "b": 3})
    inner = re.escape(f"folder:{tmp_path / 'set'}")
    with pytest.raises(RequestError, match=f"single class folder 'set'; allowed: two.*did you mean '{inner}'"):
        list_images(str(tmp_path))


def test_half_a_split_in_folders_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "Training", {"a": 3, "b": 3})
    write_folder(tmp_path / "Testing", {"a": 3, "b": 3})
    with pytest.raises(RequestError, match=r"holds the parts of a split \(Testing, Training\) in place of classes"):
        list_images(str(tmp_path))


def test_split_folders_without_images_are_refused(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        (tmp_path / part / "a").mkdir(parents=True)
    with pytest.raises(RequestError, match="holds no image"):
        list_images(str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_listed_is_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {"a": 3, "b": 3})
    (root / "a").chmod(0)
    try:
        with pytest.raises(RequestError, match="cannot be read: Permission denied"):
            list_images(str(root))
    finally:
        (root / "a").chmod(0o755)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "is empty"),
        ("img,label\nx/000.png,a\n", r"has no column 'image'; there are img, label"),
        ("image,class\nx/000.png,a\n", r"has no column 'label'"),
        ("image,label\n", "has no rows"),
        ("image,label\nx/000.png,\n", r"line 2: label: is empty \(image 'x/000.png'\)"),
        ("image,label\nx/000.png\n", r"line 2: label: is empty"),
        ("image,label\n,a\n", r"line 2: image: is empty"),
        ("image,label\nx/000.png,a\nx/missing.png,a\n", r"line 3: image: there is no file 'x/missing.png'"),
        ("image,label\nx/000.png,a\nx/000.png,b\n", r"line 3: image: 'x/000.png' is listed twice, first in line 2"),
        ("image,label\nx/000.png,a\nx/../x/000.png,b\n", r"line 3: image: 'x/000.png' is listed twice"),
        ("image,label,split\nx/000.png,a,tain\n", r"line 2: split: 'tain' is not a part of a split; .*'train'"),
        ("image,label,split\nx/000.png,a,train\nx/001.png,a,\n", r"line 3: split: is empty; allowed: train, val, test"),
        ("image,label,group\nx/000.png,a,\n", r"line 2: group: is empty"),
        ("image,label,Label\nx/000.png,a,b\n", r"has 2 columns called 'label'"),
        ("image,label\nx/000.png,a, b\n", r"line 2: has 1 more cell than the header; .*a comma in a name needs quotes"),
        ("image,label\nx/000.png,a,b,c\n", r"line 2: has 2 more cells than the header"),
        ("image,label\n" + "a/" * 3000 + ",b\n", r"line 2: image: there is no file 'a/a/"),
        ("x" * 100_000 + ",label\n", r"has no column 'image'; there are x{198}…; allowed"),
    ],
)
def test_a_wrong_csv_is_refused(tmp_path: Path, text: str, match: str) -> None:
    write_folder(tmp_path, {"x": 3})
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(RequestError, match=match):
        list_images(f"csv:{path}")


def test_empty_cells_beyond_the_header_are_no_mistake(tmp_path: Path) -> None:
    write_folder(tmp_path, {"x": 2})
    (tmp_path / "a.csv").write_text("image,label\nx/000.png,a,,\nx/001.png,b, \n")
    assert list_images(str(tmp_path / "a.csv")).labels == ("a", "b")


def test_a_csv_without_the_group_column_asked_for_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {"x": 1})
    path = write_csv(tmp_path / "a.csv", ["image", "label", "patient"], [["x/000.png", "a", "1"]])
    with pytest.raises(RequestError, match=r"data.group: has no column 'pateint'; .*did you mean 'patient'"):
        list_images(str(path), group="pateint")


def test_a_csv_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"image,label\n\xff\xfe,a\n")
    with pytest.raises(RequestError, match="is not a csv in UTF-8"):
        list_images(str(path))


def test_many_wrong_rows_are_capped(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", ["image", "label"], [[f"{k}.png", "a"] for k in range(25)])
    with pytest.raises(RequestError, match="and 15 more mistakes of this kind") as caught:
        list_images(str(path))
    assert len(caught.value.mistakes) == 11


def test_a_wrong_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    good = npz_arrays()

    def refused(match: str, **changes: np.ndarray | None) -> None:
        arrays = {key: value for key, value in (good | changes).items() if value is not None}
        np.savez(path, **arrays)
        with pytest.raises(RequestError, match=match):
            list_images(str(path))

    refused(r"val_images: is missing; allowed: train_images", val_images=None)
    refused(r"test_labels: is missing", test_labels=None)
    refused(r"train_labels: holds 8 labels for 9 images", train_labels=np.zeros(8, dtype=int))
    refused(r"train_images: has shape \(9, 4\)", train_images=np.zeros((9, 4), dtype=np.uint8))
    refused(r"train_images: has shape \(9, 5, 5, 4\)", train_images=np.zeros((9, 5, 5, 4), dtype=np.uint8))
    refused(r"train_images: has shape \(9, 5, 5\) and type float64", train_images=np.zeros((9, 5, 5)))
    refused(r"train_labels: has shape \(9, 14\).*one class per image", train_labels=np.zeros((9, 14), dtype=int))
    refused(r"train_labels: .*type float64", train_labels=np.zeros(9))
    refused(r"train_labels: .*type pickled objects", train_labels=np.array([None] * 9, dtype=object))
    path.write_bytes(b"no zip")
    with pytest.raises(RequestError, match="is not an npz file"):
        list_images(str(path))


def test_a_damaged_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **npz_arrays())
    content = bytearray(path.read_bytes())
    content[60:400] = bytes(340)
    path.write_bytes(bytes(content))
    with pytest.raises(RequestError, match="is not an npz file, or is damaged"):
        list_images(str(path)).read()


def test_medmnist_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "medmnist", None)
    with pytest.raises(RequestError, match=r"needs the medmnist package: pip install 'repsim-sweeps\[medmnist\]'"):
        list_images("medmnist:bloodmnist")


@pytest.fixture
def medmnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A stand-in with the interface of the medmnist package: INFO and a class per set that downloads on demand."""

    class BloodMNIST:
        def __init__(self, *, split: str, download: bool, root: str, size: int) -> None:
            if size != 28:
                raise RuntimeError("Something went wrong when downloading!")
            assert download
            assert split == "train"
            np.savez(Path(root) / "bloodmnist.npz", **npz_arrays(28, 3))

    package = types.ModuleType("medmnist")
    counts = {"train": 9, "val": 6, "test": 3}
    info = {"python_class": "BloodMNIST", "task": "multi-class", "n_samples": counts}
    chest = info | {"task": "multi-label, binary-class"}
    package.__dict__.update(INFO={"bloodmnist": info, "chestmnist": chest, "organmnist3d": info}, BloodMNIST=BloodMNIST)
    monkeypatch.setitem(sys.modules, "medmnist", package)
    monkeypatch.setenv("HOME", str(tmp_path))
    return package


def test_medmnist_is_downloaded_once(medmnist: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert count_images("medmnist:bloodmnist") == 18
    assert not (Path.home() / ".medmnist").exists()
    assert len(list_images("medmnist:bloodmnist")) == 18
    monkeypatch.delattr(medmnist, "BloodMNIST")
    assert len(list_images("medmnist:bloodmnist_28")) == 18


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("blodmnist", "'blodmnist' is not a known MedMNIST set.*did you mean 'bloodmnist'"),
        ("chestmnist", "'chestmnist' is not a known MedMNIST set of flat images with one class each"),
        ("organmnist3d", "is not a known MedMNIST set of flat images"),
        ("bloodmnist_32", "asks for a size that MedMNIST does not have; allowed: bloodmnist, bloodmnist_64"),
        ("bloodmnist_64", "could not be downloaded: 'Something went wrong"),
    ],
)
def test_a_wrong_medmnist_name_is_refused(medmnist: types.ModuleType, name: str, match: str) -> None:
    with pytest.raises(RequestError, match=match):
        list_images(f"medmnist:{name}")


@pytest.mark.parametrize(
    ("labels", "splits", "groups", "match"),
    [
        ("", None, None, "holds no image; allowed: two classes"),
        ("aaaa", None, None, "holds the single class 'a'"),
        ("aaabb", None, None, "class 'b' has 2 images; allowed: 3 or more"),
        ("aaab", None, None, "class 'b' has 1 image; allowed"),
        ("aaabbbb", None, "1231122", "class 'b' has 2 groups; allowed: 3 or more"),
        ("aaabbb", "tttttt", None, "its own split has no val image"),
        ("aaabbb", "tvetve", "123123", None),
        ("aaabbb", "tvetvv", None, "class 'b' has no test image; allowed: every class in each part"),
        ("aaabbb", "tvetve", "123443", "group '4' is in train and val; allowed: one part per group"),
    ],
)
def test_images_that_cannot_be_split_are_refused(
    labels: str, splits: str | None, groups: str | None, match: str | None
) -> None:
    own = None if splits is None else [{"t": "train", "v": "val", "e": "test"}[letter] for letter in splits]
    patients = None if groups is None else list(groups)
    if match is None:
        check_enough("set", list(labels), own, patients)
        return
    with pytest.raises(RequestError, match=match):
        check_enough("set", list(labels), own, patients)
