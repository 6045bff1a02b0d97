"""Folders and storage: room, rights, locks, the same place on every machine."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest

from sweeps.doctor_checks import places

ADVICE = "use another"
ROOM = {"f_bavail": 10**9, "f_blocks": 10**9, "f_bfree": 10**9, "f_frsize": 4096}


def of(found: list[places.Finding]) -> tuple[str, str]:
    (finding,) = found
    return finding.level, finding.found


def test_a_folder_has_room_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = tmp_path / "runs" / "deep"
    level, found = of(places.folder("run folder", later, 1000, ADVICE))
    assert level == "ok"
    assert "a sweep takes about 0 MB" in found
    assert list(tmp_path.iterdir()) == [], "nothing is made"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000_000))
    assert of(places.folder("run folder", later, 8_000_000, ADVICE))[0] == "warn"
    assert of(places.folder("run folder", later, 11_000_000, ADVICE))[0] == "FAIL"
    assert of(places.folder("run folder", later, None, ADVICE))[0] == "warn"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**12))
    assert of(places.folder("run folder", later, None, ADVICE))[0] == "ok"


def test_a_disk_may_be_out_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_files=100_000, f_favail=3, **ROOM))
    assert "only 3 more files" in of(places.folder("cache", tmp_path, 1, ADVICE))[1]
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_files=0, f_favail=0, **ROOM))
    assert of(places.folder("cache", tmp_path, 1, ADVICE))[0] == "ok", "a file system that does not count them"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    assert of(places.folder("cache", Path("/proc/nowhere"), 1, ADVICE))[0] == "FAIL"
    (tmp_path / "file").write_text("")
    assert "is a file, not a folder" in of(places.folder("cache", tmp_path / "file" / "runs", 1, ADVICE))[1]


def test_the_file_system_is_that_of_the_last_and_longest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    spaced = tmp_path / "a b"
    spaced.mkdir()
    escaped = str(spaced).replace(" ", r"\040")
    mounts.write_text(f"root / ext4 rw 0 0\nserver:/x {escaped} ext4 rw 0 0\nserver:/x {escaped} nfs4 rw 0 0\n")
    assert places.filesystem(spaced / "runs", mounts) == "nfs4"
    assert places.filesystem(tmp_path, mounts) == "ext4"
    assert places.filesystem(tmp_path, tmp_path / "none") is None


def test_a_network_disk_without_locks_is_doubted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "filesystem", lambda path: "nfs4")
    (room,) = places.folder("run folder", tmp_path, 1, ADVICE)
    assert "on nfs4" in room.found

    def refuse(file: object, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    _, locks = places.folder("run folder", tmp_path, 1, ADVICE)
    assert (locks.level, "knows no file locks" in locks.found) == ("warn", True)


def test_nodes_see_the_drivers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mark").write_text("")
    assert places.same_folder(tmp_path, "mark").level == "ok"
    assert places.same_folder(tmp_path, "other").level == "FAIL"
    monkeypatch.setattr(places, "write_problem", lambda folder: "cannot be written: Permission denied")
    assert places.same_folder(tmp_path, "mark").level == "FAIL"


@pytest.mark.parametrize("later", ["", "/made/later"])
def test_storage_in_a_folder(tmp_path: Path, later: str) -> None:
    found = places.storage(f"file://{tmp_path}{later}")
    assert found.level == "ok", found
    assert list(tmp_path.iterdir()) == [], "nothing is left, and nothing is made"
    assert places.storage(f"{tmp_path}{later}").level == "ok"


def test_storage_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert places.storage("memory://bucket/sweeps").level == "ok"
    assert places.storage("file:///proc/nowhere").level == "FAIL"
    unknown = places.storage("s4://bucket")
    assert (unknown.level, "s4" in unknown.found) == ("FAIL", True)
    missing = places.storage("s3://bucket")
    assert (missing.level, "s3" in missing.advice) == ("FAIL", True)
    forgetful = fsspec.filesystem("memory")
    monkeypatch.setattr(forgetful, "cat_file", lambda path: b"something else")
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda uri: (forgetful, "/x"))
    assert "gives back something else" in places.storage("memory://x").found
