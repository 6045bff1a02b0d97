"""How a report's page scrolls: milliseconds between frames while it passes from its top to its end.

    python benchmarks/page_scroll.py REPORT/index.html

Opens the page in Chromium without a window (playwright), in light and in dark, and scrolls it twice from top to end in
eight seconds each. Frames are the page's own (requestAnimationFrame): they tell when scripts and layout hold it up, and
not how fast a screen is painted. A long task is one of 50 ms or more. The last line holds the 95th percentile of the
worst of the four; goal: at most 50 ms, which is twenty frames a second.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

GOAL = 50.0
NAMES = ("chromium", "chromium-browser", "google-chrome")
_SCROLL = """async () => {
  const gaps = [], long = [], took = 8000, end = document.scrollingElement.scrollHeight - innerHeight;
  new PerformanceObserver((list) => long.push(...list.getEntries())).observe({type: "longtask"});
  scrollTo(0, 0);
  const began = performance.now();
  let last = began;
  await new Promise((done) => {
    const step = () => {
      const now = performance.now();
      gaps.push(now - last);
      last = now;
      scrollTo(0, end * Math.min(1, (now - began) / took));
      if (now - began < took) { requestAnimationFrame(step); } else { done(); }
    };
    requestAnimationFrame(step);
  });
  return {gaps: gaps.slice(1).sort((a, b) => a - b), long: long.length, height: end};
}"""


def scrolled(browser: Any, address: str, scheme: str) -> float:
    """Prints what a page does in one colour scheme; returns the worse 95th percentile."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme).new_page()
    started = time.perf_counter()
    page.goto(address)
    page.wait_for_selector(".scatterlayer .trace path.point")
    drawn = time.perf_counter() - started
    found = []
    for _ in range(2):
        told = page.evaluate(_SCROLL)
        gaps = told["gaps"]
        middle, late = gaps[len(gaps) // 2], gaps[int(0.95 * len(gaps))]
        found.append(late)
        print(
            f"{scheme:<5}  front drawn after {drawn:.1f} s; {told['height']} px: median {middle:.1f} ms, "
            f"95 % {late:.1f} ms, longest {gaps[-1]:.1f} ms, long tasks {told['long']}"
        )
    page.context.close()
    return float(max(found))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, metavar="FILE", help="a report's index.html")
    page = parser.parse_args().page
    from playwright.sync_api import sync_playwright

    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        print("there is no Chromium: apt-get install chromium", file=sys.stderr)
        return 2
    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=path, args=sandbox)
        worst = max(scrolled(browser, page.resolve().as_uri(), scheme) for scheme in ("light", "dark"))
        browser.close()
    print(f"page_scroll: {worst:.1f} (goal {GOAL:.0f}) {'ok' if worst <= GOAL else 'short'}")
    return 0 if worst <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
