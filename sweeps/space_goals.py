"""Reads objectives and constraints: what a sweep is after, on validation images only."""

from __future__ import annotations

import re
from collections.abc import Mapping

from repsim.errors import nearest, one_line
from repsim.records import METRICS, OBJECTIVE_METRICS, Objective
from sweeps.space_notes import Notes, check_keys, finite, word
from sweeps.space_types import Constraint

DIRECTIONS = ("maximize", "minimize")
OBJECTIVES_ALLOWED = "two or three of {metric: …, direction: …}"
_CONSTRAINT = re.compile(r"\s*(\S+?)\s*(>=|<=)\s*(\S+)\s*")
_CONSTRAINT_ALLOWED = "METRIC >= NUMBER or METRIC <= NUMBER"


def _metric(notes: Notes, path: str, value: object, what: str) -> bool:
    """Whether a metric may be an objective or a constraint; a mistake is noted when not."""
    if isinstance(value, str) and value in OBJECTIVE_METRICS:
        return True
    near = nearest(value, OBJECTIVE_METRICS) if isinstance(value, str) else None
    allowed = ", ".join(OBJECTIVE_METRICS)
    if isinstance(value, str) and value.startswith("test_"):
        twin = f"val_{value.removeprefix('test_')}"
        near = twin if twin in OBJECTIVE_METRICS else near
        problem = f"{one_line(value)}: test images are never {what}, they are looked at once, after the search"
        notes.add(path, problem, suggestion=near)
    elif isinstance(value, str) and value in METRICS and METRICS[value].asked_by is not None:
        problem = f"{one_line(value)} is reported by trials with {METRICS[value].asked_by}: full alone"
        notes.add(path, f"{problem}, so it cannot be {what}", allowed=allowed)
    elif isinstance(value, str) and value in METRICS:
        notes.add(path, f"{one_line(value)} has no better direction, so it cannot be {what}", allowed=allowed)
    else:
        notes.add(path, f"{one_line(value)} is not a known metric", allowed=allowed, suggestion=near)
    return False


def read_objectives(notes: Notes, value: object) -> tuple[Objective, ...]:
    """Two or three metrics, each towards its own better side."""
    if not isinstance(value, list):
        notes.add("objectives", f"{one_line(value)} is not a list", allowed=OBJECTIVES_ALLOWED)
        return ()
    if len(value) not in (2, 3):
        reason = "a trade-off is between two or three metrics"
        notes.add("objectives", f"there {_count(len(value))}: {reason}", allowed=OBJECTIVES_ALLOWED)
    found: list[Objective] = []
    for position, item in enumerate(value):
        here = f"objectives[{position}]"
        if not isinstance(item, Mapping):
            notes.add(here, f"{one_line(item)} is not an objective", allowed="{metric: …, direction: …}")
            continue
        check_keys(notes, here, item, ("metric", "direction"))
        if "metric" not in item:
            notes.add(here, "has no metric", allowed="{metric: …, direction: …}")
        elif _metric(notes, f"{here}.metric", item["metric"], "an objective"):
            objective = _directed(notes, here, item)
            if any(objective.metric == earlier.metric for earlier in found):
                notes.add(f"{here}.metric", f"{objective.metric!r} is named twice", allowed="each metric once")
            found.append(objective)
    return tuple(found)


def _count(items: int) -> str:
    return "is one objective" if items == 1 else f"are {items or 'no'} objectives"


def _directed(notes: Notes, path: str, item: Mapping[object, object]) -> Objective:
    metric = str(item["metric"])
    own = METRICS[metric].direction or "maximize"
    given = item.get("direction", own)
    said = word(notes, f"{path}.direction", given, DIRECTIONS)
    if said != own and given in DIRECTIONS:
        notes.add(f"{path}.direction", f"{said!r} would look for the worst {metric}", allowed=own)
    return Objective(metric=metric, direction=own)


def read_constraints(notes: Notes, value: object) -> tuple[Constraint, ...]:
    """Bounds such as ``val_accuracy >= 0.7``."""
    if value is None:
        return ()
    if not isinstance(value, list):
        notes.add("constraints", f"{one_line(value)} is not a list", allowed=f"[{_CONSTRAINT_ALLOWED}, …]")
        return ()
    found: list[Constraint] = []
    for position, item in enumerate(value):
        here = f"constraints[{position}]"
        constraint = _constraint(notes, here, item)
        if constraint is None:
            continue
        for earlier in found:
            if earlier.metric == constraint.metric and earlier.sense == constraint.sense:
                notes.add(here, f"{constraint.metric} has a bound on this side already", allowed="one of each side")
            elif earlier.metric == constraint.metric and constraint.violation(earlier.bound) > 0:
                notes.add(here, f"{constraint} and {earlier} cannot both hold")
        found.append(constraint)
    return tuple(found)


def _is_out_of_reach(metric: str, sense: str, bound: float) -> bool:
    info = METRICS[metric]
    if info.best is None:
        return False
    if info.direction == "maximize":
        return sense == ">=" and bound > info.best
    return sense == "<=" and bound < info.best


def _constraint(notes: Notes, path: str, value: object) -> Constraint | None:
    matched = _CONSTRAINT.fullmatch(value) if isinstance(value, str) else None
    if matched is None:
        notes.add(path, f"{one_line(value)} is not a constraint", allowed=_CONSTRAINT_ALLOWED)
        return None
    metric, sense, text = matched.groups()
    try:
        bound = finite(float(text))
    except ValueError:
        bound = None
    if bound is None:
        notes.add(path, f"{one_line(text)} is not a finite number", allowed=_CONSTRAINT_ALLOWED)
    known = _metric(notes, path, metric, "a constraint")
    if known and bound is not None and _is_out_of_reach(metric, sense, bound):
        best = METRICS[metric].best
        notes.add(path, f"no trial can have {metric} {sense} {text}", allowed=f"a bound that {best:g} meets")
    return Constraint(metric=metric, sense=sense, bound=bound) if known and bound is not None else None
