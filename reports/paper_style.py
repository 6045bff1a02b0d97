"""Methods against data sets, as a paper prints them: which configuration stands for a method, its values, the marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reports.confirmed import SEVERAL, Estimate
from reports.fronts import Point, Study
from reports.load import Sweep, records
from reports.paper_tables import show
from reports.values import finite
from repsim.catalogue import ADAPTERS, method_names, parse_method
from repsim.records import METRICS, PER_SPLIT, Metric, Objective, Stage

BEST, SECOND = "best", "second"
_ACCURACIES = ("accuracy", "balanced_accuracy", "auc")
_SHARPNESS = "sharpness"
_FIRST = ("linear_probe", "full")


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A column of every data set; ``name`` is without its split."""

    name: str
    label: str

    def metric(self, split: str) -> Metric:
        """The metric on ``val`` or ``test`` images; the one there is, where it has no split."""
        return METRICS[f"{split}_{self.name}" if self.name in PER_SPLIT else self.name]

    @property
    def is_similarity(self) -> bool:
        """Whether it compares with the pretrained features."""
        return self.name not in _ACCURACIES and not self.name.startswith(_SHARPNESS)

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return {"maximize": " ↑", "minimize": " ↓"}.get(self.metric("val").direction or "", "")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What stands for a method on one data set and backbone.

    ``confirmed``: test metrics over ``n`` fresh seeds; otherwise val metrics of the search's own run, n = 1. ``values``
    and ``marks`` (best or second) are by the measure's name; what is not known, or not marked, is not there.
    """

    trial_id: str
    strength: float | None
    head: str
    confirmed: bool
    n: int
    values: Mapping[str, Estimate]
    marks: Mapping[str, str]

    @property
    def split(self) -> str:
        """Which images the values are of."""
        return "test" if self.confirmed else "val"

    def shown(self, measure: Measure) -> str:
        """A value for reading, with its standard error; "" where it is not known."""
        return show(self.values.get(measure.name), measure.metric(self.split))


@dataclass(frozen=True, kw_only=True)
class Row:
    """A method on a backbone, with an entry for each data set that has one."""

    backbone: str
    method: str
    entries: Mapping[str, Entry]


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """``rows`` stand backbone by backbone."""

    data_sets: tuple[str, ...]
    measures: tuple[Measure, ...]
    rows: tuple[Row, ...]
    caption: str

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every entry, row by row."""
        return tuple(entry for row in self.rows for entry in row.entries.values())

    @property
    def counted(self) -> bool:
        """Whether a number of seeds stands beside the values."""
        return any(entry.confirmed for entry in self.entries)

    @property
    def backbones(self) -> tuple[str, ...]:
        """In the order of the rows."""
        return tuple(dict.fromkeys(row.backbone for row in self.rows))


def paper_table(sweep: Sweep, studies: Sequence[Study]) -> PaperTable | None:
    """The table of a sweep; None where no trial has completed."""
    measures = choose_measures(sweep, studies)
    found: dict[tuple[str, str], dict[str, Entry]] = {}
    for study in studies:
        search = study.trials[study.trials["stage"] == Stage.SEARCH.value]
        for backbone, method in search[["backbone", "method"]].drop_duplicates().itertuples(index=False):
            found.setdefault((str(backbone), str(method)), {})
    chosen = {study.data: representatives(study) for study in studies}
    for study in studies:
        ids = [point.run_id for point in chosen[study.data].values()]
        standing = study.trials[study.trials["mlflow_run_id"].isin(ids)]
        rows = {row["mlflow_run_id"]: row for row in records(standing)}
        block = {
            place: _entry(point, rows[point.run_id], measures, sweep) for place, point in chosen[study.data].items()
        }
        for place, entry in _marked(block, measures).items():
            found[place][study.data] = entry
    if not any(found.values()):
        return None
    known = {name: position for position, name in enumerate((*_FIRST, *method_names()))}
    order = sorted(found, key=lambda place: (place[0], known.get(place[1], len(known)), place[1]))
    table = PaperTable(
        data_sets=tuple(study.data for study in studies),
        measures=measures,
        rows=tuple(Row(backbone=place[0], method=place[1], entries=found[place]) for place in order),
        caption="",
    )
    return replace(table, caption=caption(sweep, studies, table))


