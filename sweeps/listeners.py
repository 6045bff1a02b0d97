"""Who hears of a change: the MLflow writer and the live view; and the front and hypervolume they are told with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from sweeps.artifacts import FrontArtifacts
from sweeps.derived import derived_records
from sweeps.disk import Disk
from sweeps.journal import Journal
from sweeps.kept_models import forget_models
from sweeps.live import LiveView
from sweeps.run_folder import RunFolder
from sweeps.search import Search
from sweeps.space import Space
from sweeps.tracking import SweepWriter
from sweeps.trial import TrialRecord


class Listeners:
    """Passes every change on to MLflow and to the live view, and keeps the front and the hypervolume current.

    Of the models in ``folder`` those stay that are, or may yet be, on the front.
    """

    def __init__(
        self,
        *,
        space: Space,
        search: Search,
        journal: Journal,
        writer: SweepWriter,
        view: LiveView,
        disk: Disk,
        folder: RunFolder,
    ) -> None:
        self._space, self._search, self._journal, self._writer = space, search, journal, writer
        self._view, self._disk, self._folder = view, disk, folder
        self._front: list[str] = []
        self._mean_volume: float | None = None
        self._due = 0
        self._ended: set[str] = set()

    def replay(self) -> None:
        """Tell MLflow what the journal holds already; what it has is not written twice."""
        records = self._journal.history.records
        for data, reference in self._journal.history.references.items():
            self._tell_reference(data, reference)
        shown = [point for record in records.values() for point in self._write(record)]
        for data in self._space.data:
            self._fix_reference(data)
        self._tell_curve()
        self._tell_front()
        if shown:
            self._show(shown)

    def changed(self, record: TrialRecord) -> None:
        """One trial's record has changed."""
        shown = self._write(record)
        if record.status.terminal:
            self._fix_reference(record.trial.data)
            self._tell_front()
        self._show(shown)

    def leave(self) -> None:
        """The sweep has ended, or is interrupted: its front's members leave in MLflow what they have beside numbers."""
        models = self._space.resources.models == "front"
        artifacts = FrontArtifacts(self._folder, models=models, report=self._view.note)
        for trial_id in self._front:
            self._writer.attach(trial_id, partial(artifacts.send, trial_id))

    def _write(self, record: TrialRecord) -> list[TrialRecord]:
        """Returns the record with its derived points."""
        derived = derived_records(record, self._search.feasible)
        self._writer.update(record, derived)
        if record.status.terminal:
            self._ended.add(record.trial.trial_id)
        return [record, *derived]

    def _fix_reference(self, data: str) -> None:
        reference = self._search.reference(data)
        if reference is not None and data not in self._journal.history.references:
            self._disk.durably(lambda: self._journal.reference(data, reference))
            self._tell_reference(data, reference)

    def _tell_reference(self, data: str, reference: Mapping[str, float]) -> None:
        ideal = self._search.ideal(data)
        if ideal is not None:
            self._writer.set_reference(data, reference, ideal)

    def _tell_front(self) -> None:
        """Only a trial that has ended can change the front: between two of them, what is shown stays."""
        self._tell_confirmation()
        confirmed = {data: self._search.confirmed_front(data) for data in self._space.data}
        fronts = [self._search.front(data) if found is None else found for data, found in confirmed.items()]
        self._front = [trial_id for front in fronts for trial_id in front]
        self._writer.set_front(self._front)
        forget_models(self._folder, self._search, self._journal.history.records)
        volumes = [self._search.hypervolume(data) for data in self._space.data]
        known = {self._curve(number): volume for number, volume in enumerate(volumes) if volume is not None}
        self._mean_volume = sum(known.values()) / len(known) if known else None
        if known:
            self._writer.sweep_values(len(self._ended), known)

    def _tell_confirmation(self) -> None:
        """How far each data set's confirmation is; the report and the live view know it from here."""
        told: dict[str, dict[str, object]] = {}
        due = 0
        for data in self._space.data:
            if self._search.confirming(data):
                plan = self._search.confirmation(data)
                due += len(plan.due)
                told[data] = {
                    "end": plan.end.value,
                    "reason": plan.reason,
                    "delta": dict(plan.margins),
                    "candidates": self._search.candidates(data),
                }
        self._due = due
        if told:
            self._writer.set_confirmation(told)

    def _tell_curve(self) -> None:
        """The hypervolume after every trial that has ended; what MLflow has of it is not written twice."""
        records = [record for record in self._journal.history.records.values() if record.status.terminal]
        ended = [record.trial.trial_id for record in sorted(records, key=lambda record: record.ended or "")]
        for number, data in enumerate(self._space.data):
            for step, volume in enumerate(self._search.hypervolume_history(data, ended), start=1):
                if volume is not None:
                    self._writer.sweep_values(step, {self._curve(number): volume})

    def _curve(self, number: int) -> str:
        return "curve/hypervolume" if len(self._space.data) == 1 else f"curve/hypervolume {number}"

    def _show(self, changed: Sequence[TrialRecord]) -> None:
        self._view.update(changed, self._front, self._mean_volume, due=self._due)
