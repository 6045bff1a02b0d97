"""The classifier a backbone was pretrained with, frozen, on features."""

from __future__ import annotations

import math

from torch import Tensor, nn

from repsim.penalties.base import PenaltyContext, given


class FrozenHead(nn.Module):
    """Logits (n, n_source) of features (n, d). Its weights are not part of the state: they come with the backbone."""

    weight: Tensor
    bias: Tensor

    def __init__(self, context: PenaltyContext) -> None:
        super().__init__()
        head = given(context.source_head, "source head")
        self.register_buffer("weight", head.weight.float(), persistent=False)
        self.register_buffer("bias", head.bias.float(), persistent=False)
        self.log_classes = math.log(len(head.weight))

    def forward(self, features: Tensor) -> Tensor:
        """Logits, fp32."""
        return nn.functional.linear(features.float(), self.weight, self.bias)
