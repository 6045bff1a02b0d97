"""The page on paper: printed by a headless Chromium, which is not ours to ship."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from repsim.errors import Mistake, RequestError, one_line

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
"""Looked for in PATH, in this order; ``REPSIM_BROWSER`` names another."""
VARIABLE = "REPSIM_BROWSER"
SECONDS = 120.0


def find_browser() -> str:
    """The browser's path. Raises RequestError where there is none."""
    named = os.environ.get(VARIABLE)
    found = [path for name in ((named,) if named else BROWSERS) if (path := shutil.which(name)) is not None]
    if not found:
        missing = f"{VARIABLE}={one_line(named)} is not there" if named else "no Chromium or Chrome is in PATH"
        allowed = f"install one (Debian: apt-get install chromium), or name it in {VARIABLE}"
        raise RequestError(Mistake(where="--format", key="pdf", problem=missing, allowed=allowed))
    return found[0]


def print_page(browser: str, page: Path, out: Path) -> None:
    """Print ``page`` into ``out``, on a profile that is thrown away. Raises RequestError when that does not work."""
    with tempfile.TemporaryDirectory(prefix="print-", ignore_cleanup_errors=True) as profile:
        paper = Path(profile) / "page.pdf"
        command = [browser, "--headless", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"]
        # Chromium's sandbox refuses to run as root, as in a container; the page is our own and fetches nothing
        command += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        command += ["--no-pdf-header-footer", "--virtual-time-budget=20000", f"--print-to-pdf={paper}", page.as_uri()]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
            said = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        except subprocess.TimeoutExpired:
            said = [f"no answer within {SECONDS:.0f} s"]
        if not paper.exists():
            problem = f"{browser} did not print: {one_line(said[0], 200)}"
            raise RequestError(Mistake(where="--format", key="pdf", problem=problem))
        shutil.move(paper, out)
