"""What a person sees while a sweep runs: one table on a terminal, one line per event anywhere else."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import TextIO, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from repsim.records import Objective, Stage, Status
from sweeps.space import Space
from sweeps.tracking_rows import describe
from sweeps.trial import TrialRecord

_FRONT_ROWS = 12
_RUNNING_ROWS = 12
_LINE_LIMIT = 400

Hypervolume = float | Mapping[str, float] | None


class LiveView:
    """Shows the state it is given; decides nothing, and never fails a sweep (a closed stream ends the output).

    ``total`` is the number of search trials over all data sets. ``interactive`` None asks the stream. ``clock`` gives
    seconds since 1970. Safe to call from several threads.
    """

    def __init__(
        self,
        space: Space,
        total: int,
        stream: TextIO,
        interactive: bool | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._space, self._total, self._clock = space, total, clock
        self._began = clock()
        self._lock = threading.RLock()
        self._out = _Output(stream)
        self._seen: dict[str, Status] = {}
        self._records: dict[str, TrialRecord] = {}
        self._counts: Mapping[Status, int] = dict.fromkeys(Status, 0)
        self._running: Mapping[str, float] = {}  # since when, by trial
        self._front: frozenset[str] = frozenset()
        self._hypervolume: Hypervolume = None
        self._confirmations = 0
        self._ended: Mapping[Stage, int] = {}
        self._durations = (0, 0.0)  # of the trials that have ended: how many, and the sum of their seconds
        self._live: Live | None = None
        if interactive is None:
            interactive = stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")
        if interactive:
            console = Console(file=cast(TextIO, self._out), force_terminal=True)
            self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4)
            self._live.start()

    def update(
        self,
        records: Sequence[TrialRecord],
        front: Collection[str],
        hypervolume: Hypervolume = None,
        due: int = 0,
    ) -> None:
        """Show these records, and all that were shown before; ``front`` holds the ids of the current front's members.

        ``due`` counts the confirmation runs known to be needed that have not ended, those under way included.
        """
        with self._lock:
            self._front, self._hypervolume = frozenset(front), hypervolume
            changed = [record for record in records if self._seen.get(record.trial.trial_id) is not record.status]
            for record in changed:
                self._take_in(record)
            self._confirmations = self._ended.get(Stage.CONFIRM, 0) + due
            for record in changed:
                if self._is_news(record):
                    self._print(self._line(record))

    def note(self, line: str) -> None:
        """A line of its own, above the table."""
        with self._lock:
            self._print(clean(line))

    def close(self) -> None:
        """Leave the last state on the screen and stop."""
        with self._lock:
            live, self._live = self._live, None
        if live is not None:
            live.stop()

    def eta(self) -> float | None:
        """Seconds until the last search trial is expected to end; None while none has finished.

        The mean duration of the finished ones, times what is left of the others, over the trials running at once.
        """
        count, total = self._durations
        if count == 0:
            return None
        mean = total / count
        now = self._clock()
        under_way = sum(min(mean, max(0.0, now - since)) for since in self._running.values())
        left = max(0, self._total - self._finished()) * mean - under_way
        return max(0.0, left) / max(1, len(self._running))

    def _is_news(self, record: TrialRecord) -> bool:
        if not _is_run(record) or (self._live is not None and record.status is Status.COMPLETED):
            return False  # its trial, or the table, says it
        if record.status.terminal:
            # what an earlier driver finished is no news
            return record.ended is None or _seconds(record.ended) >= self._began - 1.0
        return record.status is Status.WAITING and record.reason != ""

    def _take_in(self, record: TrialRecord) -> None:
        """Keep what would otherwise be counted over all records at every change; an end is final."""
        trial_id, before = record.trial.trial_id, self._seen.get(record.trial.trial_id)
        self._records[trial_id], self._seen[trial_id] = record, record.status
        if _is_run(record):
            counts = dict(self._counts)
            counts[record.status] += 1
            if before is not None:
                counts[before] -= 1
            self._counts = counts
        if Status.RUNNING in (record.status, before):
            running = dict(self._running)
            running.pop(trial_id, None)
            if record.status is Status.RUNNING:
                running[trial_id] = self._clock()
            self._running = running
        if not record.status.terminal:
            return
        stage = record.trial.stage
        self._ended = {**self._ended, stage: self._ended.get(stage, 0) + 1}
        seconds = duration(record) if _is_run(record) else None
        if seconds is not None:
            self._durations = (self._durations[0] + 1, self._durations[1] + seconds)

    def _finished(self) -> int:
        return self._ended.get(Stage.SEARCH, 0)

    def _confirming(self) -> str:
        done = self._ended.get(Stage.CONFIRM, 0)
        if done < self._confirmations:
            return f"confirming {done} of {self._confirmations}"
        return f"{done} fresh seeds" if done else ""

    def _line(self, record: TrialRecord) -> str:
        width = len(str(self._total))
        stage = record.trial.stage
        count = f"[{self._finished():>{width}}/{self._total}]"
        if stage is Stage.CONFIRM:
            count = f"[confirm {self._ended.get(Stage.CONFIRM, 0)}/{self._confirmations}]"
        parts = [count, record.trial.trial_id, record.status.value, describe(record.trial)]
        if len(self._space.data) > 1:
            parts.append(record.trial.data)
        if record.status is Status.COMPLETED:
            parts += [f"{name} {value}" for name, value in self._values(record)]
        seconds = duration(record)
        if record.status.terminal and seconds is not None:
            parts.append(f"({human(seconds)})")
        line = " ".join(parts)
        if record.reason:
            line += f": {record.reason}"
        if record.status.terminal:
            line += f", front {len(self._front)}"
            left = self.eta()
            line += "" if left is None or self._finished() >= self._total else f", eta {human(left)}"
        return clean(line)

    def _values(self, record: TrialRecord) -> list[tuple[str, str]]:
        values = {} if record.result is None else record.result.values
        return [
            (item.metric, f"{values[item.metric]:.3g}" if item.metric in values else "-")
            for item in self._space.objectives
        ]

    def _print(self, line: str) -> None:
        if self._live is not None:
            self._live.console.print(Text(line))
        else:
            self._out.write(line + "\n")
            self._out.flush()

    def _render(self) -> RenderableType:
        # rich calls this on its own thread, holding a lock that printing needs: so without ours, on values that are
        # replaced and never changed
        front, running = self._front, self._running
        parts: list[RenderableType] = [Text(self._summary())]
        members = [self._records[trial_id] for trial_id in sorted(front) if trial_id in self._records]
        if members:
            parts.append(self._front_table(members))
        if running:
            parts.append(self._running_table(running))
        return Group(*parts)

    def _summary(self) -> str:
        counts = self._counts
        waiting = counts[Status.WAITING] + counts[Status.PROPOSED]
        left = self.eta()
        parts = [
            f"{clean(self._space.name)}: {self._finished()}/{self._total} done",
            self._confirming(),
            f"{counts[Status.RUNNING]} running",
            f"{waiting} waiting",
            f"stopped early {counts[Status.PRUNED]}" if counts[Status.PRUNED] else "",
            f"{counts[Status.FAILED]} failed",
            f"elapsed {human(self._clock() - self._began)}",
            f"eta {'?' if left is None else human(left)}",
            _hypervolume_text(self._hypervolume),
        ]
        return "   ".join(part for part in parts if part)

    def _front_table(self, members: list[TrialRecord]) -> Table:
        objectives = self._space.objectives
        members = sorted(members, key=lambda record: _rank(record, objectives[0]))
        hidden = len(members) - _FRONT_ROWS
        table = Table(title=f"front ({len(members)})", title_justify="left", expand=False)
        for name in ("trial", "method", "λ", "backbone"):
            table.add_column(name)
        if len(self._space.data) > 1:
            table.add_column("data")
        for item in objectives:
            table.add_column(item.metric, justify="right")
        for record in members[:_FRONT_ROWS]:
            config = record.trial.config
            strength = config.strength_words.removeprefix("λ=")
            method = " ".join(part for part in (config.method, config.wise_words) if part)
            cells = [record.trial.trial_id, method, strength, config.backbone.name]
            cells += [record.trial.data] if len(self._space.data) > 1 else []
            table.add_row(*(Text(clean(cell)) for cell in [*cells, *(value for _, value in self._values(record))]))
        if hidden > 0:
            table.add_row(Text(f"and {hidden} more"))
        return table

    def _running_table(self, running: Mapping[str, float]) -> Table:
        table = Table(title="running", title_justify="left", expand=False)
        for name in ("trial", "configuration", "epoch", "for"):
            table.add_column(name, justify="right" if name in ("epoch", "for") else "left")
        for trial_id, since in islice(running.items(), _RUNNING_ROWS):
            record = self._records[trial_id]
            epoch = f"{len(record.epochs)}/{record.trial.config.optim.epochs}"
            cells = [trial_id, describe(record.trial), epoch, human(self._clock() - since)]
            table.add_row(*(Text(clean(cell)) for cell in cells))
        if len(running) > _RUNNING_ROWS:
            table.add_row(Text(f"and {len(running) - _RUNNING_ROWS} more"))
        return table


class _Output:
    """The stream, made harmless: letters it cannot write are spelled out, and a closed pipe swallows the rest."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._open = stream, True

    def write(self, text: str) -> int:
        if self._open:
            try:
                self._stream.write(self._spelled(text))
            except (OSError, ValueError):
                self._open = False
        return len(text)

    def flush(self) -> None:
        if self._open:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._open = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def _spelled(self, text: str) -> str:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            return text.replace("λ", "lambda").encode(encoding, "replace").decode(encoding)
        return text


