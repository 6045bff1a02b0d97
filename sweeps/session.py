"""One launch, from a validated request to the exit code: the parts are made here and put together."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import yaml

from repsim.errors import Mistake, RequestError
from repsim.records import Status
from sweeps.conductor import Sweep
from sweeps.engine import cluster, drive
from sweeps.estimate import estimate
from sweeps.journal import Journal
from sweeps.live import LiveView
from sweeps.preflight import preflight
from sweeps.provenance import provenance
from sweeps.request import Launch
from sweeps.run_folder import RunFolder
from sweeps.search import Search
from sweeps.slots import choose_slots
from sweeps.space import Space
from sweeps.tracking import SweepWriter, resolve_tracking_uri
from sweeps.trial import TrialRecord

DONE, GAVE_UP, INTERRUPTED = 0, 1, 130
_DRAIN_SECONDS = 120.0
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGUSR1 arrived; not an Exception, so that nothing on the way mistakes it for a failure."""


def run(launch: Launch) -> int:
    """Run or resume a sweep; returns the exit code. Raises RequestError when the request cannot be served."""
    uri = resolve_tracking_uri(launch.tracking_uri)
    n_images = preflight(launch.space, cache_dir=launch.cache_dir, say=_say)
    _check_disk(launch, n_images)
    writer = SweepWriter(
        uri=uri,
        space=launch.space,
        sweep=launch.name,
        provenance=provenance(),
        command=launch.command,
        resume=launch.resume,
        on_error=_say,
    )
    writer.check()
    with _journal(launch) as (folder, journal), _signals():
        status, gave_up = "failed", None
        writer.start()
        try:
            gave_up = _search(launch, folder, journal, writer)
            status = "completed" if gave_up is None else "failed"
            writer.end(status)
            if launch.report:
                writer.flush(_DRAIN_SECONDS)
                if _build_report(launch.name, uri, folder.report):
                    writer.log_report(folder.report)
        except (Interrupted, KeyboardInterrupt):
            status = "interrupted"
        finally:
            writer.close(status)
    if status == "interrupted":
        _say(f"interrupted; go on with: {folder.resume_command}")
        return INTERRUPTED
    if gave_up is not None:
        _say(f"gave up: {gave_up}; when it is mended, go on with: {folder.resume_command}")
        return GAVE_UP
    return _verdict(journal, folder, uri)


