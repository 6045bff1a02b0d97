"""Every space file that is shipped, through the loader: whatever it proposes is a trial that can be trained.

That the packaged ones read back, follow the schema and say what they cost stands in test_space_valid.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml

from repsim.config import TrialConfig
from sweeps.domains import all_values, encode, enumerate_points
from sweeps.search import Search
from sweeps.space import Space, load_space, space_from_dict
from sweeps.space_file import FOLDER
from sweeps.space_initial import completed
from sweeps.space_schema import schema
from sweeps.trial import Trial

BENCHMARKS = sorted((Path(__file__).resolve().parents[2] / "benchmarks" / "data").glob("*_space.yaml"))
SHIPPED = [*sorted(FOLDER.glob("*.yaml")), *BENCHMARKS]
DRAWS = 20


def proposals(space: Space, count: int) -> list[Trial]:
    """What a sweep would begin with; nothing is told, and the sampler learns nothing."""
    search = replace(space.search, sampler="random")
    budget = replace(space.budget, trials=max(2, count), train_epochs=None)
    asked = Search(replace(space, search=search, budget=budget))
    return [trial for trial in (asked.ask() for _ in range(count)) if trial is not None]


def test_there_are_files_of_both_kinds() -> None:
    assert BENCHMARKS
    assert {"pareto", "confirmed"} <= {path.stem for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_a_shipped_space_proposes_can_be_trained(path: Path) -> None:
    space = load_space(str(path))
    if space.is_single_run:
        (only,) = proposals(space, 3)
        assert only.config == space.config({}, data=space.data[0], seed=space.search.seed)
        return
    for data in space.data:
        of_one = replace(space, data=(data,))
        first = [*space.anchors(data), *(completed(space, data, given) for given in space.initial)]
        trials = proposals(of_one, len(first) + DRAWS)
        assert [trial.params for trial in trials[: len(first)]] == first, "no point of initial is there already"
        everything = enumerate_points(space, data, all_values) or [{}] * (len(first) + DRAWS)
        assert len(trials) >= min(len(everything), len(first) + DRAWS), "fewer only where there is no more"
        for trial in trials:
            assert encode(space, data, trial.params) is not None or trial.anchor, "it lies in the space"
            assert TrialConfig.from_flat(trial.config.flat()) == trial.config
            assert trial.config.optim.epochs <= space.budget.epochs
            assert trial.config.data.source == data
        assert len({trial.config.config_id for trial in trials}) == len(trials), "no run twice"


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_spaces_of_benchmarks_follow_the_schema_and_read_back(path: Path) -> None:
    jsonschema.Draft202012Validator(schema()).validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    space = load_space(str(path))
    assert space_from_dict(yaml.safe_load(yaml.safe_dump(space.to_dict()))) == space
    assert f"{space.name}_space" == path.stem
