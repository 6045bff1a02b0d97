"""Debian's Chromium, driven by playwright, and what a page did while it was open."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
INSIDE = ("file:", "data:", "blob:", "about:")
"""Addresses that need no network."""


def find_chromium() -> str | None:
    """The browser's path, None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def running(path: str) -> Iterator[Browser]:
    """The browser without a window; root may not use its sandbox."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        try:
            yield browser
        finally:
            browser.close()


@dataclass(kw_only=True)
class Visit:
    """An open page: what it complained of, what it asked the network for, what it popped up."""

    page: Page
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def clean(self) -> bool:
        """Whether nothing of the kind happened."""
        return not (self.problems or self.requests or self.dialogs)

    def at(self, key: str, figure: str = "front-0") -> tuple[float, float]:
        """Where a mark of a figure is in the window, in pixels; the figure is scrolled into view first."""
        self.page.locator(f"#{figure}").scroll_into_view_if_needed()
        found: list[float] = self.page.evaluate(_PLACE, [figure, key])
        return found[0], found[1]

    def points(self, figure: str = "front-0") -> int:
        """How many marks of a figure are drawn."""
        return self.page.locator(f"#{figure} .scatterlayer .trace path.point").count()

    def scrolls_sideways(self) -> bool:
        """Whether the whole page is wider than the window."""
        wide: bool = self.page.evaluate("document.scrollingElement.scrollWidth > window.innerWidth")
        return wide


_PLACE = """([figure, key]) => {
  const plot = document.getElementById(figure), box = plot.getBoundingClientRect();
  const {xaxis, yaxis} = plot._fullLayout;
  for (const trace of plot.data) {
    const index = (trace.customdata || []).indexOf(key);
    if (index >= 0) {
      const x = xaxis._offset + xaxis.d2p(trace.x[index]), y = yaxis._offset + yaxis.d2p(trace.y[index]);
      return [box.left + x, box.top + y];
    }
  }
}"""


@contextmanager
def visit(
    browser: Browser, address: str, *, width: int = 1280, height: int = 900, scheme: Any = "light", scripts: bool = True
) -> Iterator[Visit]:
    """Open an address in a window of its own and listen."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, java_script_enabled=scripts
    )
    found = Visit(page=context.new_page())
    page = found.page
    page.on("console", lambda said: found.problems.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: found.problems.append(str(error)))
    page.on("request", lambda asked: found.requests.append(asked.url) if not asked.url.startswith(INSIDE) else None)
    page.on("dialog", lambda dialog: (found.dialogs.append(dialog.message), dialog.dismiss()))
    try:
        page.goto(address)
        yield found
    finally:
        context.close()


def shots(tmp_path: Path) -> Path:
    """Where screenshots go: ``REPSIM_SCREENSHOTS``, else the test's own folder."""
    folder = Path(os.environ.get("REPSIM_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
