"""The parts: shares, one process among nobody, refusals, and what happens when a rank is gone."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from repsim.config import TrialConfig
from repsim.errors import RequestError
from repsim.ranks import ALONE, RankLost, Ranks, connect, listening
from repsim.trainer import check_ranks, check_splits
from tests.ranks.processes import start_ranks

CPU = torch.device("cpu")


def of(rank: int, size: int) -> Ranks:
    """A rank that talks to nobody."""
    found: Ranks = object.__new__(type(ALONE))
    found.rank, found.size = rank, size
    return found


@pytest.mark.parametrize("size", range(1, 8))
@pytest.mark.parametrize("n", [0, 1, 5, 6, 7, 31, 32])
def test_shares_cover_every_row_once_and_evenly(n: int, size: int) -> None:
    shares = [of(rank, size).share(n) for rank in range(size)]
    assert [row for share in shares for row in range(n)[share]] == list(range(n))
    sizes = [share.stop - share.start for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert [ALONE.share(n).start, ALONE.share(n).stop] == [0, n]
    assert of(0, size).share(n, size - 1) == shares[-1]


def test_alone_every_operation_hands_back_what_it_was_given() -> None:
    rows, array = torch.ones(3, 2, requires_grad=True), np.ones((3, 2), dtype=np.float32)
    model = torch.nn.Linear(2, 2)
    assert ALONE.join(rows, 3) is rows
    assert ALONE.collect(array, 3) is array
    assert ALONE.every("word") == ["word"]
    assert ALONE.parallel(model) is model
    ALONE.align([model])
    with ALONE.guarded():
        ALONE.close()
    assert connect(0, 1, "nowhere", 0, device=CPU) is ALONE


def test_what_cannot_be_shared_is_refused() -> None:
    config = TrialConfig.from_flat({"optim.batch_size": 4, "optim.batch_norm": "train"})
    check_ranks(config, 1)
    with pytest.raises(RequestError, match=r"optim\.batch_size: a batch of 4 leaves .* 8 workers") as caught:
        check_ranks(config, 8)
    assert "optim.batch_norm" in str(caught.value)
    check_ranks(TrialConfig.from_flat({"optim.batch_size": 8}), 8)
    sizes = {"train": 30, "val": 6, "test": 6}
    check_splits(config, sizes, 6)
    with pytest.raises(RequestError, match="val split: holds 6 images"):
        check_splits(config, sizes, 7)


def test_a_listener_is_no_open_door() -> None:
    with listening("127.0.0.1") as door:
        assert door.getsockname()[0] == "127.0.0.1"


def test_whoever_never_comes_is_not_waited_for_long() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(RankLost, match="rank 1 of 2 did not meet the others within 1 s"):
        connect(1, 2, "127.0.0.1", port, device=CPU, timeout=1.0)
    assert time.monotonic() - began < 30


def test_the_loss_of_a_rank_is_told_and_not_waited_for(folder: Path) -> None:
    ranks = start_ranks(folder, 2, ["die"])
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 9]
    for rank in ranks:
        assert rank.stderr is not None
        rank.stderr.close()
    assert (folder / "lost-0").read_text().startswith("rank 0 of 2 lost the others: ")
