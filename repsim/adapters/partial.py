"""Partial finetuning: the last k stages move, and whatever follows them (the final norm, a convnet's last convolution).

A stage is what timm's own grouping calls one: a transformer's block, a convnet's resolution. Stem, class token and
positions belong to no stage and stay. Nothing in the frozen part asks for a gradient, so autograd keeps nothing of it,
and its batch norms stay at their running statistics even when ``optim.batch_norm`` is ``train``; what it hands on to
the first stage that moves is therefore the same at every step, and is cached (:mod:`repsim.prefix`).
(Partial-1 of arXiv 2203.12119; the idea is older: arXiv 1411.1792.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from repsim.adapters.base import Adapter, Refusal, train_only
from repsim.backbones import freeze_batch_norm
from repsim.config import AdapterConfig
from repsim.model import FineTuned

Ordinal = tuple[int, ...]
_END = 99999  # timm's mark, in a grouping, for "goes with the last stage"


def stages(backbone: nn.Module) -> list[set[str]] | None:
    """Names of every stage's parameters in order, the last one's with all that follows; None if timm does not say."""
    matcher = getattr(backbone, "group_matcher", None)
    groups = matcher(coarse=True) if callable(matcher) else None
    if not isinstance(groups, Mapping) or "stem" not in groups or "blocks" not in groups:
        return None
    found: dict[Ordinal, set[str]] = {}
    after: set[str] = set()
    for name, _ in backbone.named_parameters():
        ordinal = _ordinal(name, groups)
        if ordinal == (_END,):
            after.add(name)
        elif ordinal is not None:
            found.setdefault(ordinal, set()).add(name)
    if not found:
        return None
    ordered = [found[ordinal] for ordinal in sorted(found)]
    ordered[-1] |= after
    return ordered


def _ordinal(name: str, groups: Mapping[str, object]) -> Ordinal | None:
    """Where timm's grouping puts a parameter: None for the stem, ``(_END,)`` for what comes after the stages."""
    for key in ("stem", "blocks"):
        spec = groups[key]
        for pattern in [spec] if isinstance(spec, str) else [one[0] for one in spec]:  # type: ignore[attr-defined]
            match = re.match(pattern, name)
            if match is not None and key == "stem":
                return None
            if match is not None:
                return tuple(int(part) for part in match.groups() if part is not None) or (_END,)
    return (_END,)


def _refuse(backbone: nn.Module, config: AdapterConfig) -> Refusal | None:
    found = stages(backbone)
    if found is None:
        problem = "partial trains the last stages, and timm does not say what this backbone's are"
        return Refusal("method", problem, "a timm backbone that groups its parameters into stages")
    if config.stages > len(found):
        return Refusal("adapter.stages", f"{config.stages} is more than the backbone has", f"1 to {len(found)}")
    return None


def _prepare(model: FineTuned, config: AdapterConfig, generator: torch.Generator) -> None:
    train_only(model, set().union(*_moving(model.backbone, config)).__contains__)
    for layer in model.backbone.modules():
        if isinstance(layer, _BatchNorm) and not any(p.requires_grad for p in layer.parameters()):
            freeze_batch_norm(layer)


def _moving(backbone: nn.Module, config: AdapterConfig) -> list[set[str]]:
    found = stages(backbone)
    if found is None:
        raise ValueError("this backbone has no stages; check_adapter would have said so")
    return found[-config.stages :]


def _first_moving(backbone: nn.Module, config: AdapterConfig) -> str:
    """Name of the first stage that moves: the largest module around its first parameter with no other stage in it."""
    stage = _moving(backbone, config)[0]
    names = [name for name, _ in backbone.named_parameters()]
    module = next(name for name in names if name in stage).rpartition(".")[0]
    while (parent := module.rpartition(".")[0]) and stage.issuperset(n for n in names if n.startswith(f"{parent}.")):
        module = parent
    return module


PARTIAL = Adapter(prepare=_prepare, refuse=_refuse, boundary=_first_moving)
