"""A search space: the YAML people write, validated into one frozen value. No torch, no Ray, no Optuna, no MLflow.

The door to the types (``space_types``), the reader (``space_file``) and the rules (``space_rules``).
"""

from __future__ import annotations

from sweeps.space_conditions import WHEN_KEYS, matches
from sweeps.space_file import load_space
from sweeps.space_resources import Case, Resources
from sweeps.space_rules import space_from_dict
from sweeps.space_types import (
    ANCHORS,
    Branch,
    Budget,
    Choice,
    Constraint,
    Dimension,
    Domain,
    Range,
    SearchSettings,
    Space,
    contains,
)

__all__ = [
    "ANCHORS",
    "WHEN_KEYS",
    "Branch",
    "Budget",
    "Case",
    "Choice",
    "Constraint",
    "Dimension",
    "Domain",
    "Range",
    "Resources",
    "SearchSettings",
    "Space",
    "contains",
    "load_space",
    "matches",
    "space_from_dict",
]
