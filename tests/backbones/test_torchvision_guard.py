from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from repsim import _torchvision


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts another torchvision, with the given source, where the real one was."""
    _torchvision.guard()
    monkeypatch.setattr(_torchvision, "_kept_alive", [])

    def install(source: str) -> None:
        package = tmp_path / "torchvision"
        package.mkdir()
        (package / "__init__.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            monkeypatch.delitem(sys.modules, name)
        importlib.invalidate_caches()

    return install


def test_timm_imports_without_warnings_in_a_fresh_interpreter() -> None:
    code = (
        "from repsim._torchvision import guard; guard(); guard(); import timm, torchvision; "
        "timm.create_model('test_resnet'); print(torchvision.__name__)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "torchvision", "")


def test_a_torchvision_that_works_is_left_alone(stand_in: Callable[[str], None]) -> None:
    stand_in("works = True")
    _torchvision.guard()
    assert sys.modules["torchvision"].works
    assert _torchvision._kept_alive == []


def test_missing_operators_are_declared_and_the_import_repeated(stand_in: Callable[[str], None]) -> None:
    stand_in(
        "import builtins, sys\n"
        "import torchvision.part\n"
        "sys.stand_in_imports = getattr(sys, 'stand_in_imports', 0) + 1\n"
        "if sys.stand_in_imports == 1:\n"
        "    raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    Path(sys.path[0], "torchvision", "part.py").write_text("")
    try:
        _torchvision.guard()
        assert sys.stand_in_imports == 2  # type: ignore[attr-defined]
    finally:
        del sys.stand_in_imports  # type: ignore[attr-defined]
    assert len(_torchvision._kept_alive) == 1


def test_another_failure_is_not_hidden(stand_in: Callable[[str], None]) -> None:
    stand_in("raise RuntimeError('compiled for another CUDA')")
    with pytest.raises(RuntimeError, match="compiled for another CUDA"):
        _torchvision.guard()
    assert _torchvision._kept_alive == []


def test_without_torchvision_there_is_nothing_to_do(
    stand_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in("raise AssertionError('must not be imported')")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    _torchvision.guard()
    assert "torchvision" not in sys.modules
