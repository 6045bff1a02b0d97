"""Where the slots' time went and what the sweep cost, in seconds, epochs and bytes. Plain values in, plain out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reports.chapters.timeline import Bar, Timeline
from reports.figures import shorten
from reports.fronts import runs
from reports.load import Sweep, records
from reports.paper_tables import Table
from reports.values import finite
from repsim.errors import without_numbers
from repsim.records import METRICS, Stage, Status

REASONS = 20
"""Most causes that the table of reasons lists."""
_REASON_LENGTH = 240
_COLUMNS = (
    "mlflow_run_id", "trial_id", "stage", "status", "reason", "method", "epochs", "derived_from", "train_seconds",
    "evaluation_seconds", "overhead_seconds", "images_per_second", "peak_memory_bytes",
)  # fmt: skip
_NO_REASON = "no reason recorded"
ALL_METHODS = "all methods"


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Seconds of runs in their slots: training, evaluation, other work; ``undivided`` where nobody recorded which."""

    training: float = 0.0
    evaluation: float = 0.0
    other: float = 0.0
    undivided: float = 0.0

    @property
    def each(self) -> tuple[float, ...]:
        """The four of them."""
        return self.training, self.evaluation, self.other, self.undivided

    @property
    def seconds(self) -> float:
        """All of it."""
        return sum(self.each)


def together(several: Iterable[Parts]) -> Parts:
    """The sum, part by part."""
    names = [field.name for field in dataclasses.fields(Parts)]
    columns = zip(*(parts.each for parts in [Parts(), *several]), strict=True)
    return Parts(**{name: sum(column) for name, column in zip(names, columns, strict=True)})


@dataclass(frozen=True, kw_only=True)
class Spending:
    """Seconds of all slots together, pauses left out: inside runs, by part; not known; and idle.

    ``unknown``: a slot was free, and a run that was begun more than once may have been in it. ``methods`` are the parts
    of each method's runs, the most expensive first; they add up to ``inside``. ``confirming`` are those of the
    confirmation's runs, whatever their method.
    """

    inside: Parts
    unknown: float
    idle: float
    methods: Mapping[str, Parts]
    confirming: Parts

    @property
    def total(self) -> float:
        """The slots' time: the sum of everything that it was spent on."""
        return self.inside.seconds + self.unknown + self.idle

    def share(self, seconds: float) -> float:
        """Of the slots' time; 0 where there is none."""
        return seconds / self.total if self.total > 0 else 0.0


def spending(sweep: Sweep, line: Timeline) -> Spending:
    """Divide the slots' time.

    Between two pauses there are as many slots as there were runs at once; what is left of them is idle, or not known
    where a run that was begun more than once may have been in one.
    """
    unknown = idle = 0.0
    for stretch in line.stretches:
        slots = max(level.runs for level in stretch)
        for level in stretch:
            filled = min(slots - level.runs, level.doubtful)
            unknown += filled * level.seconds
            idle += (slots - level.runs - filled) * level.seconds
    rows = {str(row["mlflow_run_id"]): row for row in records(sweep.trials[list(_COLUMNS)])}
    beside = _beside(rows.values())
    parts = [divide(bar, rows[bar.run_id], beside.get(bar.trial_id, (0.0, 0.0))) for bar in line.bars]
    by_method: dict[str, list[Parts]] = {}
    for bar, spent in zip(line.bars, parts, strict=True):
        by_method.setdefault(bar.method, []).append(spent)
    methods = {method: together(several) for method, several in by_method.items()}
    confirming = [spent for bar, spent in zip(line.bars, parts, strict=True) if bar.stage == Stage.CONFIRM.value]
    return Spending(
        inside=together(parts),
        unknown=unknown,
        idle=idle,
        methods=dict(sorted(methods.items(), key=lambda item: (-item[1].seconds, item[0]))),
        confirming=together(confirming),
    )


def divide(bar: Bar, row: Mapping[str, object], beside: tuple[float, float] = (0.0, 0.0)) -> Parts:
    """The time of one run; only a completed one says how long it trained.

    ``beside`` are the seconds of its derived points: evaluation, and all of it. What a run recorded covers every time
    that it was begun, and is counted in the last, as far as it has room there; the rest is other work.
    """
    training = finite(row["train_seconds"])
    if bar.status != Status.COMPLETED.value or training is None:
        return Parts(undivided=bar.seconds)
    training, evaluation = max(0.0, training), _seconds(row["evaluation_seconds"]) + beside[0]
    whole = training + max(evaluation, _seconds(row["overhead_seconds"]) + beside[1])
    if whole > bar.seconds:
        scale = bar.seconds / whole
        training, evaluation = scale * training, scale * evaluation
    return Parts(training=training, evaluation=evaluation, other=max(0.0, bar.seconds - training - evaluation))


@dataclass(frozen=True, kw_only=True)
class Epochs:
    """Epochs trained by run id; ``assumed`` counts the runs that left no curve and are taken to have done as asked."""

    by_run: Mapping[str, int]
    assumed: int


