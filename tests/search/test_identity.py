"""Two proposals that mean the same run are one; two that differ in something that is read are not."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from simulation import always, make_space, simulate

import repsim.penalties
from repsim.catalogue import ADAPTERS, HEADS, PENALTIES, WRAPPERS
from repsim.config import AdapterConfig, HeadConfig, OptimConfig, PenaltyConfig, TrialConfig
from sweeps.identity import identity, settings_of
from sweeps.search import Search
from sweeps.space import Choice


def of(**flat: object) -> str:
    return identity(TrialConfig.from_flat({key.replace("__", "."): value for key, value in flat.items()}))


@pytest.mark.parametrize(
    ("method", "unread"),
    [
        ("linear_probe", {"optim__lr": 1e-2}),
        ("linear_probe", {"optim__epochs": 3, "optim__sam": "sam"}),
        ("linear_probe", {"adapter__rank": 4}),
        ("linear_probe", {"penalty__map": "cayley", "penalty__layers": "all"}),
        ("linear_probe", {"data__augment": "none", "data__views": 2, "checkpoint": "best"}),
        ("full", {"adapter__rank": 4, "adapter__prompts": 3}),
        ("full", {"penalty__margin": 0.1}),
        ("full", {"optim__sam_rho": 0.1, "optim__ema_decay": 0.9, "optim__swa_start": 0.5}),
        ("full", {"head__scale": 3.0, "head__bank": 8}),
        ("lora", {"adapter__stages": 2, "penalty__layers": "all"}),
        ("rift", {"penalty__layers": "last", "penalty__margin": 0.1}),
        ("lora+repsim", {"adapter__bottleneck": 8, "penalty__temperature": 4.0}),
        ("full", {"seed": 9}),
        ("full", {"measure__layers": "full", "measure__wise": True}),
    ],
)
def test_what_is_not_read_makes_no_other_run(method: str, unread: dict[str, object]) -> None:
    assert of(method=method, **unread) == of(method=method)


@pytest.mark.parametrize(
    ("method", "read"),
    [
        ("linear_probe", {"data__image_size": 64}),
        ("linear_probe", {"backbone": "mobilenetv2_100"}),
        ("linear_probe", {"data__class_weights": "balanced"}),
        ("full", {"optim__lr": 1e-2}),
        ("full", {"head": "cosine"}),
        ("full", {"optim__sam": "sam"}),
        ("full", {"data__augment": "none"}),
        ("lora", {"adapter__rank": 4}),
        ("partial", {"adapter__stages": 2}),
        ("vpt", {"adapter__prompt_depth": "shallow"}),
        ("repsim", {"penalty__map": "cayley"}),
        ("repsim", {"penalty__layers": "all"}),
        ("repsim", {"strength": 2.0}),
        ("triplet", {"penalty__margin": 0.2}),
        ("lora+hcs", {"penalty__queue": 64}),
    ],
)
def test_what_is_read_makes_another_run(method: str, read: dict[str, object]) -> None:
    assert of(method=method, **read) != of(method=method)


def test_settings_of_heads_and_wrappers_count_where_they_are_read() -> None:
    assert of(head="cosine", head__scale=3.0) != of(head="cosine")
    assert of(head="cosine", head__bank=8) == of(head="cosine")
    assert of(optim__sam="asam", optim__sam_rho=0.1) != of(optim__sam="asam")
    assert of(optim__average="ema", optim__ema_decay=0.5) != of(optim__average="ema")
    assert of(optim__average="ema", optim__swa_start=0.5) == of(optim__average="ema")


def test_every_method_is_a_run_of_its_own() -> None:
    methods = [*ADAPTERS, *PENALTIES]
    assert len({of(method=method) for method in methods}) == len(methods)


def test_every_setting_of_a_part_has_a_reader_and_every_reader_its_settings() -> None:
    assert {name for info in ADAPTERS.values() for name in info.settings} == set(AdapterConfig.model_fields)
    penalties = {name for info in PENALTIES.values() for name in info.settings} | {"layers"}
    assert penalties == set(PenaltyConfig.model_fields)
    assert {name for info in HEADS.values() for name in info.settings} == set(HeadConfig.model_fields) - {"name"}
    assert {name for info in WRAPPERS.values() for name in info.settings} <= set(OptimConfig.model_fields)
    for info in WRAPPERS.values():
        key, _, value = info.setting.partition(": ")
        assert TrialConfig.from_flat({key: value}).flat()[key] == info.name == value


@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_penalty_declares_the_settings_that_its_file_reads(penalty: str) -> None:
    folder = Path(repsim.penalties.__file__).parent
    text = (folder / f"{penalty}.py").read_text(encoding="utf-8")
    if "build_rotation" in {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}:
        text += (folder / "rotations.py").read_text(encoding="utf-8")
    found = set(re.findall(r"\bconfig\.(\w+)", text)) - {"config"}
    assert found == set(PENALTIES[penalty].settings)


def test_settings_of_a_method_are_dotted_keys() -> None:
    assert settings_of("lora", "rift") == {
        "adapter.rank",
        "adapter.alpha",
        "penalty.momentum",
        "penalty.q",
        "penalty.q_lr",
    }
    assert settings_of("full", None) == frozenset()
    assert "penalty.layers" in settings_of("full", "delta")


def test_a_search_does_not_repeat_a_run_under_another_name() -> None:
    dimensions = (
        always("method", Choice(values=("linear_probe", "full", "lora"))),
        always("adapter.rank", Choice(values=(2, 4))),
        always("penalty.margin", Choice(values=(0.1, 0.2))),
    )
    trials, _, _ = simulate(Search(make_space(trials=12, dimensions=dimensions)))
    assert sorted(trial.config.method for trial in trials) == ["full", "linear_probe", "lora", "lora"]
