"""Which method on which tiny backbone goes through the whole contract, and which through a short smoke test."""

from __future__ import annotations

from repsim.catalogue import ADAPTERS, PENALTIES, method_names, parse_method

BACKBONES = ("test_efficientnet", "test_vit")
FOR_TRANSFORMERS = {"adaptformer", "vpt"}
NEEDS_A_CLASSIFIER = {name for name, info in PENALTIES.items() if "source_head" in info.needs}
"""Not here: random weights were never trained with a classifier."""


def runs_on(method: str, backbone: str) -> bool:
    """Whether the backbone can do it."""
    parsed = parse_method(method)
    return parsed.penalty not in NEEDS_A_CLASSIFIER and (
        backbone == "test_vit" or parsed.adapter not in FOR_TRANSFORMERS
    )


def in_full(method: str) -> bool:
    """Every adapter alone and with RepSim; what penalties promise is proved in test_penalty_contract.py."""
    return parse_method(method).penalty in (None, "repsim")


def is_left(method: str) -> bool:
    """Every pair that neither this contract nor that of the penalties covers."""
    return not in_full(method) and parse_method(method).adapter != "full"


EVERYTHING = [(method, backbone) for backbone in BACKBONES for method in method_names() if runs_on(method, backbone)]
IN_FULL = [case for case in EVERYTHING if in_full(case[0])]
SMOKE = [case for case in EVERYTHING if is_left(case[0])]

if not IN_FULL or {parse_method(method).adapter for method, _ in IN_FULL} != set(ADAPTERS):
    raise RuntimeError("an adapter goes through no contract test")
