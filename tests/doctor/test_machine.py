"""Each check of one machine says ok where all is well, and fails, or doubts, where it is not."""

from __future__ import annotations

import os
import resource
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from sweeps.doctor_checks import machine
from sweeps.doctor_checks.findings import Finding, bad, doubt, good, patiently, size_text

NOWHERE = "/proc/nowhere"
"""Nobody, not even root, can make a file in /proc."""


def groups(tmp_path: Path, **limits: str) -> tuple[Path, Path]:
    """Control groups of a container's process: the root without limits, and its own folder with them."""
    own = tmp_path / "groups" / "box"
    own.mkdir(parents=True)
    for name, text in limits.items():
        (own / name.replace("_", ".")).write_text(text + "\n")
    (tmp_path / "own").write_text("0::/box\n")
    return tmp_path / "groups", tmp_path / "own"


def test_a_finding_is_one_line() -> None:
    assert str(good("home", "is there")) == "ok    home: is there"
    assert str(doubt("home", "is\nfull", "empty it")) == "warn  home: is full; empty it"
    assert str(bad("home", "is gone", "make one")) == "FAIL  home: is gone; make one"
    finding = bad("home", "is gone", "make one")
    assert Finding.from_json(finding.to_json()) == finding
    with pytest.raises(KeyError, match="meh"):
        Finding.from_json({"level": "meh", "name": "n", "found": "f", "advice": ""})
    assert [size_text(count) for count in (12e9, 3e6)] == ["12.0 GB", "3 MB"]


def test_what_hangs_fails_and_what_raises_raises() -> None:
    assert patiently("disk", 5.0, lambda: [good("disk", "answers")]) == [good("disk", "answers")]
    begun = time.monotonic()
    (found,) = patiently("disk", 0.1, lambda: time.sleep(3) or [])
    assert time.monotonic() - begun < 2
    assert (found.level, found.found) == ("FAIL", "no answer within 0.1 s")

    def broken() -> list[Finding]:
        raise ValueError("as it was")

    with pytest.raises(ValueError, match="as it was"):
        patiently("disk", 5.0, broken)


def test_home_must_be_writable_unless_the_token_is_given(tmp_path: Path) -> None:
    assert machine.home({"HOME": str(tmp_path)}).level == "ok"
    assert list(tmp_path.iterdir()) == []
    gone = machine.home({"HOME": NOWHERE})
    assert (gone.level, gone.found) == ("FAIL", f"{NOWHERE} does not exist")
    assert machine.home({"HOME": "/proc"}).level == "FAIL"
    assert machine.home({"HOME": NOWHERE, "RAY_AUTH_TOKEN": "secret"}).level == "warn"
    assert machine.home({"HOME": NOWHERE, "RAY_AUTH_MODE": "disabled"}).level == "warn"


def test_the_token_of_a_machine_of_its_own(tmp_path: Path) -> None:
    around = {"HOME": str(tmp_path)}
    assert machine.token(around, joining=False).level == "ok"
    assert "there is none" in machine.token(around, joining=True).found
    path = tmp_path / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text("")
    assert "is empty" in machine.token(around, joining=False).found
    path.write_text("secret")
    path.chmod(0o600)
    kept = machine.token(around, joining=True)
    assert (kept.level, kept.found) == ("ok", f"in {path}")
    path.unlink()
    path.mkdir()
    assert machine.token(around, joining=False).level == "FAIL"


def test_a_token_that_others_can_read_is_doubted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    path.write_text("secret")
    path.chmod(0o644)
    around = {"RAY_AUTH_TOKEN_PATH": str(path)}
    monkeypatch.setattr(machine, "_others_come_to", lambda folder: True)
    seen = machine.token(around, joining=False)
    assert (seen.level, seen.advice) == ("warn", f"chmod 600 {path}")
    monkeypatch.undo()
    tmp_path.chmod(0o700)
    assert machine.token(around, joining=False).level == "ok", "nobody comes to it"


def test_a_token_that_is_named(tmp_path: Path) -> None:
    assert machine.token({"RAY_AUTH_TOKEN": "secret"}, joining=True).level == "ok"
    gone = machine.token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "gone")}, joining=False)
    assert (gone.level, "does not exist" in gone.found) == ("FAIL", True)
    assert machine.token({"RAY_AUTH_MODE": "disabled"}, joining=False).level == "warn"


