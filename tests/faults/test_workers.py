"""Trials' processes are killed, crash, hang; Ray itself dies; one bad configuration, and nothing but bad ones."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from repsim.records import Status
from sweeps.conductor import GIVE_UP_AFTER, MAX_RETRIES
from sweeps.trainable import GROWN_MIB, RECYCLED_AFTER
from tests.faults.evidence import alive, assert_agreement, kill, numbers, records, trial_processes
from tests.launch.sweeping import (
    REPOSITORY,
    descendants,
    events,
    launch,
    started,
    wait_for,
    wait_for_workers,
    write_space,
)
from tests.trainer.stripes import write_images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # MLflow 3.17 reads runs with a loader that SQLAlchemy 2.1 deprecates
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "stripes")


def reasons(folder: Path, name: str) -> list[str]:
    """Why trials were put back, in order."""
    return [str(line["reason"]) for line in events(folder, name) if line["event"] == "waiting"]


def test_a_worker_killed_every_few_seconds_loses_nothing(images: Path, tmp_path: Path) -> None:
    space = write_space(tmp_path, images, trials=6, epochs=120, parallel=2)
    dice = random.Random("workers")
    killed = 0
    with started(tmp_path, "--space", str(space), "--name", "hunted") as process:
        wait_for(tmp_path, "hunted", "epoch", 1, process)
        while process.poll() is None and killed < 8:
            workers = trial_processes(process.pid)
            if workers:
                kill([dice.choice(workers)], signal.SIGKILL)
                killed += 1
            time.sleep(dice.uniform(1.5, 4.0))
        printed, _ = process.communicate(timeout=240)
    assert process.returncode == 0, printed
    assert killed >= 4
    found = assert_agreement(tmp_path, "hunted", 6)
    assert len(reasons(tmp_path, "hunted")) + sum(r.status is Status.FAILED for r in found.values()) >= 1
    for record in found.values():
        assert record.deaths <= MAX_RETRIES
        if record.status is Status.FAILED:
            assert "killed from outside" in record.reason
            assert f"given up after {MAX_RETRIES + 1} times" in record.reason
            assert "lower --parallel" in record.reason
    assert all("retry" in reason for reason in reasons(tmp_path, "hunted"))


@pytest.fixture(scope="module")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three trials that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    space = limited(write_space(folder, images, trials=3, epochs=40))
    code, printed = launch(folder, "--space", str(space), "--name", "calm")
    assert code == 0, printed
    return folder


def limited(space: Path) -> Path:
    """The same space, where twelve seconds without an epoch mean that a trial hangs."""
    text = space.read_text().replace("cpus_per_worker: 1}", "cpus_per_worker: 1, epoch_timeout: 12}")
    assert "epoch_timeout" in text
    space.write_text(text)
    return space


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (signal.SIGSEGV, "the trial's process crashed: Segmentation fault"),
        (signal.SIGABRT, "the trial's process crashed: Aborted"),
        (signal.SIGKILL, "killed from outside"),
        (signal.SIGSTOP, "hung: no epoch for"),
    ],
)
def test_a_worker_that_dies_or_hangs_goes_on_from_its_checkpoint(
    images: Path, tmp_path: Path, undisturbed: Path, number: signal.Signals, told: str
) -> None:
    space = limited(write_space(tmp_path, images, trials=3, epochs=40))
    with started(tmp_path, "--space", str(space), "--name", "calm") as process:
        wait_for(tmp_path, "calm", "epoch", 12, process)
        workers = wait_for_workers(process.pid)
        kill(workers, number)
        printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    assert alive(workers) == []
    found = assert_agreement(tmp_path, "calm", 3)
    assert [told in reason for reason in reasons(tmp_path, "calm")] == [True], reasons(tmp_path, "calm")
    again = next(line for line in events(tmp_path, "calm") if line["event"] == "epoch" and line["attempt"] == 2)
    result = again["result"]
    assert isinstance(result, dict)
    assert result["epoch"] > 1, "from the checkpoint, not from the beginning"
    for trial_id, record in records(undisturbed, "calm").items():
        assert found[trial_id].trial.params == record.trial.params
        assert numbers(found[trial_id]) == numbers(record)


@pytest.mark.parametrize("part", ["raylet", "gcs_server"])
def test_when_ray_itself_dies_the_sweep_starts_a_new_one(images: Path, tmp_path: Path, part: str) -> None:
    space = write_space(tmp_path, images, trials=4, epochs=40, parallel=2)
    with started(tmp_path, "--space", str(space), "--name", "new") as process:
        wait_for(tmp_path, "new", "epoch", 6, process)
        pids = [pid for pid, command in descendants(process.pid).items() if command.split()[0].endswith(f"/{part}")]
        assert pids
        kill(pids, signal.SIGKILL)
        printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    assert f"Ray's {part} died; starting again from the journal" in printed
    assert {record.status for record in assert_agreement(tmp_path, "new", 4).values()} == {Status.COMPLETED}


def test_nothing_but_bad_configurations_end_the_sweep_with_the_cause(images: Path, tmp_path: Path) -> None:
    space = write_space(tmp_path, images, trials=12, epochs=2)
    space.write_text(space.read_text() + "  optim.lr: {value: [1.0e+30, 1.1e+30], when: {adapter: full}}\n")
    code, printed = launch(tmp_path, "--space", str(space), "--name", "bad")
    assert code == 1, printed
    assert f"gave up: {GIVE_UP_AFTER} trials in a row failed with the same cause" in printed
    assert "python sweeps/launch.py --resume bad" in printed
    failed = [record for record in records(tmp_path, "bad").values() if record.status is Status.FAILED]
    assert len(failed) == GIVE_UP_AFTER
    assert all("the training loss became" in record.reason for record in failed)


LEAKY = f"""
import sys
from sweeps import engine, launch

class Leaky(engine.TrialProcess):
    kept = ()

    def reset_config(self, new_config):
        self.kept = [*self.kept, bytearray(b"x" * {round(2**20 * GROWN_MIB / 32)})]
        return super().reset_config(new_config)

engine.TrialProcess = Leaky
sys.exit(launch.main(sys.argv[1:]))
"""


def test_a_slot_that_has_grown_is_replaced_after_so_many_trials_and_none_is_lost(images: Path, tmp_path: Path) -> None:
    asked = RECYCLED_AFTER + 4
    space = write_space(tmp_path, images, trials=asked, epochs=1)
    space.write_text(space.read_text().replace("[full, linear_probe, repsim, hcs]", "[full, linear_probe]"))
    space.write_text(space.read_text() + "  optim.lr: {low: 1.0e-5, high: 1.0e-2, log: true}\n")
    text = space.read_text()
    space.write_text("\n".join(line for line in text.splitlines() if "strength" not in line) + "\n")
    done = subprocess.run(
        [sys.executable, "-c", LEAKY, "--space", str(space), "--name", "long"],
        check=False,
        cwd=tmp_path,
        env=os.environ | {"REPSIM_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert_agreement(tmp_path, "long", asked)
    assert reasons(tmp_path, "long") == ["its slot was replaced before it began"]
