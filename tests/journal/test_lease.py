"""One driver per sweep: who is refused, who takes over, and what becomes of a holder that only slept."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from repsim.errors import RequestError
from sweeps import lease
from sweeps.durable import write_atomically
from sweeps.journal import Journal, LeaseLost, read_history
from sweeps.lease import Holder, Lease

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from sweeps import lease
folder, host, boot, lock, beat = sys.argv[1:]
if host:  # of a computer that shares the folder, but neither kernel nor lock
    Path(folder, "boot").write_text(boot)
    lease._BOOT_ID = Path(folder, "boot")
    lease.socket.gethostname = lambda: host
    lease.LOCK_NAME = lock
lease.BEAT_SECONDS = float(beat)
held = lease.Lease.take(Path(folder))
print("held", flush=True)
sys.stdin.read()
held.release()
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.02)


@contextmanager
def process(folder: Path, *, host: str = "", boot: str = "b2", beat: float = 0.02) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the folder until its standard input ends."""
    command = [sys.executable, "-c", HOLDER, str(folder), host, boot, "lock-elsewhere", str(beat)]
    holder = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
    finally:
        holder.kill()
        holder.communicate()


@pytest.fixture
def on_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], None]:
    """Go on as if on another computer that shares the folder, but neither kernel nor lock."""

    def move(host: str, boot: str) -> None:
        (tmp_path / f"boot-{boot}").write_text(boot)
        monkeypatch.setattr(lease, "_BOOT_ID", tmp_path / f"boot-{boot}")
        monkeypatch.setattr(socket, "gethostname", lambda: host)
        monkeypatch.setattr(lease, "LOCK_NAME", f"lock-{host}-{boot}")

    return move


def in_file(folder: Path) -> Holder:
    found = Holder.from_bytes((folder / "lease.json").read_bytes())
    assert found is not None
    return found


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 5.0
    while not holds():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def left_behind(folder: Path, host: str, boot: str = "b9") -> None:
    """The lease of a holder that died without a word."""
    dead = Holder(host=host, pid=os.getpid(), boot=boot, nonce="dead", beats=3)
    (folder / "lease.json").write_bytes(dead.to_bytes(3))


def refused(folder: Path, *parts: str, say: Callable[[str], None] | None = None) -> str:
    with pytest.raises(RequestError) as caught:
        Lease.take(folder, say=say)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(folder), *parts):
        assert part in message
    return message


# one host


def test_a_lease_names_its_holder_and_goes_with_it(tmp_path: Path) -> None:
    with Lease.take(tmp_path) as held:
        fields = json.loads((tmp_path / "lease.json").read_text())
        assert set(fields) == {"host", "pid", "boot", "nonce", "beats"}
        assert fields["pid"] == os.getpid()
        assert not held.lost
        assert not held.taken_over
        held.check()
    held.release()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    with FileLock(tmp_path / "lock", timeout=0):
        assert not held.lost
    assert "lease" not in {thread.name for thread in threading.enumerate()}


def test_a_second_process_is_refused_and_told_who_is_at_work(tmp_path: Path) -> None:
    with process(tmp_path) as holder:
        assert in_file(tmp_path).pid == holder.pid
        message = refused(tmp_path, f"another launch is at work on this sweep: host {Holder.here().host},")
        told = rf", pid {holder.pid}, last sign of life [0-3] s ago; .* stop it there with: kill {holder.pid}$"
        assert re.search(told, message)
        assert in_file(tmp_path).pid == holder.pid  # nothing was taken
        old = time.time() - 52
        holder.send_signal(signal.SIGSTOP)  # asleep on this host is alive: the kernel knows
        os.utime(tmp_path / "lease.json", (old, old))
        assert re.search(r"last sign of life 5\d s ago", refused(tmp_path))
        holder.send_signal(signal.SIGCONT)
        holder.communicate("")
        assert holder.returncode == 0
    assert not (tmp_path / "lease.json").exists()
    Lease.take(tmp_path).release()


def test_a_holder_that_has_not_written_yet_is_respected(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock"):
        refused(tmp_path, "another launch is at work on this sweep; wait for it to end, or stop it first")


def test_a_killed_holder_is_taken_over_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 100.0)
    lines: list[str] = []
    with process(tmp_path) as holder:
        holder.kill()
        holder.wait()
    assert in_file(tmp_path).pid == holder.pid
    with Lease.take(tmp_path, say=lines.append) as held:
        assert in_file(tmp_path).pid == os.getpid()
        assert not held.taken_over  # the kernel says that it is dead: nobody can wake up
    assert lines == []


