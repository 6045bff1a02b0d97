"""Real Ray clusters of several nodes on one machine, with token authentication, for the tests to join and to break."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.launch.sweeping import descendants

NODES = Path(__file__).with_name("ray_nodes.py")


@dataclass
class RayCluster:
    """A head, and the nodes that were added; number 0 is the head."""

    address: str
    environment: dict[str, str]
    process: subprocess.Popen[str]

    def add(self, cpus: int, **variables: str) -> str:
        """One node more, with ``variables`` in its environment; returns Ray's id of it."""
        settings = [f"{name}={value}" for name, value in variables.items()]
        return str(self._do("add", str(cpus), *settings)["id"])

    def kill(self, number: int) -> None:
        """The node and all of its processes, at once."""
        self._do("kill", str(number))

    def hide(self, folder: Path) -> str:
        """Nodes added from now on see an empty folder there; why that cannot be done here, if it cannot."""
        return str(self._do("hide", str(folder))["failed"])

    def _do(self, *words: str) -> Mapping[str, object]:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Mapping[str, object]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the cluster has ended"
        found: Mapping[str, object] = json.loads(line)
        return found


@contextmanager
def ray_cluster(cpus: int = 1, **variables: str) -> Iterator[RayCluster]:
    """A cluster of one node, the head; whatever is left of it at the end is killed."""
    temp = Path(tempfile.mkdtemp(prefix="rn-"))  # short: names of sockets have at most 107 characters
    port = free_port()
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    process = subprocess.Popen(
        [sys.executable, str(NODES), str(temp), str(port), str(cpus)],
        env=os.environ | environment | variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    made = RayCluster(address=f"127.0.0.1:{port}", environment=environment, process=process)
    try:
        made._answer()
        yield made
    finally:
        below = descendants(process.pid)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=10)
        process.kill()
        process.wait()
        for pid in below:
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        shutil.rmtree(temp, ignore_errors=True)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
