"""LoRA: a low-rank change beside frozen weights, W + (alpha / rank) B A (arXiv 2106.09685, section 4.1).

A starts at random (Kaiming uniform, as in the authors' code), B at zero, so the first step starts from the pretrained
function exactly. Biases and norms stay.

On transformers the change is that of attention's query and value, slices of timm's fused qkv layer: rank x 4d new
parameters per block, 36,864 x rank for ViT-B/16. Others lay out q, k and v head by head (TinyViT, EfficientFormer) or
in layers of their own; they are refused. On networks without attention the change is that of every dense convolution
and linear layer behind timm's stem which has more parameters than its change: the 1x1 convolutions of a MobileNet, the
linear layers of a ConvNeXt, all convolutions of a ResNet's stages. A convolution's A has its kernel, B is 1x1.
``merged()`` folds the change into plain layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from repsim.adapters.base import Adapter, Refusal, train_only
from repsim.adapters.partial import stages
from repsim.config import AdapterConfig
from repsim.model import FineTuned, Mergeable

FUSED_ATTENTION = (
    "timm.layers.attention.Attention",
    "timm.models.vision_transformer.Attention",  # where older versions of timm have it
    "timm.models.swin_transformer.WindowAttention",
    "timm.models.nest.Attention",
    "timm.models.volo.Attention",
    "timm.models.fastvit.Attention",
    "timm.models.metaformer.Attention",
)
"""The attention whose qkv layer's output is all of q, then all of k, then all of v.

