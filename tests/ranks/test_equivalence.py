"""The same training among one, two and three ranks, at equal batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from repsim.ranks import ALONE
from repsim.trainer import Trainer
from tests.ranks.cases import CASES, STEPS, Answer, Bench, weights_of
from tests.ranks.processes import Together
from tests.trainer.stripes import tiny_workspace

Alone = Callable[[str], Answer]
EXACT, FIRST_GRADIENTS, LOSS_AT_THE_END = 1e-9, 1e-5, 1e-3
several = pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
EXACT_CASES = [name for name in CASES if name.startswith("exact")]


def apart(one: Answer, other: Answer, what: str) -> float:
    """Largest difference, relative to the largest of the numbers."""
    return float(np.abs(one[what] - other[what]).max() / np.abs(one[what]).max())


@several
@pytest.mark.parametrize("name", EXACT_CASES)
def test_float64_and_sgd_are_the_same_over_20_steps(name: str, size: int, alone: Alone, together: Together) -> None:
    one = alone(name)
    assert len(one["losses"]) >= STEPS
    assert np.abs(one["moved"]).max() > 1e-4  # or equality would say nothing
    for other in together(size, name):
        assert apart(one, other, "weights") <= EXACT
        # of the way they went; the pretrained network, which delta runs beside, knows float32 alone
        assert apart(one, other, "moved") <= (1e-6 if name == "exact delta" else EXACT)
        assert other["losses"] == pytest.approx(one["losses"], rel=1e-6)


@several
def test_a_factor_of_ranks_would_be_seen(size: int, alone: Alone, together: Together) -> None:
    wrong = together(size, "without the factor")[0]
    assert apart(alone("exact repsim"), wrong, "moved") > 0.1
    assert apart(alone("without the factor"), alone("exact repsim"), "moved") == 0.0  # one process joins nothing


@several
@pytest.mark.parametrize("name", ["usual repsim", "usual lp_ft", "usual ema", "usual partial"])
def test_float32_and_adamw_begin_the_same_and_end_alike(name: str, size: int, alone: Alone, together: Together) -> None:
    one = alone(name)
    for other in together(size, name):
        assert np.linalg.norm(other["gradients"] - one["gradients"]) <= FIRST_GRADIENTS * np.linalg.norm(
            one["gradients"]
        )
        assert other["losses"][STEPS - 1] == pytest.approx(one["losses"][STEPS - 1], rel=LOSS_AT_THE_END)


@several
def test_what_is_measured_is_merged_and_not_averaged(size: int, alone: Alone, together: Together) -> None:
    one = alone("usual repsim")
    for other in together(size, "usual repsim"):
        for name, value in one["values"].items():
            if "seconds" not in name and name not in ("images_per_second", "peak_memory_bytes"):
                assert other["values"][name] == pytest.approx(value, rel=1e-3, abs=1e-4), name
        assert [list(layers) for layers in other["layers"]] == [list(layers) for layers in one["layers"]]
        for then, now in zip(one["layers"], other["layers"], strict=True):
            assert list(now.values()) == pytest.approx(list(then.values()), abs=1e-4)
        assert other["predictions"]["val"]["image"] == one["predictions"]["val"]["image"]
        assert other["facts"]["workers"] == size
        same = {key: value for key, value in other["facts"].items() if key not in ("workers", "threads")}
        assert same == {key: value for key, value in one["facts"].items() if key not in ("workers", "threads")}


@several
@pytest.mark.parametrize("name", ["usual repsim", "usual target", "probe"])
def test_all_ranks_answer_the_same(name: str, size: int, together: Together) -> None:
    first, *others = together(size, name)
    for other in others:
        for metric, value in first["values"].items():
            if "seconds" not in metric and metric != "images_per_second":
                assert other["values"][metric] == value, metric


@several
def test_a_target_of_similarity_is_steered_alike(size: int, alone: Alone, together: Together) -> None:
    one, other = alone("usual target"), together(size, "usual target")[0]
    assert other["facts"]["strength_final"] == pytest.approx(one["facts"]["strength_final"], rel=0.02)


@several
def test_a_probe_is_a_probe(size: int, alone: Alone, together: Together) -> None:
    assert apart(alone("probe"), together(size, "probe")[0], "weights") <= 1e-6


@several
def test_bf16_stays_near(size: int, alone: Alone, together: Together) -> None:
    one, other = alone("usual bf16"), together(size, "usual bf16")[0]
    assert other["losses"] == pytest.approx(one["losses"], rel=0.05)


@several
def test_a_checkpoint_of_several_goes_on_in_one(size: int, folder: Path, together: Together) -> None:
    given = together(size, "handed over")[0]
    bench = Bench(folder / "stripes", folder / "weights", tiny_workspace(folder / "cache"))
    config = bench.config("repsim", **{"optim.epochs": 2})
    trainer = Trainer(config, workspace=bench.workspace, ranks=ALONE)
    trainer.load_state_dict(given["state"])
    trainer.step()
    assert float(np.abs(weights_of(trainer) - given["weights"]).max()) <= 1e-4