def choose_measures(sweep: Sweep, studies: Sequence[Study]) -> tuple[Measure, ...]:
    """Accuracy, similarity and sharpness, each as the objectives have it; balanced accuracy too where it matters."""
    asked = [objective.metric.removeprefix("val_") for objective in sweep.objectives]
    accuracy = next((name for name in asked if name in _ACCURACIES), "accuracy")
    similar = [name for name in asked if name in PER_SPLIT and METRICS[f"val_{name}"].direction == "maximize"]
    similarity = next((name for name in similar if name not in _ACCURACIES), "cka")
    sharpness = next((name for name in asked if name.startswith(_SHARPNESS)), _SHARPNESS)
    names = [accuracy, similarity, sharpness]
    if accuracy == "accuracy" and any(_imbalanced(sweep, study) for study in studies):
        names.insert(1, "balanced_accuracy")
    labels = [METRICS[f"val_{name}" if name in PER_SPLIT else name].label.removeprefix("val ") for name in names]
    return tuple(Measure(name=name, label=label) for name, label in zip(names, labels, strict=True))


def _imbalanced(sweep: Sweep, study: Study) -> bool:
    for run_id in study.trials["mlflow_run_id"]:
        facts = sweep.facts[run_id]
        largest, smallest = (finite(facts.get(f"{which}_class_fraction")) for which in ("largest", "smallest"))
        if largest is not None and smallest is not None:
            return largest > 2 * smallest
    return False


def representatives(study: Study) -> dict[tuple[str, str], Point]:
    """The configuration that stands for each (backbone, method), chosen by val metrics alone.

    Those with fresh seeds come first (with several before those with one), each at its means; within them the rule of
    :func:`represents`. Only completed, feasible search trials take part; points between weights are left out.
    """
    pools: dict[tuple[str, str], list[Point]] = {}
    for point in (*study.means, *study.points):
        if point.eligible and point.derived_from is None:
            pools.setdefault((point.backbone, point.method), []).append(point)
    found = {}
    for place, pool in pools.items():
        most = max(min(_seeds(point), SEVERAL) for point in pool)
        best = [point for point in pool if min(_seeds(point), SEVERAL) == most]
        found[place] = represents(best, study.objectives)
    return found


def _seeds(point: Point) -> int:
    return 0 if point.repeats is None else point.repeats.n


def represents(points: Sequence[Point], objectives: Sequence[Objective]) -> Point:
    """The best second objective within one standard error of the best first one.

    The rule of Breiman et al. 1984 (section 3.4.3), with what the regularisation is for in place of a simpler model.
    Without a standard error, or a second objective, the best first one. Ties go to the better other objectives, then
    to the earlier point.
    """

    def losses(point: Point) -> tuple[float, ...]:
        pairs = zip(point.values, objectives, strict=True)
        return tuple(-value if objective.direction == "maximize" else value for value, objective in pairs)

    best = min(points, key=losses)
    if best.se is None or len(objectives) < 2:
        return best
    within = [point for point in points if losses(point)[0] - losses(best)[0] <= best.se]
    return min(within, key=lambda point: (*losses(point)[1:], losses(point)[0]))


def _entry(point: Point, row: Mapping[str, object], measures: Sequence[Measure], sweep: Sweep) -> Entry:
    told = point.repeats
    values = {}
    for measure in measures:
        metric = measure.metric("val" if told is None else "test").name
        if told is not None and metric in told.means:
            values[measure.name] = Estimate(mean=told.means[metric], error=told.errors[metric])
        value = finite(row[metric]) if told is None else None
        if value is not None:
            values[measure.name] = Estimate(mean=value, error=None)
    return Entry(
        trial_id=point.trial_id,
        strength=point.strength,
        head=str(sweep.configs[point.run_id].get("head", "")),
        confirmed=told is not None,
        n=1 if told is None else told.n,
        values=values,
        marks={},
    )


