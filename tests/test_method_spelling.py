"""A method that cannot be read: which part is wrong, what was meant, and one line that can be read to its end."""

from __future__ import annotations

import pytest

from repsim.catalogue import ADAPTERS, PENALTIES, method_names, parse_method
from repsim.method_spelling import ALLOWED_METHODS, method_mistake, nearest_method


@pytest.mark.parametrize(
    ("written", "problem", "meant"),
    [
        ("lara+repsim", "'lara' in 'lara+repsim' is not a known adapter", "lora+repsim"),
        ("lora+repsmi", "'repsmi' in 'lora+repsmi' is not a known penalty", "lora+repsim"),
        ("adaptfromer+hcs", "'adaptfromer' in 'adaptfromer+hcs' is not a known adapter", "adaptformer+hcs"),
        (
            "lara+repsmi",
            "'lara' in 'lara+repsmi' is not a known adapter, and 'repsmi' in 'lara+repsmi' is not a known penalty",
            "lora+repsim",
        ),
        (
            "repsim+lora",
            "'repsim+lora' is the wrong way round: the adapter comes first, then the penalty",
            "lora+repsim",
        ),
        ("lara", "'lara' is not a known method", "lora"),
        ("repsmi", "'repsmi' is not a known method", "repsim"),
        ("lora+zzz", "'zzz' in 'lora+zzz' is not a known penalty", None),
        (3, "3 is not a known method", None),
    ],
)
def test_the_wrong_part_is_named_and_put_right(written: object, problem: str, meant: str | None) -> None:
    found = method_mistake("x.yaml", "method", written)
    assert (found.problem, found.suggestion) == (problem, meant)
    assert found.allowed == ALLOWED_METHODS
    assert len(str(found)) < 500, "one that is read to its end"


def test_what_is_allowed_names_every_part_once() -> None:
    words = ALLOWED_METHODS.replace(",", " ").replace(";", " ").split()
    assert all(words.count(name) == 1 for name in [*ADAPTERS, *PENALTIES])


def test_a_penalty_beside_a_frozen_backbone_is_explained() -> None:
    found = method_mistake("x.yaml", "method", "linear_probe+repsim")
    assert "linear_probe does not move the backbone" in found.problem
    assert found.allowed.startswith("linear_probe alone, or a penalty beside full, ")
    assert found.suggestion is None


def test_a_suggestion_can_always_be_taken() -> None:
    for name in method_names():
        for place in range(len(name)):
            meant = nearest_method(name[:place] + name[place + 1 :])
            assert meant is None or parse_method(meant)
