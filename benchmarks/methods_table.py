"""Every method at an equal budget on your own images: accuracy, similarity and sharpness, over outer splits.

    python benchmarks/methods_table.py run --data DIR --out busi.jsonl
    python benchmarks/methods_table.py table busi.jsonl pbc.jsonl --out docs/results/methods.md

Equal budget: every method gets the same epochs and ``TRIES`` configurations, which differ in what matters most to it (λ
for penalties, the learning rate for the others, the target where similarity is asked for). ``run`` trains them on each
outer split (paired: same split, same seed), one JSON line a run, and can be stopped and started again. ``table``
chooses one configuration per method by val means over the splits: of those within one standard error (binomial, one
val set) of the method's most accurate, the one of highest val_cka. The points of ``wise`` (weights between the
pretrained and the finetuned) are chosen in the same way. Test metrics are reported, mean ± SEM over splits; the
difference to full finetuning with a 95 % interval paired over splits and corrected for overlapping training sets
(Nadeau & Bengio 2003). Whatever a backbone cannot take is listed with the reason.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from many_runs import Flat, Row, mean_sem, read_rows, results_file, run_missing

from repsim.catalogue import HEADS, PENALTIES, WRAPPERS
from repsim.front import nondominated

TRIES = 2
STRENGTHS = (1.0, 10.0)
TARGETS = (0.95, 0.8)
LEARNING_RATES: Mapping[str, tuple[float, float]] = {
    "full": (1e-4, 3e-4),
    "partial": (3e-4, 1e-3),
    "bitfit": (1e-3, 1e-2),
    "norm_only": (1e-3, 1e-2),
    "lora": (1e-3, 5e-3),
    "adaptformer": (1e-3, 5e-3),
    "vpt": (1e-2, 1e-1),
    "lp_ft": (1e-4, 3e-4),
}
WISE = "wise"
SHOWN = ("test_accuracy", "test_balanced_accuracy", "test_auc", "test_nll", "test_cka", "test_knn_overlap", "sharpness")
AXES = ("accuracy", "cka")


def cases() -> list[tuple[str, str, dict[str, object]]]:
    """Label, setting in words, and flat keys: the probe once, everything else ``TRIES`` times."""
    found: list[tuple[str, str, dict[str, object]]] = [("linear_probe", "-", {"method": "linear_probe"})]
    for name, rates in LEARNING_RATES.items():
        found += [(name, f"lr {rate:g}", {"method": name, "optim.lr": rate}) for rate in rates]
    for name in PENALTIES:
        found += [(name, f"λ {value:g}", {"method": name, "strength": value}) for value in STRENGTHS]
    found += [("repsim, target", f"cka {c:g}", {"method": "repsim", "strength.target_cka": c}) for c in TARGETS]
    extras = {f"full, {info.title}": info.setting.split(": ") for info in WRAPPERS.values()}
    extras |= {f"full, {name} head": ["head", name] for name in HEADS if name != "linear"}
    for label, (key, value) in extras.items():
        plain = {"method": "full", key: value}
        found += [(label, f"lr {rate:g}", plain | {"optim.lr": rate}) for rate in LEARNING_RATES["full"]]
    for rate in LEARNING_RATES["full"]:
        found.append((WISE, f"lr {rate:g}", {"method": "full", "optim.lr": rate, "measure.wise": True}))
    return found


def jobs(arguments: argparse.Namespace) -> list[Flat]:
    """One flat configuration per run, split by split."""
    common = {
        "data": str(arguments.data),
        "data.image_size": arguments.image_size,
        "data.fractions": arguments.fractions,
        "backbone": arguments.backbone,
        "optim.epochs": arguments.epochs,
    }
    return [
        common | {"data.split_seed": split, "seed": split} | flat
        for split in range(arguments.splits)
        for label, _, flat in cases()
        if not arguments.only or label in arguments.only
    ]


def describe(row: Row) -> str:
    """One run in a line."""
    config = cast(Mapping[str, object], row["config"])
    label = f"split {config['data.split_seed']} {' '.join(_name_of(config))}"
    if "refused" in row:
        return f"{label}: {row['refused']}"
    values = cast(Mapping[str, float], row["values"])
    numbers = " ".join(f"{name} {values[name]:.3f}" for name in ("val_accuracy", "val_cka", "test_accuracy"))
    return f"{label}: {numbers} ({row['seconds']:.0f} s)"


def _name_of(config: Mapping[str, object]) -> tuple[str, str]:
    """Label and setting of the case that a run's configuration belongs to."""
    own = set().union(*(flat for _, _, flat in cases()))
    asked = {key: value for key, value in config.items() if key in own}
    return next((label, setting) for label, setting, flat in cases() if flat == asked)


@dataclass
class Setting:
    """One configuration of a method on every split it ran on."""

    label: str
    words: str
    by_split: dict[int, Mapping[str, float]] = field(default_factory=dict)

    def mean(self, metric: str) -> float:
        """Over the splits."""
        return statistics.fmean(values[metric] for values in self.by_split.values())


