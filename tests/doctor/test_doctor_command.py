"""``python sweeps/doctor.py`` from outside: its lines, its exit status, and what it leaves behind, which is nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sweeps import doctor
from tests.faults.command import answer, check_refusal, everything_in
from tests.launch.sweeping import REPOSITORY, descendants

SCRIPT = REPOSITORY / "sweeps" / "doctor.py"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything happens in a folder that was empty before, with a store that is the default one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def lines_of(text: str) -> dict[str, str]:
    """Level by name; every line has both."""
    found = {}
    for line in text.splitlines():
        level, name = line[:6].strip(), line[6:].partition(": ")[0]
        assert level in ("ok", "warn", "FAIL"), line
        assert level == "ok" or "; " in line, "what to do about it"
        found[name] = level
    return found


def test_this_machine_in_seconds_without_torch_ray_or_mlflow(folder: Path) -> None:
    probe = (
        "import sys; from sweeps import doctor; code = doctor.main([]); heavy = {'torch', 'ray', 'mlflow', 'optuna'}; "
    )
    probe += "print(heavy & set(sys.modules), file=sys.stderr); sys.exit(code)"
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert time.monotonic() - begun < 15
    assert done.returncode == 0, done.stdout
    assert done.stderr.strip() == "set()"
    found = lines_of(done.stdout)
    assert {"packages", "home", "ray token", "temporary folder", "shared memory", "file descriptors"} <= set(found)
    assert {"cores", "memory", "loopback", "gpus", "torch build", "run folder", "cache", "mlflow"} <= set(found)
    assert everything_in(folder) == set()


def test_a_space_adds_its_images_weights_and_sizes(folder: Path) -> None:
    outcome = answer(doctor.main, "--space", "quick.yaml", "--storage", str(folder / "mirror"))
    assert outcome.code == 0, outcome.out
    found = lines_of(outcome.out)
    assert {"data phantom:tiny", "weights of tf_efficientnet_lite0", "storage"} <= set(found)
    assert outcome.out.count("a sweep takes about") == 2
    assert everything_in(folder) == set()


def test_one_failure_is_exit_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    outcome = answer(doctor.main, "--space", "quick.yaml", "--set", "resources.gpus_per_worker=2")
    assert outcome.code == 1
    found = lines_of(outcome.out)
    assert found["gpus"] == "FAIL"
    assert found["slots"] == "FAIL"


def test_images_that_are_gone_are_a_finding_not_a_crash(folder: Path) -> None:
    outcome = answer(doctor.main, "--space", "quick.yaml", "--data", "gone", "--tracking-uri", "sqlite:///none/m.db")
    assert outcome.code == 1
    found = lines_of(outcome.out)
    assert (found["data gone"], found["mlflow"]) == ("FAIL", "FAIL")


def test_a_cluster_that_is_not_there_fails(folder: Path) -> None:
    outcome = answer(doctor.main, "--address", "127.0.0.1:1")
    assert outcome.code == 1
    assert lines_of(outcome.out)["cluster"] == "FAIL"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--spaec", "x"], "--spaec"),
        (["--address"], "--address"),
        (["--space", "nothing.yaml"], "nothing.yaml"),
        (["--space", "quick.yaml", "--set", "budget.trails=3"], "did you mean"),
        (["--data", "phantom:tiny"], "add --space FILE"),
        (["--set", "budget.trials=3"], "add --space FILE"),
    ],
)
def test_a_wrong_request_is_exit_two(arguments: list[str], said: str) -> None:
    outcome = answer(doctor.main, *arguments)
    check_refusal(outcome)
    assert said in outcome.err
    assert outcome.out == ""


def test_help_says_what_the_lines_mean() -> None:
    outcome = answer(doctor.main, "--help")
    assert outcome.code == 0
    for word in ("ok    name", "warn  name", "FAIL  name", "--address", "--storage", "exit status: 0"):
        assert word in outcome.out


CLUSTER = """
import os, signal, sys
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
from ray._private import ray_constants
ray_constants.ENABLE_RAY_CLUSTER = False
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
other = cluster.add_node(num_cpus=1)
raylet = other.all_processes["raylet"][0].process.pid
print(cluster.address, raylet, flush=True)
sys.stdin.readline()
cluster.shutdown()
"""


@contextmanager
def two_nodes(folder: Path) -> Iterator[tuple[str, int]]:
    """A cluster of two nodes on loopback: its address, and the pid of what makes the second one a node."""
    command = [sys.executable, "-c", CLUSTER]
    with (folder / "cluster.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        address, raylet = process.stdout.readline().split()
        yield address, int(raylet)
    finally:
        below = descendants(process.pid)
        process.communicate("end\n", timeout=60)
        for pid in below:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_real_cluster_and_a_node_of_it_that_hangs(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with two_nodes(tmp_path_factory.mktemp("ray")) as (address, raylet):
        command = [sys.executable, str(SCRIPT), "--address", address, "--space", "quick.yaml"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{address}: 2 nodes, 2 CPUs, 0 GPUs" in done.stdout
        assert done.stdout.count("all is well") == 2
        assert done.stderr == ""
        os.kill(raylet, signal.SIGSTOP)
        try:
            monkeypatch.setattr("sweeps.doctor_checks.cluster.NODE_SECONDS", 10.0)
            outcome = answer(doctor.main, "--address", address)
        finally:
            os.kill(raylet, signal.SIGCONT)
        assert outcome.code == 1, outcome.out
        assert outcome.out.count("all is well") == 1
        assert "no answer within 10 s" in outcome.out
        assert everything_in(folder) == set()
