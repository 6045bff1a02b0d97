"""Colours, markers and type of every picture, in one place. Nothing else in reports names a colour of a method.

The first seven colours are Okabe and Ito's, told apart with every common colour vision; the rest are close to Tol's
muted scheme. Each has a lighter twin for dark pages.
"""

from __future__ import annotations

from dataclasses import dataclass

_LIGHT = (
    "#D55E00", "#6B7280", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9",
    "#332288", "#882255", "#999933", "#44AA99", "#117733",
)  # fmt: skip
_DARK = (
    "#F07B2B", "#A3ABBA", "#4AA8E8", "#2CC79A", "#E39BC4", "#F5B833", "#86CDF5",
    "#9C8CF0", "#D9659A", "#C5C55A", "#6FD0C0", "#5DB877",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""matplotlib's names; ``PLOTLY_MARKERS`` and ``GLYPHS`` are the same shapes."""
PLOTLY_MARKERS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star")
GLYPHS = ("●", "■", "▲", "◆", "▼", "✚", "✖", "★")


@dataclass(frozen=True, kw_only=True)
class Theme:
    """A page background and everything that has to be readable on it."""

    name: str
    background: str
    ink: str
    muted: str
    grid: str
    colours: tuple[str, ...]

    @property
    def every(self) -> tuple[str, ...]:
        """All its colours; the same place means the same in every theme."""
        return (self.background, self.ink, self.muted, self.grid, *self.colours)

    def colour(self, slot: int) -> str:
        """Colour of a method's slot; beyond the palette it starts again."""
        return self.colours[slot % len(self.colours)]

    def rc(self) -> dict[str, object]:
        """matplotlib settings. User text is never read as mathematics."""
        return {
            "font.size": 10.5,
            "font.family": "DejaVu Sans",
            "text.parse_math": False,
            "figure.facecolor": self.background,
            "savefig.facecolor": self.background,
            "axes.facecolor": self.background,
            "axes.edgecolor": self.grid,
            "axes.labelcolor": self.ink,
            "axes.titlecolor": self.ink,
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": self.grid,
            "grid.linewidth": 0.7,
            "text.color": self.ink,
            "xtick.color": self.muted,
            "ytick.color": self.muted,
            "xtick.labelsize": 9.5,
            "ytick.labelsize": 9.5,
            "legend.frameon": False,
            "legend.fontsize": 9.5,
            "svg.hashsalt": "report",
        }


LIGHT = Theme(name="light", background="#FFFFFF", ink="#1B2430", muted="#5A6675", grid="#E3E7EC", colours=_LIGHT)
DARK = Theme(name="dark", background="#171C23", ink="#E8ECF1", muted="#9AA6B4", grid="#2E3641", colours=_DARK)


def marker(slot: int) -> str:
    """matplotlib marker of a backbone's slot."""
    return MARKERS[slot % len(MARKERS)]


def plotly_marker(slot: int) -> str:
    """plotly symbol of a backbone's slot."""
    return PLOTLY_MARKERS[slot % len(PLOTLY_MARKERS)]


def glyph(slot: int) -> str:
    """The shape of a backbone's slot as a character."""
    return GLYPHS[slot % len(GLYPHS)]
