"""A disk of a few megabytes: too small, or filled by somebody else in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from repsim.records import Status
from tests.faults.evidence import assert_agreement
from tests.launch.sweeping import events, launch, started, wait_for, write_space
from tests.trainer.stripes import write_images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # MLflow 3.17 reads runs with a loader that SQLAlchemy 2.1 deprecates
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "stripes")


def mounted(folder: Path, megabytes: int) -> Iterator[Path]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small disk can only be made where tmpfs may be mounted (root)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "disk", 24)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "disk", 3)


def test_a_sweep_that_does_not_fit_is_refused(images: Path, tiny_disk: Path) -> None:
    space = write_space(tiny_disk, images, trials=40)
    code, printed = launch(tiny_disk, "--space", str(space), "--name", "large", "--tracking-uri", "sqlite:////tmp/x.db")
    assert code == 2, printed
    assert "the sweep needs about" in printed
    assert not (tiny_disk / "runs").exists()


def test_a_disk_that_fills_up_pauses_the_sweep(images: Path, small_disk: Path) -> None:
    space = write_space(small_disk, images, trials=5, epochs=60, parallel=2)
    with started(small_disk, "--space", str(space), "--name", "full") as process:
        printed: list[str] = []
        assert process.stdout is not None
        reader = threading.Thread(target=lambda: printed.extend(process.stdout or ()), daemon=True)
        reader.start()
        wait_for(small_disk, "full", "epoch", 20, process)
        ballast = small_disk / "ballast"
        fill(ballast)
        wait_for_line(printed, "paused: the disk of")
        quiet = len(events(small_disk, "full"))
        time.sleep(6)
        assert process.poll() is None
        assert len(events(small_disk, "full")) - quiet <= 4, "what was under way may end, nothing new begins"
        ballast.unlink()
        assert process.wait(timeout=240) == 0, "".join(printed)
        reader.join(10)
    text = "".join(printed)
    assert "free some space and the sweep goes on" in text
    assert "there is space again: the sweep goes on" in text
    found = assert_agreement(small_disk, "full", 5)
    assert {record.status for record in found.values()} == {Status.COMPLETED}
    assert {record.deaths for record in found.values()} == {0}, "a full disk is nobody's fault"


def test_a_sweep_that_waits_for_space_still_hears_a_signal(images: Path, small_disk: Path) -> None:
    space = write_space(small_disk, images, trials=4, epochs=30)
    with started(small_disk, "--space", str(space), "--name", "full") as process:
        wait_for(small_disk, "full", "epoch", 5, process)
        fill(small_disk / "ballast")
        time.sleep(12)  # what was under way has ended or waits, and Ray has nothing to do
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=60)
    assert time.monotonic() - began <= 10
    assert process.returncode == 130, printed
    assert "paused: the disk of" in printed
    assert "--resume full" in printed
    (small_disk / "ballast").unlink()
    code, printed = launch(small_disk, "--resume", "full")
    assert code == 0, printed
    assert_agreement(small_disk, "full", 4)


def fill(path: Path) -> None:
    """Write until nothing fits any more."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 16, 1 << 12):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def wait_for_line(printed: list[str], words: str) -> None:
    deadline = time.monotonic() + 60
    while not any(words in line for line in printed):
        assert time.monotonic() < deadline, "".join(printed)
        time.sleep(0.1)
