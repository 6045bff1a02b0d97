"""What a dry run says about slots."""

from __future__ import annotations

import pytest

from sweeps.rehearsal import _slots_text
from sweeps.slots import Slots
from sweeps.space import load_space


@pytest.mark.parametrize(
    ("workers", "more"),
    [
        ("1", ""),
        ("4", ", 4 workers a trial"),
        ("[{when: {penalty: any}, value: 4}, {value: 1}]", ", 1 or 4 workers a trial"),
    ],
)
def test_workers_are_told_where_there_are_several(workers: str, more: str) -> None:
    space = load_space("quick.yaml", [f"resources.workers={workers}"])
    assert _slots_text(space, Slots(parallel=3, threads=2)) == f"slots: 3 at a time, 2 threads each{more}"
