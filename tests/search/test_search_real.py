"""benchmarks/search_real.py without training: curves from journals, ratios, the verdict, and how sweeps are ended."""

from __future__ import annotations

import json
import math
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import search_real  # noqa: E402
from search_grid import grid_space  # noqa: E402
from search_pairs import Curve, Pair, Sweep, anchors_differ, box, print_pair, reached, told, verdict  # noqa: E402
from search_real import Rival, Setting, SweepBroke, end, is_over, journal_of, launch, run_sweep  # noqa: E402

from repsim.config import TrialConfig  # noqa: E402
from repsim.errors import RequestError  # noqa: E402
from repsim.records import Stage, Status, TrialResult  # noqa: E402
from sweeps.arguments import parse_arguments  # noqa: E402
from sweeps.journal import History, Journal  # noqa: E402
from sweeps.trial import Trial, TrialRecord  # noqa: E402

SETTING = Setting(data="phantom:ultrasound", trials=8, budget=16, epochs=2)
JUDGEMENT = search_real.judge(SETTING)
LAUNCHED = 1_000_000_000.0
BOX = {"val_accuracy": 0.5, "val_cka": 0.2}


def trial(number: int) -> Trial:
    config = TrialConfig.from_flat({"method": "full", "optim.lr": 1e-4 * (number + 1)})
    return Trial(
        trial_id=f"t{number:04d}",
        number=number,
        data=SETTING.data,
        stage=Stage.SEARCH,
        params={},
        config=config,
        anchor=number < 2,
    )


def result(accuracy: float, cka: float) -> TrialResult:
    return TrialResult(chosen_epoch=2, epochs=2, values={"val_accuracy": accuracy, "val_cka": cka}, facts={})


def record(number: int, after: float | None, status: Status, values: tuple[float, float] | None = None) -> TrialRecord:
    at = None if after is None else datetime.fromtimestamp(LAUNCHED + after, UTC).isoformat(timespec="milliseconds")
    return TrialRecord(trial=trial(number), status=status, ended=at, result=None if values is None else result(*values))


def history(*records: TrialRecord, references: dict[str, dict[str, float]] | None = None) -> History:
    known = {one.trial.trial_id: one for one in records}
    return History(header={}, records=known, references={SETTING.data: BOX} if references is None else references)


def sweep(*curve: tuple[float, float], anchor: float = 0.5) -> Sweep:
    anchors = {"a": (anchor, 1.0)}
    return Sweep(curve=curve, ended=len(curve), stopped=0, failed=0, resumes=0, anchors=anchors)


def pair(plain: Curve, stopping: Curve, seed: int = 0) -> Pair:
    return Pair(seed=seed, plain=sweep(*plain), stopping=sweep(*stopping))


def test_the_curve_follows_the_order_in_which_trials_ended() -> None:
    found = told(
        history(
            record(0, 30.0, Status.COMPLETED, (0.6, 1.0)),
            record(1, 20.5, Status.COMPLETED, (1.0, 0.6)),  # proposed later, ended earlier
            record(2, 40.0, Status.PRUNED),
            record(3, 50.0, Status.FAILED),
            record(4, 60.0, Status.COMPLETED, (0.55, 0.5)),  # dominated
            record(5, None, Status.RUNNING),
        ),
        LAUNCHED,
        JUDGEMENT,
        BOX,
    )
    first, both = 0.5, 0.5 + 0.1 * 0.4 / (0.5 * 0.8)
    assert [at for at, _ in found.curve] == pytest.approx([20.5, 30.0, 40.0, 50.0, 60.0])
    assert [volume for _, volume in found.curve] == pytest.approx([first, both, both, both, both])
    assert (found.ended, found.stopped, found.failed) == (5, 1, 1)
    assert found.seconds == pytest.approx(60.0)
    assert sorted(found.anchors.values()) == [(0.6, 1.0), (1.0, 0.6)]


def test_two_trials_may_end_in_the_same_millisecond() -> None:
    found = told(history(*(record(k, 5.0, Status.FAILED) for k in range(2))), LAUNCHED, JUDGEMENT, BOX)
    assert found.ended == 2


def test_without_a_box_there_is_no_volume() -> None:
    started = history(record(0, 5.0, Status.COMPLETED, (0.9, 0.9)), references={})
    assert box(started) is None
    assert box(history()) == BOX
    assert told(started, LAUNCHED, JUDGEMENT, None).volume == 0.0
    empty = told(history(), LAUNCHED, JUDGEMENT, BOX)
    assert (empty.seconds, empty.volume, empty.curve) == (0.0, 0.0, [])


