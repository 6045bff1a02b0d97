"""A table of measured trials, and a clock: what a search would have found, and after how many epochs.

A search is whatever can be asked, reported to and told (``Searcher``). It sees the first seed's curves; the front it
has chosen by them is scored by the second seed's results, so luck counts for nothing.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pyarrow.parquet as pq
from search_grid import SEEDS, Point, points, snap

from repsim.records import EPOCH_METRICS, Status
from sweeps.judgement import Candidate, Judgement
from sweeps.space import Space

Values = Mapping[str, float]
SEARCHED, SCORED = SEEDS


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One measured run: its epochs, and whether it broke down after them. ``seconds`` holds one number per epoch."""

    epochs: Sequence[Values]
    seconds: Sequence[float]
    failed: str = ""


class Table:
    """Curves by grid point and seed. Only points with both seeds count, so a part of a table serves as well."""

    def __init__(self, space: Space, curves: Mapping[tuple[Point, int], Curve]) -> None:
        """Raises ValueError when an anchor has not been measured, or did not end well."""
        self.space = space
        self.points = [point for point in points(space) if all((point, seed) in curves for seed in SEEDS)]
        self._curves = curves
        self.anchors = [snap(params) for params in space.anchors(space.data[0])]
        missing = [point for point in self.anchors if point not in self.points or self.result(point, SCORED) is None]
        if missing:
            raise ValueError(f"the table lacks an anchor: {missing}")
        self._judgement = Judgement(objectives=space.objectives, constraints=())
        anchors = self._scored({str(point): point for point in self.anchors}, SCORED)
        self._reference = self._judgement.reference([values for _, values in anchors])

    @classmethod
    def read(cls, space: Space, file: Path) -> Table:
        """The parquet file that search_table.py writes."""
        rows = pq.read_table(file).to_pylist()
        grouped: dict[tuple[Point, int], list[dict[str, object]]] = {}
        for row in sorted(rows, key=lambda row: (row["config"], row["seed"], row["epoch"])):
            point: Point = (row["method"], row["strength"], row["optim.lr"])
            grouped.setdefault((point, row["seed"]), []).append(row)
        return cls(space, {key: _curve(epochs) for key, epochs in grouped.items()})

    def curve(self, point: Point, seed: int) -> Curve:
        """One run."""
        return self._curves[point, seed]

    def result(self, point: Point, seed: int) -> Values | None:
        """The last epoch's values, None where the run failed."""
        curve = self._curves[point, seed]
        return None if curve.failed else curve.epochs[-1]

    def nearest(self, params: Mapping[str, object]) -> Point:
        """The measured point that a proposal stands for: its own method, the nearest numbers in the logarithm."""
        wanted = snap(params)
        same = [point for point in self.points if point[0] == wanted[0]]
        if not same:
            raise ValueError(f"nothing of method {wanted[0]!r} has been measured")
        return min(same, key=lambda point: _distance(point, wanted))

    def front(self, seed: int) -> list[Point]:
        """Measured points that no other one dominates by that seed's results."""
        return self.best(self.points, seed)

    def best(self, among: Sequence[Point], seed: int) -> list[Point]:
        """Those of some points that no other one of them dominates by that seed's results, each once."""
        named = {str(point): point for point in among}
        kept = self._judgement.front(self._scored(named, seed))
        return [named[name] for name in kept]

    def hypervolume(self, chosen: Sequence[Point]) -> float:
        """Share of the box between the anchors' reference and the ideal that these dominate, by the second seed."""
        return self._judgement.hypervolume(
            self._scored({str(point): point for point in chosen}, SCORED), self._reference
        )

    def _scored(self, named: Mapping[str, Point], seed: int) -> list[Candidate]:
        results = ((name, self.result(point, seed)) for name, point in named.items())
        return [(name, values) for name, values in results if values is not None]


class Searcher(Protocol):
    """What is compared. ``tell`` ends a trial; ``values`` are there when it went through."""

    def ask(self) -> tuple[str, Mapping[str, object]] | None:
        """Name and params of the next trial, None when there is none for now."""

    def report(self, name: str, epoch: int, values: Values) -> bool:
        """Whether the trial goes on after this epoch."""

    def tell(self, name: str, status: Status, values: Values | None) -> None:
        """How the trial ended."""


