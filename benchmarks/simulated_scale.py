"""How large a sweep the search, the journal and the MLflow writer carry: 1,000 slots, and nothing is trained.

    python benchmarks/simulated_scale.py [--quick] [--sampler tpe|random] [--trials N] [--slots N] [--keep DIR]

An event loop with simulated time stands for Ray: every slot has a trial, a trial reports three to six epochs and then
its result, how long each takes is random by seed, and the earliest report comes next. Everything behind it is the real
thing: the conductor, the search, a run folder with its journal (and its fsyncs), the listeners, the live view (into a
file), and the MLflow writer on its own thread with a sqlite store. Values are made up (``report_scale.made_up``). What
is not here: Ray, processes, training, and the report.

Two sweeps, each in a process of its own: 20,000 trials by TPE and 100,000 by the random sampler (``--quick``: 500 and
1,000). Afterwards every trial must be in the journal and in MLflow with its end, and the sweep is resumed once, as
``--resume`` would before Ray starts. Printed are, in tenths of the trials: trials that ended a second, milliseconds of
a proposal, the share of the time spent in fsync, memory, and how far the writer lags behind. The last line holds the
minutes of the slower one, from the first proposal to the last row in MLflow; resuming is not part of it.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import report_scale
import yaml

from repsim.records import KIND_TRIAL, Status, Tag
from sweeps.conductor import Sweep
from sweeps.disk import Disk
from sweeps.journal import Journal, first_line, read_history
from sweeps.listeners import Listeners
from sweeps.live import LiveView
from sweeps.provenance import provenance
from sweeps.run_folder import RunFolder
from sweeps.search import Search
from sweeps.slots import Slots as Shares
from sweeps.space import Space, space_from_dict
from sweeps.tracking import SweepWriter
from sweeps.trainable import Assignment, Report

GOAL = 20.0
TRIALS = {"tpe": 20_000, "random": 100_000}
QUICK_TRIALS = {"tpe": 500, "random": 1_000}
SLOTS = 1_000
EPOCHS = (3, 6)
TENTHS = 10
NAME = "simulated"
DRAIN_SECONDS = 6 * 3600.0
LOOK_EVERY = 1.0
"""Seconds between two questions for hung trials, as the engine asks them."""


def the_space(sampler: str, trials: int) -> Space:
    """That of ``report_scale``, with this sampler."""
    document = report_scale.the_space(trials).to_dict()
    document["name"] = NAME
    document["budget"] = {"trials": trials, "epochs": EPOCHS[1]}
    document["search"] = {"sampler": sampler}
    return space_from_dict(document, where="simulated_scale")


# measuring


@dataclass(kw_only=True)
class Tenth:
    """What was measured by the end of a tenth of the trials. Seconds and sums are of this tenth alone."""

    trials: int
    seconds: float
    ask_ms: float
    fsync_share: float
    rss_mib: float
    backlog: int


@dataclass(kw_only=True)
class Figures:
    """A sweep's measurements; seconds, MiB."""

    sampler: str
    trials: int
    slots: int
    tenths: list[Tenth] = field(default_factory=list)
    loop_seconds: float = 0.0
    drain_seconds: float = 0.0
    drained: bool = False
    journal_lines: int = 0
    journal_mib: float = 0.0
    mlflow_rows: int = 0
    mlflow_mib: float = 0.0
    missing_in_journal: int = 0
    missing_in_mlflow: int = 0
    peak_mib: float = 0.0
    resume: dict[str, float] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    @property
    def minutes(self) -> float:
        """From the first proposal to the last row."""
        return (self.loop_seconds + self.drain_seconds) / 60


