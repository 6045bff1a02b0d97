"""The front as an interactive figure: plain JSON for plotly.js, and the script (page.js) that puts it on the page.

Nothing is fetched: plotly.js travels inside the page, once. Where scripts do not run, the static picture stays.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from reports.figures import FrontPicture, Mark, shorten
from reports.style import DARK, LIGHT, Theme, glyph, plotly_marker
from reports.trial_details import Details

_WAYS = ((False, False), (True, True), (False, True), (True, False))
"""Marks without bars first, then those with: along x, along y."""


def plotly_source() -> str:
    """The plotly.js library, about 5 MB of text."""
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    return source


def figure_data(picture: FrontPicture, told: Details) -> dict[str, object]:
    """Traces and a layout per colour scheme, the filters, and what is told of each mark, once.

    A trace is of one method and one backbone, which its ``meta`` names, so that a filter shows or hides it whole;
    ``customdata`` are the keys of its marks. Traces without ``meta`` belong to all.
    """
    methods = [(slot, name) for slot, name in enumerate(picture.styles.methods) if _count(picture, method=name)]
    backbones = [(slot, name) for slot, name in enumerate(picture.styles.backbones) if _count(picture, backbone=name)]
    return {
        "light": {"data": _traces(picture, LIGHT), "layout": _layout(picture, LIGHT)},
        "dark": {"data": _traces(picture, DARK), "layout": _layout(picture, DARK)},
        "method": [
            {
                "name": name, "count": _count(picture, method=name),
                "light": LIGHT.colour(slot), "dark": DARK.colour(slot),
            }
            for slot, name in methods
        ],
        "backbone": [
            {"name": name, "count": _count(picture, backbone=name), "glyph": glyph(slot)} for slot, name in backbones
        ],
        "front": [mark.key for mark in picture.marks if mark.on_front],
        "marks": {key: asdict(one) for key, one in told.marks.items()},
        "shared": told.shared,
        "opens": told.opens,
    }  # fmt: skip


def _count(picture: FrontPicture, method: str | None = None, backbone: str | None = None) -> int:
    """How many trials and derived points a filter stands for; a mean and its trial's run are one."""
    return len({
        mark.trial_id for mark in picture.marks if method in (None, mark.method) and backbone in (None, mark.backbone)
    })  # fmt: skip


