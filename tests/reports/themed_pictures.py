"""What the dark twin of a picture has to be: the SVG that drawing it for dark pages gives, but for names inside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from reports import drawing
from reports.chapters import chapter
from reports.drawing import Draw, svg, themed
from reports.style import DARK, LIGHT
from reports.svg_text import darkened

_NAME = re.compile(r'(?<=["#])[mph][0-9a-f]{10}\b')
"""matplotlib names markers, clips and hatches after what they look like, their colours included."""


def collected(monkeypatch: pytest.MonkeyPatch) -> dict[str, Draw]:
    """Every picture that is saved from now on, by its stem."""
    found: dict[str, Draw] = {}
    real = drawing.save

    def save(draw: Draw, folder: Path, stem: str) -> tuple[str, str]:
        found[stem] = draw
        return real(draw, folder, stem)

    monkeypatch.setattr(drawing, "save", save)
    monkeypatch.setattr(chapter, "save", save)
    return found


def assert_exact_twins(pictures: Mapping[str, Draw]) -> None:
    """Each picture's dark SVG, derived and drawn, is the same."""
    assert pictures
    for stem, draw in pictures.items():
        light = svg(themed(draw, LIGHT), LIGHT)
        drawn = svg(themed(draw, DARK), DARK)
        assert light != drawn, stem
        assert numbered(darkened(light)) == numbered(drawn), stem


def numbered(text: str) -> str:
    """The SVG with its inner names in order of appearance."""
    order: dict[str, str] = {}
    return _NAME.sub(lambda name: order.setdefault(name.group(), f"n{len(order)}"), text)
