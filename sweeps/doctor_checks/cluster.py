"""The same questions put to every node of a Ray cluster, and their answers compared with the driver's."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sweeps.doctor_checks import inputs, versions
from sweeps.doctor_checks.findings import Finding, bad, doubt, good
from sweeps.doctor_checks.node import Answer, Question

NODE_SECONDS = 120.0
"""A node that has not answered by then is lost, or so busy that it might as well be."""
_JOIN_SECONDS = 60.0
"""For joining and leaving."""
_DIAL_SECONDS = 5.0
_ROOT = Path(__file__).resolve().parents[2]
_CAUSES: Mapping[str, tuple[str, str]] = {
    "InvalidAuthToken": (
        "it refuses the token",
        "copy ~/.ray/auth_token of its head here",
    ),
    "AuthenticationError": ("there is no token here", "copy ~/.ray/auth_token of its head here (chmod 600)"),
    "Version mismatch": ("it runs another Ray or Python", "install the versions of constraints.txt on both sides"),
    "node_ip_address": ("this machine is no node of it", "ray start --address={address} here first"),
    "expects this IP address": ("this machine is no node of it", "ray start --address={address} here first"),
}
"""What Ray writes when it cannot join; the cause, and what to do."""


def examine(address: str, question: Question, here: Answer, seconds: float) -> list[Finding]:
    """Join the cluster, ask every node that is alive, and compare; the cluster is left again."""
    refused = dial(address)
    if refused is not None:
        return [refused]
    try:
        with _marked(Path(question.runs)) as mark:
            nodes = _call(address, replace(question, mark=mark), seconds)
    except OSError as error:
        return [bad("cluster", f"not asked: {question.runs}: {error.strerror}", "mend the run folder first")]
    if isinstance(nodes, Finding):
        return [nodes]
    found = [roll(address, nodes)]
    for node in nodes:
        if node["alive"]:
            its = node["silence"] if "silence" in node else Answer.from_json(node["answer"])
            found += told(node["name"], its, here, question)
    return found


def dial(address: str) -> Finding | None:
    """A failure when nothing listens at HOST:PORT; None when something does, or when ``address`` says no port."""
    found = re.fullmatch(r"\[?([^\[\]/]+?)\]?:(\d{1,5})", address)
    if found is None:
        return None
    try:
        socket.create_connection((found[1], int(found[2])), timeout=_DIAL_SECONDS).close()
    except (OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or str(error)
        return bad("cluster", f"{address} does not answer: {said}", "is its head up (ray status), its port open?")
    return None


def _call(address: str, question: Question, seconds: float) -> list[dict[str, Any]] | Finding:
    """Every node with its answer, or why the cluster could not be joined."""
    request = json.dumps({"address": address, "question": asdict(question), "seconds": seconds})
    try:
        done = subprocess.run(
            [sys.executable, "-m", "sweeps.doctor_checks.roll_call"],
            input=request,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])},
            capture_output=True,
            text=True,
            timeout=seconds + _JOIN_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        # bytes or text, whatever was asked for
        wrote = late.stderr.decode(errors="replace") if isinstance(late.stderr, bytes) else late.stderr or ""
        return _not_joined(address, wrote, f"no answer within {seconds + _JOIN_SECONDS:g} s")
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        return _not_joined(address, done.stderr, (done.stderr.strip().splitlines() or ["it ended without a word"])[-1])
    nodes: list[dict[str, Any]] = json.loads(lines[-1])["nodes"]
    return nodes


def _not_joined(address: str, stderr: str, last: str) -> Finding:
    for mark, (cause, advice) in _CAUSES.items():
        if mark in stderr:
            return bad("cluster", f"{address} cannot be joined: {cause}", advice.replace("{address}", address))
    return bad("cluster", f"{address} cannot be joined: {last[:300]}", "see whether it is up: ray status there")


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
            with suppress(OSError):  # somebody uses it by now
                runs.rmdir()


def roll(address: str, nodes: Sequence[Mapping[str, Any]]) -> Finding:
    """The cluster in a line."""
    alive = [node for node in nodes if node["alive"]]
    cpus, gpus = (sum(node[what] for node in alive) for what in ("cpus", "gpus"))
    said = f"{address}: {len(alive)} nodes, {cpus:g} CPUs, {gpus:g} GPUs"
    if len(alive) < len(nodes):
        gone = ", ".join(str(node["name"]) for node in nodes if not node["alive"])
        return doubt("cluster", f"{said}; gone: {gone}", "start Ray there again, or forget it")
    return good("cluster", said)


def told(name: str, answer: Answer | str, here: Answer, question: Question) -> list[Finding]:
    """One node's line when all is well there, else a line for each thing that is not."""
    if isinstance(answer, str):
        if "No module named" in answer:
            advice = "install what this project needs there: pip install -c constraints.txt -e ."
        else:
            advice = "see whether it is up, idle enough, and can be reached from here (ray status)"
        return [bad(f"node {name}", answer, advice)]
    found = [one for one in answer.findings if one.level != "ok"]
    found += versions.differences(here.stock, answer.stock)
    found += inputs.compared([source for source, _ in question.sources], here.data, answer.data)
    if not found:
        return [good(f"node {name}", f"all is well ({len(answer.findings)} checks, versions as here)")]
    return [replace(one, name=f"node {name}, {one.name}") for one in found]
