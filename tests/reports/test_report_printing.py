"""The report on paper."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from reports.build import build_report, main
from reports.printing import VARIABLE, find_browser, print_page
from tests.browser.chromium import find_chromium
from tests.reports.recorded_sweeps import Store

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
@pytest.mark.skipif(find_chromium() is None, reason="no Chromium or Chrome in PATH")
def test_a_page_is_printed(store: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(store, "demo", tmp_path)) == 0
    assert str(tmp_path / "report.pdf") in capsys.readouterr().out
    paper = (tmp_path / "report.pdf").read_bytes()
    assert paper.startswith(b"%PDF-")
    assert len(paper) > 30_000


NUMBER = re.compile(r"(?<![\d.])\d+\.\d{3}(?!\d)")


def missing(page: Path, paper: Path) -> Counter[str]:
    """Numbers of the page's open tables that are not on the paper: what is cut off is not printed at all."""
    shown = re.sub(r"<details>.*?</details>", "", page.read_text(), flags=re.DOTALL)
    tables = " ".join(re.findall(r"<table.*?</table>", shown, flags=re.DOTALL))
    told = subprocess.run(["pdftotext", "-layout", str(paper), "-"], capture_output=True, text=True, check=True).stdout
    wanted = Counter(NUMBER.findall(re.sub(r"<[^>]*>", " ", tables)))
    assert wanted
    return wanted - Counter(NUMBER.findall(told))


@pytest.mark.slow
@pytest.mark.skipif(find_chromium() is None, reason="no Chromium or Chrome in PATH")
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="no pdftotext in PATH")
def test_every_column_is_on_the_paper(store: Store, front_store: str, tmp_path: Path) -> None:
    browser = find_browser()
    for uri, name in ((store.uri, "two"), (store.uri, "hostile"), (front_store, "front")):
        folder = build_report(name, uri, tmp_path / name, log=False)
        print_page(browser, folder / "index.html", folder / "report.pdf")
        assert not missing(folder / "index.html", folder / "report.pdf")
    page = (folder / "index.html").read_text()
    cut = folder / "cut.html"
    rules = ("page: ledger", "var(--columns", "max-width: 8em", "white-space: normal; padding: .25em")
    lines = page.splitlines(keepends=True)
    assert [sum(rule in line for line in lines) for rule in rules] == [1, 2, 1, 1]
    cut.write_text("".join(line for line in lines if not any(rule in line for rule in rules)))
    print_page(browser, cut, folder / "cut.pdf")
    assert missing(cut, folder / "cut.pdf"), "without a page and type of their own the columns do not fit"
