"""Tables as csv (full precision), Markdown and LaTeX (rounded), from one description."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from reports.confirmed import Estimate, estimates
from reports.fronts import Study, wise_words
from reports.latex import stacked, table_float
from reports.latex import tex_escape as tex_escape
from reports.load import Sweep, records
from reports.values import finite
from repsim.config import ADDING
from repsim.records import METRICS, PARAM_PREFIX, Metric, Stage, Status

FRONT_METRICS: tuple[str, ...] = (
    "val_accuracy", "val_balanced_accuracy", "val_auc", "val_nll", "val_cka", "val_procrustes",
    "test_accuracy", "test_balanced_accuracy", "test_auc", "test_nll", "test_cka", "sharpness", "train_nll",
    "train_seconds",
)  # fmt: skip
"""Metrics beside each front member; objectives that are not among them are put first."""
MISSING = "–"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Raw ``rows`` under ``columns``; ``metrics`` names the metric a column holds, which decides its digits.

    ``printed`` are the columns that LaTeX gets where all would not fit on a page; () is all.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    metrics: Mapping[str, Metric]
    printed: tuple[str, ...] = ()

    def cells(self) -> list[list[str]]:
        """The rows as text, rounded for reading; what is missing is a dash."""
        return [
            [show(value, self.metrics.get(column)) or MISSING for column, value in zip(self.columns, row, strict=True)]
            for row in self.rows
        ]


def show(value: object, metric: Metric | None = None) -> str:
    """A value for reading: three decimals for shares and similarities, three digits otherwise; "" where missing."""
    if value is None or value is pd.NA:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, Estimate):
        return show(value.mean, metric) if value.error is None else _with_error(value.mean, value.error, metric)
    if isinstance(value, list | tuple | dict):
        return json.dumps(value)
    found = finite(value)
    if found is None:
        return ""
    if metric is not None and metric.name == "peak_memory_bytes":
        return f"{found / 2**20:.0f} MiB"
    if metric is not None and metric.unit == "s":
        return f"{found:.1f}"
    if metric is not None and (metric.unit == "fraction" or (metric.per_split and metric.unit in ("", "nats"))):
        return f"{found:.3f}"
    return f"{found:,.0f}" if found == round(found) and abs(found) >= 1000 else f"{found:.3g}"


def _with_error(mean: float, error: float, metric: Metric | None) -> str:
    """``0.812 ± 0.010``: both with the same number of decimals, three digits of the mean at least."""
    text = show(mean, metric)
    if text == f"{mean:.3g}":
        text = f"{mean:#.3g}".rstrip(".")  # which keeps the zeros at the end
    decimals = len(text.partition(".")[2])
    return f"{text} ± {show(error, metric) if 'e' in text else f'{error:.{decimals}f}'}"


def varied_keys(sweep: Sweep, run_ids: Sequence[str]) -> tuple[str, ...]:
    """Configuration keys that do not have one value throughout; method, backbone and strength always lead.

    What is asked for beside the result (derived points, layers) is no difference between trials.
    """
    lead = ("method", "strength", "backbone")
    configs = [sweep.configs[run_id] for run_id in run_ids]
    keys = list(dict.fromkeys(key for config in configs for key in config))
    aside = {*lead, "data", *ADDING}
    varied: set[str] = set()
    alike = [(key, configs[0].get(key)) for key in keys if key not in aside]
    for config in configs:  # trial by trial, for all of its settings lie together in memory
        found = {key for key, first in alike if _differ(config.get(key), first)}
        if found:
            varied |= found
            alike = [(key, first) for key, first in alike if key not in found]
    return (*lead, *(key for key in keys if key in varied))


def _differ(value: object, other: object) -> bool:
    """A number and a truth value differ, though Python has True equal 1."""
    return value is not other and (value != other or isinstance(value, bool) is not isinstance(other, bool))


def searched_runs(trials: pd.DataFrame) -> list[str]:
    """Run ids without confirmations, which differ from what they confirm in the seed alone."""
    return [str(run_id) for run_id in trials.loc[trials["stage"] != Stage.CONFIRM.value, "mlflow_run_id"]]


def shared_settings(sweep: Sweep, run_ids: Sequence[str]) -> dict[str, object]:
    """The rest of the configuration: the keys with one value throughout, and that value."""
    varied = set(varied_keys(sweep, run_ids))
    first = sweep.configs[run_ids[0]] if run_ids else {}
    return {key: value for key, value in first.items() if key not in varied and key != "data"}


def front_table(sweep: Sweep, studies: Sequence[Study]) -> Table:
    """Every front member with its configuration (keys that vary) and its metrics.

    Those of a confirmed front are means over ``n`` fresh seeds ± their standard errors.
    """
    run_ids = searched_runs(sweep.trials)
    varied = varied_keys(sweep, run_ids) if run_ids else ()
    names = list(dict.fromkeys([*(objective.metric for objective in sweep.objectives), *FRONT_METRICS]))
    rows = []
    confirmed = any(study.means for study in studies)
    if confirmed:  # what is reported stands first, what it was chosen by after it
        names = sorted(names, key=lambda name: not name.startswith("test_"))
    for study in studies:
        behind = study.trials["mlflow_run_id"].isin([point.run_id for point in study.members])
        by_run = {row["mlflow_run_id"]: row for row in records(study.trials[behind])}
        for point in study.members:
            row, config, n = by_run[point.run_id], sweep.configs[point.run_id], 1
            if point.repeats is not None:
                row, n = row | estimates(point.repeats), point.repeats.n
            known = (_known(key, config, row) for key in varied)
            counted = (n,) if confirmed else ()
            rows.append((study.data, point.trial_id, *known, *counted, *(row[name] for name in names)))
    caption = f"Front of sweep {sweep.name}. Test metrics are shown, never used for choosing."
    if confirmed:
        caption += (
            " Values are means over n fresh seeds ± one standard error, without ± where no seed changed the value; "
            "n = 1 is the search's own run."
        )
    chosen = [objective.metric for objective in sweep.objectives]
    chosen += [*(name.replace("val_", "test_") for name in chosen if name.startswith("val_")), "sharpness"]
    return Table(
        name="front",
        caption=caption,
        columns=("data", "trial", *varied, *(("n",) if confirmed else ()), *(METRICS[name].label for name in names)),
        rows=tuple(rows),
        metrics={METRICS[name].label: METRICS[name] for name in names},
        printed=(
            *(("data",) if len(studies) > 1 else ()), "trial", *varied, "n",
            *(METRICS[name].label for name in chosen),
        ),
    )  # fmt: skip


def _known(key: str, config: Mapping[str, object], row: Mapping[str, object]) -> object:
    return row[key] if key in ("method", "strength", "backbone") else config.get(key)


def methods_table(sweep: Sweep, studies: Sequence[Study]) -> Table:
    """Per data set, backbone and method: how many trials, how many on the front, the best of each objective."""
    objectives = studies[0].objectives if studies else ()
    rows = []
    for study in studies:
        search = study.trials[study.trials["stage"] == "search"]
        front = {point.run_id for point in study.members}
        for (backbone, method), group in search.groupby(["backbone", "method"], sort=True):
            members = set(group["mlflow_run_id"])
            points = [point for point in study.points if point.eligible and point.run_id in members]
            best = []
            for index, objective in enumerate(objectives):
                values = [point.values[index] for point in points]
                pick = max if objective.direction == "maximize" else min
                best.append(pick(values) if values else None)
            completed = int((group["status"] == Status.COMPLETED.value).sum())
            on_front = sum(point.run_id in front for point in points)
            rows.append((study.data, backbone, method, len(group), completed, on_front, *best))
    labels = tuple(f"best {METRICS[objective.metric].label}" for objective in objectives)
    return Table(
        name="methods",
        caption="Search trials per method. The best of several trials flatters methods that were tried more often.",
        columns=("data", "backbone", "method", "trials", "completed", "on the front", *labels),
        rows=tuple(rows),
        metrics={label: METRICS[objective.metric] for label, objective in zip(labels, objectives, strict=True)},
    )


MOST_ROWS = 1_000
"""Longer tables are slow to scroll, and nobody reads them to the end; trials.parquet has every trial."""


def trials_table(sweep: Sweep, study: Study) -> Table:
    """The trials of a data set, compact: all of them, or the front, the anchors and the first ones up to MOST_ROWS."""
    front = {point.run_id for point in study.members}
    special = front | sweep.anchors
    first = set(study.trials["mlflow_run_id"].head(max(0, MOST_ROWS - len(special))))
    kept = study.trials[study.trials["mlflow_run_id"].isin(special | first)]
    names = [objective.metric for objective in study.objectives]
    names += [name for name in ("val_accuracy", "val_balanced_accuracy", "val_cka", "sharpness") if name not in names]
    rows = []
    for row in records(kept):
        run_id = row["mlflow_run_id"]
        state = f"{row['status']}, infeasible" if row["feasible"] is False else row["status"]
        roles = [name for name, ids in (("front", front), ("anchor", sweep.anchors)) if run_id in ids]
        rows.append(
            (
                row["trial_id"], row["stage"], state, ", ".join(roles), _display(row), row["strength"], row["backbone"],
                row.get(f"{PARAM_PREFIX}optim.lr"), row["seed"],
                *(row[name] for name in names), row["train_seconds"],
            )
        )  # fmt: skip
    labels = [METRICS[name].label for name in names]
    return Table(
        name="trials",
        caption="" if len(kept) == len(study.trials) else _cut_words(len(kept), len(study.trials)),
        columns=(
            "trial", "stage", "status", "role", "method", "strength", "backbone", "optim.lr", "seed",
            *labels, METRICS["train_seconds"].label,
        ),
        rows=tuple(rows),
        metrics={METRICS[name].label: METRICS[name] for name in [*names, "train_seconds"]},
    )  # fmt: skip


def _cut_words(shown: int, total: int) -> str:
    return (
        f"Of {total:,} trials {shown:,} are listed: the front, the anchors, and the first ones. trials.parquet has all."
    )


def _display(row: Mapping[str, object]) -> str:
    return f"{row['method']}{wise_words(finite(row.get(f'{PARAM_PREFIX}wise_alpha')))}"


def failures_table(study: Study) -> Table:
    """Failed, pruned and waiting trials with their reasons, in full."""
    ends = (Status.FAILED.value, Status.PRUNED.value, Status.WAITING.value)
    names = ["trial_id", "status", "attempts", "method", "backbone", "reason"]
    rows = [tuple(row.values()) for row in records(study.trials.loc[study.trials["status"].isin(ends), names])]
    columns = ("trial", "status", "attempts", "method", "backbone", "reason")
    total, rows = len(rows), rows[:MOST_ROWS]
    cut = f"The first {len(rows):,} of {total:,}; trials.parquet has all." if len(rows) < total else ""
    return Table(name="failures", caption=cut, columns=columns, rows=tuple(rows), metrics={})


def to_csv(table: Table) -> str:
    """Comma separated, one header line, values in full precision, missing ones empty.

    A standard error has a column of its own behind its mean's, ``NAME ±``.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    estimated = [any(isinstance(value, Estimate) for value in column) for column in zip(*table.rows, strict=True)]
    spread = estimated or [False] * len(table.columns)
    names = zip(table.columns, spread, strict=True)
    writer.writerow([cell for name, two in names for cell in ((name, f"{name} ±") if two else (name,))])
    for row in table.rows:
        cells = zip(row, spread, strict=True)
        writer.writerow([cell for value, two in cells for cell in _csv_cells(value, two)])
    return buffer.getvalue()


