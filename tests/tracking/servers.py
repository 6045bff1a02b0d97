"""A real MLflow server on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from repsim.errors import RequestError
from sweeps.tracking import resolve_tracking_uri


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(folder: Path, port: int, store: str | None = None) -> Iterator[None]:
    """Serve ``store``, by default ``folder``'s sqlite; killed at the end, which leaves nothing to say goodbye."""
    backend = f"sqlite:///{folder}/mlflow.db" if store is None else store
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", backend, "--host", "127.0.0.1"]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--port", str(port), "--workers", "1"]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=folder)
    try:
        ends = time.monotonic() + 120
        while True:
            try:
                resolve_tracking_uri(f"http://127.0.0.1:{port}")
                break
            except RequestError:
                assert process.poll() is None, (folder / "server.log").read_text()
                assert time.monotonic() < ends, (folder / "server.log").read_text()
                time.sleep(0.5)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
