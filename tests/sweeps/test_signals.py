"""Real signals, sent by this process to itself."""

# ruff: noqa: PT012 - what a block does between a signal and its end is what is tested

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from sweeps.signals import STOPPING, Interrupted, Signals

EACH = pytest.mark.parametrize("number", STOPPING, ids=lambda number: str(number.name))


@pytest.fixture(autouse=True)
def handlers_come_back() -> Iterator[None]:
    """Whatever a test does, the handlers of the test run come back; a signal nobody takes fails the test."""

    def nobody(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"{signal.Signals(number).name} reached the handler from before")

    before = {number: signal.signal(number, nobody) for number in STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_ways_of_being_asked_to_stop() -> None:
    assert {number.name for number in STOPPING} == {"SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP"}
    assert not issubclass(Interrupted, Exception), "nothing on the way may take it for a failure"


@EACH
def test_a_signal_interrupts_at_once(number: signal.Signals) -> None:
    went_on = False
    with pytest.raises(Interrupted, match=f"^{number.name}$"), Signals().caught():
        signal.raise_signal(number)
        went_on = True
    assert not went_on


@EACH
def test_handlers_are_given_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Signals().caught():
        assert signal.getsignal(number) != before
    assert signal.getsignal(number) == before
    with pytest.raises(KeyError, match="x"), Signals().caught():
        raise KeyError("x")
    assert signal.getsignal(number) == before


def test_later_signals_do_not_tear_the_clean_up() -> None:
    signals, cleaned = Signals(), []
    with signals.caught():
        try:
            signal.raise_signal(signal.SIGINT)
        except Interrupted:
            for number in STOPPING:
                signal.raise_signal(number)
                cleaned.append(number)
    assert cleaned == list(STOPPING)


@EACH
def test_where_it_would_tear_something_a_signal_waits_for_the_check(number: signal.Signals) -> None:
    signals, done = Signals(), []
    with signals.caught(), pytest.raises(Interrupted, match=number.name), signals.noted() as check:
        check()
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)
        done.append("whole")
        check()
        done.append("never")
    assert done == ["whole"]


def test_a_signal_that_was_noted_is_raised_on_leaving() -> None:
    signals, done = Signals(), []
    with signals.caught(), pytest.raises(Interrupted, match="SIGUSR1"):
        with signals.noted():
            signal.raise_signal(signal.SIGUSR1)
            done.append("whole")
        done.append("never")
    assert done == ["whole"]


class Finalised:
    """Something in whose finaliser the signal arrives: Python ignores what is raised there."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_that_got_lost_is_raised_at_the_next_check() -> None:
    signals, done = Signals(), []
    with signals.caught():
        Finalised()
        done.append("the handler's exception was lost")
        with pytest.raises(Interrupted, match="SIGTERM"):
            signals.check()
    assert done == ["the handler's exception was lost"]


def test_notes_within_notes_stay_notes() -> None:
    signals, done = Signals(), []
    with signals.caught(), pytest.raises(Interrupted, match="SIGINT"), signals.noted():
        with signals.noted():
            pass
        signal.raise_signal(signal.SIGINT)
        done.append("still only noted")
    assert done == ["still only noted"]


def test_after_notes_signals_interrupt_at_once_again() -> None:
    signals, done = Signals(), []
    with signals.caught():
        with signals.noted():
            pass
        with pytest.raises(Interrupted, match="SIGTERM"):
            signal.raise_signal(signal.SIGTERM)
            done.append("never")
    assert done == []


def test_without_a_signal_a_check_is_nothing() -> None:
    signals = Signals()
    with signals.caught(), signals.noted() as check:
        check()
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL


@EACH
def test_handlers_that_somebody_put_over_ours_are_replaced(number: signal.Signals) -> None:
    signals = Signals()
    theirs: list[int] = []
    with signals.caught(), pytest.raises(Interrupted, match=number.name), signals.noted() as check:
        signal.signal(number, lambda sent, frame: theirs.append(sent))
        check()
        signal.raise_signal(number)
        check()
    assert theirs == []


@pytest.mark.skipif(sys.platform != "linux", reason="the number of SIG_IGN, and the C library's name")
def test_a_handler_that_compiled_code_replaced_unseen_is_put_back() -> None:
    signals, ignore = Signals(), 1
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    with signals.caught(), pytest.raises(Interrupted, match="SIGUSR1"), signals.noted() as check:
        libc.signal(signal.SIGUSR1, ignore)
        assert signal.getsignal(signal.SIGUSR1) == signals._receive, "Python does not know"
        signal.raise_signal(signal.SIGUSR1)
        check()
        signal.raise_signal(signal.SIGUSR1)
        check()
        raise AssertionError("the second one was ours to take")


def test_an_alarm_that_compiled_code_set_is_called_off() -> None:
    signals = Signals()
    of_the_test_run = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        with signals.caught(), pytest.raises(Interrupted, match="SIGTERM"), signals.noted() as check:
            signal.alarm(1000)
            check()
            assert signal.getitimer(signal.ITIMER_REAL)[0] > 0, "without a signal it is not ours to touch"
            signal.raise_signal(signal.SIGTERM)
            check()
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, *of_the_test_run)


def fail() -> None:
    raise RuntimeError("the engine is lost")


@pytest.mark.parametrize(
    "body",
    [
        fail,
        lambda: None,
    ],
    ids=["left by an error", "left in order"],
)
def test_a_noted_signal_is_not_forgotten_however_the_notes_are_left(body: Callable[[], None]) -> None:
    signals = Signals()
    with signals.caught(), pytest.raises(Interrupted, match="SIGTERM"), signals.noted():
        signal.raise_signal(signal.SIGTERM)
        body()


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with Signals().caught():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_interruption_is_heard_by_a_background_job_too() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a script's shell leaves it
    try:
        with Signals().caught(), pytest.raises(Interrupted, match="SIGINT"):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
