"""The sweep itself, between search, journal and engine: hands out trials, takes in reports, writes everything down.

Order matters: a fact is journaled before anybody acts on it. One thread calls all of this.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from repsim.errors import without_numbers
from repsim.records import WISE_ALPHAS, EpochResult, Stage, Status, TrialResult
from sweeps.allotment import Allotment
from sweeps.disk import Disk
from sweeps.journal import Journal
from sweeps.placement import Machine, Share, Waiting
from sweeps.run_folder import RunFolder
from sweeps.search import Outcome, Search
from sweeps.slots import Slots
from sweeps.space import Space
from sweeps.trainable import Assignment, Fault, Report
from sweeps.trial import Trial, TrialRecord
from sweeps.watchdog import Watchdog

MAX_RETRIES = 2
"""How often a trial whose process died is started again before it counts as failed."""
MAX_NODES = 5
"""So many of its nodes a trial may lose without being suspected of it; each one more counts as a death of its own."""
GIVE_UP_AFTER = 5
"""So many failures in a row with the same cause end the sweep: it is not the configurations' fault."""

_KILLED = "the trial's process was killed from outside (by hand, or by the system when memory ran out)"
_MEMORY = "if it was memory: lower --parallel, optim.batch_size or data.image_size"


class Listener(Protocol):
    """Who is told when a trial's record has changed (MLflow, the live view)."""

    def changed(self, record: TrialRecord) -> None:
        """Must return at once; a copy is the listener's own business."""


