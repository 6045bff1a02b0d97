"""A journal's events folded into what is known of a sweep; an event that cannot come next is refused.

Besides ``v``, ``seq``, ``at`` and ``event``, a line holds, by event:

``sweep``      ``header`` (name, space document, seed, command, provenance); always the first line, once
``proposed``   ``trial`` (``Trial.to_dict``)
``started``    ``trial_id``, ``attempt`` (1, 2, …)
``epoch``      ``trial_id``, ``attempt``, ``result`` (``EpochResult.to_dict``)
``waiting``    ``trial_id``, ``reason``, ``died`` (whether its process died; false where older lines lack it)
``ended``      ``trial_id``, ``attempt``, ``status``, ``reason``, ``feasible``,
               ``result`` (``TrialResult.to_dict``, derived points included, or null)
``reference``  ``data``, ``values`` (the hypervolume's reference point; once per data set)
``resumed``    a driver took the sweep up again
``finished``   the sweep is over; only ``resumed`` may follow
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from repsim.errors import one_line
from repsim.records import EpochResult, Status, TrialResult
from sweeps.trial import Trial, TrialRecord

Line = Mapping[str, object]


class JournalError(RuntimeError):
    """An event that cannot follow what the journal says; nothing was written."""


@dataclass
class History:
    """A journal, folded. ``records`` come in proposal order; ``length`` is the number of lines.

    ``active_seconds`` is how long drivers have been at work, from each one's first line to its last.
    """

    header: dict[str, object] | None = None
    records: dict[str, TrialRecord] = field(default_factory=dict)
    references: dict[str, dict[str, float]] = field(default_factory=dict)
    length: int = 0
    resumes: int = 0
    finished: bool = False
    active_seconds: float = 0.0
    _last_at: datetime | None = field(default=None, repr=False, compare=False)
    _last_epoch: dict[str, int] = field(default_factory=dict, repr=False)  # of the current attempt, by trial

    def prepare(self, line: Line, where: str) -> Callable[[], None]:
        """Check that ``line`` may come next; returns what folds it in.

        Raises JournalError when it may not, KeyError, TypeError or ValueError when it is malformed.
        """
        if line["seq"] != self.length:
            raise JournalError(f"line number {self.length} is due, this one says {line['seq']}")
        event = str(line["event"])
        handler = _HANDLERS.get(event)
        if handler is None:
            raise JournalError(f"{one_line(event)} is not a known event")
        if (self.header is None) != (event == "sweep"):
            raise JournalError("the first line, and no other, is the sweep's header")
        if self.finished and event != "resumed":
            raise JournalError(f"the sweep has finished: {event!r} can only come after it is resumed")
        change = handler(self, line, where)
        at = datetime.fromisoformat(str(line["at"]))

        def fold() -> None:
            change()
            self.length += 1
            if self._last_at is not None and event != "resumed":
                self.active_seconds += max(0.0, (at - self._last_at).total_seconds())
            self._last_at = at

        return fold

    def _sweep(self, line: Line, where: str) -> Callable[[], None]:
        header = _object(line, "header")

        def change() -> None:
            self.header = header

        return change

    def _proposed(self, line: Line, where: str) -> Callable[[], None]:
        trial = Trial.from_dict(_object(line, "trial"), where=where)
        if trial.trial_id in self.records:
            raise JournalError(f"trial {trial.trial_id} was proposed before")

        def change() -> None:
            self.records[trial.trial_id] = TrialRecord(trial=trial)

        return change

    def _started(self, line: Line, where: str) -> Callable[[], None]:
        record = self._alive(line)
        attempt, at = _integer(line, "attempt"), str(line["at"])
        if attempt != record.attempts + 1:
            raise JournalError(f"{_name(record)}: attempt {attempt} cannot follow attempt {record.attempts}")

        def change() -> None:
            record.attempts = attempt
            record.status = Status.RUNNING
            record.reason = ""
            record.started = record.started or at
            self._last_epoch.pop(record.trial.trial_id, None)

        return change

    def _epoch(self, line: Line, where: str) -> Callable[[], None]:
        record = self._running(line, "epoch")
        result = EpochResult.from_dict(_object(line, "result"))
        _check_numbers(result.values)
        _check_numbers(result.layers)
        _check_numbers({"epoch": result.epoch, "train_loss": result.train_loss})
        last = self._last_epoch.get(record.trial.trial_id)
        if last is not None and result.epoch <= last:
            raise JournalError(f"{_name(record)}: epoch {result.epoch} cannot follow epoch {last} of the same attempt")

        def change() -> None:
            record.epochs = [*(known for known in record.epochs if known.epoch < result.epoch), result]
            self._last_epoch[record.trial.trial_id] = result.epoch

        return change

    def _waiting(self, line: Line, where: str) -> Callable[[], None]:
        record, reason, died = self._alive(line), str(line["reason"]), line.get("died", False)
        if not isinstance(died, bool):
            raise TypeError("died must be true or false")

        def change() -> None:
            record.status = Status.WAITING
            record.reason = reason
            record.deaths += died

        return change

    def _ended(self, line: Line, where: str) -> Callable[[], None]:
        record = self._alive(line)
        status, reason, at = Status(str(line["status"])), str(line["reason"]), str(line["at"])
        feasible = line["feasible"]
        result = None if line["result"] is None else TrialResult.from_dict(_object(line, "result"))
        if result is not None:
            _check_numbers(result.values)
            _check_numbers({"chosen_epoch": result.chosen_epoch, "epochs": result.epochs})
            for point in result.derived:
                _check_numbers({"alpha": point.alpha, **point.values})
        if not status.terminal:
            raise JournalError(f"{_name(record)}: {status.value} is not how a trial ends")
        if status is Status.COMPLETED:
            self._running(line, "completed")
            if result is None:
                raise JournalError(f"{_name(record)}: completed without a result")
        elif _integer(line, "attempt") != record.attempts:
            raise JournalError(f"{_name(record)}: attempt {line['attempt']} is not the current one, {record.attempts}")
        if feasible is not None and not isinstance(feasible, bool):
            raise TypeError("feasible must be true, false or null")

        def change() -> None:
            record.status, record.reason, record.ended = status, reason, at
            record.feasible, record.result = feasible, result

        return change

    def _reference(self, line: Line, where: str) -> Callable[[], None]:
        data, values = str(line["data"]), _object(line, "values")
        numbers = {metric: _float(value, metric) for metric, value in values.items()}
        if data in self.references:
            raise JournalError(f"the reference of {data} was fixed before")

        def change() -> None:
            self.references[data] = numbers

        return change

    def _resumed(self, line: Line, where: str) -> Callable[[], None]:
        def change() -> None:
            self.resumes += 1
            self.finished = False

        return change

    def _finished(self, line: Line, where: str) -> Callable[[], None]:
        def change() -> None:
            self.finished = True

        return change

    def _alive(self, line: Line) -> TrialRecord:
        trial_id = str(line["trial_id"])
        record = self.records.get(trial_id)
        if record is None:
            raise JournalError(f"trial {trial_id} was never proposed")
        if record.status.terminal:
            raise JournalError(f"trial {trial_id} has ended ({record.status.value}): no {line['event']!r} can follow")
        return record

    def _running(self, line: Line, what: str) -> TrialRecord:
        record = self._alive(line)
        if record.status is not Status.RUNNING:
            raise JournalError(f"{_name(record)}: {what} while {record.status.value}, not running")
        if _integer(line, "attempt") != record.attempts:
            raise JournalError(f"{_name(record)}: attempt {line['attempt']} is not the current one, {record.attempts}")
        return record


_HANDLERS: dict[str, Callable[[History, Line, str], Callable[[], None]]] = {
    "sweep": History._sweep,
    "proposed": History._proposed,
    "started": History._started,
    "epoch": History._epoch,
    "waiting": History._waiting,
    "ended": History._ended,
    "reference": History._reference,
    "resumed": History._resumed,
    "finished": History._finished,
}


def _object(line: Line, key: str) -> dict[str, object]:
    value = line[key]
    if not isinstance(value, dict):
        raise TypeError(f"{key} must be an object")
    return value


def _integer(line: Line, key: str) -> int:
    value = line[key]
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{key} must be an integer")
    return value


def _float(value: object, key: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{key} must be a number")
    return float(value)


def _check_numbers(values: Mapping[str, object]) -> None:
    for key, value in values.items():
        _float(value, key)


def _name(record: TrialRecord) -> str:
    return f"trial {record.trial.trial_id}"
