"""How a launch ends, whatever happens in it: its exit code, what it says, and when it starts itself again."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from repsim.errors import RequestError
from repsim.records import EPOCH_METRICS, FACTS, METRICS, EpochResult, Status, TrialResult
from sweeps import session
from sweeps.arguments import parse_arguments
from sweeps.disk import Disk
from sweeps.engine import Conductor
from sweeps.estimate import estimate
from sweeps.journal import Journal, LeaseLost, read_history
from sweeps.lease import LEASE_NAME
from sweeps.preflight import Looked
from sweeps.ray_cluster import EngineLost
from sweeps.request import Launch
from sweeps.run_folder import RunFolder
from sweeps.signals import Interrupted, Signals
from sweeps.slots import Slots
from sweeps.space import load_space
from sweeps.trainable import Report
from sweeps.trial import TrialRecord

LOOKED = Looked(n_images={"phantom:tiny": 60}, parameters=1000)


@dataclass
class Writer:
    """Where MLflow's writer would be: notes what it is told."""

    calls: list[tuple[object, ...]] = field(default_factory=list)
    refuses: RequestError | None = None
    page: str = "#/experiments/1/runs"

    def check(self) -> None:
        if self.refuses is not None:
            raise self.refuses

    def start(self) -> str:
        self.calls.append(("start",))
        return "run"

    def update(self, record: TrialRecord, derived: Sequence[TrialRecord]) -> None:
        self.calls.append(("update", record.trial.trial_id, record.status))

    def set_reference(self, data: str, reference: object, ideal: object) -> None:
        self.calls.append(("reference", data))

    def sweep_values(self, step: int, values: object) -> None:
        """Of no interest here."""

    def set_front(self, trial_ids: object) -> None:
        """Of no interest here."""

    def attach(self, trial_id: str, send: object) -> None:
        self.calls.append(("attach", trial_id))

    def log_report(self, folder: Path) -> None:
        self.calls.append(("report", folder))

    def flush(self, timeout: float) -> bool:
        return True

    def end(self, status: str) -> None:
        self.calls.append(("end", status))

    def close(self, status: str, timeout: float = 30.0) -> None:
        self.calls.append(("close", status))

    def stop(self) -> None:
        self.calls.append(("stop",))

    @property
    def closed(self) -> list[object]:
        return [call[1] for call in self.calls if call[0] == "close"]


class Executed(BaseException):
    """What ``os.execv`` does not come back from."""


