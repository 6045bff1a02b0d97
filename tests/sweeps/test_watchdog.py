"""How long a silence may last, by a clock that the test moves."""

from __future__ import annotations

import pytest

from sweeps.watchdog import FACTOR, SHORTEST, UNKNOWN, Watchdog


class Clock:
    """Seconds, as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def watching(clock: Clock, limit: float | None = None) -> Watchdog:
    return Watchdog(limit, clock=clock)


def learned(clock: Clock, longest: float, kind: str = "full") -> Watchdog:
    """A watchdog that has heard a trial of ``kind`` after ``longest`` seconds, and watches another one."""
    dog = watching(clock)
    dog.started("t0000", kind, 0)
    clock.now += longest
    dog.heard("t0000")
    dog.forget("t0000")
    dog.started("t0001", kind, 0)
    return dog


def test_what_is_unknown_gets_an_hour(clock: Clock) -> None:
    dog = watching(clock)
    dog.started("t0000", "full", 0)
    clock.now += UNKNOWN
    assert dog.overdue() == {}, "the limit itself is allowed"
    clock.now += 1
    assert dog.overdue() == {
        "t0000": "hung: no epoch for 3601 s (limit 3600 s, nothing like it was heard of before)",
    }
    assert dog.overdue() == dog.overdue(), "asking changes nothing"


def test_the_limit_is_learned_from_the_longest_silence_that_ended_well(clock: Clock) -> None:
    dog = learned(clock, 20.0)
    dog.heard("t0001")
    clock.now += 30.0
    dog.heard("t0001")
    clock.now += 2.0
    dog.heard("t0001")  # a shorter one does not shorten the limit
    clock.now += FACTOR * 30.0
    assert dog.overdue() == {}
    clock.now += 1.0
    assert dog.overdue() == {"t0001": "hung: no epoch for 301 s (limit 300 s, its like took at most 30 s)"}


def test_the_learned_limit_is_never_short(clock: Clock) -> None:
    dog = learned(clock, 0.01)
    clock.now += SHORTEST
    assert dog.overdue() == {}
    clock.now += 0.1
    assert list(dog.overdue()) == ["t0001"]


def test_each_kind_learns_for_itself(clock: Clock) -> None:
    dog = learned(clock, 1.0, kind="linear_probe")
    dog.started("t0002", "full", 0)
    clock.now += SHORTEST + 1
    assert list(dog.overdue()) == ["t0001"], "nothing is known of the other kind"


def test_a_given_limit_replaces_what_is_learned(clock: Clock) -> None:
    dog = watching(clock, limit=5.0)
    dog.started("t0000", "full", 0)
    clock.now += 4.0
    dog.heard("t0000")
    clock.now += 5.0
    assert dog.overdue() == {}
    clock.now += 0.5
    assert dog.overdue() == {"t0000": "hung: no epoch for 6 s (limit 5 s, resources.epoch_timeout)"}


@pytest.mark.parametrize(("attempt", "allowed"), [(1, 5.0), (2, 10.0), (3, 20.0)])
def test_each_attempt_is_given_twice_the_time(clock: Clock, attempt: int, allowed: float) -> None:
    dog = watching(clock, limit=5.0)
    dog.started("t0000", "full", attempt - 1)
    clock.now += allowed
    assert dog.overdue() == {}
    clock.now += 0.1
    assert list(dog.overdue()) == ["t0000"]


def test_a_sign_of_life_begins_a_new_silence(clock: Clock) -> None:
    dog = watching(clock, limit=5.0)
    dog.started("t0000", "full", 0)
    clock.now += 6.0
    assert list(dog.overdue()) == ["t0000"]
    dog.heard("t0000")
    assert dog.overdue() == {}
    clock.now += 6.0
    assert list(dog.overdue()) == ["t0000"]


def test_what_does_not_run_is_not_watched(clock: Clock) -> None:
    dog = watching(clock, limit=5.0)
    dog.started("t0000", "full", 0)
    dog.forget("t0000")
    dog.forget("t0000")
    clock.now += 100.0
    assert dog.overdue() == {}
    dog.heard("t0000")  # a late word of a trial that has ended
    dog.started("t0001", "full", 0)
    clock.now += 1.0
    assert dog.overdue() == {}


def test_a_silence_that_ended_in_death_teaches_nothing(clock: Clock) -> None:
    dog = learned(clock, 1.0)
    clock.now += 5000.0
    assert list(dog.overdue()) == ["t0001"]
    dog.forget("t0001")
    dog.started("t0002", "full", 0)
    clock.now += SHORTEST + 1
    assert list(dog.overdue()) == ["t0002"]


def test_a_new_start_forgets_the_old_silence(clock: Clock) -> None:
    dog = watching(clock, limit=5.0)
    dog.started("t0000", "full", 0)
    clock.now += 50.0
    dog.started("t0000", "full", 0)
    assert dog.overdue() == {}


def test_waiting_for_a_process_is_not_silence(clock: Clock) -> None:
    dog = watching(clock, limit=5.0)
    dog.started("t0000", "full", 0)
    clock.now += 60.0
    dog.began("t0000")
    dog.began("nobody")
    clock.now += 4.0
    assert dog.overdue() == {}
    clock.now += 2.0
    assert list(dog.overdue()) == ["t0000"]


def test_what_the_driver_missed_is_nobodys_silence(clock: Clock) -> None:
    dog = watching(clock, limit=5.0)
    dog.started("t0000", "full", 0)
    clock.now += 60.0
    dog.stood_still(58.0)
    assert dog.overdue() == {}
