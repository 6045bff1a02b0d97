"""The paper's three claims on your own images: accuracy, similarity and sharpness of every method over outer splits.

    python benchmarks/first_front.py run --data DIR --backbone tf_efficientnet_lite0 --epochs 8 --out busi.jsonl
    python benchmarks/first_front.py table busi.jsonl pbc.jsonl --out docs/results/first_front.md

``run`` trains full, linear_probe and every penalty at every λ on each outer split (paired: same split, same seed) and
appends one line per run, so that it can be stopped and started again. ``table`` chooses λ on val images only (highest
val_cka with val_accuracy >= full - 1 SE), once per method over all splits and once within each split, and prints
means ± SEM and the verdicts. Confidence intervals are paired over splits, with the variance corrected for overlapping
training sets (Nadeau & Bengio 2003: 1/J + n_test/n_train in place of 1/J).
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from many_runs import Row, mean_sem, read_rows, results_file, run_missing

STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0)
PENALTIES = ("repsim", "hcs", "feature_mse")
METHODS = ("full", "linear_probe", *PENALTIES)
RHOS = (1e-4, 5e-4, 2e-3, 1e-2)


def jobs(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """One flat configuration per run, split by split."""
    plain: list[tuple[str, float | None]] = [("full", None), ("linear_probe", None)]
    penalised: list[tuple[str, float | None]] = [(name, value) for name in PENALTIES for value in STRENGTHS]
    return [
        {
            "data": str(arguments.data),
            "data.image_size": arguments.image_size,
            "data.split_seed": split,
            "seed": split,
            "backbone": arguments.backbone,
            "optim.epochs": arguments.epochs,
            "optim.lr": arguments.lr,
            "method": method,
            "strength": strength,
        }
        for split in range(arguments.splits)
        for method, strength in plain + penalised
    ]


def _describe(row: Row) -> str:
    config, values = row["config"], row["values"]
    assert isinstance(config, dict)
    assert isinstance(values, dict)
    strength = "" if config["strength"] is None else f" λ={config['strength']:g}"
    numbers = " ".join(
        f"{name} {values[name]:.3f}" for name in ("val_accuracy", "val_cka", "test_accuracy", "test_cka")
    )
    return f"split {config['data.split_seed']} {config['method']}{strength}: {numbers} ({row['seconds']:.0f} s)"


@dataclass(frozen=True)
class Chosen:
    """The run that stands for a method on one split."""

    strength: float | None
    qualified: bool
    values: Mapping[str, float]


Runs = dict[int, dict[str, dict[float | None, Mapping[str, float]]]]
"""Split → method → λ → values."""


def group(rows: Sequence[Row]) -> tuple[Runs, dict[int, int]]:
    """The runs by split, method and λ, and the number of val images of each split."""
    runs: Runs = {}
    n_val: dict[int, int] = {}
    for row in rows:
        config, values, facts = row["config"], row["values"], row["facts"]
        assert isinstance(config, dict)
        assert isinstance(values, dict)
        assert isinstance(facts, dict)
        split = config["data.split_seed"]
        n_val[split] = facts["n_val"]
        runs.setdefault(split, {}).setdefault(config["method"], {})[config["strength"]] = values
    return dict(sorted(runs.items())), n_val


def choose(rows: Sequence[Row], *, nested: bool) -> dict[int, dict[str, Chosen]]:
    """Split → method → the run chosen on val: within each split (``nested``), or one λ per method by val means."""
    runs, n_val = group(rows)
    pools = [[split] for split in runs] if nested else [list(runs)]
    chosen: dict[int, dict[str, Chosen]] = {split: {} for split in runs}
    for pool in pools:
        full = statistics.fmean(runs[split]["full"][None]["val_accuracy"] for split in pool)
        one_se = (full * (1 - full) / statistics.fmean(n_val[split] for split in pool)) ** 0.5
        for method in METHODS:
            strength, qualified = _best([runs[split][method] for split in pool], full - one_se)
            for split in pool:
                chosen[split][method] = Chosen(strength, qualified, runs[split][method][strength])
    return chosen


def _best(pool: Sequence[Mapping[float | None, Mapping[str, float]]], floor: float) -> tuple[float | None, bool]:
    """The λ of highest mean val_cka among those whose mean val_accuracy reaches the floor; else the most accurate."""

    def mean(strength: float | None, name: str) -> float:
        return statistics.fmean(split[strength][name] for split in pool)

    qualified = [strength for strength in pool[0] if mean(strength, "val_accuracy") >= floor]
    if qualified:
        return max(qualified, key=lambda strength: mean(strength, "val_cka")), True
    return max(pool[0], key=lambda strength: mean(strength, "val_accuracy")), False


@dataclass(frozen=True)
class Verdict:
    """A claim ``mean margin > 0`` over splits: ``low`` and ``high`` bound its 95 % interval."""

    mean: float
    low: float
    high: float
    detectable: float

    @property
    def word(self) -> str:
        if self.low > 0:
            return "holds"
        return "fails" if self.high < 0 else "undecided"


def judge(margins: Sequence[float], test_to_train: float) -> Verdict:
    """Paired t-interval with the corrected variance; ``detectable`` is the margin found with 80 % power."""
    from scipy import stats

    n = len(margins)
    error = (statistics.variance(margins) * (1 / n + test_to_train)) ** 0.5
    quantile = float(stats.t.ppf(0.975, n - 1))
    mean = statistics.fmean(margins)
    power = float(stats.t.ppf(0.8, n - 1))
    return Verdict(mean, mean - quantile * error, mean + quantile * error, (quantile + power) * error)


CLAIMS: tuple[tuple[str, str, Callable[[Mapping[str, float], Mapping[str, float]], float]], ...] = (
    ("similarity at least 30 % above full", "cka - 1.3 cka(full)", lambda a, b: a["test_cka"] - 1.3 * b["test_cka"]),
    (
        "accuracy within 0.99 points of full",
        "accuracy - accuracy(full) + 0.0099",
        lambda a, b: a["test_accuracy"] - b["test_accuracy"] + 0.0099,
    ),
    (
        "sharpness at least 42 % below full",
        "0.58 sharpness(full) - sharpness",
        lambda a, b: 0.58 * b["sharpness"] - a["sharpness"],
    ),
)


def section(rows: Sequence[Row]) -> list[str]:
    """Markdown for one data set."""
    config, facts = rows[0]["config"], rows[0]["facts"]
    assert isinstance(config, dict)
    assert isinstance(facts, dict)
    n = len(group(rows)[0])
    lines = [
        f"## {config['data']}: {config['backbone']}, {config['data.image_size']} px, "
        f"{config['optim.epochs']} epochs, lr {config['optim.lr']:g}",
        "",
        f"{len(rows)} runs; {n} outer splits (train {facts['n_train']}, val {facts['n_val']}, test {facts['n_test']}, "
        f"{facts['n_classes']} classes). Test metrics, mean ± SEM over the n = {n} splits.",
        "",
    ]
    ratio = facts["n_test"] / facts["n_train"]
    ways = (
        ("One λ per method, by val means over the splits", choose(rows, nested=False)),
        ("λ chosen within each split (nothing shared between splits)", choose(rows, nested=True)),
    )
    lines += [f"- {title}, repsim: {summary(chosen, ratio)}" for title, chosen in ways] + [""]
    for title, chosen in ways:
        lines += [f"### {title}", "", *metric_tables(chosen), *verdicts(chosen, ratio)]
    return [*lines, "### Every λ, test means over the splits (not used for any choice)", "", *every_strength(rows), ""]


def metric_tables(chosen: Mapping[int, Mapping[str, Chosen]]) -> list[str]:
    """Accuracy and similarity of the chosen runs, then their sharpness."""
    lines = [
        "| method | λ | accuracy | balanced accuracy | AUC | cka | cka, biased | train NLL |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in METHODS:
        picks = [chosen[split][method] for split in chosen]
        listed = ["-" if p.strength is None else f"{p.strength:g}{'' if p.qualified else '!'}" for p in picks]
        strengths = listed[0] if len(set(listed)) == 1 else ", ".join(listed)
        names = ("test_accuracy", "test_balanced_accuracy", "test_auc", "test_cka", "test_cka_biased", "train_nll")
        numbers = " | ".join(mean_sem([p.values[name] for p in picks]) for name in names)
        lines.append(f"| {method} | {strengths} | {numbers} |")
    lines += ["", "Sharpness (relative at each ρ, headline 5e-4; and one absolute step of 0.05), mean ± SEM:", ""]
    lines += ["| method | " + " | ".join(f"ρ = {rho:g}" for rho in RHOS) + " | absolute |", "|---|---|---|---|---|---|"]
    for method in METHODS:
        picks = [chosen[split][method] for split in chosen]
        curve = [mean_sem([p.values[f"sharpness_rho_{rho:g}"] for p in picks]) for rho in RHOS]
        curve.append(mean_sem([p.values["sharpness_absolute"] for p in picks]))
        lines.append(f"| {method} | " + " | ".join(curve) + " |")
    return [*lines, ""]


def summary(chosen: Mapping[int, Mapping[str, Chosen]], ratio: float) -> str:
    """The paper's three claims about RepSim in one line."""
    found = []
    for claim, _, margin in CLAIMS:
        margins = [margin(chosen[split]["repsim"].values, chosen[split]["full"].values) for split in chosen]
        found.append(f"{claim}: **{judge(margins, ratio).word}**")
    return "; ".join(found)


