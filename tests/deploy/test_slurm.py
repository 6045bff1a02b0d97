"""``deploy/slurm.sh`` under a Slurm of fakes that write down what they are asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.faults.evidence import assert_agreement
from tests.launch.sweeping import REPOSITORY, events, write_space
from tests.trainer.stripes import write_images

SCRIPT = REPOSITORY / "deploy" / "slurm.sh"
FAKE = """\
#!/bin/bash
printf '%s' "{name}" >> "$CALLS"; printf ' %s' "$@" >> "$CALLS"; printf '\\n' >> "$CALLS"
{body}
"""
FAKES = {
    "scontrol": '[[ $1 == show ]] && printf "node1\\nnode2\\n"; true',
    "srun": "exec sleep 60",
    "ray": '[[ $1 == status ]] && printf "Active:\\n 1 node_aa\\n 1 node_bb\\nPending:\\n"; true',
}
DRIVER = """\
case "$2" in
    *secrets*) echo 0123456789abcdef; exit 0 ;;
    *node_ip*) echo 10.0.0.1; exit 0 ;;
esac
printf 'token %s %s\\n' "${RAY_AUTH_MODE:-none}" "${RAY_AUTH_TOKEN:-none}" >> "$CALLS"
[[ $2 == --resume ]] && exit 0
trap 'exit 130' USR1 TERM
mkdir -p "runs/$3" && touch "runs/$3/journal.jsonl"
[[ -n ${FAILS:-} ]] && exit 1
while :; do sleep 0.05; done
"""


class Job:
    """A job in a folder of its own, with fakes first on its path."""

    def __init__(self, folder: Path, *, nodes: int, fakes: Mapping[str, str]) -> None:
        self.folder = folder
        self._calls = folder / "calls"
        self._calls.touch()
        programs = folder / "bin"
        programs.mkdir()
        for name, body in fakes.items():
            (programs / name).write_text(FAKE.format(name=name, body=body))
            (programs / name).chmod(0o755)
        self._environment = {
            **os.environ,
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "CALLS": str(self._calls),
            "REPSIM": str(REPOSITORY),
            "SLURM_JOB_ID": "4242",
            "SLURM_JOB_NUM_NODES": str(nodes),
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_CPUS_PER_TASK": "2",
            "SLURM_SUBMIT_DIR": str(folder),
            "REPSIM_CACHE": str(folder / "cache"),
        }

    @property
    def calls(self) -> list[str]:
        """What the fakes were asked, in order."""
        return self._calls.read_text().splitlines()

    @contextmanager
    def started(self, *arguments: str, **more: str) -> Iterator[subprocess.Popen[str]]:
        """The job's shell, as Slurm starts it; whatever is left of it at the end is killed."""
        process = subprocess.Popen(
            ["bash", str(SCRIPT), *arguments],
            cwd="/",
            env=self._environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def wait_for(self, call: str, process: subprocess.Popen[str]) -> None:
        """Until a fake was asked something that starts with ``call``."""
        deadline = time.monotonic() + 30
        while not any(line.startswith(call) for line in self.calls):
            assert process.poll() is None, (process.communicate()[0], self.calls)
            assert time.monotonic() < deadline, self.calls
            time.sleep(0.02)


def ended(process: subprocess.Popen[str], seconds: float = 30) -> int:
    return process.wait(timeout=seconds)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path, nodes=2, fakes={**FAKES, "python": DRIVER})


