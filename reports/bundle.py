"""Move a sweep between MLflow stores: ``python reports/bundle.py export|import``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reports.request_parser import RequestParser
from repsim.errors import Mistake, RequestError, one_line

_DESCRIPTION = """\
Write a sweep into one file, with its trials, confirmations, curves and artifacts, and read it into another MLflow
store: from a cluster's database to a laptop's, from sqlite to a server, or into an archive.
"""
_EPILOG = """\
examples:
  python reports/bundle.py export --sweep latest --out pareto.zip
  python reports/bundle.py import pareto.zip --tracking-uri sqlite:///mlflow.db
  python reports/build.py --sweep pareto-261120-070500          the report of what was imported

The file is a zip archive of parquet tables and the artifacts as they are. A sweep that the other store has already is
refused; runs get new ids there, and know the old ones (tag imported_from).

exit status: 0 done; 2 the request is wrong (no store, no such sweep, a file that is no bundle, a sweep that is there).
"""


def parser() -> argparse.ArgumentParser:
    """The command line; a wrong one is a RequestError."""
    found = RequestParser(
        prog="python reports/bundle.py",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = found.add_subparsers(dest="action", required=True, metavar="export|import", parser_class=RequestParser)
    out = actions.add_parser("export", help="write a sweep into a file")
    out.add_argument("--sweep", required=True, metavar="NAME", help="name of the sweep, or latest")
    out.add_argument("--out", required=True, type=Path, metavar="FILE", help="the file to write, NAME.zip")
    into = actions.add_parser("import", help="read such a file into a store")
    into.add_argument("file", type=Path, metavar="FILE", help="what export wrote")
    for action in (out, into):
        action.add_argument(
            "--tracking-uri",
            metavar="URI",
            help="the MLflow store (default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in the current folder)",
        )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    try:
        options = parser().parse_args(arguments)
        _act(options)
    except RequestError as error:
        for mistake in error.mistakes:
            print(mistake, file=sys.stderr)
        return 2
    except OSError as error:
        problem = f"cannot be read or written: {one_line(error.strerror or str(error), 200)}"
        print(Mistake(where=one_line(str(error.filename or "bundle"), 200), key="", problem=problem), file=sys.stderr)
        return 2
    return 0


def _act(options: argparse.Namespace) -> None:
    from reports.bundling import export_sweep, import_sweep
    from reports.store import default_tracking_uri, open_store

    if options.action == "import" and not options.file.is_file():
        raise RequestError(Mistake(where=one_line(str(options.file), 200), key="", problem="is no file"))
    client = open_store(options.tracking_uri or default_tracking_uri(), create=options.action == "import")
    if options.action == "export":
        told = export_sweep(client, options.sweep, options.out)
        print(f"{options.out}: {told}")
    else:
        print(f"{options.file}: {import_sweep(client, options.file)}")


if __name__ == "__main__":
    sys.exit(main())
