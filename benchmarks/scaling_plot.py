"""The picture of ``simulated_scale.py``: trials a second, memory and the writer's lag along each sweep.

    python benchmarks/scaling_plot.py DIR/tpe/figures.json DIR/random/figures.json --out docs/results/scaling.svg

Reads what ``simulated_scale.py --keep DIR`` leaves. ``--out`` may end in .png to look at it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from search_plots import save

from reports.style import LIGHT

PANELS = (("rate", "trials ended a second"), ("rss_mib", "memory, MiB"), ("backlog", "waiting for MLflow"))


def read(file: Path) -> dict[str, Any]:
    """A sweep's figures; its tenths with ``rate``, trials a second."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    before = 0
    for tenth in found["tenths"]:
        tenth["rate"], before = (tenth["trials"] - before) / tenth["seconds"], tenth["trials"]
    return found


def draw(sweeps: list[dict[str, Any]]) -> Figure:
    """A panel for each quantity, a line for each sweep; across, the trials that have ended."""
    figure = Figure(figsize=(9.6, 3.0), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for slot, sweep in enumerate(sweeps):
            tenths = sweep["tenths"]
            label = f"{sweep['sampler']}, {sweep['trials']:,} trials"
            x, y = [tenth["trials"] for tenth in tenths], [tenth[name] for tenth in tenths]
            axes.plot(x, y, color=LIGHT.colour(slot), linestyle=("solid", "dashed")[slot % 2], marker="o", label=label)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("trials that have ended")
        axes.set_ylim(bottom=0)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(sweeps))
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="figures.json")
    parser.add_argument("--out", type=Path, required=True, help=".svg or .png")
    arguments = parser.parse_args()
    with mpl.rc_context(LIGHT.rc()):
        save(draw([read(file) for file in arguments.files]), arguments.out)
    print(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