def test_a_volume_is_reached_when_the_front_first_has_it() -> None:
    curve = [(10.0, 0.1), (20.0, 0.3), (30.0, 0.3)]
    assert reached(curve, 0.3) == 20.0
    assert reached(curve, 0.3 + 1e-12) == 20.0, "the same front, summed in another order"
    assert reached(curve, 0.31) == math.inf
    assert reached(curve, 0.3, within=20.0) == 20.0
    assert reached(curve, 0.3, within=19.9) == math.inf
    assert reached([], 0.0) == math.inf


def test_ratios_are_to_the_whole_sweep_and_to_its_first_having_the_mark() -> None:
    found = pair([(50.0, 0.2), (80.0, 0.4), (100.0, 0.4)], [(30.0, 0.1), (60.0, 0.45)])
    assert (found.mark, found.first, found.reached) == (0.4, 80.0, 60.0)
    assert found.ratio == pytest.approx(0.6)
    assert found.strict_ratio == pytest.approx(0.75)


def test_what_came_after_the_whole_of_the_other_never_came() -> None:
    late = pair([(100.0, 0.4)], [(90.0, 0.3), (101.0, 0.5)])
    assert late.reached == late.ratio == late.strict_ratio == math.inf
    assert replace(late, stopping=sweep()).ratio == math.inf


def test_anchors_with_other_values_are_said() -> None:
    same = pair([(100.0, 0.4)], [(50.0, 0.4)])
    assert anchors_differ(same) == ""
    other = replace(same, seed=2, stopping=sweep((50.0, 0.4), anchor=0.75))
    said = "seed 2: the anchors differ, without stopping and with it: (0.5, 1.0) and (0.75, 1.0)"
    assert anchors_differ(other) == said
    cut_before = replace(same, stopping=replace(same.stopping, anchors={}))
    assert anchors_differ(cut_before) == ""


def test_a_seed_is_printed_with_what_it_never_reached(capsys: pytest.CaptureFixture[str]) -> None:
    print_pair(replace(pair([(100.0, 0.4)], [(90.0, 0.3)], seed=1), stopping=sweep((90.0, 0.3), anchor=0.75)))
    said = capsys.readouterr().out
    assert "seed 1: the mark is 0.4000" in said
    assert "never" in said
    assert "the anchors differ" in said


@pytest.mark.parametrize(
    ("times", "broken", "figure", "code"),
    [
        ((50.0, 60.0, 70.0), 0, "0.600 (goal 0.6) ok", 0),
        ((50.0, 61.0, 70.0), 0, "0.610 (goal 0.6) short", 1),
        ((50.0, 55.0, 500.0), 0, "0.550 (goal 0.6) ok", 0),  # one of three never
        ((50.0, 500.0, 500.0), 0, "inf (goal 0.6) short", 1),
        ((50.0, 500.0), 0, "inf (goal 0.6) short", 1),
        ((50.0, 55.0), 1, "0.550 (goal 0.6) short", 1),  # a seed that broke costs the goal
        ((), 3, "inf (goal 0.6) short", 1),
    ],
)
def test_the_last_line_holds_the_median(
    times: tuple[float, ...], broken: int, figure: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [pair([(80.0, 0.4), (100.0, 0.4)], [(seconds, 0.4)], seed) for seed, seconds in enumerate(times)]
    assert verdict(pairs, broken) == code
    strict, whole, last = capsys.readouterr().out.splitlines()
    assert last == f"search_real: {figure}"
    assert "when it had the mark" in strict
    assert "of the whole sweep" in whole
    assert ("never" in whole) == (broken > 0 or 500.0 in times)


def test_the_json_has_no_infinity_and_no_path() -> None:
    pairs = [pair([(100.0, 0.4)], [(50.0, 0.4)]), pair([(100.0, 0.4)], [(50.0, 0.3)], seed=1)]
    text = search_real.as_json(replace(SETTING, data="folder:/some/where/pbc"), pairs)
    found = json.loads(text)
    assert [one["ratio"] for one in found["seeds"]] == [0.5, None]
    assert found["seeds"][1]["pareto"]["curve"] == [[50.0, 0.3]]
    assert found["setting"]["data"] == "pbc"
    assert "/some" not in text


def test_both_sweeps_search_the_space_of_the_table_and_differ_in_stopping_and_budget_alone() -> None:
    plain, stopping = (SETTING.space(3, name) for name in search_real.STOPPING)
    assert plain.dimensions == grid_space().dimensions
    assert (plain.search.stopping, stopping.search.stopping) == ("none", "pareto")
    assert (plain.budget.trials, stopping.budget.trials) == (8, 16)
    assert plain.anchors(SETTING.data) == stopping.anchors(SETTING.data)
    assert plain.search.seed == stopping.search.seed == 3
    asked = parse_arguments(SETTING.command(3, "pareto")[2:])
    assert (asked.seed, asked.trials, asked.parallel, asked.report) == (3, 16, search_real.PARALLEL, False)
    assert asked.overrides == ("budget.epochs=2", "search.stopping=pareto")
    with pytest.raises(RequestError, match="a trial of one epoch cannot be stopped early"):
        replace(SETTING, epochs=1).space(0, "pareto")


def test_a_work_folder_holds_one_setting(tmp_path: Path) -> None:
    search_real.check_setting(tmp_path, SETTING)
    search_real.check_setting(tmp_path, SETTING)
    with pytest.raises(RequestError, match=r"holds sweeps of another setting \(trials 8\); allowed: the same setting"):
        search_real.check_setting(tmp_path, replace(SETTING, trials=9))


def test_a_source_is_known_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "0.png").touch()
    monkeypatch.chdir(tmp_path)
    assert search_real.absolute("folder:images") == search_real.absolute("images") == f"folder:{tmp_path / 'images'}"
    assert search_real.absolute("phantom:ultrasound") == "phantom:ultrasound"
    with pytest.raises(RequestError, match="--data: 'nowhere' does not exist"):
        search_real.absolute("nowhere")