def _marked(block: Mapping[tuple[str, str], Entry], measures: Sequence[Measure]) -> dict[tuple[str, str], Entry]:
    """The entries of a data set with the best and the second best value of each measure marked, per backbone.

    Equal as shown is equal. Test means are not compared with a single run's val values, so that these are marked only
    where there is no other; sharpness is not compared between heads; and one value alone is not the best of anything.
    """
    marked = dict(block)
    for backbone in {place[0] for place in block}:
        inside = {place: entry for place, entry in block.items() if place[0] == backbone}
        confirmed = any(entry.confirmed for entry in inside.values())
        compared = {place: entry for place, entry in inside.items() if entry.confirmed == confirmed}
        one_head = len({entry.head for entry in compared.values()}) == 1
        for measure in measures:
            if measure.name.startswith(_SHARPNESS) and not one_head:
                continue
            ranked = compared
            if measure.is_similarity:
                ranked = {place: entry for place, entry in compared.items() if moves(place[1])}
            for place, mark in _ranks(ranked, measure).items():
                marked[place] = replace(marked[place], marks={**marked[place].marks, measure.name: mark})
    return marked


def moves(method: str) -> bool:
    """Whether the backbone's weights change; believed of a method that nobody knows."""
    try:
        return ADAPTERS[parse_method(method).adapter].trains_backbone
    except ValueError:
        return True


def _ranks(entries: Mapping[tuple[str, str], Entry], measure: Measure) -> dict[tuple[str, str], str]:
    known = {place: entry.values[measure.name].mean for place, entry in entries.items() if measure.name in entry.values}
    if len(known) < 2:
        return {}
    metric = measure.metric("val")
    ordered = sorted(known.values(), reverse=metric.direction == "maximize")
    levels = list(dict.fromkeys(show(value, metric) for value in ordered))
    names = dict(zip(levels, (BEST, SECOND), strict=False))
    return {place: names[show(value, metric)] for place, value in known.items() if show(value, metric) in names}


def rule(studies: Sequence[Study], table: PaperTable) -> str:
    """Which configuration stands for a method, as a sentence."""
    if not studies or studies[0].axes.x is None:
        return "A method is represented by its configuration with the best value of the objective."
    first, second = (METRICS[objective.metric].label for objective in studies[0].objectives[:2])
    errors = [point.se is not None for study in studies for point in representatives(study).values()]
    best = f"A method is represented, per data set and backbone, by its configuration with the best {second} among"
    if not any(errors):
        text = f"A method is represented, per data set and backbone, by its configuration with the best {first}"
    elif all(errors):
        text = f"{best} its own within one standard error of its best {first}"
    else:
        text = f"{best} its own within one standard error of its best {first}, or, where none is known, by that one"
    if table.counted:
        text += "; configurations with fresh seeds go before those without"
    return f"{text}. Test metrics chose nothing."


def caption(sweep: Sweep, studies: Sequence[Study], table: PaperTable) -> str:
    """What the values are, how many runs they are of, what was chosen how, and what the marks mean."""
    said = [f"Methods by data set, sweep {sweep.name}."]
    several = [entry.n for entry in table.entries if entry.confirmed]
    if not several:
        said.append(
            "Validation metrics of single runs (n = 1, no error bars), by which the configurations were chosen too, "
            "which flatters them."
        )
    else:
        seeds = f"{min(several)}" if min(several) == max(several) else f"{min(several)} to {max(several)}"
        said.append(f"Test metrics, means over n = {seeds} fresh seeds ± one standard error of the mean.")
        if any(value.error is None for entry in table.entries if entry.confirmed for value in entry.values.values()):
            said.append("Seeds that show no spread (n = 1, or a linear probe, the same with each) give no ±.")
        if len(several) < len(table.entries):
            said.append(
                "† no fresh seeds: validation metrics of the search's own run (n = 1), marked only where a backbone "
                "has no test means."
            )
    said.append(rule(studies, table))
    where = " within a backbone" if len(table.backbones) > 1 else ""
    if any(entry.marks for entry in table.entries):
        said.append(f"Best value of a column{where} bold, second best underlined; equal as printed share a mark.")
    if len(table.backbones) > 1:
        said.append("Similarity is to the model's own pretrained backbone and means nothing between backbones.")
    else:
        said.append(f"Backbone: {table.backbones[0]}.")
    if len(table.rows) > 1 and any(not moves(row.method) for row in table.rows):
        said.append("A linear probe's similarity is 1 by construction and bears no mark.")
    if len({entry.head for entry in table.entries}) > 1:
        said.append("Sharpness is not compared between different heads.")
    if any(study.trials["stage"].eq(Stage.DERIVED.value).any() for study in studies):
        said.append("Models between pretrained and finetuned weights are left out.")
    if any(len(row.entries) < len(table.data_sets) for row in table.rows):
        said.append("–: no completed run within the constraints.")
    return " ".join(said)
