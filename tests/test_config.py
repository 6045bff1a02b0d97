"""A trial's configuration: its spellings, its identity, and every way to get it wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from repsim.catalogue import HEADS, PENALTIES
from repsim.config import ADDING, FLAT_KEYS, TARGET_KEY, TrialConfig, load_config
from repsim.errors import RequestError

OTHER: dict[str, object] = {
    "data": "folder:images",
    "data.image_size": 64,
    "data.resize": "crop",
    "data.fractions": (0.5, 0.25, 0.25),
    "data.split_seed": 1,
    "data.group": "patient",
    "data.augment": "none",
    "data.views": 3,
    "data.probe_size": 100,
    "data.class_weights": "balanced",
    "data.on_error": "skip",
    "backbone": "mobilenetv2_100",
    "backbone.weights": "random",
    "head": "another",
    "head.scale": 20.0,
    "head.bank": 16,
    "head.normalise": False,
    "head.intersection": "mean",
    "head.difference": "subtractmatch",
    "head.per_feature": True,
    "optim.lr": 1e-4,
    "optim.head_lr": 3e-3,
    "optim.weight_decay": 0.0,
    "optim.epochs": 3,
    "optim.batch_size": 16,
    "optim.schedule": "constant",
    "optim.warmup_fraction": 0.0,
    "optim.clip_norm": None,
    "optim.precision": "bf16",
    "optim.batch_norm": "train",
    "optim.sam": "asam",
    "optim.sam_rho": 0.1,
    "optim.average": "ema",
    "optim.ema_decay": 0.0,
    "optim.swa_start": 0.5,
    "adapter.stages": 2,
    "adapter.rank": 4,
    "adapter.alpha": 16.0,
    "adapter.bottleneck": 8,
    "adapter.scale": 1.0,
    "adapter.prompts": 5,
    "adapter.prompt_depth": "shallow",
    "penalty.layers": "all",
    "penalty.q_lr": 0.5,
    "penalty.map": "cayley",
    "penalty.rank": 8,
    "penalty.scale": True,
    "penalty.center": False,
    "penalty.estimator": "debiased",
    "penalty.margin": 0.1,
    "penalty.queue": 64,
    "penalty.momentum": 0.5,
    "penalty.q": "learned",
    "penalty.neighbours": 3,
    "penalty.smallest": 2,
    "penalty.temperature": 3.0,
    "measure.sharpness": "full",
    "measure.similarity": "full",
    "measure.quality": "full",
    "measure.layers": "full",
    "measure.wise": True,
    "wise_alpha": 0.3,
    "method": "repsim",
    "strength": 3.0,
    "strength.target_cka": 0.8,
    "seed": 1,
    "checkpoint": "best",
}
"""A valid value other than the default for every key that has one."""
ONE_VALUE_ONLY = {"data.task"}


@pytest.fixture(autouse=True)
def another_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second head, so that this key too has something to differ in."""
    monkeypatch.setitem(HEADS, "another", replace(HEADS["linear"], name="another"))


def with_key(key: str, value: object) -> TrialConfig:
    needs = {"method": "repsim"} if key in ("strength", TARGET_KEY) else {}
    return TrialConfig.from_flat({**needs, key: value})


def test_every_key_has_its_alternative_here() -> None:
    assert set(OTHER) | ONE_VALUE_ONLY == set(FLAT_KEYS)


@pytest.mark.parametrize("key", OTHER)
def test_flat_values_are_read_back(key: str) -> None:
    config = with_key(key, OTHER[key])
    flat = config.flat()
    assert tuple(flat) == FLAT_KEYS
    assert flat[key] == (list(OTHER[key]) if isinstance(OTHER[key], tuple) else OTHER[key])
    assert TrialConfig.from_flat(flat) == config
    through_json = TrialConfig.from_flat(json.loads(json.dumps(flat, allow_nan=False)))
    assert (through_json, through_json.config_id) == (config, config.config_id)


