"""Draws the pictures of reports.figures with matplotlib, without a display."""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reports.figures import FrontPicture, Mark, shorten
from reports.style import LIGHT, Theme, marker
from reports.svg_text import darkened, slimmed

_COLUMN_GAP = 1.4
_LETTER, _HANDLE = 0.073, 0.52
"""Inches in a legend, at the themes' size of type: a letter, and a handle with the spaces around it."""


Draw = Callable[[Theme], Figure]
"""Draws one picture for pages of one theme, whose matplotlib settings are in force when it is called."""


def save(draw: Draw, folder: Path, stem: str) -> tuple[str, str]:
    """Write ``stem.png`` and ``stem.svg`` (light); returns the SVG text for light and for dark pages, in few bytes."""
    figure = themed(draw, LIGHT)
    light = svg(figure, LIGHT)
    (folder / f"{stem}.svg").write_text(light, encoding="utf-8")
    with mpl.rc_context(LIGHT.rc()):
        _quietly(lambda: figure.savefig(folder / f"{stem}.png", format="png", dpi=160, metadata={"Software": None}))
    slim = slimmed(light)
    return slim, darkened(slim)


def themed(draw: Draw, theme: Theme) -> Figure:
    """The picture for pages of one theme."""
    with mpl.rc_context(theme.rc()):
        return draw(theme)


def svg(figure: Figure, theme: Theme) -> str:
    """A drawing as SVG; its layout is found on the way, and kept."""
    buffer = io.StringIO()
    with mpl.rc_context(theme.rc()):
        _quietly(lambda: _lay_out(figure))
        _quietly(lambda: figure.savefig(buffer, format="svg", metadata={"Date": None}))
    return buffer.getvalue()


def _lay_out(figure: Figure) -> None:
    """What savefig would find before it draws, for an SVG's text and size, without drawing everything to find it."""
    engine = figure.get_layout_engine()
    if engine is None:
        return
    dpi = figure.dpi
    FigureCanvasSVG(figure)
    figure.dpi = FigureCanvasSVG.fixed_dpi
    try:
        engine.execute(figure)
    finally:
        figure.dpi = dpi
        FigureCanvasAgg(figure)
    figure.set_layout_engine(None)


