from __future__ import annotations

import dataclasses
import io
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from repsim.config import TrialConfig
from repsim.records import EpochResult, Objective, Stage, Status, TrialResult
from sweeps.live import LiveView, clean, duration, human
from sweeps.space import Budget, Resources, SearchSettings, Space
from sweeps.trial import Trial, TrialRecord

SPACE = Space(
    name="pareto",
    question="",
    data=("phantom:ultrasound",),
    objectives=(
        Objective(metric="val_accuracy", direction="maximize"),
        Objective(metric="val_cka", direction="maximize"),
    ),
    constraints=(),
    budget=Budget(trials=24, epochs=3),
    search=SearchSettings(),
    confirm_seeds=0,
    resources=Resources(),
    fixed={},
    dimensions=(),
)


class Clock:
    """Seconds since 1970, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def iso(self, offset: float = 0.0) -> str:
        return datetime.fromtimestamp(self.now + offset, tz=UTC).isoformat()


def _record(number: int, status: Status, clock: Clock, *, seconds: float = 12.0, **changes: object) -> TrialRecord:
    config = TrialConfig.from_flat({"method": "repsim", "strength": 1.2, "optim.epochs": 3})
    sample = Trial(
        trial_id=f"t{number:04d}",
        number=number,
        data="phantom:ultrasound",
        stage=Stage.SEARCH,
        params={},
        config=config,
    )
    result = TrialResult(chosen_epoch=3, epochs=3, values={"val_accuracy": 0.85, "val_cka": 0.9142}, facts={})
    record = TrialRecord(
        trial=sample,
        status=status,
        attempts=1,
        started=clock.iso(-seconds),
        ended=clock.iso() if status.terminal else None,
        result=result if status is Status.COMPLETED else None,
    )
    return dataclasses.replace(record, **changes)  # type: ignore[arg-type]


def _epoch(number: int) -> EpochResult:
    return EpochResult(
        epoch=number,
        values={},
        train_loss=1.0,
        train_penalty=None,
        learning_rate=0.1,
        steps=1,
        train_seconds=1.0,
        seconds=2.0,
    )


Made = tuple[LiveView, io.StringIO, Clock]
Make = Callable[..., Made]


@pytest.fixture
def make() -> Make:
    def build(
        total: int = 24, interactive: bool | None = False, space: Space = SPACE
    ) -> tuple[LiveView, io.StringIO, Clock]:
        clock, stream = Clock(), io.StringIO()
        return LiveView(space, total, stream, interactive, clock), stream, clock

    return build


def test_one_line_for_each_finished_trial(make: Make) -> None:
    view, stream, clock = make()
    records = [_record(0, Status.RUNNING, clock), _record(1, Status.PROPOSED, clock)]
    view.update(records, [])
    assert stream.getvalue() == ""
    records[0] = _record(0, Status.COMPLETED, clock)
    view.update(records, ["t0000"])
    view.update(records, ["t0000"])
    assert stream.getvalue() == (
        "[ 1/24] t0000 completed repsim λ=1.2 tf_efficientnet_lite0 val_accuracy 0.85 val_cka 0.914 (12 s), "
        "front 1, eta 5 min\n"
    )


def test_a_failure_says_why_and_a_retry_too(make: Make) -> None:
    view, stream, clock = make()
    reason = "loss became NaN\n\x1b[31mat step 17 [red]"
    waiting = _record(1, Status.WAITING, clock, reason="process died; retry 1 of 2", ended=None)
    view.update([_record(0, Status.FAILED, clock, reason=reason), waiting], [])
    failed, retried = stream.getvalue().splitlines()
    assert failed.startswith("[ 1/24] t0000 failed repsim λ=1.2 tf_efficientnet_lite0 (12 s): loss became NaN ?[31mat")
    assert "[red], front 0" in failed
    assert "val_accuracy" not in failed
    assert retried == "[ 1/24] t0001 waiting repsim λ=1.2 tf_efficientnet_lite0: process died; retry 1 of 2"


def test_what_an_earlier_driver_finished_is_counted_but_is_no_news(make: Make) -> None:
    view, stream, clock = make(total=2)
    old = _record(0, Status.COMPLETED, clock, ended=clock.iso(-3600), started=clock.iso(-3610))
    view.update([old], ["t0000"])
    assert stream.getvalue() == ""
    clock.now += 20
    view.update([old, _record(1, Status.PRUNED, clock, reason="dominated")], ["t0000"])
    assert stream.getvalue() == "[2/2] t0001 pruned repsim λ=1.2 tf_efficientnet_lite0 (12 s): dominated, front 1\n"


def test_the_eta_follows_from_what_finished_trials_took(make: Make) -> None:
    view, _, clock = make(total=10)
    view.update([], [])
    assert view.eta() is None
    done = [_record(k, Status.COMPLETED, clock, seconds=s) for k, s in enumerate((10.0, 30.0))]
    running = [_record(k, Status.RUNNING, clock) for k in (2, 3)]
    view.update([*done, *running], [])
    assert view.eta() == pytest.approx(8 * 20 / 2)
    clock.now += 15
    assert view.eta() == pytest.approx((8 * 20 - 2 * 15) / 2)
    clock.now += 1000  # a trial that takes longer than the others does not make time run backwards
    assert view.eta() == pytest.approx((8 * 20 - 2 * 20) / 2)
    confirm = dataclasses.replace(done[0].trial, stage=Stage.CONFIRM, trial_id="t0009")
    view.update([*done, *running, dataclasses.replace(done[0], trial=confirm)], [])
    assert view._finished() == 2


def test_an_interrupted_trial_counts_its_epochs_not_the_night_between() -> None:
    clock = Clock()
    record = _record(0, Status.COMPLETED, clock, seconds=40_000.0, attempts=2, epochs=[_epoch(1), _epoch(2)])
    assert duration(record) == 4.0
    assert duration(dataclasses.replace(record, attempts=1)) == 40_000.0
    assert duration(dataclasses.replace(record, ended=None)) is None


def test_the_table_shows_counts_front_and_running_trials(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    view, stream, clock = make(interactive=True)
    records = [
        _record(0, Status.COMPLETED, clock),
        _record(1, Status.FAILED, clock, reason="out of memory"),
        _record(2, Status.RUNNING, clock, epochs=[_epoch(1), _epoch(2)]),
        _record(3, Status.WAITING, clock),
    ]
    view.update(records, ["t0000"], 0.4321)
    clock.now += 65
    view.note("MLflow does not answer [bold]")
    view.close()
    view.close()
    text = stream.getvalue()
    assert "pareto: 2/24 done   1 running   1 waiting   1 failed   elapsed 65 s   eta" in text
    assert "hypervolume 0.432" in text
    assert "front (1)" in text
    assert "2/3" in text
    assert "t0001 failed" in text
    assert "t0000 completed" not in text
    assert "out of memory" in text
    assert "MLflow does not answer [bold]" in text
    last = text[text.rindex("pareto:") :]
    assert "0.914" in last
    assert "repsim" in last


def test_what_was_stopped_and_how_far_the_confirmation_is(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    view, _, clock = make(interactive=True, total=4)
    records = [_record(0, Status.COMPLETED, clock), *(_record(k, Status.PRUNED, clock) for k in (1, 2, 3))]
    for number in range(4, 8):
        fresh = _record(number, Status.COMPLETED if number < 7 else Status.RUNNING, clock)
        fresh.trial = dataclasses.replace(fresh.trial, stage=Stage.CONFIRM)
        records.append(fresh)
    view.update(records, ["t0000"], due=6)
    assert "4/4 done   confirming 3 of 9   1 running" in view._summary()
    assert "stopped early 3" in view._summary()
    view.update(records[:-1], ["t0000"])
    assert "3 fresh seeds" in view._summary()
    view.close()
    view, _, clock = make(interactive=True, total=4)
    view.update(records[:4], ["t0000"])
    assert "confirming" not in view._summary()
    assert "fresh seeds" not in view._summary()
    view.close()
    plain, printed, _ = make(total=4)
    plain.update(records, ["t0000"], due=6)
    assert "[confirm 3/9] t0006 completed" in printed.getvalue()


def test_hostile_names_are_shown_as_they_are(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    for interactive in (True, False):
        view, stream, clock = make(
            interactive=interactive, space=dataclasses.replace(SPACE, name="[/red]", data=("a", "b"))
        )
        record = _record(0, Status.COMPLETED, clock)
        record.trial = dataclasses.replace(record.trial, data="[bold]x\x1b]0;title\x07[/nope]")
        view.update([record], ["t0000"], {"[i]a": 0.5})
        view.close()
        text = stream.getvalue()
        assert "[bold]x?]0;title?[/nope]" in text
        assert "\x07" not in text
        assert interactive is False or ("[/red]: 1/24" in text and "[i]a 0.500" in text)


def test_a_stream_that_cannot_spell_lambda_and_one_that_closes(make: Make) -> None:
    raw = io.BytesIO()
    clock = Clock()
    view = LiveView(SPACE, 3, io.TextIOWrapper(raw, encoding="ascii"), False, clock)
    view.update([_record(0, Status.COMPLETED, clock)], [])
    view.note("日本")
    assert raw.getvalue().decode().startswith("[1/3] t0000 completed repsim lambda=1.2")
    assert raw.getvalue().decode().endswith("??\n")
    view, stream, clock = make()
    stream.close()
    view.note("nobody reads this")
    view.update([_record(0, Status.COMPLETED, clock)], [])
    view.close()


def test_a_terminal_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for term, table in (("xterm", True), ("dumb", False), ("", False)):
        monkeypatch.setenv("TERM", term)
        stream = Terminal()
        view = LiveView(SPACE, 2, stream, None, Clock())
        view.update([], [])
        view.close()
        assert ("pareto: 0/2 done" in stream.getvalue()) is table


def test_updates_and_notes_from_several_threads(make: Make) -> None:
    view, stream, clock = make(interactive=True)
    records = [_record(k, Status.RUNNING, clock) for k in range(30)]

    def work(part: int) -> None:
        for k in range(part, 30, 3):
            records[k] = _record(k, Status.COMPLETED, clock)
            view.update(list(records), [f"t{k:04d}"])
            view.note(f"note {k}")

    threads = [threading.Thread(target=work, args=(part,)) for part in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    view.close()
    assert all(f"note {k}" in stream.getvalue() for k in range(30))


def test_words_for_durations_and_lines() -> None:
    assert [human(s) for s in (-1, 0, 12.4, 99, 120, 3599, 3900)] == [
        "0 s", "0 s", "12 s", "99 s", "2 min", "1 h 00 min", "1 h 05 min",
    ]  # fmt: skip
    assert clean(" a\tb\n\x00c\x9bd") == "a b ?c?d"
    assert len(clean("x" * 1000)) == 400


def test_what_is_counted_change_by_change_is_what_a_count_of_all_gives(make: Make) -> None:
    view, _, clock = make(interactive=True, total=12)
    rng, records = random.Random(0), [_record(k, Status.PROPOSED, clock) for k in range(12)]
    for _ in range(200):
        changing = rng.choice([record for record in records if not record.status.terminal] or [records[0]])
        if not changing.status.terminal:
            changing.status = rng.choice([Status.RUNNING, Status.WAITING, Status.COMPLETED, Status.FAILED])
        view.update([changing], ["t0001"])
    known = [record for record in records if record.trial.trial_id in view._records]
    assert len(known) == 12
    assert dict(view._counts) == {status: sum(one.status is status for one in known) for status in Status}
    assert set(view._running) == {one.trial.trial_id for one in known if one.status is Status.RUNNING}
    view.close()
