"""Run a sweep: ``python sweeps/launch.py --space pareto.yaml``. This file is the table of contents.

    arguments   what was asked                      sweeps/arguments.py
    space       the question, validated             sweeps/space_file.py
    estimate    what it will cost (--dry-run)       sweeps/estimate.py
    session     preflight, search, Ray, journal,    sweeps/session.py
                MLflow, live view, report
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from repsim.errors import RequestError
from sweeps.arguments import Arguments, parse_arguments
from sweeps.space import Space

RUNS = "runs"
WRONG_REQUEST = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 nothing completed, 2 wrong request, 130 interrupted and resumable."""
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = parse_arguments(given)
        space = read_space(arguments)
        if arguments.dry_run:
            return dry_run(space)
        from sweeps.session import Launch, run

        return run(
            Launch(
                space=space,
                name=arguments.name,
                runs_dir=Path(RUNS).resolve(),
                resume=arguments.resume is not None,
                command=shlex.join(["python", "sweeps/launch.py", *given]),
                tracking_uri=arguments.tracking_uri,
                address=arguments.address,
                cache_dir=None,
                report=not arguments.no_report,
            )
        )
    except RequestError as error:
        for mistake in error.mistakes:
            print(mistake, file=sys.stderr)
        return WRONG_REQUEST