def test_sockets_must_have_short_paths(tmp_path: Path) -> None:
    short, long = machine.temporary_folder({}, ray_starts=True), tmp_path / ("x" * 60)
    assert short.level == "ok"
    long.mkdir()
    found = machine.temporary_folder({"TMPDIR": str(long)}, ray_starts=True)
    assert found.level == "FAIL"
    assert "of 107" in found.found
    assert machine.temporary_folder({"TMPDIR": str(long), "RAY_TMPDIR": "/tmp"}, ray_starts=True).level == "ok"
    assert machine.temporary_folder({"TMPDIR": str(long)}, ray_starts=False).level == "ok"
    assert machine.temporary_folder({"TMPDIR": NOWHERE}, ray_starts=False).level == "FAIL"


def test_the_longest_socket_path_is_the_one_the_system_takes(tmp_path: Path) -> None:
    folder = Path("/tmp") / ("d" * 200)
    fits = os.fsencode(folder)[: machine.SOCKET_BYTES - len("/s")].decode()
    os.makedirs(fits)
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(f"{fits}/s")
        with socket.socket(socket.AF_UNIX) as one, pytest.raises(OSError, match="too long"):
            one.bind(f"{fits}/ss")
    finally:
        (Path(fits) / "s").unlink()
        Path(fits).rmdir()


def test_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda folder: SimpleNamespace(f_frsize=4096, f_bavail=1_000_000))
    assert machine.shared_memory().found == "4.1 GB are free in /dev/shm"
    monkeypatch.setattr(os, "statvfs", lambda folder: SimpleNamespace(f_frsize=4096, f_bavail=16_384))
    assert machine.shared_memory().level == "warn"
    monkeypatch.undo()
    assert machine.shared_memory(Path(NOWHERE)).level == "FAIL"


@pytest.mark.parametrize(("hard", "level"), [(65_536, "ok"), (resource.RLIM_INFINITY, "ok"), (1024, "warn")])
def test_file_descriptors(monkeypatch: pytest.MonkeyPatch, hard: int, level: str) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, hard))
    assert machine.descriptors().level == level


def test_threads_must_not_be_more_than_cores_or_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 0.5, 0.5))
    free = groups(tmp_path / "free", cpu_max="max 100000")
    assert machine.cores(None, *free).found == "8 to use, 8 threads"
    assert machine.cores(8, *free).level == "ok"
    assert machine.cores(16, *free).level == "warn"
    held = groups(tmp_path / "held", cpu_max="200000 100000")
    found = machine.cores(None, *held)
    assert (found.level, found.found) == ("warn", "8 to use, of which a quota leaves 2, 8 threads")
    assert "taskset -c 0-1" in found.advice
    assert machine.cores(2, *held).level == "ok"
    assert machine.cores(2, tmp_path / "none", tmp_path / "none").level == "ok"
    monkeypatch.setattr(os, "getloadavg", lambda: (20.0, 0.5, 0.5))
    assert "the load is 20.0" in machine.cores(8, *free).found


def test_memory_against_slots(tmp_path: Path) -> None:
    system = tmp_path / "meminfo"
    system.write_text("MemTotal:       16000000 kB\nMemAvailable:    8000000 kB\n")
    free = groups(tmp_path / "free", memory_max="max", memory_current="1000")
    assert machine.memory(4, *free, system).found == "8.2 GB are free"
    assert machine.memory(8, *free, system).level == "warn"
    held = groups(tmp_path / "held", memory_max="4000000000", memory_current="2000000000")
    found = machine.memory(2, *held, system)
    assert (found.level, found.advice) == ("warn", "--parallel 1, or more memory")


def test_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostbyname", lambda host: "127.0.1.1")
    assert machine.loopback().level == "ok"

    def unknown(host: str) -> str:
        raise socket.gaierror("unknown")

    monkeypatch.setattr(socket, "gethostbyname", unknown)
    assert machine.loopback().level == "warn"

    class Deaf(socket.socket):
        def connect(self, address: object) -> None:
            raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "socket", Deaf)
    assert machine.loopback().level == "FAIL"
