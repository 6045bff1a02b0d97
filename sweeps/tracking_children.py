"""What MLflow holds of a sweep's trials, as its writer remembers it. There may be 100,000 of them. No calls here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from repsim.records import Status, Tag
from sweeps.tracking_rows import text

if TYPE_CHECKING:
    from mlflow.entities import Run

PARENT = "mlflow.parentRunId"
_ENDED = frozenset(status.value for status in Status if status.terminal)


@dataclass
class Child:
    """What the store holds of a trial's run. ``logged`` maps a metric to its last step; None is not known yet.

    The names in ``params`` are nearly the same in all of them, and shared (``Children.shared``).
    """

    run_id: str
    run_status: str
    tags: dict[str, str]
    params: frozenset[str]
    logged: dict[str, int] | None

    @property
    def settled(self) -> bool:
        """Whether the final state is there; it is written last, after every metric."""
        return self.tags.get(Tag.STATUS) in _ENDED


class _Found(NamedTuple):
    trial_id: str | None
    parent: str | None
    child: Child


class Children(dict[str, Child]):
    """The runs by their trials' ids, and which of them say what of the front."""

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[frozenset[str], frozenset[str]] = {}
        self._on_front: set[str] = set()
        self._silent: set[str] = set()  # have ended, and say nothing of the front

    def shared(self, names: Iterable[str]) -> frozenset[str]:
        """These names, as one object however many runs have them."""
        found = frozenset(names)
        return self._names.setdefault(found, found)

    def adopt(self, runs: Iterable[Run], sweep: str) -> None:
        """Remember existing runs, the newest first, below the run ``sweep`` (its name may be shared with others).

        Each is let go before the next: a page of them holds more than all that is kept.
        """
        found = [
            _Found(
                trial_id=run.data.tags.get(Tag.TRIAL_ID),
                parent=run.data.tags.get(PARENT),
                child=Child(
                    run_id=run.info.run_id,
                    run_status=run.info.status,
                    tags=dict(run.data.tags),
                    params=self.shared(run.data.params),
                    logged=None,
                ),
            )
            for run in runs
        ]
        ours = {one.child.run_id for one in found if one.parent == sweep} | {child.run_id for child in self.values()}
        for trial_id, parent, child in reversed(found):
            if trial_id is not None and (child.run_id in ours or parent in ours):
                self[trial_id] = child
                self.note(trial_id)

    def note(self, trial_id: str) -> None:
        """Take in what a run says of the front, once its trial has ended."""
        child = self[trial_id]
        if not child.settled:
            return
        told = child.tags.get(Tag.ON_FRONT)
        for known, is_one in ((self._on_front, told == text(True)), (self._silent, told is None)):
            (known.add if is_one else known.discard)(trial_id)

    def wrong(self, front: Collection[str]) -> Iterator[tuple[str, Child, str]]:
        """Ended trials whose tag is not what it should be, with that; the others, nearly all, are not looked at."""
        for trial_id in sorted(self._on_front.symmetric_difference(front) | self._silent):
            child, value = self.get(trial_id), text(trial_id in front)
            if child is not None and child.settled and child.tags.get(Tag.ON_FRONT) != value:
                yield trial_id, child, value