def epochs_trained(sweep: Sweep) -> Epochs:
    """Epochs that the curves reach; without any, the ones asked of a completed run, and else 0."""
    reached = sweep.curves.groupby("mlflow_run_id", observed=True)["epoch"].max()
    curves = {str(run_id): int(epoch) for run_id, epoch in reached.items() if epoch >= 1}
    found, assumed = {}, 0
    for row in records(runs(sweep.trials)[["mlflow_run_id", "epochs", "status"]]):
        run_id, asked = str(row["mlflow_run_id"]), finite(row["epochs"])
        stands_in = run_id not in curves and asked is not None and row["status"] == Status.COMPLETED.value
        found[run_id] = round(asked) if stands_in and asked is not None else curves.get(run_id, 0)
        assumed += stands_in
    return Epochs(by_run=found, assumed=assumed)


def cost_table(sweep: Sweep, spent: Spending | None) -> Table:
    """What each method's runs cost, confirmations among them, and all of them together; derived points are no runs."""
    epochs = epochs_trained(sweep).by_run
    by_method: dict[str, list[Mapping[str, object]]] = {}
    for row in records(runs(sweep.trials)[list(_COLUMNS)]):
        by_method.setdefault(str(row["method"]), []).append(row)
    methods = {} if spent is None else dict(spent.methods)
    order = sorted(by_method, key=lambda name: (-methods.get(name, Parts()).seconds, name))
    rows = [_cost(name, by_method[name], epochs, methods.get(name)) for name in order]
    if len(rows) > 1:
        every = [row for name in order for row in by_method[name]]
        rows.append(_cost(ALL_METHODS, every, epochs, None if spent is None else spent.inside))
    columns = ("method", "runs", "completed", "pruned", "failed", "epochs", *_COST_METRICS)
    return Table(name="cost", caption="", columns=columns, rows=tuple(rows), metrics=_COST_METRICS)


_COST_METRICS = {
    "in slots (s)": METRICS["overhead_seconds"],
    "training (s)": METRICS["train_seconds"],
    "images/s": METRICS["images_per_second"],
    "peak memory": METRICS["peak_memory_bytes"],
}


def _cost(
    name: str, rows: Sequence[Mapping[str, object]], epochs: Mapping[str, int], parts: Parts | None
) -> tuple[object, ...]:
    """One line: images/s is over the training time of all its runs, memory the most that one of them took."""
    ended = [sum(row["status"] == status.value for row in rows) for status in _ENDS]
    measured = [(finite(row["train_seconds"]), finite(row["images_per_second"])) for row in rows]
    timed = [(seconds, rate) for seconds, rate in measured if seconds is not None and rate is not None]
    trained = [seconds for seconds, _ in measured if seconds is not None]
    seconds = sum(seconds for seconds, _ in timed)
    memory = [peak for row in rows if (peak := finite(row["peak_memory_bytes"])) is not None]
    return (
        name,
        len(rows),
        *ended,
        sum(epochs[str(row["mlflow_run_id"])] for row in rows),
        None if parts is None else parts.seconds,
        sum(trained) if trained else None,
        sum(seconds * rate for seconds, rate in timed) / seconds if seconds > 0 else None,
        max(memory, default=None),
    )


_ENDS = (Status.COMPLETED, Status.PRUNED, Status.FAILED)


def reasons_table(sweep: Sweep) -> Table:
    """How many runs were pruned, failed or wait, by cause: the reason with its numbers as ``#``; the frequent first."""
    open_ends = (Status.PRUNED.value, Status.FAILED.value, Status.WAITING.value)
    counts: dict[tuple[str, str], list[str]] = {}
    for row in records(runs(sweep.trials)[list(_COLUMNS)]):
        if row["status"] in open_ends:
            reason = row["reason"] if isinstance(row["reason"], str) and row["reason"] else _NO_REASON
            cause = shorten(without_numbers(reason), _REASON_LENGTH)
            counts.setdefault((str(row["status"]), cause), []).append(str(row["trial_id"]))
    order = sorted(counts.items(), key=lambda item: (-len(item[1]), item[0]))
    rows = [(status, cause, len(trials), trials[0]) for (status, cause), trials in order]
    more = len(rows) - REASONS
    caption = f"And {more} more causes, of {sum(row[2] for row in rows[REASONS:])} runs." if more > 0 else ""
    return Table(
        name="reasons",
        caption=caption,
        columns=("status", "reason", "runs", "first trial"),
        rows=tuple(rows[:REASONS]),
        metrics={},
    )


def _beside(rows: Iterable[Mapping[str, object]]) -> dict[str, tuple[float, float]]:
    """Seconds of evaluation, and in all, that each trial's derived points took beside it."""
    found: dict[str, tuple[float, float]] = {}
    for row in rows:
        if row["stage"] == Stage.DERIVED.value:
            owner = str(row["derived_from"])
            evaluation, whole = found.get(owner, (0.0, 0.0))
            mine = _seconds(row["evaluation_seconds"]), _seconds(row["overhead_seconds"])
            found[owner] = evaluation + mine[0], whole + mine[1]
    return found


def _seconds(value: object) -> float:
    """A recorded time; 0 where there is none."""
    found = finite(value)
    return 0.0 if found is None else max(0.0, found)