def _csv_cells(value: object, two: bool) -> tuple[object, ...]:
    """A value, and in a column of estimates its standard error."""
    if isinstance(value, Estimate):
        return (_csv_cell(value.mean), _csv_cell(value.error))
    return (_csv_cell(value), "") if two else (_csv_cell(value),)


def _csv_cell(value: object) -> object:
    if isinstance(value, str):
        return value.replace("\r", " ")  # Python before 3.13 writes it without quotes, and readers end the row there
    return show(value) if isinstance(value, list) or show(value) == "" else value


def to_markdown(table: Table) -> str:
    """A pipe table; what Markdown would read as a column, an element, a link or an emphasis is escaped."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(markdown_escape(cell) for cell in cells) + " |"

    lines = [line(table.columns), "|" + " --- |" * len(table.columns), *(line(cells) for cells in table.cells())]
    return "\n".join([*lines, "", markdown_escape(table.caption), ""])


def markdown_escape(text: str) -> str:
    """``text`` on one line, as Markdown shows it literally."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"[\\|`*\[\]]", r"\\\g<0>", flat)


def to_latex(table: Table) -> str:
    """A booktabs table, no wider than the page (what it needs: reports.latex)."""
    kept = [index for index, column in enumerate(table.columns) if not table.printed or column in table.printed]
    columns = [table.columns[index] for index in kept]
    sides = ["r" if column in table.metrics else "l" for column in columns]
    cells = [[row[index] for index in kept] for row in table.cells()]
    tabular = [
        r"\begin{tabular}{" + "".join(sides) + "}",
        r"\toprule",
        " & ".join(stacked(column, side) for column, side in zip(columns, sides, strict=True)) + r" \\",
        r"\midrule",
        *(" & ".join(tex_escape(cell) for cell in row) + r" \\" for row in cells),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return table_float(tabular, caption=table.caption, label=f"tab:{table.name}", heads=columns, cells=cells)


def write_tables(tables: Sequence[Table], folder: Path) -> list[Path]:
    """Each table as csv, md and tex."""
    written = []
    for table in tables:
        for suffix, render in (("csv", to_csv), ("md", to_markdown), ("tex", to_latex)):
            path = folder / f"{table.name}.{suffix}"
            path.write_text(render(table), encoding="utf-8")
            written.append(path)
    return written
