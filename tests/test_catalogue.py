"""The catalogue: method names, and that the code behind every name is there."""

from __future__ import annotations

import re

import pytest

from repsim.catalogue import ADAPTERS, HEADS, PACKAGED_WEIGHTS, PENALTIES, Method, method_names, parse_method


@pytest.mark.parametrize(
    ("text", "adapter", "penalty", "short"),
    [
        ("full", "full", None, "full"),
        ("linear_probe", "linear_probe", None, "linear_probe"),
        ("repsim", "full", "repsim", "repsim"),
        ("full+repsim", "full", "repsim", "repsim"),
        ("full+hcs", "full", "hcs", "hcs"),
    ],
)
def test_a_method_is_taken_apart(text: str, adapter: str, penalty: str | None, short: str) -> None:
    assert parse_method(text) == Method(adapter, penalty)
    assert parse_method(text).name == short


def test_an_adapter_other_than_full_is_named() -> None:
    assert Method("lora", "repsim").name == "lora+repsim"


@pytest.mark.parametrize("name", method_names())
def test_every_offered_method_is_its_own_short_name(name: str) -> None:
    assert parse_method(name).name == name


def test_every_sensible_combination_is_offered_once() -> None:
    names = method_names()
    moving = [info.name for info in ADAPTERS.values() if info.trains_backbone]
    assert len(names) == len(set(names)) == len(ADAPTERS) + len(moving) * len(PENALTIES)
    assert names[: len(ADAPTERS)] == tuple(ADAPTERS)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_penalty_on_a_backbone_that_does_not_move_is_refused(penalty: str) -> None:
    with pytest.raises(ValueError, match=rf"'linear_probe\+{penalty}' makes no sense: linear_probe does not move"):
        parse_method(f"linear_probe+{penalty}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("repsin", "'repsin' is not a known method"),
        ("", "'' is not a known method"),
        ("Full", "'Full' is not a known method"),
        ("repsim+full", r"'repsim' in 'repsim\+full' is not a known adapter"),
        ("+repsim", r"'' in '\+repsim' is not a known adapter"),
        ("full+", r"'' in 'full\+' is not a known penalty"),
        ("full+full", r"'full' in 'full\+full' is not a known penalty"),
        ("full+repsim+hcs", r"'repsim\+hcs' in 'full\+repsim\+hcs' is not a known penalty"),
        ("full + repsim", r"'full ' in 'full \+ repsim' is not a known adapter"),
    ],
)
def test_what_is_no_method_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_method(text)


def test_names_are_filed_under_themselves_and_never_mean_two_things() -> None:
    for book in (ADAPTERS, PENALTIES, HEADS):
        assert all(name == info.name for name, info in book.items())
        assert all(re.fullmatch("[a-z][a-z0-9_]*", name) for name in book)
        assert all(info.title and info.summary for info in book.values())
    assert not set(ADAPTERS) & set(PENALTIES)
    assert {"full", "linear_probe"} <= set(ADAPTERS)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_penalty_declares_a_range_around_one_its_source_and_a_smallest_batch(penalty: str) -> None:
    info = PENALTIES[penalty]
    low, high = info.strength_range
    assert 0 < low < 1 < high
    assert info.paper
    assert info.min_batch >= 1


def test_the_code_behind_every_name_is_there() -> None:
    from repsim import adapters, heads, penalties

    assert set(adapters.REGISTRY) == set(ADAPTERS)
    assert set(penalties.REGISTRY) == set(PENALTIES)
    assert set(heads.MAKERS) == set(HEADS)
    assert {name for name, one in adapters.REGISTRY.items() if one.fit == "features"} <= {
        name for name, info in ADAPTERS.items() if not info.trains_backbone
    }


@pytest.mark.parametrize("backbone", PACKAGED_WEIGHTS)
def test_packaged_weights_say_where_they_are_and_what_they_are(backbone: str) -> None:
    weights = PACKAGED_WEIGHTS[backbone]
    assert weights.backbone == backbone
    assert re.fullmatch("[0-9a-f]{64}", weights.sha256)
    assert weights.tensors > 0
    assert all(0 < value < 1 for value in (*weights.mean, *weights.std))
    assert weights.pretraining in ("supervised", "self_supervised", "saliency_tuned")
    assert (weights.pretraining == "saliency_tuned") == bool(weights.note)
    assert not (weights.fetch and weights.extra)