def clean(text: str) -> str:
    """``text`` on one line, without control characters, at most 400 characters long."""
    text = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    return text if len(text) <= _LINE_LIMIT else text[: _LINE_LIMIT - 1] + "…"


def human(seconds: float) -> str:
    """``12 s``, ``2 min``, ``1 h 05 min``: a duration as people say it."""
    if seconds < 99.5:
        return f"{max(0.0, seconds):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def duration(record: TrialRecord) -> float | None:
    """Seconds a finished trial took; of one that was interrupted, those of its epochs. None where not known."""
    if record.started is None or record.ended is None:
        return None
    if record.attempts > 1:
        return sum(epoch.seconds for epoch in record.epochs)
    return max(0.0, _seconds(record.ended) - _seconds(record.started))


def _is_run(record: TrialRecord) -> bool:
    """Whether anything is trained for it: a derived point came with its trial."""
    return record.trial.stage is not Stage.DERIVED


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _rank(record: TrialRecord, objective: Objective) -> float:
    value = None if record.result is None else record.result.values.get(objective.metric)
    if value is None:
        return float("inf")
    return -value if objective.direction == "maximize" else value


def _hypervolume_text(value: Hypervolume) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return "hypervolume " + ", ".join(f"{clean(data)} {share:.3f}" for data, share in value.items())
    return f"hypervolume {value:.3f}"
