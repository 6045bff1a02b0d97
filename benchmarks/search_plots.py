"""Pictures of two comparisons: searches replayed on a table, and real sweeps with and without stopping.

    python benchmarks/search_plots.py peers FILE.json --out docs/results/search_peers.svg [--sides NAME...]
    python benchmarks/search_plots.py real FILE.json --out docs/results/search_real.svg

``peers`` reads what ``search_vs_peers.py --out`` writes: hypervolume against epochs spent, the median of the search
seeds and a band between the quartiles. ``real`` reads what ``search_real.py --out`` writes: hypervolume against
minutes, a panel per search seed. The mark is dashed. ``--out`` may end in .png to look at it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from search_sides import MOASHA, PLAIN
from search_vs_peers import MARK_TRIALS, OURS

from reports.style import LIGHT
from repsim.errors import Mistake, RequestError, nearest, one_line

Array = np.ndarray[Any, np.dtype[np.float64]]
Curve = Sequence[tuple[float, float]]
"""``(epochs or seconds, hypervolume)``: a step function, 0 before its first point."""

DEFAULT = (OURS, PLAIN, *MOASHA, "nsga2 (OptunaSearch)", "random")
MOST_SIDES = 6
STEPS = 240
"""Places of the common grid, beside its beginning."""
LINES: Sequence[Any] = (
    "solid",
    (0, (1.0, 1.2)),
    (0, (9.0, 2.0)),
    (0, (6.0, 1.6, 1.0, 1.6)),
    (0, (2.6, 1.3)),
    (0, (6.0, 1.3, 1.0, 1.3, 1.0, 1.3)),
)
MARK_LINE = (0, (5.0, 4.0))
COLUMNS = 3
SWEEPS = ("none", "pareto")
"""What stopped the trials of the two sweeps of a seed, as search_real.py names them."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One search seed: the sweep without stopping, the sweep with it, and the hypervolume to reach."""

    seed: int
    mark: float
    without: Curve
    stopped: Curve


# reading


def read_peers(file: Path) -> tuple[float, dict[str, list[Curve]]]:
    """The mark, and each side's curves, one per search seed; RequestError when the file holds anything else."""
    document = _mapping(file, "", _json(file), ("mark", "volumes"))
    mark = _number(file, "mark", document["mark"])
    sides = document["volumes"]
    if not isinstance(sides, dict) or not sides:
        raise _mistake(file, "volumes", sides, "{SIDE: [one curve per search seed]}")
    return mark, {side: _curves(file, f"volumes.{side}", curves) for side, curves in sides.items()}


def read_real(file: Path) -> list[Pair]:
    """One pair of sweeps per search seed; RequestError when the file holds anything else."""
    seeds = _listed(file, "seeds", _mapping(file, "", _json(file), ("seeds",))["seeds"], "one mapping per search seed")
    found = []
    for position, item in enumerate(seeds):
        here = f"seeds[{position}]"
        pair = _mapping(file, here, item, ("seed", "mark", *SWEEPS))
        if not isinstance(pair["seed"], int) or isinstance(pair["seed"], bool):
            raise _mistake(file, f"{here}.seed", pair["seed"], "a whole number")
        sides = [(f"{here}.{side}", _mapping(file, f"{here}.{side}", pair[side], ("curve",))) for side in SWEEPS]
        without, stopped = (_curve(file, f"{key}.curve", side["curve"]) for key, side in sides)
        mark = _number(file, f"{here}.mark", pair["mark"])
        found.append(Pair(seed=pair["seed"], mark=mark, without=without, stopped=stopped))
    return found


def _json(file: Path) -> object:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(Mistake(where=str(file), key="", problem=f"cannot be read: {error.strerror}")) from None
    except ValueError:
        raise RequestError(Mistake(where=str(file), key="", problem="is not JSON")) from None


def _mistake(file: Path, key: str, value: object, allowed: str) -> RequestError:
    return RequestError(Mistake(where=str(file), key=key, problem=f"{one_line(value)} is not allowed", allowed=allowed))


def _mapping(file: Path, key: str, value: object, keys: Sequence[str]) -> Mapping[str, Any]:
    if isinstance(value, dict) and set(keys) <= set(value):
        return value
    said = list(value) if isinstance(value, dict) else value
    raise _mistake(file, key, said, f"a mapping with {', '.join(keys)}")


def _listed(file: Path, key: str, value: object, what: str) -> Sequence[Any]:
    if isinstance(value, list) and value:
        return value
    raise _mistake(file, key, value, f"a list: {what}")


