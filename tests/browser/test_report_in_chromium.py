"""The report and the MLflow UI as a person sees them, in a real browser. REPSIM_SCREENSHOTS=DIR keeps the pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pandas as pd
import pytest
from mlflow import MlflowClient

from reports.build import build_report
from reports.figures import MOST_MARKS
from reports.load import Sweep, load_sweep
from reports.store import open_store
from repsim.records import Tag
from tests.browser.chromium import find_chromium, running, shots, visit
from tests.reports.front_sweep import LITE, TAGS, front_trials
from tests.reports.recorded_sweeps import DEMO_REFERENCE, FakeTrial, config, demo_trials, numbers, record
from tests.tracking.servers import free_port, server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium: apt-get install chromium"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]
DRAWN = "#front-0 .scatterlayer .trace path.point"
T = TypeVar("T")
MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = find_chromium()
    assert path is not None
    with running(path) as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ``mlflow.db`` and the report on its sweep are."""
    from sweeps.tracking import prepare_store

    found = tmp_path_factory.mktemp("browser")
    uri = f"sqlite:///{found / 'mlflow.db'}"
    prepare_store(uri)
    client = MlflowClient(tracking_uri=uri)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(found)
        parent = record(client, "front", front_trials(), tags=TAGS)
        experiment = client.get_run(parent).info.experiment_id
        client.set_experiment_tag(experiment, "mlflow.experimentKind", "custom_model_development")
        for run in client.search_runs([experiment]):
            client.set_terminated(run.info.run_id)
        evil = {Tag.METHOD: MARKUP, Tag.BACKBONE: f"b{MARKUP}"}
        hostile = [
            FakeTrial(f"t{i:04d}", config(method=method), numbers(0.9 - 0.1 * i, 0.5 + 0.1 * i), tags=evil if i else {})
            for i, method in enumerate(["full", "repsim", "hcs"])
        ]
        record(client, "hostile", hostile, tags={Tag.QUESTION: f"Is {MARKUP} run?"})
        build_report("front", uri, found / "report", log=False)
        build_report("hostile", uri, found / "hostile", log=False)
    return found


def many(sweep: Sweep, times: int) -> Sweep:
    """So many copies of a sweep's trials, as one sweep."""
    suffixes = [f"x{number}" if number else "" for number in range(times)]
    trials = pd.concat(
        [
            sweep.trials.assign(
                trial_id=sweep.trials["trial_id"] + end,
                mlflow_run_id=sweep.trials["mlflow_run_id"] + end,
                val_accuracy=sweep.trials["val_accuracy"] - 0.0001 * number,
                val_cka=sweep.trials["val_cka"] - 0.0003 * number,
            )
            for number, end in enumerate(suffixes)
        ],
        ignore_index=True,
    )

    def copied(values: Mapping[str, T]) -> dict[str, T]:
        return {run_id + end: value for end in suffixes for run_id, value in values.items()}

    return replace(
        sweep,
        trials=trials,
        configs=copied(sweep.configs),
        facts=copied(sweep.facts),
        hashes=copied(sweep.hashes),
        code=copied(sweep.code),
    )


