"""Joins a Ray cluster and puts the doctor's questions to its nodes: ``python -m sweeps.doctor_checks.roll_call``.

A process of its own, because Ray writes to its terminal what nobody here is to read, repeats a refused token for a
while and waits long for a head that is gone; this one can be ended. The request is one JSON object on stdin
(``address``, ``question``, ``seconds``); the answer is one on stdout: ``nodes`` with ``name``, ``alive``, ``cpus``,
``gpus`` and, of those that are alive, either ``answer`` or ``silence`` (why there is none).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweeps.doctor_checks.node import answer_in_json

PACKAGES = ("repsim", "sweeps", "search_spaces")
"""What is sent along, so that a node answers whatever it has, or has not, of this project."""
_ROOT = Path(__file__).resolve().parents[2]
_UNCOUNTED = shutil.ignore_patterns("__pycache__", "*.pyc")


def call(address: str, question: Mapping[str, Any], seconds: float) -> list[dict[str, Any]]:
    """Every node of the cluster with what it answered within ``seconds``. What Ray raises is the caller's."""
    import ray

    with _joined(address):
        nodes: list[dict[str, Any]] = ray.nodes()
        told = [
            {
                "name": f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:6]})",
                "alive": bool(node["Alive"]),
                "cpus": float(node["Resources"].get("CPU", 0.0)),
                "gpus": float(node["Resources"].get("GPU", 0.0)),
            }
            for node in nodes
        ]
        for one, its in zip(told, _ask(nodes, question, seconds), strict=True):
            one.update(its)
        return told


@contextmanager
def _joined(address: str) -> Iterator[None]:
    import ray
    from ray._private import ray_constants

    if address.startswith(("127.", "localhost:")):  # such a cluster is not to be looked for at the public address
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        ray_constants.ENABLE_RAY_CLUSTER = False
    with tempfile.TemporaryDirectory(prefix="repsim-doctor-") as folder:
        for package in PACKAGES:
            shutil.copytree(_ROOT / package, Path(folder) / package, ignore=_UNCOUNTED)
        variables = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "OMP_NUM_THREADS": "1"}
        ray.init(address=address, log_to_driver=False, runtime_env={"working_dir": folder, "env_vars": variables})
        try:
            yield
        finally:
            ray.shutdown()


def _ask(nodes: Sequence[Mapping[str, Any]], question: Mapping[str, Any], seconds: float) -> list[dict[str, Any]]:
    """For each node ``answer``, ``silence``, or nothing where it is not alive."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(answer_in_json)
    asked = {}
    for number, node in enumerate(nodes):
        if node["Alive"]:
            its = {**question, "ray_gpus": float(node["Resources"].get("GPU", 0.0))}
            where = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
            asked[number] = task.options(scheduling_strategy=where).remote(its)
    done, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=seconds)
    told: list[dict[str, Any]] = [{} for _ in nodes]
    for number, reference in asked.items():
        if reference not in done:
            told[number] = {"silence": f"no answer within {seconds:g} s"}
            continue
        try:
            told[number] = {"answer": ray.get(reference)}
        # whatever is raised on a node is that node's answer
        except Exception as error:
            told[number] = {"silence": " ".join(str(error).split())[-300:]}
    return told


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    nodes = call(asked["address"], asked["question"], asked["seconds"])
    sys.stdout.write(json.dumps({"nodes": nodes}) + "\n")
