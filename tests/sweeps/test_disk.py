"""A full disk: waited for, said once, and nothing else taken for one."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from sweeps import disk as disk_module
from sweeps.disk import Disk, is_full


class Usage(NamedTuple):
    total: int
    used: int
    free: int


class Ground:
    """A disk whose free bytes and patience are the test's; every second slept is noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = 100
        self.asked: list[Path] = []
        self.said: list[str] = []
        self.now = 0.0
        self.slept: list[float] = []
        self.checks = 0
        monkeypatch.setattr(shutil, "disk_usage", self._usage)
        monkeypatch.setattr(disk_module, "time", SimpleNamespace(sleep=self.slept.append, monotonic=lambda: self.now))

    def disk(self, reserve: int = 50) -> Disk:
        return Disk(Path("/runs/x"), reserve=reserve, say=self.said.append, check=self.check)

    def check(self) -> None:
        self.checks += 1

    def _usage(self, folder: Path) -> Usage:
        self.asked.append(folder)
        return Usage(1000, 1000 - self.free, self.free)


@pytest.fixture
def ground(monkeypatch: pytest.MonkeyPatch) -> Ground:
    return Ground(monkeypatch)


def full(times: int, code: int = errno.ENOSPC) -> Callable[[], str]:
    """A write that is refused so often before it goes through."""
    left = [times]

    def write() -> str:
        if left[0] > 0:
            left[0] -= 1
            raise OSError(code, "No space left on device")
        return "written"

    return write


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disks_and_quotas_are_told_apart_from_the_rest(code: int) -> None:
    assert is_full(OSError(code, "x"))


@pytest.mark.parametrize("error", [OSError(errno.EIO, "x"), OSError(errno.EACCES, "x"), OSError("no number")])
def test_other_errors_are_not_a_full_disk(error: OSError) -> None:
    assert not is_full(error)


def test_what_is_written_at_once_is_not_spoken_of(ground: Ground) -> None:
    assert ground.disk().durably(full(0)) == "written"
    assert (ground.said, ground.slept, ground.checks) == ([], [], 0)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_waited_for_and_said_once(ground: Ground, code: int) -> None:
    assert ground.disk().durably(full(3, code)) == "written"
    assert ground.said == [
        "paused: the disk of /runs/x is full (nothing can be written); free some space and the sweep goes on",
        "there is space again: the sweep goes on",
    ]
    assert ground.checks == len(ground.slept) == 3
    assert min(ground.slept) > 0


def test_each_pause_is_said(ground: Ground) -> None:
    disk = ground.disk()
    disk.durably(full(1))
    disk.durably(full(2))
    assert len(ground.said) == 4


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EROFS])
def test_any_other_error_is_raised_at_once(ground: Ground, code: int) -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        ground.disk().durably(full(1, code))
    assert caught.value.errno == code
    assert (ground.said, ground.slept) == ([], [])


def test_an_error_of_another_kind_is_none_of_the_disks_business(ground: Ground) -> None:
    def write() -> None:
        raise ValueError("attempt 1 is over")

    with pytest.raises(ValueError, match="attempt 1 is over"):
        ground.disk().durably(write)


class Enough(BaseException):
    """As a signal."""


def test_a_pause_can_be_ended(ground: Ground) -> None:
    def check() -> None:
        if len(ground.slept) == 2:
            raise Enough

    disk = Disk(Path("/runs/x"), reserve=0, say=ground.said.append, check=check)
    with pytest.raises(Enough):
        disk.durably(full(100))
    assert len(ground.slept) == 2


def test_a_new_trial_needs_the_reserve(ground: Ground) -> None:
    disk = ground.disk(reserve=50)
    ground.free = 50
    assert disk.has_room
    assert ground.asked == [Path("/runs/x")]
    ground.free = 49
    assert not disk.has_room
    ground.free = 50
    assert disk.has_room


def test_the_lack_of_room_is_said_when_it_begins_and_when_it_ends(ground: Ground) -> None:
    disk = ground.disk(reserve=2_500_000)
    ground.free = 3_000_000
    assert [disk.has_room for _ in range(3)] == [True] * 3
    assert ground.said == []
    ground.free = 1_234_000
    assert [disk.has_room for _ in range(3)] == [False] * 3
    assert ground.said == [
        "paused: the disk of /runs/x is full (1.2 MB are free, a trial needs 2.5 MB); "
        "free some space and the sweep goes on"
    ]
    ground.free = 3_000_000
    assert [disk.has_room for _ in range(3)] == [True] * 3
    assert ground.said[1:] == ["there is space again: the sweep goes on"]


def test_a_small_write_does_not_end_the_lack_of_room(ground: Ground) -> None:
    disk = ground.disk(reserve=50)
    ground.free = 49
    for _ in range(3):
        assert not disk.has_room
        assert disk.durably(full(0)) == "written"
    assert len(ground.said) == 1, ground.said


def test_a_folder_that_is_gone_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    disk = Disk(tmp_path / "gone", reserve=0, say=lambda line: None, check=lambda: None)
    with pytest.raises(FileNotFoundError, match="gone"):
        _ = disk.has_room


def test_a_trial_that_found_no_space_is_not_followed_at_once(ground: Ground) -> None:
    disk = ground.disk(reserve=50)
    ground.free = 10_000  # here; its cache is elsewhere
    disk.refuse("OSError: No space left on device")
    assert not disk.has_room
    ground.now = 29.0
    assert not disk.has_room
    ground.now = 31.0
    assert disk.has_room
    assert len(ground.said) == 2
    assert "No space left on device" in ground.said[0]
    assert ground.said[1] == "there is space again: the sweep goes on"