@pytest.fixture(scope="module")
def large(folder: Path) -> str:
    """The report on 1,800 trials."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    record(MlflowClient(tracking_uri=uri), "demo", demo_trials(), tags={Tag.REFERENCE: DEMO_REFERENCE})
    work = folder / "large"
    work.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reports.load.load_sweep", lambda client, name, *, fresh: many(load_sweep(client, name), 60))
        build_report("demo", uri, work, log=False)
    return (work / "index.html").as_uri()


_SCROLL = """async () => {
  const gaps = [], end = document.scrollingElement.scrollHeight - innerHeight, took = 3000;
  const began = performance.now();
  let last = began;
  await new Promise((done) => {
    const step = () => {
      const now = performance.now();
      gaps.push(now - last);
      last = now;
      scrollTo(0, end * Math.min(1, (now - began) / took));
      if (now - began < took) { requestAnimationFrame(step); } else { done(); }
    };
    requestAnimationFrame(step);
  });
  return {gaps: gaps, at: scrollY, end: end};
}"""
"""From the top of the page to its end in three seconds: milliseconds between frames."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_on_many_trials_scrolls_smoothly(browser: Browser, large: str, scheme: str) -> None:
    with visit(browser, large, scheme=scheme) as seen:
        seen.page.wait_for_selector(DRAWN)
        assert "even sample" in seen.page.locator("figcaption").first.inner_text()
        assert seen.points() == MOST_MARKS + 1, "and the middle of the error bar"
        told = seen.page.evaluate(_SCROLL)
        assert told["at"] == pytest.approx(told["end"], abs=2)
        gaps = sorted(told["gaps"])
        assert gaps[len(gaps) // 2] < 40, "half of the frames come within 40 ms, on a shared machine"
        assert gaps[int(0.95 * len(gaps))] < 150, "nearly all within 150 ms"
        assert seen.clean(), seen


@pytest.fixture(scope="module")
def address(folder: Path) -> str:
    return (folder / "report" / "index.html").as_uri()


def test_it_needs_no_network_and_has_no_complaint(browser: Browser, address: str, tmp_path: Path) -> None:
    with visit(browser, address) as seen:
        seen.page.wait_for_selector(DRAWN)
        assert seen.page.locator("#front-0-static").is_hidden()
        assert seen.page.locator(".picks .card").count() == 3
        assert seen.clean(), seen
        seen.page.screenshot(path=shots(tmp_path) / "report_wide_light.png", full_page=True)


def test_a_click_on_a_front_point_shows_the_trial_and_its_row(browser: Browser, address: str, tmp_path: Path) -> None:
    with visit(browser, address) as seen:
        page = seen.page
        page.wait_for_selector(DRAWN)
        assert page.locator(".chosen-trial").is_hidden()
        page.mouse.move(*seen.at("t0003 mean"))
        page.wait_for_selector("#front-0 .hoverlayer text")
        assert "optim.lr" in (page.locator("#front-0 .hoverlayer").text_content() or "")
        page.mouse.click(*seen.at("t0003 mean"))
        panel = page.locator(".chosen-trial")
        panel.wait_for(state="visible")
        said = panel.inner_text()
        for words in ("t0003 repsim", "n = 3, on the front", "0.905 ± 0.006", "strength", "python sweeps/launch.py"):
            assert words in said
        link = panel.locator("a").get_attribute("href")
        assert link is not None
        assert re.fullmatch(r"http://127\.0\.0\.1:5000/#/experiments/\d+/runs/[0-9a-f]{32}", link)
        row = page.locator('tr[aria-current="true"]')
        assert row.locator("td").first.inner_text() == "t0003"
        assert page.locator("#front-0-trials").input_value() == "t0003 mean"
        page.screenshot(path=shots(tmp_path) / "report_chosen.png", full_page=True)
        panel.get_by_role("button", name="its row in the table").click()
        assert row.is_visible()
        page.screenshot(path=shots(tmp_path) / "report_chosen_row.png")
        panel.get_by_role("button", name="close").click()
        assert panel.is_hidden()
        assert page.locator("tr.chosen").count() == 0
        assert seen.clean(), seen


def test_filters_take_points_away_and_bring_them_back(browser: Browser, address: str, tmp_path: Path) -> None:
    with visit(browser, address) as seen:
        page = seen.page
        page.wait_for_selector(DRAWN)
        data = json.loads(page.locator("script[data-figure]").text_content() or "")
        traces = [trace for trace in data["light"]["data"] if "customdata" in trace]
        of = {
            name: sum(len(t["customdata"]) for t in traces if name in t["meta"].values()) for name in ("repsim", LITE)
        }
        every = seen.points()
        box = page.locator('input[value="repsim"]')
        box.focus()
        page.keyboard.press("Space")
        page.wait_for_function(
            "([selector, count]) => document.querySelectorAll(selector).length === count",
            arg=[DRAWN, every - of["repsim"]],
        )
        assert f"{sum(len(t['customdata']) for t in traces) - of['repsim']} of" in page.locator(".count").inner_text()
        page.screenshot(path=shots(tmp_path) / "report_filtered.png", full_page=True)
        page.get_by_role("button", name="none of backbone").click()
        page.wait_for_function("selector => document.querySelectorAll(selector).length === 0", arg=DRAWN)
        page.get_by_role("button", name="all of backbone").click()
        page.get_by_role("button", name="all of method").click()
        page.wait_for_function(
            "([selector, count]) => document.querySelectorAll(selector).length === count", arg=[DRAWN, every]
        )
        assert seen.clean(), seen


def test_the_keyboard_alone_can_choose_a_trial(browser: Browser, address: str) -> None:
    with visit(browser, address) as seen:
        page = seen.page
        page.wait_for_selector(DRAWN)
        page.locator("#front-0-trials").select_option("t0001 mean")
        panel = page.locator(".chosen-trial")
        panel.wait_for(state="visible")
        assert "t0001 full" in panel.inner_text()
        panel.get_by_role("button", name="close").focus()
        page.keyboard.press("Escape")
        assert panel.is_hidden()
        assert page.evaluate("document.activeElement.id") == "front-0-trials"
        assert seen.clean(), seen


def test_it_follows_the_colour_scheme(browser: Browser, address: str, tmp_path: Path) -> None:
    with visit(browser, address, scheme="dark") as seen:
        page = seen.page
        page.wait_for_selector(DRAWN)
        page.mouse.click(*seen.at("t0003 mean"))
        page.locator(".chosen-trial").wait_for(state="visible")
        page.screenshot(path=shots(tmp_path) / "report_wide_dark.png", full_page=True)
        fill = "document.querySelector('#front-0 .main-svg').style.background"
        dark = (page.evaluate("getComputedStyle(document.body).backgroundColor"), page.evaluate(fill))
        page.emulate_media(color_scheme="light")
        page.wait_for_function(f"before => {fill} !== before", arg=dark[1])
        light = (page.evaluate("getComputedStyle(document.body).backgroundColor"), page.evaluate(fill))
        assert dark == ("rgb(15, 19, 24)", "rgb(23, 28, 35)")
        assert light == ("rgb(246, 247, 249)", "rgb(255, 255, 255)")
        assert page.locator(".chosen-trial").is_visible()
        assert seen.clean(), seen


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 820, 1920])
def test_no_window_is_too_narrow(browser: Browser, address: str, width: int, scheme: str, tmp_path: Path) -> None:
    with visit(browser, address, width=width, scheme=scheme) as seen:
        page = seen.page
        page.wait_for_selector(DRAWN)
        page.locator("#front-0-trials").select_option("t0003 mean")
        page.locator(".chosen-trial").wait_for(state="visible")
        assert not seen.scrolls_sideways()
        page.screenshot(path=shots(tmp_path) / f"report_{width}_{scheme}.png", full_page=True)
        assert seen.clean(), seen


