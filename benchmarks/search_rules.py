"""Stopping rules that are only there to be compared with: plain non-dominated sorting at the rungs."""

from __future__ import annotations

from collections.abc import Sequence

from repsim.front import nondominated
from sweeps.stopping import Point, Stopping


class NondominatedStopping(Stopping):
    """Successive halving by non-dominated rank: fronts are peeled off the trials seen at the rung, probes left out.

    A trial goes on while fewer than ``1 / reduction`` of them, itself included, lie on earlier fronts than it does. So
    all of a first front goes on, whatever put a trial there: little training does.
    """

    few = 4

    def _verdict(self, trial_id: str, epoch: int, point: Point, peers: Sequence[Point]) -> str:
        left, before = [point, *peers], 0
        while True:
            first = nondominated(left, ["maximize"] * len(point))
            if first[0]:
                break
            before += sum(first)
            left = [one for one, kept in zip(left, first, strict=True) if not kept]
        if len(peers) < self.few or before < (len(peers) + 1) / self._reduction:
            return ""
        return f"{before} of {len(peers)} trials lie on earlier fronts"
