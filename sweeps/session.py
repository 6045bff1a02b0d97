"""One launch, from a validated request to the exit code: the parts are made here and put together."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import yaml

from repsim.errors import one_line
from repsim.records import Status
from sweeps import mirror
from sweeps.cluster_check import answers, check_cluster
from sweeps.conductor import Sweep
from sweeps.confirmation import End
from sweeps.disk import Disk, check_room
from sweeps.engine import Place, drive
from sweeps.estimate import PARAMETER_BYTES, estimate, trial_model_bytes
from sweeps.journal import Journal, LeaseLost, first_line, read_history
from sweeps.listeners import Listeners
from sweeps.live import LiveView
from sweeps.machines import most_at_a_time
from sweeps.preflight import Looked, preflight
from sweeps.provenance import provenance
from sweeps.ray_cluster import Census, EngineLost, cluster, lost_node
from sweeps.request import Launch
from sweeps.run_folder import RunFolder
from sweeps.search import Search
from sweeps.signals import INTERRUPTED, Interrupted, Signals
from sweeps.slots import Slots, check_gpus
from sweeps.space import Space
from sweeps.study import Evidence
from sweeps.tracking import SweepWriter, resolve_tracking_uri
from sweeps.tracking_uri import redacted
from sweeps.warm_start import earlier_sweeps, from_header, gather, to_header

DONE, GAVE_UP = 0, 1
MAX_RESTARTS = 3
"""How often a broken Ray is replaced without a trial having ended in between."""
_RESTARTS = "REPSIM_RESTARTS"
_DRAIN_SECONDS, _HURRY_SECONDS = 120.0, 3.0
_CHECKPOINTS_FREE = 2  # one is written beside the one it replaces


def run(launch: Launch, signals: Signals) -> int:
    """Run or resume a sweep; returns the exit code.

    Raises RequestError when the request cannot be served, and Interrupted when a signal arrives before there is
    anything to resume. When Ray breaks, this process replaces itself with one that resumes the sweep.
    """
    folder = RunFolder(launch.runs_dir / launch.name)
    if launch.resume:
        signals.last_words = f"interrupted; go on with: {launch.resume_command}"
    uri = resolve_tracking_uri(launch.tracking_uri)
    storage = _storage(launch, folder)
    if launch.address is None:
        check_gpus(launch.space)
    else:
        launch = replace(launch, machines=check_cluster(launch.address, launch.space, launch.runs_dir))
    looked = preflight(launch.space, cache_dir=launch.cache_dir, say=_say)
    _check_disk(launch, looked)
    earlier = {} if launch.resume else earlier_sweeps(launch.space, launch.warm_start, launch.runs_dir)
    evidence = gather(launch.space, earlier, looked.grounds, _say)
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
    try:
        with _journal(launch, signals, evidence) as journal, _mirrored(storage, folder, journal):
            signals.last_words = f"interrupted; go on with: {launch.resume_command}"
            return _guarded(launch, looked, signals, uri, writer, folder, journal)
    except (Interrupted, KeyboardInterrupt):
        if not folder.journal.exists():
            raise
        signals.last_words = f"interrupted; go on with: {launch.resume_command}"
        _say(signals.last_words)
        signals.last_words = ""
        return INTERRUPTED
    except LeaseLost as lost:
        _say(f"{lost}; this one ends without writing any more")
        return GAVE_UP
    except OSError as error:
        said = one_line(str(error), 300)
        _say(f"the disk refuses: {said}; when it is mended, go on with: {launch.resume_command}")
        return GAVE_UP
    except EngineLost as lost:
        return _replace_ray(launch, folder, str(lost))


def _guarded(
    launch: Launch,
    looked: Looked,
    signals: Signals,
    uri: str,
    writer: SweepWriter,
    folder: RunFolder,
    journal: Journal,
) -> int:
    """The sweep; however it is left, MLflow hears of it while the sweep is still ours."""
    try:
        return _attended(launch, looked, signals, uri, writer, folder, journal)
    except BaseException:
        if journal.is_lost:
            writer.stop()
        else:
            writer.close("interrupted", timeout=_HURRY_SECONDS)
        raise


def _attended(
    launch: Launch,
    looked: Looked,
    signals: Signals,
    uri: str,
    writer: SweepWriter,
    folder: RunFolder,
    journal: Journal,
) -> int:
    """The sweep, its report and its verdict."""
    writer.start()
    gave_up = _search(launch, looked, signals, folder, journal, writer)
    status = "completed" if gave_up is None else "failed"
    writer.end(status)
    writer.flush(_DRAIN_SECONDS)
    signals.check()
    if launch.report and _build_report(launch.name, uri, folder.report):
        writer.log_report(folder.report)
    writer.close(status)
    if gave_up is not None:
        _say(f"gave up: {gave_up}; when it is mended, go on with: {launch.resume_command}")
        return GAVE_UP
    return _verdict(journal, folder, uri, writer)


def _check_disk(launch: Launch, looked: Looked) -> None:
    """RequestError when what the sweep will leave does not fit where it will leave it."""
    slots = launch.slots.parallel
    whole = estimate(launch.space, looked.n_images, slots, parameters=looked.parameters).run_bytes
    check_room(launch.runs_dir, round(whole * _share_left(launch)))


def _share_left(launch: Launch) -> float:
    """Of the trials, those that have not ended."""
    if not launch.resume:
        return 1.0
    records = read_history(RunFolder.open_existing(launch.runs_dir, launch.name).journal).records.values()
    return 1.0 - sum(record.status.terminal for record in records) / max(launch.space.trial_count, len(records))


def _search(
    launch: Launch, looked: Looked, signals: Signals, folder: RunFolder, journal: Journal, writer: SweepWriter
) -> str | None:
    """Propose and run until the budget is spent; returns why the sweep gave up, if it did."""
    search = Search(launch.space, from_header(journal.history.header))
    search.restore(list(journal.history.records.values()))
    slots = launch.slots
    _warn_of_parallel(search, slots)
    view = LiveView(launch.space, search.total, sys.stdout)
    reserve = _CHECKPOINTS_FREE * looked.parameters * PARAMETER_BYTES
    reserve += trial_model_bytes(launch.space, looked.parameters)
    disk = Disk(folder.root, reserve=reserve, say=view.note, check=signals.check)
    listeners = Listeners(
        space=launch.space, search=search, journal=journal, writer=writer, view=view, disk=disk, folder=folder
    )
    try:
        listeners.replay()
        sweep = Sweep(
            space=launch.space,
            search=search,
            journal=journal,
            folder=folder,
            listener=listeners,
            disk=disk,
            slots=slots,
            cache_dir=launch.cache_dir,
            data_hashes={data: {images for images, _ in grounds} for data, grounds in looked.grounds.items()},
        )
        if not search.finished:
            # A signal is only noted meanwhile: an exception out of the middle of Ray's compiled code would not be ours.
            on_stuck = _on_stuck(launch, folder, signals)
            with signals.noted() as check, cluster(slots, launch.address, on_stuck) as alive:
                check()
                drive(sweep, slots, check, _place(launch, folder, alive))
            if sweep.gave_up is None and not sweep.complete:
                raise Interrupted("Ray ended early")
        if sweep.gave_up is None:
            disk.durably(journal.finished)
        return sweep.gave_up
    finally:
        listeners.leave()
        view.close()
        _say_how_it_ended(launch.space, search)


def _place(launch: Launch, folder: RunFolder, alive: Callable[[], None]) -> Place:
    """A cluster's size changes, and all that its nodes are sure to share is the run's folder."""
    if not launch.machines:
        return Place(alive=alive)
    census, slots = Census(), launch.slots
    return Place(
        alive=alive,
        most=lambda: most_at_a_time(launch.space, census(), slots),
        lost_node=lost_node,
        scratch=folder.root,
    )


def _warn_of_parallel(search: Search, slots: Slots) -> None:
    """Trials that start together cannot learn from each other."""
    if slots.parallel > 1 and 0 < search.startup < 2 * slots.parallel:
        fewer = max(1, search.startup // 2)
        _say(
            f"{slots.parallel} trials at a time are many where the first {search.startup} are drawn without looking at "
            f"results: few will be there to learn from (--parallel {fewer}, or a larger --trials)"
        )


def _say_how_it_ended(space: Space, search: Search) -> None:
    """What ended the search, and how far its front was confirmed; silent while it goes on."""
    for data in space.data:
        why = search.ended_by(data)
        on = f" on {data}" if len(space.data) > 1 else ""
        if why and not space.is_single_run:
            _say(f"the search{on} ended: {why}")
            plan = search.confirmation(data)
            if space.confirm_seeds > 0 and plan.end is not End.NOT_YET:
                _say(f"the confirmation{on} ended: {plan.end.value} ({plan.reason})")
            elif space.confirm_seeds > 0 and search.closed_by == "budget.hours":
                _say(f"the confirmation{on} was cut short: budget.hours ({plan.reason})")


@contextmanager
def _journal(launch: Launch, signals: Signals, evidence: Sequence[Evidence]) -> Iterator[Journal]:
    """The sweep's journal, made together with its folder (whole, or not at all) or continued; closed afterwards."""
    if launch.resume:
        folder = RunFolder.open_existing(launch.runs_dir, launch.name)
    else:
        document = launch.space.to_dict()
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        header = {
            "name": launch.name,
            "space": document,
            "seed": launch.space.search.seed,
            "command": launch.command,
            "provenance": provenance(),
            **({"evidence": to_header(evidence)} if evidence else {}),
        }
        with signals.noted():
            files = {"space.yaml": text.encode(), "journal.jsonl": first_line(header)}
            folder = RunFolder.create(launch.runs_dir, launch.name, files)
    with Journal.open(folder.journal, say=_say) as journal:
        if launch.resume:
            journal.resumed()
        yield journal