def test_the_command_line_says_what_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    quick = search_real.arguments_from(["--quick", "--trials", "5"])
    assert (quick.seeds, quick.trials, quick.epochs) == (1, 5, 2)
    whole = search_real.arguments_from(["--data", "folder:x", "--work", "w"])
    assert (whole.seeds, whole.trials, whole.epochs) == (3, 40, 8)
    for words, said in (
        (["--work", "w"], "--data is needed"),
        (["--data", "x"], "--work is needed"),
        (["--quick", "--seeds", "0"], "--seeds: 0 is not allowed"),
    ):
        with pytest.raises(SystemExit, match="2"):
            search_real.arguments_from(words)
        assert said in capsys.readouterr().err


def write_journal(file: Path, *, finished: bool = False) -> None:
    """Two anchors that have ended, at a hypervolume of more than 0.5."""
    file.parent.mkdir(parents=True)
    with Journal.create(file, {"name": "sweep"}) as journal:
        for number, values in enumerate([(0.6, 1.0), (1.0, 0.6)]):
            name = trial(number).trial_id
            journal.proposed(trial(number))
            journal.started(name, 1)
            journal.ended(name, 1, Status.COMPLETED, feasible=True, result=result(*values))
        journal.reference(SETTING.data, BOX)
        if finished:
            journal.finished()


def test_a_sweep_is_over_when_it_has_finished_or_was_cut_on_purpose(tmp_path: Path) -> None:
    assert not is_over(tmp_path)
    write_journal(journal_of(tmp_path))
    (tmp_path / search_real.LAUNCHED).write_text("1.0")
    assert not is_over(tmp_path), "it was interrupted: its time is worth nothing"
    (tmp_path / search_real.CUT).touch()
    assert is_over(tmp_path)
    other = tmp_path / "other"
    write_journal(journal_of(other), finished=True)
    assert not is_over(other), "nobody knows when it was launched"
    (other / search_real.LAUNCHED).write_text("1.0")
    assert is_over(other)


@dataclass(frozen=True, kw_only=True)
class Scripted(Setting):
    """Runs a script in place of a sweep."""

    script: str

    def command(self, seed: int, stopping: str) -> list[str]:
        return [sys.executable, "-c", self.script]


def scripted(script: str) -> Scripted:
    return Scripted(data=SETTING.data, trials=8, budget=16, epochs=2, script=script)


def living(journal: Path) -> Scripted:
    """A sweep with this journal that would go on for a minute."""
    copy = f"import shutil, time; shutil.copytree({str(journal.parent)!r}, 'runs/sweep'); time.sleep(60)"
    return scripted(copy)


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_real, "LOOK_SECONDS", 0.05)


