"""One image, of whatever kind, as uint8 RGB (size, size, 3).

Values: 8-bit images are taken as they are. Integer images of more bits are scaled by the depth their largest value
needs: up to 255 as it is, up to 4095 as 12 bits, up to 65535 as 16 bits. Floating-point images, and integers beyond
that or negative, are stretched from their own minimum to their own maximum. Transparency lies over black; a sequence
gives its first frame; the EXIF orientation is applied.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from repsim.data.listing import ImageItem, Pixels

VERSION = 1
"""Raised whenever the same file would decode to other pixels; part of the cache's key."""
MAX_PIXELS = 2 * 89_478_485
"""Larger images are refused as decompression bombs (about 13,000 x 13,000 pixels)."""
Resize = Literal["pad", "squash", "crop"]

_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's readers raise on damaged files."""
_DEEP_MODES = ("I", "F")


class UnreadableImageError(Exception):
    """The file is no image, is damaged, or is too large; the message says which."""


def decode(item: ImageItem | bytes, size: int, resize: Resize) -> Pixels:
    """``item`` as uint8 RGB (size, size, 3); bytes are the content of a file.

    ``resize``: ``pad`` keeps the proportions between black borders, ``squash`` does not keep them, ``crop`` takes the
    centre square. Raises :class:`UnreadableImageError`.
    """
    if isinstance(item, np.ndarray):
        return np.asarray(fit(Image.fromarray(item), size, resize).convert("RGB"))
    try:
        if isinstance(item, Path) and not item.is_file():
            raise UnreadableImageError("is not a file that can be read")
        with Image.open(item if isinstance(item, Path) else io.BytesIO(item)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableImageError(f"has {image.width} x {image.height} pixels, more than {MAX_PIXELS}")
            image.draft(image.mode, _draft_size(image.size, size, resize))
            image.load()
            return np.asarray(fit(flatten(_upright(image)), size, resize).convert("RGB"))
    except _DECODE_ERRORS as error:
        raise UnreadableImageError(f"cannot be decoded: {error or type(error).__name__}") from None


def _draft_size(size: tuple[int, int], target: int, resize: Resize) -> tuple[int, int]:
    """Twice the size needed: JPEG files may then be decoded at a fraction of theirs without losing sharpness."""
    longest = max(size) if resize == "pad" else min(size)
    return tuple(max(1, 2 * target * side // longest) for side in size)  # type: ignore[return-value]


def _upright(image: Image.Image) -> Image.Image:
    """The EXIF orientation applied; a damaged EXIF block means upright."""
    try:
        return ImageOps.exif_transpose(image)
    except _DECODE_ERRORS:
        return image


def flatten(image: Image.Image) -> Image.Image:
    """``image`` in mode L or RGB: 8 bits, no palette, no transparency."""
    if image.mode.startswith(_DEEP_MODES):
        return Image.fromarray(_to_8_bits(np.asarray(image)))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        if image.mode in ("La", "RGBa"):
            image = image.convert(image.mode.upper())
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, (0, 0, 0, 255)), over).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _to_8_bits(values: NDArray[np.generic]) -> Pixels:
    """Values of an integer or floating-point image on 0..255; see the module's rule."""
    real = np.nan_to_num(values.astype(np.float64))
    low, high = float(real.min()), float(real.max())
    whole = values.dtype.kind in "iu"
    if not whole or low < 0 or high > 65535:
        span = high - low
        scaled = np.zeros_like(real) if span <= 0 else (real - low) * (255.0 / span)
    else:
        full = 255 if high <= 255 else 4095 if high <= 4095 else 65535
        scaled = real * (255.0 / full)
    return np.rint(scaled).astype(np.uint8)


def fit(image: Image.Image, size: int, resize: Resize) -> Image.Image:
    """``image`` (L or RGB) on a square of ``size`` pixels, antialiased."""
    width, height = image.size
    box = None
    target = (size, size)
    if resize == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    elif resize == "pad":
        scale = size / max(width, height)
        target = (max(1, round(width * scale)), max(1, round(height * scale)))
    resized = image.resize(target, Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    if target == (size, size):
        return resized
    square = Image.new(image.mode, (size, size))
    square.paste(resized, ((size - target[0]) // 2, (size - target[1]) // 2))
    return square
