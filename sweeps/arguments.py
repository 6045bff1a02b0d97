"""The command line of ``python sweeps/launch.py``: what may be asked, and every mistake in it at once."""

from __future__ import annotations

import argparse
import importlib.metadata
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from repsim.errors import Mistake, RequestError, nearest, one_line
from sweeps.space_file import available_spaces
from sweeps.space_notes import NAME_ALLOWED, name_problem
from sweeps.space_settings import MAX_SEED, MAX_TRIALS

RESERVED_NAMES = ("latest",)
"""``reports/build.py --sweep latest`` means something else."""
_STAMP = "%y%m%d-%H%M%S"
_VALUES = (
    "space",
    "set",
    "data",
    "name",
    "trials",
    "parallel",
    "seed",
    "resume",
    "warm-start",
    "address",
    "storage",
    "tracking-uri",
)
_SWITCHES = ("dry-run", "no-report", "version", "help")
_NEW_ONLY = ("space", "set", "data", "name", "seed", "warm-start", "dry-run")
_DESCRIPTION = """\
Search for the best trade-offs between accuracy and similarity to the pretrained model, on the machines at hand.

The space file says what to try, on which data, and when to stop; search_spaces/README.md documents it. Everything is
written to runs/NAME/ (settings, journal, checkpoints, predictions, models of the front, report) and to MLflow
(./mlflow.db unless --tracking-uri says otherwise). A sweep that was interrupted, by Ctrl-C or by losing power, goes on
with --resume NAME: finished trials are kept, running ones continue after their last epoch.
"""
_EPILOG = """\
examples:
  python sweeps/launch.py --space pareto.yaml                    the default sweep, minutes on two CPU cores
  python sweeps/launch.py --space pareto.yaml --dry-run          what it would do and cost, or refuse; starts nothing
  python sweeps/launch.py --space pareto.yaml --data my/images   a folder per class
  python sweeps/launch.py --space pareto.yaml --set data.image_size=224 --trials 64
  python sweeps/launch.py --space pareto.yaml --set 'method=[full, repsim]' --set optim.lr=3.0e-4
  python sweeps/launch.py --resume pareto-260115-101500 --trials 96
  python reports/build.py --sweep latest                         the report again
  mlflow ui                                                      all sweeps made from this folder

exit codes:
  0    done
  1    it ran, but no trial was completed, or it gave up
  2    the request is wrong: one line per mistake, nothing was started
  130  interrupted; the command that resumes it is printed
"""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """A command line without mistakes. Exactly one of ``space`` and ``resume`` is given; None was not said."""

    space: str | None = None
    overrides: tuple[str, ...] = ()
    data: tuple[str, ...] | None = None
    name: str | None = None
    trials: int | None = None
    parallel: int | None = None
    seed: int | None = None
    resume: str | None = None
    address: str | None = None
    storage: str | None = None
    tracking_uri: str | None = None
    dry_run: bool = False
    report: bool = True
    warm_start: tuple[str, ...] = ()


