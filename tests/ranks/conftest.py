"""Ranks as processes, all cases in one start of them: importing torch takes longer than most cases."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from repsim.ranks import ALONE
from tests.ranks.cases import CASES, Answer, Bench
from tests.ranks.processes import Together, start_ranks
from tests.trainer.penalty_tools import weights_with_classifier
from tests.trainer.stripes import tiny_workspace, write_images


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ranks")
    write_images(root / "stripes")
    (root / "weights").mkdir()
    for backbone in ("test_efficientnet", "test_vit"):
        weights_with_classifier(backbone, root / "weights")
    return root


@pytest.fixture(scope="session")
def alone(folder: Path) -> Callable[[str], Answer]:
    """What one process answers in a case."""
    bench = Bench(folder / "stripes", folder / "weights", tiny_workspace(folder / "cache"))
    found: dict[str, Answer] = {}

    def answer(name: str) -> Answer:
        if name not in found:
            found[name] = CASES[name](bench, ALONE)
        return found[name]

    return answer


@pytest.fixture(scope="session")
def together(folder: Path) -> Together:
    """What each of ``size`` ranks answers in a case."""
    started: set[int] = set()

    def answers(size: int, name: str) -> list[Answer]:
        if size not in started:
            started.add(size)
            ranks = start_ranks(folder, size, list(CASES))
            said = [rank.communicate(timeout=280)[1] for rank in ranks]
            assert [rank.returncode for rank in ranks] == [0] * size, said
        return [pickle.loads((folder / f"{size}-{rank}-{name}.pickle").read_bytes()) for rank in range(size)]

    return answers
