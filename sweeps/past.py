"""An earlier proposal, as whoever draws the next one sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from optuna.trial import TrialState


@dataclass(frozen=True, kw_only=True)
class Past:
    """One earlier proposal of the same data set.

    ``values`` (objectives, in order) are its result when it is COMPLETE, what it had when it was stopped when PRUNED;
    ``expected`` is then what the stopping rule believes that it would have come to, where it has an opinion.
    """

    params: Mapping[str, object]
    state: TrialState
    values: tuple[float, ...] | None = None
    violations: Mapping[str, float] | None = None
    expected: tuple[float, ...] | None = None
    anchor: bool = False

    @property
    def is_feasible(self) -> bool:
        """Whether it violates no constraint that it was measured by."""
        return all(missed <= 0 for missed in (self.violations or {}).values())
