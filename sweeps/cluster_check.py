"""Refuses, before anything is written, a cluster that is not there or whose nodes could not run a trial.

The cluster is joined by a process of its own (``sweeps.cluster_witness``): Ray repeats a refused token for twenty
seconds, writes to stderr what nobody here is to read, and waits a minute for an absent node. That process can be ended.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

from repsim.data.sources import count_images, parse_source
from repsim.errors import Mistake, RequestError, one_line
from sweeps.cluster_witness import Answer
from sweeps.code_of_ours import fingerprint, root, versions
from sweeps.machines import Machine
from sweeps.space import Space

PATIENCE = 90.0
"""Seconds in which every node has started a process and looked; installing nothing, it takes a few."""
_KNOCK_SECONDS = 3.0
_IMPATIENT = {"RAY_gcs_server_request_timeout_seconds": "10"}
"""For Ray's search for a node on this machine, which else takes a minute."""
_TOKEN = "token"
_REFUSALS: Mapping[str, str] = {
    "InvalidAuthToken": "it refuses this shell's token: set RAY_AUTH_MODE=token and the head node's token "
    "(RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH)",
    "no authentication token": "RAY_AUTH_MODE is token, but there is none here: copy the head node's "
    "~/.ray/auth_token, or set RAY_AUTH_TOKEN_PATH",
    "Version mismatch": "it runs another version of Ray or Python",
    "No node info found": "no node of it runs on this machine: `ray start --address={address}` here first",
}
"""What Ray writes when it cannot join, and the nearest cause in words."""


def check_address(address: str) -> None:
    """RequestError when nothing listens at ``HOST:PORT``; known within seconds. ``auto`` is left to Ray."""
    if address == "auto":
        return
    host, port = _parts(address)
    try:
        socket.create_connection((host, port), timeout=_KNOCK_SECONDS).close()
    except OSError as error:
        said = "nothing answers there" if isinstance(error, TimeoutError) else (error.strerror or str(error))
        hint = f"the head node's HOST:PORT, as its `ray start --head` printed it (is it running? is {port} open?)"
        _refuse(address, f"there is no cluster: {said}", hint)


def check_cluster(address: str, space: Space, runs_dir: Path) -> tuple[Machine, ...]:
    """The cluster's machines, once every one has shown that it can run a trial of the space.

    Each must have this Python's packages in the same versions, must read and write the folder of the run, and must see
    the data and the weights' files that the space names, under the same paths. RequestError with a line for each that
    cannot, or when the cluster cannot be joined.
    """
    check_address(address)
    with _shared(runs_dir) as token:
        request = {
            "address": address,
            "code": fingerprint(),
            "versions": versions(),
            "folder": os.getcwd(),
            "token": str(token / _TOKEN),
            "sources": {source: count_images(source) for source in space.data if parse_source(source)[0] != "medmnist"},
            "files": {path: Path(path).stat().st_size for path in _weights(space)},
        }
        (token / _TOKEN).write_text("", encoding="ascii")
        seen = _witnesses(address, request)
        mistakes = [
            Mistake(where="--address", key=address, problem=f"node {node['name']} {problem}", allowed=allowed)
            for node in seen
            for problem, allowed in [*node["problems"], *_unwritten(token, node)]
        ]
    if mistakes:
        raise RequestError(*mistakes)
    return tuple(Machine(name=node["name"], cpus=node["cpus"], gpus=node["gpus"]) for node in seen)


def answers(address: str) -> bool:
    """Whether something listens at ``HOST:PORT``."""
    try:
        check_address(address)
    except RequestError:
        return False
    return True


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if address.startswith("ray://"):
        _refuse(address, "Ray's client cannot drive a sweep", "HOST:PORT, from a machine that is a node of the cluster")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        _refuse(address, "is not an address", "HOST:PORT of the cluster's head, or auto")
    return host.strip("[]"), int(port)


def _weights(space: Space) -> list[str]:
    """Files of pretrained weights that the space names, as far as they are files."""
    return [str(value) for value in space.values("backbone.weights") if Path(str(value)).is_file()]


@contextmanager
def _shared(runs_dir: Path) -> Iterator[Path]:
    """A folder for a moment, on the disk that the run's folder is, or will be, on."""
    there = next(folder for folder in (runs_dir, *runs_dir.parents) if folder.exists())
    try:
        folder = tempfile.TemporaryDirectory(prefix=f".repsim-probe-{secrets.token_hex(4)}-", dir=there)
    except OSError as error:
        problem = f"cannot be written: {error.strerror}"
        raise RequestError(Mistake(where=str(there), key="", problem=problem)) from None
    with folder as name:
        yield Path(name)


def _unwritten(token: Path, node: Answer) -> list[tuple[str, str]]:
    """A node that read the folder must have left its mark there, where this machine sees it."""
    if node["problems"] or (token / node["id"]).exists():
        return []
    return [(f"cannot write to {token.parent}", "the same path on every node: a shared file system")]


def _witnesses(address: str, request: Mapping[str, object]) -> list[Answer]:
    """What every node has seen; RequestError, with the nearest cause, when the cluster cannot be joined."""
    command = [sys.executable, "-m", "sweeps.cluster_witness", json.dumps(request)]
    environment = os.environ | _IMPATIENT
    environment["PYTHONPATH"] = os.pathsep.join([str(root()), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with subprocess.Popen(command, stdout=out, stderr=err, env=environment) as process:
            try:
                _wait(process, address, err)
            finally:
                process.kill()
        out.seek(0)
        lines = out.read().splitlines()
        if process.returncode != 0 or not lines:
            err.seek(0)
            said = (err.read().strip().splitlines() or ["it ended without a word"])[-1]
            _refuse(address, _cause(said, address) or f"cannot be joined: {one_line(said, 300)}")
    found: list[Answer] = json.loads(lines[-1])
    return found


def _wait(process: subprocess.Popen[bytes], address: str, err: IO[str]) -> None:
    """Until the process has ended; RequestError as soon as it has said why it will not succeed."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None:
        said = os.pread(err.fileno(), 100_000, 0).decode(errors="replace")
        cause = _cause(said, address)
        if cause:
            _refuse(address, cause)
        if time.monotonic() > deadline:
            _refuse(address, f"not every node has answered within {PATIENCE:.0f} s", "nodes that can start a process")
        time.sleep(0.05)


def _cause(said: str, address: str) -> str:
    """The nearest cause of what Ray wrote, in words; empty when it is not one of those that are known."""
    return next((cause.replace("{address}", address) for mark, cause in _REFUSALS.items() if mark in said), "")


def _refuse(address: str, problem: str, allowed: str = "") -> NoReturn:
    raise RequestError(Mistake(where="--address", key=address, problem=problem, allowed=allowed)) from None
