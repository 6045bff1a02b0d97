"""What would go wrong with a sweep: ``python sweeps/doctor.py``. This file is the table of contents.

findings    a line of the answer                          sweeps/doctor_checks/findings.py
machine     home, token, sockets, memory, cores           sweeps/doctor_checks/machine.py
versions    what is installed, and is it the same         sweeps/doctor_checks/versions.py
gpus        driver, visibility, memory, torch             sweeps/doctor_checks/gpus.py
places      run folder, cache, storage                    sweeps/doctor_checks/places.py
store       MLflow                                        sweeps/doctor_checks/store.py
inputs      images and pretrained weights                 sweeps/doctor_checks/inputs.py
node        all that one machine is asked                 sweeps/doctor_checks/node.py
cluster     the same of every node, compared              sweeps/doctor_checks/cluster.py, roll_call.py
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from repsim.data.sources import count_images
from repsim.errors import Mistake, RequestError
from sweeps.doctor_checks import cluster, inputs, machine, places, store
from sweeps.doctor_checks.findings import Finding, bad, patiently
from sweeps.doctor_checks.node import DISK_SECONDS, Question, look
from sweeps.estimate import Estimate, estimate
from sweeps.slots import Slots, check_gpus, choose_slots
from sweeps.space import Space, load_space
from sweeps.terminal import harmless

HEALTHY, SICK, WRONG_REQUEST = 0, 1, 2
RUNS = Path("runs")
_DESCRIPTION = """\
Look for what would go wrong with a sweep, before it does: one line for each thing that was looked at.

  ok    name: what was found
  warn  name: what was found; what to do about it          a sweep runs, slower or with less safety
  FAIL  name: what was found; what to do about it          a sweep would be refused, or would break

Nothing is started, trained or kept. Small files are written where a sweep would write, and removed again; an MLflow
store that does not exist is not made.
"""
_EPILOG = """\
what is looked at:
  on this machine   packages and their versions, home folder, Ray's token, temporary folder and the length of socket
                    paths, shared memory, file descriptors, cores against threads, memory, loopback, GPUs (driver,
                    CUDA_VISIBLE_DEVICES, memory, torch's build), run folder, cache, MLflow store, port of mlflow ui
  with --space      also its images, its pretrained weights (fetched, where they have to be), disk and memory it needs
  with --storage    also whether an object can be written, read and removed there
  with --address    the same on every node, as a task of Ray: same code and versions, same images, the same run
                    folder; a node that does not answer fails

examples:
  python sweeps/doctor.py                                           this machine, a second or two
  python sweeps/doctor.py --space pareto.yaml --data my/images      for this sweep
  python sweeps/doctor.py --space pareto.yaml --tracking-uri http://mlflow.example:5000
  python sweeps/doctor.py --space pareto.yaml --address 10.0.0.1:6379 --storage s3://bucket/sweeps

exit status: 0 nothing fails; 1 something does; 2 the request is wrong (an unknown flag, a space with mistakes).
"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong as a RequestError, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise RequestError(Mistake(where="command line", key="", problem=message, allowed="see --help"))


def parser() -> argparse.ArgumentParser:
    """The command line; a wrong one is a RequestError."""
    found = _Parser(
        prog="python sweeps/doctor.py",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    found.add_argument("--address", metavar="ADDR", help="of a running Ray cluster: ask every node of it as well")
    found.add_argument("--space", metavar="FILE", help="the sweep to come: a path, or one of search_spaces/")
    found.add_argument("--data", metavar="SOURCE", action="append", help="replaces the file's data, as in launch.py")
    found.add_argument(
        "--set", metavar="KEY=VALUE", action="append", help="replaces one value of the file, as in launch.py"
    )
    found.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="the MLflow store (default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in the current folder)",
    )
    found.add_argument(
        "--storage", metavar="URI", help="where the sweep is to be mirrored: s3://…, gs://…, or a folder"
    )
    return found


def asked_space(options: argparse.Namespace) -> Space | None:
    """The space of the sweep to come; RequestError for one with mistakes, or for its flags without it."""
    if options.space is None:
        if options.data or options.set:
            flag = "--data" if options.data else "--set"
            problem = "says what to change in a space, and none is given"
            raise RequestError(Mistake(where=flag, key="", problem=problem, allowed="add --space FILE"))
        return None
    return load_space(options.space, options.set or (), data=options.data)


def diagnose(options: argparse.Namespace, space: Space | None) -> list[Finding]:
    """Everything that was found, the driver's machine first, then the nodes."""
    runs = RUNS.resolve()
    slots = None if space is None else choose_slots(space)
    cost, found = (None, []) if space is None or slots is None else _cost(space, slots)
    question = Question(
        runs=str(runs),
        storage=options.storage,
        cache_bytes=None if cost is None else cost.cache_bytes,
        sources=() if space is None else tuple((source, _group(space)) for source in space.data),
        backbones=() if space is None else tuple(inputs.backbones(space)),
        slots=1 if slots is None else slots.parallel,
        threads=None if slots is None else slots.parallel * slots.threads,
    )
    here = look(question)
    found += here.findings
    found.append(machine.token(os.environ, joining=options.address is not None))
    needed = None if cost is None else cost.run_bytes
    advice = "start from another folder: runs/ and mlflow.db are made in the current one"
    found += patiently("run folder", DISK_SECONDS, lambda: places.folder("run folder", runs, needed, advice))
    found += patiently(store.NAME, DISK_SECONDS, lambda: store.store(options.tracking_uri))
    found.append(store.ui_port())
    if options.address is not None:
        found += cluster.examine(options.address, question, here, cluster.NODE_SECONDS)
    return found


def _cost(space: Space, slots: Slots) -> tuple[Estimate | None, list[Finding]]:
    """What the sweep will take; None where its images cannot be counted, which the check of the data says."""
    found: list[Finding] = []
    try:
        check_gpus(space)
    except RequestError as error:
        found = [bad("slots", mistake.problem, f"allowed: {mistake.allowed}") for mistake in error.mistakes]
    try:
        counts = {source: count_images(source) for source in space.data}
    except RequestError:
        return None, found
    return estimate(space, counts, slots.parallel), found


def _group(space: Space) -> str | None:
    group = space.fixed.get("data.group")
    return None if group is None else str(group)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows no accents is not worth a crash
    try:
        options = parser().parse_args(arguments)
        found = diagnose(options, asked_space(options))
    except RequestError as error:
        for mistake in error.mistakes:
            print(harmless(str(mistake)), file=sys.stderr)
        return WRONG_REQUEST
    for finding in found:
        print(harmless(str(finding)))
    return SICK if any(finding.level == "FAIL" for finding in found) else HEALTHY


if __name__ == "__main__":
    sys.exit(main())
