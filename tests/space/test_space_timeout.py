"""``resources.epoch_timeout``: how long a trial may be silent, as people write it."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from repsim.errors import RequestError
from sweeps.space import Space, load_space, space_from_dict
from sweeps.space_schema import schema

TEXT = """
name: trial
objectives: [{metric: val_accuracy}, {metric: val_cka}]
budget: {trials: 4, epochs: 2}
space: {method: [full, repsim]}
"""


def load(folder: Path, value: str) -> Space:
    path = folder / "trial.yaml"
    path.write_text(f"{TEXT}resources: {{epoch_timeout: {value}}}\n", encoding="utf-8")
    return load_space(str(path))


@pytest.mark.parametrize(
    ("written", "seconds"), [("auto", None), ("90", 90.0), ("0.5", 0.5), ("1.0e-3", 0.001), ("1.0e+6", 1e6)]
)
def test_seconds_or_auto(tmp_path: Path, written: str, seconds: float | None) -> None:
    space = load(tmp_path, written)
    assert space.resources.epoch_timeout == seconds
    assert space_from_dict(yaml.safe_load(yaml.safe_dump(space.to_dict()))) == space
    jsonschema.Draft202012Validator(schema()).validate(space.to_dict())


def test_it_is_learned_unless_said(tmp_path: Path) -> None:
    (tmp_path / "trial.yaml").write_text(TEXT, encoding="utf-8")
    space = load_space(str(tmp_path / "trial.yaml"))
    assert space.resources.epoch_timeout is None
    assert space == load(tmp_path, "auto")


def test_it_can_be_set_on_the_command_line() -> None:
    assert load_space("quick", ["resources.epoch_timeout=30"]).resources.epoch_timeout == 30.0


def test_a_sweep_from_before_it_existed_reads_back(tmp_path: Path) -> None:
    document = load(tmp_path, "90").to_dict()
    resources = document["resources"]
    assert isinstance(resources, dict)
    del resources["epoch_timeout"]
    assert space_from_dict(document).resources.epoch_timeout is None


def test_how_long_is_waited_does_not_change_what_is_searched(tmp_path: Path) -> None:
    assert load(tmp_path, "90").space_hash == load(tmp_path, "auto").space_hash


@pytest.mark.parametrize(
    "value", ["0", "-1", "0.0", ".inf", ".nan", "yes", "none", "null", "1h", "'90'", "[90]", "{seconds: 90}"]
)
def test_anything_else_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(
        RequestError, match=r"resources\.epoch_timeout: .* is not allowed.*; allowed: a number above 0"
    ) as (caught):
        load(tmp_path, value)
    assert len(caught.value.mistakes) == 1
    assert str(caught.value).startswith(str(tmp_path / "trial.yaml"))


@pytest.mark.parametrize("value", [0, -1, "soon", True, None])
def test_the_schema_refuses_it_too(tmp_path: Path, value: object) -> None:
    document = load(tmp_path, "90").to_dict()
    resources = document["resources"]
    assert isinstance(resources, dict)
    resources["epoch_timeout"] = value
    assert not jsonschema.Draft202012Validator(schema()).is_valid(document)


def test_a_misspelling_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "trial.yaml").write_text(f"{TEXT}resources: {{epoch_timeuot: 3}}\n", encoding="utf-8")
    with pytest.raises(RequestError, match=r"did you mean 'epoch_timeout'\?"):
        load_space(str(tmp_path / "trial.yaml"))
