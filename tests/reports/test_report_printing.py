"""The report on paper."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reports.build import main
from reports.printing import BROWSERS, VARIABLE

# MLflow's own use of SQLAlchemy
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


def words(store: object, sweep: str, out: Path) -> list[str]:
    uri: str = store.uri  # type: ignore[attr-defined]
    return ["--sweep", sweep, "--tracking-uri", uri, "--out", str(out), "--format", "pdf", "--no-log"]


def test_without_a_browser_nothing_is_written(
    store: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    out = tmp_path / "report"
    assert main(words(store, "single", out)) == 2
    assert "no Chromium or Chrome is in PATH" in capsys.readouterr().err
    assert not out.exists()
    monkeypatch.setenv(VARIABLE, "no-such-browser")
    assert main(words(store, "single", out)) == 2
    assert "REPSIM_BROWSER='no-such-browser' is not there" in capsys.readouterr().err


def test_a_browser_that_prints_nothing_is_said(
    store: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = tmp_path / "fake"
    fake.write_text("#!/bin/sh\necho 'cannot open display' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(fake))
    assert main(words(store, "single", tmp_path / "report")) == 2
    assert "did not print: 'cannot open display'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(all(shutil.which(name) is None for name in BROWSERS), reason="no Chromium or Chrome in PATH")
def test_a_page_is_printed(store: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(store, "demo", tmp_path)) == 0
    assert str(tmp_path / "report.pdf") in capsys.readouterr().out
    paper = (tmp_path / "report.pdf").read_bytes()
    assert paper.startswith(b"%PDF-")
    assert len(paper) > 30_000
