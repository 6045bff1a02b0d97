"""What the next trial gets, and whether there is room for one."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from repsim.config import TrialConfig
from repsim.records import FACTS, METRICS, TrialResult
from sweeps.allotment import Allotment
from sweeps.placement import Share
from sweeps.slots import Slots, choose_slots
from sweeps.space import Space, load_space

DATA = "phantom:ultrasound"
GIB = 2**30


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch) -> Space:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    return load_space("pareto.yaml", ["resources.workers=[{when: {penalty: any}, value: 4}, {value: 1}]"])


def config(method: str) -> TrialConfig:
    return TrialConfig.from_flat({"method": method})


def allot(space: Space, slots: Slots | None = None) -> Allotment:
    return Allotment(space, choose_slots(space) if slots is None else slots)


def test_a_trial_gets_what_the_space_says_of_its_like(space: Space) -> None:
    allotment = allot(space)
    assert allotment.take("t0000", config("full"), DATA, 0) == Share(workers=1, cpus=1)
    assert allotment.take("t0001", config("repsim"), DATA, 0) == Share(workers=4, cpus=1)


def test_there_is_room_as_long_as_the_smallest_fits(space: Space) -> None:
    allotment = allot(space)
    for trial_id in ("t0000", "t0001"):
        assert allotment.has_room
        allotment.take(trial_id, config("repsim"), DATA, 0)
    assert not allotment.has_room, "two trials of four workers have all eight cores"
    allotment.give_back("t0000")
    assert allotment.has_room
    for number in range(2, 6):
        allotment.take(f"t{number:04d}", config("full"), DATA, 0)
    assert not allotment.has_room
    allotment.give_back("t0005")
    allotment.give_back("t0005")
    assert allotment.has_room


def test_one_trial_may_always_run(space: Space) -> None:
    allotment = allot(space, Slots(parallel=1, threads=9, cpus=8))
    assert allotment.has_room
    allotment.take("t0000", config("repsim"), DATA, 0)
    assert not allotment.has_room


def test_on_a_cluster_ray_finds_the_room(space: Space) -> None:
    allotment = allot(space, Slots(parallel=1, threads=1))
    for number in range(100):
        allotment.take(f"t{number:04d}", config("repsim"), DATA, 0)
    assert allotment.has_room


def result(peak: float) -> TrialResult:
    values = dict.fromkeys(METRICS, 0.5) | {"peak_memory_bytes": peak}
    facts = dict.fromkeys(FACTS, 1) | {"gpu_bytes": 24 * GIB}
    return TrialResult(chosen_epoch=2, epochs=2, values=values, facts=facts)


def test_on_gpus_trials_share_as_soon_as_it_is_known_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    space = load_space("pareto.yaml")
    allotment = allot(space)
    assert allotment.take("t0000", config("full"), DATA, 0).gpus == 1.0
    assert not allotment.has_room, "the only GPU is taken"
    allotment.learn(config("full"), result(6 * GIB))
    allotment.give_back("t0000")
    assert allotment.take("t0001", config("repsim"), DATA, 0).gpus == 0.5
    assert allotment.has_room
    assert allotment.take("t0002", config("repsim"), DATA, 1).gpus == 1.0, "it died, and may have died for memory"
    allotment.give_back("t0002")
    assert allotment.take("t0003", config("full"), DATA, 0).gpus == 0.5
    assert not allotment.has_room


def test_what_a_person_asked_for_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    space = load_space("pareto.yaml")
    asked = replace(space, search=replace(space.search, parallel=2))
    allotment = allot(asked)
    allotment.learn(config("full"), result(1 * GIB))
    assert allotment.take("t0000", config("full"), DATA, 0).gpus == 1.0
