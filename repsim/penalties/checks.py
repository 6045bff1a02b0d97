"""What a penalty needs of a backbone, and the refusal when it is not there."""

from __future__ import annotations

from repsim.backbones import Backbone
from repsim.catalogue import PACKAGED_WEIGHTS, PENALTIES, Need
from repsim.config import TrialConfig
from repsim.errors import Mistake, RequestError, nearest, one_line
from repsim.layers import stage_widths
from repsim.penalties.layerwise import LAST

_WHERE = "configuration"


def check_penalty(config: TrialConfig, backbone: Backbone) -> None:
    """RequestError when the backbone cannot give the configuration's penalty what it needs; nothing without one.

    ``lwf`` and ``co_tuning`` need the classifier the backbone was pretrained with; ``penalty.layers`` needs layers of
    these names, and a penalty that can hold them.
    """
    name = config.parsed_method.penalty
    if name is None:
        return
    mistakes = []
    if "source_head" in PENALTIES[name].needs and backbone.source_head is None:
        mistakes.append(
            Mistake(
                where=f"backbone {backbone.name}",
                key="method",
                problem=f"{name} needs the classifier that {backbone.name} was pretrained with, and "
                f"{_why_none(backbone)}",
                allowed="a penalty that needs no source classifier, or weights with one (as packages: "
                f"{', '.join(w.backbone for w in PACKAGED_WEIGHTS.values() if w.pretraining == 'supervised')})",
            )
        )
    mistakes += _layer_mistakes(config, name, backbone)
    if mistakes:
        raise RequestError(*mistakes)


def watched_widths(config: TrialConfig, backbone: Backbone) -> dict[str, int]:
    """The layers the penalty holds, by name, with their widths; ``last`` stands for the features before the head."""
    name = config.parsed_method.penalty
    asked = config.penalty.layers
    stages = stage_widths(backbone.module)
    if name is None or not PENALTIES[name].layerwise:
        return {}
    if _holds_maps(name):
        if asked in ("auto", "all"):
            return stages
        asked_names = list(stages)[-1:] if asked == LAST else asked.split(",")
        return {layer: stages[layer] for layer in asked_names}
    every = stages | {LAST: backbone.dim}
    if asked == "all":
        return every
    return {layer: every[layer] for layer in ([LAST] if asked == "auto" else asked.split(","))}


def needs_of(config: TrialConfig) -> frozenset[Need]:
    """What the trainer must provide for the configuration's penalty; empty without one."""
    name = config.parsed_method.penalty
    if name is None:
        return frozenset()
    info = PENALTIES[name]
    more_layers = info.layerwise and not _holds_maps(name) and config.penalty.layers not in ("auto", LAST)
    return info.needs | {"layers"} if more_layers else info.needs


def _holds_maps(name: str) -> bool:
    return "feature_maps" in PENALTIES[name].needs


def _layer_mistakes(config: TrialConfig, name: str, backbone: Backbone) -> list[Mistake]:
    asked = config.penalty.layers
    if not PENALTIES[name].layerwise:
        if asked in ("auto", LAST):
            return []
        able = ", ".join(info.name for info in PENALTIES.values() if info.layerwise)
        problem = f"{one_line(asked)} cannot be held by {name}, which knows the last features alone"
        return [Mistake(where=_WHERE, key="penalty.layers", problem=problem, allowed=f"auto, or one of {able}")]
    stages = stage_widths(backbone.module)
    needs_stages = _holds_maps(name) or asked == "all"
    if needs_stages and not stages:
        problem = f"{backbone.name} has no stages that timm names, and {name} with {one_line(asked)} needs them"
        return [Mistake(where=_WHERE, key="penalty.layers", problem=problem, allowed="a penalty of the last features")]
    known = [*stages, LAST]
    return [
        Mistake(
            where=_WHERE,
            key="penalty.layers",
            problem=f"{one_line(layer)} is not a layer of {backbone.name}",
            allowed=", ".join(["auto", "all", *known]),
            suggestion=nearest(layer, known),
        )
        for layer in ([] if asked in ("auto", "all") else asked.split(","))
        if layer not in known or (_holds_maps(name) and layer == LAST and asked != LAST)
    ]


def _why_none(backbone: Backbone) -> str:
    if backbone.pretraining == "random":
        return "random weights have none"
    if backbone.pretraining == "self_supervised":
        return f"self-supervised weights ({backbone.weights_source}) have none"
    return f"none came with its weights ({backbone.weights_source})"
