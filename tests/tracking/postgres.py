"""A PostgreSQL of the test's own, made from the installed binaries and gone afterwards."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.tracking.servers import free_port

_DEBIAN = Path("/usr/lib/postgresql")
_USER = "repsim"


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """A running cluster; ``stop`` and ``start`` are for tests that take it away."""

    binaries: Path
    folder: Path
    port: int
    password: str

    def database(self, name: str) -> str:
        """The URI of a new database."""
        place = ("-h", str(self.folder), "-p", str(self.port), "-U", _USER)
        _run(self.binaries / "createdb", *place, name)
        return f"postgresql://{_USER}:{self.password}@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        self._control("start", "-o", options, "-l", str(self.folder / "log"))

    def stop(self) -> None:
        """Stop it as a crash would: no session is waited for."""
        self._control("stop", "-m", "immediate")

    def _control(self, *words: str) -> None:
        _run(self.binaries / "pg_ctl", "-D", str(self.folder / "data"), "-w", "-t", "60", *words)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A fresh cluster on 127.0.0.1, behind a password; skips where there cannot be one."""
    binaries = _binaries()
    password, port = secrets.token_hex(16), free_port()
    # not below pytest's own folder: that is closed to everybody else, and a socket's path has to be short
    with tempfile.TemporaryDirectory(prefix="repsim-pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "password").write_text(password)
        _give_away(folder)
        access = ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={folder / 'password'}"]
        _run(binaries / "initdb", "-D", str(folder / "data"), "-U", _USER, *access, "--no-sync", "--encoding=UTF8")
        cluster = Postgres(binaries=binaries, folder=folder, port=port, password=password)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()


def _binaries() -> Path:
    """The folder of the server's programs; skips the test when something is missing."""
    pytest.importorskip("psycopg", reason="psycopg, which speaks to PostgreSQL, is not installed")
    debian = sorted(_DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = shutil.which("initdb") if not debian else str(debian[-1])
    if found is None:
        pytest.skip("no PostgreSQL server is installed")
    if os.geteuid() == 0 and (_owner() is None or shutil.which("runuser") is None):
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres to run it")
    return Path(found).resolve().parent


def _owner() -> str | None:
    """Who runs the server where root may not."""
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return None


def _give_away(folder: Path) -> None:
    if os.geteuid() == 0:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, "postgres")


def _run(program: Path, *words: str) -> None:
    command = [str(program), *words]
    if os.geteuid() == 0:
        command = ["runuser", "-u", "postgres", "--", *command]
    done = subprocess.run(command, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
