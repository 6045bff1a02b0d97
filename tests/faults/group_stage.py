"""Real trials of two workers, one after the other, and what is left of them: ``python -m tests.faults.group_stage``.

Three are stopped after their first epoch; one loses its second worker, one its first; of one the second hangs; one asks
for a GPU that is not there. The answer, one line of JSON on stdout: what the conductor heard, and what Ray holds before
and after.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import ray
from ray.util import placement_group_table

from sweeps.engine import drive
from sweeps.placement import Machine, Share, Waiting
from sweeps.ray_cluster import cluster
from sweeps.run_folder import RunFolder
from sweeps.slots import Slots
from sweeps.trainable import Assignment, Fault, Report
from tests.faults.evidence import trial_processes, wait_until_gone
from tests.launch.sweeping import descendants
from tests.trainer.stripes import tiny_config

STOPPED, ROBBED, HEADLESS, FROZEN, NOWHERE = ("t0000", "t0001", "t0002"), "t0003", "t0004", "t0005", "t0006"
WORKER = "ray::RankProcess"


def workers() -> list[int]:
    """The trials' second workers; their titles begin with the class and go on with what they do."""
    return [pid for pid, title in descendants(os.getpid()).items() if title.startswith(WORKER)]


class Script:
    """A conductor that hands out the trials in turn and notes what it hears."""

    def __init__(self, folder: RunFolder, images: Path) -> None:
        self._folder, self._images = folder, images
        self._todo = [*STOPPED, ROBBED, HEADLESS, FROZEN, NOWHERE]
        self._places = Waiting(2.0)
        self.heard: list[list[object]] = []
        self.seen: list[int] = []
        self._hung: dict[str, str] = {}

    def next_assignment(self) -> Assignment | None:
        if not self._todo:
            return None
        trial_id = self._todo.pop(0)
        self._folder.set_attempt(trial_id, 1)
        return Assignment(
            trial_id=trial_id,
            attempt=1,
            config=tiny_config(self._images, **{"optim.epochs": 200}).flat(),
            objective=("val_accuracy", "maximize"),
            known_epochs=0,
            run_folder=str(self._folder.root),
            launched_from=os.getcwd(),
            cache_dir=str(self._folder.root.parent / "cache"),
            threads=1,
            workers=2,
            gpus=1.0 if trial_id == NOWHERE else 0.0,
        )

    @property
    def exhausted(self) -> bool:
        return not self._todo

    def reported(self, assignment: Assignment, report: Report) -> bool:
        self.heard.append(["reported", assignment.trial_id, len(report.epochs)])
        now, trial_id = workers(), assignment.trial_id
        self.seen += [pid for pid in now if pid not in self.seen]
        if trial_id not in (ROBBED, HEADLESS, FROZEN):
            return False
        if self.heard.count(self.heard[-1]) == 1:
            first = trial_processes(os.getpid()) if trial_id == HEADLESS else []
            for pid in first or now:
                os.kill(pid, signal.SIGSTOP if trial_id == FROZEN else signal.SIGKILL)
            if trial_id == FROZEN:
                self._hung[trial_id] = "hung: no epoch for a moment"
        return True

    def broke(self, assignment: Assignment, reason: str, fault: Fault) -> None:
        self.heard.append(["broke", assignment.trial_id, reason, fault])
        self._hung.pop(assignment.trial_id, None)

    def began(self, assignment: Assignment) -> None:
        self.heard.append(["began", assignment.trial_id])

    def stood_still(self, seconds: float) -> None:
        """A busy machine is no part of this."""

    def overdue(self) -> Mapping[str, str]:
        return self._hung

    def unplaced(
        self, waiting: Sequence[Assignment], busy: bool, machines: Callable[[], Sequence[Machine]]
    ) -> Mapping[str, str]:
        asked = {one.trial_id: Share(workers=one.workers, cpus=one.threads, gpus=one.gpus) for one in waiting}
        return self._places.look(asked, busy, machines)

    def put_back(self, assignment: Assignment) -> None:
        self.heard.append(["put back", assignment.trial_id])


def free_cpus(wanted: float, seconds: float) -> float:
    """The CPUs that nobody holds, as soon as they are as many as wanted, else after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        free = float(ray.available_resources().get("CPU", 0.0))
        if free == wanted or time.monotonic() > deadline:
            return free
        time.sleep(0.1)


def main(folder: str, images: str) -> None:
    """Run the script and say what became of it."""
    script = Script(RunFolder.create(Path(folder) / "runs", "groups"), Path(images))
    slots = Slots(parallel=1, threads=1, cpus=2)

    def stuck(why: str) -> None:
        raise AssertionError(why)

    with cluster(slots, None, stuck):
        before = free_cpus(2.0, 10.0)
        drive(script, slots, lambda: None)
        after = free_cpus(before, 20.0)
        groups = [group["state"] for group in placement_group_table().values()]
        wait_until_gone(script.seen, 20.0)
    told = {"heard": script.heard, "before": before, "after": after, "groups": groups}
    sys.stdout.write(json.dumps(told | {"seen": len(script.seen)}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
