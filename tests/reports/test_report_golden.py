"""The data that a fixed sweep's report is built from is what it was."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from tests.reports.golden_data import FOLDER, built

NAMES = sorted(path.stem for path in FOLDER.glob("*.json") if path.stem != "origin")
RTOL = 1e-6


@pytest.fixture(scope="module")
def now(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return built(tmp_path_factory.mktemp("golden"))


def golden(name: str) -> object:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def differences(before: object, after: object, where: str = "") -> list[str]:
    """Where two structures differ, numbers by more than RTOL."""
    if isinstance(before, dict) and isinstance(after, dict) and list(before) == list(after):
        return [text for key in before for text in differences(before[key], after[key], f"{where}.{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [text for place, pair in pairs for text in differences(*pair, f"{where}[{place}]")]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (before, after))
    same = after == pytest.approx(before, rel=RTOL, abs=1e-9) if numbers else before == after
    return [] if same else [f"{where}: {before!r} became {after!r}"]


@pytest.mark.parametrize("name", NAMES)
def test_the_data_behind_a_figure_is_what_it_was(name: str, now: dict[str, object]) -> None:
    assert differences(golden(name), now[name]) == []


def test_there_is_a_golden_for_everything_that_is_drawn(now: dict[str, object]) -> None:
    assert sorted(now) == NAMES
    wanted = {"answer", "paper", "front", "hypervolume", "slots", "strength", "slices", "importance", "trajectories"}
    assert wanted <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_number_that_moved_would_be_found(name: str) -> None:
    before = golden(name)
    after = copy.deepcopy(before)
    assert moved(after)
    assert len(differences(before, after)) == 1
    assert differences(before, before) == []


def moved(value: object) -> bool:
    """Move the first float in it by a hundred thousandth."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        inner = value[key]
        if isinstance(inner, float) and inner != 0.0:
            value[key] = inner * (1.0 + 1e-5)
            return True
        if moved(inner):
            return True
    return False


def test_the_goldens_say_where_they_come_from() -> None:
    assert set(json.loads((FOLDER / "origin.json").read_text())) == {"commit", "date"}
    assert sum(path.stat().st_size for path in Path(FOLDER).glob("*.json")) < 200_000
