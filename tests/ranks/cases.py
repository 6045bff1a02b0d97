"""What is trained by one, two and three ranks, and compared: each case answers numbers, and arrays of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import repsim.fitting
import repsim.ranks
from repsim.config import OptimConfig, TrialConfig
from repsim.fitting import GradientFit
from repsim.model import FineTuned
from repsim.optimisation import trained_parameters
from repsim.ranks import Ranks
from repsim.trainer import Trainer
from repsim.workspace import Workspace
from tests.trainer.penalty_tools import weights_with_classifier
from tests.trainer.stripes import tiny_config

STEPS = 20
"""5 epochs of 30 images in batches of 8, 8, 8 and 6: no number of ranks divides them all."""
Answer = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """Where a rank finds images, weights with a classifier, and its cache."""

    images: Path
    weights: Path
    workspace: Workspace

    def config(self, method: str, backbone: str = "test_efficientnet", **changes: object) -> TrialConfig:
        base: dict[str, object] = {
            "method": method,
            "backbone": backbone,
            "backbone.weights": str(weights_with_classifier(backbone, self.weights)),
            "data.image_size": 160 if backbone == "test_vit" else 32,
            "optim.lr": 1e-3,
            "optim.epochs": STEPS // 4,
            "optim.clip_norm": None,
        }
        return tiny_config(self.images, **(base | changes))


def plain_sgd(model: FineTuned, config: OptimConfig, head_lr_factor: float) -> torch.optim.Optimizer:
    """What AdamW hides: it divides a gradient that is twice too large by its own size."""
    groups = [{"params": trained_parameters(model), "lr": 5e-4, "peak_lr": 5e-4}]
    return torch.optim.SGD(groups, momentum=0.9)


def weights_of(trainer: Trainer) -> NDArray[np.float64]:
    parts = [parameter.detach().double().flatten() for parameter in trained_parameters(trainer.model)]
    return torch.cat(parts).numpy()


def fit_of(trainer: Trainer) -> GradientFit:
    fit = trainer._fit
    if not isinstance(fit, GradientFit):
        raise TypeError(f"{type(fit).__name__} takes no steps")
    return fit


def watched_steps(trainer: Trainer) -> tuple[list[float], list[NDArray[np.float64]]]:
    """Losses of every step, and the gradients of the first, filled as the trainer goes."""
    fit, losses, gradients = fit_of(trainer), list[float](), list[NDArray[np.float64]]()
    step, update = fit._step, fit._optimizer.step

    def watched(*given: Any) -> tuple[float, float]:
        answer = step(*given)
        losses.append(answer[0])
        return answer

    def first(*given: Any, **named: Any) -> Any:
        if not gradients:
            found = [p.grad.double().flatten() for p in trained_parameters(trainer.model) if p.grad is not None]
            gradients.append(torch.cat(found).numpy())
        return update(*given, **named)

    fit._step = watched  # type: ignore[method-assign]
    fit._optimizer.step = first  # type: ignore[method-assign]
    return losses, gradients


def exact(bench: Bench, ranks: Ranks, method: str, **changes: object) -> Answer:
    """float64 and plain SGD: 20 steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repsim.fitting, "build_optimizer", plain_sgd)
        trainer = Trainer(bench.config(method, **changes), workspace=bench.workspace, ranks=ranks)
    trainer.model.double()
    losses, _ = watched_steps(trainer)
    start = weights_of(trainer)
    while not trainer.done:
        trainer.step()
    return {"losses": losses, "weights": weights_of(trainer), "moved": weights_of(trainer) - start}


def usual(bench: Bench, ranks: Ranks, method: str, **changes: object) -> Answer:
    """float32 and AdamW: 20 steps, then the verdict."""
    trainer = Trainer(bench.config(method, **changes), workspace=bench.workspace, ranks=ranks)
    losses, gradients = watched_steps(trainer)
    while not trainer.done:
        trainer.step()
    result = trainer.finish()
    layers = [epoch.layers for epoch in trainer.epochs]
    return {
        "losses": losses,
        "gradients": gradients[0],
        "values": result.values,
        "facts": result.facts,
        "layers": layers,
        "predictions": result.predictions,
    }


def probe(bench: Bench, ranks: Ranks) -> Answer:
    """No steps: the head is fitted to convergence on every rank."""
    trainer = Trainer(bench.config("linear_probe"), workspace=bench.workspace, ranks=ranks)
    trainer.step()
    return {"values": trainer.finish().values, "weights": weights_of(trainer)}


def without_the_factor(bench: Bench, ranks: Ranks) -> Answer:
    """The classic mistake: parts of a gradient that are to be added are averaged."""

    def averaged(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return upstream[0][ctx.share], None, None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repsim.ranks._Join, "backward", staticmethod(averaged))
        return exact(bench, ranks, "repsim")


def handed_over(bench: Bench, ranks: Ranks) -> Answer:
    """The state after an epoch, for one process to go on from."""
    trainer = Trainer(bench.config("repsim", **{"optim.epochs": 2}), workspace=bench.workspace, ranks=ranks)
    trainer.step()
    state = copy.deepcopy(trainer.state_dict())  # its tensors are the trainer's own
    trainer.step()
    return {"state": state, "weights": weights_of(trainer)}


PENALTIES = (
    "repsim", "procrustes", "hcs", "feature_mse", "rift", "rsa", "knn_edge", "triplet", "l2_sp", "delta", "bss", "lwf",
    "co_tuning",
)  # fmt: skip
CASES: dict[str, Callable[[Bench, Ranks], Answer]] = {
    **{f"exact {method}": partial(exact, method=method) for method in ("full", *PENALTIES)},
    "exact layers": partial(exact, method="repsim", **{"penalty.layers": "all"}),
    "exact queue": partial(exact, method="hcs", **{"penalty.queue": 20}),
    "exact clipped": partial(exact, method="repsim", **{"optim.clip_norm": 0.1}),
    "exact weighted": partial(exact, method="full", **{"data.class_weights": "balanced"}),
    "exact sam": partial(exact, method="repsim", **{"optim.sam": "sam", "optim.sam_rho": 0.01}),
    "usual ema": partial(usual, method="hcs", **{"optim.average": "ema"}),
    "exact lora": partial(exact, method="lora+repsim", backbone="test_vit"),
    "usual partial": partial(usual, method="partial+hcs"),
    "exact odd batches": partial(exact, method="hcs", **{"optim.batch_size": 7}),
    "usual repsim": partial(usual, method="repsim", **{"measure.layers": "full"}),
    "usual target": partial(usual, method="repsim", **{"strength.target_cka": 0.9}),
    "usual bf16": partial(usual, method="hcs", **{"optim.precision": "bf16"}),
    "usual lp_ft": partial(usual, method="lp_ft"),
    "probe": probe,
    "without the factor": without_the_factor,
    "handed over": handed_over,
}
