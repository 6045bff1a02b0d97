"""Pictures for dark pages are derived from those for light ones: exactly what drawing them would give."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from mlflow import MlflowClient

from reports.build import build_report
from reports.drawing import new_figure
from reports.style import DARK, LIGHT, Theme
from reports.svg_text import darkened
from sweeps.tracking import prepare_store
from tests.reports.front_sweep import TAGS, front_trials
from tests.reports.recorded_sweeps import Store, record
from tests.reports.themed_pictures import assert_exact_twins, collected, numbered

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.mark.parametrize("name", ["demo", "two", "hostile"])
def test_every_picture_of_a_report_has_an_exact_twin(
    name: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = collected(monkeypatch)
    build_report(name, store.uri, tmp_path / "report", log=False)
    assert any(stem.startswith("front") for stem in pictures)
    assert_exact_twins(pictures)


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
