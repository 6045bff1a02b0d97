"""Whether a trial's workers find places, and how long they wait for some that are not there."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sweeps.placement import AUTO_SECONDS, Node, Share, Waiting, described, fits, places

TWO = [Node(cpus=8, gpus=2), Node(cpus=4)]


@pytest.mark.parametrize(
    ("share", "count"),
    [
        (Share(), 12),
        (Share(cpus=3), 3),
        (Share(cpus=5), 1),
        (Share(gpus=1.0), 2),
        (Share(gpus=2.0), 1),
        (Share(gpus=3.0), 0),
        (Share(gpus=0.5), 4),
        (Share(gpus=0.4), 4),  # two on each GPU: what is left over on both makes no third
        (Share(cpus=5, gpus=0.5), 1),
    ],
    ids=str,
)
def test_a_worker_lies_on_one_machine_and_its_share_on_one_gpu(share: Share, count: int) -> None:
    assert places(share, TWO) == count


def test_the_workers_of_a_trial_may_lie_on_several_machines() -> None:
    assert fits(Share(workers=12), TWO)
    assert not fits(Share(workers=13), TWO)
    assert fits(Share(workers=2, gpus=1.0), TWO)
    assert not fits(Share(workers=3, gpus=1.0), TWO)
    assert not fits(Share(), [])


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (Share(), "1 CPU"),
        (Share(cpus=2, gpus=1.0), "2 CPUs and 1 GPU"),
        (Share(workers=4, gpus=0.5), "4 workers with 1 CPU and 0.5 GPU each"),
        (Share(workers=2, cpus=3, gpus=2.0), "2 workers with 3 CPUs and 2 GPUs each"),
    ],
)
def test_sizes_are_said_in_words(share: Share, text: str) -> None:
    assert str(share) == text


def test_machines_are_said_in_words() -> None:
    assert described([]) == "no machine"
    assert described([Node(cpus=4), Node(cpus=8, gpus=2), Node(cpus=4)]) == "8 CPUs and 2 GPUs; 2 x 4 CPUs"


class Hall:
    """Trials that wait, looked at every second."""

    def __init__(self, limit: float | None = 10.0, machines: Sequence[Node] = ()) -> None:
        self.now, self.machines = 0.0, list(machines)
        self.waiting = Waiting(limit, clock=lambda: self.now)

    def look(self, asked: dict[str, Share], seconds: int, busy: bool = False) -> dict[str, str]:
        late: dict[str, str] = {}
        for _ in range(seconds):
            self.now += 1.0
            late = self.waiting.look(asked, busy, lambda: self.machines)
        return late


BIG = {"t0003": Share(workers=4, gpus=1.0)}


def test_a_trial_waits_so_long_for_what_is_not_there() -> None:
    hall = Hall(machines=TWO)
    assert hall.look(BIG, 10, busy=True) == {}
    assert hall.look(BIG, 1, busy=True) == {
        "t0003": "waited 11 s for 4 workers with 1 CPU and 1 GPU each (limit 10 s, resources.placement_timeout); "
        "there is now: 8 CPUs and 2 GPUs; 4 CPUs"
    }


def test_waiting_for_ones_own_turn_is_no_such_waiting() -> None:
    hall = Hall(machines=TWO)
    small = {"t0003": Share(workers=2, gpus=1.0)}
    assert hall.look(small, 1000, busy=True) == {}
    assert hall.look(small, 10) == {}, "nobody of ours runs any more, so others must have it"
    assert list(hall.look(small, 1)) == ["t0003"]


def test_machines_that_come_in_time_end_the_waiting() -> None:
    hall = Hall(machines=TWO)
    assert hall.look(BIG, 9, busy=True) == {}
    hall.machines.append(Node(cpus=8, gpus=2))
    assert hall.look(BIG, 5, busy=True) == {}
    hall.machines.pop()
    assert hall.look(BIG, 10, busy=True) == {}, "it counts from the beginning"
    assert hall.look(BIG, 1, busy=True) != {}


def test_a_trial_that_got_its_place_starts_anew_the_next_time() -> None:
    hall = Hall()
    hall.look(BIG, 9)
    hall.look({}, 1)
    assert hall.look(BIG, 10) == {}
    assert hall.look(BIG, 1) != {}


def test_time_in_which_the_driver_stood_still_is_nobodys_waiting() -> None:
    hall = Hall()
    hall.look(BIG, 1)
    hall.now += 3600.0
    assert hall.look(BIG, 1) == {}
    assert hall.look(BIG, 4) == {}, "1 + 5 + 4 s"
    assert hall.look(BIG, 1) != {}


def test_nobody_is_asked_about_machines_while_nobody_waits() -> None:
    def asked() -> Sequence[Node]:
        raise AssertionError

    assert Waiting(10.0).look({}, False, asked) == {}


def test_by_itself_it_waits_for_as_long_as_a_cloud_may_take() -> None:
    hall = Hall(limit=None)
    assert hall.look(BIG, round(AUTO_SECONDS)) == {}
    assert "limit 600 s" in hall.look(BIG, 1)["t0003"]
