"""What the penalty tests share: contexts without a trainer, and tiny backbones that bring a classifier."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from repsim.config import PenaltyConfig
from repsim.penalties import Penalty, PenaltyContext, build_penalty
from repsim.penalties.base import Batch, Statistics
from repsim.weights import SourceHead, build_module

SOURCE_CLASSES = 10


def seeded(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def context(dim: int, *, n_classes: int = 3, seed: int = 0, **settings: object) -> PenaltyContext:
    """A context with everything in it: 60 training features, a source head, and no weights."""
    features = seeded(60, dim, seed=11)
    return PenaltyContext(
        dim=dim,
        n_classes=n_classes,
        config=PenaltyConfig.model_validate(settings),
        seed=seed,
        train_labels=torch.arange(60) % n_classes,
        train_features=features,
        statistics=Statistics(mean=features.mean(0), covariance=torch.cov(features.T)),
        source_head=SourceHead(weight=seeded(SOURCE_CLASSES, dim, seed=12), bias=seeded(SOURCE_CLASSES, seed=13)),
    )


def penalty_of(name: str, dim: int = 12, **settings: object) -> Penalty:
    """The penalty called ``name`` with these settings."""
    return build_penalty(name, context(dim, **settings))  # type: ignore[arg-type]


def on(penalty: Penalty, features: Tensor, teacher: Tensor) -> Tensor:
    """R of two sets of features."""
    value: Tensor = penalty(Batch(features=features, teacher=teacher))
    return value


def gradient_of(penalty: Penalty, features: Tensor, teacher: Tensor) -> Tensor:
    """dR/dZ."""
    at = features.clone().requires_grad_()
    on(penalty, at, teacher).backward()  # type: ignore[no-untyped-call]
    assert at.grad is not None
    return at.grad


def rotation(dim: int, angle: float = 0.5, dtype: torch.dtype = torch.float32) -> Tensor:
    """A rotation near the identity."""
    skew = seeded(dim, dim, seed=3, dtype=torch.float64)
    return torch.matrix_exp(angle * (skew - skew.T) / math.sqrt(dim)).to(dtype)


def weights_with_classifier(name: str, folder: Path) -> Path:
    """A checkpoint of the randomly initialised backbone ``name`` with a classifier of ten classes."""
    path = folder / f"{name}.pth"
    if not path.exists():
        module = build_module(name).eval()
        noise = torch.rand(8, 3, 160, 160, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            scale = 2.0 / float(module(noise).norm(dim=1).mean())
        state = module.state_dict()
        width = int(module.num_features)  # type: ignore[arg-type]
        state["head.weight"] = scale * seeded(SOURCE_CLASSES, width, seed=5)
        state["head.bias"] = torch.zeros(SOURCE_CLASSES)
        torch.save(state, path)
    return path