def _number(file: Path, key: str, value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
        return float(value)
    raise _mistake(file, key, value, "a number from 0")


def _curves(file: Path, key: str, value: object) -> list[Curve]:
    curves = _listed(file, key, value, "one curve per search seed")
    return [_curve(file, f"{key}[{seed}]", curve) for seed, curve in enumerate(curves)]


def _curve(file: Path, key: str, value: object) -> Curve:
    found: list[tuple[float, float]] = []
    for position, pair in enumerate(_listed(file, key, value, "[epochs or seconds, hypervolume] each")):
        here = f"{key}[{position}]"
        if not isinstance(pair, list) or len(pair) != 2:
            raise _mistake(file, here, pair, "[epochs or seconds, hypervolume]")
        x, volume = (_number(file, here, number) for number in pair)
        if found and x < found[-1][0]:
            raise _mistake(file, here, pair, f"nothing before {found[-1][0]:g}, where the curve is already")
        found.append((x, volume))
    return found


def chosen(file: Path, there: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    """The sides to draw: those asked for, else those of ``DEFAULT`` that the file has; RequestError without any."""
    if wanted is None:
        wanted = [side for side in DEFAULT if side in there]
        if not wanted:
            raise RequestError(
                Mistake(where=str(file), key="volumes", problem="holds no side that is drawn by default; say --sides")
            )
    wanted = list(dict.fromkeys(wanted))
    if len(wanted) > MOST_SIDES:
        raise RequestError(Mistake(where="--sides", key="", problem=f"{len(wanted)} sides", allowed="at most 6"))
    for side in wanted:
        if side not in there:
            raise RequestError(
                Mistake(
                    where="--sides",
                    key="",
                    problem=f"{one_line(side)} is not in {file}",
                    allowed=", ".join(there),
                    suggestion=nearest(side, there),
                )
            )
    return wanted


# what is drawn


def at(curve: Curve, grid: Array) -> Array:
    """The step function's values, as long as ``grid``."""
    xs = np.array([x for x, _ in curve], dtype=np.float64)
    volumes = np.array([0.0, *(volume for _, volume in curve)])
    return np.asarray(volumes[np.searchsorted(xs, grid, side="right")], dtype=np.float64)


def bands(curves: Sequence[Curve], grid: Array) -> Array:
    """Lower quartile, median and upper quartile over the curves at each place: shape (3, places)."""
    return np.quantile(np.stack([at(curve, grid) for curve in curves]), (0.25, 0.5, 0.75), axis=0)


def minutes_to(curve: Curve, mark: float) -> float:
    """When a curve in seconds has the mark for the first time; infinite if it never has."""
    return next((seconds / 60 for seconds, volume in curve if volume >= mark), math.inf)


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Nearly the same places, in the same order, at least ``gap`` apart and between 0 and 1 (if they fit there)."""

    def centre(group: Sequence[int]) -> float:
        half = gap * (len(group) - 1) / 2
        return max(half, min(1 - half, sum(places[index] for index in group) / len(group)))

    order = sorted(range(len(places)), key=lambda index: places[index])
    groups: list[list[int]] = []
    centres: list[float] = []
    for index in order:
        groups.append([index])
        centres.append(centre(groups[-1]))
        while len(groups) > 1 and centres[-1] - centres[-2] < gap * (len(groups[-1]) + len(groups[-2])) / 2:
            groups[-2:] = [groups[-2] + groups[-1]]
            centres[-2:] = [centre(groups[-1])]
    found = [0.0] * len(places)
    for group, middle in zip(groups, centres, strict=True):
        for rank, index in enumerate(group):
            found[index] = middle + gap * (rank - (len(group) - 1) / 2)
    return found


def heights(curves: Sequence[Array], marks: Sequence[float]) -> tuple[float, float]:
    """Limits that hold the marks and the curves from an eighth of the way on; before that they come from 0."""
    late = [float(value) for curve in curves for value in curve[len(curve) // 8 :]]
    low, high = min([*late, *marks]), max([*late, *marks])
    room = 0.06 * ((high - low) or 1.0)
    return max(0.0, low - room), high + room


def draw_peers(mark: float, sides: Mapping[str, Sequence[Curve]]) -> Figure:
    """Hypervolume against epochs, a line and a band per side, named at the right."""
    figure = _figure(8.6, 4.8)
    axes = figure.add_axes((0.085, 0.115, 0.575, 0.8))
    last = max(x for curves in sides.values() for curve in curves for x, _ in curve)
    grid = np.linspace(0.0, last, STEPS + 1)
    found = [bands(curves, grid) for curves in sides.values()]
    for slot, (low, middle, high) in enumerate(found):
        look: dict[str, Any] = {"color": LIGHT.colour(slot), "zorder": 3 - 0.1 * slot}
        axes.fill_between(grid, low, high, step="post", alpha=0.13, linewidth=0, **look)
        axes.step(grid, middle, where="post", linestyle=LINES[slot], linewidth=1.9, **look)
    axes.axhline(mark, color=LIGHT.ink, linewidth=1.0, linestyle=MARK_LINE, zorder=4)
    axes.set_xlim(0, last)
    axes.set_ylim(*heights([band[row] for band in found for row in (0, 2)], [mark]))
    axes.set_xlabel("epochs spent")
    axes.set_ylabel("hypervolume (share of the box)")
    counts = sorted({len(curves) for curves in sides.values()})
    axes.set_title(f"median and quartiles, n = {' to '.join(map(str, counts))} search seeds")
    names = [f"ours: {side}" if side == OURS else side for side in sides]
    looks = [(LIGHT.colour(slot), LINES[slot]) for slot in range(len(names))]
    ends = [float(band[1][-1]) for band in found]
    mark_name = f"the mark: plain TPE, {MARK_TRIALS} trials"
    _name_ends(axes, [*names, mark_name], [*ends, mark], [*looks, (LIGHT.ink, MARK_LINE)])
    return figure


def _name_ends(axes: Any, names: Sequence[str], ends: Sequence[float], looks: Sequence[tuple[str, Any]]) -> None:
    """A name beside each line's end, led to by a piece of the same line."""
    low, high = axes.get_ylim()
    places = [(end - low) / (high - low) for end in ends]
    for name, place, text, (colour, line) in zip(names, places, spread(places, 0.06), looks, strict=True):
        piece = Line2D(
            [1.0, 1.03, 1.125], [place, text, text],
            transform=axes.transAxes, clip_on=False, color=colour, linestyle=line, linewidth=1.6,
        )  # fmt: skip
        axes.add_artist(piece)
        axes.text(1.14, text, name, transform=axes.transAxes, va="center", fontsize=9.5)


def draw_real(pairs: Sequence[Pair]) -> Figure:
    """Hypervolume against minutes, a panel per search seed, on common axes."""
    columns = min(COLUMNS, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    figure = _figure(max(5.4, 2.9 * columns + 0.6), 2.7 * rows + 0.8)
    figure.set_layout_engine("constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    last = max(curve[-1][0] for pair in pairs for curve in (pair.without, pair.stopped)) / 60
    looks = (("without stopping", LIGHT.colour(2), LINES[4]), ("with stopping", LIGHT.colour(0), LINES[0]))
    places = np.linspace(0.0, 60 * last, STEPS + 1)
    limits = heights(
        [at(curve, places) for pair in pairs for curve in (pair.without, pair.stopped)], [pair.mark for pair in pairs]
    )
    for position, axes in enumerate(grid.flat):
        if position >= len(pairs):
            axes.set_visible(False)
            continue
        pair = pairs[position]
        for curve, (_, colour, line) in zip((pair.without, pair.stopped), looks, strict=True):
            xs, volumes = zip((0.0, 0.0), *curve, strict=True)
            axes.step([x / 60 for x in xs], volumes, where="post", color=colour, linestyle=line, linewidth=1.9)
        axes.axhline(pair.mark, color=LIGHT.ink, linewidth=1.0, linestyle=MARK_LINE, zorder=1.9)
        axes.set_title(f"search seed {pair.seed}")
        axes.set_xlim(0, last)
        axes.set_ylim(*limits)
        paper = {"facecolor": LIGHT.background, "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
        look: dict[str, Any] = {
            "transform": axes.transAxes,
            "ha": "right",
            "fontsize": 8.5,
            "color": LIGHT.muted,
            "bbox": paper,
        }
        axes.text(0.97, 0.05, _times(pair), **look)
        if position + columns >= len(pairs):
            axes.set_xlabel("minutes")
            axes.tick_params(labelbottom=True)
    figure.supylabel("hypervolume (share of the box)", fontsize=10.5)
    handles = [Line2D([], [], color=colour, linestyle=line, linewidth=1.9, label=name) for name, colour, line in looks]
    handles.append(Line2D([], [], color=LIGHT.ink, linestyle=MARK_LINE, linewidth=1.0, label="the mark"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, handlelength=3.4)
    return figure


def _times(pair: Pair) -> str:
    without, stopped = (minutes_to(curve, pair.mark) for curve in (pair.without, pair.stopped))
    said = ["never" if math.isinf(time) else f"{time:.1f} min" for time in (without, stopped)]
    return f"at the mark\nwithout: {said[0]}\nwith: {said[1]}"


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, out: Path) -> None:
    """Write an SVG or a PNG, the same bytes for the same figure; the folder is made."""
    out.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None} if out.suffix == ".svg" else {"Software": None}
    figure.savefig(out, dpi=160, metadata=metadata)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("peers", "real"))
    parser.add_argument("file", type=Path, help="JSON of the benchmark")
    parser.add_argument("--out", type=Path, required=True, help=".svg or .png")
    parser.add_argument("--sides", nargs="+", metavar="NAME", help=f"peers: these, at most {MOST_SIDES}")
    arguments = parser.parse_args(words)
    if arguments.out.suffix not in (".svg", ".png"):
        parser.error(f"--out: {arguments.out} must end in .svg or .png")
    if arguments.sides and arguments.kind == "real":
        parser.error("--sides: only peers has sides")
    try:
        with mpl.rc_context(LIGHT.rc()):
            if arguments.kind == "real":
                figure = draw_real(read_real(arguments.file))
            else:
                mark, sides = read_peers(arguments.file)
                wanted = chosen(arguments.file, list(sides), arguments.sides)
                figure = draw_peers(mark, {side: sides[side] for side in wanted})
            save(figure, arguments.out)
    except RequestError as error:
        print(error, file=sys.stderr)
        return 2
    print(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