@dataclass(frozen=True)
class Study:
    """One data set: its settings by method, what was refused, and one row for the facts."""

    settings: Mapping[str, Sequence[Setting]]
    refused: Mapping[str, str]
    example: Row

    @property
    def facts(self) -> Mapping[str, float]:
        return cast(Mapping[str, float], self.example["facts"])


def read_study(path: Path) -> Study:
    """Group a file's runs; a trial's derived points become settings of ``wise``."""
    found: dict[tuple[str, str], Setting] = {}
    refused: dict[str, str] = {}
    example: Row | None = None
    for row in read_rows(path):
        config = cast(Mapping[str, object], row["config"])
        label, words = _name_of(config)
        split = int(str(config["data.split_seed"]))
        if "refused" in row:
            refused[label] = str(row["refused"])
            continue
        example = row
        for point_words, values in _points(label, words, row):
            found.setdefault((label, point_words), Setting(label, point_words)).by_split[split] = values
    if example is None:
        raise ValueError(f"{path} holds no run that was trained")
    splits = {split for setting in found.values() for split in setting.by_split}
    settings: dict[str, list[Setting]] = {}
    for setting in found.values():
        if set(setting.by_split) == splits:  # a setting that broke down on some split stands for nothing
            settings.setdefault(setting.label, []).append(setting)
        else:
            refused[f"{setting.label}, {setting.words}"] = f"only {len(setting.by_split)} of {len(splits)} splits"
    return Study(settings, refused, example)


def _points(label: str, words: str, row: Row) -> Iterator[tuple[str, Mapping[str, float]]]:
    if label != WISE:
        yield words, cast(Mapping[str, float], row["values"])
    for point in cast(Sequence[Mapping[str, float | Mapping[str, float]]], row["derived"]):
        if point["alpha"] != 0:  # the linear probe, which has a row of its own
            yield f"{words}, α {point['alpha']:g}", cast(Mapping[str, float], point["values"])


def choose(settings: Sequence[Setting], n_val: float) -> Setting:
    """The setting that stands for a method, by val means alone."""
    best = max(setting.mean("val_accuracy") for setting in settings)
    floor = best - (best * (1 - best) / n_val) ** 0.5
    return max(
        (setting for setting in settings if setting.mean("val_accuracy") >= floor),
        key=lambda setting: (setting.mean("val_cka"), setting.mean("val_accuracy")),
    )


def difference(setting: Setting, other: Setting, metric: str, test_to_train: float) -> str:
    """``+0.012 [-0.020, +0.044]``, paired over the splits."""
    from scipy import stats

    margins = [setting.by_split[split][metric] - other.by_split[split][metric] for split in setting.by_split]
    mean, n = statistics.fmean(margins), len(margins)
    if n < 2:
        return f"{mean:+.3f}"
    half = float(stats.t.ppf(0.975, n - 1)) * (statistics.variance(margins) * (1 / n + test_to_train)) ** 0.5
    return f"{mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}]"


def section(study: Study, picture: str) -> list[str]:
    """Markdown for one data set."""
    facts, config = study.facts, cast(Mapping[str, object], study.example["config"])
    chosen = {label: choose(settings, facts["n_val"]) for label, settings in study.settings.items()}
    front = dict(zip(chosen, _on_front(list(chosen.values())), strict=True))
    full, ratio = chosen["full"], facts["n_test"] / facts["n_train"]
    n = len(full.by_split)
    lines = [
        f"## {config['data']}: {config['backbone']}, {config['data.image_size']} px, {config['optim.epochs']} epochs",
        "",
        f"n = {n} outer splits (train {facts['n_train']}, val {facts['n_val']}, test {facts['n_test']}, "
        f"{facts['n_classes']} classes), {sum(map(len, study.settings.values()))} settings. Test metrics, mean ± SEM "
        "over the splits; ▲: not dominated in mean val accuracy and val cka.",
        "",
        f"![test accuracy against similarity]({picture})",
        "",
        "| method | setting | | accuracy | balanced | AUC | NLL | cka | kNN overlap | sharpness | "
        "accuracy − full | cka − full |",
        "|---" * 12 + "|",
    ]
    for label, setting in sorted(chosen.items(), key=lambda item: -item[1].mean("test_cka")):
        numbers = [mean_sem([values[name] for values in setting.by_split.values()]) for name in SHOWN]
        numbers += [difference(setting, full, f"test_{axis}", ratio) if label != "full" else "-" for axis in AXES]
        lines.append(f"| {label} | {setting.words} | {'▲' if front[label] else ''} | " + " | ".join(numbers) + " |")
    lines += ["", *every_setting(study), *targets(study)]
    if study.refused:
        lines += ["Not measured:", "", *(f"- {label}: {why}" for label, why in study.refused.items()), ""]
    return lines


def _on_front(settings: Sequence[Setting]) -> list[bool]:
    points = [[setting.mean(f"val_{axis}") for axis in AXES] for setting in settings]
    return nondominated(points, ["maximize", "maximize"])


