"""Visual prompt tuning: p learnable tokens join the image's (arXiv 2203.12119, eq. 4-5 shallow, 6-7 deep).

They stand between the class token and the patches. Deep: every block gets prompts of its own, and what it makes of them
is thrown away. Shallow: the first block gets prompts, which then pass through all blocks. Neither is there any more
when the features are pooled. They start at U(-v, v), v² = 6 / (3 P² + d) for patches of P pixels. ViT-B/16: 12 x p x
768 = 9,216 p parameters, p x 768 when shallow.

Attention sees the prompts from the first step on, so the features do not start at the pretrained ones. There is no
folding them in: ``merged()`` keeps them as they are, outside the weights whose sharpness is measured.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from repsim.adapters.base import Adapter, Refusal, train_only
from repsim.adapters.transformer import blocks, refuse_other_than_vit
from repsim.config import AdapterConfig
from repsim.model import FineTuned


class Prompts(nn.Module):
    """``tokens`` (p, d), put behind the first ``n_prefix`` tokens (class and register tokens)."""

    def __init__(self, tokens: Tensor, n_prefix: int) -> None:
        super().__init__()
        self.tokens, self.n_prefix = nn.Parameter(tokens), n_prefix

    def forward(self, tokens: Tensor) -> Tensor:
        """(b, n, d) to (b, n + p, d)."""
        prompts = self.tokens.to(tokens.dtype).expand(len(tokens), -1, -1)
        return torch.cat([tokens[:, : self.n_prefix], prompts, tokens[:, self.n_prefix :]], dim=1)


class _Remove:
    """A forward hook that takes the prompts out again."""

    def __init__(self, n_prefix: int, n_prompts: int) -> None:
        self._n_prefix, self._n_prompts = n_prefix, n_prompts

    def __call__(self, block: nn.Module, inputs: tuple[Tensor], tokens: Tensor) -> Tensor:
        return torch.cat([tokens[:, : self._n_prefix], tokens[:, self._n_prefix + self._n_prompts :]], dim=1)


def _insert(block: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    with_prompts: Tensor = block.prompts(inputs[0])  # type: ignore[operator]
    return (with_prompts,)


def _refuse(backbone: nn.Module, config: AdapterConfig) -> Refusal | None:
    return refuse_other_than_vit(backbone, "vpt")


def _prepare(model: FineTuned, config: AdapterConfig, generator: torch.Generator) -> None:
    train_only(model, lambda name: False)
    backbone = model.backbone
    dim, n_prefix = int(backbone.embed_dim), int(backbone.num_prefix_tokens)  # type: ignore[arg-type]
    height, width = backbone.patch_embed.patch_size  # type: ignore[union-attr, misc]
    limit = math.sqrt(6 / (3 * height * width + dim))
    found = blocks(backbone)
    deep = config.prompt_depth == "deep"
    for block in found if deep else found[:1]:
        tokens = torch.empty(config.prompts, dim).uniform_(-limit, limit, generator=generator)
        block.prompts = Prompts(tokens, n_prefix)
        block.register_forward_pre_hook(_insert)
    for block in found if deep else found[-1:]:
        block.register_forward_hook(_Remove(n_prefix, config.prompts))


VPT = Adapter(prepare=_prepare, refuse=_refuse)
