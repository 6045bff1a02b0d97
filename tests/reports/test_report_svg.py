"""What the page does to a drawing's SVG: an exact twin for dark pages, the same picture in fewer bytes, one layout."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from mlflow import MlflowClient

from reports.build import build_report
from reports.drawing import Draw, new_figure, svg, themed
from reports.style import DARK, LIGHT, Theme
from reports.svg_text import darkened, slimmed
from sweeps.tracking import prepare_store
from tests.reports.front_sweep import TAGS, front_trials
from tests.reports.recorded_sweeps import Store, record
from tests.reports.themed_pictures import assert_exact_twins, collected, numbered

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


def test_every_picture_of_a_report_has_an_exact_twin(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = collected(monkeypatch)
    folder = build_report("two", store.uri, tmp_path / "report", log=False)
    assert any(stem.startswith("front") for stem in pictures)
    assert_exact_twins(pictures)
    for stem, draw in pictures.items():
        whole = (folder / "figures" / f"{stem}.svg").read_text(encoding="utf-8")
        assert whole == laid_out_by_matplotlib(draw), stem
        slim = slimmed(whole)
        assert len(slim) < 0.9 * len(whole), stem
        assert_same_picture(whole, slim)


def laid_out_by_matplotlib(draw: Draw) -> str:
    """The SVG as savefig makes it when it finds the layout itself."""
    figure, buffer = themed(draw, LIGHT), io.StringIO()
    with mpl.rc_context(LIGHT.rc()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(Glyph .* missing from font|Matplotlib currently does not support)")
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def assert_same_picture(whole: str, slim: str) -> None:
    """Both have the same shapes in the same order, looking alike, at most a hundredth of a point apart."""
    ours, theirs = (list(shapes(ElementTree.fromstring(text), {})) for text in (slim, whole))
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.tag, one.look, one.rest) == (other.tag, other.look, other.rest)
        assert one.commands == other.commands
        assert one.numbers == pytest.approx(other.numbers, abs=0.01)


@dataclass(frozen=True)
class Shape:
    """An element that draws: how it looks with what it inherits, its places, and all other attributes."""

    tag: str
    look: Mapping[str, str]
    rest: Mapping[str, str]
    commands: str
    numbers: list[float]


def shapes(element: ElementTree.Element, inherited: Mapping[str, str]) -> Iterator[Shape]:
    """Depth first; what a group looks like goes to those in it."""
    own = dict(part.split(": ", 1) for part in element.get("style", "").split("; ") if part)
    look = {**inherited, **own}
    if len(element) == 0:
        places = " ".join(element.get(name, "") for name in ("d", "x", "y"))
        rest = {name: value for name, value in element.attrib.items() if name not in ("d", "x", "y", "style")}
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", places)]
        yield Shape(element.tag, look, rest, "".join(re.findall("[A-Za-z]", places)), numbers)
    for child in element:
        if not child.tag.endswith("}metadata"):
            yield from shapes(child, look)


def test_so_has_every_picture_of_a_confirmed_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    prepare_store(uri)
    record(MlflowClient(tracking_uri=uri), "front", front_trials(), tags=TAGS)
    pictures = collected(monkeypatch)
    build_report("front", uri, tmp_path / "report", log=False)
    assert {"front", "hypervolume", "strength"} <= set(pictures)
    assert_exact_twins(pictures)


def _drawn(theme: Theme, width: float | None = None, image: bool = False) -> Figure:
    figure = new_figure(2.0, 2.0)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=theme.colour(3), linewidth=width or 1.0)
    if image:
        axes.imshow([[0, 1]], cmap=mpl.colors.ListedColormap([theme.ink, theme.grid]))
    return figure


def test_what_a_substitution_cannot_do_would_be_found() -> None:
    assert_exact_twins({"plain": _drawn})
    with pytest.raises(AssertionError, match="thicker"):
        assert_exact_twins({"thicker": lambda theme: _drawn(theme, 1.0 if theme is LIGHT else 2.0)})
    with pytest.raises(AssertionError, match="baked"):
        assert_exact_twins({"baked": partial(_drawn, image=True)})
    with pytest.raises(AssertionError, match="kept"):
        assert_exact_twins({"kept": lambda theme: _drawn(LIGHT)})


def test_each_colour_of_a_theme_has_one_twin_and_is_no_shade() -> None:
    assert len(set(LIGHT.every)) == len(LIGHT.every) == len(DARK.every)
    shades = {to_hex(mpl.colormaps["cividis"](place)) for place in range(256)}
    assert not shades & {colour.lower() for colour in LIGHT.every}
    assert darkened("fill: #d55e00; stroke: #123456") == "fill: #f07b2b; stroke: #123456"
    assert darkened('href="#m1b2430abcd"') == 'href="#m1b2430abcd"'


def test_names_inside_are_compared_by_place_alone() -> None:
    one = '<path id="m0123456789"/><use href="#m0123456789"/><use href="#p0123456789"/>'
    other = '<path id="mabcdefabcd"/><use href="#mabcdefabcd"/><use href="#p9876543210"/>'
    assert numbered(one) == numbered(other)
    assert numbered(one) != numbered(other.replace('use href="#mabcdefabcd"', 'use href="#p9876543210"', 1))


def test_marks_that_look_alike_say_so_once_unless_they_are_see_through_together() -> None:
    mark = '<use xlink:href="#m1" x="1.239" y="-2.5" style="{}"/>\n   '
    plain, pale = (mark.format(look) for look in ("fill: #000000; fill-opacity: 0.5", "fill: #000000; opacity: 0.5"))
    assert slimmed(f"<g>{plain * 3}</g>") == (
        '<g><g style="fill: #000000; fill-opacity: 0.5">' + '<use xlink:href="#m1" x="1.23" y="-2.5"/>' * 3 + "</g></g>"
    )
    assert slimmed(f"<g>{pale * 3}</g>").count("opacity") == 3
    assert slimmed(f"<g>{plain}{pale}</g>").count("style") == 2


def test_what_places_no_shape_stays_as_it_is() -> None:
    text = '<g transform="translate(1.23456 0.015625)"><!-- a\n b --><path d="M 1.239 2 \nL 3.999 4 \n" id="p1"/></g>'
    assert slimmed(text) == '<g transform="translate(1.23456 0.015625)"><path d="M 1.23 2 L 3.99 4 " id="p1"/></g>'


def test_a_figure_without_a_layout_of_its_own_is_drawn_as_it_is() -> None:
    assert "<svg" in svg(Figure(), LIGHT)
