"""Any image becomes uint8 RGB of the size asked for, and looks as it should."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from repsim.data import decode as decode_module
from repsim.data.decode import UnreadableImageError, decode, flatten
from tests.data.helpers import picture

SIZE = 24
RESIZES: tuple[Literal["pad", "squash", "crop"], ...] = ("pad", "squash", "crop")


def _colours(path: Path) -> np.ndarray:
    return decode(path, SIZE, "squash").astype(int)


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("1", "a.png"),
        ("L", "a.png"),
        ("LA", "a.png"),
        ("P", "a.png"),
        ("PA", "a.tif"),
        ("RGB", "a.png"),
        ("RGBA", "a.png"),
        ("CMYK", "a.jpg"),
        ("CMYK", "a.tif"),
        ("YCbCr", "a.jpg"),
        ("YCbCr", "a.tif"),
        ("I", "a.tif"),
        ("I;16", "a.png"),
        ("I;16", "a.tif"),
        ("I;16B", "a.tif"),
        ("F", "a.tif"),
        ("L", "a.pgm"),
        ("RGB", "a.ppm"),
        ("RGB", "a.bmp"),
        ("RGB", "a.webp"),
        ("P", "a.gif"),
    ],
)
@pytest.mark.parametrize("resize", RESIZES)
def test_every_mode_keeps_its_picture(
    tmp_path: Path, mode: str, name: str, resize: Literal["pad", "squash", "crop"]
) -> None:
    original = Image.fromarray(picture(3, SIZE, SIZE))
    deep = mode.startswith("I;16")
    if deep:
        gray = np.asarray(original.convert("L")).astype(np.uint16) * 257
        image = Image.fromarray(gray.astype(">u2" if mode.endswith("B") else "<u2"))
    elif mode == "PA":
        image = original.quantize(256).convert("PA")
    elif mode == "P":
        image = original.quantize(256)
    else:
        image = original.convert(mode)
    assert image.mode == mode
    image.save(tmp_path / name, **({"quality": 100, "subsampling": 0} if name.endswith("jpg") else {}))
    found = decode(tmp_path / name, SIZE, resize)
    assert found.shape == (SIZE, SIZE, 3)
    assert found.dtype == np.uint8
    colour = mode in ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
    expected = np.asarray(original if colour else original.convert("L").convert("RGB")).astype(float)
    if mode == "F":
        gray = expected[..., :1]
        expected = np.repeat((gray - gray.min()) * 255 / (gray.max() - gray.min()), 3, axis=2)
    if mode == "1":
        expected = np.asarray(original.convert("1").convert("RGB")).astype(float)
    tolerance = 12.0 if mode in ("P", "PA", "CMYK", "YCbCr") or name.endswith("webp") else 0.6
    assert np.abs(found - expected).mean() < tolerance


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 100, 255], [0, 100, 255]),
        ([0, 2048, 4095], [0, 128, 255]),
        ([0, 32896, 65535], [0, 128, 255]),
        ([0, 5000, 10000], [0, 19, 39]),
    ],
)
def test_sixteen_bits_are_scaled_by_the_depth_they_need(values: list[int], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.uint16))
    assert np.asarray(flatten(image)).tolist() == [expected]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[-1.0, 0.0, 1.0]], dtype=np.float32), [0, 128, 255]),
        (np.array([[0.25, 0.25, 0.25]], dtype=np.float32), [0, 0, 0]),
        (np.array([[0.0, np.nan, 2.0]], dtype=np.float32), [0, 0, 255]),
        (np.array([[-1000, 0, 1000]], dtype=np.int32), [0, 128, 255]),
        (np.array([[0, 1 << 20, 1 << 21]], dtype=np.int32), [0, 128, 255]),
    ],
)
def test_other_numbers_are_stretched_between_their_ends(values: np.ndarray, expected: list[int]) -> None:
    assert np.asarray(flatten(Image.fromarray(values))).tolist() == [expected]


def test_transparency_lies_over_black(tmp_path: Path) -> None:
    half = np.full((8, 8, 4), 200, dtype=np.uint8)
    half[:, :4, 3] = 0
    half[:, 4:, 3] = 255
    Image.fromarray(half).save(tmp_path / "rgba.png")
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([255, 0, 0, 0, 200, 0])
    palette.paste(0, (0, 0, 4, 8))
    palette.save(tmp_path / "p.png", transparency=0)
    palette.save(tmp_path / "p.gif", transparency=0)
    Image.fromarray(half[..., :3]).save(tmp_path / "rgb.png", transparency=(200, 200, 200))
    left, right = _colours(tmp_path / "rgba.png")[0, [0, -1]]
    assert left.tolist() == [0, 0, 0]
    assert right.tolist() == [200, 200, 200]
    for name in ("p.png", "p.gif"):
        left, right = _colours(tmp_path / name)[0, [0, -1]]
        assert left.tolist() == [0, 0, 0], name
        assert right.tolist() == [0, 200, 0], name
    assert _colours(tmp_path / "rgb.png").max() == 0


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied_once(tmp_path: Path, extension: str, orientation: int) -> None:
    upright = np.zeros((32, 32, 3), dtype=np.uint8)
    upright[:16, :16] = 250
    upright[:16, 16:] = 120
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{extension}"
    stored.save(path, exif=exif)
    found = decode(path, 32, "pad").astype(int)
    assert np.abs(found - upright).mean() < 8


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_exif_block_means_upright(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(picture(1)).save(path, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert decode(path, SIZE, "pad").shape == (SIZE, SIZE, 3)


def test_the_first_frame_of_a_sequence_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((200, 0, 0), (0, 200, 0), (0, 0, 200))]
    for name in ("a.gif", "a.tif", "a.webp", "a.png"):
        lossless = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **lossless)
        assert np.abs(_colours(tmp_path / name)[0, 0] - [200, 0, 0]).max() <= 1, name


def test_pad_adds_black_and_crop_takes_the_centre() -> None:
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, :10] = 50
    wide[:, 10:20] = 100
    wide[:, 20:] = 150
    padded = decode(wide, 30, "pad")
    assert padded[:10].max() == 0
    assert padded[20:].max() == 0
    assert padded[15, [2, 15, 28], 0].tolist() == [50, 100, 150]
    assert np.unique(decode(wide, 30, "crop")[:, 6:-6]).tolist() == [100]
    assert decode(wide, 30, "squash")[15, [2, 15, 28], 0].tolist() == [50, 100, 150]
    tall = wide.transpose(1, 0, 2)
    assert decode(tall.copy(), 30, "pad")[:, :10].max() == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 2)])
@pytest.mark.parametrize("resize", RESIZES)
def test_any_shape_becomes_a_square(shape: tuple[int, int], resize: Literal["pad", "squash", "crop"]) -> None:
    assert decode(np.full(shape, 90, dtype=np.uint8), 16, resize).max() == 90


def test_shrinking_averages_instead_of_picking(tmp_path: Path) -> None:
    fine = (np.indices((400, 400)).sum(axis=0) % 2 * 255).astype(np.uint8)
    for name in ("a.png", "a.jpg"):
        Image.fromarray(fine).save(tmp_path / name)
        assert np.abs(_colours(tmp_path / name) - 128).max() < 12


def _broken(path: Path, kind: str) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    content = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("<html>not found</html>")


@pytest.mark.parametrize("kind", ["truncated", "empty", "text"])
@pytest.mark.parametrize("extension", ["png", "jpg", "tif", "webp", "gif", "bmp", "ppm"])
def test_a_damaged_file_is_unreadable(tmp_path: Path, extension: str, kind: str) -> None:
    path = tmp_path / f"a.{extension}"
    _broken(path, kind)
    with pytest.raises(UnreadableImageError, match="cannot be decoded"):
        decode(path, SIZE, "pad")


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="is not a file that can be read"):
        decode(tmp_path / "a.png", SIZE, "pad")


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.bmp"
    path.write_bytes(b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 40000, 40000, 1, 24, 0, 0, 0, 0, 0, 0))
    with pytest.raises(UnreadableImageError, match="exceeds limit"):
        decode(path, SIZE, "pad")
    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    monkeypatch.setattr(decode_module, "MAX_PIXELS", 400)
    with pytest.raises(UnreadableImageError, match="has 24 x 20 pixels, more than 400"):
        decode(tmp_path / "a.png", SIZE, "pad")
