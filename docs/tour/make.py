"""Takes the tour's pictures from a report: ``python docs/tour/make.py --report DIR`` (needs playwright and Chromium).

Each picture is a stretch of the page between two headings, in the page's light colours, with few colours so that the
files stay small.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

OUT = Path(__file__).resolve().parent
WIDTH = 1100
SECTIONS: dict[str, tuple[str, str, int]] = {
    "answer": ("h1", "", 1150),
    "front": ("h2", "The front", 900),
    "methods": ("h2", "Method by method", 900),
    "importance": ("h2", "What mattered", 700),
    "layers": ("h3", "Layer by layer", 760),
    "trajectories": ("h3", "On the way", 720),
    "course": ("h2", "How it went", 900),
}
"""Name: the tag and the beginning of the text of the heading that the picture starts at, and its height in pixels."""


def shot(page: Page, tag: str, text: str, height: int) -> bytes | None:
    """The page from a heading on; None where there is no such heading."""
    heading = page.locator(tag, has_text=text).first if text else page.locator(tag).first
    if heading.count() == 0:
        return None
    box = heading.bounding_box()
    if box is None:
        return None
    clip = {"x": 0.0, "y": max(0.0, box["y"] - 12), "width": float(WIDTH), "height": float(height)}
    return page.screenshot(clip=clip, full_page=True)  # type: ignore[arg-type]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", required=True, type=Path, metavar="DIR", help="the report's folder")
    page_file = parser.parse_args().report / "index.html"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        page.goto(page_file.resolve().as_uri())
        page.wait_for_timeout(4000)
        for name, section in SECTIONS.items():
            content = shot(page, *section)
            if content is None:
                print(f"{name}: no such heading", file=sys.stderr)
                continue
            picture = Image.open(io.BytesIO(content)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
            picture.save(OUT / f"{name}.png", optimize=True)
            print(OUT / f"{name}.png", (OUT / f"{name}.png").stat().st_size)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