def default_name(space_name: str, now: datetime) -> str:
    """NAME of a sweep that was given none: ``pareto-260115-101500``, at most 64 characters."""
    stamp = now.strftime(_STAMP)
    return f"{space_name[: 63 - len(stamp)]}-{stamp}"


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Read a command line (without the program's name).

    Raises RequestError with every mistake at once. ``--help`` and ``--version`` print and raise SystemExit(0).
    """
    given, rest = _parser().parse_known_args(list(argv))
    said = {flag.replace("_", "-"): value for flag, value in vars(given).items() if value not in (None, False)}
    mistakes = _unknown(rest)
    mistakes += [mistake for flag, value in said.items() for mistake in _empty(flag, value)]
    numbers = {
        flag: _whole(flag, said.get(flag), low, high, mistakes)
        for flag, low, high in (("trials", 1, MAX_TRIALS), ("parallel", 1, 100_000), ("seed", 0, MAX_SEED))
    }
    for flag in ("name", "resume"):
        mistakes += _name_mistakes(flag, said.get(flag))
    for name in given.warm_start or ():
        mistakes += _name_mistakes("warm-start", name)
    if not any(mistake.suggestion in ("--space", "--resume") for mistake in mistakes):
        mistakes += _together(said)
    if mistakes:
        raise RequestError(*mistakes)
    return Arguments(
        space=given.space,
        overrides=tuple(given.set or ()),
        data=None if given.data is None else tuple(given.data),
        name=given.name,
        trials=numbers["trials"],
        parallel=numbers["parallel"],
        seed=numbers["seed"],
        resume=given.resume,
        address=given.address,
        storage=given.storage,
        tracking_uri=given.tracking_uri,
        dry_run=given.dry_run,
        report=not given.no_report,
        warm_start=tuple(dict.fromkeys(given.warm_start or ())),
    )


class _Parser(argparse.ArgumentParser):
    """Says what is wrong as a RequestError, without the usage."""

    def error(self, message: str) -> NoReturn:
        matched = re.fullmatch(r"argument (--[a-z-]+): (.*)", message)
        where, problem = (matched[1], matched[2]) if matched else ("command line", message)
        if problem == "expected one argument":
            problem = "needs a value"
        elif problem.startswith("ignored explicit argument"):
            problem = "takes no value"
        raise RequestError(Mistake(where=where, key="", problem=problem))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python sweeps/launch.py",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = parser.add_argument_group("what to search")
    what.add_argument(
        "--space",
        metavar="FILE",
        help=f"a space file: a path, or one of search_spaces/ ({', '.join(available_spaces())})",
    )
    what.add_argument(
        "--data",
        metavar="SOURCE",
        action="append",
        help="replaces the file's data; repeat for one study each: phantom:NAME, folder:DIR (a folder per class), "
        "csv:FILE, npz:FILE, medmnist:NAME, or a path",
    )
    what.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        help="replaces one value of the file, dotted key, YAML value; repeatable. A key of a trial (optim.epochs=2) "
        "is fixed, with a list of values searched",
    )
    what.add_argument("--trials", metavar="N", help="trials per data set, the two anchors included (at least 2)")
    what.add_argument("--seed", metavar="N", help="seed of the search and of every trial's training")
    how = parser.add_argument_group("how and where")
    how.add_argument("--name", metavar="NAME", help=f"of the sweep; default: SPACE-yymmdd-hhmmss ({NAME_ALLOWED})")
    how.add_argument("--parallel", metavar="N", help="trials at a time; default: what the machine carries")
    how.add_argument(
        "--address",
        metavar="ADDR",
        help="HOST:PORT of a Ray cluster's head, from one of its nodes; default: this machine alone",
    )
    how.add_argument(
        "--storage",
        metavar="URI",
        help="mirror the journal there, so that --resume NAME --storage URI goes on on another machine: a folder, or "
        "what an installed fsspec plugin serves (s3://...); none: not any more",
    )
    how.add_argument("--tracking-uri", metavar="URI", help="of MLflow; default: sqlite:///mlflow.db in this folder")
    how.add_argument(
        "--dry-run", action="store_true", help="refuse what a start would, print the space and an estimate"
    )
    how.add_argument("--no-report", action="store_true", help="leave the report out")
    again = parser.add_argument_group("going on")
    again.add_argument(
        "--resume",
        metavar="NAME",
        help="go on with runs/NAME as it was set up; only --parallel, --address, --storage, --tracking-uri, "
        "--no-report and a larger --trials may stand beside it",
    )
    again.add_argument(
        "--warm-start",
        metavar="NAME",
        action="append",
        help="learn from the finished trials of runs/NAME as well, a sweep on the same images, probe and objectives; "
        "repeatable",
    )
    parser.add_argument("--version", action="version", version=f"repsim-sweeps {_version()}")
    return parser


def _version() -> str:
    try:
        return importlib.metadata.version("repsim-sweeps")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _unknown(rest: Sequence[str]) -> list[Mistake]:
    """Mistakes for words that mean nothing; the value behind a misspelt flag is part of the same mistake."""
    flags = [f"--{flag}" for flag in (*_VALUES, *_SWITCHES)]
    mistakes, after_flag = [], False
    for text in rest:
        if text.startswith("-"):
            flag = text.partition("=")[0]
            mistakes.append(
                Mistake(
                    where=one_line(flag)[1:-1],
                    key="",
                    problem="is not a known flag",
                    allowed="see --help",
                    suggestion=nearest(flag, flags),
                )
            )
        elif not after_flag:
            near = nearest(text.removesuffix(".yaml"), available_spaces())
            hint = "--space FILE" if near is not None or text.endswith((".yaml", ".yml")) else "flags; see --help"
            mistakes.append(
                Mistake(where="command line", key="", problem=f"{one_line(text)} stands alone", allowed=hint)
            )
        after_flag = text.startswith("-") and "=" not in text
    return mistakes


def _empty(flag: str, value: object) -> list[Mistake]:
    values = value if isinstance(value, list) else [value]
    if any(isinstance(item, str) and not item.strip() for item in values):
        return [Mistake(where=f"--{flag}", key="", problem="is empty")]
    return []


def _whole(flag: str, text: str | None, low: int, high: int, mistakes: list[Mistake]) -> int | None:
    """A whole number in plain digits; None when it was not said, or after a mistake."""
    if text is None or not text.strip():
        return None
    plain = re.fullmatch(r"-?[0-9]{1,12}", text.strip())
    if plain is not None and low <= int(text) <= high:
        return int(text)
    mistakes.append(
        Mistake(where=f"--{flag}", key="", problem=f"{one_line(text)} is not allowed", allowed=f"{low} to {high}")
    )
    return None


def _name_mistakes(flag: str, name: str | None) -> list[Mistake]:
    if name is None or not name.strip():
        return []
    problem = name_problem(name)
    if flag == "name" and name in RESERVED_NAMES:
        problem = f"{name!r} has a meaning of its own for reports"
    return [] if problem is None else [Mistake(where=f"--{flag}", key="", problem=problem, allowed=NAME_ALLOWED)]


def _together(said: dict[str, object]) -> list[Mistake]:
    """What is missing, and what cannot be said in one breath."""
    if "resume" not in said:
        if "space" in said:
            return []
        return [
            Mistake(
                where="--space",
                key="",
                problem="is missing: say what to search",
                allowed=f"a path, one of search_spaces/ ({', '.join(available_spaces())}), or --resume NAME",
            )
        ]
    return [
        Mistake(
            where=f"--{flag}",
            key="",
            problem="cannot change what --resume goes on with",
            allowed="--parallel, --address, --storage, --tracking-uri, --no-report and a larger --trials",
        )
        for flag in _NEW_ONLY
        if flag in said
    ]
