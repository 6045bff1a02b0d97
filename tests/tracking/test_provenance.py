from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps import provenance as module
from sweeps.provenance import git_state, installed_versions, provenance


def _git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _checkout(root: Path) -> str:
    (root / "sweeps").mkdir()
    (root / "sweeps" / "provenance.py").write_text("1\n")
    _git(root, "init", "-q")
    _git(root, "add", ".")
    _git(root, "commit", "-q", "-m", "one")
    return _git(root, "rev-parse", "HEAD")


def test_commit_and_dirty_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = _checkout(tmp_path)
    assert git_state(tmp_path) == (commit, False)
    (tmp_path / "mlflow.db").write_text("runs do not make the code dirty")
    assert git_state(tmp_path) == (commit, False)
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as inside a hook
    assert git_state(tmp_path) == (commit, False)
    monkeypatch.delenv("GIT_DIR")
    (tmp_path / "sweeps" / "new.py").write_text("code that no commit holds")
    assert git_state(tmp_path) == (commit, True)
    (tmp_path / "sweeps" / "new.py").unlink()
    (tmp_path / "sweeps" / "provenance.py").write_text("2\n")
    assert git_state(tmp_path) == (commit, True)


def test_no_repository_somebody_elses_or_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_state(tmp_path) == (None, None)
    assert git_state(tmp_path / "nowhere") == (None, None)
    _git(tmp_path, "init", "-q")
    (tmp_path / "theirs.txt").write_text("1")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-q", "-m", "one")
    assert git_state(tmp_path) == (None, None)
    (tmp_path / "own").mkdir()
    commit = _checkout(tmp_path / "own")
    assert git_state(tmp_path / "own") == (commit, False)
    monkeypatch.setenv("PATH", "")
    assert git_state(tmp_path / "own") == (None, None)


def test_git_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "git"
    fake.write_text("#!/bin/sh\nexec sleep 20\n")
    fake.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(module, "_GIT_SECONDS", 0.2)
    assert git_state(tmp_path) == (None, None)


def test_versions_leave_out_what_is_not_installed() -> None:
    found = installed_versions(("numpy", "no-such-distribution"))
    assert list(found) == ["numpy"]
    assert found["numpy"][0].isdigit()


def test_provenance_is_json_without_paths_and_imports_nothing_heavy() -> None:
    script = (
        "import json, sys; from sweeps.provenance import provenance; found = provenance(); "
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'numpy'} & set(sys.modules); "
        "print(json.dumps([found, sorted(heavy)]))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    found, imported = json.loads(done.stdout)
    assert imported == []
    assert set(found) == {"git_commit", "git_dirty", "versions", "platform", "cpu_count", "host"}
    assert {"python", "torch", "ray", "optuna", "timm", "mlflow", "numpy"} <= set(found["versions"])
    assert found["cpu_count"] >= 1
    assert len(found["host"]) == 12
    assert "/" not in done.stdout
    assert provenance()["versions"] == found["versions"]