class Meter:
    """Adds up the seconds that this thread spends in a function."""

    def __init__(self) -> None:
        self.seconds, self.calls = 0.0, 0
        self._thread = threading.get_ident()

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, measured."""

        def call(*args: object, **kwargs: object) -> object:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                if threading.get_ident() == self._thread:
                    self.seconds += time.perf_counter() - began
                    self.calls += 1

        return call


def rss_mib() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_mib() -> float:
    """The most that this process has had (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


# the sweep


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a driver has in hand when Ray would start."""

    search: Search
    journal: Journal
    writer: SweepWriter
    listeners: Listeners
    sweep: Sweep


@contextmanager
def driver(root: Path, space: Space, seconds: dict[str, float], said: list[str]) -> Iterator[Parts]:
    """The sweep of ``root``, started or resumed as in ``sweeps.session``; ``seconds`` says how long each part took."""

    def measured(name: str, action: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = action()
        seconds[name] = time.perf_counter() - began
        return found

    folder = RunFolder(root / "runs" / NAME)
    if not folder.root.exists():
        files = {
            "space.yaml": yaml.safe_dump(space.to_dict(), sort_keys=False).encode(),
            "journal.jsonl": first_line({"name": NAME, "space": space.to_dict(), "seed": space.search.seed}),
        }
        RunFolder.create(root / "runs", NAME, files)
    writer = SweepWriter(
        uri=f"sqlite:///{root / 'mlflow.db'}",
        space=space,
        sweep=NAME,
        provenance=provenance(),
        command="",
        artifact_root=root / "mlruns",
        on_error=said.append,
    )
    with measured("journal", lambda: Journal.open(folder.journal)) as journal, (root / "view.log").open("a") as log:
        search = Search(space)
        measured("search", lambda: search.restore(list(journal.history.records.values())))
        measured("mlflow", writer.start)
        view = LiveView(space, search.total, log)
        disk = Disk(folder.root, reserve=0, say=said.append, check=lambda: None)
        listeners = Listeners(
            space=space, search=search, journal=journal, writer=writer, view=view, disk=disk, folder=folder
        )
        measured("listeners", listeners.replay)
        sweep = measured(
            "conductor",
            lambda: Sweep(
                space=space,
                search=search,
                journal=journal,
                folder=folder,
                listener=listeners,
                disk=disk,
                slots=Shares(parallel=space.search.parallel or 1, threads=1),
                cache_dir=None,
            ),
        )
        yield Parts(search=search, journal=journal, writer=writer, listeners=listeners, sweep=sweep)
        view.close()


class Slots:
    """Simulated time: which slot reports next, and what."""

    def __init__(self, sweep: Sweep, journal: Journal, slots: int) -> None:
        self._sweep, self._journal, self._free = sweep, journal, slots
        self._due: list[tuple[float, int, Assignment, list[Report], str]] = []
        self._random, self._now, self._number = random.Random(0), 0.0, 0

    def turn(self) -> bool:
        """Fill the free slots, then take the earliest report; whether a trial has ended with it."""
        while self._free:
            assignment = self._sweep.next_assignment()
            if assignment is None:
                break
            self._sweep.began(assignment)
            self._free -= 1
            self._begin(assignment)
        self._now, _, assignment, reports, broken = heapq.heappop(self._due)
        if reports and self._sweep.reported(assignment, reports[0]):
            self._later(assignment, reports[1:], broken)
            return False
        if not reports:
            self._sweep.broke(assignment, broken, "own")
        self._free += 1
        return True

    @property
    def over(self) -> bool:
        """Whether nothing runs and nothing will."""
        return not self._due and self._sweep.exhausted

    def _begin(self, assignment: Assignment) -> None:
        trial = self._journal.history.records[assignment.trial_id].trial
        record = report_scale.made_up(trial, self._random.randint(*EPOCHS))
        result = None if record.result is None else record.result.to_dict()
        last = len(record.epochs) - 1
        told = [
            {"epochs": [epoch.to_dict()], "result": result if number == last else None}
            for number, epoch in enumerate(record.epochs)
        ]
        # as text, as Ray's workers send it: no object is shared with the values made up here
        self._later(assignment, [Report(**json.loads(json.dumps(report))) for report in told], record.reason)

    def _later(self, assignment: Assignment, reports: list[Report], broken: str) -> None:
        self._number += 1
        due = self._now + self._random.uniform(5.0, 15.0)
        heapq.heappush(self._due, (due, self._number, assignment, reports, broken))


def run_loop(parts: Parts, figures: Figures) -> None:
    """The whole sweep, measured tenth by tenth."""
    asked, synced = Meter(), Meter()
    parts.search.ask = asked.timed(parts.search.ask)  # type: ignore[method-assign]
    os.fsync = synced.timed(os.fsync)
    slots, ended, looked = Slots(parts.sweep, parts.journal, figures.slots), 0, 0.0
    before = (time.perf_counter(), 0.0, 0, 0.0)
    while True:
        ended += slots.turn()
        if time.perf_counter() - looked >= LOOK_EVERY:
            looked = time.perf_counter()
            parts.sweep.overdue()
        if ended >= (len(figures.tenths) + 1) * figures.trials / TENTHS:
            now = (time.perf_counter(), asked.seconds, asked.calls, synced.seconds)
            seconds, asking, calls, syncing = (new - old for new, old in zip(now, before, strict=True))
            figures.tenths.append(
                Tenth(
                    trials=ended,
                    seconds=seconds,
                    ask_ms=1000 * asking / max(1, calls),
                    fsync_share=syncing / seconds,
                    rss_mib=rss_mib(),
                    backlog=parts.writer.backlog,
                )
            )
            print_tenth(figures)
            before = now
        if slots.over:
            return


def run(root: Path, figures: Figures, space: Space) -> None:
    """From the first proposal to the last row in MLflow."""
    with driver(root, space, {}, figures.said) as parts:
        began = time.perf_counter()
        run_loop(parts, figures)
        parts.journal.finished()
        figures.loop_seconds = time.perf_counter() - began
        parts.listeners.leave()
        parts.writer.end("completed")
        figures.drained = parts.writer.flush(DRAIN_SECONDS)
        figures.drain_seconds = time.perf_counter() - began - figures.loop_seconds
        parts.writer.close("completed", timeout=60.0)
        figures.journal_lines = parts.journal.history.length
    figures.peak_mib = peak_mib()


def resume(root: Path, space: Space) -> dict[str, float]:
    """What a driver does before Ray starts, by part, in seconds; and its memory."""
    seconds: dict[str, float] = {}
    with driver(root, space, seconds, []) as parts:
        began = time.perf_counter()
        if not parts.writer.flush(DRAIN_SECONDS):
            raise RuntimeError("what is there already was not looked through")
        seconds["mlflow, looked through"] = time.perf_counter() - began
        parts.writer.close("completed", timeout=60.0)
    return seconds | {"peak MiB": peak_mib()}


def look(root: Path, figures: Figures) -> None:
    """Whether every trial is in the journal and in MLflow, with its end; and how much there is."""
    path = root / "runs" / NAME / "journal.jsonl"
    ended = {one.trial.trial_id for one in read_history(path).records.values() if one.status.terminal}
    figures.missing_in_journal = figures.trials - len(ended)
    figures.journal_mib = path.stat().st_size / 2**20
    database = sqlite3.connect(root / "mlflow.db")
    states = [status.value for status in Status if status.terminal]
    wanted = f"""
        select id.value from tags id join tags kind using (run_uuid) join tags state using (run_uuid)
        join runs using (run_uuid) where id.key = '{Tag.TRIAL_ID}' and kind.key = '{Tag.KIND}'
        and kind.value = '{KIND_TRIAL}' and state.key = '{Tag.STATUS}' and runs.end_time is not null
        and state.value in ({",".join("?" * len(states))})"""
    found = [name for (name,) in database.execute(wanted, states)]
    figures.missing_in_mlflow = len(ended - set(found)) + len(found) - len(set(found))
    tables = ("runs", "params", "tags", "metrics", "latest_metrics")
    figures.mlflow_rows = sum(database.execute(f"select count(*) from {name}").fetchone()[0] for name in tables)
    database.close()
    figures.mlflow_mib = (root / "mlflow.db").stat().st_size / 2**20


# telling


def print_tenth(figures: Figures) -> None:
    """One line; the header before the first."""
    if len(figures.tenths) == 1:
        print("trials  ended/s  ask ms  fsync  RSS MiB  backlog of the writer")
    one = figures.tenths[-1]
    before = figures.tenths[-2].trials if len(figures.tenths) > 1 else 0
    rate = (one.trials - before) / one.seconds
    print(
        f"{one.trials:6d} {rate:8.1f} {one.ask_ms:7.2f} {one.fsync_share:6.0%} {one.rss_mib:8.0f} {one.backlog:8d}",
        flush=True,
    )


def print_figures(figures: Figures) -> None:
    """The sums."""
    whole = figures.loop_seconds + figures.drain_seconds
    print(f"search and journal {figures.loop_seconds:.0f} s, then the writer alone {figures.drain_seconds:.0f} s")
    rate = figures.journal_lines / figures.loop_seconds
    print(f"journal {figures.journal_lines} lines, {figures.journal_mib:.0f} MiB, {rate:.0f} lines/s")
    print(
        f"MLflow {figures.mlflow_rows} rows, {figures.mlflow_mib:.0f} MiB, {figures.mlflow_rows / whole:.0f} rows/s, "
        f"{1000 * whole / figures.trials:.1f} ms a trial"
    )
    print(f"memory {figures.peak_mib:.0f} MiB at most")
    print("resumed: " + ", ".join(f"{name} {value:.1f}" for name, value in figures.resume.items()))
    print(
        f"missing in the journal {figures.missing_in_journal}, in MLflow {figures.missing_in_mlflow}; "
        f"written in full: {'yes' if figures.drained else 'NO'}"
    )
    for line in figures.said:
        print(f"said: {line}")


# the two processes of a sweep


def phase(arguments: argparse.Namespace, root: Path, name: str) -> None:
    """``run`` or ``resume`` in this process; what it found is left in ``root``."""
    sampler = arguments.sampler
    trials = trials_of(arguments, sampler)
    space, out = the_space(sampler, trials), root / f"{name}.json"
    if name == "resume":
        out.write_text(json.dumps(resume(root, space)), encoding="utf-8")
        return
    figures = Figures(sampler=sampler, trials=trials, slots=arguments.slots)
    run(root, figures, space)
    out.write_text(json.dumps(asdict(figures)), encoding="utf-8")


def trials_of(arguments: argparse.Namespace, sampler: str) -> int:
    """As asked for."""
    if arguments.trials is not None:
        return int(arguments.trials)
    return (QUICK_TRIALS if arguments.quick else TRIALS)[sampler]


def sweep(arguments: argparse.Namespace, sampler: str, root: Path) -> Figures:
    """One sweep and its resume, each in a fresh process, and its figures (also in ``root/figures.json``)."""
    root.mkdir(parents=True)
    trials = trials_of(arguments, sampler)
    print(f"{sampler}: {trials} trials, {arguments.slots} slots", flush=True)
    command = [sys.executable, __file__, "--sampler", sampler, "--trials", str(trials), "--slots", str(arguments.slots)]
    for name in ("run", "resume"):
        subprocess.run([*command, "--phase", name, "--keep", str(root)], check=True)
    told: Mapping[str, Any] = json.loads((root / "run.json").read_text(encoding="utf-8"))
    figures = Figures(**{**told, "tenths": [Tenth(**one) for one in told["tenths"]]})
    figures.resume = json.loads((root / "resume.json").read_text(encoding="utf-8"))
    look(root, figures)
    (root / "figures.json").write_text(json.dumps(asdict(figures), indent=1), encoding="utf-8")
    print_figures(figures)
    return figures


def measure(arguments: argparse.Namespace, root: Path) -> int:
    """The sweeps asked for; the exit code."""
    samplers = list(TRIALS) if arguments.sampler is None else [arguments.sampler]
    found = [sweep(arguments, sampler, root / sampler) for sampler in samplers]
    minutes = max(figures.minutes for figures in found)
    whole = all(one.drained and not one.missing_in_journal and not one.missing_in_mlflow for one in found)
    ok = whole and minutes <= GOAL
    print(f"simulated_scale: {minutes:.1f} (goal {GOAL:.0f}) {'ok' if ok else 'short'}")
    return 0 if ok else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="500 and 1,000 trials")
    parser.add_argument("--sampler", choices=sorted(TRIALS), help="one sweep instead of both")
    parser.add_argument("--trials", type=int, metavar="N", help="that many trials in each")
    parser.add_argument("--slots", type=int, metavar="N", default=SLOTS)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="run here and keep what is left behind")
    parser.add_argument("--phase", choices=("run", "resume"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.phase is not None:
        phase(arguments, arguments.keep.resolve(), arguments.phase)
        return 0
    if arguments.keep is not None:
        return measure(arguments, arguments.keep.resolve())
    with tempfile.TemporaryDirectory(prefix="simulated_scale-") as temporary:
        return measure(arguments, Path(temporary))


if __name__ == "__main__":
    sys.exit(main())
