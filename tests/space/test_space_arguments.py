"""The command line: what it accepts, and one line for every mistake."""

from __future__ import annotations

import dataclasses
from datetime import datetime

import pytest

from repsim.errors import RequestError
from sweeps.arguments import Arguments, default_name, parse_arguments
from sweeps.space_notes import NAME


def test_the_smallest_command() -> None:
    assert parse_arguments(["--space", "pareto.yaml"]) == Arguments(space="pareto.yaml")
    assert parse_arguments(["--resume", "a"]) == Arguments(resume="a")


def test_every_flag() -> None:
    argv = ["--space", "x", "--set", "a=1", "--set", "b=[1, 2]", "--data", "p", "--data", "q", "--name", "n.1"]
    argv += [
        "--trials",
        "7",
        "--parallel",
        "2",
        "--seed",
        "0",
        "--address",
        "h:1",
        "--storage",
        "s",
        "--tracking-uri",
        "u",
    ]
    assert parse_arguments([*argv, "--dry-run", "--no-report"]) == Arguments(
        space="x",
        overrides=("a=1", "b=[1, 2]"),
        data=("p", "q"),
        name="n.1",
        trials=7,
        parallel=2,
        seed=0,
        address="h:1",
        storage="s",
        tracking_uri="u",
        dry_run=True,
        report=False,
    )


def test_arguments_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        Arguments().space = "x"  # type: ignore[misc]


def test_what_may_stand_beside_resume() -> None:
    argv = ["--resume", "a", "--parallel", "2", "--address", "b", "--tracking-uri", "c", "--trials", "9", "--no-report"]
    found = parse_arguments(argv)
    assert (found.parallel, found.address, found.tracking_uri, found.trials, found.report) == (2, "b", "c", 9, False)


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        ([], r"^--space: is missing: say what to search; allowed: a path, one of search_spaces/ \(.*pareto.*--resume"),
        (["--spaec", "pareto"], r"^--spaec: is not a known flag; allowed: see --help; did you mean '--space'\?$"),
        (["--space", "a", "--trails=3"], r"^--trails: is not a known flag.*did you mean '--trials'\?$"),
        (["--space", "a", "--para", "3"], r"^--para: is not a known flag"),
        (["--space", "a", "-x"], "^-x: is not a known flag"),
        (["--space"], "^--space: needs a value$"),
        (["--space", "a", "--dry-run=3"], "^--dry-run: takes no value$"),
        (["--space", ""], "^--space: is empty$"),
        (["--space", "a", "--data", " "], "^--data: is empty$"),
        (["--space", "a", "extra"], "^command line: 'extra' stands alone; allowed: flags; see --help$"),
        (["pareto.yaml"], "'pareto.yaml' stands alone; allowed: --space FILE"),
        (["--space", "a", "--trials", "0"], "^--trials: '0' is not allowed; allowed: 1 to 100000$"),
        (["--space", "a", "--trials", "many"], "^--trials: 'many' is not allowed"),
        (["--space", "a", "--trials", "2.5"], "^--trials: '2.5' is not allowed"),
        (["--space", "a", "--trials", "٣"], "^--trials: '٣' is not allowed"),
        (["--space", "a", "--parallel", "0"], "^--parallel: '0' is not allowed"),
        (["--space", "a", "--seed", "-1"], "^--seed: '-1' is not allowed; allowed: 0 to 4294967295$"),
        (["--space", "a", "--name", "a/b"], "^--name: 'a/b' cannot be a name; allowed: letters, digits"),
        (["--space", "a", "--name", "x" * 65], "^--name: 'x.* cannot be a name"),
        (["--space", "a", "--name", "latest"], "^--name: 'latest' has a meaning of its own for reports"),
        (["--space", "a", "--warm-start", "b/c"], "^--warm-start: 'b/c' cannot be a name; allowed: letters, digits"),
        (["--resume", "a", "--warm-start", "b"], "^--warm-start: cannot change what --resume goes on with"),
        (["--resume", "../x"], "^--resume: '../x' cannot be a name"),
        (["--resume", "a", "--space", "b"], "^--space: cannot change what --resume goes on with; allowed: --parallel"),
        (["--resume", "a", "--seed", "0"], "^--seed: cannot change what --resume goes on with"),
        (["--resume", "a", "--set", "a=1"], "^--set: cannot change what --resume goes on with"),
        (["--resume", "a", "--dry-run"], "^--dry-run: cannot change what --resume goes on with"),
    ],
)
def test_mistakes(argv: list[str], match: str) -> None:
    with pytest.raises(RequestError, match=match):
        parse_arguments(argv)


def test_every_mistake_at_once() -> None:
    with pytest.raises(RequestError) as caught:
        parse_arguments(["--spce", "a", "--trials", "0", "--seed", "x", "--name", "a b", "--warm-start", "c d"])
    where = [mistake.where for mistake in caught.value.mistakes]
    assert where == ["--spce", "--trials", "--seed", "--name", "--warm-start"]


def test_a_search_can_start_from_several_others() -> None:
    found = parse_arguments(["--space", "a", "--warm-start", "b", "--warm-start", "c", "--warm-start", "b"])
    assert found.warm_start == ("b", "c")
    assert parse_arguments(["--space", "a"]).warm_start == ()


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--help", "--version"):
        with pytest.raises(SystemExit, match="0"):
            parse_arguments([flag])
    text = capsys.readouterr().out
    for wanted in ("examples:", "exit codes:", "130", "runs/NAME/", "--resume", "repsim-sweeps"):
        assert wanted in text


def test_default_names() -> None:
    now = datetime(2026, 1, 15, 10, 15, 0)
    assert default_name("pareto", now) == "pareto-260115-101500"
    longest = default_name("x" * 64, now)
    assert NAME.fullmatch(longest)
    assert len(longest) == 64
