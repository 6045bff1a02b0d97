"""Derived points as records of their own, made from what their trial answered.

A trial with ``measure.wise`` brings the points between its pretrained and finetuned weights along in its result, so
the journal holds them in the line with which the trial ends: with it they are there, or nothing is. Nobody proposes
them: they count on the front like any completed trial, and neither in the budget nor with the sampler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from repsim.config import TrialConfig
from repsim.records import GROUND_FACTS, DerivedResult, Stage, Status, TrialResult
from sweeps.trial import Trial, TrialRecord


def derived_id(trial_id: str, alpha: float) -> str:
    """``t0007-w03`` for the point of ``t0007`` at α = 0.3."""
    return f"{trial_id}-w{round(10 * alpha):02d}"


def trial_of(name: str) -> str:
    """The trial that a point belongs to, by its id; a trial's own id is its own."""
    return name.partition("-")[0]


def alpha_of(name: str) -> float | None:
    """Where on its trial's line a point stands, by its id; None for a trial."""
    tenths = name.partition("-w")[2]
    return int(tenths) / 10 if tenths else None


def derived_values(trial_id: str, result: TrialResult | None) -> dict[str, Mapping[str, float]]:
    """The values of a trial's derived points, by their ids, as far as they may be on the front.

    The pretrained end may not: it is the linear probe, which is a method of its own, and every trial would repeat it.
    """
    points = () if result is None else result.derived
    return {derived_id(trial_id, point.alpha): point.values for point in points if point.alpha > 0}


def derived_records(record: TrialRecord, feasible: Callable[[Mapping[str, float]], bool]) -> list[TrialRecord]:
    """The points of a completed trial, by rising α; none for any other.

    ``feasible`` judges their values by the space's constraints.
    """
    if record.status is not Status.COMPLETED or record.result is None:
        return []
    return [_record(record, record.result, point, feasible(point.values)) for point in record.result.derived]


def _record(parent: TrialRecord, result: TrialResult, point: DerivedResult, feasible: bool) -> TrialRecord:
    trial, found = parent.trial, derived_id(parent.trial.trial_id, point.alpha)
    flat = trial.config.flat() | {"measure.wise": False, "wise_alpha": point.alpha}
    return TrialRecord(
        trial=Trial(
            trial_id=found,
            number=trial.number,
            data=trial.data,
            stage=Stage.DERIVED,
            params={},
            config=TrialConfig.from_flat(flat, where=found),
            derived_from=trial.trial_id,
        ),
        status=Status.COMPLETED,
        result=TrialResult(
            chosen_epoch=result.chosen_epoch,
            epochs=result.epochs,
            values=point.values,
            facts={name: result.facts[name] for name in GROUND_FACTS if name in result.facts},
        ),
        feasible=feasible,
        started=parent.ended,
        ended=parent.ended,
    )