def _quietly(write: Callable[[], None]) -> None:
    """A name in a script the font lacks is drawn as boxes; the tables have it in full, so that is no warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        write()


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in inches, without a display."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw_front(picture: FrontPicture, theme: Theme) -> Figure:
    """Every trial, and the steps that join the best."""
    figure = new_figure(5.4, 4.5) if picture.panel else new_figure(7.6, 5.0)
    axes = figure.add_subplot()
    axes.set_title(picture.title)
    axes.set_xlabel(picture.x_label)
    axes.set_ylabel(picture.y_label)
    axes.set_xlim(*picture.x_range)
    axes.set_ylim(*picture.y_range)
    if picture.steps:
        xs, ys = zip(*picture.steps, strict=True)
        axes.plot(xs, ys, color=theme.ink, linewidth=1.3, alpha=0.75, zorder=2)
    if picture.area:
        axes.fill(*zip(*picture.area, strict=True), color=theme.muted, alpha=0.10, linewidth=0, zorder=0.5)
    for method, _, line in picture.lines:
        xs, ys = zip(*line, strict=True)
        axes.plot(
            xs, ys, color=theme.colour(picture.styles.methods.index(method)), linewidth=0.7, alpha=0.6, zorder=1.9
        )
    _error_bar(axes, picture, theme)
    _mean_bars(axes, picture, theme)
    shades = _scatter(axes, picture, theme)
    if shades is not None:
        figure.colorbar(shades, ax=axes, pad=0.02).set_label(picture.shade_label, color=theme.ink)
    for mark, dy in zip(picture.marks, _label_offsets(picture), strict=True):
        if mark.label:
            leftish = mark.x > sum(picture.x_range) / 2
            axes.annotate(
                mark.label,
                (mark.x, mark.y),
                xytext=(-8 if leftish else 8, dy),
                textcoords="offset points",
                ha="right" if leftish else "left",
                fontsize=8.5,
                color=theme.ink if mark.on_front else theme.muted,
                zorder=5,
            )
    _legend(figure, picture, theme)
    return figure


def _label_offsets(picture: FrontPicture) -> list[float]:
    """Labels of close neighbours alternate below and above, so that they can be read."""
    x_span = picture.x_range[1] - picture.x_range[0]
    y_span = picture.y_range[1] - picture.y_range[0]
    offsets = [-11.0] * len(picture.marks)
    placed: list[tuple[float, float, float]] = []
    order = sorted(range(len(picture.marks)), key=lambda i: (picture.marks[i].y, picture.marks[i].x))
    for index in order:
        mark = picture.marks[index]
        if not mark.label:
            continue
        for dy in (-11.0, 5.0, -21.0, 15.0):
            offsets[index] = dy
            at = mark.y / y_span + dy / 300
            if all(abs(mark.x / x_span - x) > 0.16 or abs(at - y) > 0.035 for x, y, _ in placed):
                break
        placed.append((mark.x / x_span, mark.y / y_span + offsets[index] / 300, offsets[index]))
    return offsets


def _error_bar(axes: Any, picture: FrontPicture, theme: Theme) -> None:
    if picture.error is None:
        return
    x, y, se = picture.error
    axes.axhspan(y - se, y, color=theme.muted, alpha=0.10, linewidth=0, zorder=0)
    axes.errorbar([x], [y], yerr=[se], color=theme.ink, linewidth=1.2, capsize=4, zorder=2.5)


def _mean_bars(axes: Any, picture: FrontPicture, theme: Theme) -> None:
    """Standard errors of means, each way that has one."""
    for mark in picture.marks:
        dx, dy = mark.errors
        if dx is not None or dy is not None:
            axes.errorbar(
                [mark.x],
                [mark.y],
                xerr=None if dx is None else [dx],
                yerr=None if dy is None else [dy],
                color=theme.colour(picture.styles.methods.index(mark.method)),
                linewidth=1.1,
                capsize=2.5,
                alpha=1.0 if mark.on_front else 0.6,
                zorder=3.5,
            )


def _scatter(axes: Any, picture: FrontPicture, theme: Theme) -> Any:
    """Trials off the front are pale, those that cannot be chosen hollow, those that stand back small.

    Those stopped early are grey crosses. Returns the colour-mapped artist, if any.
    """
    values = [mark.shade for mark in picture.marks if mark.shade is not None]
    norm = mpl.colors.Normalize(min(values), max(values)) if values else None
    shades = None
    stopped = [(mark.x, mark.y) for mark in picture.marks if mark.pruned]
    if stopped:
        axes.scatter(*zip(*stopped, strict=True), s=20, marker="x", color=theme.muted, linewidths=1.0, zorder=2.9)
    alike: dict[_Look, list[Mark]] = {}
    for mark in sorted(picture.marks, key=lambda mark: (mark.on_front, mark.n)):
        if not mark.pruned:
            alike.setdefault(_look(mark, picture, theme, norm is not None), []).append(mark)
    for look, marks in alike.items():  # one artist for all that look alike: a thousand of them take seconds
        faces: Any = look.face
        if norm is not None and look.face != "none":
            faces = [look.face if m.shade is None else mpl.colormaps["cividis"](norm(m.shade)) for m in marks]
        axes.scatter(
            [mark.x for mark in marks],
            [mark.y for mark in marks],
            s=look.size,
            marker=look.shape,
            facecolors=faces,
            edgecolors=look.edge,
            linewidths=look.width,
            alpha=look.alpha,
            zorder=look.level,
        )
    for mark in picture.marks:
        if mark.anchor and not mark.pruned:
            axes.scatter([mark.x], [mark.y], s=190, marker="o", facecolors="none", edgecolors=theme.muted, zorder=2.8)
    if norm is not None:
        shades = mpl.cm.ScalarMappable(norm=norm, cmap="cividis")
    return shades


class _Look(NamedTuple):
    """Everything but the place and the shade of a mark."""

    size: float
    shape: str
    face: str
    edge: str
    width: float
    alpha: float
    level: int


def _look(mark: Mark, picture: FrontPicture, theme: Theme, shaded: bool) -> _Look:
    colour = theme.colour(picture.styles.methods.index(mark.method))
    return _Look(
        size=(78 if mark.on_front else 44) * (0.35 if mark.small else 1.0),
        shape=marker(picture.styles.backbones.index(mark.backbone)),
        face=colour if mark.eligible else "none",
        edge=_edge(mark, colour, theme, shaded),
        width=2.0 if shaded else (1.3 if mark.on_front or not mark.eligible else 0.6),
        alpha=1.0 if mark.on_front else (0.45 if mark.small else 0.6),
        level=4 if mark.on_front else 3,
    )


def _edge(mark: Mark, colour: str, theme: Theme, shaded: bool) -> str:
    if shaded or not mark.eligible:
        return colour
    return theme.ink if mark.on_front else theme.background


def _legend(figure: Any, picture: FrontPicture, theme: Theme) -> None:
    """Only what occurs in this picture, under it; a panel, which is of one backbone, leaves the rest to the whole."""
    methods = {mark.method for mark in picture.marks}
    handles = [
        _dot(theme.colour(slot), "o", shorten(name, 28), theme)
        for slot, name in enumerate(picture.styles.methods)
        if name in methods
    ]
    if not picture.panel:
        handles += _legend_of_shapes(picture, theme) + _legend_of_states(picture, theme)
    columns = legend_columns([str(handle.get_label()) for handle in handles], figure.get_figwidth())
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, handletextpad=0.4, columnspacing=_COLUMN_GAP
    )


def legend_columns(labels: Sequence[str], width: float) -> int:
    """The most columns, at most four, in which a legend's labels fit into ``width`` inches; what is wider is cut off.

    matplotlib fills them one after the other, the first ones longer where they differ.
    """
    for columns in range(min(4, len(labels)), 1, -1):
        short, longer = divmod(len(labels), columns)
        starts = [short * column + min(column, longer) for column in range(columns + 1)]
        widest = [max(map(len, labels[start:end])) for start, end in itertools.pairwise(starts)]
        if sum(_LETTER * letters + _HANDLE for letters in widest) <= width:
            return columns
    return 1


def _legend_of_shapes(picture: FrontPicture, theme: Theme) -> list[Any]:
    """Backbones, where there are several."""
    present = {mark.backbone for mark in picture.marks}
    names = [(slot, name) for slot, name in enumerate(picture.styles.backbones) if name in present]
    several = len(picture.styles.backbones) > 1
    return [_dot(theme.ink, marker(slot), shorten(name, 28), theme) for slot, name in names if several]


def _legend_of_states(picture: FrontPicture, theme: Theme) -> list[Any]:
    """What size, filling, bars and lines say."""
    handles: list[Any] = []
    if any(mark.n for mark in picture.marks):
        name = "mean of seeds ± standard error"
        handles.append(Line2D([], [], color=theme.ink, marker="o", markersize=7.5, linewidth=1.1, label=name))
        handles.append(_dot(theme.ink, "o", "the search's run (n = 1)", theme, size=4.4))
    if any(mark.pruned for mark in picture.marks):
        handles.append(_dot(theme.muted, "x", "stopped early", theme, theme.muted, 5.0))
    if any(not mark.eligible and not mark.pruned for mark in picture.marks):
        handles.append(_dot("none", "o", "infeasible", theme, theme.muted))
    if picture.lines:
        name = "pretrained to finetuned" + (" (n = 1)" if any(mark.n for mark in picture.marks) else "")
        handles.append(Line2D([], [], color=theme.muted, linewidth=0.7, marker="o", markersize=4.0, label=name))
    if any(mark.anchor for mark in picture.marks):
        handles.append(_dot("none", "o", "anchor", theme, theme.muted, 12))
    if picture.error is not None:
        handles.append(Line2D([], [], color=theme.ink, marker="_", linewidth=1.2, label="± one standard error"))
    if picture.steps:
        handles.append(Line2D([], [], color=theme.ink, linewidth=1.3, alpha=0.75, label="front"))
    if picture.area:
        handles.append(Patch(facecolor=theme.muted, alpha=0.2, linewidth=0, label="dominated"))
    return handles


def _dot(face: str, shape: str, label: str, theme: Theme, edge: str | None = None, size: float = 7.5) -> Any:
    # a leading underscore would hide the entry
    shown = f" {label}" if label.startswith("_") else label
    return Line2D(
        [], [], linestyle="", marker=shape, markersize=size,
        markerfacecolor=face, markeredgecolor=edge or theme.background, label=shown,
    )  # fmt: skip
