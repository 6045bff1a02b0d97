"""Tiny sweeps through the real command line: real Ray, real journal, real MLflow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCH = REPOSITORY / "sweeps" / "launch.py"
SPACE = """
name: tiny
question: Does the line hold?
data: {data}
objectives:
  - {{metric: val_accuracy, direction: maximize}}
  - {{metric: val_cka, direction: maximize}}
budget: {{trials: {trials}, epochs: {epochs}}}
search: {{parallel: {parallel}, seed: 3}}
resources: {{cpus_per_worker: 1}}
fixed: {{data.image_size: 32, backbone: test_efficientnet, backbone.weights: random, optim.batch_size: 8}}
space:
  method: [full, linear_probe, repsim, hcs]
  strength: {{low: 0.1, high: 10, log: true, when: {{penalty: any}}}}
"""


def write_space(folder: Path, images: Path, *, trials: int = 6, epochs: int = 4, parallel: int = 1) -> Path:
    """A space of test_efficientnet trials that take about a second each."""
    path = folder / "tiny.yaml"
    path.write_text(SPACE.format(data=json.dumps(str(images)), trials=trials, epochs=epochs, parallel=parallel))
    return path


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Launch in ``folder``; whatever is left of it at the end is killed."""
    process = _start(folder, *arguments)
    try:
        yield process
    finally:
        below = descendants(process.pid)
        process.kill()
        process.communicate()
        for pid in below:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"REPSIM_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(LAUNCH), *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def launch(folder: Path, *arguments: str, timeout: float = 240) -> tuple[int, str]:
    """Launch and wait: exit code and everything printed."""
    with started(folder, *arguments) as process:
        printed, _ = process.communicate(timeout=timeout)
    return process.returncode, printed


def events(folder: Path, name: str) -> list[dict[str, object]]:
    """The journal's whole lines so far."""
    path = folder / "runs" / name / "journal.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def wait_for(folder: Path, name: str, event: str, count: int, process: subprocess.Popen[str]) -> None:
    """Return as soon as the journal holds ``count`` events of a kind; AssertionError when the driver ends before."""
    deadline = time.monotonic() + 180
    while sum(line["event"] == event for line in events(folder, name)) < count:
        assert process.poll() is None, f"ended with {process.returncode}"
        assert time.monotonic() < deadline, f"no {count} {event} events in time"
        time.sleep(0.02)


def descendants(pid: int) -> dict[int, str]:
    """Command lines of every process below ``pid``."""
    parents: dict[int, int] = {}
    commands: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    below = {pid}
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    return {child: commands[child] for child in below - {pid}}


def wait_for_workers(pid: int) -> list[int]:
    """The processes in which a driver's trials run; their titles change with what they do."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        titles = descendants(pid)
        found = [child for child, title in titles.items() if title.startswith(("ray::ResourceTrain", "ray::TrialPro"))]
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("no trial's process was seen")