UNNAMED = ("seed", *ADDING)
"""Another seed is the same configuration; points of the line and layers' similarity are results beside it."""


@pytest.mark.parametrize("key", [key for key in OTHER if key not in UNNAMED])
def test_the_identity_changes_with_every_other_key(key: str) -> None:
    config = with_key(key, OTHER[key])
    base = TrialConfig.from_flat({"method": "repsim"} if key == "strength" else {})
    assert config.config_id != base.config_id
    assert TrialConfig.from_flat({**config.flat(), "seed": 7}).config_id == config.config_id


@pytest.mark.parametrize("key", UNNAMED)
def test_the_identity_does_not_change_with_what_names_nothing(key: str) -> None:
    assert with_key(key, OTHER[key]).config_id == TrialConfig().config_id


def test_the_identity_is_twelve_digits_and_does_not_depend_on_the_spelling() -> None:
    plain = TrialConfig.from_flat({"method": "repsim", "strength": 1, "backbone": "mobilenetv2_100"})
    assert len(plain.config_id) == 12
    assert int(plain.config_id, 16) >= 0
    spelled = [
        {"backbone.name": "mobilenetv2_100", "strength": 1.0, "method": "full+repsim"},
        {"method": "repsim", "backbone": "mobilenetv2_100", "optim.epochs": 6, "seed": 4},
    ]
    assert {TrialConfig.from_flat(flat).config_id for flat in spelled} == {plain.config_id}


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TrialConfig().seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        TrialConfig().optim.lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("flat", "strength"),
    [
        ({}, None),
        ({"method": "full", "strength": None}, None),
        ({"method": "linear_probe"}, None),
        ({"method": "repsim"}, 1.0),
        ({"method": "repsim", "strength": None}, 1.0),
        ({"method": "hcs", "strength": 0}, 0.0),
        ({"method": "hcs", "strength": 30.0}, 30.0),
    ],
)
def test_strength_is_there_exactly_where_there_is_a_penalty(flat: Mapping[str, object], strength: float | None) -> None:
    config = TrialConfig.from_flat(flat)
    assert config.strength == strength
    assert (config.parsed_method.penalty is None) == (strength is None)


@pytest.mark.parametrize("method", ["full", "linear_probe"])
def test_strength_without_a_penalty_is_refused(method: str) -> None:
    with pytest.raises(RequestError, match=rf"^f: strength is 2, but method '{method}' has no penalty; leave it out$"):
        TrialConfig.from_flat({"method": method, "strength": 2.0}, where="f")


@pytest.mark.parametrize(
    ("flat", "views"),
    [
        ({"optim.epochs": 5}, 10),
        ({"optim.epochs": 5, "data.views": 3}, 3),
        ({"optim.epochs": 5, "data.augment": "none"}, 1),
        ({"optim.epochs": 5, "data.augment": "none", "data.views": 3}, 1),
    ],
)
def test_the_number_of_views(flat: Mapping[str, object], views: int) -> None:
    assert TrialConfig.from_flat(flat).n_views == views