def every_setting(study: Study) -> list[str]:
    """Test accuracy and cka of everything that ran."""
    lines = ["<details><summary>Every setting: test accuracy / cka (not used for any choice)</summary>", ""]
    lines += ["| method | settings |", "|---|---|"]
    for label, settings in study.settings.items():
        cells = [f"{s.words}: {s.mean('test_accuracy'):.3f} / {s.mean('test_cka'):.3f}" for s in settings]
        lines.append(f"| {label} | " + "; ".join(cells) + " |")
    return [*lines, "", "</details>", ""]


def targets(study: Study) -> list[str]:
    """What was asked for and what came of it."""
    lines = ["| asked for | val cka | test cka | test accuracy |", "|---|---|---|---|"]
    for setting in study.settings.get("repsim, target", ()):
        names = ("val_cka", "test_cka", "test_accuracy")
        numbers = [mean_sem([values[name] for values in setting.by_split.values()]) for name in names]
        lines.append(f"| {setting.words} | " + " | ".join(numbers) + " |")
    return [*lines, ""] if len(lines) > 2 else []


def draw(study: Study, path: Path) -> None:
    """Chosen settings as test means with SEM, and the line of ``wise``."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "methods"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    chosen = {label: choose(settings, study.facts["n_val"]) for label, settings in study.settings.items()}
    front = _on_front(list(chosen.values()))
    for (label, setting), member in zip(chosen.items(), front, strict=True):
        columns = [[values[f"test_{axis}"] for values in setting.by_split.values()] for axis in ("cka", "accuracy")]
        (x, y), n = [statistics.fmean(column) for column in columns], len(columns[0])
        x_sem, y_sem = [statistics.stdev(column) / n**0.5 if n > 1 else 0.0 for column in columns]
        axes.errorbar(x, y, xerr=x_sem, yerr=y_sem, fmt="^" if member else "o", color="C3" if member else "0.55", ms=5)
        axes.annotate(label, (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7)
    lines: dict[str, list[Setting]] = {}
    for setting in study.settings.get(WISE, ()):
        lines.setdefault(setting.words.split(",")[0], []).append(setting)
    for words, points in lines.items():
        ends = [setting for setting in study.settings["full"] if setting.words == words]
        path_of = sorted(points, key=lambda setting: float(setting.words.rsplit(" ", 1)[1])) + ends
        axes.plot([s.mean("test_cka") for s in path_of], [s.mean("test_accuracy") for s in path_of], ".-", lw=0.8)
    axes.set_xlabel("similarity to the pretrained features (test cka)")
    axes.set_ylabel("test accuracy")
    axes.set_title("▲ not dominated on val; lines: weights between pretrained and finetuned (wise)", fontsize=9)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def table(arguments: argparse.Namespace) -> int:
    """Write the page and its pictures."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    lines = [
        "# Every method at an equal budget",
        "",
        "Made by `python benchmarks/methods_table.py table` from runs of `python benchmarks/methods_table.py run`; "
        f"commit {commit or 'unknown'}, {datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, CPU, fp32, 1 thread a run.",
        "",
        f"Every method had the same epochs and {TRIES} configurations: λ {STRENGTHS[0]:g} and {STRENGTHS[1]:g} for "
        "penalties (learning rate 3e-4), two learning rates for what has no λ, two targets where a similarity is "
        "asked for; the linear probe has nothing to try. One was chosen per method by val means: of those within one "
        "standard error of the most accurate, the one of highest cka. Intervals are paired over splits and corrected "
        "for overlapping training sets (Nadeau & Bengio 2003); three splits make them wide, and a difference whose "
        "interval holds 0 is none that these runs can tell from luck. Sharpness of different heads is not comparable.",
        "",
    ]
    for path in arguments.results:
        study = read_study(path)
        picture = arguments.out.with_name(f"{arguments.out.stem}_{path.stem}.svg")
        draw(study, picture)
        lines += section(study, picture.name)
    arguments.out.write_text("\n".join(lines), encoding="utf-8")
    print(arguments.out)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run", help="train what is missing")
    runner.add_argument("--data", required=True, help="SOURCE: a folder with a sub-folder per class, a csv, an npz …")
    runner.add_argument("--backbone", default="tf_efficientnet_lite0")
    runner.add_argument("--image-size", type=int, default=64)
    runner.add_argument("--epochs", type=int, default=4)
    runner.add_argument("--fractions", type=float, nargs=3, default=[0.6, 0.2, 0.2], help="shares of train, val, test")
    runner.add_argument("--splits", type=int, default=3)
    runner.add_argument("--only", nargs="*", metavar="LABEL", help="these methods alone")
    runner.add_argument("--slots", type=int, default=max(1, os.cpu_count() or 1), help="runs at a time, 1 thread each")
    runner.add_argument("--out", type=Path, required=True, help="JSON lines, appended to")
    tabulator = commands.add_parser("table", help="choose on val, report test")
    tabulator.add_argument("results", type=results_file, nargs="+")
    tabulator.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "table":
        return table(arguments)
    return run_missing(jobs(arguments), arguments.out, arguments.slots, describe)


if __name__ == "__main__":
    sys.exit(main())
