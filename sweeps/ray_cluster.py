"""The Ray that a sweep runs on: one of our own for the time of the sweep, or a cluster that is there already.

Knows how it starts, how it ends, and when it is broken; what runs on it is the engine's business.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants

from repsim.errors import Mistake, RequestError, one_line
from sweeps.cluster_check import answers
from sweeps.code_of_ours import copy_to
from sweeps.machines import Machine
from sweeps.slots import Slots

QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Ray's snapshots are never read: make them rare.
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}
_COUNT_EVERY = 2.0
"""Seconds for which a count of the cluster's machines is good."""
_HEAD_SECONDS = 20.0
"""A cluster's head that has not answered for so long is gone; Ray itself would end this process after a minute."""
LOOK_EVERY = 1.0
"""Seconds between two looks at Ray's own processes and at trials that have been silent for too long."""
_STUCK_SECONDS = 5.0
"""So long after a death of Ray's own processes the main thread has noticed it, or never will."""


class EngineLost(BaseException):
    """Ray is broken beyond what it mends itself: a new one has to be started, from the journal.

    Not an Exception, so that Ray does not take it for one of its own on the way out.
    """


@contextmanager
def cluster(slots: Slots, address: str | None, on_stuck: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """A Ray of our own for the time of the sweep (loopback only), or the cluster at ``address``.

    What is yielded raises EngineLost when Ray is broken. ``on_stuck`` is called, on a thread of its own, when it is and
    the main thread, which may be waiting for just the process that has died, has not found out.
    Raises EngineLost when Ray does not start, RequestError when the cluster cannot be joined.
    """
    if address is None:
        _start_our_own(slots)
    else:
        _join(address, slots.threads)
    pulse = _Pulse(address)
    lost, over = False, threading.Event()
    threading.Thread(target=_stand_by, args=(over, pulse, on_stuck), name="Ray's watch", daemon=True).start()
    try:
        yield pulse.check
    except EngineLost:
        lost = True
        raise
    finally:
        over.set()
        _end(by_force=lost)


@contextmanager
def joined(address: str, *, threads: int) -> Iterator[None]:
    """The cluster at ``address`` for a moment, with this code and so many threads for each of its processes."""
    _join(address, threads)
    try:
        yield
    finally:
        ray.shutdown()


class Census:
    """The machines of the cluster as it is now; counted again when the last count is some seconds old."""

    def __init__(self) -> None:
        self._counted = -math.inf
        self._machines: tuple[Machine, ...] = ()

    def __call__(self) -> tuple[Machine, ...]:
        """The nodes that are alive."""
        now = time.monotonic()
        if now - self._counted > _COUNT_EVERY:
            self._counted = now
            self._machines = tuple(machine_of(node) for node in ray.nodes() if node["Alive"])
        return self._machines


def lost_node(actor: str) -> str:
    """The node that an actor (by Ray's number) ran on, when that is gone; empty when it answers, or was never known.

    Ray finds out about a node some seconds later than about its processes, so its port is asked as well.
    """
    known = ray._private.state.actors(actor) if actor else {}
    node_id = known["Address"]["NodeID"] if known else ""
    for node in ray.nodes():
        if node["NodeID"] == node_id:
            there = node["Alive"] and answers(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}")
            return "" if there else machine_of(node).name
    return ""


def machine_of(node: Mapping[str, Any]) -> Machine:
    """One of ``ray.nodes()``; people know it by host, address and the beginning of Ray's own number."""
    name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"
    resources = node["Resources"]
    return Machine(name=name, cpus=int(resources.get("CPU", 0)), gpus=int(resources.get("GPU", 0)))


def _start_our_own(slots: Slots) -> None:
    os.environ.update(_threads(slots.threads))  # its processes are our children
    # Ray binds to the machine's public address even on a laptop, except where it believes it cannot form clusters.
    _keep_to_loopback()
    _start({"address": "local", "num_cpus": slots.total_cpus, "include_dashboard": False}, None)


def _join(address: str, threads: int) -> None:
    """The code goes along as the job's working folder: with one, Ray puts nothing of this machine's paths before it."""
    os.environ.update(_threads(threads))
    if _on_loopback_alone(address):
        _keep_to_loopback()
    with tempfile.TemporaryDirectory(prefix="repsim-code-") as folder:
        copy_to(Path(folder))
        variables = _threads(threads) | {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        runtime_env = {"working_dir": folder, "env_vars": variables}
        # Ray would print the last words of every node that dies.
        listen, ray._private.worker.listen_error_messages = ray._private.worker.listen_error_messages, _listen_to_nobody
        try:
            _start({"address": address, "runtime_env": runtime_env}, address)
        finally:
            ray._private.worker.listen_error_messages = listen


def _listen_to_nobody(worker: object, stopped: object) -> None:
    """What is wrong with a node is said by the trials that ran on it."""


def _threads(count: int) -> dict[str, str]:
    return {name: str(count) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def _keep_to_loopback() -> None:
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


def _on_loopback_alone(address: str) -> bool:
    """Whether a cluster at 127.0.0.1 is not found under this machine's own address, which is where Ray would look."""
    host, _, port = address.rpartition(":")
    if host not in ("127.0.0.1", "localhost"):
        return False
    return not answers(f"{ray._private.services.get_node_ip_address()}:{port}")


def _end(*, by_force: bool) -> None:
    node = ray._private.worker._global_node
    if node is not None and (by_force or node.dead_processes()):
        # an orderly end would wait for processes that are gone
        node.kill_all_processes(check_alive=False, allow_graceful=False)
    else:
        ray.shutdown()


def _start(options: Mapping[str, object], address: str | None) -> None:
    """Start or join Ray, without the signal handlers it would install over ours."""
    os.environ.update(QUIET)
    for name in ("ray", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    install, ray._private.utils.set_sigterm_handler = ray._private.utils.set_sigterm_handler, lambda handler: None
    try:
        ray.init(**options, log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:  # a node that takes too long to start, on a busy machine, is a plain Exception to Ray
        because = "" if error.__cause__ is None else f": {error.__cause__}"
        said = one_line(" ".join(f"{error}{because}".split()), 200)
        if address is not None:
            raise RequestError(Mistake(where="--address", key=address, problem=f"cannot be joined: {said}")) from None
        raise EngineLost(f"Ray does not start: {said}") from None
    finally:
        ray._private.utils.set_sigterm_handler = install


class _Pulse:
    """Whether Ray lives: the processes that we started, or the head of the cluster that we joined."""

    def __init__(self, address: str | None) -> None:
        self._address = address if address != "auto" else ray.get_runtime_context().gcs_address
        self._answered = time.monotonic()

    def listen(self) -> None:
        """Knock at the cluster's head; may take seconds."""
        if self._address is None or answers(self._address):
            self._answered = time.monotonic()

    def check(self) -> None:
        """EngineLost when Ray is broken beyond what it mends itself; takes no time."""
        check_own_processes()
        silent = time.monotonic() - self._answered
        if self._address is not None and silent > _HEAD_SECONDS:
            raise EngineLost(f"the head of the cluster, {self._address}, has not answered for {silent:.0f} s")


def _stand_by(over: threading.Event, pulse: _Pulse, on_stuck: Callable[[str], None]) -> None:
    while not over.wait(LOOK_EVERY):
        pulse.listen()
        try:
            pulse.check()
        except EngineLost as lost:
            if not over.wait(_STUCK_SECONDS):
                on_stuck(str(lost))
                return


def check_own_processes() -> None:
    """EngineLost when a process of the Ray that we started is gone."""
    node = ray._private.worker._global_node
    if node is not None and node.dead_processes():
        names = ", ".join(sorted({name for name, _ in node.dead_processes()}))
        raise EngineLost(f"Ray's {names} died")
