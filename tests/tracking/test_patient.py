from __future__ import annotations

import threading
import time

import pytest

from sweeps.patient import PatientThread, Rank, short


class AwayError(Exception):
    pass


class RefusedError(AwayError):
    pass


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr("sweeps.patient.PAUSES", (0.01, 0.02))
    return []


def _thread(heard: list[str]) -> PatientThread:
    return PatientThread("it", refused=lambda error: isinstance(error, RefusedError), report=heard.append)


def test_jobs_run_in_order_newer_ones_replace_waiting_ones_and_the_last_is_last(heard: list[str]) -> None:
    done: list[str] = []
    thread = _thread(heard)
    thread.put("more", lambda: done.append("more"), rank=Rank.AFTER)
    thread.put("end", lambda: done.append("end"), rank=Rank.LAST)
    for name in ("a", "b", "a"):
        thread.put(name, lambda name=name: done.append(f"{name}{len(done)}"))  # type: ignore[misc]
    assert not thread.flush(0.01)
    thread.start((AwayError,))
    assert thread.close(5) == 0
    assert done == ["a0", "b1", "end", "more"]
    assert thread.close(5) == 0
    assert heard == []


def test_a_failed_job_is_tried_again_after_the_others_and_an_outage_is_reported_once(heard: list[str]) -> None:
    done: list[str] = []
    failures = {"a": 3, "end": 2}

    def job(name: str) -> None:
        if failures.get(name, 0) > 0:
            failures[name] -= 1
            raise AwayError(f"{name}\n is away")
        done.append(name)

    thread = _thread(heard)
    for name in ("a", "b"):
        thread.put(name, lambda name=name: job(name))  # type: ignore[misc]
    thread.put("end", lambda: job("end"), rank=Rank.LAST)
    thread.start((AwayError,))
    assert thread.flush(5)
    assert done == ["b", "a", "end"]
    assert heard[0] == "it does not answer ('a is away'); trying again, nothing is lost"
    assert len(heard) == 2  # b, which may have asked nothing, ends no outage; a did, before the end failed
    thread.close(1)


def test_a_refused_job_is_dropped(heard: list[str]) -> None:
    def job() -> None:
        raise RefusedError("never")

    thread = _thread(heard)
    thread.put("a", job)
    thread.start((AwayError,))
    assert thread.flush(5)
    assert heard == ["it refuses a: 'never'"]
    thread.close(1)


def test_a_newer_job_beats_the_failed_one(heard: list[str]) -> None:
    done: list[str] = []
    entered, go_on = threading.Event(), threading.Event()

    def old() -> None:
        entered.set()
        go_on.wait(5)
        raise AwayError

    thread = _thread(heard)
    thread.put("a", old)
    thread.start((AwayError,))
    assert entered.wait(5)
    thread.put("a", lambda: done.append("new"))
    go_on.set()
    assert thread.close(5) == 0
    assert done == ["new"]


def test_closing_gives_up_in_time_and_counts_what_is_left(heard: list[str]) -> None:
    def job() -> None:
        raise AwayError

    thread = _thread(heard)
    thread.put("a", job)
    thread.put("b", job)
    thread.start((AwayError,))
    began = time.monotonic()
    assert thread.close(0.2) == 2
    assert time.monotonic() - began < 1.0


def test_errors_are_one_line() -> None:
    assert short(ValueError("a\n  b" + "x" * 300)).startswith("'a b")
    assert len(short(ValueError("x" * 300))) == 200
