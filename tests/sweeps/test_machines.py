"""How many trials the machines of a cluster carry, and what each gets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from repsim.errors import RequestError
from sweeps.machines import Machine, most_at_a_time, slots_on
from sweeps.slots import Slots
from sweeps.space import Resources, Space, load_space

SMALL, LARGE = Machine(name="small", cpus=2), Machine(name="large", cpus=8)
GPUS = Machine(name="gpus", cpus=16, gpus=4)


@pytest.fixture
def space() -> Space:
    return load_space("pareto.yaml", trials=400)


def asking(space: Space, *, parallel: int | None = None, **resources: float) -> Space:
    given = replace(space, search=replace(space.search, parallel=parallel))
    return replace(given, resources=Resources(**resources))  # type: ignore[arg-type]


def test_every_core_of_every_machine_by_default(space: Space) -> None:
    assert slots_on(space, [SMALL, LARGE]) == Slots(parallel=10, threads=1)
    few = slots_on(replace(space, budget=replace(space.budget, trials=12)), [SMALL, LARGE])
    assert few == Slots(parallel=3, threads=2), "threads fill the machines, and no slot is larger than one"


def test_every_gpu_where_there_are_some(space: Space) -> None:
    assert slots_on(space, [GPUS, LARGE]) == Slots(parallel=4, threads=4, gpus=1.0)
    assert slots_on(asking(space, parallel=8), [GPUS]) == Slots(parallel=8, threads=2, gpus=0.5)
    assert slots_on(asking(space, gpus_per_worker=0), [GPUS]).parallel == 16


def test_what_the_person_says_wins(space: Space) -> None:
    assert slots_on(asking(space, parallel=3), [SMALL, LARGE]) == Slots(parallel=3, threads=2)
    assert slots_on(asking(space, cpus_per_worker=4), [SMALL, LARGE]) == Slots(parallel=2, threads=4)


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ({"cpus_per_worker": 9}, r"resources\.cpus_per_worker: a trial asks for 9 cores.*allowed: 1 to 8"),
        ({"gpus_per_worker": 5}, r"resources\.gpus_per_worker: a trial asks for 5 GPUs.*allowed: 0 to 4"),
    ],
)
def test_what_no_machine_has_is_refused(space: Space, asked: dict[str, int], match: str) -> None:
    with pytest.raises(RequestError, match=match):
        slots_on(asking(space, **asked), [LARGE, replace(GPUS, cpus=2)])


def test_a_cluster_without_cores_is_refused(space: Space) -> None:
    with pytest.raises(RequestError, match="nodes with cores"):
        slots_on(space, [Machine(name="head", cpus=0)])


def test_with_auto_the_number_follows_the_cluster(space: Space) -> None:
    slots = slots_on(space, [SMALL, LARGE])
    assert most_at_a_time(space, [SMALL, LARGE], slots) == 10
    assert most_at_a_time(space, [SMALL], slots) == 2
    assert most_at_a_time(space, [LARGE, LARGE, LARGE], slots) == 24
    assert most_at_a_time(replace(space, budget=replace(space.budget, trials=12)), [LARGE, LARGE], slots) == 3
    asked = asking(space, parallel=5)
    assert [most_at_a_time(asked, [LARGE], slots), most_at_a_time(asked, [SMALL], slots)] == [5, 2]


def test_workers_may_lie_on_several_machines(space: Space) -> None:
    three = asking(space, workers=3)
    assert slots_on(three, [SMALL, LARGE]) == Slots(parallel=3, threads=1)
    assert slots_on(asking(space, workers=3, parallel=1), [SMALL, LARGE]) == Slots(parallel=1, threads=2)
    assert slots_on(asking(space, workers=2), [GPUS, LARGE]) == Slots(parallel=2, threads=4, gpus=1.0)
    assert most_at_a_time(three, [SMALL], slots_on(three, [SMALL, LARGE])) == 0, "none fits until a node has joined"
    with pytest.raises(RequestError, match=r"resources\.workers: a trial asks for 11 workers with 1 CPU each"):
        slots_on(asking(space, workers=11), [SMALL, LARGE])
