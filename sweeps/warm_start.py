"""``--warm-start NAME``: finished trials of earlier sweeps become evidence for the samplers of a new one.

They count if they were measured on the same images (data hash), with the same probe (probe hash), under the same
objectives. They are told to the samplers and to nobody else: no budget counts them, no front holds them. They are kept
in the new sweep's header, so that a resume needs no earlier sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from repsim.config import TrialConfig
from repsim.errors import Mistake, RequestError
from repsim.records import Stage, Status
from sweeps.domains import Params, encode
from sweeps.history import History
from sweeps.identity import identity
from sweeps.journal import read_history
from sweeps.judgement import Judgement
from sweeps.preflight import Ground
from sweeps.run_folder import RunFolder
from sweeps.space import Space
from sweeps.study import Evidence
from sweeps.trial import TrialRecord

FLAG = "--warm-start"


def earlier_sweeps(space: Space, names: Sequence[str], runs_dir: Path) -> dict[str, History]:
    """The journals named; RequestError, one line each, for those that are missing or had other objectives."""
    found: dict[str, History] = {}
    mistakes: list[Mistake] = []
    for name in names:
        try:
            history = read_history(RunFolder.open_existing(runs_dir, name, to="learn from").journal)
        except RequestError as error:
            mistakes += [replace(one, where=FLAG, key=name) for one in error.mistakes]
            continue
        theirs, ours = _objectives(history), [(o.metric, o.direction) for o in space.objectives]
        if sorted(theirs) != sorted(ours):
            said = ", ".join(f"{direction} {metric}" for metric, direction in theirs) or "none"
            allowed = ", ".join(f"{direction} {metric}" for metric, direction in ours)
            mistakes.append(Mistake(where=FLAG, key=name, problem=f"its objectives are {said}", allowed=allowed))
        found[name] = history
    if mistakes:
        raise RequestError(*mistakes)
    return found


def gather(
    space: Space,
    earlier: Mapping[str, History],
    grounds: Mapping[str, frozenset[Ground]],
    say: Callable[[str], None],
) -> list[Evidence]:
    """Evidence from earlier sweeps; ``grounds`` are the data and probe hashes of each SOURCE.

    What does not fit is left out and counted aloud. RequestError, one line a sweep, when nothing fits at all.
    """
    evidence: list[Evidence] = []
    refusals: list[Mistake] = []
    for name, history in earlier.items():
        found, outside, reason = _of_one(space, name, list(history.records.values()), grounds)
        evidence += found
        if found:
            left = f"; {outside} lie outside this space" if outside else ""
            say(f"warm start: {len(found)} trials of {name}{left}")
        else:
            problem = reason or f"all of its {outside} trials on these images lie outside this space"
            refusals.append(Mistake(where=FLAG, key=name, problem=problem))
    if refusals and not evidence:
        raise RequestError(*refusals)
    for refusal in refusals:
        say(f"warm start: nothing of {refusal.key}: {refusal.problem}")
    return evidence


def to_header(evidence: Sequence[Evidence]) -> list[dict[str, object]]:
    """JSON-able, for the journal's first line."""
    return [
        {"data": one.data, "origin": one.origin, "params": dict(one.params), "values": dict(one.values)}
        for one in evidence
    ]


def from_header(header: Mapping[str, object] | None) -> list[Evidence]:
    """What ``to_header`` wrote; empty for a sweep without a warm start. KeyError or TypeError when it is malformed."""
    given = (header or {}).get("evidence", [])
    if not isinstance(given, list):
        raise TypeError("evidence must be a list")
    return [
        Evidence(data=str(one["data"]), origin=str(one["origin"]), params=one["params"], values=one["values"])
        for one in given
    ]


def _objectives(history: History) -> list[tuple[str, str]]:
    document = (history.header or {}).get("space")
    listed = document.get("objectives", []) if isinstance(document, dict) else []
    return [(str(one["metric"]), str(one["direction"])) for one in listed]


def _of_one(
    space: Space, name: str, records: Sequence[TrialRecord], grounds: Mapping[str, frozenset[Ground]]
) -> tuple[list[Evidence], int, str]:
    """The evidence of one sweep, how many of its trials lie outside the space, and why there is none."""
    completed = [r for r in records if r.status is Status.COMPLETED and r.trial.stage is Stage.SEARCH]
    if not completed:
        return [], 0, "none of its trials has completed"
    needed = Judgement(objectives=space.objectives, constraints=space.constraints).needed
    found: list[Evidence] = []
    same_images = same_probe = outside = 0
    for record in completed:
        facts = {} if record.result is None else record.result.facts
        theirs = (str(facts.get("data_hash")), str(facts.get("probe_hash")))
        for data, ground in grounds.items():
            if theirs[0] not in {data_hash for data_hash, _ in ground}:
                continue
            same_images += 1
            if theirs not in ground:
                continue
            same_probe += 1
            params = params_of(space, data, record.trial.config)
            if params is None or record.result is None or any(m not in record.result.values for m in needed):
                outside += 1
                continue
            values = {metric: record.result.values[metric] for metric in needed}
            origin = f"{name}/{record.trial.trial_id}"
            found.append(Evidence(data=data, params=params, values=values, origin=origin))
    if not same_images:
        return [], 0, "its trials saw other images (another data hash)"
    if not same_probe:
        return [], 0, "its similarity was taken on another probe (another probe hash)"
    return found, outside, ""


def params_of(space: Space, data: str, config: TrialConfig) -> Params | None:
    """The proposal of this space that is the same run as ``config`` (its seed and SOURCE aside); None without one."""
    flat = config.flat()
    chosen: Params = {}
    for dimension in space.dimensions:
        chosen[dimension.key] = None if space.domain(dimension.key, chosen, data) is None else flat[dimension.key]
    if encode(space, data, chosen) is None:
        return None
    ours = space.config(chosen, data=data, seed=config.seed)
    theirs = TrialConfig.from_flat({**flat, "data": data})
    return chosen if identity(ours) == identity(theirs) else None
