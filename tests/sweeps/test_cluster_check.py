"""A cluster that is not there, or not fit, is refused at once, in one line, with nothing written. No Ray is started."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray._private.runtime_env.packaging import get_uri_for_directory

from repsim.errors import RequestError
from sweeps import cluster_check, code_of_ours
from sweeps.cluster_check import answers, check_address, check_cluster
from sweeps.cluster_witness import look
from sweeps.code_of_ours import PACKAGES, copy_to, fingerprint, versions
from sweeps.machines import Machine
from sweeps.space import Space, load_space
from tests.faults.clusters import free_port
from tests.launch.sweeping import launch
from tests.trainer.stripes import write_images


@pytest.fixture
def listening() -> Iterator[str]:
    """An address that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return load_space("quick.yaml", data=[str(write_images(tmp_path / "images"))])


# is it there


def test_somebody_listens(listening: str) -> None:
    check_address(listening)
    check_address("auto")
    assert answers(listening)
    assert not answers(f"127.0.0.1:{free_port()}")


def test_nobody_listens() -> None:
    with pytest.raises(RequestError, match=r"^--address: 127\.0\.0\.1:\d+: there is no cluster: Connection refused"):
        check_address(f"127.0.0.1:{free_port()}")


@pytest.mark.parametrize("address", ["somewhere", "10.0.0.1", ":6379", "10.0.0.1:port", "10.0.0.1:99999"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(RequestError, match="is not an address; allowed: HOST:PORT"):
        check_address(address)


def test_rays_client_cannot_drive_a_sweep() -> None:
    with pytest.raises(RequestError, match="Ray's client cannot drive a sweep"):
        check_address("ray://10.0.0.1:10001")


@pytest.mark.parametrize("arguments", [["--space", "quick.yaml"], ["--space", "quick.yaml", "--dry-run"]])
def test_a_launch_says_so_at_once_and_writes_nothing(tmp_path: Path, arguments: list[str]) -> None:
    began = time.monotonic()
    code, printed = launch(tmp_path, *arguments, "--address", f"127.0.0.1:{free_port()}")
    assert code == 2
    assert printed.startswith("--address: 127.0.0.1:")
    assert printed.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    assert time.monotonic() - began < 10.0


# what the process that joins says


def answering(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Let ``program`` join in the place of ``sweeps.cluster_witness``; the request is its first argument."""
    real = cluster_check.subprocess.Popen

    def start(command: list[str], **options: Any) -> Any:
        return real([sys.executable, "-c", program, command[-1]], **options)

    monkeypatch.setattr(cluster_check.subprocess, "Popen", start)


NODES = """
import json, pathlib, sys
request = json.loads(sys.argv[1])
mark = pathlib.Path(request["token"]).parent
assert pathlib.Path(request["token"]).exists()
(mark / "n0").touch()
print(json.dumps([
    {"id": "n0", "name": "a", "cpus": 4, "gpus": 1, "problems": []},
    {"id": "n1", "name": "b", "cpus": 2, "gpus": 0, "problems": PROBLEMS},
]))
"""


def test_every_machine_is_counted_once_it_is_fit(
    monkeypatch: pytest.MonkeyPatch, listening: str, space: Space, tmp_path: Path
) -> None:
    answering(
        monkeypatch, NODES.replace("PROBLEMS", "[]").replace('"n0").touch()', '"n0").touch(); (mark / "n1").touch()')
    )
    found = check_cluster(listening, space, tmp_path / "runs")
    assert found == (Machine(name="a", cpus=4, gpus=1), Machine(name="b", cpus=2))
    assert {path.name for path in tmp_path.iterdir()} == {"images"}, "what was written to be seen is gone again"


def test_a_node_that_left_no_mark_writes_elsewhere(
    monkeypatch: pytest.MonkeyPatch, listening: str, space: Space, tmp_path: Path
) -> None:
    answering(monkeypatch, NODES.replace("PROBLEMS", "[]"))
    with pytest.raises(RequestError, match=rf"node b cannot write to {tmp_path}; allowed: .* a shared file system"):
        check_cluster(listening, space, tmp_path / "runs")


def test_what_a_node_misses_is_one_line_each(
    monkeypatch: pytest.MonkeyPatch, listening: str, space: Space, tmp_path: Path
) -> None:
    answering(monkeypatch, NODES.replace("PROBLEMS", '[["does not see /x", "y"], ["has no z", ""]]'))
    with pytest.raises(RequestError) as caught:
        check_cluster(listening, space, tmp_path / "runs")
    lines = [str(mistake) for mistake in caught.value.mistakes]
    assert lines == [
        f"--address: {listening}: node b does not see /x; allowed: y",
        f"--address: {listening}: node b has no z",
    ]


@pytest.mark.parametrize("mark", cluster_check._REFUSALS)
def test_rays_refusals_have_their_nearest_cause(
    monkeypatch: pytest.MonkeyPatch, listening: str, space: Space, tmp_path: Path, mark: str
) -> None:
    answering(monkeypatch, f'import sys, time; print("gcs: {mark}!", file=sys.stderr, flush=True); time.sleep(60)')
    began = time.monotonic()
    with pytest.raises(RequestError) as caught:
        check_cluster(listening, space, tmp_path)
    assert cluster_check._REFUSALS[mark].replace("{address}", listening) in str(caught.value)
    assert time.monotonic() - began < 10.0, "it is not waited for"


@pytest.mark.parametrize(("program", "said"), [("raise OSError(5, 'broken')", "broken"), ("", "without a word")])
def test_any_other_end_is_told(
    monkeypatch: pytest.MonkeyPatch, listening: str, space: Space, tmp_path: Path, program: str, said: str
) -> None:
    answering(monkeypatch, program)
    with pytest.raises(RequestError, match=f"cannot be joined: .*{said}"):
        check_cluster(listening, space, tmp_path)


def test_nodes_that_do_not_answer_are_not_waited_for_ever(
    monkeypatch: pytest.MonkeyPatch, listening: str, space: Space, tmp_path: Path
) -> None:
    monkeypatch.setattr(cluster_check, "PATIENCE", 0.3)
    answering(monkeypatch, "import time; time.sleep(60)")
    with pytest.raises(RequestError, match="not every node has answered within 0 s"):
        check_cluster(listening, space, tmp_path)


def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, listening: str, space: Space) -> None:
    with pytest.raises(RequestError, match="/proc: cannot be written"):
        check_cluster(listening, space, Path("/proc/runs"))


# what a node says


@pytest.fixture
def request_(space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the driver asks of a node, and a node that has all of it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "token").touch()
    (tmp_path / "weights.safetensors").write_bytes(b"123")
    return {
        "code": fingerprint(),
        "versions": versions(),
        "folder": str(tmp_path),
        "token": str(tmp_path / "probe" / "token"),
        "sources": {space.data[0]: 51},
        "files": {"weights.safetensors": 3},
    }


def test_a_node_that_has_everything(request_: dict[str, Any], tmp_path: Path) -> None:
    assert look(request_, "n7") == []
    assert (tmp_path / "probe" / "n7").exists()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"code": "another"}, "imports other code than the driver's"),
        ({"versions": {"torch": "1.0"}}, "has torch .* instead of 1.0"),
        ({"folder": "/nowhere"}, r"does not see /nowhere \(No such file or directory\)"),
        ({"token": "/nowhere/at/all"}, "does not see /nowhere"),
        ({"sources": {"folder:/nowhere": 3}}, "does not see folder:/nowhere: "),
        ({"files": {"weights.safetensors": 4}}, "does not see the same weights.safetensors"),
        ({"files": {"absent.safetensors": 4}}, "does not see the same absent.safetensors"),
    ],
)
def test_what_a_node_lacks(request_: dict[str, Any], change: dict[str, Any], problem: str) -> None:
    import re

    [(found, _)] = look(request_ | change, "n7")
    assert re.match(problem, found), found


def test_a_node_with_fewer_images(request_: dict[str, Any], space: Space) -> None:
    next(Path(space.data[0]).rglob("*.png")).unlink()
    assert [problem for problem, _ in look(request_, "n7")] == [f"sees 50 images in {space.data[0]}, this machine 51"]


def test_a_package_that_a_node_lacks_has_no_version(monkeypatch: pytest.MonkeyPatch, request_: dict[str, Any]) -> None:
    monkeypatch.setattr(code_of_ours, "_DEPENDENCIES", ("no-such-package",))
    assert versions() == {"no-such-package": ""}
    [(found, _)] = look(request_ | {"versions": {"no-such-package": "1.0"}}, "n7")
    assert found == "has no-such-package (none) instead of 1.0"


# the code that travels


def test_a_copy_of_the_code_is_the_code_and_little_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_to(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(PACKAGES)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < 5e6
    before = fingerprint()
    monkeypatch.setattr(code_of_ours, "root", lambda: tmp_path)
    assert fingerprint() == before
    (tmp_path / "repsim" / "__pycache__").mkdir()
    (tmp_path / "repsim" / "__pycache__" / "x.pyc").touch()
    assert fingerprint() == before
    (tmp_path / "repsim" / "new.py").touch()
    assert fingerprint() != before


def test_ray_gives_every_copy_the_same_name(tmp_path: Path) -> None:
    names = set()
    for name in ("one", "two"):
        copy_to(tmp_path / name)
        names.add(get_uri_for_directory(str(tmp_path / name), include_gitignore=True))
    assert len(names) == 1, "a node that has it does not fetch it again"


def test_the_request_is_what_a_node_reads(
    monkeypatch: pytest.MonkeyPatch, listening: str, space: Space, tmp_path: Path
) -> None:
    seen = tmp_path / "request.json"
    answering(monkeypatch, f"import pathlib, sys; pathlib.Path({str(seen)!r}).write_text(sys.argv[1]); print('[]')")
    (tmp_path / "w.safetensors").write_bytes(b"12")
    given = replace(space, fixed={**space.fixed, "backbone.weights": str(tmp_path / "w.safetensors")})
    check_cluster(listening, given, tmp_path / "runs")
    request = json.loads(seen.read_text())
    assert request["address"] == listening
    assert request["sources"] == {space.data[0]: 51}
    assert request["files"] == {str(tmp_path / "w.safetensors"): 2}
    assert request["folder"] == os.getcwd()
