"""The front as an interactive figure: plain JSON for plotly.js, and the script that puts it on the page.

Nothing is fetched: plotly.js travels inside the page, once. Where scripts do not run, the static picture stays.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence

from reports.figures import FrontPicture, Mark, shorten
from reports.paper_tables import show
from reports.style import DARK, LIGHT, Theme, plotly_marker
from repsim.records import METRICS


def plotly_source() -> str:
    """The plotly.js library, about 5 MB of text."""
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    return source


def figure_data(picture: FrontPicture, hover: Mapping[str, str]) -> dict[str, object]:
    """Traces, and one layout per colour scheme; ``hover`` is the text of each trial, in plotly's small HTML."""
    return {
        "light": {"data": _traces(picture, hover, LIGHT), "layout": _layout(picture, LIGHT)},
        "dark": {"data": _traces(picture, hover, DARK), "layout": _layout(picture, DARK)},
    }


def script_json(value: object) -> str:
    """JSON that can stand inside a script element whatever the strings in it are."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def hover_text(mark: Mark, row: Mapping[str, object], varied: Sequence[str], config: Mapping[str, object]) -> str:
    """What stands beside the pointer: who, what it reached, and the part of the configuration that varies."""
    lines = [f"<b>{_plain(mark.trial_id)}</b> {_plain(mark.method)}" + (" (anchor)" if mark.anchor else "")]
    if mark.n:
        lines.append(f"mean over fresh seeds ± standard error, n = {mark.n}")
    elif mark.behind:
        lines.append("the search's run, n = 1" if not mark.derived else "n = 1, not confirmed")
    for name in ("val_accuracy", "val_balanced_accuracy", "val_cka", "sharpness", "train_seconds"):
        value = show(row.get(name), METRICS[name])
        if value:
            lines.append(f"{METRICS[name].label}: {value}")
    lines += [f"{_plain(key)}: {_plain(show(config.get(key)) or 'none')}" for key in varied if key != "method"]
    if mark.pruned:
        lines.append("<i>stopped early: values of its last epoch</i>")
    elif not mark.eligible:
        lines.append("<i>not eligible for the front</i>")
    return "<br>".join(lines)


def _plain(value: object) -> str:
    return html.escape(shorten(str(value), 60))


def _traces(picture: FrontPicture, hover: Mapping[str, str], theme: Theme) -> list[dict[str, object]]:
    traces: list[dict[str, object]] = []
    if picture.steps:
        xs, ys = zip(*picture.steps, strict=True)
        line = {"color": theme.ink, "width": 1.5}
        traces.append(
            {"type": "scatter", "mode": "lines", "x": xs, "y": ys, "name": "front", "line": line, "hoverinfo": "skip"}
        )
    traces += [_way(picture, method, line, theme) for method, line in picture.lines]
    if picture.error is not None:
        x, y, se = picture.error
        bar = {"type": "data", "array": [se], "color": theme.ink, "thickness": 1.3, "width": 5}
        traces.append(
            {
                "type": "scatter", "mode": "markers", "x": [x], "y": [y], "error_y": bar, "hoverinfo": "skip",
                "marker": {"size": 1, "color": theme.ink}, "name": "± one standard error",
            }
        )  # fmt: skip
    for slot, method in enumerate(picture.styles.methods):
        marks = sorted((mark for mark in picture.marks if mark.method == method), key=lambda mark: mark.n)
        if marks:
            traces.append(_method_trace(picture, marks, method, theme.colour(slot), hover, theme))
            traces.append(_key(method, theme.colour(slot), "circle") | {"legendgroup": method})
    if len(picture.styles.backbones) > 1:
        present = {mark.backbone for mark in picture.marks}
        names = [(slot, name) for slot, name in enumerate(picture.styles.backbones) if name in present]
        traces += [_key(name, theme.ink, plotly_marker(slot)) for slot, name in names]
    return traces


def _way(picture: FrontPicture, method: str, line: Sequence[tuple[float, float]], theme: Theme) -> dict[str, object]:
    """The thin line through a trial's derived points; it comes and goes with its method."""
    xs, ys = zip(*line, strict=True)
    style = {"color": theme.colour(picture.styles.methods.index(method)), "width": 0.8}
    return {
        "type": "scatter", "mode": "lines", "x": xs, "y": ys, "line": style, "opacity": 0.6, "hoverinfo": "skip",
        "showlegend": False, "legendgroup": method,
    }  # fmt: skip