def test_a_child_of_the_holder_does_not_keep_the_lock(tmp_path: Path) -> None:
    code = HOLDER.replace(
        "sys.stdin.read()", "import subprocess; subprocess.Popen(['sleep', '5'], close_fds=False); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path), "", "", "", "0.02"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        time.sleep(0.2)
        holder.kill()
        holder.wait()
        try:
            Lease.take(tmp_path).release()
        finally:
            os.killpg(holder.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("host", "boot"),
    [("here", "b1"), ("here", "b0"), ("here", ""), ("another-container", "b1")],
    ids=["a recycled pid", "before a reboot", "boots unknown", "the same kernel"],
)
def test_what_the_kernel_lock_decides_needs_no_watching(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    on_host: Callable[[str, str], None],
    host: str,
    boot: str,
) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 100.0)
    left_behind(tmp_path, host, boot)
    on_host("here", "b1")
    with Lease.take(tmp_path) as held:
        assert in_file(tmp_path).host == "here"
        assert not held.taken_over


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff",
        b"{}",
        b'{"host": "h", "pid": "x", "boot": "", "nonce": "", "beats": 1}',
        b'{"host": "h", "pid": Infinity, "boot": "", "nonce": "", "beats": 1}',
    ],
)
def test_what_is_not_a_lease_counts_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lease.json").write_bytes(content)
    with Lease.take(tmp_path) as held:
        held.check()
        assert in_file(tmp_path).pid == os.getpid()


def test_a_system_that_does_not_number_its_boots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_BOOT_ID", tmp_path / "none")
    me = Holder.here()
    assert me.boot == ""
    assert not me.shares_lock_with(Holder(host="elsewhere", pid=1, boot="", nonce="x"))


def test_nowhere_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(tmp_path / "none", "cannot be written: there is no such folder")
    (tmp_path / "lease.json").mkdir()
    refused(tmp_path, "cannot be written: Is a directory")
    (tmp_path / "lease.json").rmdir()
    Lease.take(tmp_path).release()  # the refusal gave the lock back

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(FileLock, "acquire", denied)
    refused(tmp_path, "cannot be written: Permission denied")


# other hosts, which do not share the lock


def test_another_host_at_work_is_seen_by_its_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 20.0)
    lines: list[str] = []
    begun = time.monotonic()
    with process(tmp_path, host="far") as holder:
        refused(tmp_path, f"host far, pid {holder.pid}, last sign of life", say=lines.append)
        assert in_file(tmp_path).host == "far"
        refused(tmp_path, "host far")  # the first refusal gave the lock back
        assert holder.poll() is None
    assert time.monotonic() - begun < 15.0  # the first beat is enough
    assert lines == ["waiting up to 20 s to see whether far is still at work on this sweep"]


def test_another_host_is_taken_over_when_its_beats_stand_still(tmp_path: Path) -> None:
    with process(tmp_path, host="far") as holder:
        holder.kill()
        holder.wait()
    begun = time.monotonic()
    with Lease.take(tmp_path) as held:
        assert 0.3 <= time.monotonic() - begun < 15.0
        assert in_file(tmp_path).pid == os.getpid()
        assert held.taken_over
        held.check()


def test_another_host_that_ends_meanwhile_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 100.0)
    with process(tmp_path, host="far", beat=50.0) as holder:

        def end(line: str) -> None:
            holder.communicate("")

        with Lease.take(tmp_path, say=end):
            assert in_file(tmp_path).pid == os.getpid()
        assert holder.returncode == 0


def test_of_two_that_take_over_at_once_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left_behind(tmp_path, "far")
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 1.0)
    late: list[threading.Timer] = []

    def beaten(path: Path, content: bytes) -> None:
        write_atomically(path, content)
        other = Holder(host="third", pid=7, boot="b3", nonce="later")
        late.append(threading.Timer(0.1, write_atomically, (path, other.to_bytes(0))))
        late[0].start()

    monkeypatch.setattr(lease, "write_atomically", beaten)
    refused(tmp_path, "another launch is at work on this sweep: host third, pid 7,")
    late[0].join()
    assert in_file(tmp_path).host == "third"
    with FileLock(tmp_path / "lock", timeout=0):
        pass


def test_interrupted_while_it_watches_it_gives_the_lock_back(tmp_path: Path) -> None:
    left_behind(tmp_path, "far")

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Lease.take(tmp_path, say=interrupt)
    with FileLock(tmp_path / "lock", timeout=0):
        assert in_file(tmp_path).host == "far"


# the holder's side


