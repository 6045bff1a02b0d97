"""What the MLflow store costs a sweep: SQLite in a file, a server on SQLite, a server on PostgreSQL.

    python benchmarks/tracking_stores.py --database postgresql://USER:PASSWORD@HOST/EMPTY [--quick] [--rounds N]

The same tiny sweep (trials of about a second, so that the store is as large a part of it as it can be) is launched
with each store in turn, start to end without its report, in ``--rounds`` rounds whose order is reversed every other
time; the fastest counts, since whatever else runs on the machine can only add. Before them each server is started
once, and the time until it answers is told: PostgreSQL's database must be empty, so that this includes making the
tables. Goal: with a server on PostgreSQL a sweep takes at most 1.25 times as long as with SQLite in a file, because
writing is the business of a thread of its own.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

GOAL = 1.25
REPOSITORY = Path(__file__).resolve().parent.parent
SPACE = """
name: stores
data: phantom:tiny
objectives:
  - {{metric: val_accuracy, direction: maximize}}
  - {{metric: val_cka, direction: maximize}}
budget: {{trials: {trials}, epochs: 10}}
search: {{parallel: 1, seed: 3}}
resources: {{cpus_per_worker: 1, models: none}}
fixed: {{data.image_size: 32, backbone: test_efficientnet, backbone.weights: random, optim.batch_size: 16}}
space:
  method: [full, repsim, hcs]
  strength: {{low: 0.1, high: 10, log: true, when: {{penalty: any}}}}
"""


@contextmanager
def served(folder: Path, store: str) -> Iterator[tuple[str, float]]:
    """The address of an MLflow server on ``store``, and the seconds until it answered."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--host", "127.0.0.1"]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--port", str(port), "--workers", "1"]
    began = time.monotonic()
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=folder)
    try:
        while not answers(f"http://127.0.0.1:{port}/health"):
            if process.poll() is not None or time.monotonic() - began > 180:
                sys.exit(f"no server on {store.partition(':')[0]}: see {folder / 'server.log'}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", time.monotonic() - began
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(url: str) -> bool:
    """Whether a page can be had."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def sweep_seconds(folder: Path, name: str, uri: str) -> float:
    """One sweep, from launch to exit."""
    command = [sys.executable, str(REPOSITORY / "sweeps" / "launch.py"), "--space", str(folder / "space.yaml")]
    command += ["--name", name, "--tracking-uri", uri, "--no-report"]
    environment = os.environ | {"REPSIM_CACHE": str(folder / "cache"), "PYTHONPATH": str(REPOSITORY)}
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)
    return time.monotonic() - began


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table; 1 when the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", required=True, help="postgresql://… of an empty database")
    parser.add_argument("--quick", action="store_true", help="fewer trials, one round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    trials, rounds = (4, 1) if options.quick else (10, options.rounds)
    with tempfile.TemporaryDirectory(prefix="stores-") as name, ExitStack() as running:
        folder = Path(name)
        (folder / "space.yaml").write_text(SPACE.format(trials=trials))
        starts: dict[str, float] = {"sqlite": 0.0}
        uris = {"sqlite": f"sqlite:///{folder / 'mlflow.db'}"}
        for label, store in (
            ("server, sqlite", f"sqlite:///{folder / 's.db'}"),
            ("server, postgresql", options.database),
        ):
            (folder / label).mkdir()
            uris[label], starts[label] = running.enter_context(served(folder / label, store))
        sweep_seconds(folder, "warm", uris["sqlite"])  # decodes the images, and makes the file
        took: dict[str, list[float]] = {label: [] for label in uris}
        for number in range(rounds):
            for label in list(uris)[:: 1 if number % 2 == 0 else -1]:
                took[label].append(sweep_seconds(folder, f"{label.replace(', ', '-')}-{number}", uris[label]))
    best = {label: min(seconds) for label, seconds in took.items()}
    print(f"{trials} trials of 10 epochs, {rounds} rounds, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| store | server answers after | sweep, fastest | each |\n|---|---|---|---|")
    for label, seconds in took.items():
        start = f"{starts[label]:.1f} s" if starts[label] else ""
        print(f"| {label} | {start} | {best[label]:.1f} s | {', '.join(f'{one:.1f}' for one in seconds)} |")
    ratio = best["server, postgresql"] / best["sqlite"]
    verdict = "ok" if ratio <= GOAL else "short"
    print(f"\ntracking_stores: {ratio:.2f} times sqlite (goal {GOAL:g}) {verdict}")
    return 0 if verdict == "ok" else 1


if __name__ == "__main__":
    sys.exit(main())
