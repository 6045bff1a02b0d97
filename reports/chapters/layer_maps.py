"""Similarity with the pretrained network by layer and epoch, as plain data."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.chapters.front_runs import frozen_runs, other_anchors, runs_of_members, spread
from reports.fronts import Point, Study
from reports.load import Sweep
from reports.paper_tables import show
from reports.values import finite
from repsim.records import LAYER_PREFIX

MOST = 12
"""So many maps are drawn at most."""
LAST = "before the head"
_LAST_CURVE = "val_cka"
_NARROWEST = 0.05  # of the shared scale, below 1
Course = Mapping[int, float]


@dataclass(frozen=True, kw_only=True)
class LayerMap:
    """One training run: ``values`` has a row per layer, from input to output, and a column per epoch.

    None where a layer was not measured. The last row is that of the features before the head. ``reported`` is the epoch
    whose model the trial answers with, None where that is not known.
    """

    trial_id: str
    title: str
    backbone: str
    anchor: bool
    layers: tuple[str, ...]
    epochs: tuple[int, ...]
    values: tuple[tuple[float | None, ...], ...]
    reported: int | None

    @property
    def least_kept(self) -> str | None:
        """The layer least like its pretrained self in the reported model, or in the last one known."""
        at = self.epochs.index(self.reported) if self.reported in self.epochs else -1
        known = {layer: row[at] for layer, row in zip(self.layers, self.values, strict=True)}
        measured = {layer: value for layer, value in known.items() if value is not None}
        return min(measured, key=lambda layer: measured[layer]) if measured else None


@dataclass(frozen=True, kw_only=True)
class LayerMapsPicture:
    """Small maps with one scale from ``low`` to 1, front members first.

    ``members`` counts the front members whose layers are known and move; ``backbones`` those in the picture.
    """

    maps: tuple[LayerMap, ...]
    low: float
    members: int
    backbones: int

    @property
    def least_kept(self) -> tuple[tuple[str, int], ...]:
        """Layers that are some front member's least kept one, with how many members', most frequent first."""
        found = Counter(one.least_kept for one in self.maps if not one.anchor and one.least_kept is not None)
        return tuple((str(layer), count) for layer, count in found.most_common())


def records_layers(sweep: Sweep, study: Study) -> bool:
    """Whether any trial of the study was measured by layer."""
    layered = sweep.curves.loc[sweep.curves["metric"].str.startswith(LAYER_PREFIX), "mlflow_run_id"]
    return bool(layered.isin(study.trials["mlflow_run_id"]).any())


def layer_maps_picture(sweep: Sweep, study: Study) -> LayerMapsPicture | None:
    """Maps of front members and anchors whose backbone moves; None where none of them was measured by layer."""
    frozen = frozen_runs(study)
    members, anchors = (
        [point for point in points if point.run_id not in frozen]
        for points in (runs_of_members(study), other_anchors(study))
    )
    courses = _courses(sweep, [point.run_id for point in (*members, *anchors)])
    known = [point for point in members if point.run_id in courses]
    more = [point for point in anchors if point.run_id in courses][: MOST // 2]
    chosen = {
        str(k): finite(v) for k, v in zip(study.trials["mlflow_run_id"], study.trials["chosen_epoch"], strict=True)
    }
    maps = [
        _layer_map(sweep, point, courses[point.run_id], chosen.get(point.run_id), anchor=point in more)
        for point in (*spread(known, MOST - len(more)), *more)
    ]
    lowest = [value for one in maps for row in one.values for value in row if value is not None]
    if not lowest:
        return None
    return LayerMapsPicture(
        maps=tuple(maps),
        low=min(math.floor(20 * min(lowest)) / 20, 1.0 - _NARROWEST),
        members=len(known),
        backbones=len({one.backbone for one in maps}),
    )


def _courses(sweep: Sweep, run_ids: Sequence[str]) -> dict[str, dict[str, Course]]:
    """By run and layer (LAST for the features before the head): value by epoch; runs without layers are left out."""
    metric = sweep.curves["metric"]
    wanted = sweep.curves["mlflow_run_id"].isin(run_ids) & (
        metric.str.startswith(LAYER_PREFIX) | (metric == _LAST_CURVE)
    )
    found: dict[str, dict[str, dict[int, float]]] = {}
    for run_id, name, epoch, value in sweep.curves[wanted].itertuples(index=False):
        layer = LAST if name == _LAST_CURVE else str(name).removeprefix(LAYER_PREFIX)
        found.setdefault(str(run_id), {}).setdefault(layer, {})[int(epoch)] = float(value)
    return {run_id: dict(layers) for run_id, layers in found.items() if set(layers) - {LAST}}


def _layer_map(
    sweep: Sweep, point: Point, courses: Mapping[str, Course], chosen: float | None, *, anchor: bool
) -> LayerMap:
    layers = layer_order(courses, sweep.facts.get(point.run_id, {}).get("layers"))
    epochs = sorted({epoch for course in courses.values() for epoch in course})
    strength = "" if point.strength is None else f" λ={show(point.strength)}"
    return LayerMap(
        trial_id=point.trial_id,
        title=f"{point.trial_id} {point.method}{strength}",
        backbone=point.backbone,
        anchor=anchor,
        layers=layers,
        epochs=tuple(epochs),
        values=tuple(tuple(courses.get(layer, {}).get(epoch) for epoch in epochs) for layer in layers),
        reported=None if chosen is None else round(chosen),
    )


def layer_order(courses: Mapping[str, Course], told: object) -> tuple[str, ...]:
    """Layers from input to output, as the trial told (``told``), else by name with numbers read as numbers; LAST last.

    A layer that was told and never measured is among them.
    """
    order = [name for name in told if isinstance(name, str)] if isinstance(told, list) else []
    rest = sorted(set(courses) - {*order, LAST}, key=_natural)
    return (*dict.fromkeys(order), *rest, *([LAST] if LAST in courses else []))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
