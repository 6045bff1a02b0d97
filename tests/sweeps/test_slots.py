"""How many trials run at once: never more threads than cores."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from sweeps.slots import choose_slots
from sweeps.space import Resources, Space, load_space


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch) -> Space:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    return load_space("pareto.yaml")


def test_one_thread_each_by_default_but_proposals_know_their_past(space: Space) -> None:
    slots = choose_slots(space)
    assert (slots.parallel, slots.threads, slots.gpus) == (6, 1, 0.0)
    few = choose_slots(replace(space, budget=replace(space.budget, trials=8)))
    assert (few.parallel, few.threads) == (2, 4)


def test_what_the_person_says_wins(space: Space) -> None:
    asked = choose_slots(replace(space, search=replace(space.search, parallel=2)))
    assert (asked.parallel, asked.threads) == (2, 4)
    assert choose_slots(replace(space, resources=Resources(cpus_per_worker=4))).parallel == 2
    crowded = choose_slots(replace(space, search=replace(space.search, parallel=30)))
    assert (crowded.parallel, crowded.threads) == (30, 1)


def test_a_slot_for_each_gpu(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    slots = choose_slots(space)
    assert (slots.parallel, slots.threads, slots.gpus) == (2, 4, 1.0)
    shared = choose_slots(replace(space, search=replace(space.search, parallel=4)))
    assert shared.gpus == 0.5
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert choose_slots(space).gpus == 0.0
