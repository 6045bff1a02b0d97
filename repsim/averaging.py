"""Averages of the weights along the path of training: what is measured and kept, while the last weights go on learning.

``ema``: v <- δ v + (1 - δ) w after every step, from the start; δ is ``ema_decay``, but at most (1 + t) / (10 + t) after
t steps, so that a short training is not mostly its start. ``swa``: the mean of w after every step beyond the fraction
``swa_start`` (stochastic weight averaging, arXiv 1803.05407, whose mean takes one point per epoch; a finetuning of a
few epochs would have one or two).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from repsim.config import OptimConfig


class WeightAverage:
    """The average of a model's trained parameters over ``n_steps`` optimiser steps.

    Between epochs the model holds the average (:meth:`install`), during one the last weights (:meth:`remove`).
    """

    def __init__(self, model: nn.Module, config: OptimConfig, n_steps: int) -> None:
        if config.average == "none":
            raise ValueError("there is nothing to average with optim.average: none")
        self._kind: Literal["ema", "swa"] = config.average
        self._decay, self._after = config.ema_decay, config.swa_start * n_steps
        self._model = model
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._values = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._count = 0
        self._last: dict[str, Tensor] | None = None

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimiser step 0 … n_steps - 1."""
        if self._kind == "swa" and step + 1 <= self._after:
            return
        self._count += 1
        share = 1 / self._count
        if self._kind == "ema":
            share = 1 - min(self._decay, (1 + self._count) / (10 + self._count))
        for name, value in self._values.items():
            value.lerp_(self._parameters[name].detach(), share)

    @torch.no_grad()
    def install(self) -> bool:
        """Put the average into the model and keep the last weights; False, and nothing done, before it has begun."""
        if self._count == 0:
            return False
        self._last = {name: tensor.clone() for name, tensor in self._moving()}
        for name, value in self._values.items():
            self._parameters[name].copy_(value)
        return True

    @torch.no_grad()
    def remove(self) -> None:
        """Give the model its last weights back, and its buffers (running statistics)."""
        if self._last is not None:
            for name, tensor in self._moving():
                tensor.copy_(self._last[name])
            self._last = None

    def _moving(self) -> Iterable[tuple[str, Tensor]]:
        yield from self._parameters.items()
        yield from self._model.named_buffers()

    def state_dict(self) -> dict[str, object]:
        """Everything beside the model's own weights."""
        return {"count": self._count, "values": self._values, "last": self._last}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Continue from ``state_dict``; the model's weights are loaded by whoever keeps them."""
        for name, value in cast(Mapping[str, Tensor], state["values"]).items():
            self._values[name].copy_(value)
        self._count = cast(int, state["count"])
        last = cast("Mapping[str, Tensor] | None", state["last"])
        self._last = None if last is None else {name: last[name].to(tensor) for name, tensor in self._moving()}


@torch.no_grad()
def recompute_batch_norm(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Running statistics of the weights as they are: one pass over ``batches`` of images, each counting the same.

    Frozen layers keep theirs. Needs the model in training mode.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.training]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch's way to say: the plain mean of all batches
    for images in batches if layers else ():
        model(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
