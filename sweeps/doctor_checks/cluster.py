"""The same questions put to every node of a Ray cluster, and their answers compared with the driver's."""

from __future__ import annotations

import logging
import os
import re
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sweeps.doctor_checks import inputs, versions
from sweeps.doctor_checks.findings import Finding, bad, doubt, good
from sweeps.doctor_checks.node import Answer, Question, look

NODE_SECONDS = 120.0
"""A node that has not answered by then is lost, or so busy that it might as well be."""
_DIAL_SECONDS = 5.0


def dial(address: str) -> Finding | None:
    """A failure when nothing listens at HOST:PORT; None when something does, or when ``address`` says no port."""
    found = re.fullmatch(r"(?:ray://)?\[?([^\[\]/]+?)\]?:(\d{1,5})", address)
    if found is None:
        return None
    try:
        socket.create_connection((found[1], int(found[2])), timeout=_DIAL_SECONDS).close()
    except (OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or str(error)
        return bad("cluster", f"{address} does not answer: {said}", "`ray start --head --port=6379`, open that port")
    return None


def examine(address: str, question: Question, here: Answer, seconds: float = NODE_SECONDS) -> list[Finding]:
    """Join the cluster, ask every node that is alive, and compare; leaves the cluster again."""
    refused = dial(address)
    if refused is not None:
        return [refused]
    import ray

    try:
        with _joined(address), _marked(Path(question.runs)) as mark:
            nodes = ray.nodes()
            answers = _ask(nodes, replace(question, mark=mark), seconds)
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
        said = " ".join(str(error).split())[:300]
        advice = "start the doctor on a machine that has joined it (ray start --address=HEAD:6379), as its user"
        return [bad("cluster", f"{address} cannot be joined: {said}", advice)]
    found = [_roll(address, nodes)]
    for node, answer in answers:
        found += told(node_name(node), answer, here, question)
    return found


@contextmanager
def _joined(address: str) -> Iterator[None]:
    import ray

    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _marked(runs: Path) -> Iterator[str]:
    """The name of a file in ``runs`` for the time of the question; a folder that was not there is removed again."""
    made = not runs.exists()
    runs.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.NamedTemporaryFile(prefix=".doctor-", dir=runs) as file:
            yield Path(file.name).name
    finally:
        if made:
            runs.rmdir()


def _roll(address: str, nodes: Sequence[Mapping[str, Any]]) -> Finding:
    alive = [node for node in nodes if node["Alive"]]
    cpus, gpus = (sum(node["Resources"].get(what, 0.0) for node in alive) for what in ("CPU", "GPU"))
    said = f"{address}: {len(alive)} nodes, {cpus:g} CPUs, {gpus:g} GPUs"
    if len(alive) < len(nodes):
        gone = ", ".join(node_name(node) for node in nodes if not node["Alive"])
        return doubt("cluster", f"{said}; gone: {gone}", "nothing, if they were taken out on purpose")
    return good("cluster", said)


def node_name(node: Mapping[str, Any]) -> str:
    """What a person knows a node by, with the beginning of Ray's own id."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:6]})"


def _ask(
    nodes: Sequence[Mapping[str, Any]], question: Question, seconds: float
) -> list[tuple[Mapping[str, Any], Answer | str]]:
    """Each live node with its answer, or why there is none."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = {}
    for node in (node for node in nodes if node["Alive"]):
        where = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
        task = ray.remote(num_cpus=0, max_retries=0)(answer_as_json).options(scheduling_strategy=where)
        its = replace(question, ray_gpus=float(node["Resources"].get("GPU", 0.0)))
        asked[task.remote(asdict(its))] = node
    done, late = ray.wait(list(asked), num_returns=len(asked), timeout=seconds)
    answers: list[tuple[Mapping[str, Any], Answer | str]] = []
    for reference in done:
        try:
            answers.append((asked[reference], Answer.from_json(ray.get(reference))))
        # whatever a node with other versions raises; it is told as that node's failure
        except Exception as error:
            answers.append((asked[reference], " ".join(str(error).split())[-300:]))
    for reference in late:
        answers.append((asked[reference], f"no answer within {seconds:g} s"))
    order = [node["NodeID"] for node in nodes]
    return sorted(answers, key=lambda pair: order.index(pair[0]["NodeID"]))


def answer_as_json(question: Mapping[str, Any]) -> dict[str, Any]:
    """The task that runs on a node."""
    return look(Question(**question)).to_json()


def told(name: str, answer: Answer | str, here: Answer, question: Question) -> list[Finding]:
    """One node's line when all is well there, else a line for each thing that is not."""
    if isinstance(answer, str):
        if "No module named" in answer or "Can't get attribute" in answer:
            advice = "install this project there, the same version (pip install -c constraints.txt -e .)"
        else:
            advice = "see whether it is up and not overloaded (ray status), and can be reached from here"
        return [bad(f"node {name}", answer, advice)]
    found = [one for one in answer.findings if one.level != "ok"]
    found += versions.differences(here.stock, answer.stock)
    found += inputs.compared([source for source, _ in question.sources], here.data, answer.data)
    if not found:
        return [good(f"node {name}", f"all is well ({len(answer.findings)} checks, versions as here)")]
    return [replace(one, name=f"node {name}, {one.name}") for one in found]
