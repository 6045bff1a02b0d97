"""Real sweeps on real Ray clusters of several nodes: nodes die and are added, the head dies, a token is refused."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from repsim.records import Status
from tests.faults.clusters import RayCluster, ray_cluster
from tests.faults.evidence import assert_agreement, records, wait_until_gone
from tests.launch.sweeping import descendants, events, launch, started, wait_for, write_space
from tests.trainer.stripes import write_images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # MLflow 3.17 reads runs with a loader that SQLAlchemy 2.1 deprecates
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "stripes")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[RayCluster]:
    """A head of one core; this process, and what it launches, has its token."""
    with ray_cluster(1) as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made


def old_checkout(folder: Path) -> Path:
    """Packages under our names that cannot be imported."""
    for name in ("sweeps", "repsim", "search_spaces"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise ImportError('an older version')\n")
    return folder


def test_nodes_come_and_go_and_no_trial_is_lost(cluster: RayCluster, images: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache of a node"
    cluster.add(1)
    old = str(old_checkout(tmp_path / "old"))
    cluster.add(1, PYTHONPATH=old, REPSIM_CACHE=str(cache).replace(" ", "_"))
    space = write_space(tmp_path, images, trials=12, epochs=40)
    space.write_text(space.read_text().replace("parallel: 1", "parallel: auto"))
    with started(tmp_path, "--space", str(space), "--name", "moving", "--address", cluster.address) as process:
        wait_for_three(tmp_path, "moving")
        cluster.kill(1)
        wait_for(tmp_path, "moving", "waiting", 1, process)
        new = cluster.add(2)
        printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    found = assert_agreement(tmp_path, "moving", 12)
    assert {record.status for record in found.values()} == {Status.COMPLETED}
    lines = events(tmp_path, "moving")
    lost = [str(line["reason"]) for line in lines if line["event"] == "waiting"]
    assert all("its node is gone: " in reason for reason in lost), lost
    assert len(lost) == 1
    assert max(record.deaths for record in found.values()) == 0, "a node's death is no fault of the trial"
    continued = next(line for line in lines if line["event"] == "epoch" and line["attempt"] == 2)
    before = [
        number(line) for line in lines if line["event"] == "epoch" and line["attempt"] == 1 and same(line, continued)
    ]
    assert number(continued) in (before[-1] + 1, before[-1] + 2), "from the checkpoint, not from the beginning"
    nodes = [str(record.result.facts["node"]) for record in found.values() if record.result is not None]
    assert len(set(nodes)) >= 3
    assert any(new[:8] in node for node in nodes), "the new node is used"
    assert list((tmp_path / "cache_of_a_node").iterdir()), "each node has its own cache"
    assert not list((tmp_path / "runs" / "moving").glob("repsim-ray-*"))
    assert list(tmp_path.glob(".repsim-probe-*")) == []


def wait_for_three(folder: Path, name: str) -> None:
    """Until three trials are in the middle of their epochs at the same time."""
    deadline = time.monotonic() + 120
    while True:
        lines = events(folder, name)
        ended = {line["trial_id"] for line in lines if line["event"] == "ended"}
        epochs = Counter(line["trial_id"] for line in lines if line["event"] == "epoch")
        if sum(count >= 3 for trial_id, count in epochs.items() if trial_id not in ended) == 3:
            return
        assert time.monotonic() < deadline, "no three trials at a time"
        time.sleep(0.02)


def number(line: dict[str, object]) -> int:
    """The epoch that a line of the journal tells of."""
    result = line["result"]
    assert isinstance(result, dict)
    return int(result["epoch"])


def same(one: dict[str, object], other: dict[str, object]) -> bool:
    """Whether two lines are about the same trial."""
    return one["trial_id"] == other["trial_id"]


def test_a_token_that_is_refused_is_told_in_seconds(
    cluster: RayCluster, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = write_space(tmp_path, images, trials=2, epochs=2)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    began = time.monotonic()
    code, printed = launch(tmp_path, "--space", str(space), "--name", "x", "--address", cluster.address)
    assert (code, printed.count("\n")) == (2, 1), printed
    assert "it refuses this shell's token: set RAY_AUTH_MODE=token" in printed
    assert time.monotonic() - began < 20.0
    assert not (tmp_path / "runs").exists()
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("HOME", str(tmp_path))
    code, printed = launch(tmp_path, "--space", str(space), "--name", "x", "--address", cluster.address, "--dry-run")
    assert (code, printed.count("\n")) == (2, 1), printed
    assert "RAY_AUTH_MODE is token, but there is none here" in printed


def test_a_node_that_does_not_share_the_folder_is_named(cluster: RayCluster, images: Path, tmp_path: Path) -> None:
    space = write_space(tmp_path, images, trials=2, epochs=2)
    failed = cluster.hide(tmp_path)
    if failed:
        pytest.skip(f"no node can have a disk of its own here: {failed}")
    node = cluster.add(1)
    code, printed = launch(tmp_path, "--space", str(space), "--name", "x", "--address", cluster.address)
    assert (code, printed.count("\n")) == (2, 1), printed
    assert f"{node[:8]}) does not see {tmp_path}; allowed: the same path on every node: a shared file system" in printed
    assert not (tmp_path / "runs").exists()
    assert list(tmp_path.glob(".repsim-probe-*")) == []


def test_a_cluster_that_loses_its_head_leaves_a_sweep_to_resume(
    cluster: RayCluster, images: Path, tmp_path: Path
) -> None:
    space = write_space(tmp_path, images, trials=2, epochs=12)
    with started(tmp_path, "--space", str(space), "--name", "left", "--address", cluster.address) as process:
        wait_for(tmp_path, "left", "epoch", 2, process)
        below = list(descendants(process.pid))
        cluster.kill(0)
        printed, _ = process.communicate(timeout=90)
    assert process.returncode == 1, printed
    assert f"the head of the cluster, {cluster.address}, has not answered" in printed
    assert f"python sweeps/launch.py --resume left --address {cluster.address}" in printed
    assert "Traceback" not in printed
    wait_until_gone(below, 20)
    before = records(tmp_path, "left")
    code, printed = launch(tmp_path, "--resume", "left", "--no-report")
    assert code == 0, printed
    after = records(tmp_path, "left")
    assert set(before) <= set(after)
    assert [record.status for record in after.values()] == [Status.COMPLETED] * 2
