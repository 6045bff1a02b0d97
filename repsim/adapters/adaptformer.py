"""AdaptFormer: a narrow branch beside the MLP of every block, out = MLP(x) + s · Up(ReLU(Down(x))) (arXiv 2205.13535).

x is the MLP's own input, the normalised tokens (eq. 3). Up starts at zero, so the first step starts from the pretrained
function exactly; s = 0.1 and 64 hidden units are the paper's. 12 x (2 x 64 x 768 + 64 + 768) = 1,189,632 parameters for
ViT-B/16. Where a block scales its MLP's output (DINOv2), it scales the branch with it. The branch is not a change of
any weight, so there is no folding it in: ``merged()`` keeps it, outside the weights whose sharpness is measured.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from repsim.adapters.base import Adapter, Refusal, train_only
from repsim.adapters.transformer import blocks, refuse_other_than_vit
from repsim.config import AdapterConfig
from repsim.model import FineTuned


class Branch(nn.Module):
    """s · Up(ReLU(Down(x))), with Down Kaiming uniform and everything else zero."""

    def __init__(self, dim: int, bottleneck: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        self.down, self.up, self.scale = nn.Linear(dim, bottleneck), nn.Linear(bottleneck, dim), scale
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5), generator=generator)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, tokens: Tensor) -> Tensor:
        """(b, n, d) to (b, n, d)."""
        added: Tensor = self.up(torch.relu(self.down(tokens)))
        return self.scale * added


def _add_branch(mlp: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    branch: Tensor = mlp.adaptformer(inputs[0])  # type: ignore[operator]
    return output + branch


def _refuse(backbone: nn.Module, config: AdapterConfig) -> Refusal | None:
    return refuse_other_than_vit(backbone, "adaptformer")


def _prepare(model: FineTuned, config: AdapterConfig, generator: torch.Generator) -> None:
    train_only(model, lambda name: False)
    dim = int(model.backbone.embed_dim)  # type: ignore[arg-type]
    for block in blocks(model.backbone):
        # a hook, and not a module around the MLP: the pretrained weights keep their names
        block.mlp.adaptformer = Branch(dim, config.bottleneck, config.scale, generator)  # type: ignore[union-attr]
        block.mlp.register_forward_hook(_add_branch)  # type: ignore[union-attr]


ADAPTFORMER = Adapter(prepare=_prepare, refuse=_refuse)
