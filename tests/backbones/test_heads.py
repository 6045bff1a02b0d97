from __future__ import annotations

import pytest
import torch

from repsim.catalogue import HEADS
from repsim.errors import RequestError
from repsim.heads import MAKERS, build_head


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_catalogue_and_the_code_know_the_same_heads() -> None:
    assert list(MAKERS) == list(HEADS)


@pytest.mark.parametrize("name", list(HEADS))
def test_a_head_is_decided_by_its_generator_alone(name: str) -> None:
    def values(seed: int) -> torch.Tensor:
        head = build_head(name, 64, 3, generator(seed))
        return torch.cat([parameter.detach().flatten() for parameter in head.parameters()])

    torch.manual_seed(1)
    first = values(0)
    torch.manual_seed(2)
    assert torch.equal(values(0), first)
    assert not torch.equal(values(1), first)
    assert build_head(name, 64, 3, generator())(torch.zeros(5, 64)).shape == (5, 3)


def test_the_linear_head_starts_near_zero() -> None:
    head = build_head("linear", 1000, 10, generator())
    assert isinstance(head, torch.nn.Linear)
    weight = head.weight.detach()
    assert torch.equal(head.bias, torch.zeros(10))
    assert float(weight.std()) == pytest.approx(0.01, rel=0.05)
    assert float(weight.mean()) == pytest.approx(0.0, abs=5e-4)


def test_an_unknown_head_is_refused_with_the_nearest() -> None:
    with pytest.raises(RequestError, match=r"head: 'liner' is not a known head; allowed: .*did you mean 'linear'\?"):
        build_head("liner", 8, 2, generator())
