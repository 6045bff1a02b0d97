"""Compare sweeps in one box: ``python reports/compare.py --sweeps A B C``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reports.request_parser import RequestParser
from repsim.errors import Mistake, RequestError, one_line

_DESCRIPTION = """\
Lay the fronts of several sweeps over each other and measure their hypervolumes in one box, from the worst of their
reference points to the ideal: only so are those numbers comparable. A section per data set that two sweeps share.
"""
_EPILOG = """\
examples:
  python reports/compare.py --sweeps pareto-261120-070500 pareto-261121-081500
  python reports/compare.py --sweeps A B C --tracking-uri http://localhost:5000 --out /tmp/comparison

what is written into the folder:
  index.html                  the page: self-contained, needs no network
  comparison.csv .md .tex     a row per data set and sweep
  figures/*.png *.svg         the fronts over each other

exit status: 0 written; 2 the request is wrong (no store, no such sweep, other objectives, no common data).
"""


def parser() -> argparse.ArgumentParser:
    """The command line; a wrong one is a RequestError."""
    found = RequestParser(
        prog="python reports/compare.py",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--sweeps", required=True, nargs="+", metavar="NAME", help="two or more sweeps of one store")
    found.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="the MLflow store (default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in the current folder)",
    )
    usual = Path("comparison")
    found.add_argument("--out", metavar="DIR", type=Path, default=usual, help=f"folder to write (default: {usual})")
    return found


def build_comparison(names: Sequence[str], tracking_uri: str | None, out: Path) -> Path:
    """Write the comparison of these sweeps into ``out`` and return it, absolute.

    Raises RequestError for fewer than two different sweeps, other objectives, and when no data set is shared.
    """
    from reports.comparing import compare
    from reports.load import load_sweep
    from reports.store import default_tracking_uri, open_store

    if len(set(names)) < 2 or len(set(names)) < len(names):
        problem = f"{', '.join(map(one_line, names))} is not a comparison"
        raise RequestError(Mistake(where="--sweeps", key="", problem=problem, allowed="two or more different sweeps"))
    client = open_store(tracking_uri or default_tracking_uri())
    found = compare([load_sweep(client, name) for name in names])
    folder = out.absolute()
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".comparison-", dir=folder) as work:
            _write(found, Path(work), folder)
    except (OSError, ValueError) as error:
        problem = f"{one_line(str(folder), 200)} cannot be written: {one_line(str(error), 200)}"
        raise RequestError(Mistake(where="--out", key="", problem=problem)) from None
    return folder


def _write(found: Any, work: Path, folder: Path) -> None:
    """Everything into ``work`` first, and from there into ``folder``, the page last."""
    from reports import comparing_page, paper_tables

    (work / "figures").mkdir()
    paper_tables.write_tables([comparing_page.table(found)], work)
    page = comparing_page.render(found, work / "figures")
    for path in sorted(path for path in work.rglob("*") if path.is_file()):
        path.replace(folder / path.relative_to(work))
    (folder / "index.html").write_text(page, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    try:
        options = parser().parse_args(arguments)
        folder = build_comparison(options.sweeps, options.tracking_uri, options.out)
    except RequestError as error:
        for mistake in error.mistakes:
            print(mistake, file=sys.stderr)
        return 2
    for name in ("index.html", "comparison.csv", "comparison.md", "comparison.tex", "figures"):
        print(folder / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