def test_time_is_up_and_the_job_goes_on_where_it_was(job: Job) -> None:
    with job.started("--space", "mine.yaml", TRACKING_URI="http://mlflow:5000") as process:
        job.wait_for("token", process)
        time.sleep(0.2)
        os.kill(process.pid, signal.SIGUSR1)
        assert ended(process) == 130
    launch = REPOSITORY / "sweeps" / "launch.py"
    both = "--tracking-uri http://mlflow:5000 --address 10.0.0.1:24242"
    shared = "--num-cpus=2 --num-gpus=0 --disable-usage-stats"
    assert [line for line in job.calls if not line.startswith(("python -c", "ray status"))] == [
        "scontrol show hostnames node[1-2]",
        f"ray start --head --node-ip-address=10.0.0.1 --port=24242 --include-dashboard=false {shared}",
        "srun --overlap --nodes=1 --ntasks=1 --ntasks-per-node=1 --exclude=node1 "
        f"ray start --address=10.0.0.1:24242 --block {shared}",
        f"python {launch} --name slurm-4242 --space mine.yaml {both}",
        "token token 0123456789abcdef",
        "scontrol requeue 4242",
    ]
    with job.started("--space", "mine.yaml", TRACKING_URI="http://mlflow:5000") as process:
        assert ended(process) == 0
    assert job.calls[-2] == f"python {launch} --resume slurm-4242 {both}"
    assert job.calls.count("scontrol requeue 4242") == 1


def test_cancelled_is_not_queued_again(job: Job) -> None:
    with job.started("--space", "mine.yaml") as process:
        job.wait_for("token", process)
        time.sleep(0.2)
        os.kill(process.pid, signal.SIGTERM)
        assert ended(process) == 130
    assert "scontrol requeue 4242" not in job.calls


def test_a_failure_is_not_queued_again(job: Job) -> None:
    with job.started("--space", "mine.yaml", NAME="mine", FAILS="1") as process:
        assert ended(process) == 1
    assert "scontrol requeue 4242" not in job.calls
    assert (job.folder / "runs" / "mine").is_dir()


def test_time_is_up_while_nodes_join(tmp_path: Path) -> None:
    alone = {**FAKES, "ray": '[[ $1 == status ]] && printf "Active:\\n 1 node_aa\\n"; true', "python": DRIVER}
    job = Job(tmp_path, nodes=2, fakes=alone)
    with job.started("--space", "mine.yaml") as process:
        job.wait_for("ray status", process)
        os.kill(process.pid, signal.SIGUSR1)
        time.sleep(0.5)
        (tmp_path / "bin" / "ray").write_text(FAKE.format(name="ray", body=FAKES["ray"]))
        assert ended(process) == 130
    assert job.calls[-1] == "scontrol requeue 4242"
    assert not any("launch.py" in line for line in job.calls)


def test_one_node_needs_no_cluster(tmp_path: Path) -> None:
    job = Job(tmp_path, nodes=1, fakes={**FAKES, "python": DRIVER})
    with job.started("--space", "mine.yaml") as process:
        job.wait_for("token none none", process)
    assert not any(line.startswith(("ray", "srun")) for line in job.calls)
    assert "--address" not in job.calls[0]


@pytest.mark.slow
@pytest.mark.timeout(300)
# MLflow 3.17 reads runs with a loader that SQLAlchemy 2.1 deprecates
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
def test_a_real_sweep_is_stopped_queued_again_and_finished(tmp_path: Path) -> None:
    space = write_space(tmp_path, write_images(tmp_path / "stripes"), trials=4, epochs=30)
    job = Job(tmp_path, nodes=1, fakes={"scontrol": FAKES["scontrol"]})
    with job.started("--space", str(space), NAME="mine") as process:
        deadline = time.monotonic() + 120
        while sum(line["event"] == "epoch" for line in events(tmp_path, "mine")) < 5:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGUSR1)
        printed, _ = process.communicate(timeout=60)
        assert process.returncode == 130, printed
    assert job.calls == ["scontrol requeue 4242"]
    before = sum(line["event"] == "ended" for line in events(tmp_path, "mine"))
    assert before < 4
    with job.started("--space", str(space), NAME="mine") as process:
        printed, _ = process.communicate(timeout=200)
        assert process.returncode == 0, printed
    assert_agreement(tmp_path, "mine", 4)
