"""What every adapter is: what it does to a model before training, and which backbones it can do that to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import nn

from repsim.config import AdapterConfig
from repsim.model import FineTuned


class Refusal(NamedTuple):
    """Why a backbone cannot take an adapter: the configuration's key, what is wrong, and what would be right."""

    key: str
    problem: str
    allowed: str


Prepare = Callable[[FineTuned, AdapterConfig, torch.Generator], None]
Refuse = Callable[[nn.Module, AdapterConfig], Refusal | None]
Boundary = Callable[[nn.Module, AdapterConfig], str]


def takes_any_backbone(backbone: nn.Module, config: AdapterConfig) -> None:
    """The ``refuse`` of an adapter that never does."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """``prepare`` sets ``requires_grad`` and may add to modules; ``fit`` says how the trainable part is found.

    ``prepare`` draws new numbers from its generator alone. Pretrained parameters keep their names, so that whoever
    looks for them (penalties, checkpoints) finds them. ``refuse`` looks at a backbone and its settings without changing
    either; None means yes.

    ``gradient``: optimiser steps, an epoch at a time. ``features``: in one step, to convergence, on cached features;
    then the backbone must not move. ``probed_gradient``: as ``gradient``, from the head that ``features`` would find.

    ``boundary`` names the module in front of which nothing moves, so that the trainer need not run what comes before
    it at every step (:mod:`repsim.prefix`); None where something may move from the first layer on.
    """

    prepare: Prepare
    fit: Literal["gradient", "features", "probed_gradient"] = "gradient"
    refuse: Refuse = takes_any_backbone
    boundary: Boundary | None = None


def train_only(model: FineTuned, trained: Callable[[str], bool]) -> None:
    """Train the head, and of the backbone's parameters those whose name ``trained`` accepts."""
    model.head.requires_grad_(True)
    for name, parameter in model.backbone.named_parameters():
        parameter.requires_grad_(trained(name))
