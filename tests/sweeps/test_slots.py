"""How many trials run at once, and with how much each: never more threads than cores."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from repsim.errors import RequestError
from sweeps.placement import Share
from sweeps.slots import Slots, check_gpus, choose_slots
from sweeps.space import Case, Resources, Space, load_space
from sweeps.space_resources import Asked


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch) -> Space:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    return load_space("pareto.yaml")


def given(space: Space, parallel: int | None = None, **resources: object) -> Space:
    return replace(
        space,
        search=replace(space.search, parallel=parallel),
        resources=Resources(**resources),  # type: ignore[arg-type]
    )


def by_penalty(value: float | None, otherwise: float | None) -> tuple[Case, ...]:
    return (Case(when={"penalty": ("any",)}, value=value), Case(when={}, value=otherwise))


def test_one_thread_each_by_default_but_proposals_know_their_past(space: Space) -> None:
    slots = choose_slots(space)
    assert (slots.parallel, slots.threads, slots.gpus, slots.total_cpus) == (6, 1, 0.0, 6)
    few = choose_slots(replace(space, budget=replace(space.budget, trials=8)))
    assert (few.parallel, few.threads) == (2, 4)


def test_what_the_person_says_wins(space: Space) -> None:
    asked = choose_slots(given(space, parallel=2))
    assert (asked.parallel, asked.threads) == (2, 4)
    assert choose_slots(given(space, cpus_per_worker=4)).parallel == 2
    crowded = choose_slots(given(space, parallel=30))
    assert (crowded.parallel, crowded.threads, crowded.total_cpus) == (30, 1, 30)


def test_gpus_are_shared_evenly_where_more_trials_are_asked_for(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert choose_slots(given(space, parallel=2)).gpus == 1.0
    assert choose_slots(given(space, parallel=4)).gpus == 0.5
    assert choose_slots(given(space, parallel=3)).gpus == 0.5, "two thirds would leave a third of each GPU to nobody"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert choose_slots(space).gpus == 0.0


def test_on_gpus_there_are_slots_for_as_many_as_may_share_one(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    slots = choose_slots(space)
    assert (slots.parallel, slots.threads, slots.gpus, slots.packs) == (6, 1, 1.0, True)
    assert choose_slots(given(space, gpus_per_worker=1.0)).parallel == 2
    assert not choose_slots(given(space, parallel=4)).packs
    assert not choose_slots(given(space, workers=2)).packs
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert choose_slots(space).parallel == 4


def test_workers_divide_the_cores(space: Space) -> None:
    pairs = choose_slots(given(space, workers=2))
    assert (pairs.parallel, pairs.threads, pairs.total_cpus) == (4, 1, 8)
    one = choose_slots(given(space, parallel=1, workers=3))
    assert (one.parallel, one.threads, one.total_cpus) == (1, 2, 6)
    more = choose_slots(given(space, workers=16))
    assert (more.parallel, more.threads, more.total_cpus) == (1, 1, 16), "as many as the person wants, one thread each"


def test_of_several_sizes_the_smallest_says_how_many_and_the_largest_has_its_threads(space: Space) -> None:
    mixed = choose_slots(given(space, workers=by_penalty(4, 1)))
    assert (mixed.parallel, mixed.threads, mixed.total_cpus) == (6, 1, 8)
    two = choose_slots(given(space, parallel=2, workers=by_penalty(4, 1)))
    assert (two.parallel, two.threads, two.total_cpus) == (2, 2, 8), "four workers of two threads are eight"
    threads = choose_slots(given(space, parallel=2, cpus_per_worker=by_penalty(3, None)))
    assert (threads.threads, threads.total_cpus) == (4, 8)


def test_cpus_where_there_are_gpus_are_counted_too(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    mixed = choose_slots(given(space, gpus_per_worker=by_penalty(1.0, 0.0)))
    assert (mixed.parallel, mixed.threads) == (6, 1)


def test_a_trial_gets_its_share() -> None:
    slots = Slots(parallel=2, threads=3, gpus=0.5)
    auto = Asked(workers=1, cpus_per_worker=None, gpus_per_worker=None)
    assert slots.share(auto) == Share(workers=1, cpus=3, gpus=0.5)
    assert slots.share(replace(auto, workers=2)) == Share(workers=2, cpus=3, gpus=1.0), "workers do not share a GPU"
    assert slots.share(Asked(workers=4, cpus_per_worker=1, gpus_per_worker=2.0)) == Share(workers=4, cpus=1, gpus=2.0)
    assert Slots(parallel=2, threads=3).share(replace(auto, workers=2)).gpus == 0.0


def test_only_where_gpus_are_packed_does_the_measured_need_count() -> None:
    auto = Asked(workers=1, cpus_per_worker=None, gpus_per_worker=None)
    packed = Slots(parallel=2, threads=1, gpus=1.0, packs=True)
    assert packed.share(auto, lambda: 0.25).gpus == 0.25
    assert packed.share(replace(auto, workers=2), lambda: 0.25).gpus == 1.0
    assert packed.share(replace(auto, gpus_per_worker=0.5), lambda: 0.25).gpus == 0.5
    assert Slots(parallel=2, threads=1, gpus=1.0).share(auto, lambda: 0.25).gpus == 1.0


def test_a_trial_that_asks_for_more_gpus_than_there_are_is_refused(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_gpus(given(space, workers=4))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    check_gpus(given(space, workers=2))
    check_gpus(given(space, workers=8, gpus_per_worker=0.0))
    with pytest.raises(RequestError, match=r"gpus_per_worker: a trial asks for 3 GPUs, this machine shows 2; allowed"):
        check_gpus(given(space, gpus_per_worker=3.0))
    match = r"workers: a trial asks for 4 workers with 1 GPU each, this machine shows 2; allowed: 1 to 2, or gpus_per_w"
    with pytest.raises(RequestError, match=match):
        check_gpus(given(space, workers=by_penalty(4, 1)))
