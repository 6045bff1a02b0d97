"""Whatever is in a space file, a ``--set`` or a csv: it runs, or it is refused in lines; never a half-made folder.

Case 17 of the space files again: ``pytest tests/faults/test_fuzz.py -k space-17]``; more cases: ``--fuzz-cases 5000``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from sweeps import rehearsal
from sweeps.launch import main
from sweeps.preflight import Looked
from sweeps.request import Launch
from sweeps.space import space_from_dict
from sweeps.space_notes import Notes
from sweeps.space_rules import build_space
from sweeps.space_yaml import parse_yaml
from tests.faults.command import answer, check_refusal, everything_in, replace_session
from tests.faults.fuzz_parts import Case
from tests.faults.fuzz_tables import PICTURES
from tests.faults.fuzzing import KINDS, SOUND_SPACE, make_case, write_pictures

CHEAP = ("--data", "phantom:tiny", "--set=data.image_size=32", "--set=backbone=test_efficientnet")
"""What keeps a preflight short: a space of its own data and backbone would be decoded and downloaded."""
LOOKED_AT = {"space": 10, "set": 10, "csv": 1}
"""Of the cases a dry run takes, one in so many is looked at with its images, too."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "number" in metafunc.fixturenames:
        count = int(metafunc.config.getoption("--fuzz-cases"))
        cases = [(KINDS[index % len(KINDS)], index // len(KINDS)) for index in range(count)]
        metafunc.parametrize(("kind", "number"), cases, ids=[f"{kind}-{number}" for kind, number in cases])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("images"))


@pytest.fixture
def folder(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command is called from; a dry run looks at neither images nor backbones there (LOOKED_AT)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / PICTURES).symlink_to(pictures)
    (tmp_path / "sound.yaml").write_text(SOUND_SPACE)
    monkeypatch.setattr(rehearsal, "preflight", lambda space, **how: Looked(n_images={}, parameters=1))
    return tmp_path


def store_and_read(launch: object) -> int:
    """Of a space that is right, the journal's header and space.yaml give the same space back."""
    assert isinstance(launch, Launch)
    document = launch.space.to_dict()
    assert space_from_dict(json.loads(json.dumps(document, allow_nan=False))) == launch.space
    notes = Notes(where="space.yaml")
    again = parse_yaml(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), notes)
    assert isinstance(again, dict), notes.mistakes
    assert build_space(again, notes=notes) == launch.space
    return 0


def look_at_images(launch: object) -> int:
    """The parts of a session that read images and backbones, and propose."""
    from sweeps.preflight import preflight
    from sweeps.search import Search

    assert isinstance(launch, Launch)
    preflight(launch.space, cache_dir=None, say=print)
    search = Search(launch.space)
    asked = [search.ask() for _ in range(min(4, search.total))]
    assert asked[0] is not None
    return 0


def not_reached(launch: object) -> int:
    raise AssertionError("what a dry run refuses was started")


def check(case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch, *, look: bool, cheaper: tuple[str, ...]) -> int:
    """Exit status of the dry run; AssertionError when anything about it is not as promised."""
    if case.path is not None:
        (folder / case.path).write_bytes(case.content)
    before = everything_in(folder)
    outcome = answer(main, *case.arguments, "--dry-run")
    assert outcome.code in (0, 2)
    if outcome.code == 2:
        check_refusal(outcome)
        replace_session(monkeypatch, not_reached)
        again = answer(main, *case.arguments)
        check_refusal(again)
        assert again.err == outcome.err
    else:
        assert outcome.err == ""
        assert "trials: " in outcome.out
        assert outcome.out.replace("\n", "").isprintable()
        replace_session(monkeypatch, store_and_read)
        assert answer(main, *case.arguments).code == 0
    if outcome.code == 0 and look:
        replace_session(monkeypatch, look_at_images)
        looked = answer(main, *case.arguments, *cheaper)
        if looked.code != 0:
            check_refusal(looked)
    assert everything_in(folder) == before
    return outcome.code


def test_a_case(kind: str, number: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(kind, number)
    print(f"case {kind}-{number}\n{case}")
    cheaper = () if kind == "csv" else (*CHEAP, "--set=backbone.weights=random")
    check(case, folder, monkeypatch, look=number % LOOKED_AT[kind] == 0, cheaper=cheaper)


@pytest.mark.parametrize("kind", KINDS)
def test_cases_are_both_taken_and_refused(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator whose every case is refused at the first look would test nothing behind it."""
    codes = [check(make_case(kind, number), folder, monkeypatch, look=False, cheaper=()) for number in range(100)]
    assert 5 <= codes.count(0) <= 95


def test_cases_come_from_their_number() -> None:
    assert make_case("set", 3) == make_case("set", 3)
    assert len({str(make_case(kind, number)) for kind in KINDS for number in range(50)}) > 140
    with pytest.raises(KeyError, match="poem"):
        make_case("poem", 0)
