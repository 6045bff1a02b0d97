"""A machine is lost with all that is on it, and the sweep goes on on another one from the mirror of its journal."""

from __future__ import annotations

import json
import shutil
import signal
import time
from datetime import datetime
from pathlib import Path

import pytest

from repsim.records import Status
from sweeps.mirror import EVERY, mirrored
from sweeps.mirror_store import Store
from tests.faults.evidence import assert_agreement, kill, wait_until_gone
from tests.launch.sweeping import descendants, events, launch, started, write_space
from tests.trainer.stripes import write_images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # MLflow 3.17 reads runs with a loader that SQLAlchemy 2.1 deprecates
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]


def test_a_lost_machine_takes_its_last_seconds_with_it_and_nothing_else(tmp_path: Path) -> None:
    images, store = write_images(tmp_path / "images"), tmp_path / "store"
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    space = write_space(here, images, trials=4, epochs=30)
    with started(here, "--space", str(space), "--name", "moved", "--storage", str(store)) as process:
        deadline = time.monotonic() + 120
        while b'"event":"ended"' not in mirrored(Store(str(store)), "moved")[1]:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        below = list(descendants(process.pid))
        process.kill()
        kill(below, signal.SIGKILL)
        process.wait()
    wait_until_gone(below, 20)
    journal = (here / "runs" / "moved" / "journal.jsonl").read_bytes()
    known = mirrored(Store(str(store)), "moved")[1]
    assert journal.startswith(known)
    last_known, last = (line_at(content, -1) for content in (known, journal))
    assert seconds_between(last_known, last) < EVERY + 5.0
    ended = {str(line["trial_id"]) for line in events(here, "moved")[: known.count(b"\n")] if line["event"] == "ended"}
    assert ended
    shutil.rmtree(here)

    code, printed = launch(there, "--resume", "moved", "--storage", str(store))
    assert code == 0, printed
    found = assert_agreement(there, "moved", 4)
    assert {record.status for record in found.values()} == {Status.COMPLETED}
    again = events(there, "moved")[known.count(b"\n") :]
    assert not ended & {str(line["trial_id"]) for line in again if line["event"] == "started"}, "none runs again"
    assert mirrored(Store(str(store)), "moved")[1] == (there / "runs" / "moved" / "journal.jsonl").read_bytes()


def line_at(content: bytes, index: int) -> dict[str, object]:
    """One line of a journal."""
    line: dict[str, object] = json.loads(content.splitlines()[index])
    return line


def seconds_between(first: dict[str, object], second: dict[str, object]) -> float:
    """From one line to another."""
    moments = [datetime.fromisoformat(str(line["at"])) for line in (first, second)]
    return (moments[1] - moments[0]).total_seconds()
