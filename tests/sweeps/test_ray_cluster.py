"""A cluster that is there: how it is joined, counted, and found to have lost a node or its head. No Ray runs."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray._private import ray_constants

from repsim.errors import RequestError
from sweeps import ray_cluster
from sweeps.code_of_ours import PACKAGES
from sweeps.machines import Machine
from sweeps.ray_cluster import QUIET, Census, EngineLost, cluster, joined, lost_node
from sweeps.slots import Slots
from tests.faults.clusters import free_port

SLOTS = Slots(parallel=2, threads=3)
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def node(number: int, *, alive: bool = True, port: int = 1, **resources: float) -> dict[str, Any]:
    """One of ``ray.nodes()``."""
    return {
        "NodeID": f"{number:032x}",
        "Alive": alive,
        "NodeManagerHostname": f"host{number}",
        "NodeManagerAddress": "127.0.0.1",
        "NodeManagerPort": port,
        "Resources": resources,
    }


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Ray says of the cluster."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "nodes", lambda: list(found))
    return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(ray_cluster, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def listening() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What Ray was told when it was joined; what that changes in this process is changed back."""
    seen: dict[str, Any] = {}

    def init(**options: Any) -> None:
        seen.update(options)
        folder = options.get("runtime_env", {}).get("working_dir")
        seen["packages"] = {path.name for path in Path(folder).iterdir()} if folder else set()
        seen["listens"] = ray._private.worker.listen_error_messages

    for name in (*QUIET, *THREADS, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    levels = {name: logging.getLogger(name).level for name in ("ray", "ray.tune", "ray.data")}
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    monkeypatch.setattr(ray._private.services, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setattr(ray._private.worker, "_global_node", None)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: seen.update(ended=True))
    yield seen
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def test_the_code_and_the_threads_go_along(told: dict[str, Any], listening: int) -> None:
    listen = ray._private.worker.listen_error_messages
    with joined(f"127.0.0.1:{listening}", threads=3):
        assert told["address"] == f"127.0.0.1:{listening}"
    assert told["packages"] == set(PACKAGES)
    assert not Path(told["runtime_env"]["working_dir"]).exists(), "Ray has a copy"
    variables = told["runtime_env"]["env_vars"]
    assert {variables[name] for name in THREADS} == {"3"}
    assert told["listens"] is not listen, "Ray would print the last words of every node that dies"
    assert ray._private.worker.listen_error_messages is listen
    assert told["ended"]


def test_a_cluster_on_loopback_alone_is_joined_there(
    told: dict[str, Any], listening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with joined(f"127.0.0.1:{listening}", threads=1):
        assert ray_constants.ENABLE_RAY_CLUSTER, "it is found under the machine's own address"
    monkeypatch.setattr(ray._private.services, "get_node_ip_address", lambda: "127.0.0.2")
    with joined(f"127.0.0.1:{listening}", threads=1):
        assert not ray_constants.ENABLE_RAY_CLUSTER


def test_what_ray_says_against_joining_is_one_line(told: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: Any) -> None:
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr(ray, "init", init)
    with (
        pytest.raises(RequestError, match=r"^--address: h:1: cannot be joined: 'first second'$"),
        joined("h:1", threads=1),
    ):
        raise AssertionError("it was not joined")


def test_the_machines_are_counted_anew_after_a_while(nodes: list[dict[str, Any]], clock: SimpleNamespace) -> None:
    census = Census()
    nodes += [node(1, CPU=4.0, GPU=1.0), node(2, alive=False, CPU=8.0), node(3)]
    first = (
        Machine(name="host1 (127.0.0.1, 00000000)", cpus=4, gpus=1),
        Machine(name="host3 (127.0.0.1, 00000000)", cpus=0),
    )
    assert census() == first
    nodes.append(node(4, CPU=2.0))
    clock.now += 1.0
    assert census() == first
    clock.now += 2.0
    assert [machine.cpus for machine in census()] == [4, 0, 2]


def test_a_node_that_is_gone_is_named(
    nodes: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, listening: int
) -> None:
    actors = {"a": {"Address": {"NodeID": f"{1:032x}"}}, "b": {"Address": {"NodeID": ""}}, "c": {}}
    monkeypatch.setattr(ray._private.state, "actors", lambda number: actors[number])
    nodes += [node(2, alive=False), node(1, port=listening)]
    assert [lost_node(number) for number in ("", "a", "b", "c")] == ["", "", "", ""], "it answers, or is not known"
    nodes[1] = node(1, port=free_port())
    assert lost_node("a") == "host1 (127.0.0.1, 00000000)", "Ray has not found out yet"
    nodes[1] = node(1, alive=False, port=listening)
    assert lost_node("a").startswith("host1")


def test_a_head_that_is_silent_for_long_is_gone(clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray._private.worker, "_global_node", None)
    heard = {"answers": True}
    monkeypatch.setattr(ray_cluster, "answers", lambda address: heard["answers"])
    pulse, ours = ray_cluster._Pulse("h:1"), ray_cluster._Pulse(None)
    for answers, seconds in ((True, 60.0), (False, 19.0), (True, 1.0), (False, 19.0)):
        heard["answers"] = answers
        clock.now += seconds
        for one in (pulse, ours):
            one.listen()
        if answers:
            pulse.check()
    pulse.check()
    clock.now += 2.0
    pulse.listen()
    with pytest.raises(EngineLost, match=r"^the head of the cluster, h:1, has not answered for 21 s$"):
        pulse.check()
    ours.listen()
    ours.check()


def test_a_lost_head_reaches_a_main_thread_that_waits_for_it(
    told: dict[str, Any], listening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(ray_cluster, "_STUCK_SECONDS", 0.05)
    monkeypatch.setattr(ray_cluster, "_HEAD_SECONDS", 0.1)
    stuck: list[str] = []
    heard = threading.Event()
    with cluster(SLOTS, f"127.0.0.1:{listening}", lambda why: (stuck.append(why), heard.set())) as alive:
        alive()
        monkeypatch.setattr(ray_cluster, "answers", lambda address: False)
        assert heard.wait(10)
        with pytest.raises(EngineLost, match="the head of the cluster"):
            alive()
    assert len(stuck) == 1
