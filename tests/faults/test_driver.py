"""The driver is killed, whenever; asked to stop, whenever; started twice."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from repsim.records import Status
from tests.faults.evidence import (
    alive,
    assert_agreement,
    kill,
    numbers,
    records,
    trial_processes,
    wait_until_gone,
)
from tests.launch.sweeping import descendants, events, launch, started, wait_for, wait_for_workers, write_space
from tests.trainer.stripes import write_images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # MLflow 3.17 reads runs with a loader that SQLAlchemy 2.1 deprecates
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]
TRIALS, EPOCHS, KILLS = 8, 40, 20


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "stripes")


def die_at_a_random_moment(folder: Path, arguments: list[str], moments: random.Random, *, early: bool) -> bool:
    """Start a driver and kill it: ``early`` by the clock, else some lines later. False when it ended before."""
    before = len(events(folder, "whole"))
    with started(folder, *arguments) as process:
        seconds, lines = moments.uniform(0.0, 10.0), moments.randint(1, 30)
        deadline = time.monotonic() + (seconds if early else 120.0)
        while time.monotonic() < deadline and process.poll() is None:
            if not early and len(events(folder, "whole")) >= before + lines:
                break
            time.sleep(0.02)
        if process.poll() is not None:
            assert process.returncode == 0, process.communicate()[0]
            return False
        process.kill()  # the driver alone: its workers are left to the fence, and to themselves
        process.wait()
    return True


@pytest.mark.parametrize(("parallel", "kills"), [(1, KILLS), (2, 6)])
def test_a_driver_killed_at_random_moments_gives_what_an_uninterrupted_one_gives(
    images: Path, tmp_path: Path, parallel: int, kills: int
) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    for folder in (whole, torn):
        folder.mkdir()
        write_space(folder, images, trials=TRIALS, epochs=EPOCHS, parallel=parallel)
    code, printed = launch(whole, "--space", "tiny.yaml", "--name", "whole")
    assert code == 0, printed
    moments = random.Random(f"{parallel} at a time")
    killed = 0
    while killed < kills:
        resumable = (torn / "runs" / "whole" / "journal.jsonl").exists()
        arguments = ["--resume", "whole"] if resumable else ["--space", "tiny.yaml", "--name", "whole"]
        if not die_at_a_random_moment(torn, arguments, moments, early=killed % 2 == 0):
            break
        killed += 1
    assert killed == kills, "the sweep was over too soon to be killed so often"
    code, printed = launch(torn, "--resume", "whole")
    assert code == 0, printed
    after, expected = assert_agreement(torn, "whole", TRIALS), records(whole, "whole")
    assert {record.status for record in after.values()} == {Status.COMPLETED}
    starts = [line for line in events(torn, "whole") if line["event"] == "started"]
    ended = {str(line["trial_id"]): line["seq"] for line in events(torn, "whole") if line["event"] == "ended"}
    assert all(start["seq"] < ended[str(start["trial_id"])] for start in starts), "nothing finished is run again"
    if parallel == 1:
        for trial_id, record in expected.items():
            assert after[trial_id].trial.params == record.trial.params
            assert numbers(after[trial_id]) == numbers(record)
            assert [epoch.values for epoch in after[trial_id].epochs] == [epoch.values for epoch in record.epochs]


def wait_for_state(state: str, folder: Path, name: str, process: subprocess.Popen[str]) -> None:
    """Return when the driver has reached a state."""
    known = len(events(folder, name))
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        below = descendants(process.pid)
        reached = {
            "importing": True,
            "the journal": len(events(folder, name)) > known,
            "starting Ray": any("gcs_server" in command for command in below.values()),
            "starting trials": bool(trial_processes(process.pid)),
            "training": sum(line["event"] == "epoch" for line in events(folder, name)[known:]) > 2,
            "all of its processes at once": bool(trial_processes(process.pid)),
            "a trial that does not react": bool(trial_processes(process.pid)),
            "the report": any("reports/build.py" in command for command in below.values()),
        }[state]
        if reached:
            return
        time.sleep(0.02)
    raise AssertionError(f"{state} was not reached; exit code {process.poll()}")


def test_a_signal_in_any_state_stops_cleanly_within_ten_seconds(images: Path, tmp_path: Path) -> None:
    write_space(tmp_path, images, trials=4, epochs=60, parallel=2)
    states = ["importing", "the journal", "starting Ray", "starting trials", "training"]
    states += ["a trial that does not react", "all of its processes at once", "the report"]
    numbers_sent = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]
    seconds: dict[str, float] = {}
    for number, state in enumerate(states):
        resumable = (tmp_path / "runs" / "stopped").exists()
        arguments = ["--resume", "stopped"] if resumable else ["--space", "tiny.yaml", "--name", "stopped"]
        with started(tmp_path, *arguments) as process:
            if state == "importing":
                time.sleep(0.8)
            wait_for_state(state, tmp_path, "stopped", process)
            below = list(descendants(process.pid))
            if state == "a trial that does not react":
                wait_for(tmp_path, "stopped", "epoch", 1, process)
                kill(trial_processes(process.pid), signal.SIGSTOP)
            began = time.monotonic()
            if state == "all of its processes at once":  # as batch systems do it
                kill(below, signal.SIGTERM)
            process.send_signal(numbers_sent[number % 3])
            printed, _ = process.communicate(timeout=60)
            seconds[state] = time.monotonic() - began
        assert process.returncode == 130, f"{state}: {process.returncode}\n{printed}"
        assert "Traceback" not in printed, f"{state}: {printed}"
        if (tmp_path / "runs" / "stopped").exists():
            assert "python sweeps/launch.py --resume stopped" in printed, f"{state}: {printed}"
        else:
            assert "interrupted before the sweep began" in printed, f"{state}: {printed}"
        wait_until_gone(below, 20)
    assert max(seconds.values()) <= 10.0, seconds
    code, printed = launch(tmp_path, "--resume", "stopped")
    assert code == 0, printed
    assert_agreement(tmp_path, "stopped", 4)


def test_a_second_driver_is_refused_while_the_first_goes_on(images: Path, tmp_path: Path) -> None:
    write_space(tmp_path, images, trials=3, epochs=60)
    with started(tmp_path, "--space", "tiny.yaml", "--name", "shared") as first:
        wait_for(tmp_path, "shared", "epoch", 1, first)
        before = len(events(tmp_path, "shared"))
        code, printed = launch(tmp_path, "--resume", "shared")
        assert code == 2, printed
        assert len(printed.strip().splitlines()) == 1, printed
        assert f"pid {first.pid}" in printed
        code, printed = launch(tmp_path, "--space", "tiny.yaml", "--name", "shared")
        assert code == 2, printed
        assert "exists already; resume it" in printed
        assert first.poll() is None, "the first one was still at work"
        assert len(events(tmp_path, "shared")) > before
        printed, _ = first.communicate(timeout=240)
    assert first.returncode == 0, printed
    assert_agreement(tmp_path, "shared", 3)


@pytest.mark.parametrize("with_ray", [False, True], ids=["the driver alone", "and Ray's processes"])
def test_orphans_end_by_themselves_and_write_nothing(images: Path, tmp_path: Path, with_ray: bool) -> None:
    write_space(tmp_path, images, trials=3, epochs=400)
    with started(tmp_path, "--space", "tiny.yaml", "--name", "orphans") as process:
        wait_for(tmp_path, "orphans", "epoch", 12, process)
        workers = wait_for_workers(process.pid)
        ray_own = [pid for pid, command in descendants(process.pid).items() if "raylet" in command or "gcs" in command]
        process.kill()
        if with_ray:
            kill(ray_own, signal.SIGKILL)
        process.wait()
        # the next driver's first act is to raise the fence
        lines = len(events(tmp_path, "orphans"))
        wait_until_gone(workers, 15)
        assert len(events(tmp_path, "orphans")) == lines
        assert alive(workers) == []