@pytest.mark.parametrize(
    ("rival", "why"),
    [(sweep((500.0, 0.55)), "it has the mark"), (sweep((0.3, 0.99)), "it has taken longer than the other")],
)
def test_the_sweep_with_stopping_is_cut(
    tmp_path: Path, rival: Sweep, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_journal(tmp_path / "made" / "journal.jsonl")
    folder, began = tmp_path / "pareto", time.monotonic()
    run_sweep(folder, living(tmp_path / "made" / "journal.jsonl"), 0, Rival(sweep=rival, reference=BOX))
    assert time.monotonic() - began < 50, why
    assert (folder / search_real.CUT).exists()
    if rival.seconds > 1:
        assert is_over(folder)
        said = capsys.readouterr().out
        assert "seed 0, pareto: 2/16 trials ended, 0 stopped, 0 failed" in said
        assert search_real.read(folder, JUDGEMENT, BOX)[0].volume == pytest.approx(0.6)


def test_a_sweep_that_ends_badly_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(SweepBroke, match="exit code 3: no good"):
        run_sweep(tmp_path / "none", scripted("print('no good'); raise SystemExit(3)"), 0, None)
    with pytest.raises(SweepBroke, match="exit code 3: it said nothing"):
        run_sweep(tmp_path / "none", scripted("raise SystemExit(3)"), 0, None)
    assert not is_over(tmp_path / "none")


def test_a_seed_that_breaks_costs_the_goal_and_not_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def some_pair(work: Path, setting: Setting, seed: int) -> Pair:
        if seed == 1:
            raise SweepBroke("exit code 3")
        return pair([(100.0, 0.4)], [(50.0, 0.4)], seed)

    monkeypatch.setattr(search_real, "run_pair", some_pair)
    assert search_real.measure(tmp_path, SETTING, 3, tmp_path / "out.json") == 1
    said = capsys.readouterr().out
    assert "seed 1 is left out: exit code 3" in said
    assert said.splitlines()[-1] == "search_real: 0.500 (goal 0.6) short"
    assert [one["seed"] for one in json.loads((tmp_path / "out.json").read_text())["seeds"]] == [0, 2]


def lay_down(work: Path, *, plain_finished: bool) -> None:
    """Seed 0 with both sweeps' journals, the second one cut."""
    for name, finished in (("none", plain_finished), ("pareto", False)):
        folder = work / "seed-0" / name
        write_journal(journal_of(folder), finished=finished)
        (folder / search_real.LAUNCHED).write_text("1.0")
    (work / "seed-0" / "pareto" / search_real.CUT).touch()


def test_sweeps_that_are_over_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_down(tmp_path, plain_finished=True)
    monkeypatch.setattr(search_real, "launch", lambda *_: pytest.fail("a sweep was started"))
    found = search_real.run_pair(tmp_path, SETTING, 0)
    assert (found.plain.ended, found.stopping.ended) == (2, 2)
    assert found.mark == pytest.approx(0.6)


def test_a_new_mark_needs_a_new_sweep_with_stopping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_down(tmp_path, plain_finished=False)
    warmed, run = [], []

    def some_sweep(folder: Path, setting: Setting, seed: int, rival: Rival | None) -> None:
        run.append((folder.name, None if rival is None else rival.reference))
        if rival is not None:
            assert not folder.exists()
            write_journal(journal_of(folder))
            (folder / search_real.LAUNCHED).write_text("1.0")

    monkeypatch.setattr(search_real, "run_sweep", some_sweep)
    monkeypatch.setattr(search_real, "ProcessPoolExecutor", lambda n, mp_context: ThreadPoolExecutor(n))
    monkeypatch.setattr(search_real, "warm", lambda setting, seed: warmed.append(seed))
    search_real.run_pair(tmp_path, SETTING, 0)
    assert run == [("none", None), ("pareto", BOX)]
    assert warmed == [0]


def test_anchors_that_failed_leave_nothing_to_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_real, "is_over", lambda folder: True)
    monkeypatch.setattr(search_real, "read", lambda folder, judgement: (sweep(), history(references={})))
    with pytest.raises(SweepBroke, match="an anchor did not complete"):
        search_real.run_pair(tmp_path, SETTING, 0)


def test_a_sweep_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_real, "GRACE_SECONDS", 0.2)
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    child = launch(tmp_path / "deaf", [sys.executable, "-c", deaf])
    while not (tmp_path / "deaf" / "log").read_text():
        time.sleep(0.05)
    end(child)
    assert child.returncode == -9
    end(child)