@dataclass
class World:
    """A launch whose MLflow, preflight, Ray and exec are the test's. ``during`` is the sweep itself."""

    launch: Launch
    writer: Writer
    executed: list[tuple[str, list[str]]] = field(default_factory=list)
    during: Callable[[Conductor, Callable[[], None]], None] = lambda conductor, check: None
    signals: Signals = field(default_factory=Signals)
    reports: list[Path] = field(default_factory=list)
    report_fails: bool = False

    @property
    def journal(self) -> Path:
        return self.launch.runs_dir / "x" / "journal.jsonl"

    def run(self) -> int:
        return session.run(self.launch, self.signals)

    def again(self) -> None:
        self.launch = replace(self.launch, resume=True)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    space = load_space("quick.yaml", trials=3)
    launch = Launch(space=space, name="x", runs_dir=tmp_path / "runs", resume=False, command="launch", report=False)
    made = World(launch=launch, writer=Writer())

    @contextmanager
    def cluster(slots: Slots, address: str | None, on_stuck: Callable[[str], None]) -> Iterator[None]:
        yield

    def build(name: str, uri: str, out: Path) -> bool:
        made.reports.append(out)
        return not made.report_fails

    def execv(program: str, arguments: list[str]) -> None:
        made.executed.append((program, arguments))
        raise Executed

    monkeypatch.delenv("REPSIM_RESTARTS", raising=False)
    monkeypatch.setattr(session, "resolve_tracking_uri", lambda uri: f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(session, "provenance", lambda: {"git_commit": "none"})
    monkeypatch.setattr(session, "preflight", lambda space, *, cache_dir, say: LOOKED)
    monkeypatch.setattr(session, "SweepWriter", lambda **given: made.writer)
    monkeypatch.setattr(session, "cluster", cluster)
    monkeypatch.setattr(session, "drive", lambda conductor, slots, check: made.during(conductor, check))
    monkeypatch.setattr(session, "_build_report", build)
    monkeypatch.setattr(os, "execv", execv)
    return made


def finish(conductor: Conductor, check: Callable[[], None], trials: int | None = None) -> None:
    """Run ``trials`` (all there are) to their ends, as the engine would."""
    values = dict.fromkeys(METRICS, 0.5)
    result = TrialResult(chosen_epoch=1, epochs=1, values=values, facts=dict.fromkeys(FACTS, 1)).to_dict()
    epoch = EpochResult(
        epoch=1,
        values=dict.fromkeys(EPOCH_METRICS, 0.5),
        train_loss=1.0,
        train_penalty=None,
        learning_rate=1e-3,
        steps=3,
        train_seconds=0.1,
        seconds=0.2,
    ).to_dict()
    done = 0
    while done != trials:
        check()
        assignment = conductor.next_assignment()
        if assignment is None:
            return
        conductor.reported(assignment, Report(epochs=[epoch], result=result))
        done += 1


def failing(error: BaseException, after: int = 1) -> Callable[[Conductor, Callable[[], None]], None]:
    """A sweep that ends with ``error`` after so many trials."""

    def during(conductor: Conductor, check: Callable[[], None]) -> None:
        finish(conductor, check, trials=after)
        raise error

    return during


def free(monkeypatch: pytest.MonkeyPatch, count: float) -> list[Path]:
    """Pretend that so many bytes are free; the folders that were asked about are returned."""
    asked: list[Path] = []

    def usage(folder: Path) -> SimpleNamespace:
        asked.append(folder)
        return SimpleNamespace(total=10**12, used=0, free=int(count))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    return asked


# the ends


def test_a_sweep_that_goes_well(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.during = finish
    assert world.run() == session.DONE == 0
    history = read_history(world.journal)
    assert history.finished
    assert [record.status for record in history.records.values()] == [Status.COMPLETED] * 3
    assert world.writer.closed == ["completed"]
    names = [call[0] for call in world.writer.calls]
    assert "attach" in names
    assert names.index("attach") < names.index("end"), "queued before the end, and sent after it"
    assert "3 completed" in capsys.readouterr().out
    assert not (world.journal.parent / LEASE_NAME).exists(), "the lease is given back"


def test_a_sweep_says_where_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = "#/experiments/1/runs"
    here, there = f"sqlite:///{tmp_path}/mlflow.db", "sqlite:////else where/mlflow.db"
    assert session._where_to_look(here, page) == f"mlflow ui, then http://127.0.0.1:5000/{page}"
    assert session._where_to_look(there, page).startswith(f"mlflow ui --backend-store-uri '{there}', then http")
    assert session._where_to_look("http://host:80/", page) == f"http://host:80/{page}"
    assert "secret" not in session._where_to_look("postgresql://me:secret@host/db", page)


def test_a_finished_sweep_is_only_told_again(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.during = finish
    world.run()
    world.again()
    world.writer.calls.clear()

    def during(conductor: Conductor, check: Callable[[], None]) -> None:
        raise AssertionError("nothing is left to run")

    world.during = during
    assert world.run() == session.DONE
    told = [call for call in world.writer.calls if call[0] in ("update", "reference")]
    assert told == [
        ("reference", "phantom:tiny"),
        *(("update", f"t{number:04d}", Status.COMPLETED) for number in range(3)),
    ]
    assert read_history(world.journal).finished


def test_a_reference_that_a_killed_driver_did_not_write_is_fixed_by_a_resume(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.launch = replace(world.launch, space=load_space("quick.yaml", trials=2))
    world.during = finish

    def killed(journal: Journal, data: str, values: object) -> None:
        raise Interrupted("SIGKILL, as far as the journal can tell")

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "reference", killed)
        assert world.run() == session.INTERRUPTED
    world.again()
    assert world.run() == session.DONE
    assert list(read_history(world.journal).references) == ["phantom:tiny"]


def test_the_report_is_built_kept_and_not_missed(world: World) -> None:
    world.launch = replace(world.launch, report=True)
    world.during = finish
    assert world.run() == session.DONE
    out = world.journal.parent / "report"
    assert world.reports == [out]
    assert ("report", out) in world.writer.calls
    world.again()
    world.report_fails = True
    world.writer.calls.clear()
    assert world.run() == session.DONE, "trials are what counts"
    assert ("report", out) not in world.writer.calls


def test_a_sweep_without_a_completed_trial_exits_1(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    def during(conductor: Conductor, check: Callable[[], None]) -> None:
        for cause in "abc":
            assignment = conductor.next_assignment()
            assert assignment is not None
            conductor.broke(assignment, f"{cause}Error: no", "own")
        assert conductor.next_assignment() is None

    world.during = during
    assert world.run() == session.GAVE_UP == 1
    assert "3 failed" in capsys.readouterr().out


def test_a_sweep_that_gives_up_says_why_and_is_not_finished(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.launch = replace(world.launch, space=load_space("quick.yaml", trials=8))

    def during(conductor: Conductor, check: Callable[[], None]) -> None:
        while (assignment := conductor.next_assignment()) is not None:
            conductor.broke(assignment, "ValueError: no such layer", "own")

    world.during = during
    assert world.run() == session.GAVE_UP
    said = capsys.readouterr().out
    assert "gave up: 5 trials in a row failed with the same cause: ValueError: no such layer" in said
    assert "python sweeps/launch.py --resume x" in said
    assert not read_history(world.journal).finished
    assert world.writer.closed == ["failed"]


@pytest.mark.parametrize("error", [Interrupted("SIGTERM"), KeyboardInterrupt()], ids=["signal", "keyboard"])
def test_an_interrupted_sweep_says_how_to_go_on(
    world: World, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    world.during = failing(error)
    assert world.run() == session.INTERRUPTED == 130
    assert "interrupted; go on with: python sweeps/launch.py --resume x" in capsys.readouterr().out
    assert world.writer.closed == ["interrupted"]
    world.again()
    world.during = finish
    assert world.run() == session.DONE
    history = read_history(world.journal)
    assert history.resumes == 1
    assert [record.attempts for record in history.records.values()] == [1, 1, 1]


def test_a_ray_that_ends_before_the_sweep_is_an_interruption(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.during = lambda conductor, check: finish(conductor, check, trials=2)
    assert world.run() == session.INTERRUPTED
    assert "--resume x" in capsys.readouterr().out
    assert not read_history(world.journal).finished


def test_a_launch_that_lost_its_lease_ends_without_writing(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    content: list[bytes] = []

    def during(conductor: Conductor, check: Callable[[], None]) -> None:
        finish(conductor, check, trials=1)
        (world.journal.parent / LEASE_NAME).unlink()
        content.append(world.journal.read_bytes())
        finish(conductor, check, trials=1)

    world.during = during
    assert world.run() == session.GAVE_UP
    said = capsys.readouterr().out
    assert "this launch does not hold the sweep any more: its lease.json was removed" in said
    assert said.endswith("; this one ends without writing any more\n")
    assert world.journal.read_bytes() == content[0]
    assert "completed" not in world.writer.closed


def test_a_launch_that_lost_its_lease_leaves_mlflow_alone(world: World) -> None:
    world.during = failing(LeaseLost("another one has it"))
    world.run()
    assert any(call[0] not in ("start", "update", "reference") for call in world.writer.calls), "it is told to stop"


def test_a_disk_that_refuses_ends_the_launch_in_one_line(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.during = failing(OSError(5, "Input/output error", "journal.jsonl"))
    assert world.run() == session.GAVE_UP
    said = capsys.readouterr().out.splitlines()[-1]
    assert "the disk refuses: " in said
    assert "[Errno 5] Input/output error: 'journal.jsonl'" in said.replace("\\", "")
    assert said.endswith("python sweeps/launch.py --resume x")
    assert world.writer.closed == ["interrupted"]


def test_a_request_that_cannot_be_served_leaves_nothing(world: World) -> None:
    from repsim.errors import Mistake

    world.writer.refuses = RequestError(Mistake(where="http://x", key="", problem="MLflow refuses: no route"))
    with pytest.raises(RequestError, match="MLflow refuses: no route"):
        world.run()
    assert not world.launch.runs_dir.exists()


def test_an_error_of_ours_is_not_hidden(world: World) -> None:
    world.during = failing(ZeroDivisionError("x"))
    with pytest.raises(ZeroDivisionError, match="x"):
        world.run()
    assert not (world.journal.parent / LEASE_NAME).exists()


# starting again


def test_a_broken_ray_is_replaced_by_a_new_process(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.launch = replace(world.launch, tracking_uri="http://host:5000", address="10.0.0.1:6379")

    def during(conductor: Conductor, check: Callable[[], None]) -> None:
        finish(conductor, check, trials=1)
        raise EngineLost("Ray's raylet died")

    world.during = during
    with pytest.raises(Executed):
        world.run()
    assert "Ray's raylet died; starting again from the journal" in capsys.readouterr().out
    assert world.writer.closed == ["interrupted"]
    assert not (world.journal.parent / LEASE_NAME).exists(), "the next one must be able to take it"
    ((program, arguments),) = world.executed
    assert (program, arguments[0]) == (sys.executable, sys.executable)
    assert Path(arguments[1]) == Path(session.__file__).parent / "launch.py"
    asked = parse_arguments(arguments[2:])
    assert (asked.resume, asked.trials, asked.parallel, asked.report) == ("x", 3, None, False)
    assert (asked.tracking_uri, asked.address) == ("http://host:5000", "10.0.0.1:6379")


def test_it_is_started_again_as_it_was_asked_for(world: World) -> None:
    space = load_space("quick.yaml", trials=7, parallel=2)
    with pytest.raises(Executed):
        session._start_again(replace(world.launch, space=space, report=True))
    asked = parse_arguments(world.executed[0][1][2:])
    assert (asked.resume, asked.trials, asked.parallel, asked.report) == ("x", 7, 2, True)
    assert (asked.tracking_uri, asked.address) == (None, None)


def test_restarts_are_counted_from_the_last_trial_that_ended(world: World) -> None:
    assert [session._may_start_again(4) for _ in range(session.MAX_RESTARTS + 2)] == [True] * 3 + [False] * 2
    assert session._may_start_again(5), "a trial has ended: it gets somewhere"
    assert [session._may_start_again(5) for _ in range(3)] == [True, True, False]


def test_a_ray_that_stays_broken_is_given_up(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.during = failing(EngineLost("Ray's raylet died"))
    with pytest.raises(Executed):
        world.run()
    world.again()
    world.during = failing(EngineLost("Ray's raylet died"), after=0)
    for _ in range(session.MAX_RESTARTS - 1):
        with pytest.raises(Executed):
            world.run()
    capsys.readouterr()
    assert world.run() == session.GAVE_UP
    said = capsys.readouterr().out
    assert "gave up: Ray's raylet died; when it is mended, go on with: python sweeps/launch.py --resume x" in said
    assert len(world.executed) == session.MAX_RESTARTS
    assert world.writer.closed == ["interrupted"] * (session.MAX_RESTARTS + 1)


def test_a_signal_goes_before_a_new_start(world: World) -> None:
    def during(conductor: Conductor, check: Callable[[], None]) -> None:
        world.signals._receive(15, None)
        raise EngineLost("Ray's raylet died")

    world.during = during
    assert world.run() == session.INTERRUPTED


# signals around the journal's beginning


def test_a_signal_before_there_is_anything_to_resume_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looking(*_: object, **__: object) -> Looked:
        raise Interrupted("SIGINT")

    monkeypatch.setattr(session, "preflight", looking)
    with pytest.raises(Interrupted):
        world.run()
    assert not world.launch.runs_dir.exists()


def signalled(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal arrives while the run folder is being made."""
    create = RunFolder.create

    def creating(*given: object) -> RunFolder:
        folder = create(*given)  # type: ignore[arg-type]
        world.signals._receive(15, None)
        return folder

    monkeypatch.setattr(RunFolder, "create", creating)


def test_a_signal_while_the_folder_is_made_leaves_a_whole_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    signalled(world, monkeypatch)
    assert world.run() == session.INTERRUPTED
    assert read_history(world.journal).records == {}
    world.again()
    world.signals, world.during = Signals(), finish
    assert world.run() == session.DONE


@pytest.mark.parametrize("resume", [False, True])
def test_an_interruption_says_how_to_go_on_as_soon_as_there_is_a_folder(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], resume: bool
) -> None:
    if resume:
        world.during = failing(Interrupted("SIGTERM"))
        world.run()
        world.again()

        def opening(path: Path, *, say: object) -> Journal:
            raise Interrupted("SIGTERM")  # while it waits for another host's lease

        monkeypatch.setattr(Journal, "open", opening)
    else:
        signalled(world, monkeypatch)
    capsys.readouterr()
    assert world.run() == session.INTERRUPTED
    assert "--resume x" in capsys.readouterr().out


def test_a_resume_on_a_full_disk_ends_in_one_line(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.during = failing(Interrupted("SIGTERM"))
    world.run()
    world.again()

    def full(journal: Journal) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Journal, "resumed", full)
    assert world.run() == session.GAVE_UP
    assert "--resume x" in capsys.readouterr().out


# space


def test_a_sweep_that_does_not_fit_is_refused_in_one_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = estimate(world.launch.space, LOOKED.n_images, 1, parameters=LOOKED.parameters).run_bytes
    assert needed > 0
    asked = free(monkeypatch, needed - 1)
    with pytest.raises(RequestError) as caught:
        world.run()
    text = str(caught.value)
    assert text == (
        f"{world.launch.runs_dir}: the sweep needs about {needed / 1e6:.1f} MB, {(needed - 1) / 1e6:.1f} MB are free"
    )
    assert asked == [world.launch.runs_dir.parent], "the nearest folder that exists"
    assert not world.launch.runs_dir.exists()


def test_a_sweep_that_just_fits_is_begun(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "choose_slots", lambda space: Slots(parallel=1, threads=1))
    needed = estimate(world.launch.space, LOOKED.n_images, 1, parameters=LOOKED.parameters).run_bytes
    free(monkeypatch, needed)
    world.during = finish
    assert world.run() == session.DONE


def test_bigger_networks_and_more_slots_need_more_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "choose_slots", lambda space: Slots(parallel=4, threads=1))
    free(monkeypatch, 50e6)
    session._check_disk(world.launch, LOOKED)
    with pytest.raises(RequestError, match=r"the sweep needs about \d+\.\d MB, 50\.0 MB are free"):
        session._check_disk(world.launch, replace(LOOKED, parameters=1_100_000))


def test_a_trial_needs_room_for_two_checkpoints_and_its_model(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    reserves: list[int] = []

    def noting(folder: Path, *, reserve: int, say: Callable[[str], None], check: Callable[[], None]) -> Disk:
        reserves.append(reserve)
        return Disk(folder, reserve, say, check)

    monkeypatch.setattr(session, "Disk", noting)
    world.during = finish
    world.run()
    assert reserves == [2 * 1000 * 12 + 1000 * 4]


def test_a_resume_needs_room_for_the_rest_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "choose_slots", lambda space: Slots(parallel=1, threads=1))
    world.during = failing(Interrupted("SIGTERM"), after=2)
    world.run()
    world.again()
    needed = estimate(world.launch.space, LOOKED.n_images, 1, parameters=LOOKED.parameters).run_bytes
    free(monkeypatch, needed / 2)  # a third of the trials is left
    world.during = finish
    assert world.run() == session.DONE


def test_many_trials_at_a_time_beside_a_short_start_are_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    space = load_space("quick.yaml", trials=12)
    search = session.Search(space)
    session._warn_of_parallel(search, Slots(parallel=search.startup // 2, threads=1))
    assert capsys.readouterr().out == ""
    session._warn_of_parallel(search, Slots(parallel=search.startup, threads=1))
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "5 trials at a time are many where the first 5 are drawn without looking at results" in said
    assert "--parallel 2" in said
    blind = session.Search(load_space("quick.yaml", ["search.sampler=random"], trials=12))
    session._warn_of_parallel(blind, Slots(parallel=12, threads=1))
    assert capsys.readouterr().out == "", "nothing is learnt anyway"


def test_what_ended_a_search_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    space = load_space("quick.yaml", ["confirm.seeds=3"], trials=12)
    search = session.Search(space)
    session._say_how_it_ended(space, search)
    assert capsys.readouterr().out == ""
    search.close("budget.hours")
    session._say_how_it_ended(space, search)
    assert capsys.readouterr().out.splitlines() == [
        "the search ended: budget.hours",
        "the confirmation ended: nothing to confirm (no search run completed within the constraints)",
    ]
