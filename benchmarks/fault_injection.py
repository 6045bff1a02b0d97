"""What goes wrong in faults_vs_ray.py, and how: the faults, the witness' log, and the processes of a side (Linux)."""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

LOOK_SECONDS = 0.1
FAMILY_SECONDS = 0.3
OUTAGE_SECONDS = 10.0
"""How long the MLflow server stays away before it is started again, and the disk full."""
LOCK_SECONDS = 25.0
"""How long the reader holds the database: a little more than the 20 s that MLflow waits for it."""
DISK_BYTES = 256 * 2**20
TARGET_SECONDS = 60.0


class NotPossibleHere(RuntimeError):  # noqa: N818 (it names what happened)
    """The fault needs rights or a system that this machine does not give."""


class CameTooLate(RuntimeError):  # noqa: N818
    """The sweep was over, or nothing was there to be hit."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """What the witness wrote: an epoch or a finish that has really happened."""

    event: str
    key: str
    epoch: int
    pid: int
    began: float
    ended: float


def read_lines(log: Path) -> list[Line]:
    """The witness' whole lines so far."""
    if not log.exists():
        return []
    return [Line(**json.loads(text)) for text in log.read_text().split("\n")[:-1]]


class Family:
    """Every process below the ones adopted, orphans included: children are noted while their parents live."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def adopt(self, pid: int) -> None:
        """This process and all that come from it."""
        with self._lock:
            self._known[pid] = _processes().get(pid, (0, ""))[1]
        self.alive()

    def alive(self) -> list[int]:
        """Those of the family that still run."""
        with self._lock:
            now = _processes()
            self._known = {pid: born for pid, born in self._known.items() if pid in now and now[pid][1] == born}
            while more := {pid for pid, (parent, _) in now.items() if parent in self._known} - set(self._known):
                self._known.update({pid: now[pid][1] for pid in more})
            return list(self._known)

    def named(self, name: str) -> int:
        """The one whose executable bears this name; CameTooLate when there is none."""
        for pid in self.alive():
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                    return pid
        raise CameTooLate(f"there is no {name}")

    def end(self) -> None:
        """Kill them all."""
        self._over.set()
        self._thread.join()
        for _ in range(100):
            left = self.alive()
            if not left:
                return
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            time.sleep(LOOK_SECONDS)
        print(f"still there after SIGKILL: {left}", file=sys.stderr)

    def _watch(self) -> None:
        while not self._over.wait(FAMILY_SECONDS):
            self.alive()


def _processes() -> dict[int, tuple[int, str]]:
    """Parent and time of birth of every process; the dead that nobody has fetched are left out."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    found[int(entry.name)] = (int(fields[1]), fields[19])
    return found


class Server:
    """A real MLflow server on loopback, in front of a sqlite file."""

    def __init__(self, folder: Path, database: Path) -> None:
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        self._command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{database}"]
        self._command += ["--artifacts-destination", str(folder / "artifacts")]
        self._folder = folder
        self._family: Family | None = None

    def start(self) -> None:
        """Return when it answers."""
        with (self._folder / "server.log").open("ab") as out:
            process = subprocess.Popen(self._command, cwd=self._folder, stdout=out, stderr=out)
        self._family = Family()
        self._family.adopt(process.pid)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                return
            time.sleep(0.2)
        raise RuntimeError("the MLflow server does not start")

    def stop(self) -> None:
        if self._family is not None:
            self._family.end()
            self._family = None


@dataclass(kw_only=True)
class Scene:
    """One side's sweep while it runs. ``driver`` changes when the sweep is resumed."""

    folder: Path
    log: Path
    database: Path
    epochs: int
    family: Family
    server: Server | None = None
    driver: subprocess.Popen[bytes] | None = None
    rng: random.Random = field(default_factory=random.Random)

    def training(self) -> Line:
        """The last line of a trial that has epochs left to do, in a process that lives; waits for one."""
        deadline = time.monotonic() + TARGET_SECONDS
        while time.monotonic() < deadline:
            latest = {line.pid: line for line in read_lines(self.log)}
            alive = set(self.family.alive())
            fit = [
                line
                for line in latest.values()
                if line.pid in alive
                and line.event == "epoch"
                and line.epoch < self.epochs
                and "linear_pro" not in line.key
            ]
            if fit:
                return self.rng.choice(sorted(fit, key=lambda line: line.pid))
            if self.driver is not None and self.driver.poll() is not None:
                break
            time.sleep(LOOK_SECONDS / 2)
        raise CameTooLate("no trial was training")