def script_json(value: object) -> str:
    """JSON that can stand inside a script element whatever the strings in it are."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plain(value: object) -> str:
    return html.escape(shorten(str(value), 60))


def _traces(picture: FrontPicture, theme: Theme) -> list[dict[str, object]]:
    traces: list[dict[str, object]] = []
    if picture.area:
        xs, ys = zip(*picture.area, strict=True)
        traces.append(_line(xs, ys, theme.muted, 0) | {"fill": "toself", "fillcolor": theme.muted, "opacity": 0.13})
    if picture.steps:
        xs, ys = zip(*picture.steps, strict=True)
        traces.append(_line(xs, ys, theme.ink, 1.5) | {"name": "front"})
    for method, backbone, line in picture.lines:
        xs, ys = zip(*line, strict=True)
        thin = _line(xs, ys, theme.colour(picture.styles.methods.index(method)), 0.8)
        traces.append(thin | {"opacity": 0.6, "meta": {"method": method, "backbone": backbone}})
    if picture.error is not None:
        x, y, se = picture.error
        bar = {"type": "data", "array": [se], "color": theme.ink, "thickness": 1.3, "width": 5}
        traces.append(
            {
                "type": "scatter", "mode": "markers", "x": [x], "y": [y], "error_y": bar, "hoverinfo": "skip",
                "marker": {"size": 1, "color": theme.ink}, "name": "± one standard error",
            }
        )  # fmt: skip
    for method in picture.styles.methods:
        for backbone in picture.styles.backbones:
            mine = [mark for mark in picture.marks if (mark.method, mark.backbone) == (method, backbone)]
            # plotly gives a mark without an error bar the caps of one where others of its trace have some
            alike = [[mark for mark in mine if _barred(mark) == ways] for ways in _WAYS]
            traces += [_marks_trace(picture, marks, theme) for marks in alike if marks]
    return traces


def _line(xs: Sequence[float], ys: Sequence[float], colour: str, width: float) -> dict[str, object]:
    """A line that answers to no pointer."""
    style = {"color": colour, "width": width}
    return {"type": "scatter", "mode": "lines", "x": xs, "y": ys, "line": style, "hoverinfo": "skip"}


def _marks_trace(picture: FrontPicture, marks: Sequence[Mark], theme: Theme) -> dict[str, object]:
    """The marks of one method and one backbone."""
    method, backbone = marks[0].method, marks[0].backbone
    colour = theme.colour(picture.styles.methods.index(method))
    symbol = plotly_marker(picture.styles.backbones.index(backbone))
    shaded = any(mark.shade is not None for mark in marks)
    grey = [theme.muted if mark.pruned else colour for mark in marks]
    style: dict[str, object] = {
        "color": [mark.shade for mark in marks] if shaded else grey,
        "symbol": [_symbol(symbol, mark) for mark in marks],
        "size": [(13 if mark.on_front else 9) * (0.6 if mark.small else 1.0) for mark in marks],
        "opacity": [1.0 if mark.on_front else (0.4 if mark.small else 0.55) for mark in marks],
        "line": {
            "width": [2.5 if shaded else (1.5 if mark.on_front or not mark.eligible else 0) for mark in marks],
            "color": [
                theme.muted if mark.pruned else colour if shaded or not mark.eligible else theme.ink for mark in marks
            ],
        },
    }
    if shaded:
        style |= {"coloraxis": "coloraxis"}
    return {
        "type": "scatter",
        "mode": "markers+text",
        "meta": {"method": method, "backbone": backbone},
        "customdata": [mark.key for mark in marks],
        "x": [mark.x for mark in marks],
        "y": [mark.y for mark in marks],
        "text": [_plain(mark.trial_id + (" (anchor)" if mark.anchor else "")) if mark.label else "" for mark in marks],
        "textposition": ["bottom left" if mark.x > sum(picture.x_range) / 2 else "bottom right" for mark in marks],
        "textfont": {"size": 11, "color": theme.ink},
        "hoverinfo": "text",
        "marker": style,
        **_bars(marks, colour),
    }


def _symbol(name: str, mark: Mark) -> str:
    if mark.pruned:
        return "x-thin-open"  # a cross: grey alone would be a linear probe's
    return name if mark.eligible else f"{name}-open"


def _bars(marks: Sequence[Mark], colour: str) -> dict[str, object]:
    """Standard errors each way; ``marks`` have bars along the same axes."""
    look = {"type": "data", "color": colour, "thickness": 1.1, "width": 3}
    return {
        f"error_{axis}": look | {"array": [mark.errors[place] for mark in marks]}
        for place, axis in enumerate("xy")
        if _barred(marks[0])[place]
    }


def _barred(mark: Mark) -> tuple[bool, bool]:
    """Whether a mark has a bar along x, and along y."""
    return mark.errors[0] is not None, mark.errors[1] is not None


def _layout(picture: FrontPicture, theme: Theme) -> dict[str, object]:
    axis = {
        "gridcolor": theme.grid,
        "linecolor": theme.grid,
        "zeroline": False,
        "color": theme.muted,
        "automargin": True,
    }
    layout: dict[str, object] = {
        "paper_bgcolor": theme.background,
        "plot_bgcolor": theme.background,
        "font": {"color": theme.ink, "size": 13, "family": "system-ui, sans-serif"},
        "margin": {"l": 62, "r": 18, "t": 14, "b": 56},
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "bgcolor": theme.background, "font": {"color": theme.ink}},
        "showlegend": False,
        "xaxis": {**axis, "title": {"text": picture.x_label}, "range": picture.x_range},
        "yaxis": {**axis, "title": {"text": picture.y_label}, "range": picture.y_range},
        "height": 520,
    }
    if picture.error is not None:
        _, y, se = picture.error
        layout["shapes"] = [
            {
                "type": "rect", "layer": "below", "xref": "paper", "x0": 0, "x1": 1, "y0": y - se, "y1": y,
                "fillcolor": theme.muted, "opacity": 0.12, "line": {"width": 0},
            }
        ]  # fmt: skip
    if picture.shade_label:
        shades = [mark.shade for mark in picture.marks if mark.shade is not None]
        bar = {"title": {"text": picture.shade_label, "side": "right"}, "thickness": 14}
        limits = {"cmin": min(shades), "cmax": max(shades)} if min(shades) < max(shades) else {}
        layout["coloraxis"] = {"colorscale": "Cividis", "colorbar": bar, **limits}
    return layout


def script() -> str:
    """What draws every figure on the page, and hides its static twin once that has worked."""
    return (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
