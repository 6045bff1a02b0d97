"""``resources``: what a trial gets, for all trials alike or by what the trial is, as people write it."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from repsim.errors import RequestError
from sweeps.space import Case, Resources, Space, load_space, space_from_dict
from sweeps.space_resource_settings import sizes
from sweeps.space_resources import Asked
from sweeps.space_schema import schema

TEXT = """
name: trial
objectives: [{metric: val_accuracy}, {metric: val_cka}]
budget: {trials: 4, epochs: 2}
space: {method: [full, repsim, lora], backbone: [resnet18, vit_large_patch14]}
"""
LARGE = "[{when: {backbone: vit_large*}, value: 4}, {value: 1}]"


def load(folder: Path, resources: str, more: str = "", **arguments: object) -> Space:
    path = folder / "trial.yaml"
    path.write_text(f"{TEXT}resources: {{{resources}}}\n{more}", encoding="utf-8")
    return load_space(str(path), **arguments)  # type: ignore[arg-type]


def of(space: Space, method: str, backbone: str) -> Asked:
    return space.resources.of(method=method, backbone=backbone, data=space.data[0])


def test_every_trial_gets_what_is_said_once(tmp_path: Path) -> None:
    space = load(tmp_path, "workers: 4, cpus_per_worker: 2, gpus_per_worker: 1")
    assert of(space, "full", "resnet18") == Asked(workers=4, cpus_per_worker=2, gpus_per_worker=1.0)
    assert of(load(tmp_path, ""), "full", "resnet18") == Asked(workers=1, cpus_per_worker=None, gpus_per_worker=None)


def test_what_a_trial_gets_may_depend_on_what_it_is(tmp_path: Path) -> None:
    space = load(
        tmp_path,
        f"workers: {LARGE}, cpus_per_worker: {{when: {{adapter: lora}}, value: 3}}, gpus_per_worker: "
        "[{when: {backbone: vit_large*}, value: auto}, {when: {penalty: any}, value: 0.5}, {value: 0}]",
    )
    assert of(space, "full", "vit_large_patch14") == Asked(workers=4, cpus_per_worker=None, gpus_per_worker=None)
    assert of(space, "repsim", "vit_large_patch14").workers == 4, "the first case that holds counts"
    assert of(space, "repsim", "resnet18") == Asked(workers=1, cpus_per_worker=None, gpus_per_worker=0.5)
    assert of(space, "lora", "resnet18") == Asked(workers=1, cpus_per_worker=3, gpus_per_worker=0.0)


def test_where_no_case_holds_it_is_as_if_nothing_was_said(tmp_path: Path) -> None:
    space = load(tmp_path, "workers: [{when: {method: lora}, value: 2}]")
    assert of(space, "lora", "resnet18").workers == 2
    assert of(space, "full", "resnet18").workers == 1


@pytest.mark.parametrize(
    "resources",
    [
        f"workers: {LARGE}",
        "workers: {when: {method: [lora, repsim]}, value: 2}",
        "cpus_per_worker: [{when: {penalty: none}, value: auto}, {value: 2}]",
        "gpus_per_worker: [{when: {data: 'phantom:*'}, value: 0.25}, {value: 2}]",
        "placement_timeout: 90",
    ],
)
def test_what_was_read_is_written_and_read_again(tmp_path: Path, resources: str) -> None:
    space = load(tmp_path, resources)
    document = space.to_dict()
    assert space_from_dict(yaml.safe_load(yaml.safe_dump(document))) == space
    jsonschema.Draft202012Validator(schema()).validate(document)
    assert space.space_hash == load(tmp_path, "").space_hash, "it changes how fast a search goes, not where"


def test_a_sweep_from_before_there_were_such_settings_reads_back(tmp_path: Path) -> None:
    document = load(tmp_path, "").to_dict()
    document["resources"] = {"workers": 1, "cpus_per_worker": "auto", "gpus_per_worker": "auto"}
    assert space_from_dict(document).resources == Resources()


def test_it_can_be_set_on_the_command_line() -> None:
    space = load_space("quick", ["resources.workers=[{when: {penalty: any}, value: 2}, {value: 1}]"])
    assert space.resources.workers == (Case(when={"penalty": ("any",)}, value=2), Case(when={}, value=1))


def test_all_sizes_are_known_before_the_first_trial(tmp_path: Path) -> None:
    space = load(tmp_path, f"workers: {LARGE}")
    found = [(str(chosen["method"]), str(chosen["backbone"]), asked.workers) for chosen, _, asked in sizes(space)]
    assert found[:2] == [("linear_probe", "resnet18", 1), ("full", "resnet18", 1)]
    assert ("repsim", "vit_large_patch14", 4) in found
    assert ("repsim", "resnet18", 1) in found


WRONG = [
    ("workers: 0", r"resources\.workers: 0 is not allowed; allowed: a whole number from 1 to 1024"),
    ("workers: 2000", r"resources\.workers: 2000 is not allowed"),
    ("workers: auto", r"resources\.workers: 'auto' is not allowed"),
    ("workers: 1.5", r"resources\.workers: 1\.5 is not allowed"),
    ("workers: yes", r"resources\.workers: True is not allowed \(YAML reads yes"),
    ("workers: [2]", r"resources\.workers\[0\]: 2 is no case; allowed: {when: {…}, value: …}"),
    ("workers: []", r"resources\.workers: is an empty list; allowed: at least one"),
    ("workers: [{when: {method: lora}}]", r"resources\.workers\[0\]: has no value"),
    ("workers: [{when: {method: lora}, vale: 2}]", r"workers\[0\]\.vale: is not a known key.*did you mean 'value'\?"),
    ("workers: [{value: 2}, {value: 1}]", r"workers\[0\]: holds everywhere, so what follows it is never reached"),
    ("workers: {when: {metod: lora}, value: 2}", r"workers\[0\]\.when\.metod: is not a known key.*'method'\?"),
    ("workers: {when: {penalty: repsin}, value: 2}", r"'repsin' matches no penalty.*did you mean 'repsim'\?"),
    ("workers: {when: {backbone: swin*}, value: 2}", r"workers\.when\.backbone: 'swin\*' matches no backbone of this"),
    ("workers: {when: {data: 'csv:*'}, value: 2}", r"workers\.when\.data: 'csv:\*' matches no data of this space"),
    ("cpus_per_worker: [{value: 0}]", r"cpus_per_worker\[0\]\.value: 0 is not allowed; allowed: auto, or a whole"),
    ("gpus_per_worker: [{value: -1}]", r"gpus_per_worker\[0\]\.value: -1 is not allowed; allowed: a number from 0"),
    ("gpus_per_worker: 1.5", r"gpus_per_worker: 1\.5 is neither a share of one GPU nor a number of GPUs"),
    ("placement_timeout: 0", r"resources\.placement_timeout: 0 is not allowed; allowed: a number above 0"),
    ("workers: 2, gpus_per_worker: 0.5", r"2 workers of one trial cannot share a GPU, and 0\.5 is a share"),
    (
        f"workers: {LARGE}, gpus_per_worker: [{{when: {{method: repsim}}, value: 0.5}}]",
        r"resources\.gpus_per_worker: 4 workers of one trial cannot share a GPU, and 0\.5 is a share",
    ),
    (
        "workers: 64",
        r"resources\.workers: a batch of 32 images leaves some of 64 workers without one; allowed: at",
    ),
]


@pytest.mark.parametrize(("resources", "match"), WRONG, ids=[resources for resources, _ in WRONG])
def test_mistakes(tmp_path: Path, resources: str, match: str) -> None:
    with pytest.raises(RequestError, match=match) as caught:
        load(tmp_path, resources)
    assert len(caught.value.mistakes) == 1
    assert str(caught.value).startswith(str(tmp_path / "trial.yaml"))


@pytest.mark.parametrize("value", [0, "auto", [2, 1], [], {"value": 2.5}, [{"when": {}, "value": 2}], True])
def test_the_schema_refuses_it_too(tmp_path: Path, value: object) -> None:
    document = load(tmp_path, "").to_dict()
    resources = document["resources"]
    assert isinstance(resources, dict)
    resources["workers"] = value
    assert not jsonschema.Draft202012Validator(schema()).is_valid(document)


def test_a_backbone_that_a_flag_took_away_is_no_mistake(tmp_path: Path) -> None:
    space = load(tmp_path, f"workers: {LARGE}", overrides=["backbone=resnet18"])
    assert of(space, "full", "resnet18").workers == 1


def test_what_cannot_be_shared_is_refused_where_it_meets_several_workers(tmp_path: Path) -> None:
    small = "fixed: {optim.batch_size: 4}\n"
    assert of(load(tmp_path, "workers: 4", small), "full", "resnet18").workers == 4
    with pytest.raises(RequestError, match=r"a batch of 4 images leaves some of 5 workers without one"):
        load(tmp_path, "workers: 5", small)
    with pytest.raises(RequestError, match=r"4 workers would take batch-norm statistics apart.*optim\.batch_norm: fro"):
        load(tmp_path, "workers: 4", "fixed: {optim.batch_norm: train}\n")
    load(tmp_path, "", "fixed: {optim.batch_norm: train}\n")


def test_a_searched_key_counts_with_all_it_can_be(tmp_path: Path) -> None:
    searched = TEXT.replace("patch14]}", "patch14], optim.batch_size: {low: 8, high: 64}}")
    (tmp_path / "trial.yaml").write_text(f"{searched}resources: {{workers: 9}}\n", encoding="utf-8")
    with pytest.raises(RequestError, match=r"a batch of 8 images leaves some of 9 workers"):
        load_space(str(tmp_path / "trial.yaml"))
