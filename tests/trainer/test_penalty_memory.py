"""What penalties learn beside the model is learned at its weights, not at their sharpness-aware neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor

from repsim.catalogue import PENALTIES
from repsim.config import TrialConfig
from repsim.fitting import GradientFit
from repsim.penalties import Penalty
from repsim.trainer import Trainer
from repsim.workspace import Workspace
from tests.trainer.penalty_tools import weights_with_classifier

BACKBONE = "test_efficientnet"
LEARNING: list[dict[str, object]] = [
    {"method": "repsim"},
    {"method": "repsim", "penalty.map": "procrustes", "penalty.scale": True},
    {"method": "repsim", "penalty.map": "cayley", "penalty.layers": "all"},
    {"method": "repsim", "penalty.map": "low_rank"},
    {"method": "hcs", "penalty.queue": 16},
    {"method": "rift"},
    {"method": "rift", "penalty.q": "learned"},
]


def named(settings: Mapping[str, object]) -> str:
    return "-".join(map(str, settings.values()))


class Frozen:
    """Runs an epoch in which the optimiser moves nothing."""

    def __init__(self, configure: Callable[..., TrialConfig], workspace: Workspace, folder: Path) -> None:
        self._configure, self._workspace = configure, workspace
        self._weights = str(weights_with_classifier(BACKBONE, folder))

    def run(self, sam: str, **settings: object) -> tuple[float, Mapping[str, Tensor]]:
        """The mean penalty, and what the penalty knows after it."""
        flat: dict[str, object] = {
            "backbone": BACKBONE,
            "backbone.weights": self._weights,
            "optim.epochs": 1,
            "optim.sam": sam,
        }
        if sam != "none":
            flat["optim.sam_rho"] = 0.5
        trainer = Trainer(self._configure(**flat, **settings), workspace=self._workspace)
        assert isinstance(trainer._fit, GradientFit)
        trainer._fit._optimizer.step = lambda: None  # type: ignore[assignment, method-assign, misc]
        value = trainer.step().train_penalty
        assert value is not None
        assert trainer.penalty is not None
        return value, trainer.penalty.state_dict()


@pytest.fixture(scope="module")
def frozen(
    configure: Callable[..., TrialConfig], workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> Frozen:
    return Frozen(configure, workspace, tmp_path_factory.mktemp("weights"))


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    "settings", [*({"method": name} for name in PENALTIES), *(s for s in LEARNING if len(s) > 1)], ids=named
)
def test_a_model_that_does_not_move_is_measured_and_learned_as_without_sam(
    settings: dict[str, object], frozen: Frozen
) -> None:
    plain, known = frozen.run("none", **settings)
    for sam in ("sam", "asam"):
        value, learned = frozen.run(sam, **settings)
        assert value == plain
        assert same(known, learned)
    if PENALTIES[str(settings["method"])].zero_at_start:
        assert abs(plain) < 1e-6


@pytest.mark.parametrize("settings", LEARNING, ids=named)
def test_it_would_learn_from_the_neighbour_if_it_were_not_told_to_forget(
    settings: dict[str, object], frozen: Frozen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remembering(penalty: Penalty) -> AbstractContextManager[None]:
        return nullcontext()

    _, known = frozen.run("sam", **settings)
    monkeypatch.setattr(Penalty, "forgetting", remembering)
    _, learned = frozen.run("sam", **settings)
    assert not same(known, learned)


def test_forgetting_ends_with_an_error_too() -> None:
    class Constant(Penalty):
        def of(self, batch: object) -> Tensor:
            return torch.zeros(())

    outer, inner = Constant(), Constant()
    outer.inner = inner
    with outer.forgetting():
        assert not outer.remembers
        assert not inner.remembers
    with pytest.raises(KeyError), outer.forgetting():
        raise KeyError
    assert outer.remembers
    assert inner.remembers
    with torch.no_grad():
        assert not outer.remembers
