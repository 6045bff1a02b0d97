"""The adapters: which parameters move, and how they are fitted. One file each.

A new one is an entry here and one in the catalogue.
"""

from __future__ import annotations

from repsim.adapters.adaptformer import ADAPTFORMER
from repsim.adapters.base import Adapter
from repsim.adapters.bitfit import BITFIT
from repsim.adapters.full import FULL
from repsim.adapters.linear_probe import LINEAR_PROBE
from repsim.adapters.lora import LORA
from repsim.adapters.lp_ft import LP_FT
from repsim.adapters.norm_only import NORM_ONLY
from repsim.adapters.partial import PARTIAL
from repsim.adapters.vpt import VPT
from repsim.backbones import Backbone
from repsim.config import TrialConfig
from repsim.errors import Mistake, RequestError

__all__ = ["REGISTRY", "Adapter", "check_adapter"]

REGISTRY: dict[str, Adapter] = {
    "full": FULL,
    "linear_probe": LINEAR_PROBE,
    "partial": PARTIAL,
    "bitfit": BITFIT,
    "norm_only": NORM_ONLY,
    "lora": LORA,
    "adaptformer": ADAPTFORMER,
    "vpt": VPT,
    "lp_ft": LP_FT,
}
"""The same names as ``repsim.catalogue.ADAPTERS``."""


def check_adapter(config: TrialConfig, backbone: Backbone) -> None:
    """RequestError when the backbone cannot take the configuration's adapter, saying which backbones can."""
    refusal = REGISTRY[config.parsed_method.adapter].refuse(backbone.module, config.adapter)
    if refusal is not None:
        raise RequestError(
            Mistake(
                where=f"backbone {backbone.name}", key=refusal.key, problem=refusal.problem, allowed=refusal.allowed
            )
        )
