"""The whole report, from a real store: files, numbers, states, hostile names."""

from __future__ import annotations

import html.parser
import json
import math
import re
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from reports.build import build_report, four_states, main
from reports.interactive import script_json
from reports.load import load_sweep, records
from reports.store import open_store
from repsim.config import TrialConfig
from repsim.records import METRICS, TRIAL_COLUMNS

# MLflow's own use of SQLAlchemy
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
HOSTILE = "<script>alert(1)</script>"


class Structure(html.parser.HTMLParser):
    """Tags opened and closed, and the visible text outside scripts and styles."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "source", "wbr"):
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif not self.open or self.open[-1] != "style":
            self.text += data


def read(folder: Path) -> Structure:
    page = Structure()
    page.feed((folder / "index.html").read_text(encoding="utf-8"))
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def demo(store: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    start = time.process_time()
    folder = build_report("demo", store.uri, tmp_path_factory.mktemp("demo"), log=False)  # type: ignore[attr-defined]
    assert time.process_time() - start < 15
    return folder


@pytest.fixture
def build(store: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr("reports.interactive.plotly_source", lambda: "/* plotly.js */")
    return lambda name: read(build_report(name, store.uri, tmp_path / name, log=False))  # type: ignore[attr-defined]


def test_every_file_is_there(demo: Path) -> None:
    written = {path.relative_to(demo).as_posix() for path in demo.rglob("*") if path.is_file()}
    expected = {"index.html", "trials.parquet", "front.parquet"}
    expected |= {f"tables/{name}.{suffix}" for name in ("front", "methods") for suffix in ("csv", "md", "tex")}
    expected |= {f"figures/{name}.{suffix}" for name in ("front", "hypervolume") for suffix in ("png", "svg")}
    assert expected <= written
    assert sum(name.startswith("figures/front_backbone_") for name in written) == 4
    assert (demo / "figures" / "front.png").read_bytes().startswith(b"\x89PNG")
    assert "NaN" not in (demo / "figures" / "front.svg").read_text()


def test_the_table_has_exactly_the_columns_and_rows(demo: Path) -> None:
    trials = pd.read_parquet(demo / "trials.parquet")
    assert tuple(trials.columns[: len(TRIAL_COLUMNS)]) == TRIAL_COLUMNS
    assert all(name.startswith("param/") for name in trials.columns[len(TRIAL_COLUMNS) :])
    assert len(trials) == 30
    assert list(trials["trial_id"]) == [f"t{number:04d}" for number in range(30)]
    first = trials.iloc[0]
    assert (first["method"], first["adapter"], pd.isna(first["strength"])) == ("linear_probe", "linear_probe", True)
    assert first["val_accuracy"] == pytest.approx(0.775)
    assert first["param/optim.lr"] == pytest.approx(3e-4)
    assert trials.loc[27, "status"] == "failed"
    assert pd.isna(trials.loc[27, "val_accuracy"])


def test_rows_are_plain_values_and_what_is_missing_is_none(store: object) -> None:
    trials = load_sweep(open_store(store.uri), "demo").trials  # type: ignore[attr-defined]
    rows = records(trials)
    assert [list(row) for row in rows] == [list(trials.columns)] * 30
    kinds = {"trial_id": str, "seed": int, "feasible": bool, "val_accuracy": float, "param/optim.lr": float}
    assert {name: type(rows[0][name]) for name in kinds} == kinds
    failed = rows[27]
    assert failed["feasible"] is None
    assert failed["n_val"] is None
    assert math.isnan(failed["val_accuracy"])
    for name in trials.columns:
        assert [row[name] for row in rows if not pd.isna(row[name])] == trials[name].dropna().tolist(), name
    assert records(trials.iloc[:0]) == []


def test_a_waiting_trial_is_told_as_running() -> None:
    states = ["completed", "waiting", "proposed", "failed", "pruned", "running"]
    told = four_states(pd.DataFrame({"status": states, "reason": [f"r{n}" for n in range(6)]}))
    assert list(told["status"]) == ["completed", "running", "running", "failed", "pruned", "running"]
    assert list(told["reason"]) == [f"r{n}" for n in range(6)]


def test_the_front_is_made_of_completed_feasible_trials_none_dominated(demo: Path) -> None:
    trials, front = pd.read_parquet(demo / "trials.parquet"), pd.read_parquet(demo / "front.parquet")
    assert set(front["status"]) == {"completed"}
    assert set(front["feasible"]) == {True}
    assert not {"t0027", "t0028", "t0029"} & set(front["trial_id"])
    eligible = trials[(trials["status"] == "completed") & trials["feasible"].astype("boolean").fillna(False)]
    for _, row in eligible.iterrows():
        better = eligible[
            (eligible["val_accuracy"] >= row["val_accuracy"])
            & (eligible["val_cka"] >= row["val_cka"])
            & ((eligible["val_accuracy"] > row["val_accuracy"]) | (eligible["val_cka"] > row["val_cka"]))
        ]
        assert (len(better) == 0) == (row["trial_id"] in set(front["trial_id"]))


def test_the_page_stands_alone_and_warns(demo: Path) -> None:
    page = read(demo)
    links = [link for link in page.links if not link.startswith("data:image/svg+xml;base64,")]
    assert links
    assert all(re.fullmatch(r"http://127\.0\.0\.1:5000/#/experiments/\d+/runs/[0-9a-f]{32}", link) for link in links)
    assert sum("plotly.js v" in script for script in page.scripts) == 1
    for words in (
        "Which method keeps most of the representation per point of accuracy?",
        "n = 1, no error bars", "dirty tree", "always answering the largest class would score 0.56", "failed trials",
        "cut.jpg", "train/a.png = val/b.png", "On tf_efficientnet_lite0, ", "own pretrained backbone",
        "knee of the front", "the loss became NaN in step 12", "Test metrics are shown, never used for choosing",
        "python sweeps/launch.py --space pareto.yaml --name demo", "0123456789abcdef (with uncommitted changes)",
        "torch 2.13.0", "within one standard error", "told apart by one standard error",
    ):  # fmt: skip
        assert words in page.text, words


def test_every_front_member_can_be_repeated(demo: Path) -> None:
    front, page = pd.read_parquet(demo / "front.parquet"), read(demo)
    names = {f"{trial_id}.yaml" for trial_id in front["trial_id"]}
    assert {path.name for path in (demo / "points").iterdir()} == names
    for _, row in front.iterrows():
        space = yaml.safe_load((demo / "points" / f"{row['trial_id']}.yaml").read_text(encoding="utf-8"))
        assert space["space"] == {}
        assert "seed" not in space["fixed"]
        assert ("strength" in space["fixed"]) == (row["method"] != "linear_probe")
        assert "strength.target_cka" not in space["fixed"]
        assert space["budget"]["trials"] == 1
        assert space["resources"] == {"cpus_per_worker": 3}
        flat = {**space["fixed"], "data": space["data"], "seed": space["search"]["seed"]}
        again = TrialConfig.from_flat({**flat, "optim.epochs": space["budget"]["epochs"]})
        assert again.config_id == row["config_id"]
        assert again.seed == row["seed"]
        assert f"points/{row['trial_id']}.yaml" in page.text


def test_the_interactive_figure_is_json_with_every_point_once(demo: Path) -> None:
    page = read(demo)
    figures = [json.loads(script) for script in page.scripts if script.startswith('{"light"')]
    assert len(figures) == 1
    for theme in ("light", "dark"):
        drawn = [key for trace in figures[0][theme]["data"] for key in trace.get("customdata", [])]
        assert len(drawn) == 29
        assert sorted(drawn) == sorted(figures[0]["marks"])
    assert all("optim.lr" in mark["hover"] for mark in figures[0]["marks"].values())


def test_the_paper_tables_agree_with_the_front(demo: Path) -> None:
    front = pd.read_parquet(demo / "front.parquet").set_index("trial_id")
    table = pd.read_csv(demo / "tables" / "front.csv").set_index("trial")
    assert set(table.index) == set(front.index)
    label = METRICS["val_cka"].label
    assert table.loc["t0000", label] == pytest.approx(front.loc["t0000", "val_cka"])
    assert r"linear\_probe" in (demo / "tables" / "front.tex").read_text()
    methods = pd.read_csv(demo / "tables" / "methods.csv")
    assert methods["trials"].sum() == 30
    assert methods["completed"].sum() == 28


def test_an_earlier_build_is_replaced_and_a_stranger_kept(store: object, demo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    shutil.copytree(demo, folder)
    (folder / "points" / "t0999.yaml").write_bytes((folder / "points" / "t0000.yaml").read_bytes())
    (folder / "points" / "mine.yaml").write_text("name: mine\n")
    build_report("single", store.uri, folder, log=False)  # type: ignore[attr-defined]
    assert {path.name for path in (folder / "points").iterdir()} == {"t0000.yaml", "mine.yaml"}
    assert "A single run" in read(folder).text
    assert not list(folder.glob(".report-*"))


def test_hostile_names_are_shown_and_never_run(build: object) -> None:
    page = build("hostile")  # type: ignore[operator]
    assert page.text.count(HOSTILE) > 10
    assert not any("alert(1)" in script for script in page.scripts if not script.startswith('{"light"'))
    figures = [script for script in page.scripts if script.startswith('{"light"')]
    assert len(figures) == 1
    assert "<" not in figures[0]
    assert not any("<script" in mark["hover"] for mark in json.loads(figures[0])["marks"].values())


def test_script_json_cannot_close_its_element() -> None:
    assert json.loads(script_json({"a": "</script><!--&"})) == {"a": "</script><!--&"}
    assert not re.search("[<>&]", script_json(["</script><!--&"]))
    with pytest.raises(ValueError, match="JSON compliant"):
        script_json([float("nan")])


def test_equal_points_are_both_on_the_front(store: object) -> None:
    from reports.fronts import study

    sweep = load_sweep(open_store(store.uri), "hostile")  # type: ignore[attr-defined]
    assert len(study(sweep, sweep.data_sets[0]).members) == 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("running", ["No trial has completed yet", "0 trials finished, 1 running", "nothing to draw"]),
        ("failed", ["All 3 trials failed", "3 of 3 trials failed", "no memory"]),
        ("single", ["A single run, so there is no front to draw", "n = 1, no error bars", "the only trial"]),
        ("lacking", ["Completed without a value for every objective, so not on the front: t0001", "nothing to pay"]),
        ("nothing", ["No trial was recorded"]),
    ],
)
def test_every_state_says_what_it_is(build: object, name: str, expected: list[str]) -> None:
    page = build(name)  # type: ignore[operator]
    for words in expected:
        assert words in page.text, words
    assert not any("plotly" in script for script in page.scripts) or name == "lacking"


def test_two_data_sets_and_three_objectives(store: object, build: object, tmp_path: Path) -> None:
    page = build("two")  # type: ignore[operator]
    assert "The front on folder:/images/<b>a</b>" in page.text
    assert "The front on npz:b_%_$x^2$.npz" in page.text
    assert "not joined" in page.text
    assert sum(script.startswith('{"light"') for script in page.scripts) == 2
    front = pd.read_parquet(tmp_path / "two" / "front.parquet")
    assert front["data"].nunique() == 2
    assert r"npz:b\_\%\_\$x\textasciicircum{}2\$.npz" in (tmp_path / "two" / "tables" / "front.tex").read_text()


def test_confirmations_give_error_bars_and_stay_off_the_front(store: object, build: object, tmp_path: Path) -> None:
    client = MlflowClient(tracking_uri=store.uri)  # type: ignore[attr-defined]
    sweep = load_sweep(client, "single")
    trial = sweep.trials.iloc[0]
    added = []
    tags = client.get_run(trial["mlflow_run_id"]).data.tags
    experiment = client.get_run(trial["mlflow_run_id"]).info.experiment_id
    for number, accuracy in enumerate((0.86, 0.88), start=1):
        fresh = {**tags, "mlflow.parentRunId": trial["mlflow_run_id"], "stage": "confirm", "trial_id": f"t000{number}"}
        run_id = client.create_run(experiment, tags=fresh).info.run_id
        client.log_metric(run_id, "val_accuracy", accuracy)
        client.log_metric(run_id, "val_cka", 0.99)
        added.append(run_id)
    try:
        page = build("single")  # type: ignore[operator]
    finally:
        for run_id in added:
            client.delete_run(run_id)
    assert "0.870 ± 0.010" in page.text
    assert "n = 1, no error bars" not in page.text
    trials = pd.read_parquet(tmp_path / "single" / "trials.parquet")
    assert list(trials["stage"]) == ["search", "confirm", "confirm"]
    assert trials["on_front"].isna().tolist() == [False, True, True]


def test_the_command_prints_the_paths_and_attaches_the_folder(
    store: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(store.folder)  # type: ignore[attr-defined]
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["--sweep", "latest", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert str(tmp_path / "out" / "index.html") in said.out.splitlines()
    client = MlflowClient(tracking_uri=store.uri)  # type: ignore[attr-defined]
    kept = {item.path for item in client.list_artifacts(store.parents["nothing"], "report")}  # type: ignore[attr-defined]
    assert {"report/index.html", "report/trials.parquet", "report/tables"} <= kept
    assert main(["--sweep", "single", "--no-log"]) == 0
    assert client.list_artifacts(store.parents["single"], "report") == []  # type: ignore[attr-defined]
    assert "runs/single/report/points/t0000.yaml" in read(Path("runs/single/report")).text


def test_an_artifact_store_that_refuses_is_a_warning(
    store: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(MlflowClient, "log_artifacts", refuse)
    build_report("nothing", store.uri, tmp_path / "out")  # type: ignore[attr-defined]
    assert "not attached to the run" in capsys.readouterr().err
    assert (tmp_path / "out" / "index.html").is_file()


def test_records_that_cannot_be_read_are_named(store: object) -> None:
    client = open_store(store.uri)  # type: ignore[attr-defined]
    run_id = load_sweep(client, "single").trials.iloc[0]["mlflow_run_id"]
    kept = client.get_run(run_id).data.tags["facts"]
    said = {}
    try:
        for text in ('{"n_val": 1', '{"n_val": 120, "skipped_images": ["a.png", "b, c.png", "d'):
            client.set_tag(run_id, "facts", text)
            sweep = load_sweep(client, "single")
            said[sweep.notes] = dict(sweep.facts[run_id])
    finally:
        client.set_tag(run_id, "facts", kept)
    assert said == {
        ("The record 'facts' of t0000 could not be read and is left out.",): {},
        ("The record 'facts' of t0000 was cut short by the store; its lists may be incomplete.",): {
            "n_val": 120,
            "skipped_images": ["a.png", "b, c.png"],
        },
    }


def test_a_marked_anchor_is_believed_and_an_interrupted_sweep_is_incomplete(store: object, build: object) -> None:
    client = open_store(store.uri)  # type: ignore[attr-defined]
    sweep = load_sweep(client, "lacking")
    assert len(sweep.anchors) == 2
    second = sweep.trials.iloc[1]["mlflow_run_id"]
    client.set_tag(second, "anchor", "true")
    client.set_terminated(sweep.run_id, "KILLED")
    try:
        assert load_sweep(client, "lacking").anchors == {second}
        assert "was not complete when this was built: 2 trials finished." in build("lacking").text  # type: ignore[operator]
    finally:
        client.delete_tag(second, "anchor")
        client.set_terminated(sweep.run_id)


def test_only_the_report_is_attached(store: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reports.interactive.plotly_source", lambda: "/* plotly.js */")
    (tmp_path / "private.txt").write_text("not part of a report")
    build_report("lacking", store.uri, tmp_path)  # type: ignore[attr-defined]
    client = open_store(store.uri)  # type: ignore[attr-defined]
    parent = store.parents["lacking"]  # type: ignore[attr-defined]
    there = {item.path for item in client.list_artifacts(parent, "report")}
    assert {"report/index.html", "report/trials.parquet", "report/tables", "report/figures"} <= there
    assert "report/private.txt" not in there
