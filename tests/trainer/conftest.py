"""The tiny data, workspace and configuration, shared by the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from repsim.config import TrialConfig
from repsim.workspace import Workspace
from tests.trainer.stripes import tiny_config, tiny_workspace, write_images


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "stripes")


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Shared, as a process of a sweep shares it between trials."""
    return tiny_workspace(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def configure(image_folder: Path) -> Callable[..., TrialConfig]:
    return partial(tiny_config, image_folder)