def test_the_holder_shows_that_it_lives(tmp_path: Path) -> None:
    with Lease.take(tmp_path):
        size = (tmp_path / "lease.json").stat().st_size
        until(lambda: in_file(tmp_path).beats > 3)
        assert (tmp_path / "lease.json").stat().st_size == size


def test_a_beat_that_fails_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lease.take(tmp_path) as held:
        failures: list[int] = []

        def full(descriptor: int) -> None:
            failures.append(descriptor)
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            until(lambda: len(failures) > 2)
        with monkeypatch.context() as patched:
            patched.setattr(lease, "_read", lambda folder: full(0))
            before = len(failures)
            until(lambda: len(failures) > before + 2)
            with pytest.raises(OSError, match="No space left"):
                held.check()
        now = in_file(tmp_path).beats
        until(lambda: in_file(tmp_path).beats > now)
        assert not held.lost


def test_a_server_that_is_away_does_not_keep_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Lease.take(tmp_path)

    def away(folder: Path) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(lease, "_read", away)
        held.release()
    assert (tmp_path / "lease.json").exists()
    Lease.take(tmp_path).release()


def test_a_holder_that_slept_finds_its_lease_lost(tmp_path: Path, on_host: Callable[[str, str], None]) -> None:
    on_host("one", "b1")
    slept = Lease.take(tmp_path)
    slept._over.set()  # its beats stop
    slept._thread.join()
    on_host("two", "b2")
    with Lease.take(tmp_path) as held:
        assert held.taken_over
        assert not slept.lost  # it is still asleep
        with pytest.raises(LeaseLost, match=r"does not hold the sweep any more: host two, pid \d+ has taken it over"):
            slept.check()
        assert slept.lost
        slept.release()
        held.check()
        assert in_file(tmp_path).host == "two"


def test_renewing_stops_where_another_has_the_lease(tmp_path: Path) -> None:
    with Lease.take(tmp_path) as held:
        write_atomically(tmp_path / "lease.json", Holder(host="two", pid=1, boot="b", nonce="n").to_bytes(5))
        until(lambda: held.lost)
        held._thread.join(5.0)
        assert not held._thread.is_alive()
    assert in_file(tmp_path) == Holder(host="two", pid=1, boot="b", nonce="n", beats=5)


def test_a_beat_in_the_middle_of_a_takeover_does_not_undo_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lease.take(tmp_path) as held:
        other = Holder(host="two", pid=1, boot="b", nonce="n", beats=5)
        look, beaten = held._look, threading.Event()

        def late() -> Holder | None:
            found = look()
            if not beaten.is_set():
                write_atomically(tmp_path / "lease.json", other.to_bytes(5))
                beaten.set()
            return found

        monkeypatch.setattr(held, "_look", late)
        assert beaten.wait(5.0)
        until(lambda: held.lost)
        assert in_file(tmp_path) == other


def test_a_lease_that_was_removed_is_lost(tmp_path: Path) -> None:
    with Lease.take(tmp_path) as held:
        (tmp_path / "lease.json").unlink()  # taken over and given back again, or by hand
        with pytest.raises(LeaseLost, match=r"any more: its lease\.json was removed"):
            held.check()


# the journal behind it


def test_a_driver_that_slept_writes_nothing_more(tmp_path: Path, on_host: Callable[[str, str], None]) -> None:
    path = tmp_path / "journal.jsonl"
    on_host("one", "b1")
    slept = Journal.create(path, {"name": "pareto"})
    slept._lease._over.set()
    slept._lease._thread.join()
    on_host("two", "b2")
    lines: list[str] = []
    with Journal.open(path, say=lines.append) as journal:
        journal.resumed()
        before = path.read_bytes()
        with pytest.raises(LeaseLost, match="host two"):
            slept.finished()
        assert not slept.history.finished
        assert path.read_bytes() == before
        os.write(slept._file.fileno(), b"from a driver that slept in the middle of a write")
        assert path.read_bytes() == before
        journal.finished()
        assert read_history(path) == journal.history
    assert len(lines) == 1
    slept.close()


def test_a_journal_lost_while_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.jsonl"
    Journal.create(path, {"name": "pareto"}).close()
    before = path.read_bytes(), path.stat().st_ino
    left_behind(tmp_path, "far")

    def lost(self: Lease) -> None:
        raise LeaseLost("gone")

    with monkeypatch.context() as patched:
        patched.setattr(Lease, "check", lost)
        with pytest.raises(LeaseLost, match="gone"):
            Journal.open(path)
    assert (path.read_bytes(), path.stat().st_ino) == before
    Journal.open(path).close()
