"""Trials of several workers: the same numbers as one gives, and whoever of them dies, nothing is lost or left over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from repsim.records import Status
from tests.faults.evidence import alive, assert_agreement, kill, records, trial_processes, wait_until_gone
from tests.faults.group_stage import FROZEN, HEADLESS, NOWHERE, ROBBED, STOPPED, WORKER
from tests.launch.sweeping import REPOSITORY, descendants, events, launch, started, wait_for, write_space
from tests.trainer.stripes import write_images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # MLflow 3.17 reads runs with a loader that SQLAlchemy 2.1 deprecates
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]
MIXED = "workers: [{when: {method: linear_probe}, value: 1}, {when: {penalty: any}, value: 3}, {value: 2}]"
SMOOTH = ("val_nll", "test_nll", "val_cka", "test_cka", "sharpness")
"""What changes little where weights change little; an accuracy jumps."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "stripes")


def grouped(space: Path, resources: str) -> Path:
    """The same space, with these resources beside the thread that each worker has."""
    text = space.read_text().replace("cpus_per_worker: 1}", f"cpus_per_worker: 1, {resources}}}")
    assert resources in text
    space.write_text(text)
    return space


def test_two_and_three_workers_in_one_sweep_give_what_one_gives(images: Path, tmp_path: Path) -> None:
    for name, resources in (("alone", "workers: 1"), ("mixed", MIXED)):
        space = grouped(write_space(tmp_path, images, trials=4, epochs=2), resources)
        code, printed = launch(tmp_path, "--space", str(space), "--name", name, "--no-report")
        assert code == 0, printed
    alone, mixed = records(tmp_path, "alone"), records(tmp_path, "mixed")
    counts = []
    for trial_id, record in alone.items():
        one, several = record.result, mixed[trial_id].result
        assert mixed[trial_id].trial.config == record.trial.config, "the sizes change nothing about the search"
        assert one is not None
        assert several is not None
        counts.append(several.facts["workers"])
        assert several.facts["threads"] == 1
        for name in SMOOTH:
            assert several.values[name] == pytest.approx(one.values[name], rel=1e-3, abs=1e-5), (trial_id, name)
    assert counts[:2] == [1, 2]
    assert 3 in counts


def second_workers(pid: int) -> list[int]:
    """Of the trial that runs now; empty before they were started."""
    return [child for child, title in descendants(pid).items() if title.startswith(WORKER)]


def test_a_trial_that_loses_a_worker_goes_on_from_its_checkpoint(images: Path, tmp_path: Path) -> None:
    space = grouped(write_space(tmp_path, images, trials=3, epochs=100), "workers: 2")
    with started(tmp_path, "--space", str(space), "--name", "groups") as process:
        # the linear probe, which comes first, is over in an epoch
        wait_for(tmp_path, "groups", "epoch", 4, process)
        robbed = second_workers(process.pid)
        kill(robbed, signal.SIGKILL)
        printed, _ = process.communicate(timeout=240)
    assert process.returncode == 0, printed
    found = assert_agreement(tmp_path, "groups", 3)
    assert {record.status for record in found.values()} == {Status.COMPLETED}
    assert [record.attempts for record in found.values()] == [1, 2, 1]
    (told,) = [str(line["reason"]) for line in events(tmp_path, "groups") if line["event"] == "waiting"]
    assert told.startswith("worker 2 of 2 was killed from outside")
    assert told.endswith("retry 1 of 2")
    again = next(line for line in events(tmp_path, "groups") if line["event"] == "epoch" and line["attempt"] == 2)
    result = again["result"]
    assert isinstance(result, dict)
    assert result["epoch"] > 1, "from the checkpoint, not from the beginning"


def test_the_workers_of_a_killed_driver_end_by_themselves(images: Path, tmp_path: Path) -> None:
    space = grouped(write_space(tmp_path, images, trials=2, epochs=400), "workers: 2")
    with started(tmp_path, "--space", str(space), "--name", "orphans", "--no-report") as process:
        wait_for(tmp_path, "orphans", "epoch", 3, process)
        orphans = [*trial_processes(process.pid), *second_workers(process.pid)]
        assert len(orphans) >= 2
        process.kill()
        wait_until_gone(orphans, 20.0)
    assert alive(orphans) == []


def test_trials_give_everything_back(images: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.group_stage", str(tmp_path), str(images)],
        check=False,
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    heard = found["heard"]
    assert [said for said in heard if said[1] in STOPPED] == [
        said for trial_id in STOPPED for said in (["began", trial_id], ["reported", trial_id, 1])
    ]
    broken = {said[1]: said[2:] for said in heard if said[0] == "broke"}
    assert broken[ROBBED][0].startswith("worker 2 of 2 was killed from outside")
    assert broken[HEADLESS] == ["", "died"], "nobody is left to say why"
    assert broken[FROZEN] == ["hung: no epoch for a moment", "died"]
    assert " s for 2 workers with 1 CPU and 1 GPU each (limit 2 s, resources.placement_timeout)" in broken[NOWHERE][0]
    assert broken[NOWHERE][0].endswith("; there is now: 2 CPUs")
    assert (broken[ROBBED][1], broken[NOWHERE][1]) == ("died", "own")
    assert len(broken) == 4
    assert found["seen"] == 3, "one group serves the first four trials, and each that breaks is replaced"
    assert found["before"] == found["after"] == 2.0
    assert set(found["groups"]) == {"REMOVED"}