def _check_disk(launch: Launch, n_images: Mapping[str, int]) -> None:
    needed = estimate(launch.space, n_images, choose_slots(launch.space).parallel).disk_bytes
    there = next(folder for folder in (launch.runs_dir, *launch.runs_dir.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        problem = f"the sweep needs about {needed / 1e6:.0f} MB, {free / 1e6:.0f} MB are free"
        raise RequestError(Mistake(where=str(launch.runs_dir), key="", problem=problem))


def _search(launch: Launch, folder: RunFolder, journal: Journal, writer: SweepWriter) -> str | None:
    """Propose and run until the budget is spent; returns why the sweep gave up, if it did."""
    search = Search(launch.space)
    search.restore(list(journal.history.records.values()))
    view = LiveView(launch.space, search.total, sys.stdout)
    listeners = _Listeners(launch.space, search, journal, writer, view)
    slots = choose_slots(launch.space)
    try:
        listeners.replay()
        sweep = Sweep(
            space=launch.space,
            search=search,
            journal=journal,
            folder=folder,
            listener=listeners,
            threads=slots.threads,
            cache_dir=launch.cache_dir,
        )
        if not search.finished:
            # Ray's start installs handlers of its own: ours go on top, and only take note, because an exception out of
            # the middle of Ray's compiled code would not be ours any more.
            with cluster(slots, launch.address), _noted_signals() as check:
                drive(sweep, slots, check)
        if sweep.gave_up is None:
            journal.finished()
        return sweep.gave_up
    finally:
        view.close()


class _Listeners:
    """Passes every change on to MLflow and to the live view, and keeps the front and the hypervolume current."""

    def __init__(self, space: Space, search: Search, journal: Journal, writer: SweepWriter, view: LiveView) -> None:
        self._space, self._search, self._journal, self._writer, self._view = space, search, journal, writer, view

    def replay(self) -> None:
        """Tell MLflow what the journal holds already; what it has is not written twice."""
        records = self._journal.history.records
        for data, reference in self._journal.history.references.items():
            self._tell_reference(data, reference)
        for record in records.values():
            self._writer.update(record)
        self._tell_front()

    def changed(self, record: TrialRecord) -> None:
        """One trial's record has changed."""
        self._writer.update(record)
        if record.status.terminal:
            data = record.trial.data
            reference = self._search.reference(data)
            if reference is not None and data not in self._journal.history.references:
                self._journal.reference(data, reference)
                self._tell_reference(data, reference)
            self._tell_front()
        self._show()

    def _tell_reference(self, data: str, reference: Mapping[str, float]) -> None:
        ideal = self._search.ideal(data)
        if ideal is not None:
            self._writer.set_reference(data, reference, ideal)

    def _tell_front(self) -> None:
        self._writer.set_front([trial_id for data in self._space.data for trial_id in self._search.front(data)])
        ended = sum(record.status.terminal for record in self._journal.history.records.values())
        volumes = {data: self._search.hypervolume(data) for data in self._space.data}
        known = {
            "curve/hypervolume" if len(volumes) == 1 else f"curve/hypervolume {number}": volume
            for number, volume in enumerate(volumes.values())
            if volume is not None
        }
        if known:
            self._writer.sweep_values(ended, known)

    def _show(self) -> None:
        front = [trial_id for data in self._space.data for trial_id in self._search.front(data)]
        volumes = [v for v in (self._search.hypervolume(data) for data in self._space.data) if v is not None]
        mean = sum(volumes) / len(volumes) if volumes else None
        self._view.update(list(self._journal.history.records.values()), front, mean)


@contextmanager
def _journal(launch: Launch) -> Iterator[tuple[RunFolder, Journal]]:
    """The run folder and its journal, made or continued; closed afterwards."""
    if launch.resume:
        folder = RunFolder.open_existing(launch.runs_dir, launch.name)
        with Journal.open(folder.journal) as journal:
            journal.resumed()
            yield folder, journal
        return
    document = launch.space.to_dict()
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    folder = RunFolder.create(launch.runs_dir, launch.name, {"space.yaml": text.encode()})
    header = {
        "name": launch.name,
        "space": document,
        "seed": launch.space.search.seed,
        "command": launch.command,
        "provenance": provenance(),
    }
    with Journal.create(folder.journal, header) as journal:
        yield folder, journal


@contextmanager
def _signals() -> Iterator[None]:
    """Turn the signals that mean "stop" into :class:`Interrupted`, raised where the main thread is."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(signal.Signals(number).name)

    with _handling(stop):
        yield


@contextmanager
def _noted_signals() -> Iterator[Callable[[], None]]:
    """Take note of the signals that mean "stop"; the function yielded raises :class:`Interrupted` after one."""
    noted: list[int] = []

    def check() -> None:
        if noted:
            raise Interrupted(signal.Signals(noted[0]).name)

    with _handling(lambda number, frame: noted.append(number)):
        yield check


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _STOPPING}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _build_report(name: str, uri: str, out: Path) -> bool:
    """In a process of its own: the report reads MLflow and nothing else. False, said, when it could not be built."""
    script = Path(__file__).resolve().parent.parent / "reports" / "build.py"
    command = [sys.executable, str(script), "--sweep", name, "--tracking-uri", uri, "--out", str(out), "--no-log"]
    if subprocess.run(command, check=False).returncode == 0:
        return True
    _say(f"the report could not be built; try again with: python reports/build.py --sweep {name}")
    return False


def _verdict(journal: Journal, folder: RunFolder, uri: str) -> int:
    statuses = [record.status for record in journal.history.records.values()]
    completed = statuses.count(Status.COMPLETED)
    counts = ", ".join(f"{statuses.count(status)} {status}" for status in Status if statuses.count(status))
    _say(f"{folder.root}: {counts}")
    _say("browse: mlflow ui" if uri.startswith("sqlite") else f"browse: {uri}")
    return DONE if completed else GAVE_UP


def _say(line: str) -> None:
    print(line, flush=True)