def test_a_page_that_is_too_wide_is_seen(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "wide.html").write_text("<div style='width: 5000px'>x</div><script>console.error('x')</script>")
    with visit(browser, (tmp_path / "wide.html").as_uri()) as seen:
        assert seen.scrolls_sideways()
        assert seen.problems == ["x"]


def test_without_scripts_the_static_picture_stays(browser: Browser, address: str) -> None:
    with visit(browser, address, scripts=False) as seen:
        assert seen.page.locator("#front-0-static img").is_visible()
        assert seen.page.locator("#front-0").is_hidden()
        assert seen.page.locator("input").count() == 0


def test_names_that_are_markup_are_shown_and_never_run(browser: Browser, folder: Path) -> None:
    with visit(browser, (folder / "hostile" / "index.html").as_uri()) as seen:
        page = seen.page
        page.wait_for_selector(DRAWN)
        assert page.locator(f'.chip:has-text("{MARKUP}")').count() == 2
        page.locator("#front-0-trials").select_option("t0001")
        page.locator(".chosen-trial").wait_for(state="visible")
        assert MARKUP in page.locator(".chosen-trial h3").inner_text()
        page.mouse.move(*seen.at("t0001"))
        page.wait_for_selector("#front-0 .hoverlayer text")
        assert page.locator('img[src="x"]').count() == 0
        assert seen.clean(), seen


def test_the_links_open_the_runs_in_mlflow(
    browser: Browser, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    port = free_port()
    with server(folder, port):
        uri = f"http://somebody:secret@127.0.0.1:{port}"
        report = build_report("front", uri, tmp_path / "report", log=False)
        assert "secret" not in (report / "index.html").read_text(encoding="utf-8")
        sweep = load_sweep(open_store(uri), "front")
        with visit(browser, (report / "index.html").as_uri()) as seen:
            with seen.page.expect_popup() as opened:
                seen.page.locator(".picks a").first.click()
            run = opened.value
            run.get_by_text("t0001 full").first.wait_for(timeout=60_000)
            run.get_by_text("val_accuracy", exact=True).first.wait_for(timeout=60_000)
            value = run.get_by_text("0.926", exact=True).first
            value.scroll_into_view_if_needed()
            assert value.is_visible()
            run.screenshot(path=shots(tmp_path) / "mlflow_run.png")
            assert f"/experiments/{sweep.experiment_id}/runs/" in run.url
        with visit(browser, f"http://127.0.0.1:{port}/#/experiments/{sweep.experiment_id}/runs") as seen:
            page = seen.page
            row = page.get_by_role("row").filter(has=page.get_by_text("front", exact=True))
            row.first.wait_for(timeout=60_000)
            row.first.get_by_role("button").first.click()
            page.get_by_text("t0001 full").first.wait_for(timeout=60_000)
            page.screenshot(path=shots(tmp_path) / "mlflow_experiment.png")
