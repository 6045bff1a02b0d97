"""What the nodes of a cluster answer is compared with what the driver sees; the nodes are fakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sweeps.doctor_checks import cluster, gpus
from sweeps.doctor_checks.findings import bad, doubt, good
from sweeps.doctor_checks.node import Answer, Question, answer_in_json, look
from tests.faults.command import everything_in
from tests.tracking.servers import free_port

HERE = Answer(host="head", findings=(good("home", "is there"),), stock={"torch": "2.13.0"}, data={"x": "1", "y": "2"})
QUESTION = Question(runs="runs", sources=(("x", None), ("y", None)))
BOTH: list[dict[str, Any]] = [
    {"name": "a", "alive": True, "cpus": 4.0, "gpus": 1.0, "answer": HERE.to_json()},
    {"name": "b", "alive": True, "cpus": 8.0, "gpus": 0.0, "silence": "no answer within 90 s"},
]


def test_a_node_where_all_is_well_is_one_line() -> None:
    (found,) = cluster.told("a", HERE, HERE, QUESTION)
    assert str(found) == "ok    node a: all is well (1 checks, versions as here)"


def test_a_node_tells_what_is_not_well_and_what_differs() -> None:
    findings = (good("home", "is there"), bad("memory", "none", "buy some"), doubt("cores", "few", "wait"))
    there = Answer(host="b", findings=findings, stock={"torch": "2.12.0"}, data={"x": "1", "y": "other"})
    found = cluster.told("b", there, HERE, QUESTION)
    assert [(one.level, one.name) for one in found] == [
        ("FAIL", "node b, memory"),
        ("warn", "node b, cores"),
        ("FAIL", "node b, version of torch"),
        ("FAIL", "node b, data y"),
    ]


@pytest.mark.parametrize(
    ("silence", "advice"),
    [("no answer within 90 s", "see whether it is up"), ("No module named 'torch'", "install what this project needs")],
)
def test_a_node_that_does_not_answer_fails(silence: str, advice: str) -> None:
    (found,) = cluster.told("c", silence, HERE, QUESTION)
    assert (found.level, found.found) == ("FAIL", silence)
    assert advice in found.advice


def test_nodes_that_are_gone_are_counted() -> None:
    assert str(cluster.roll("h:1", BOTH)) == "ok    cluster: h:1: 2 nodes, 12 CPUs, 1 GPUs"
    gone = cluster.roll("h:1", [*BOTH, {"name": "c", "alive": False, "cpus": 4.0, "gpus": 0.0}])
    assert (gone.level, gone.found) == ("warn", "h:1: 2 nodes, 12 CPUs, 1 GPUs; gone: c")


def test_an_address_where_nothing_listens_is_known_at_once() -> None:
    assert cluster.dial("auto") is None
    found = cluster.dial(f"127.0.0.1:{free_port()}")
    assert found is not None
    assert "Connection refused" in found.found
    assert cluster.dial("127.0.0.1:99999") is not None


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "dial", lambda address: None)


def roll_call(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put ``script`` in the place of the process that joins the cluster."""
    run = subprocess.run

    def instead(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert command[1:] == ["-m", "sweeps.doctor_checks.roll_call"]
        return run([sys.executable, "-c", script], **options)

    monkeypatch.setattr(subprocess, "run", instead)


@pytest.mark.usefixtures("listening")
def test_the_answers_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs"
    script = f"""
import json, pathlib, sys
request = json.load(sys.stdin)
assert (request["address"], request["seconds"]) == ("h:1", 7.0)
assert (pathlib.Path({str(runs)!r}) / request["question"]["mark"]).is_file()
print("Ray says something")
print(json.dumps({{"nodes": {json.dumps(BOTH).replace("true", "True")}}}))
"""
    roll_call(monkeypatch, script)
    found = cluster.examine("h:1", Question(runs=str(runs)), HERE, seconds=7.0)
    assert [(one.level, one.name) for one in found] == [("ok", "cluster"), ("ok", "node a"), ("FAIL", "node b")]
    assert everything_in(tmp_path) == set()


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize(
    ("wrote", "said"),
    [
        ("x InvalidAuthToken y", "it refuses the token"),
        ("RuntimeError: Version mismatch: ...", "it runs another Ray or Python"),
        ("cannot find a node_ip_address.json", "this machine is no node of it"),
        ("ValueError: something new", "ValueError: something new"),
        ("", "it ended without a word"),
    ],
)
def test_a_cluster_that_cannot_be_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrote: str, said: str
) -> None:
    roll_call(monkeypatch, f"import sys; sys.exit({wrote!r})")
    (found,) = cluster.examine("h:1", Question(runs=str(tmp_path)), HERE, 7.0)
    assert (found.level, found.name) == ("FAIL", "cluster")
    assert said in found.found