def _key(name: str, colour: str, symbol: str) -> dict[str, object]:
    """An entry of the legend alone."""
    style = {"color": colour, "symbol": symbol, "size": 9}
    return {"type": "scatter", "mode": "markers", "x": [None], "y": [None], "name": _plain(name), "marker": style}


def _method_trace(
    picture: FrontPicture, marks: Sequence[Mark], method: str, colour: str, hover: Mapping[str, str], theme: Theme
) -> dict[str, object]:
    symbols = [plotly_marker(picture.styles.backbones.index(mark.backbone)) for mark in marks]
    shaded = any(mark.shade is not None for mark in marks)
    grey = [theme.muted if mark.pruned else colour for mark in marks]
    style: dict[str, object] = {
        "color": [mark.shade for mark in marks] if shaded else grey,
        "symbol": [_symbol(name, mark) for name, mark in zip(symbols, marks, strict=True)],
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
        "showlegend": False,
        "legendgroup": method,
        "x": [mark.x for mark in marks],
        "y": [mark.y for mark in marks],
        "text": [_plain(mark.trial_id + (" (anchor)" if mark.anchor else "")) if mark.label else "" for mark in marks],
        "textposition": ["bottom left" if mark.x > sum(picture.x_range) / 2 else "bottom right" for mark in marks],
        "textfont": {"size": 11, "color": theme.ink},
        "hovertext": [hover[mark.key] for mark in marks],
        "hoverinfo": "text",
        "marker": style,
        **_bars(marks, colour),
    }


def _symbol(name: str, mark: Mark) -> str:
    if mark.pruned:
        return "x-thin-open"  # a cross: grey alone would be a linear probe's
    return name if mark.eligible else f"{name}-open"


def _bars(marks: Sequence[Mark], colour: str) -> dict[str, object]:
    """Standard errors of the means among the marks, both ways; nothing where there are none."""
    if all(mark.n == 0 for mark in marks):
        return {}
    look = {"type": "data", "color": colour, "thickness": 1.1, "width": 3}
    return {
        "error_x": look | {"array": [mark.errors[0] for mark in marks]},
        "error_y": look | {"array": [mark.errors[1] for mark in marks]},
    }


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
        "legend": {"orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0, "x": 0},
        "xaxis": {**axis, "title": {"text": picture.x_label}, "range": picture.x_range},
        "yaxis": {**axis, "title": {"text": picture.y_label}, "range": picture.y_range},
        "height": 520,
    }
    if picture.shade_label:
        shades = [mark.shade for mark in picture.marks if mark.shade is not None]
        bar = {"title": {"text": picture.shade_label, "side": "right"}, "thickness": 14}
        limits = {"cmin": min(shades), "cmax": max(shades)} if min(shades) < max(shades) else {}
        layout["coloraxis"] = {"colorscale": "Cividis", "colorbar": bar, **limits}
    return layout


SCRIPT = """
(function () {
  function narrow(figure) {
    var small = JSON.parse(JSON.stringify(figure));
    small.data.forEach(function (trace) {
      if (trace.text) { trace.text = trace.text.map(function (t) { return t.endsWith("(anchor)") ? t : ""; }); }
    });
    small.layout.height = 600;
    small.layout.font.size = 11;
    small.layout.margin = {l: 44, r: 8, t: 30, b: 40};
    return small;
  }
  if (typeof Plotly === "undefined") { return; }
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  document.querySelectorAll("script[data-figure]").forEach(function (holder) {
    var target = document.getElementById(holder.dataset.figure);
    var still = document.getElementById(holder.dataset.figure + "-static");
    var figures = JSON.parse(holder.textContent);
    function draw() {
      var figure = figures[dark.matches ? "dark" : "light"];
      if (target.clientWidth < 600) { figure = narrow(figure); }
      var options = {responsive: true, displaylogo: false,
        modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]]};
      return Plotly.react(target, figure.data, figure.layout, options);
    }
    target.hidden = false;
    draw().then(function () { still.hidden = true; }, function () { target.hidden = true; });
    dark.addEventListener("change", draw);
  });
})();
"""
"""Draws every figure on the page and hides its static twin once that has worked; follows the colour scheme."""
