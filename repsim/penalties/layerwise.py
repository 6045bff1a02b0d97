"""A feature penalty on several layers at once: R = mean over layers of the penalty of each layer's pooled features.

Each layer has a penalty of its own, so one Q of its own where there is one. Not in the papers, which argue for the last
layer alone: holding the layers before it as well leaves the network less freedom for the same similarity at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from repsim.penalties.base import Batch, FeaturePenalty, Penalty, PenaltyContext

LAST = "last"
"""The name of the pooled features before the head, among the watched layers."""


class LayerWise(Penalty):
    """``make`` builds one penalty for each entry of ``widths`` (layer name to pooled width, ``last`` among them)."""

    def __init__(
        self, make: Callable[[PenaltyContext], FeaturePenalty], context: PenaltyContext, widths: Mapping[str, int]
    ) -> None:
        super().__init__()
        self._names = tuple(widths)
        self._held = [make(replace(context, dim=width)) for width in widths.values()]
        self.held = nn.ModuleList(self._held)

    def of(self, batch: Batch) -> Tensor:
        """The mean of the layers' penalties."""
        parts = []
        for name, penalty in zip(self._names, self._held, strict=True):
            if name == LAST:
                parts.append(penalty.of(batch))
            else:
                parts.append(penalty.value(batch.layers[name].float(), batch.teacher_layers[name].float()))
        return torch.stack(parts).mean()

    def after_step(self) -> None:
        """Every layer's own."""
        for penalty in self._held:
            penalty.after_step()

    def after_epoch(self) -> None:
        """Every layer's own."""
        for penalty in self._held:
            penalty.after_epoch()