def _storage(launch: Launch, folder: RunFolder) -> str | None:
    """Where the journal is mirrored, now or since an earlier launch; RequestError when that cannot be."""
    storage = launch.storage or (mirror.remembered(folder) if launch.resume else None)
    if storage in (None, mirror.OFF):
        return None
    if launch.resume:
        mirror.check_current(storage, folder)
    else:
        mirror.check_free(storage, launch.name)
    return storage


@contextmanager
def _mirrored(storage: str | None, folder: RunFolder, journal: Journal) -> Iterator[None]:
    """The journal's copy elsewhere is kept current meanwhile."""
    if storage is None:
        mirror.forget(folder)
        yield
        return
    with mirror.Mirror(storage, folder, lambda: journal.history.length, _say) as kept:
        journal.fenced_by(kept)
        _say(f"mirrored; go on elsewhere with: {folder.resume_command} --storage {shlex.quote(storage)}")
        yield


def _on_stuck(launch: Launch, folder: RunFolder, signals: Signals) -> Callable[[str], None]:
    """What to do, on another thread, when Ray is dead and the main thread waits for it: end this process at any cost.

    Safe at any moment, as a kill would be.
    """

    def leave(why: str) -> None:
        if signals.requested:
            signals.end_now()
        os._exit(_replace_ray(launch, folder, why))

    return leave


