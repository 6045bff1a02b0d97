"""Register a model of a sweep's front: ``python sweeps/promote.py --sweep NAME --pick knee --as my-model``."""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from repsim.errors import Mistake, RequestError
from sweeps.patient import short
from sweeps.space_notes import NAME_ALLOWED, name_problem
from sweeps.terminal import harmless
from sweeps.tracking_uri import open_client, prepare_store, quiet_mlflow, resolve_tracking_uri, sqlite_path

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

REGISTERED, STORE_FAILED, WRONG_REQUEST = 0, 1, 2
_DESCRIPTION = """\
Register one model of a sweep's front in MLflow, so that anybody can load it by name and classify images with it:

  mlflow.pyfunc.load_model("models:/my-model/1").predict(pandas.DataFrame({"image": [paths, or bytes of files]}))

The weights are those the trial was measured with. Beside them go a signature, the installed versions of what it needs,
the code that reads it, and a model card (data, metrics, similarity, intended use, limits), which is the version's
description as well. Nothing but MLflow is read: the sweep may have run on another machine.
"""
_EPILOG = """\
what can be picked, of what is on the front:
  knee       nearest to the best of both objectives, each scaled by the front's range
  accuracy   best in the first objective
  similar    best in the second objective within one standard error of the best in the first
  t0007      that trial; t0007-w03 that point between its pretrained and finetuned weights

The first three are those that the report recommends, over fresh seeds where the sweep confirmed its front.

examples:
  python sweeps/promote.py --sweep pareto-260115-101500 --pick knee --as lesions
  python sweeps/promote.py --sweep latest --pick t0007 --as lesions          a second version of lesions
  python sweeps/promote.py --sweep latest --pick similar --as lesions --tracking-uri http://localhost:5000

exit status: 0 registered; 1 the store failed on the way, no version was made; 2 the request is wrong (no store, no such
sweep, nothing of that name on its front, or no model kept of it: the line says how to get one).
"""


class StoreFailedError(Exception):
    """The store gave up on the way; the message says how."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong as a RequestError, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise RequestError(Mistake(where="command line", key="", problem=message, allowed="see --help"))


def parser() -> argparse.ArgumentParser:
    """The command line; a wrong one is a RequestError."""
    found = _Parser(
        prog="python sweeps/promote.py",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    found.add_argument("--sweep", required=True, metavar="NAME", help="name of the sweep, or latest")
    found.add_argument("--pick", required=True, metavar="WHICH", help="knee, accuracy, similar, or a trial's id")
    found.add_argument(
        "--as",
        required=True,
        metavar="MODEL",
        dest="name",
        help=f"name in the registry ({NAME_ALLOWED}); one that is there gets a new version",
    )
    found.add_argument("--data", metavar="SOURCE", help="whose front, where the sweep ran on several data sets")
    found.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="the MLflow store (default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in the current folder)",
    )
    return found


def promote(sweep: str, pick: str, name: str, data: str | None = None, tracking_uri: str | None = None) -> str:
    """Register a member of the front as the next version of model ``name``; returns one line saying what was done.

    Raises RequestError when the request is wrong, StoreFailedError when the store fails.
    """
    problem = name_problem(name)
    if problem is not None:
        raise RequestError(Mistake(where="--as", key="", problem=problem, allowed=NAME_ALLOWED))
    client = open_client(_existing_store(tracking_uri))
    from mlflow.exceptions import MlflowException

    try:
        with quiet_mlflow(), tempfile.TemporaryDirectory(prefix="promote-") as work:
            return _promoted(client, sweep, pick, name, data, Path(work))
    except (MlflowException, OSError) as error:
        raise StoreFailedError(short(error)) from error


def _promoted(client: MlflowClient, sweep: str, pick: str, name: str, data: str | None, work: Path) -> str:
    from repsim.export import load_model
    from sweeps.front_members import read_front
    from sweeps.model_card import card, description, version_tags
    from sweeps.registration import fetch_model, register

    front = read_front(client, sweep, data)
    member = front.pick(pick)
    folder = fetch_model(client, front, member, work)
    classifier = load_model(folder)  # so that nothing is registered that cannot be loaded
    told = (front, member, classifier.manifest, pick, name)
    version = register(
        client,
        front,
        member,
        folder,
        classifier,
        name=name,
        card=card(*told),
        description=description(*told),
        tags=version_tags(front, member, pick),
        work=work,
    )
    return f"{member.name} of {front.sweep} is version {version} of {name}: models:/{name}/{version}"


def _existing_store(tracking_uri: str | None) -> str:
    """The store's URI; RequestError when there is none: a promotion never makes a database."""
    uri = resolve_tracking_uri(tracking_uri)
    path = sqlite_path(uri)
    if path is not None and not path.is_file():
        problem = f"{uri} does not exist (no sweep has been recorded there)"
        allowed = "the store a sweep wrote: sqlite:///FOLDER/mlflow.db, or the address of an MLflow server"
        raise RequestError(Mistake(where="--tracking-uri", key="", problem=problem, allowed=allowed))
    prepare_store(uri)
    return uri


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows no accents is not worth a crash
    try:
        options = parser().parse_args(arguments)
        told = promote(options.sweep, options.pick, options.name, options.data, options.tracking_uri)
    except RequestError as error:
        for mistake in error.mistakes:
            print(harmless(str(mistake)), file=sys.stderr)
        return WRONG_REQUEST
    except StoreFailedError as error:
        print(harmless(f"the store failed, nothing was registered: {error}"), file=sys.stderr)
        return STORE_FAILED
    print(harmless(told))
    return REGISTERED


if __name__ == "__main__":
    sys.exit(main())