With their modules: timm has a dozen classes of the name Attention, and some of them lay it out head by head.
"""
_QUERIES = {"q", "qk", "qkv", "kv"}
"""What attention calls its projections, where its own name does not say what it is (``MHSA``)."""


def _down(rank: int, *inputs: int, generator: torch.Generator, like: Tensor) -> nn.Parameter:
    weight = torch.empty(rank, *inputs, dtype=like.dtype)
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
    return nn.Parameter(weight.to(like.device))


def _up(outputs: int, rank: int, *, like: Tensor) -> nn.Parameter:
    return nn.Parameter(torch.zeros(outputs, rank, dtype=like.dtype, device=like.device))


class LoRALinear(nn.Linear, Mergeable):
    """``base`` with a change of its whole weight; shares base's parameters."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.scale = alpha / rank
        self.lora_down = _down(rank, base.in_features, generator=generator, like=base.weight)
        self.lora_up = _up(base.out_features, rank, like=base.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """(…, in) to (…, out)."""
        low = nn.functional.linear(inputs, self.lora_down)
        return super().forward(inputs) + self.scale * nn.functional.linear(low, self.lora_up)

    def merged(self) -> nn.Linear:
        """A plain linear layer."""
        return _plain_linear(self, self.weight + self.scale * (self.lora_up @ self.lora_down))


class LoRAQueryValue(nn.Linear, Mergeable):
    """A fused qkv layer, d to 3d, with a change of its q and v rows; shares ``base``'s parameters."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.scale, self.rank, width = alpha / rank, rank, base.out_features // 3
        self.lora_down = _down(2 * rank, base.in_features, generator=generator, like=base.weight)
        self.lora_up_q = _up(width, rank, like=base.weight)
        self.lora_up_v = _up(width, rank, like=base.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """(…, d) to (…, 3d): q, k, v."""
        low = nn.functional.linear(inputs, self.lora_down)
        query = nn.functional.linear(low[..., : self.rank], self.lora_up_q)
        value = nn.functional.linear(low[..., self.rank :], self.lora_up_v)
        change = torch.cat([query, torch.zeros_like(query), value], dim=-1)
        return super().forward(inputs) + self.scale * change

    def merged(self) -> nn.Linear:
        """A plain qkv layer."""
        query = self.lora_up_q @ self.lora_down[: self.rank]
        value = self.lora_up_v @ self.lora_down[self.rank :]
        change = torch.cat([query, torch.zeros_like(query), value])
        return _plain_linear(self, self.weight + self.scale * change)


class LoRAConv2d(nn.Conv2d, Mergeable):
    """A dense convolution with a change of its whole kernel; shares ``base``'s parameters."""

    def __init__(self, base: nn.Conv2d, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__(**_geometry(base))
        self.weight, self.bias = base.weight, base.bias
        self.scale = alpha / rank
        self.lora_down = _down(rank, *base.weight.shape[1:], generator=generator, like=base.weight)
        self.lora_up = _up(base.out_channels, rank, like=base.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """(b, in, h, w) to (b, out, h', w')."""
        low = self._conv_forward(inputs, self.lora_down, None)
        return super().forward(inputs) + self.scale * nn.functional.conv2d(low, self.lora_up[:, :, None, None])

    def merged(self) -> nn.Conv2d:
        """A plain convolution."""
        change = (self.lora_up @ self.lora_down.flatten(1)).view_as(self.weight)
        plain = nn.Conv2d(**_geometry(self))
        plain.weight = nn.Parameter((self.weight + self.scale * change).detach(), requires_grad=False)
        plain.bias = self.bias
        return plain


def _geometry(layer: nn.Conv2d) -> dict[str, Any]:
    """What makes another convolution of the same shape, without weights (those are put in afterwards)."""
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "padding_mode")
    return {name: getattr(layer, name) for name in names} | {"bias": layer.bias is not None, "device": "meta"}


def _plain_linear(layer: nn.Linear, weight: Tensor) -> nn.Linear:
    plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
    plain.weight, plain.bias = nn.Parameter(weight.detach(), requires_grad=False), layer.bias
    return plain


Adapted = type[LoRALinear] | type[LoRAQueryValue] | type[LoRAConv2d]
_KINDS: dict[type[nn.Module], Adapted] = {nn.Linear: LoRALinear, nn.Conv2d: LoRAConv2d}


def targets(backbone: nn.Module, rank: int) -> Iterator[tuple[str, Adapted]]:
    """The layers that a change of this rank applies to, in order: dotted name, and what each becomes."""
    attention = [(name, layer) for name, layer in backbone.named_modules() if _is_attention(layer)]
    if attention:
        for name, layer in attention:
            if _has_fused_qkv(layer):
                yield f"{name}.qkv", LoRAQueryValue
        return
    behind_the_stem = set().union(*stages(backbone) or ())
    for name, layer in backbone.named_modules():
        kind = _KINDS.get(type(layer))
        if kind is None or f"{name}.weight" not in behind_the_stem or getattr(layer, "groups", 1) != 1:
            continue
        if _pays(layer.weight, rank):
            yield name, kind


def _pays(weight: Tensor, rank: int) -> bool:
    """Whether a change of this rank has fewer parameters than the weight itself."""
    outputs, inputs = weight.shape[0], weight[0].numel()
    return rank * (outputs + inputs) < outputs * inputs


def _is_attention(layer: nn.Module) -> bool:
    name, children = type(layer).__name__, {child for child, _ in layer.named_children()}
    return "Attention" in name or "Attn" in name or not children.isdisjoint(_QUERIES)


def _has_fused_qkv(layer: nn.Module) -> bool:
    kind = type(layer)
    return f"{kind.__module__}.{kind.__qualname__}" in FUSED_ATTENTION and type(layer.qkv) is nn.Linear


def _refuse(backbone: nn.Module, config: AdapterConfig) -> Refusal | None:
    if next(targets(backbone, config.rank), None) is not None:
        return None
    if any(map(_is_attention, backbone.modules())):
        known = "ViT, DeiT, DINOv2, Swin (transformers with a fused qkv layer), and convnets"
        return Refusal("method", "lora does not know this backbone's attention", known)
    if stages(backbone) is None:
        problem = "lora stays behind the stem, and timm does not say what this backbone's is"
        return Refusal("method", problem, "a timm backbone that groups its parameters into stages")
    if next(targets(backbone, 1), None) is None:
        return Refusal("method", "lora finds neither attention nor dense convolutions here", "a ViT or a convnet")
    return Refusal("adapter.rank", f"{config.rank} makes no layer of this backbone smaller", "a smaller rank")


def _prepare(model: FineTuned, config: AdapterConfig, generator: torch.Generator) -> None:
    train_only(model, lambda name: False)
    for name, adapted in list(targets(model.backbone, config.rank)):
        layer = model.backbone.get_submodule(name)
        model.backbone.set_submodule(name, adapted(layer, config.rank, config.alpha, generator))  # type: ignore[arg-type]


LORA = Adapter(prepare=_prepare, refuse=_refuse)
