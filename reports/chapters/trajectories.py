"""Where trials went from epoch to epoch in the plane of accuracy and similarity, as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reports.chapters.front_runs import other_anchors, runs_of_members, spread
from reports.figures import Styles, axis_label, shorten
from reports.fronts import Point, Study
from reports.load import Sweep, records
from reports.values import finite
from repsim.records import EPOCH_METRICS, METRICS, Stage

PALE = 200
"""So many of the other trials are drawn at most."""
LABELLED = 12
"""So many front members bear their names at most."""
PANELS = 6
_DEFAULT = ("val_cka", "val_accuracy")
XY = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """One training run: (x, y) after each of its ``epochs``, which rise.

    ``reported`` is where the model stands that the trial answers with, None while it has not ended well. ``method`` is
    empty where the run is neither behind a front member nor an anchor, and drawn pale; ``label`` may be empty.
    """

    trial_id: str
    method: str
    backbone: str
    epochs: tuple[int, ...]
    points: tuple[XY, ...]
    reported: XY | None
    label: str = ""
    anchor: bool = False

    @property
    def told(self) -> bool:
        """Whether it is drawn in full."""
        return bool(self.method)


@dataclass(frozen=True, kw_only=True)
class TrajectoriesPicture:
    """A panel for each backbone, all with the same axes.

    ``pale`` counts the other trials drawn, ``others`` all there are; ``backbones`` counts all there are.
    """

    x_label: str
    y_label: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    panels: tuple[tuple[str, tuple[Trajectory, ...]], ...]
    pale: int
    others: int
    backbones: int
    styles: Styles

    @property
    def told(self) -> tuple[Trajectory, ...]:
        """Those drawn in full."""
        return tuple(one for _, panel in self.panels for one in panel if one.told)


def plane(study: Study) -> tuple[str, str]:
    """Metrics across and up: the study's own where they are known after every epoch, else similarity and accuracy."""
    asked = (None if study.axes.x is None else study.axes.x.metric, study.axes.y.metric)
    x, y = (mine if mine in EPOCH_METRICS else usual for mine, usual in zip(asked, _DEFAULT, strict=True))
    return (str(x), str(y)) if x != y else _DEFAULT


def trajectories_picture(sweep: Sweep, study: Study, styles: Styles) -> TrajectoriesPicture | None:
    """The picture of one data set; None where no trial was measured after two epochs or more."""
    metrics = plane(study)
    courses = _courses(sweep, study, metrics)
    told = [point for point in (*runs_of_members(study), *other_anchors(study)) if point.run_id in courses.spans]
    behind = {point.run_id for point in told}
    others = [run_id for run_id in courses.spans if run_id not in behind and courses.length(run_id) > 1]
    if not others and all(courses.length(run_id) < 2 for run_id in behind):
        return None
    shown = [*_told(study, told, courses, metrics), *_pale(study, spread(others, PALE), courses)]
    counts = Counter(one.backbone for one in shown)
    kept = sorted(sorted(counts, key=lambda name: (-counts[name], name))[:PANELS])
    panels = tuple((name, tuple(one for one in shown if one.backbone == name)) for name in kept)
    drawn = [one for _, panel in panels for one in panel]
    spots = [spot for one in drawn for spot in (*one.points, *([one.reported] if one.reported else []))]
    x_label, y_label = (axis_label(name, METRICS[name].direction or "maximize") for name in metrics)
    return TrajectoriesPicture(
        x_label=x_label,
        y_label=y_label,
        x_range=_padded([x for x, _ in spots]),
        y_range=_padded([y for _, y in spots]),
        panels=panels,
        pale=sum(not one.told for one in drawn),
        others=len(others),
        backbones=len(counts),
        styles=styles,
    )


@dataclass(frozen=True, kw_only=True)
class _Courses:
    """Every search run that was measured: ``spans`` tell by run id, in the table's order, where its course begins and
    ends in the columns. Few are drawn, so the columns stay as they are until one is asked for.
    """

    spans: Mapping[str, tuple[int, int]]
    epochs: NDArray[np.int64]
    points: NDArray[np.float64]

    def length(self, run_id: str) -> int:
        """At how many epochs both metrics are known."""
        first, end = self.spans[run_id]
        return end - first

    def of(self, run_id: str) -> tuple[tuple[int, ...], tuple[XY, ...]]:
        """Those epochs, and the points there."""
        part = slice(*self.spans[run_id])
        return tuple(self.epochs[part].tolist()), tuple((x, y) for x, y in self.points[part].tolist())


def _courses(sweep: Sweep, study: Study, metrics: tuple[str, str]) -> _Courses:
    across, up = (
        sweep.curves.loc[sweep.curves["metric"] == name, ["mlflow_run_id", "epoch", "value"]] for name in metrics
    )
    joined = across.merge(up, on=["mlflow_run_id", "epoch"], suffixes=("_x", "_y"))
    names = [str(run_id) for run_id in study.trials.loc[study.trials["stage"] == Stage.SEARCH.value, "mlflow_run_id"]]
    places = joined["mlflow_run_id"].map({run_id: place for place, run_id in enumerate(names)})
    ordered = joined.assign(place=places).dropna(subset="place").sort_values(["place", "epoch"])
    found, firsts = np.unique(ordered["place"].to_numpy(dtype=np.int64), return_index=True)
    ends = [*firsts[1:].tolist(), len(ordered)]
    return _Courses(
        spans={
            names[place]: (first, end)
            for place, first, end in zip(found.tolist(), firsts.tolist(), ends, strict=bool(len(found)))
        },
        epochs=ordered["epoch"].to_numpy(dtype=np.int64),
        points=ordered[["value_x", "value_y"]].to_numpy(dtype=np.float64),
    )


def _told(study: Study, points: Sequence[Point], courses: _Courses, metrics: tuple[str, str]) -> Iterator[Trajectory]:
    """The runs behind the front and the anchors."""
    rows = _rows(study, [point.run_id for point in points])
    named = {point.run_id for point in spread(runs_of_members(study), LABELLED)}
    for point in points:
        label = f"{point.trial_id} (anchor)" if point.anchor else point.trial_id
        epochs, way = courses.of(point.run_id)
        yield Trajectory(
            trial_id=point.trial_id,
            method=point.method,
            backbone=point.backbone,
            epochs=epochs,
            points=way,
            reported=_reported(rows[point.run_id], metrics),
            label=shorten(label, 24) if point.anchor or point.run_id in named else "",
            anchor=point.anchor,
        )


def _pale(study: Study, run_ids: Sequence[str], courses: _Courses) -> Iterator[Trajectory]:
    """Others, of which nothing is told."""
    rows = _rows(study, run_ids)
    for run_id in run_ids:
        who, on = str(rows[run_id]["trial_id"]), str(rows[run_id]["backbone"])
        epochs, points = courses.of(run_id)
        yield Trajectory(trial_id=who, method="", backbone=on, epochs=epochs, points=points, reported=None)


def _rows(study: Study, run_ids: Sequence[str]) -> dict[str, Mapping[str, object]]:
    chosen = study.trials["mlflow_run_id"].isin(list(run_ids))
    return {str(row["mlflow_run_id"]): row for row in records(study.trials[chosen])}


def _reported(row: Mapping[str, object], metrics: tuple[str, str]) -> XY | None:
    x, y = (finite(row[name]) for name in metrics)
    return None if x is None or y is None else (x, y)


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.01
    return low - room, high + room