class Sweep:
    """Implements ``sweeps.engine.Conductor``.

    Trials that were in flight when an earlier driver ended go first, from their last checkpoints.
    """

    def __init__(
        self,
        *,
        space: Space,
        search: Search,
        journal: Journal,
        folder: RunFolder,
        listener: Listener,
        disk: Disk,
        slots: Slots,
        cache_dir: Path | None,
        data_hashes: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self._search, self._journal, self._folder, self._listener = search, journal, folder, listener
        self._disk, self._watchdog = disk, Watchdog(space.resources.epoch_timeout)
        self._allotment, self._places = Allotment(space, slots), Waiting(space.resources.placement_timeout)
        self._cache_dir, self._data_hashes = cache_dir, data_hashes or {}
        self._keep_models = space.resources.models == "front"
        self._objective = space.objectives[0]
        records = journal.history.records.values()
        for record in records:
            if record.status.terminal:  # its driver may have been killed just before it could
                folder.forget_checkpoint(record.trial.trial_id)
            if record.result is not None:
                self._allotment.learn(record.trial.config, record.result)
        self._queue: deque[Trial] = deque(record.trial for record in records if not record.status.terminal)
        hours = space.budget.hours
        spent = journal.history.active_seconds
        self._deadline = None if hours is None else time.monotonic() + 3600.0 * hours - spent
        self._failures: list[str] = []
        self._nodes_lost: Counter[str] = Counter()
        self.gave_up: str | None = None
        for record in sorted((r for r in records if r.status.terminal), key=lambda record: record.ended or ""):
            self._count_failure(Outcome(status=record.status, reason=record.reason))
        if self.gave_up is not None:  # that was then, and somebody has seen to it
            self.gave_up = None
            self._failures.clear()

    @property
    def exhausted(self) -> bool:
        """Whether nothing more will be handed out: every proposal made, none waiting; or the sweep gave up."""
        return self.gave_up is not None or (self._search.exhausted and not self._queue)

    @property
    def complete(self) -> bool:
        """Whether every trial that was to run has ended."""
        return self._search.exhausted and all(
            record.status.terminal for record in self._journal.history.records.values()
        )

    def next_assignment(self) -> Assignment | None:
        """The next trial for a free slot: one that waits, else a new proposal; none while disk or machine are full."""
        if self.gave_up is not None or not self._disk.has_room or not self._allotment.has_room:
            return None
        trial = self._waiting() or self._propose()
        if trial is None:
            return None
        attempt = self._record(trial).attempts + 1
        self._folder.forget_crashes(trial.trial_id)
        self._write(lambda: self._folder.set_attempt(trial.trial_id, attempt))
        self._write(lambda: self._journal.started(trial.trial_id, attempt))
        config, method = trial.config, trial.config.parsed_method
        kind = (trial.data, config.backbone.name, config.data.image_size, method.adapter, method.penalty)
        models = 1 + len(WISE_ALPHAS) if config.takes_a_line else 1
        self._watchdog.started(trial.trial_id, kind, deaths=self._record(trial).deaths, models=models)
        share = self._allotment.take(trial.trial_id, config, trial.data, self._record(trial).deaths)
        self._listener.changed(self._record(trial))
        return Assignment(
            trial_id=trial.trial_id,
            attempt=attempt,
            config=trial.config.flat(),
            objective=(self._objective.metric, self._objective.direction),
            known_epochs=len(self._record(trial).epochs),
            run_folder=str(self._folder.root),
            launched_from=str(Path.cwd()),
            cache_dir=None if self._cache_dir is None else str(self._cache_dir),
            threads=share.cpus,
            workers=share.workers,
            gpus=share.gpus,
            keep_model=self._keep_models and trial.stage is Stage.SEARCH,
            data_hashes=sorted(self._data_hashes.get(trial.data, ())),
        )

    def reported(self, assignment: Assignment, report: Report) -> bool:
        """Take in epochs, a result or both; False ends the trial."""
        trial = self._journal.history.records[assignment.trial_id].trial
        self._watchdog.heard(trial.trial_id)
        goes_on = True
        ends = report.result is not None
        for epoch in map(EpochResult.from_dict, report.epochs):
            self._write(partial(self._journal.epoch, trial.trial_id, assignment.attempt, epoch, held=ends))
            goes_on = self._search.report(trial, epoch.epoch, epoch.values) and goes_on
        if report.result is not None:
            result = TrialResult.from_dict(report.result)
            self._end(trial, assignment.attempt, Outcome.completed(trial.trial_id, result), result)
            return False
        if not goes_on:
            self._end(trial, assignment.attempt, Outcome(status=Status.PRUNED, reason=self._search.reason(trial)), None)
            return False
        self._listener.changed(self._record(trial))
        return True

    def broke(self, assignment: Assignment, reason: str, fault: Fault) -> None:
        """A trial's own error fails it; a dead process is tried again, from the last checkpoint, as is one on a node
        that is gone.

        An empty ``reason`` means that nobody saw it die: the note it may have left is read.
        """
        record = self._journal.history.records[assignment.trial_id]
        trial, deaths = record.trial, record.deaths + 1
        if fault == "disk":
            self._disk.refuse(reason)
            self._wait(trial, f"{reason}; tried again once there is space")
            self._queue.appendleft(trial)
            return
        if fault == "own":
            self._end(trial, assignment.attempt, Outcome(status=Status.FAILED, reason=reason), None)
            return
        if fault == "node" and self._nodes_lost[trial.trial_id] < MAX_NODES:
            self._nodes_lost[trial.trial_id] += 1
            self._wait(trial, f"{reason}; goes on elsewhere")
            self._queue.append(trial)
            return
        reason = reason or self._post_mortem(trial.trial_id)
        if deaths <= MAX_RETRIES:
            self._wait(trial, f"{reason}; retry {deaths} of {MAX_RETRIES}", died=True)
            self._queue.append(trial)
            return
        hint = f"; {_MEMORY}" if reason == _KILLED or "memory" in reason.lower() else ""
        reason = f"{reason}; given up after {deaths} times{hint}"
        self._end(trial, assignment.attempt, Outcome(status=Status.FAILED, reason=reason), None)

    def began(self, assignment: Assignment) -> None:
        """The trial has got its process."""
        self._watchdog.began(assignment.trial_id)

    def stood_still(self, seconds: float) -> None:
        """The driver itself was away (a full disk, a stopped terminal job): no trial is to blame for the silence."""
        self._watchdog.stood_still(seconds)

    def overdue(self) -> Mapping[str, str]:
        """Trials that have hung, by id, and that in words."""
        return self._watchdog.overdue()

    def unplaced(
        self, waiting: Sequence[Assignment], busy: bool, machines: Callable[[], Sequence[Machine]]
    ) -> Mapping[str, str]:
        """Trials, by id, that have waited for too long for a place, and that in words."""
        asked = {one.trial_id: Share(workers=one.workers, cpus=one.threads, gpus=one.gpus) for one in waiting}
        return self._places.look(asked, busy, machines)

    def put_back(self, assignment: Assignment) -> None:
        """The trial never began: it goes first in the next slot."""
        trial = self._journal.history.records[assignment.trial_id].trial
        self._wait(trial, "its slot was replaced before it began")
        self._queue.appendleft(trial)

    def _waiting(self) -> Trial | None:
        """The next trial that waits to go on.

        A driver that was killed between a trial's epoch and the verdict on it has left the verdict to be spoken here.
        """
        while self._queue:
            trial = self._queue.popleft()
            record = self._record(trial)
            last = record.epochs[-1] if record.epochs else None
            if last is None or self._search.report(trial, last.epoch, last.values):
                return trial
            self._end(trial, record.attempts, Outcome(status=Status.PRUNED, reason=self._search.reason(trial)), None)
        return None

    def _propose(self) -> Trial | None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            self._search.close("budget.hours")
        trial = self._search.ask()
        if trial is None:
            return None
        self._journal.proposed(trial, held=True)  # its start is journaled before anybody hears of it
        return trial

    def _post_mortem(self, trial_id: str) -> str:
        crash = self._folder.read_crash(trial_id)
        return _KILLED if crash is None else f"the trial's process crashed: {crash}"

    def _write(self, write: Callable[[], None]) -> None:
        self._disk.durably(write)

    def _wait(self, trial: Trial, reason: str, *, died: bool = False) -> None:
        self._forget(trial)
        self._write(lambda: self._journal.waiting(trial.trial_id, reason, died=died))
        self._listener.changed(self._record(trial))

    def _end(self, trial: Trial, attempt: int, outcome: Outcome, result: TrialResult | None) -> None:
        judged = self._search.tell(trial, outcome)
        kept = result if judged.status is Status.COMPLETED else None
        feasible = None if kept is None else self._search.feasible(kept.values)
        self._forget(trial)
        if kept is not None:
            self._allotment.learn(trial.config, kept)
        self._write(
            lambda: self._journal.ended(
                trial.trial_id,
                attempt,
                status=judged.status,
                reason=judged.reason,
                feasible=feasible,
                result=kept,
            )
        )
        self._folder.forget_checkpoint(trial.trial_id)
        self._count_failure(judged)
        self._listener.changed(self._record(trial))

    def _forget(self, trial: Trial) -> None:
        """The trial has no process any more."""
        self._watchdog.forget(trial.trial_id)
        self._allotment.give_back(trial.trial_id)

    def _count_failure(self, judged: Outcome) -> None:
        if judged.status is not Status.FAILED:
            self._failures.clear()
            return
        cause = without_numbers(judged.reason)
        self._failures = [*(known for known in self._failures if known == cause), cause]
        if len(self._failures) >= GIVE_UP_AFTER:
            self.gave_up = f"{GIVE_UP_AFTER} trials in a row failed with the same cause: {judged.reason}"

    def _record(self, trial: Trial) -> TrialRecord:
        return self._journal.history.records[trial.trial_id]