@dataclass(kw_only=True)
class Run:
    """What a search did. ``volumes``: (epochs spent so far, hypervolume of the front) each time a trial ended."""

    volumes: list[tuple[int, float]] = field(default_factory=list)
    ended: list[tuple[Point, Status]] = field(default_factory=list)
    epochs: int = 0
    time: float = 0.0

    def reached(self, volume: float) -> float:
        """Epochs until the front had this hypervolume for the first time; infinite if it never had."""
        return next((epochs for epochs, found in self.volumes if found >= volume), math.inf)

    def after_trials(self, count: int) -> tuple[int, float]:
        """Epochs and hypervolume when so many trials had ended, or at the end of a shorter search."""
        return self.volumes[min(count, len(self.volumes)) - 1]

    def after_epochs(self, epochs: int) -> float:
        """Hypervolume once so many epochs were spent; 0 before the first trial ended."""
        return max(((spent, volume) for spent, volume in self.volumes if spent <= epochs), default=(0, 0.0))[1]


@dataclass(frozen=True)
class _Running:
    name: str
    point: Point
    curve: Curve


def replay(searcher: Searcher, table: Table, *, slots: int, epochs: int, recorded_time: bool = False) -> Run:
    """Run the search until that many epochs are spent or nothing is left to do.

    ``slots`` trials run at a time; an epoch takes one unit of time, or its recorded seconds.
    """
    run, free, events, order = Run(), slots, [], 0
    running: dict[int, _Running] = {}
    front: list[Point] = []
    while True:
        while free > 0 and (asked := searcher.ask()) is not None:
            name, params = asked
            point = table.nearest(params)
            order, free = order + 1, free - 1
            running[order] = _Running(name, point, table.curve(point, SEARCHED))
            heapq.heappush(events, (run.time + _duration(running[order], 1, recorded_time), order, 1))
        if not events or run.epochs >= epochs:
            return run
        run.time, number, epoch = heapq.heappop(events)
        run.epochs += 1
        trial = running[number]
        status = _after(searcher, trial, epoch)
        if status is Status.RUNNING:
            heapq.heappush(events, (run.time + _duration(trial, epoch + 1, recorded_time), number, epoch + 1))
            continue
        free += 1
        run.ended.append((trial.point, status))
        if status is Status.COMPLETED:
            front = table.best([*front, trial.point], SEARCHED)
        run.volumes.append((run.epochs, table.hypervolume(front)))


def _after(searcher: Searcher, trial: _Running, epoch: int) -> Status:
    """Report the epoch, tell the end; the trial's state afterwards."""
    curve = trial.curve
    if epoch > len(curve.epochs):  # it broke down before its first epoch was over
        searcher.tell(trial.name, Status.FAILED, None)
        return Status.FAILED
    values = curve.epochs[epoch - 1]
    goes_on = searcher.report(trial.name, epoch, values)
    if epoch < len(curve.epochs):
        if goes_on:
            return Status.RUNNING
        searcher.tell(trial.name, Status.PRUNED, None)
        return Status.PRUNED
    status = Status.FAILED if curve.failed else Status.COMPLETED
    searcher.tell(trial.name, status, None if curve.failed else values)
    return status


def _duration(trial: _Running, epoch: int, recorded: bool) -> float:
    seconds = trial.curve.seconds
    return seconds[epoch - 1] if recorded and epoch <= len(seconds) else 1.0


def _curve(rows: Sequence[Mapping[str, object]]) -> Curve:
    measured = [row for row in rows if row["seconds"] is not None]
    return Curve(
        epochs=[{name: float(str(row[name])) for name in (*EPOCH_METRICS, "train_loss")} for row in measured],
        seconds=[float(str(row["seconds"])) for row in measured],
        failed=str(rows[0]["failed"]),
    )


def _distance(a: Point, b: Point) -> float:
    pairs = [(a[1], b[1]), (a[2], b[2])]
    return sum(math.log(x / y) ** 2 for x, y in pairs if x is not None and y is not None)
