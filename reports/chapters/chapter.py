"""What every chapter of the report is made from, and how it gets its pictures onto the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reports.drawing import Draw, save
from reports.figures import Styles
from reports.fronts import Study
from reports.load import Sweep
from reports.markup import esc, image


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """A sweep as the report sees it.

    ``stems`` are what file names end in, one per study: empty where there is a single one. ``figures`` is the folder
    for static pictures, ``report`` the folder in which the report will lie, for commands shown.
    """

    sweep: Sweep
    studies: tuple[Study, ...]
    styles: Styles
    stems: tuple[str, ...]
    figures: Path
    report: Path

    def figure(self, draw: Draw, stem: str, alt: str, caption: str) -> str:
        """Draw a picture for light and dark pages, save it as ``stem.png`` and ``.svg``, and return its HTML."""
        return (
            f'<figure><div class="wide">{image(save(draw, self.figures, stem), alt)}</div>'
            f"<figcaption>{esc(caption)} Static picture: {esc(f'figures/{stem}.svg and .png')}.</figcaption></figure>"
        )


Section = Callable[[Chapter], str]
"""Makes the HTML of a chapter, or "" where the sweep has nothing for it."""
