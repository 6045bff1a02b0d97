"""Evidence from earlier sweeps: what fits is taken over, what does not is refused with the reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from repsim.errors import RequestError
from repsim.records import FACTS, METRICS, Stage, Status, TrialResult
from sweeps.history import History
from sweeps.journal import Journal, read_history
from sweeps.run_folder import RunFolder
from sweeps.search import Search
from sweeps.space import Space, load_space
from sweeps.warm_start import earlier_sweeps, from_header, gather, params_of, to_header

GROUND = ("images", "probe")


@pytest.fixture
def space() -> Space:
    return load_space("quick.yaml", trials=8)


def sweep(runs: Path, name: str, space: Space, ground: tuple[str, str] = GROUND) -> History:
    """A sweep of which all trials but the fourth have completed."""
    folder = RunFolder.create(runs, name)
    search = Search(space)
    with Journal.create(folder.journal, {"name": name, "space": space.to_dict()}) as journal:
        while (trial := search.ask()) is not None:
            journal.proposed(trial)
            journal.started(trial.trial_id, 1)
            failed = trial.number == 3
            facts = dict.fromkeys(FACTS, 0) | {"data_hash": ground[0], "probe_hash": ground[1]}
            values = dict.fromkeys(METRICS, 0.5) | {"val_accuracy": 0.5 + trial.number / 100}
            result = TrialResult(chosen_epoch=2, epochs=2, values=values, facts=facts)
            status = Status.FAILED if failed else Status.COMPLETED
            journal.ended(trial.trial_id, 1, status, reason="x" if failed else "", result=None if failed else result)
    return read_history(folder.journal)


def grounds(space: Space) -> dict[str, frozenset[tuple[str, str]]]:
    return {data: frozenset({GROUND}) for data in space.data}


def silent(line: str) -> None:
    """Nobody listens."""


def test_finished_trials_become_evidence(tmp_path: Path, space: Space) -> None:
    sweep(tmp_path, "a", space)
    said: list[str] = []
    later = replace(space, search=replace(space.search, seed=5))
    evidence = gather(later, earlier_sweeps(later, ["a"], tmp_path), grounds(space), said.append)
    assert [one.origin for one in evidence] == [f"a/t{number:04d}" for number in (0, 1, 2, 4, 5, 6, 7)]
    assert evidence[2].values == {"val_accuracy": 0.52, "val_cka": 0.5}
    assert said == ["warm start: 7 trials of a"]
    assert len(Search(later, evidence).study(space.data[0]).trials) == 7


def test_evidence_survives_the_header(tmp_path: Path, space: Space) -> None:
    history = sweep(tmp_path, "a", space)
    evidence = gather(space, {"a": history}, grounds(space), silent)
    header = json.loads(json.dumps({"evidence": to_header(evidence)}))
    assert from_header(header) == evidence
    assert from_header({}) == []
    with pytest.raises(TypeError, match="must be a list"):
        from_header({"evidence": {}})


@pytest.mark.parametrize(
    ("ground", "match"),
    [
        (("others", "probe"), r"a: its trials saw other images"),
        (("images", "other"), r"a: its similarity was taken on"),
    ],
)
def test_other_ground_is_refused(tmp_path: Path, space: Space, ground: tuple[str, str], match: str) -> None:
    history = sweep(tmp_path, "a", space, ground)
    with pytest.raises(RequestError, match=match) as caught:
        gather(space, {"a": history}, grounds(space), silent)
    assert len(caught.value.mistakes) == 1


def test_one_that_fits_is_enough(tmp_path: Path, space: Space) -> None:
    said: list[str] = []
    histories = {"a": sweep(tmp_path, "a", space, ("others", "probe")), "b": sweep(tmp_path, "b", space)}
    assert len(gather(space, histories, grounds(space), said.append)) == 7
    assert said[1].startswith("warm start: nothing of a: its trials saw other images")


def test_points_outside_the_space_are_counted(tmp_path: Path, space: Space) -> None:
    history = sweep(tmp_path, "a", space)
    said: list[str] = []
    narrow = load_space("quick.yaml", ["method=[full, repsim]"], trials=8)
    evidence = gather(narrow, {"a": history}, grounds(space), said.append)
    methods = [record.trial.config.method for record in history.records.values() if record.status is Status.COMPLETED]
    assert 0 < len(evidence) == sum(method in ("full", "repsim") for method in methods) < 7
    assert said == [f"warm start: {len(evidence)} trials of a; {7 - len(evidence)} lie outside this space"]
    other = load_space("quick.yaml", ["method=[full, repsim]", "optim.batch_size=8"], trials=8)
    with pytest.raises(RequestError, match="all of its 7 trials on these images lie outside this space"):
        gather(other, {"a": history}, grounds(space), silent)


def test_other_objectives_and_missing_sweeps_are_refused_one_line_each(tmp_path: Path, space: Space) -> None:
    nll = replace(space.objectives[0], metric="val_nll", direction="minimize")
    sweep(tmp_path, "a", replace(space, objectives=(nll, space.objectives[1])))
    with pytest.raises(RequestError) as caught:
        earlier_sweeps(space, ["a", "none"], tmp_path)
    first, second = map(str, caught.value.mistakes)
    assert first.startswith("--warm-start: a: its objectives are minimize val_nll, maximize val_cka; allowed: maximize")
    nothing = "has no journal, so there is nothing to learn from; allowed: a"
    assert second == f"--warm-start: none: {nothing}"
    with pytest.raises(RequestError, match=f"^--warm-start: aa: {nothing}; did you mean 'a'"):
        earlier_sweeps(space, ["aa"], tmp_path)


def test_seeds_and_confirmations_are_no_evidence_and_the_source_may_have_moved(tmp_path: Path, space: Space) -> None:
    history = sweep(tmp_path, "a", space)
    moved = replace(space, data=("phantom:ultrasound",))
    for record in history.records.values():
        if record.trial.number == 2:
            record.trial = replace(record.trial, stage=Stage.CONFIRM, number=0, confirms="t0001")
    evidence = gather(moved, {"a": history}, {"phantom:ultrasound": frozenset({GROUND})}, silent)
    assert [one.data for one in evidence] == ["phantom:ultrasound"] * 6


def test_the_point_of_a_run_is_the_one_it_came_from(space: Space) -> None:
    search = Search(space)
    data = space.data[0]
    for _ in range(6):
        trial = search.ask()
        assert trial is not None
        assert params_of(space, data, trial.config) == dict(trial.params)


def test_nothing_finished_is_a_reason_too(tmp_path: Path, space: Space) -> None:
    history = sweep(tmp_path, "a", space)
    history.records = {name: r for name, r in history.records.items() if r.status is Status.FAILED}
    with pytest.raises(RequestError, match="none of its trials has completed"):
        gather(space, {"a": history}, grounds(space), silent)