def verdicts(chosen: Mapping[int, Mapping[str, Chosen]], ratio: float) -> list[str]:
    """The three claims for every penalty against full, paired over the splits."""
    lines = [
        "| method | claim | mean margin | 95 % interval | detectable (80 % power) | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for method in PENALTIES:
        for claim, formula, margin in CLAIMS:
            found = judge([margin(chosen[s][method].values, chosen[s]["full"].values) for s in chosen], ratio)
            lines.append(
                f"| {method} | {claim} ({formula} > 0) | {found.mean:+.4f} | [{found.low:+.4f}, {found.high:+.4f}] "
                f"| {found.detectable:.4f} | **{found.word}** |"
            )
    return [*lines, "", *(f"- {method} against full: {_relative(chosen, method)}" for method in PENALTIES), ""]


def _relative(chosen: Mapping[int, Mapping[str, Chosen]], method: str) -> str:
    def mean(name: str, which: str) -> float:
        return statistics.fmean(chosen[split][which].values[name] for split in chosen)

    cka = 100 * (mean("test_cka", method) / mean("test_cka", "full") - 1)
    points = 100 * (mean("test_accuracy", method) - mean("test_accuracy", "full"))
    sharp = " / ".join(
        f"{100 * (mean(f'sharpness_rho_{rho:g}', method) / mean(f'sharpness_rho_{rho:g}', 'full') - 1):+.0f} %"
        for rho in RHOS
    )
    radii = ", ".join(f"{rho:g}" for rho in RHOS)
    return f"cka {cka:+.0f} %, accuracy {points:+.2f} points, sharpness {sharp} (ρ = {radii})"


def every_strength(rows: Sequence[Row]) -> list[str]:
    """Accuracy / cka of each method at each λ."""
    groups: dict[tuple[str, float | None], list[Mapping[str, float]]] = {}
    for row in rows:
        config, values = row["config"], row["values"]
        assert isinstance(config, dict)
        assert isinstance(values, dict)
        groups.setdefault((config["method"], config["strength"]), []).append(values)
    lines = [
        "| method | " + " | ".join(f"λ = {value:g}" for value in STRENGTHS) + " |",
        "|---" * (1 + len(STRENGTHS)) + "|",
    ]
    for method in PENALTIES:
        cells = []
        for strength in STRENGTHS:
            found = groups.get((method, strength), [])
            accuracy = [values["test_accuracy"] for values in found]
            similarity = [values["test_cka"] for values in found]
            cells.append(f"{statistics.fmean(accuracy):.3f} / {statistics.fmean(similarity):.3f}" if found else "-")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return lines


def table(arguments: argparse.Namespace) -> int:
    """Write the page."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    lines = [
        "# First front: the paper's three claims, measured",
        "",
        "Made by `python benchmarks/first_front.py table` from runs of `python benchmarks/first_front.py run` "
        f"(see its `--help`); commit {commit or 'unknown'}, {datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, "
        "1 thread per run, CPU, fp32.",
        "",
        "λ: highest val_cka among "
        + ", ".join(f"{value:g}" for value in STRENGTHS)
        + " with val_accuracy >= full - 1 SE (binomial, one val set); where none qualifies, the most accurate one, "
        "marked `!`. Selection sees val only; a λ shared by all splits sees, across splits, every image. Intervals are "
        "paired over splits and corrected for overlapping training sets (Nadeau & Bengio 2003); with 5 splits they are "
        "wide.",
        "",
    ]
    for path in arguments.results:
        lines += section(read_rows(path))
    text = "\n".join(lines)
    if arguments.out is None:
        print(text)
    else:
        arguments.out.write_text(text, encoding="utf-8")
        print(arguments.out)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run", help="train what is missing")
    runner.add_argument("--data", required=True, help="SOURCE: a folder with a sub-folder per class, a csv, an npz …")
    runner.add_argument("--backbone", default="tf_efficientnet_lite0")
    runner.add_argument("--image-size", type=int, default=96)
    runner.add_argument("--epochs", type=int, default=8)
    runner.add_argument("--lr", type=float, default=3e-4)
    runner.add_argument("--splits", type=int, default=5)
    runner.add_argument("--slots", type=int, default=max(1, os.cpu_count() or 1), help="runs at a time, 1 thread each")
    runner.add_argument("--out", type=Path, required=True, help="JSON lines, appended to")
    tabulator = commands.add_parser("table", help="choose on val, judge on test")
    tabulator.add_argument("results", type=results_file, nargs="+")
    tabulator.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "table":
        return table(arguments)
    return run_missing(jobs(arguments), arguments.out, arguments.slots, _describe)


if __name__ == "__main__":
    sys.exit(main())