@pytest.mark.parametrize(
    ("flat", "words"),
    [
        ({"optm.lr": 1.0}, r"optm\.lr: 'optm\.lr' is not a known key; allowed: data, .*; did you mean 'optim\.lr'\?"),
        ({"lambda": 1.0}, r"lambda: 'lambda' is not a known key; allowed: .*"),
        ({"optim": 3}, r"optim: 'optim' is not a known key; .*"),
        (
            {"method": "repsin"},
            r"method: 'repsin' is not a known method; allowed: ADAPTER, .*; did you mean 'repsim'\?",
        ),
        ({"method": "linear_probe+repsim"}, r"method: 'linear_probe\+repsim' makes no sense: .*"),
        ({"method": "lora9+repsim"}, r"method: 'lora9' in 'lora9\+repsim' is not a known adapter; .*"),
        ({"method": "full+nothing"}, r"method: 'nothing' in 'full\+nothing' is not a known penalty; .*"),
        (
            {"method": "hcs", "penalty.margin": 1.0},
            r"penalty\.margin: 1 frees every .*; allowed: a number from 0, below 1",
        ),
        (
            {"method": "hcs", "penalty.margin": 2.5, "penalty.estimator": "debiased"},
            r"penalty\.margin: 2\.5 frees every dissimilarity: .*; allowed: a number from 0, below 2",
        ),
        (
            {"method": "lora+bss", "strength.target_cka": 0.9},
            r"strength\.target_cka: 0\.9 is out of reach of bss, .*; allowed: a strength, or one of repsim, .*",
        ),
        (
            {"method": "repsim", "strength": -1.0},
            r"strength: -1\.0 is not allowed; allowed: greater than or equal to 0",
        ),
        ({"method": "repsim", "strength": math.inf}, r"strength: inf is not allowed; allowed: a finite number"),
        ({"optim.lr": 0.0}, r"optim\.lr: 0\.0 is not allowed; allowed: greater than 0"),
        ({"optim.lr": math.nan}, r"optim\.lr: nan is not allowed; allowed: a finite number"),
        ({"optim.lr": "1e-5"}, r"optim\.lr: '1e-5' is not allowed \(YAML reads 1e-5 as text: write 1\.0e-5\); .*"),
        ({"optim.lr": "fast"}, r"optim\.lr: 'fast' is not allowed; allowed: a valid number"),
        ({"optim.lr": "a\nb"}, r"optim\.lr: 'a\\nb' is not allowed; allowed: a valid number"),
        ({"optim.epochs": True}, r"optim\.epochs: True is not allowed; allowed: a valid integer"),
        ({"optim.epochs": 2.5}, r"optim\.epochs: 2\.5 is not allowed; allowed: a valid integer"),
        ({"optim.epochs": 0}, r"optim\.epochs: 0 is not allowed; allowed: greater than or equal to 1"),
        ({"optim.batch_size": 3}, r"optim\.batch_size: 3 is not allowed; allowed: greater than or equal to 4"),
        ({"optim.warmup_fraction": 1.0}, r"optim\.warmup_fraction: 1\.0 is not allowed; allowed: less than 1"),
        ({"data.image_size": 8}, r"data\.image_size: 8 is not allowed; allowed: greater than or equal to 16"),
        ({"data.fractions": [0.5, 0.2, 0.2]}, r"data\.fractions: must add up to 1, these make 0\.9"),
        ({"data.fractions": [1.0, 0.5, -0.5]}, r"data\.fractions\.2: -0\.5 is not allowed; allowed: greater than 0"),
        ({"data.resize": "padd"}, r"data\.resize: 'padd' is not allowed; allowed: 'pad', 'squash' or 'crop'.*"),
        ({"data.group": 3}, r"data\.group: 3 is not allowed; allowed: a valid string"),
        ({"data": " "}, r"data: must name a data source"),
        ({"data": "a\x00"}, r"data: must name a data source"),
        ({"backbone": ""}, r"backbone: must not be empty"),
        ({"backbone.weights": "\x00"}, r"backbone\.weights: must not be empty"),
        ({"backbone": None}, r"backbone: None is not allowed; allowed: a valid string"),
        ({"head": "lineer"}, r"head: 'lineer' is not a known head; allowed: linear, .*; did you mean 'linear'\?"),
        ({"seed": -1}, r"seed: -1 is not allowed; allowed: greater than or equal to 0"),
        ({"seed": 2**32}, r"seed: 4294967296 is not allowed; allowed: less than 4294967296"),
        ({"checkpoint": "first"}, r"checkpoint: 'first' is not allowed; allowed: 'last' or 'best'.*"),
    ],
)
def test_a_wrong_value_is_one_line(flat: Mapping[str, object], words: str) -> None:
    with pytest.raises(RequestError, match=rf"^x\.yaml: {words}$") as caught:
        TrialConfig.from_flat(flat, where="x.yaml")
    assert len(caught.value.mistakes) == 1
    assert "\n" not in str(caught.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(RequestError, match="not allowed") as caught:
        TrialConfig.from_flat({"optim.lr": 0.0, "optim.epochs": 0, "seed": "x"})
    assert [mistake.key for mistake in caught.value.mistakes] == ["optim.lr", "optim.epochs", "seed"]
    with pytest.raises(RequestError, match="not a known key") as caught:
        TrialConfig.from_flat({"optim.lrr": 0.0, "sed": 0})
    assert [mistake.key for mistake in caught.value.mistakes] == ["optim.lrr", "sed"]


def test_everything_that_does_not_go_together_is_told_at_once() -> None:
    with pytest.raises(RequestError, match="no penalty") as caught:
        TrialConfig.from_flat({"method": "vpt", "strength": 1.0, "head": "mlp", "measure.wise": True})
    said = [mistake.problem for mistake in caught.value.mistakes]
    assert len(said) == 3
    assert "has no penalty" in said[0]
    assert "head is 'mlp'" in said[1]
    assert "'vpt' does not start at the pretrained network" in said[2]
    with pytest.raises(ValueError, match=r"no penalty; leave it out; .*'mlp'; .*no line"):
        TrialConfig.model_validate({"method": "vpt", "strength": 1.0, "head": {"name": "mlp"}, "wise_alpha": 0.5})


@pytest.mark.parametrize(
    "margin", [{"method": "hcs", "penalty.margin": 0.99}, {"method": "triplet", "penalty.margin": 3.0}]
)
def test_a_margin_that_leaves_something_is_taken(margin: Mapping[str, object]) -> None:
    assert TrialConfig.from_flat(margin).penalty.margin == margin["penalty.margin"]
    assert TrialConfig.from_flat(
        {"method": "hcs", "penalty.margin": 1.5, "penalty.estimator": "debiased"}
    ).penalty.margin == pytest.approx(1.5)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_similarity_is_asked_for_where_the_weight_can_bring_it(penalty: str) -> None:
    flat = {"method": penalty, "strength.target_cka": 0.9}
    if penalty in ("bss", "co_tuning", "rift"):
        with pytest.raises(RequestError, match=f"out of reach of {penalty}"):
            TrialConfig.from_flat(flat)
    else:
        assert TrialConfig.from_flat(flat).target_cka == 0.9


def test_a_file_may_be_nested_dotted_or_both(tmp_path: Path) -> None:
    texts = {
        "nested": "data: {source: a.csv, image_size: 64}\noptim:\n  lr: 1.0e-4\nmethod: repsim\n",
        "dotted": "data: a.csv\ndata.image_size: 64\noptim.lr: 1.0e-4\nmethod: repsim\nstrength: 1\n",
        "mixed": "data.source: a.csv\ndata: {image_size: 64}\noptim.lr: 1.0e-4\nmethod: full+repsim\n",
    }
    found = []
    for name, text in texts.items():
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        found.append(load_config(path))
    assert found[0] == found[1] == found[2]
    assert (found[0].data.source, found[0].data.image_size, found[0].optim.lr) == ("a.csv", 64, 1e-4)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"method: [full", "is not YAML: "),
        (b"\xff\xfe\x00", "is not YAML: "),
        (b'seed: "\\U00110000"', "is not YAML: "),
        (b"[" * 5000, "is not YAML: "),
        (b"- full\n", "must hold keys and values"),
        (b"", "must hold keys and values"),
        (b"optim: {lrr: 1}", r"optim\.lrr: 'optim\.lrr' is not a known key"),
        (b"optim: {lr: 1e-5}", r"optim\.lr: '1e-5' is not allowed \(YAML reads 1e-5 as text: write 1\.0e-5\)"),
        (b"method: no", "method: "),
    ],
)
def test_a_wrong_file_is_named(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "trial.yaml"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=rf"trial\.yaml: {words}") as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"none\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(RequestError, match="cannot be read: Is a directory"):
        load_config(tmp_path)
