"""The table of faults_vs_ray.py, for the terminal and as a page."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version

from fault_sides import HERE, SIDES


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One fault on one side."""

    finished: int
    lost: int
    repeated: int
    epochs_again: int
    resumed: int
    recovered: float | None
    fell_silent: bool
    zombies: int
    shortcomings: list[str] = field(default_factory=list)


Outcomes = dict[str, dict[str, list[Outcome]]]
"""By fault and by side."""

HEADINGS = (
    "fault",
    "times",
    "finished",
    "lost",
    "repeated",
    "epochs again",
    "resumed",
    "recovered s",
    "as asked",
    "zombies",
)


def rows(outcomes: Outcomes) -> list[list[str]]:
    """A row per fault, each cell for both sides."""
    found = []
    for name, sides in outcomes.items():
        cells = [[_cell(heading, sides[side.name]) for side in SIDES] for heading in HEADINGS[1:]]
        found.append([name, *(" / ".join(pair) for pair in cells)])
    return found


def _cell(heading: str, runs: Sequence[Outcome]) -> str:
    if not runs:
        return "0" if heading == "times" else "-"
    if heading == "times":
        return str(len(runs))
    if heading == "as asked":
        return str(sum(not run.shortcomings for run in runs))
    if heading == "recovered s":
        seconds = [run.recovered for run in runs if run.recovered is not None]
        never = sum(run.recovered is None and run.fell_silent for run in runs)
        words = [f"{statistics.median(seconds):.1f}"] if seconds else []
        words += [f"({never} never)" if seconds else "never"] if never else []
        return " ".join(words) or "-"
    field_name = heading.replace(" ", "_")
    return str(sum(getattr(run, field_name) for run in runs))


def print_table(table: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in [HEADINGS, *table]) for column in range(len(HEADINGS))]
    for row in [HEADINGS, *table]:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def markdown(table: Sequence[Sequence[str]], notes: Sequence[str], last: str, command: str, definitions: str) -> str:
    """The page: where and how it was measured, the table, what fell short."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True, check=False
    ).stdout.strip()
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    lines = [
        "# What is lost when something is killed",
        "",
        f"Measured on {today}, commit {commit}, {os.cpu_count()} CPU cores, {platform.platform()}, "
        f"Python {platform.python_version()}, {_versions()}. Command: `{command}`.",
        "",
        "Cells are ours / plain Ray Tune with OptunaSearch and MLflowLoggerCallback (`benchmarks/plain_ray.py`).",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|---" * len(HEADINGS) + "|",
        *("| " + " | ".join(row) + " |" for row in table),
        "",
        f"`{last}`",
        "",
        "```",
        definitions,
        "```",
        "",
        "What fell short, run by run:",
        "",
        *(f"- {note}" for note in notes or ["nothing"]),
    ]
    return "\n".join(lines) + "\n"


def _versions() -> str:
    return ", ".join(f"{name} {version(name)}" for name in ("ray", "optuna", "mlflow"))
