"""A trial as the sweep sees it: the proposal, and the record of what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from repsim.config import TrialConfig
from repsim.records import EpochResult, Stage, Status, TrialResult


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A proposal.

    ``trial_id`` is ``t0007`` (ordinal in the sweep, from 0); ``number`` the ordinal k in its data set's study.
    ``data`` is the SOURCE as the person wrote it; ``params`` the searched dotted keys only (an absent conditional
    value is None); ``config`` the complete configuration. A confirmation ``confirms`` a search trial (its id) and has
    its number among the data set's confirmations. ``derived_from`` is the trial that a derived point belongs to
    (``sweeps.derived``); such a point has that trial's number, and is in no journal line of its own.
    """

    trial_id: str
    number: int
    data: str
    stage: Stage
    params: Mapping[str, object]
    config: TrialConfig
    anchor: bool = False
    confirms: str | None = None
    derived_from: str | None = None

    def to_dict(self) -> dict[str, object]:
        """JSON-able."""
        return {
            "trial_id": self.trial_id,
            "number": self.number,
            "data": self.data,
            "stage": self.stage.value,
            "anchor": self.anchor,
            **({} if self.confirms is None else {"confirms": self.confirms}),
            "params": dict(self.params),
            "config": self.config.flat(),
            "config_id": self.config.config_id,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, object], *, where: str) -> Self:
        """Read back what ``to_dict`` wrote; RequestError when the configuration is not valid any more."""
        config, params = value["config"], value["params"]
        if not isinstance(config, dict) or not isinstance(params, dict):
            raise TypeError("config and params must be objects")
        number = value["number"]
        if not isinstance(number, int):
            raise TypeError("number must be an integer")
        return cls(
            trial_id=str(value["trial_id"]),
            number=number,
            data=str(value["data"]),
            stage=Stage(str(value["stage"])),
            params=params,
            config=TrialConfig.from_flat(config, where=where),
            anchor=value.get("anchor") is True,
            confirms=None if value.get("confirms") is None else str(value["confirms"]),
        )


@dataclass(kw_only=True)
class TrialRecord:
    """What became of a trial so far; the journal folds its events into these, everything downstream reads them.

    ``attempts`` counts starts, ``deaths`` those whose process died and that were to be tried again. ``epochs`` holds
    each epoch once, in order. ``started`` and ``ended`` are UTC times in ISO 8601. ``reason`` says in words why a trial
    is waiting, pruned or failed.
    """

    trial: Trial
    status: Status = Status.PROPOSED
    attempts: int = 0
    deaths: int = 0
    reason: str = ""
    epochs: list[EpochResult] = field(default_factory=list)
    result: TrialResult | None = None
    feasible: bool | None = None
    started: str | None = None
    ended: str | None = None
