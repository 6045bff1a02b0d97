"""A space file per front member: everything fixed, nothing searched, so that a launch repeats exactly that trial."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from reports.fronts import Point, Study
from reports.load import Sweep
from reports.values import finite
from repsim.config import TARGET_KEY

MARK = "# One trial of a sweep, complete; written by reports/build.py."
_EPOCHS = "optim.epochs"
_SAFE = re.compile(r"[A-Za-z0-9_-]+")


def file_name(trial_id: str) -> str:
    """``t0007.yaml``; characters that have no place in a file name become dashes."""
    return "-".join(_SAFE.findall(trial_id)) + ".yaml"


def space_name(experiment: str, trial_id: str) -> str:
    """``pareto-t0007``, in the letters a space's name may have and well below its 64."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{experiment[:40]}-{trial_id[:16]}").lstrip("_.-")


def yaml_scalar(value: object) -> str:
    """A JSON value in a spelling that YAML 1.1 reads as the same value (``1e-05`` would be text there)."""
    if isinstance(value, float):
        text = repr(value)
        mantissa, e, exponent = text.partition("e")
        return f"{mantissa}.0e{exponent}" if e and "." not in mantissa else text
    if isinstance(value, list | tuple):
        return "[" + ", ".join(yaml_scalar(item) for item in value) + "]"
    if isinstance(value, str):
        quoted = json.dumps(value, ensure_ascii=False)
        return "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in quoted)
    return json.dumps(value)


def space_text(sweep: Sweep, study: Study, point: Point) -> str:
    """The space file of one point."""
    config: Mapping[str, object] = sweep.configs[point.run_id]
    fixed = {key: value for key, value in config.items() if key not in ("data", "seed", _EPOCHS)}
    for key in ("strength", TARGET_KEY):
        if fixed.get(key) is None:
            # a space without a penalty has no such key, and one with a penalty has one of the two
            fixed.pop(key, None)
    # results are bit-equal for the same number of workers and of threads only
    facts = sweep.facts.get(point.run_id, {})
    threads, workers = finite(facts.get("threads")), finite(facts.get("workers")) or 1
    several = f"workers: {round(workers)}, " if workers > 1 else ""
    resources = [] if threads is None else [f"resources: {{{several}cpus_per_worker: {round(threads)}}}"]
    question = f"Does {point.trial_id} of sweep {sweep.name} repeat?"
    lines = [
        MARK,
        f"name: {yaml_scalar(space_name(sweep.experiment, point.trial_id))}",
        f"question: {yaml_scalar(question)}",
        f"data: {yaml_scalar(study.data)}",
        "objectives:",
        *(f"  - {{metric: {objective.metric}, direction: {objective.direction}}}" for objective in sweep.objectives),
        f"budget: {{trials: 1, epochs: {round(finite(config.get(_EPOCHS)) or 1)}}}",
        f"search: {{seed: {round(finite(config.get('seed')) or 0)}}}",
        *resources,
        "fixed:",
        *(f"  {yaml_scalar(key)}: {yaml_scalar(value)}" for key, value in sorted(fixed.items())),
        "space: {}",
    ]
    return "\n".join(lines) + "\n"


def write_points(sweep: Sweep, studies: Sequence[Study], folder: Path) -> list[Path]:
    """One file per front member; returns their paths."""
    written = []
    for study in studies:
        for point in study.members:
            path = folder / file_name(point.trial_id)
            path.write_text(space_text(sweep, study, point), encoding="utf-8")
            written.append(path)
    return written


def command(report: Path, trial_id: str) -> str:
    """The command that repeats a point, for the folder the report was built in."""
    path = report / "points" / file_name(trial_id)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"python sweeps/launch.py --space {shlex.quote(shown.as_posix())}"
