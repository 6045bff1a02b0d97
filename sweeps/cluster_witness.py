"""Joins a cluster and has every node say whether it could run a trial: ``python -m sweeps.cluster_witness REQUEST``.

The request is JSON (made by :mod:`sweeps.cluster_check`); the answer, one line of JSON on stdout, is a list with
``id``, ``name``, ``cpus``, ``gpus`` and ``problems`` (each with what is allowed) for every node that is alive.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from repsim.errors import RequestError


class Answer(TypedDict):
    """What one node says; ``problems`` are pairs of what is wrong and what would be right."""

    id: str
    name: str
    cpus: int
    gpus: int
    problems: list[tuple[str, str]]


_SHARED = "the same path on every node: a shared file system"


def look(request: Mapping[str, Any], node_id: str) -> list[tuple[str, str]]:
    """What is wrong here, on a node: each problem with what would be right. Leaves a mark beside the token."""
    from sweeps.code_of_ours import fingerprint, versions

    if fingerprint() != request["code"]:
        return [("imports other code than the driver's", "no PYTHONPATH there that holds another version of it")]
    here, wanted = versions(), request["versions"]
    differing = [name for name in wanted if here[name] != wanted[name]]
    if differing:
        said = ", ".join(f"{name} {here[name] or '(none)'} instead of {wanted[name]}" for name in differing)
        return [(f"has {said}", "the same versions everywhere: pip install -c constraints.txt -e .")]
    problems = []
    try:
        os.chdir(request["folder"])
    except OSError as error:
        return [(f"does not see {request['folder']} ({error.strerror})", _SHARED)]
    token = Path(request["token"])
    if not token.exists():
        return [(f"does not see {token.parent.parent}", _SHARED)]
    try:
        (token.parent / node_id).touch()
    except OSError as error:
        problems.append((f"cannot write to {token.parent.parent} ({error.strerror})", _SHARED))
    return problems + _unseen(request)


def _unseen(request: Mapping[str, Any]) -> list[tuple[str, str]]:
    from repsim.data.sources import count_images

    problems = []
    for source, count in request["sources"].items():
        try:
            found = count_images(source)
        except RequestError as error:
            problems.append((f"does not see {source}: {error.mistakes[0].problem}", _SHARED))
            continue
        if found != count:
            problems.append((f"sees {found} images in {source}, this machine {count}", _SHARED))
    for path, size in request["files"].items():
        if not Path(path).is_file() or Path(path).stat().st_size != size:
            problems.append((f"does not see the same {path}", _SHARED))
    return problems


def ask(request: Mapping[str, Any]) -> list[Answer]:
    """Every node's answer. What Ray raises is the caller's."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from sweeps.ray_cluster import joined, machine_of

    with joined(request["address"], threads=1):
        nodes = [node for node in ray.nodes() if node["Alive"]]
        remote = ray.remote(num_cpus=0, max_retries=0)(look)
        answers = [
            remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                request, node["NodeID"]
            )
            for node in nodes
        ]
        machines = [machine_of(node) for node in nodes]
        return [
            {"id": node["NodeID"], "name": m.name, "cpus": m.cpus, "gpus": m.gpus, "problems": ray.get(answer)}
            for node, m, answer in zip(nodes, machines, answers, strict=True)
        ]


if __name__ == "__main__":
    from sweeps.cluster_witness import (
        ask as ask_nodes,  # pickled by reference: nodes import it from the code sent along
    )

    try:
        told = ask_nodes(json.loads(sys.argv[1]))
    except RequestError as refused:
        sys.exit(refused.mistakes[0].problem)
    sys.stdout.write(json.dumps(told) + "\n")
