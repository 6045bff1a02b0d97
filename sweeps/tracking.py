"""The one MLflow writer: in the driver, on its own thread, off the scheduling path.

MLflow is a mirror. The journal is the truth, and everything here can be sent again from its records: what the store
already holds is not written twice, so losing MLflow, or the connection to it, loses nothing.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from repsim.errors import Mistake, RequestError, one_line
from repsim.records import KIND_SWEEP, KIND_TRIAL, Status, Tag
from sweeps.compaction import Compaction
from sweeps.patient import PAUSES, PatientThread, Rank, short
from sweeps.space import Space
from sweeps.tracking_calls import add_experiment_tags, last_steps, log_values, permanent
from sweeps.tracking_children import PARENT, Child, Children
from sweeps.tracking_rows import (
    Point,
    clean,
    code_tags,
    describe,
    description,
    metric_name,
    milliseconds,
    params,
    points,
    run_name,
    space_hash,
    state_tags,
    sweep_tags,
    text,
    texts,
    trial_tags,
)
from sweeps.tracking_uri import artifact_location, open_client, prepare_store, redacted, resolve_tracking_uri
from sweeps.tracking_views import saved_views, trials_page
from sweeps.trial import Trial, TrialRecord

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Run
    from mlflow.tracking import MlflowClient

Send = Callable[["MlflowClient", str, Mapping[str, str]], Mapping[str, str]]
"""Uploads the artifacts of a run, given its id and tags; returns the tags to set."""
__all__ = ["SweepWriter", "describe", "prepare_store", "resolve_tracking_uri", "space_hash"]

_NOTE = "mlflow.note.content"
_TRAINING_VIEW = {"mlflow.experimentKind": "custom_model_development"}  # else the UI opens as if for chat bots
_START_SECONDS = 30.0
_PAGE = 500
"""Runs asked for at a time; each comes with some hundred values."""
_RUN_STATUS = {
    Status.PROPOSED: "SCHEDULED",
    Status.RUNNING: "RUNNING",
    Status.WAITING: "SCHEDULED",
    Status.COMPLETED: "FINISHED",
    Status.PRUNED: "KILLED",
    Status.FAILED: "FAILED",
}
_SWEEP_STATUS = {"completed": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class SweepWriter:
    """Mirrors one sweep into MLflow: a parent run, and a child run per trial.

    Confirmations and derived points are filed under their trial.
    Every method but :meth:`start` and :meth:`close` only queues work, in constant time. A store that is locked or
    does not answer is tried again, with growing pauses; ``on_error`` hears of each outage and of each refused write
    once, on the writer's thread.
    """

    def __init__(
        self,
        *,
        uri: str,
        space: Space,
        sweep: str,
        provenance: Mapping[str, object],
        command: str,
        artifact_root: Path | None = None,
        resume: bool = True,
        on_error: Callable[[str], None] | None = None,
    ) -> None:
        """``artifact_root`` holds ``<experiment>/`` (default: ``./mlruns`` for sqlite; a server decides itself).

        ``resume=False`` makes a new parent run even where one of the same name exists.
        """
        self._uri, self._space, self._sweep = uri, space, sweep
        self._provenance, self._command = provenance, command
        self._artifact_root, self._resume, self._on_error = artifact_root, resume, on_error
        self._thread = PatientThread("MLflow", refused=permanent, report=self._report)
        self._errors: list[str] = []
        self._children = Children()
        self._doubtful: set[str] = set()
        self._reference: dict[str, dict[str, dict[str, float]]] = {}
        self._front: frozenset[str] | None = None
        self._values: list[Point] = []
        self._logged: dict[str, int] = {}
        self._compaction = Compaction(self._report)
        self._experiment_id = self._run_id = ""

    @property
    def errors(self) -> tuple[str, ...]:
        """What went wrong so far, one line each."""
        return tuple(self._errors)

    @property
    def backlog(self) -> int:
        """How many pieces of work are queued, the one under way included."""
        return self._thread.left

    @property
    def page(self) -> str:
        """Where MLflow's UI shows the trials, behind its address; known once :meth:`start` has returned."""
        return trials_page(self._experiment_id, self._run_id)

    def start(self) -> str:
        """Find or create the experiment and the parent run, read what is there, start the thread.

        Returns the parent's run id. Raises :class:`RequestError` when the store cannot be used.
        """
        self._patiently(self._open)
        self._thread.start((self._mlflow_error, OSError))
        return self._run_id

    def check(self) -> None:
        """Find out whether :meth:`start` will work, for the time before anything is written.

        Makes the sqlite database where there is none yet; raises :class:`RequestError` as ``start`` would.
        """
        self._patiently(self._find_experiment)

    def _patiently(self, action: Callable[[], object]) -> None:
        ends, pause = time.monotonic() + _START_SECONDS, PAUSES[0]
        from mlflow.exceptions import MlflowException

        self._mlflow_error = MlflowException
        while True:
            try:
                prepare_store(self._uri)
                self._client = open_client(self._uri)
                action()
                return
            except (MlflowException, OSError) as error:
                if permanent(error) or time.monotonic() > ends:
                    raise RequestError(
                        Mistake(where=redacted(self._uri), key="", problem=f"MLflow refuses: {short(error)}")
                    ) from None
            time.sleep(pause)
            pause = min(2 * pause, PAUSES[1])

    def update(self, record: TrialRecord, derived: Sequence[TrialRecord] = ()) -> None:
        """Queue the present state of a trial and of its derived points; a newer one replaces it.

        A trial only proposed has no run yet.
        """
        if record.status is Status.PROPOSED:
            return
        snapshot = dataclasses.replace(record, epochs=list(record.epochs))
        self._thread.put(f"trial {record.trial.trial_id}", partial(self._write_trials, (snapshot, *derived)))

    def set_reference(self, data: str, reference: Mapping[str, float], ideal: Mapping[str, float]) -> None:
        """Queue the hypervolume's reference and ideal point of a data set, by objective."""
        self._reference = {**self._reference, data: {"reference": dict(reference), "ideal": dict(ideal)}}
        tags = {Tag.REFERENCE: json.dumps(self._reference, ensure_ascii=False)}
        self._thread.put("reference", partial(self._write_parent_tags, tags))

    def set_confirmation(self, told: Mapping[str, Mapping[str, object]]) -> None:
        """Queue how far the confirmation of each data set's front is: its end, the reason, δ and the candidates."""
        tags = {Tag.CONFIRMATION: text(told)}
        self._thread.put("confirmation", partial(self._write_parent_tags, tags))

    def sweep_values(self, step: int, values: Mapping[str, float]) -> None:
        """Queue values of the sweep itself (``curve/hypervolume``) at ``step``, the number of finished trials."""
        now = int(time.time() * 1000)
        points = [Point(metric_name(key), value, now, step) for key, value in values.items() if math.isfinite(value)]
        self._values.extend(points)
        self._thread.put("values", self._write_values)

    def set_front(self, trial_ids: Collection[str]) -> None:
        """Queue ``on_front``: true for these trials, false for every other finished one."""
        self._front = frozenset(trial_ids)
        self._thread.put("front", self._write_front)

    def attach(self, trial_id: str, send: Send) -> None:
        """Queue artifacts of a trial's run, behind everything else; ``send`` returns the tags that say they are there.

        A trial without a run has none.
        """
        self._thread.put(f"artifacts of {trial_id}", partial(self._attach, trial_id, send), rank=Rank.AFTER)

    def log_report(self, folder: Path) -> None:
        """Queue the upload of a finished report as the parent's artifact ``report/``."""
        if not folder.is_dir():
            self._report(f"MLflow: there is no report to keep at {one_line(str(folder), 200)}")
            return
        self._thread.put("report", lambda: self._client.log_artifacts(self._run_id, str(folder), "report"))

    def flush(self, timeout: float) -> bool:
        """Wait until everything queued has been written; False when ``timeout`` seconds did not suffice."""
        return self._thread.flush(timeout)

    def end(self, status: str) -> None:
        """Queue the end of the parent run: ``completed``, ``interrupted`` or ``failed``. A report may still follow."""
        self._put_compaction()
        self._thread.put("the end of the sweep", partial(self._finish, status), rank=Rank.LAST)

    def close(self, status: str, timeout: float = 30.0) -> None:
        """:meth:`end`, write what is queued, stop the thread.

        What ``timeout`` seconds do not suffice for is reported as an error; a resume writes it.
        """
        self.end(status)
        left = self._thread.close(timeout)
        if left > 0:
            self._report(f"MLflow: {left} updates not written; the journal has them, --resume sends them again")

    def stop(self) -> None:
        """Stop the thread at once: another launch writes to this sweep now."""
        self._thread.close(0.0)

    def _report(self, line: str) -> None:
        self._errors.append(line)
        if self._on_error is not None:
            self._on_error(line)

    # ---- the parent run

    def _open(self) -> None:
        self._experiment_id = self._experiment()
        parent = self._existing_parent() if self._resume else None
        tags = sweep_tags(self._space, self._sweep, self._provenance, self._command)
        tags[Tag.STATUS] = Status.RUNNING.value
        if parent is None:
            parent = self._client.create_run(self._experiment_id, run_name=self._sweep, tags=tags)
        else:
            self._client.update_run(parent.info.run_id, status="RUNNING")
            # what the sweep was started with stays; only its state and what is missing is written
            fresh = {key: value for key, value in tags.items() if key == Tag.STATUS or key not in parent.data.tags}
            self._log(parent.info.run_id, tags=fresh)
        self._run_id = parent.info.run_id
        if _NOTE not in parent.data.tags:
            note = description(self._space, self._sweep, self._experiment_id, self._run_id)
            self._log(self._run_id, tags={_NOTE: clean(note)})
        views = saved_views(self._sweep, self._run_id, self._space.objectives)
        self._thread.put("saved views", partial(add_experiment_tags, self._client, self._experiment_id, views))
        self._reference = {**json.loads(parent.data.tags.get(Tag.REFERENCE, "{}")), **self._reference}
        self._logged = last_steps(self._client, parent)
        self._children.adopt(self._search(f"tags.kind = '{KIND_TRIAL}' and {self._sweep_filter()}"), self._run_id)

    def _experiment(self) -> str:
        found = self._find_experiment()
        if found is None:
            try:
                location = artifact_location(self._uri, self._space.name, self._artifact_root)
                return str(self._client.create_experiment(self._space.name, location, _TRAINING_VIEW))
            except self._mlflow_error:
                found = self._find_experiment()  # unless another sweep was faster
                if found is None:
                    raise
        return str(found.experiment_id)

    def _find_experiment(self) -> Experiment | None:
        name = self._space.name
        found = self._client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage != "active":
            command = f"mlflow experiments restore --experiment-id {found.experiment_id}"
            problem = f"experiment {one_line(name)} was deleted; restore it ({command}) or rename the space"
            raise RequestError(Mistake(where=redacted(self._uri), key="", problem=problem))
        if (
            found is not None
            and found.artifact_location.startswith("mlflow-artifacts:")
            and "http" not in self._uri[:4]
        ):
            problem = f"experiment {one_line(name)} was made by an MLflow server, which alone can reach its artifacts"
            allowed = "the server's address, or another name for the space"
            raise RequestError(Mistake(where=redacted(self._uri), key="", problem=problem, allowed=allowed))
        return found

    def _sweep_filter(self) -> str:
        quote = "'" if "'" not in self._sweep else '"'
        return f"tags.sweep = {quote}{self._sweep}{quote}"

    def _existing_parent(self) -> Run | None:
        found = self._search(f"tags.kind = '{KIND_SWEEP}' and {self._sweep_filter()}")
        return next(found, None)

    def _search(self, condition: str) -> Iterator[Run]:
        """Runs of the experiment, the newest first."""
        token: str | None = None
        while True:
            page = self._client.search_runs([self._experiment_id], condition, max_results=_PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _write_parent_tags(self, tags: Mapping[str, str]) -> None:
        self._log(self._run_id, tags=dict(tags))

    def _write_values(self) -> None:
        """All that have come since the last time, in one go."""
        taken = self._values[:]
        del self._values[: len(taken)]  # meanwhile more may have come
        fresh = [point for point in taken if point.step > self._logged.get(point.key, -1)]
        try:
            if fresh:
                self._log(self._run_id, metrics=fresh)
        except (self._mlflow_error, OSError) as error:
            if not permanent(error):
                self._values[:0] = taken
            raise
        self._logged.update({point.key: point.step for point in fresh})

    def _finish(self, status: str) -> None:
        now = int(time.time() * 1000)
        for child in self._children.values():
            if not child.settled and child.run_status in ("RUNNING", "SCHEDULED"):
                self._log(child.run_id, tags={Tag.STATUS: Status.WAITING.value})
                self._client.set_terminated(child.run_id, "KILLED", now)
                child.run_status = "KILLED"
        self._log(self._run_id, tags={Tag.STATUS: status})
        self._client.set_terminated(self._run_id, _SWEEP_STATUS.get(status, "FAILED"), now)

    # ---- the trials' runs

    def _write_trials(self, records: Sequence[TrialRecord]) -> None:
        """A trial first, because its derived points are filed under its run."""
        for record in records:
            self._write_trial(record)

    def _write_trial(self, record: TrialRecord) -> None:
        trial_id = record.trial.trial_id
        try:
            child = self._child(record)
            self._send(child, record)
        except (self._mlflow_error, OSError):
            # whether the store took it is not known: look before writing again
            self._children.pop(trial_id, None)
            self._doubtful.add(trial_id)
            raise

    def _child(self, record: TrialRecord) -> Child:
        trial_id = record.trial.trial_id
        if trial_id in self._doubtful:
            existing = self._search(f"tags.trial_id = '{trial_id}' and {self._sweep_filter()}")
            self._children.adopt(existing, self._run_id)
            self._doubtful.discard(trial_id)
        if trial_id not in self._children:
            tags = texts({**self._fixed_tags(record.trial), Tag.STATUS: Status.RUNNING.value})
            run = self._client.create_run(
                self._experiment_id,
                start_time=milliseconds(record.started),
                run_name=clean(run_name(record.trial, self._space)),
                tags=tags,
            )
            self._children[trial_id] = Child(
                run_id=run.info.run_id, run_status=run.info.status, tags=tags, params=frozenset(), logged={}
            )
        return self._children[trial_id]

    def _send(self, child: Child, record: TrialRecord) -> None:
        metrics: list[Point] = []
        if not child.settled:
            if child.logged is None:
                child.logged = last_steps(self._client, self._client.get_run(child.run_id))
            logged = child.logged
            metrics = [point for point in points(record) if point.step > logged.get(point.key, -1)]
        fresh = {key: value for key, value in params(record.trial).items() if key not in child.params}
        wanted = texts({**self._fixed_tags(record.trial), **state_tags(record)})
        if child.settled:  # the code that is running now is not the one that trained it
            wanted |= {key: child.tags[key] for key in code_tags(self._provenance) if key in child.tags}
        if self._front is not None and record.status.terminal:
            wanted[Tag.ON_FRONT] = text(record.trial.trial_id in self._front)
        tags = {key: value for key, value in wanted.items() if child.tags.get(key) != value}
        self._log(child.run_id, metrics=metrics, params=fresh, tags=tags)
        child.tags.update(tags)
        child.params = self._children.shared({*child.params, *fresh}) if fresh else child.params
        if child.settled:  # nothing more will be logged
            child.logged = None
            self._children.note(record.trial.trial_id)
        elif child.logged is not None:
            child.logged.update({point.key: point.step for point in metrics})
        run_status = _RUN_STATUS[record.status]
        if child.run_status != run_status:
            if record.status.terminal:
                self._client.set_terminated(child.run_id, run_status, milliseconds(record.ended))
            else:
                self._client.update_run(child.run_id, status=run_status)
            child.run_status = run_status
        if record.status.terminal and self._compaction.note(child.run_id, run_status, child.tags, record):
            self._put_compaction()

    def _put_compaction(self) -> None:
        self._thread.put("compact tables", lambda: self._compaction.write(self._client, self._run_id), rank=Rank.LAST)

    def _write_front(self) -> None:
        for trial_id, child, value in list(self._children.wrong(self._front or frozenset())):
            self._log(child.run_id, tags={Tag.ON_FRONT: value})
            child.tags[Tag.ON_FRONT] = value
            self._children.note(trial_id)

    def _attach(self, trial_id: str, send: Send) -> None:
        child = self._children.get(trial_id)
        if child is not None:
            tags = dict(send(self._client, child.run_id, child.tags))
            self._log(child.run_id, tags=tags)
            child.tags.update(tags)

    def _fixed_tags(self, trial: Trial) -> dict[str, object]:
        return {
            Tag.KIND: KIND_TRIAL,
            Tag.SWEEP: self._sweep,
            PARENT: self._parent_of(trial),
            **trial_tags(trial),
            **code_tags(self._provenance),
        }

    def _parent_of(self, trial: Trial) -> str:
        """The run that a trial is filed under: its sweep's, or that of the trial it confirms or is derived from."""
        owner = self._children.get(trial.derived_from or trial.confirms or "")
        # after an outage a confirmation may be written before its trial; a resume puts it in its place
        return self._run_id if owner is None else owner.run_id

    # ---- calls

    def _log(
        self,
        run_id: str,
        *,
        metrics: Collection[Point] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        log_values(self._client, run_id, metrics=metrics, params=params, tags=tags)
