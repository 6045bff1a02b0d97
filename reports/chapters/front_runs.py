"""The training runs behind a front: a mean's search run, a derived point's trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from reports.fronts import Point, Study
from repsim.catalogue import ADAPTERS

T = TypeVar("T")


def runs_of_members(study: Study) -> tuple[Point, ...]:
    """The search's own run of each front member, once each, best first objective first."""
    runs = {point.trial_id: point for point in study.points if point.derived_from is None}
    names = dict.fromkeys(member.derived_from or member.trial_id for member in study.members)
    return tuple(runs[name] for name in names if name in runs)


def other_anchors(study: Study) -> tuple[Point, ...]:
    """The anchors' runs that are behind no front member."""
    members = {point.run_id for point in runs_of_members(study)}
    return tuple(p for p in study.points if p.anchor and p.derived_from is None and p.run_id not in members)


def frozen_runs(study: Study) -> frozenset[str]:
    """Ids of the runs whose backbone does not move, so that every layer stays what it was."""
    adapters = zip(study.trials["mlflow_run_id"], study.trials["adapter"], strict=True)
    known = {str(run_id): ADAPTERS.get(str(adapter)) for run_id, adapter in adapters}
    return frozenset(run_id for run_id, info in known.items() if info is not None and not info.trains_backbone)


def spread(items: Sequence[T], most: int) -> tuple[T, ...]:
    """At most ``most`` (2 or more) of the items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return tuple(items)
    return tuple(items[round(number * (len(items) - 1) / (most - 1))] for number in range(most))
