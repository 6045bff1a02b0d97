"""The layers of a backbone that can be watched: timm's stages, or the blocks of a transformer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def stage_widths(backbone: nn.Module) -> dict[str, int]:
    """Module name to number of channels of every stage timm names, first to last; empty when it names none."""
    info = getattr(backbone, "feature_info", None)
    if not isinstance(info, list):
        return {}
    return {str(stage["module"]): int(stage["num_chs"]) for stage in info if stage.get("module")}


@contextmanager
def watched(backbone: nn.Module, names: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
    """Inside, every forward pass leaves the outputs of the modules called ``names``: (b, c, positions…), with gradient.

    Transformers' tokens are transposed, and what is not a patch of the image (class token, prompts) is left out.
    """
    found: dict[str, Tensor] = {}
    handles = [
        backbone.get_submodule(name).register_forward_hook(partial(_keep, found, name, backbone)) for name in names
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def unreadable(backbone: nn.Module, images: Tensor) -> dict[str, str]:
    """Stages that cannot be watched, though timm names them, and why: found in one pass of ``images`` (b, 3, h, w)."""
    outputs: dict[str, list[object]] = {}
    modules = dict(backbone.named_modules())
    widths = stage_widths(backbone)
    handles = [
        modules[name].register_forward_hook(lambda *given, name=name: outputs.setdefault(name, []).append(given[-1]))
        for name in widths
        if name in modules
    ]
    try:
        backbone(images)
    finally:
        for handle in handles:
            handle.remove()
    reasons = {}
    for name, width in widths.items():
        found = outputs.get(name, [])
        if name not in modules:
            reasons[name] = "there is no module of this name"
        elif len(found) != 1:
            reasons[name] = f"it is run {len(found)} times in a pass"
        elif not isinstance(found[0], Tensor) or found[0].ndim not in (3, 4):
            reasons[name] = "what it returns is no map of features"
        elif _channels_second(found[0], backbone).shape[1] != width:
            reasons[name] = f"what it returns has not the {width} channels that timm says"
    return reasons


@contextmanager
def collected(backbone: nn.Module, names: Sequence[str], rows: NDArray[np.int64]) -> Iterator[dict[str, list[Tensor]]]:
    """Inside, forward passes leave the pooled outputs of the modules called ``names``: (b, c) on the CPU, by batch.

    Of all images passed inside, counted from 0, those number ``rows`` (sorted) are kept. They are pooled in passing, so
    that no map outlives its batch.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    passed = dict.fromkeys(names, 0)

    def keep(name: str, module: nn.Module, inputs: object, output: Tensor) -> None:
        means = pooled({name: _channels_second(output, backbone)})[name]
        first, after = np.searchsorted(rows, [passed[name], passed[name] + len(means)])
        found[name].append(means[torch.from_numpy(rows[first:after] - passed[name])].cpu())
        passed[name] += len(means)

    handles = [backbone.get_submodule(name).register_forward_hook(partial(keep, name)) for name in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def pooled(maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Means over positions: (b, c, positions…) to (b, c), fp32."""
    return {name: output.float().flatten(2).mean(dim=2) for name, output in maps.items()}


def _keep(
    found: dict[str, Tensor], name: str, backbone: nn.Module, module: nn.Module, inputs: object, output: Tensor
) -> None:
    found[name] = _channels_second(output, backbone)


def _channels_second(output: Tensor, backbone: nn.Module) -> Tensor:
    if output.ndim == 3:
        patches = getattr(getattr(backbone, "patch_embed", None), "num_patches", None)
        kept = output.shape[1] if patches is None else min(int(patches), output.shape[1])
        return output[:, output.shape[1] - kept :].transpose(1, 2)
    if getattr(backbone, "output_fmt", None) == "NHWC":
        return output.permute(0, 3, 1, 2)
    return output
