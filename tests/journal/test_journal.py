"""The journal: written line by line, read back to the same state, refusing what cannot be."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repsim.config import TrialConfig
from repsim.errors import RequestError
from repsim.records import EpochResult, Stage, Status, TrialResult
from sweeps.journal import History, Journal, JournalError, read_history
from sweeps.trial import Trial, TrialRecord

HEADER: dict[str, object] = {"name": "pareto", "seed": 0, "space": {"name": "pareto"}, "command": "launch"}


def make_trial(number: int = 0) -> Trial:
    params = {"method": "repsim", "strength": 0.1 + number, "optim.head_lr": None}
    config = TrialConfig.from_flat({"method": "repsim", "strength": 0.1 + number})
    return Trial(
        trial_id=f"t{number:04d}",
        number=number,
        data="phantom:ultrasound",
        stage=Stage.SEARCH,
        params=params,
        config=config,
        anchor=number < 2,
    )


def make_epoch(epoch: int, value: float = 0.5) -> EpochResult:
    return EpochResult(
        epoch=epoch,
        values={"val_accuracy": value},
        train_loss=0.1,
        train_penalty=None,
        learning_rate=1e-4,
        steps=9,
        train_seconds=1.0,
        seconds=2.0,
    )


def make_result(value: float = 1 / 3) -> TrialResult:
    return TrialResult(chosen_epoch=2, epochs=2, values={"val_accuracy": value}, facts={"n_val": 7, "data_hash": "ab"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal.create(path, HEADER) as made:
        yield made


def play(journal: Journal) -> None:
    """A sweep with everything that can happen: a retry, a failure, a pruned trial, a resume."""
    journal.proposed(make_trial(0))
    journal.started("t0000", 1)
    journal.proposed(make_trial(1))
    journal.epoch("t0000", 1, make_epoch(1))
    journal.epoch("t0000", 1, make_epoch(2))
    journal.waiting("t0000", "the worker died; retry 1 of 2")
    journal.started("t0001", 1)
    journal.started("t0000", 2)
    journal.epoch("t0000", 2, make_epoch(2, 0.75))
    journal.ended("t0000", 2, Status.COMPLETED, feasible=True, result=make_result())
    journal.reference("phantom:ultrasound", {"val_accuracy": 0.69})
    journal.resumed()
    journal.started("t0001", 2)
    journal.ended("t0001", 2, Status.FAILED, reason="RuntimeError: out of memory — λ")
    journal.proposed(make_trial(2))
    journal.started("t0002", 1)
    journal.ended("t0002", 1, Status.PRUNED, reason="behind the front")
    journal.finished()


def test_memory_and_file_agree_after_every_line(path: Path, journal: Journal) -> None:
    steps: list[Callable[[], None]] = [
        lambda: journal.proposed(make_trial(0)),
        lambda: journal.started("t0000", 1),
        lambda: journal.epoch("t0000", 1, make_epoch(1)),
        lambda: journal.waiting("t0000", "x"),
        lambda: journal.started("t0000", 2),
        lambda: journal.ended("t0000", 2, Status.COMPLETED, feasible=False, result=make_result()),
        journal.finished,
    ]
    for step in steps:
        step()
        assert read_history(path) == journal.history


def test_a_whole_sweep_reads_back(path: Path, journal: Journal) -> None:
    play(journal)
    history = read_history(path)
    assert history == journal.history == read_history(path)
    assert history.header == HEADER
    assert list(history.records) == ["t0000", "t0001", "t0002"]
    first, second, third = history.records.values()
    assert first.trial == make_trial(0)
    assert (first.status, first.attempts, first.feasible) == (Status.COMPLETED, 2, True)
    assert first.epochs == [make_epoch(1), make_epoch(2, 0.75)]
    assert first.result == make_result()
    assert first.started is not None
    assert first.ended is not None
    assert first.started.endswith("+00:00")
    assert first.started <= first.ended
    assert (second.status, second.reason) == (Status.FAILED, "RuntimeError: out of memory — λ")
    assert third.status is Status.PRUNED
    assert history.references == {"phantom:ultrasound": {"val_accuracy": 0.69}}
    assert (history.resumes, history.finished) == (1, True)


def test_lines_are_numbered_and_dated(path: Path, journal: Journal) -> None:
    play(journal)
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["seq"] for line in lines] == list(range(len(lines)))
    assert {line["v"] for line in lines} == {1}
    assert lines[0]["event"] == "sweep"
    assert journal.history.length == len(lines)


def test_every_line_is_on_disk_when_the_call_returns(
    path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    sync = os.fsync

    def counting(descriptor: int) -> None:
        sync(descriptor)
        synced.append(path.stat().st_size)

    monkeypatch.setattr(os, "fsync", counting)
    journal.proposed(make_trial(0))
    journal.started("t0000", 1)
    assert len(synced) == 2
    assert synced[-1] == len(path.read_bytes())
    journal.epoch("t0000", 1, make_epoch(1), held=True)
    journal.ended("t0000", 1, Status.COMPLETED, result=make_result())
    assert len(synced) == 3, "a held line costs no sync of its own"
    assert synced[-1] == len(path.read_bytes())


def test_epochs_in_quick_succession_share_an_fsync(
    path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are written at once, so that no kill loses them; the next line that is relied on takes them to the disk."""
    synced, sync = [0], os.fsync

    def counting(descriptor: int) -> None:
        synced[0] += 1
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", counting)
    monkeypatch.setattr("sweeps.journal.EPOCHS_EVERY", 1000.0)
    journal.proposed(make_trial(0))
    journal.started("t0000", 1)
    synced[0] = 0
    for number in range(1, 6):
        journal.epoch("t0000", 1, make_epoch(number))
        assert read_history(path) == journal.history
    assert synced == [0]
    monkeypatch.setattr("sweeps.journal.EPOCHS_EVERY", 0.0)
    journal.epoch("t0000", 1, make_epoch(6))
    assert synced == [1], "as in a sweep of few slots: every epoch"
    monkeypatch.setattr("sweeps.journal.EPOCHS_EVERY", 1000.0)
    journal.epoch("t0000", 1, make_epoch(7))
    journal.ended("t0000", 1, Status.COMPLETED, result=make_result())
    assert synced == [2]


