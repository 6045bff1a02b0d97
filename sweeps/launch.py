"""Run a sweep: ``python sweeps/launch.py --space pareto.yaml``. This file is the table of contents.

arguments   what was asked                           sweeps/arguments.py
space       the question, validated                  sweeps/space.py, space_file.py
rehearsal   the refusals, and the cost (--dry-run)   sweeps/rehearsal.py, estimate.py
session     preflight, search, Ray, journal, MLflow, sweeps/session.py
            live view, report
"""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from repsim.errors import Mistake, RequestError
from sweeps.arguments import Arguments, default_name, parse_arguments
from sweeps.request import Launch
from sweeps.run_folder import RunFolder
from sweeps.signals import INTERRUPTED, Interrupted, Signals
from sweeps.space import Space, load_space, space_from_dict
from sweeps.terminal import harmless, make_unbreakable

RUNS = Path("runs")
WRONG_REQUEST = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 nothing completed, 2 wrong request, 130 interrupted and resumable."""
    given = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows no accents is not worth a crash
    signals = Signals()
    try:
        with signals.caught():
            return carry_out(given, signals)
    except RequestError as error:
        for mistake in error.mistakes:
            print(harmless(str(mistake)), file=sys.stderr)
        return WRONG_REQUEST
    except Interrupted:
        print(signals.last_words, file=sys.stderr)
        signals.last_words = ""
        return INTERRUPTED


def carry_out(given: Sequence[str], signals: Signals) -> int:
    """What the command line asks for; RequestError when it is wrong, Interrupted when a signal arrives too early."""
    arguments = parse_arguments(given)
    if arguments.address is not None:
        from sweeps.cluster_check import check_address

        check_address(arguments.address)
    space, name = resumed(arguments, arguments.resume) if arguments.resume is not None else asked(arguments)
    launch = Launch(
        space=space,
        name=name,
        runs_dir=RUNS.resolve(),
        resume=arguments.resume is not None,
        command=shlex.join(["python", "sweeps/launch.py", *given]),
        tracking_uri=arguments.tracking_uri,
        address=arguments.address,
        storage=arguments.storage,
        report=arguments.report,
        warm_start=arguments.warm_start,
    )
    if arguments.dry_run:
        from sweeps.rehearsal import rehearse

        print(harmless("\n".join(rehearse(launch))))
        return 0
    with signals.noted():  # compiled modules swallow our exception while they are imported, and print it
        from sweeps.session import run
    return run(launch, signals)


def asked(arguments: Arguments) -> tuple[Space, str]:
    """The space of a new sweep, and its name, which must not be taken."""
    space = load_space(
        arguments.space or "",
        arguments.overrides,
        data=arguments.data,
        trials=arguments.trials,
        parallel=arguments.parallel,
        seed=arguments.seed,
    )
    check_sources(space.data)
    name = default_name(space.name, datetime.now()) if arguments.name is None else arguments.name
    RunFolder.check_free(RUNS.resolve(), name)
    if arguments.warm_start:
        from sweeps.warm_start import earlier_sweeps

        earlier_sweeps(space, arguments.warm_start, RUNS.resolve())
    return space, name


def check_sources(sources: Sequence[str]) -> None:
    """RequestError when a data source is not there or holds no images: said at once, before torch is loaded."""
    from repsim.data.sources import count_images

    mistakes: list[Mistake] = []
    for source in sources:
        try:
            count_images(source, key="")
        except RequestError as error:
            mistakes += error.mistakes
    if mistakes:
        raise RequestError(*mistakes)


def resumed(arguments: Arguments, name: str) -> tuple[Space, str]:
    """The space as an earlier launch stored it; only --parallel and a larger --trials change it."""
    from sweeps.journal import read_history

    if arguments.storage not in (None, "none") and not (RUNS / name).exists():
        from sweeps.mirror import rebuild

        rebuild(str(arguments.storage), RUNS.resolve(), name)
    folder = RunFolder.open_existing(RUNS.resolve(), name)
    header = read_history(folder.journal).header or {}
    document = header.get("space")
    if not isinstance(document, dict):
        raise RequestError(Mistake(where=str(folder.journal), key="space", problem="is missing from the header"))
    space = space_from_dict(document, where=str(folder.journal))
    if arguments.trials is not None:
        if arguments.trials < space.budget.trials:
            least = f"{space.budget.trials} or more"
            problem = f"{arguments.trials} is fewer than the sweep has"
            raise RequestError(Mistake(where="--trials", key="", problem=problem, allowed=least))
        space = replace(space, budget=replace(space.budget, trials=arguments.trials))
    if arguments.parallel is not None:
        space = replace(space, search=replace(space.search, parallel=arguments.parallel))
    return space, name


if __name__ == "__main__":
    make_unbreakable()
    code = main()
    if code == INTERRUPTED:  # what foreign code does at exit may wait for what the signal has killed as well
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