@dataclass(frozen=True, kw_only=True)
class Hit:
    """When the fault struck (seconds since 1970), and the trial it was aimed at, if at one."""

    at: float
    target: str | None = None


def _kill_driver(number: signal.Signals) -> Callable[[Scene], Hit]:
    def inject(scene: Scene) -> Hit:
        if scene.driver is None or scene.driver.poll() is not None:
            raise CameTooLate("the driver had ended")
        hit = Hit(at=time.time())
        scene.driver.send_signal(number)
        return hit

    return inject


def _kill_worker(number: signal.Signals) -> Callable[[Scene], Hit]:
    def inject(scene: Scene) -> Hit:
        line = scene.training()
        hit = Hit(at=time.time(), target=line.key)
        os.kill(line.pid, number)
        return hit

    return inject


def _kill_ray(name: str) -> Callable[[Scene], Hit]:
    def inject(scene: Scene) -> Hit:
        pid = scene.family.named(name)
        hit = Hit(at=time.time())
        os.kill(pid, signal.SIGKILL)
        return hit

    return inject


def _restart_server(scene: Scene) -> Hit:
    assert scene.server is not None
    hit = Hit(at=time.time())
    scene.server.stop()
    time.sleep(OUTAGE_SECONDS)
    scene.server.start()
    return hit


def _lock_database(scene: Scene) -> Hit:
    with closing(sqlite3.connect(scene.database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM runs").fetchall()
        hit = Hit(at=time.time())
        time.sleep(LOCK_SECONDS)
        reader.execute("ROLLBACK")
    return hit


def _diverge(scene: Scene) -> Hit:
    line = scene.training()
    hit = Hit(at=time.time(), target=line.key)
    order = scene.log.with_name(scene.log.name + ".diverge")
    order.with_suffix(".part").write_text(line.key)
    order.with_suffix(".part").rename(order)
    return hit


def _fill_disk(scene: Scene) -> Hit:
    ballast, hit = scene.folder / "ballast", Hit(at=time.time())
    with ballast.open("ab", buffering=0) as file:
        until = time.monotonic() + OUTAGE_SECONDS
        while time.monotonic() < until:
            for size in (2**20, 4096):
                with suppress(OSError):
                    while file.write(b"\0" * size):
                        pass
            time.sleep(LOOK_SECONDS / 2)
    ballast.unlink()
    return hit


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A tmpfs of DISK_BYTES at ``folder``; NotPossibleHere without the right to mount."""
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={DISK_BYTES}".encode()
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, options) != 0:
        raise NotPossibleHere(f"mounting a tmpfs: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        libc.umount2(os.fsencode(folder), 2)  # lazily: a process may still sit there


@dataclass(frozen=True, kw_only=True)
class Fault:
    """``inject`` strikes, and returns when what it did is over."""

    inject: Callable[[Scene], Hit]
    server: bool = False
    small_disk: bool = False


FAULTS: Mapping[str, Fault] = {
    "driver SIGKILL": Fault(inject=_kill_driver(signal.SIGKILL)),
    "driver SIGTERM": Fault(inject=_kill_driver(signal.SIGTERM)),
    "worker SIGKILL": Fault(inject=_kill_worker(signal.SIGKILL)),
    "worker hung (SIGSTOP)": Fault(inject=_kill_worker(signal.SIGSTOP)),
    "worker segfault": Fault(inject=_kill_worker(signal.SIGSEGV)),
    "raylet SIGKILL": Fault(inject=_kill_ray("raylet")),
    "gcs_server SIGKILL": Fault(inject=_kill_ray("gcs_server")),
    "MLflow server restarted": Fault(inject=_restart_server, server=True),
    "MLflow database locked": Fault(inject=_lock_database),
    "trial diverges (NaN)": Fault(inject=_diverge),
    "disk full": Fault(inject=_fill_disk, small_disk=True),
}