def test_epochs_that_wait_for_their_fsync_outlive_a_full_disk(
    path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.journal.EPOCHS_EVERY", 1000.0)
    journal.proposed(make_trial(0))
    journal.started("t0000", 1)
    for number in (1, 2):
        journal.epoch("t0000", 1, make_epoch(number))
    before, unsynced = path.read_bytes(), journal._unsynced
    assert before.endswith(unsynced)
    assert unsynced.count(b"\n") == 2
    written: list[bytes] = []
    real = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space left"):
                journal.ended("t0000", 1, Status.COMPLETED, result=make_result())
        assert path.read_bytes() == before, "a driver that is killed now loses nothing that was written"
        assert len(journal.history.records["t0000"].epochs) == 2

    def looking(descriptor: int) -> None:
        written.append(path.read_bytes())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", looking)
    journal.ended("t0000", 1, Status.COMPLETED, result=make_result())
    assert len(written) == 1
    assert written[0] == path.read_bytes()
    assert written[0].startswith(before)
    assert read_history(path) == journal.history


def test_a_held_line_is_known_at_once_and_written_with_the_next(path: Path, journal: Journal) -> None:
    before = path.read_bytes()
    journal.proposed(make_trial(0), held=True)
    assert path.read_bytes() == before
    assert list(journal.history.records) == ["t0000"]
    journal.started("t0000", 1)
    assert read_history(path) == journal.history
    assert [json.loads(line)["event"] for line in path.read_bytes().splitlines()[-2:]] == ["proposed", "started"]


def test_a_held_line_outlives_a_full_disk_and_not_a_crash(
    path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()
    journal.proposed(make_trial(0), held=True)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            journal.started("t0000", 1)
    assert path.read_bytes() == before
    assert journal.history.records["t0000"].attempts == 0
    journal.started("t0000", 1)
    assert read_history(path) == journal.history
    journal.epoch("t0000", 1, make_epoch(1), held=True)
    assert read_history(path).records["t0000"].epochs == [], "what a driver that is killed now leaves behind"


def test_similarity_by_layer_is_kept_in_order_and_nothing_where_there_is_none(journal: Journal, path: Path) -> None:
    layers = {"blocks.0": 0.99, "blocks.10": 0.9, "blocks.2": -0.01}
    journal.proposed(make_trial(0))
    journal.started("t0000", 1)
    journal.epoch("t0000", 1, make_epoch(1))
    journal.epoch("t0000", 1, replace(make_epoch(2), layers=layers))
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert ["layers" in line["result"] for line in lines if line["event"] == "epoch"] == [False, True]
    first, second = read_history(path).records["t0000"].epochs
    assert (first.layers, list(second.layers.items())) == ({}, list(layers.items()))
    with pytest.raises(TypeError, match=r"blocks\.0 must be a number"):
        journal.epoch("t0000", 1, replace(make_epoch(3), layers={"blocks.0": "0.9"}))  # type: ignore[dict-item]


def test_a_retry_replaces_the_epochs_it_repeats_and_those_after(journal: Journal) -> None:
    journal.proposed(make_trial(0))
    journal.started("t0000", 1)
    for epoch in (1, 2, 3):
        journal.epoch("t0000", 1, make_epoch(epoch))
    journal.started("t0000", 2)
    record = journal.history.records["t0000"]
    assert [epoch.epoch for epoch in record.epochs] == [1, 2, 3]
    journal.epoch("t0000", 2, make_epoch(2, 0.9))
    assert record.epochs == [make_epoch(1), make_epoch(2, 0.9)]
    journal.epoch("t0000", 2, make_epoch(3, 0.9))
    assert record.epochs == [make_epoch(1), make_epoch(2, 0.9), make_epoch(3, 0.9)]


def test_the_start_is_the_first_one(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.proposed(make_trial(0))
    record = journal.history.records["t0000"]
    assert record.started is None
    journal.started("t0000", 1)
    begun = record.started
    journal.waiting("t0000", "x")
    assert (record.status, record.reason) == (Status.WAITING, "x")
    journal.started("t0000", 2)
    assert record.started == begun
    assert (record.status, record.reason, record.attempts) == (Status.RUNNING, "", 2)


def test_deaths_are_counted_beside_other_reasons_to_wait(path: Path, journal: Journal) -> None:
    journal.proposed(make_trial(0))
    for attempt, died in enumerate([True, False, True], start=1):
        journal.started("t0000", attempt)
        journal.waiting("t0000", "killed by signal 9" if died else "its slot was replaced", died=died)
    journal.started("t0000", 4)
    assert journal.history.records["t0000"].deaths == 2
    assert read_history(path) == journal.history
    lines = re.sub(rb',"crc":\d+', b"", path.read_bytes())
    path.write_bytes(lines.replace(b',"died":true', b"").replace(b',"died":false', b""))  # as older releases wrote it
    assert b"died" not in path.read_bytes()
    assert read_history(path).records["t0000"].deaths == 0


# what cannot be


def impossible(journal: Journal, match: str, act: Callable[[], None]) -> None:
    before, history = journal.path.read_bytes(), repr(journal.history)
    with pytest.raises(JournalError, match=match):
        act()
    assert journal.path.read_bytes() == before
    assert repr(journal.history) == history


def test_transitions_that_cannot_be(journal: Journal) -> None:
    j = journal
    impossible(j, "t0000 was never proposed", lambda: j.started("t0000", 1))
    j.proposed(make_trial(0))
    impossible(j, "t0000 was proposed before", lambda: j.proposed(make_trial(0)))
    impossible(j, "epoch while proposed, not running", lambda: j.epoch("t0000", 1, make_epoch(1)))
    impossible(j, "completed while proposed", lambda: j.ended("t0000", 0, Status.COMPLETED, result=make_result()))
    impossible(j, "attempt 2 cannot follow attempt 0", lambda: j.started("t0000", 2))
    j.started("t0000", 1)
    impossible(j, "attempt 1 cannot follow attempt 1", lambda: j.started("t0000", 1))
    impossible(j, "attempt 2 is not the current one, 1", lambda: j.epoch("t0000", 2, make_epoch(1)))
    j.epoch("t0000", 1, make_epoch(2))
    impossible(j, "epoch 2 cannot follow epoch 2", lambda: j.epoch("t0000", 1, make_epoch(2)))
    impossible(j, "epoch 1 cannot follow epoch 2", lambda: j.epoch("t0000", 1, make_epoch(1)))
    impossible(j, "running is not how a trial ends", lambda: j.ended("t0000", 1, Status.RUNNING))
    impossible(j, "completed without a result", lambda: j.ended("t0000", 1, Status.COMPLETED))
    impossible(j, "attempt 2 is not the current one", lambda: j.ended("t0000", 2, Status.FAILED))
    impossible(j, "attempt 2 is not the current", lambda: j.ended("t0000", 2, Status.COMPLETED, result=make_result()))
    j.ended("t0000", 1, Status.FAILED, reason="x")
    impossible(j, r"has ended \(failed\): no 'ended'", lambda: j.ended("t0000", 1, Status.FAILED))
    impossible(j, r"has ended \(failed\): no 'started'", lambda: j.started("t0000", 2))
    impossible(j, r"has ended \(failed\): no 'waiting'", lambda: j.waiting("t0000", "x"))
    impossible(j, r"has ended \(failed\): no 'epoch'", lambda: j.epoch("t0000", 1, make_epoch(3)))
    j.reference("d", {"val_cka": 0.1})
    impossible(j, "the reference of d was fixed before", lambda: j.reference("d", {"val_cka": 0.1}))
    j.finished()
    impossible(j, "can only come after it is resumed", lambda: j.proposed(make_trial(1)))
    j.resumed()
    j.proposed(make_trial(1))


def test_a_trial_may_fail_before_it_ever_started(journal: Journal) -> None:
    journal.proposed(make_trial(0))
    journal.ended("t0000", 0, Status.FAILED, reason="no such data")
    assert journal.history.records["t0000"].status is Status.FAILED


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_a_number_is_never_written(journal: Journal, value: float) -> None:
    journal.proposed(make_trial(0))
    journal.started("t0000", 1)
    before = journal.path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.epoch("t0000", 1, make_epoch(1, value))
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.ended("t0000", 1, Status.COMPLETED, result=make_result(value))
    assert journal.path.read_bytes() == before
    assert journal.history.records["t0000"].epochs == []


def test_a_full_disk_leaves_whole_lines(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    before = journal.path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            journal.proposed(make_trial(0))
    assert journal.path.read_bytes() == before
    assert journal.history.records == {}
    journal.proposed(make_trial(0))
    assert read_history(journal.path) == journal.history


# reading what was left behind


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("played") / "journal.jsonl"
    with Journal.create(path, HEADER) as journal:
        play(journal)
    return path.read_bytes()


def test_a_torn_last_line_is_dropped_and_cut_off(path: Path, played: bytes) -> None:
    path.write_bytes(played[:-5])
    history = read_history(path)
    assert not history.finished
    assert path.read_bytes() == played[:-5]  # reading changes nothing
    with Journal.open(path) as journal:
        assert journal.history == history
        assert path.read_bytes() == played[: played[:-1].rfind(b"\n") + 1]
        journal.finished()
    assert read_history(path).finished


def consistent(record: TrialRecord) -> None:
    numbers = [epoch.epoch for epoch in record.epochs]
    assert numbers == sorted(set(numbers))
    assert (record.status is Status.COMPLETED) == (record.result is not None)
    assert record.status.terminal == (record.ended is not None)
    assert (record.attempts > 0) == (record.started is not None)
    assert record.attempts > 0 or record.epochs == []
    assert record.deaths <= record.attempts


def moves(journal: Journal) -> list[Callable[[], None]]:
    """Everything that may be written next, for up to three trials."""
    history = journal.history
    if history.finished:
        return [journal.resumed]
    found: list[Callable[[], None]] = [journal.resumed, journal.finished]
    number = len(history.records)
    if number < 3:
        found.append(lambda: journal.proposed(make_trial(number)))
    if number not in map(len, history.references):
        found.append(lambda: journal.reference("d" * number, {"val_cka": number / 3}))
    for record in history.records.values():
        if not record.status.terminal:
            found += moves_of(journal, record)
    return found


def moves_of(journal: Journal, record: TrialRecord) -> list[Callable[[], None]]:
    name, attempt = record.trial.trial_id, record.attempts
    found: list[Callable[[], None]] = [
        lambda: journal.started(name, attempt + 1),
        lambda: journal.ended(name, attempt, Status.FAILED, reason='"\n\u2028\\ λ'),
    ]
    if record.status is Status.RUNNING:
        last = journal.history._last_epoch.get(name, 0)  # a new attempt may begin anywhere
        found += [
            lambda: journal.epoch(name, attempt, make_epoch(last + 1)),
            lambda: journal.epoch(name, attempt, make_epoch(last + 2, 0.75)),
            lambda: journal.waiting(name, "the process died", died=True),
            lambda: journal.waiting(name, "replaced"),
            lambda: journal.ended(name, attempt, Status.PRUNED, reason="behind the front"),
            lambda: journal.ended(name, attempt, Status.COMPLETED, feasible=True, result=make_result()),
        ]
    return found


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choices=st.lists(st.integers(0, 10**6), max_size=25), share=st.floats(0, 1))
def test_any_prefix_of_any_journal_is_the_state_it_was_in_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choices: list[int], share: float
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    path = tmp_path / "journal.jsonl"
    path.unlink(missing_ok=True)
    with Journal.create(path, HEADER) as journal:
        then = [repr(History()), repr(journal.history)]
        for choice in choices:
            possible = moves(journal)
            possible[choice % len(possible)]()
            then.append(repr(journal.history))
    content = path.read_bytes()
    assert content.count(b"\n") == len(then) - 1 == len(choices) + 1
    cut = max(content.index(b"\n") + 1, round(share * len(content)))
    path.write_bytes(content[:cut])
    history = read_history(path)
    assert history == read_history(path)
    assert repr(history) == then[content[:cut].count(b"\n")]
    for record in history.records.values():
        consistent(record)
    for _ in range(2):  # opening is not an event
        with Journal.open(path) as journal:
            assert journal.history == history
        assert path.read_bytes() == content[: content.rfind(b"\n", 0, cut) + 1]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_any_prefix_restores_to_a_consistent_state(tmp_path: Path, played: bytes, share: float) -> None:
    path = tmp_path / "journal.jsonl"
    cut = round(share * len(played))
    path.write_bytes(played[:cut])
    whole = played[:cut].count(b"\n")
    if whole == 0:
        with pytest.raises(RequestError, match="holds no header"):
            read_history(path)
        return
    history = read_history(path)
    assert history.length == whole
    for record in history.records.values():
        consistent(record)
    with Journal.open(path) as journal:
        assert journal.history == history
        journal.resumed()
        for record in journal.history.records.values():
            if not record.status.terminal:
                journal.started(record.trial.trial_id, record.attempts + 1)
                journal.ended(record.trial.trial_id, record.attempts, Status.COMPLETED, result=make_result())
        journal.finished()
        assert read_history(path) == journal.history


def refused(path: Path, *parts: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_history(path)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(path), *parts):
        assert part in message


def test_a_corrupt_middle_is_refused_with_its_line(path: Path, played: bytes) -> None:
    lines = played.splitlines(keepends=True)
    for broken, reason in [
        (b"{not json}\n", "corrupt"),
        (b"\n", "corrupt"),
        (b"[1]\n", "is not an object"),
        (b"\xff\xfe\n", "corrupt"),
        (lines[2].replace(b'"event":', b'"evnt":'), "'event' is missing"),
        (lines[2].replace(b'"seq":2', b'"seq":3'), "line number 2 is due, this one says 3"),
        (lines[2].replace(b'"started"', b'"strated"'), "'strated' is not a known event"),
        (lines[2].replace(b'"attempt":1', b'"attempt":"1"'), "attempt must be an integer"),
        (lines[2].replace(b'"attempt":1', b'"attempt":true'), "attempt must be an integer"),
        (lines[0].replace(b'"seq":0', b'"seq":2'), "the first line, and no other"),
    ]:
        path.write_bytes(b"".join([*lines[:2], broken, *lines[3:]]))
        refused(path, "line 3", reason)
        before = path.read_bytes()
        with pytest.raises(RequestError, match="line 3"):
            Journal.open(path)
        assert path.read_bytes() == before


@given(number=st.integers(0, 17), how=st.sampled_from(["lost", "twice", "swapped", "zeros"]))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whole_lines_gone_astray_are_refused(path: Path, played: bytes, number: int, how: str) -> None:
    lines = played.splitlines(keepends=True)
    assert len(lines) == 19
    wrong = number
    if how == "lost":
        del lines[number]
    elif how == "twice":
        lines.insert(number, lines[number])
        wrong = number + 1
    elif how == "swapped":
        lines[number : number + 2] = [lines[number + 1], lines[number]]
    else:
        lines[number] = b"\0" * (len(lines[number]) - 1) + b"\n"
    path.write_bytes(b"".join(lines))
    refused(path, f"line {wrong + 1}:", "is corrupt")


def test_zeros_after_a_power_failure_are_a_torn_line(path: Path, played: bytes) -> None:
    path.write_bytes(played + b"\0" * 512)
    assert read_history(path).finished
    Journal.open(path).close()
    assert path.read_bytes() == played


def test_lines_that_say_nonsense_are_refused(path: Path, played: bytes) -> None:
    lines = played.splitlines(keepends=True)
    for number, old, new, reason in [
        (4, b'"val_accuracy":0.5', b'"val_accuracy":NaN', "NaN is not a number"),
        (4, b'"steps"', b'"stairs"', "stairs"),
        (4, b'"result":{', b'"result":7,"other":{', "result must be an object"),
        (6, b'"died":false', b'"died":"yes"', "died must be true or false"),
        (10, b'"feasible":true', b'"feasible":"yes"', "feasible must be true, false or null"),
        (11, b"0.69", b'"0.69"', "val_accuracy must be a number"),
        (1, b'"number":0', b'"number":"0"', "number must be an integer"),
        (1, b'"config":{', b'"config":7,"other":{', "config and params must be objects"),
        (0, b'"header":{', b'"header":[],"other":{', "header must be an object"),
    ]:
        changed = lines[number].replace(old, new)
        assert changed != lines[number]
        path.write_bytes(b"".join([*lines[:number], changed, *lines[number + 1 :]]))
        refused(path, f"line {number + 1}", reason)


def test_a_number_that_is_not_the_one_written_is_refused(path: Path, played: bytes) -> None:
    lines = played.splitlines(keepends=True)
    changed = lines[4].replace(b'"val_accuracy":0.5', b'"val_accuracy":0.9')
    assert changed != lines[4]
    path.write_bytes(b"".join([*lines[:4], changed, *lines[5:]]))
    refused(path, "line 5", "not what was written")
    path.write_bytes(b"".join([*lines[:4], re.sub(rb',"crc":\d+', b"", changed), *lines[5:]]))
    read_history(path)  # an earlier release wrote no sums: nobody can tell


def test_a_line_too_deep_to_be_read_is_refused(path: Path, played: bytes) -> None:
    path.write_bytes(played + b"[" * 200_000 + b"\n")
    refused(path, "line 20", "corrupt")


def test_the_time_that_drivers_worked_is_counted(path: Path, played: bytes) -> None:
    lines = [json.loads(line) for line in played.splitlines()]
    seconds = [0, 5, 6, 7, 10, 11, *range(100, 100 + len(lines))]  # the driver was away before its seventh line
    names = [line["event"] for line in lines]
    for line, second in zip(lines, seconds, strict=False):
        line["at"] = f"2026-01-01T00:{second // 60:02d}:{second % 60:02d}.000+00:00"
        line.pop("crc")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    expected = sum(b - a for a, b, name in zip(seconds, seconds[1:], names[1:], strict=False) if name != "resumed")
    assert read_history(path).active_seconds == expected


def test_a_configuration_this_release_does_not_know_is_refused(path: Path, played: bytes) -> None:
    path.write_bytes(played.replace(b'"method":"repsim"', b'"method":"repsym"'))
    refused(path, "line 2", "repsym", "did you mean 'repsim'")


def test_an_unknown_version_is_refused(path: Path, played: bytes) -> None:
    path.write_bytes(played.replace(b'"v":1', b'"v":2'))
    refused(path, "line 1", "version 2 is not known to this release", "allowed: 1")
    with pytest.raises(RequestError, match="version 2 is not known"):
        Journal.open(path)
    for version, reason in [(b'"v":0', "version 0 is not"), (b'"v":"1"', "version '1' is not"), (b'"w":1', "'v' is")]:
        lines = played.splitlines(keepends=True)
        lines[3] = lines[3].replace(b'"v":1', version)
        path.write_bytes(b"".join(lines))
        refused(path, "line 4", reason)


def test_a_missing_empty_or_unreadable_journal_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.jsonl", "cannot be read: No such file")
    (tmp_path / "empty.jsonl").touch()
    refused(tmp_path / "empty.jsonl", "holds no header")
    refused(tmp_path, "cannot be read: Is a directory")
    with pytest.raises(RequestError, match="cannot be read"):
        Journal.open(tmp_path / "none.jsonl")


# one writer


def test_a_second_driver_is_refused_until_the_first_is_gone(path: Path, journal: Journal) -> None:
    code = "import sys; from pathlib import Path; from sweeps.journal import Journal; Journal.open(Path(sys.argv[1]))"
    elsewhere = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert elsewhere.returncode == 1
    assert "another launch is at work on this sweep" in elsewhere.stderr
    with pytest.raises(RequestError, match=f"another launch is at work on this sweep: host .*, pid {os.getpid()},"):
        Journal.open(path)
    journal.close()
    Journal.open(path).close()


def test_a_failed_open_gives_the_lock_back(path: Path, played: bytes) -> None:
    path.write_bytes(b"x\n" + played)
    for _ in range(2):
        with pytest.raises(RequestError, match="line 1"):
            Journal.open(path)
    path.write_bytes(played)
    Journal.open(path).close()


def test_a_journal_is_not_created_twice(path: Path, journal: Journal) -> None:
    journal.close()
    before = path.read_bytes()
    with pytest.raises(RequestError, match="exists already"):
        Journal.create(path, HEADER)
    assert path.read_bytes() == before
    lock = FileLock(path.parent / "lock")
    lock.acquire(timeout=0)
    lock.release()


def test_nowhere_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for opening in (Journal.open, lambda path: Journal.create(path, HEADER)):
        with pytest.raises(RequestError, match="cannot be written: there is no such folder"):
            opening(tmp_path / "none" / "journal.jsonl")
    assert list(tmp_path.iterdir()) == []

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(FileLock, "acquire", denied)
    with pytest.raises(RequestError, match="cannot be written: Permission denied"):
        Journal.create(tmp_path / "journal.jsonl", HEADER)


@pytest.mark.parametrize(("value", "error"), [(math.nan, ValueError), ({1, 2}, TypeError)])
def test_a_header_that_is_not_json_leaves_nothing(path: Path, value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="JSON"):
        Journal.create(path, {"seed": value})
    assert not path.exists()
    Journal.create(path, HEADER).close()


def test_a_journal_that_is_not_writable(path: Path, played: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(played)
    opened = Path.open

    def denied(self: Path, mode: str = "r", **rest: object) -> object:
        if mode == "r+b" and self == path:
            raise PermissionError(13, "Permission denied")
        return opened(self, mode, **rest)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(RequestError, match=r"journal\.jsonl: cannot be written: Permission denied"):
        Journal.open(path)
    assert not (path.parent / "lease.json").exists()


def test_the_empty_history_expects_a_header() -> None:
    with pytest.raises(JournalError, match="the first line, and no other, is the sweep's header"):
        History().prepare({"seq": 0, "event": "finished"}, "journal")
