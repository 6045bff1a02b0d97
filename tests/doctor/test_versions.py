"""What is installed, against what is declared and against another machine."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path

import pytest

from sweeps.doctor_checks import versions


def test_what_is_declared_is_installed() -> None:
    assert versions.requirements().level == "ok"


def test_what_is_missing_or_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["ray[tune]>=999", "nothing-of-this-name>=1", "pytest>=1", "unneeded>=1; extra == 'dev'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: wanted)
    found = versions.requirements()
    ray = importlib.metadata.version("ray")
    assert (found.level, found.found) == ("FAIL", f"ray is {ray}, not >=999, nothing-of-this-name is missing")

    def missing(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    assert "is not installed in" in versions.requirements().found


def test_the_code_has_a_digest(tmp_path: Path) -> None:
    for package in ("repsim", "sweeps"):
        shutil.copytree(versions._ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    assert versions.code_digest(tmp_path) == versions.stock()[versions.CODE]
    (tmp_path / "sweeps" / "slots.py").write_text("")
    assert versions.code_digest(tmp_path) != versions.stock()[versions.CODE]


def test_differences_between_machines() -> None:
    here = {"python": "3.11.7", "torch": "2.13.0", "mlflow": "3.17.2", versions.CODE: "abc"}
    assert versions.differences(here, dict(here)) == []
    there = {"python": "3.12.1", "mlflow": "3.16.0", versions.CODE: "def", "torch": "2.13.0"}
    found = {finding.name: finding.level for finding in versions.differences(here, there)}
    assert found == {"version of python": "FAIL", "version of mlflow": "warn", "version of the code": "FAIL"}
    (gone,) = versions.differences({"torch": "2.13.0"}, {})
    assert (gone.level, gone.found) == ("FAIL", "missing there, 2.13.0 here")
