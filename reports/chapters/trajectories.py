"""Where trials went from epoch to epoch in the plane of accuracy and similarity, as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.chapters.front_runs import other_anchors, runs_of_members, spread
from reports.figures import Styles, axis_label, shorten
from reports.fronts import Study
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
    known = _trajectories(sweep, study, metrics)
    if all(len(one.epochs) < 2 for one in known):
        return None
    others = [one for one in known if not one.told and len(one.epochs) > 1]
    shown = [one for one in known if one.told] + list(spread(others, PALE))
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


def _trajectories(sweep: Sweep, study: Study, metrics: tuple[str, str]) -> list[Trajectory]:
    """Every search run that was measured, those behind the front first."""
    rows = {str(row["mlflow_run_id"]): row for row in records(study.trials) if row["stage"] == Stage.SEARCH.value}
    ways = _ways(sweep, rows, metrics)
    members, anchors = runs_of_members(study), other_anchors(study)
    named = {point.run_id for point in spread(members, LABELLED)}
    found = []
    for point in (*members, *anchors):
        if point.run_id in ways:
            label = f"{point.trial_id} (anchor)" if point.anchor else point.trial_id
            epochs, points = ways[point.run_id]
            found.append(
                Trajectory(
                    trial_id=point.trial_id,
                    method=point.method,
                    backbone=point.backbone,
                    epochs=epochs,
                    points=points,
                    reported=_reported(rows[point.run_id], metrics),
                    label=shorten(label, 24) if point.anchor or point.run_id in named else "",
                    anchor=point.anchor,
                )
            )
    told = {point.run_id for point in (*members, *anchors)}
    for run_id, (epochs, points) in ways.items():
        if run_id not in told:
            who, on = str(rows[run_id]["trial_id"]), str(rows[run_id]["backbone"])
            found.append(Trajectory(trial_id=who, method="", backbone=on, epochs=epochs, points=points, reported=None))
    return found


def _ways(
    sweep: Sweep, rows: Mapping[str, object], metrics: tuple[str, str]
) -> dict[str, tuple[tuple[int, ...], tuple[XY, ...]]]:
    """By run id, in the order of ``rows``: the epochs at which both metrics are known, and the points there."""
    across, up = (
        sweep.curves.loc[sweep.curves["metric"] == name, ["mlflow_run_id", "epoch", "value"]] for name in metrics
    )
    joined = across.merge(up, on=["mlflow_run_id", "epoch"], suffixes=("_x", "_y")).sort_values("epoch")
    found = {
        str(run_id): (
            tuple(int(epoch) for epoch in part["epoch"]),
            tuple(zip(map(float, part["value_x"]), map(float, part["value_y"]), strict=True)),
        )
        for run_id, part in joined.groupby("mlflow_run_id", sort=False)
    }
    return {run_id: found[run_id] for run_id in rows if run_id in found}


def _reported(row: Mapping[str, object], metrics: tuple[str, str]) -> XY | None:
    x, y = (finite(row[name]) for name in metrics)
    return None if x is None or y is None else (x, y)


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.01
    return low - room, high + room