def _replace_ray(launch: Launch, folder: RunFolder, why: str) -> int:
    """Start again with a new Ray; the exit code when that has been tried too often."""
    ended = sum(record.status.terminal for record in read_history(folder.journal).records.values())
    gone = launch.address is not None and (launch.address == "auto" or not answers(launch.address))
    if gone or not _may_start_again(ended):
        _say(f"gave up: {why}; when it is mended, go on with: {launch.resume_command}")
        return GAVE_UP
    _say(f"{why}; starting again from the journal")
    _start_again(launch)


def _may_start_again(ended: int) -> bool:
    """Count the replacements of a broken Ray since a trial last ended; ``ended`` trials have by now."""
    count, _, before = os.environ.get(_RESTARTS, "").partition(",")
    restarts = int(count) if count and before == str(ended) else 0
    os.environ[_RESTARTS] = f"{restarts + 1},{ended}"
    return restarts < MAX_RESTARTS


def _start_again(launch: Launch) -> NoReturn:
    """Replace this process with one that resumes the sweep: nothing of the broken Ray is left in it."""
    options = ["--resume", launch.name, "--trials", str(launch.space.budget.trials)]
    for option, value in (
        ("--parallel", launch.space.search.parallel),
        ("--tracking-uri", launch.tracking_uri),
        ("--address", launch.address),
        ("--storage", launch.storage),
    ):
        if value is not None:
            options += [option, str(value)]
    if not launch.report:
        options.append("--no-report")
    script = Path(__file__).resolve().parent / "launch.py"
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, str(script), *options])


def _build_report(name: str, uri: str, out: Path) -> bool:
    """In a process of its own: the report reads MLflow and nothing else. False, said, when it could not be built."""
    script = Path(__file__).resolve().parent.parent / "reports" / "build.py"
    command = [sys.executable, str(script), "--sweep", name, "--tracking-uri", uri, "--out", str(out), "--no-log"]
    if subprocess.run(command, check=False).returncode == 0:
        return True
    _say(f"the report could not be built; try again with: python reports/build.py --sweep {name}")
    return False


def _verdict(journal: Journal, folder: RunFolder, uri: str, writer: SweepWriter) -> int:
    statuses = [record.status for record in journal.history.records.values()]
    completed = statuses.count(Status.COMPLETED)
    counts = ", ".join(f"{statuses.count(status)} {status}" for status in Status if statuses.count(status))
    _say(f"{folder.root}: {counts or 'no trial was run (budget.hours was spent first)'}")
    _say(f"browse: {_where_to_look(uri, writer.page)}")
    return DONE if completed else GAVE_UP


def _where_to_look(uri: str, page: str) -> str:
    """A link, and the command that serves it where no server is running."""
    if uri.startswith("http"):
        return f"{uri.rstrip('/')}/{page}"
    usual = uri == f"sqlite:///{Path.cwd() / 'mlflow.db'}"
    store = "" if usual else f" --backend-store-uri {shlex.quote(redacted(uri))}"
    return f"mlflow ui{store}, then http://127.0.0.1:5000/{page}"


def _say(line: str) -> None:
    print(line, flush=True)