@pytest.mark.usefixtures("listening")
def test_a_cluster_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_JOIN_SECONDS", 0.5)
    roll_call(monkeypatch, "import time; time.sleep(20)")
    (found,) = cluster.examine("h:1", Question(runs=str(tmp_path)), HERE, seconds=0.0)
    assert "no answer within 0.5 s" in found.found


@pytest.mark.usefixtures("listening")
def test_a_run_folder_that_cannot_be_made_ends_the_question() -> None:
    (found,) = cluster.examine("h:1", Question(runs="/proc/nowhere/runs"), HERE, 7.0)
    assert (found.level, "not asked" in found.found) == ("FAIL", True)


def test_a_node_answers_in_plain_values(tmp_path: Path) -> None:
    (tmp_path / "mark").write_text("")
    question = {"runs": str(tmp_path), "mark": "mark", "ray_gpus": 0.0, "sources": [["phantom:tiny", None]]}
    document = json.loads(json.dumps(answer_in_json(question)))
    answer = Answer.from_json(document)
    assert answer.to_json() == document
    names = [finding.name for finding in answer.findings]
    assert "run folder" in names
    assert "data phantom:tiny" in names
    assert "cores" not in names, "Ray counts those of a node"
    assert answer.stock["torch"]
    assert len(answer.data["phantom:tiny"]) == 16


def test_storage_is_the_drivers_business_and_a_doubt_on_a_node(tmp_path: Path) -> None:
    levels = []
    for gpus_of_ray in (None, 0.0):
        answer = look(Question(runs=str(tmp_path), storage="file:///proc/nowhere", ray_gpus=gpus_of_ray))
        levels += [finding.level for finding in answer.findings if finding.name == "storage"]
    assert levels == ["FAIL", "warn"]


def test_a_node_without_torch_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "read_torch_build", lambda: None)
    answer = look(Question(runs=str(tmp_path)))
    assert [one.level for one in answer.findings if one.name == "torch build"] == ["FAIL"]


def test_torch_is_asked_where_there_are_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = gpus.Gpu(name="X", uuid="GPU-1", total=10**10, free=10**10)
    asked: list[dict[str, str]] = []
    monkeypatch.setattr(gpus, "read_driver", lambda: gpus.Driver(version="1", cuda=(12, 8), gpus=(one,)))
    monkeypatch.setattr(gpus, "read_torch_build", lambda: {"version": "2", "cuda": "12.6", "hip": None})
    monkeypatch.setattr(gpus, "torch_sees", lambda count, around: asked.append(dict(around)) or good("torch", "sees"))
    around = {"HOME": str(tmp_path), gpus.VISIBLE: ""}
    hidden = look(Question(runs=str(tmp_path)), around)
    assert [f.level for f in hidden.findings if f.name == "gpus"] == ["warn"]
    assert asked == []
    offered = look(Question(runs=str(tmp_path), ray_gpus=2.0), around)
    assert [f.level for f in offered.findings if f.name == "gpus"] == ["ok", "FAIL"], "Ray hides them from the task"
    assert asked == [{"HOME": str(tmp_path)}]
