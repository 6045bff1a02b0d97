"""What adapters of transformers need to know about timm's VisionTransformer."""

from __future__ import annotations

from torch import nn

from repsim.adapters.base import Refusal


def blocks(backbone: nn.Module) -> list[nn.Module]:
    """Its blocks in order: attention, then an ``mlp``; empty when the backbone is anything else."""
    kinds = {parent.__name__ for parent in type(backbone).__mro__}
    found = list(backbone.blocks) if "VisionTransformer" in kinds and isinstance(backbone.blocks, nn.Sequential) else []
    return found if all(isinstance(getattr(block, "mlp", None), nn.Module) for block in found) else []


def refuse_other_than_vit(backbone: nn.Module, adapter: str) -> Refusal | None:
    """A refusal unless the backbone is a ViT."""
    if blocks(backbone):
        return None
    problem = f"{adapter} needs the blocks of a transformer, which {type(backbone).__name__} has not"
    return Refusal("method", problem, "timm's VisionTransformer: vit_*, deit_*, and DINOv2's")
