"""Mistakes are one readable line each, whatever a person wrote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repsim.errors import Mistake, RequestError, nearest, one_line, unknown

NAMES = ("full", "linear_probe", "repsim")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("repsin", "repsim"),
        ("RepSim", "repsim"),
        ("linear-probe", "linear_probe"),
        ("Full", "full"),
        ("xyzzy", None),
        ("", None),
        (3, None),
        (None, None),
    ],
)
def test_nearest_finds_the_likely_spelling_or_nothing(value: object, expected: str | None) -> None:
    assert nearest(value, NAMES) == expected
    assert nearest(value, []) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain", "'plain'"),
        ("two\nlines", r"'two\nlines'"),
        ("\x1b[31mred", r"'\x1b[31mred'"),
        ("turned \u202e round", r"'turned \u202e round'"),
        ("half \ud800 a pair", r"'half \ud800 a pair'"),
        (1e-5, "1e-05"),
        (None, "None"),
        (["a\nb"], r"['a\nb']"),
    ],
)
def test_hostile_values_stay_on_one_printable_line(value: object, expected: str) -> None:
    assert one_line(value) == expected


class Rude:
    def __str__(self) -> str:
        return "one\ntwo\x07\x00"


def test_what_an_object_says_of_itself_is_cleaned_too() -> None:
    assert one_line(Rude()) == "one?two??"


def test_long_values_are_cut_to_the_limit() -> None:
    assert one_line("x" * 100) == "'" + "x" * 78 + "…"
    assert one_line("x" * 78) == "'" + "x" * 78 + "'"
    assert one_line("abcdef", limit=4) == "'ab…"


@given(st.text() | st.binary() | st.floats() | st.lists(st.text()), st.integers(min_value=1, max_value=90))
def test_any_value_is_one_printable_line_within_the_limit(value: object, limit: int) -> None:
    text = one_line(value, limit)
    assert len(text) <= limit
    assert text.isprintable()


def test_a_mistake_says_file_key_problem_what_is_allowed_and_the_nearest() -> None:
    mistake = Mistake(where="a.yaml", key="method", problem="'x' is wrong", allowed="y, z", suggestion="y")
    assert str(mistake) == "a.yaml: method: 'x' is wrong; allowed: y, z; did you mean 'y'?"
    assert str(Mistake(where="a.yaml", key="", problem="is empty")) == "a.yaml: is empty"
    assert str(Mistake(where="", key="", problem="is\n\nempty\t!")) == "is empty !"


def test_an_unknown_name_comes_with_the_known_ones() -> None:
    text = str(unknown("a.yaml", "method", "repsin", NAMES, "method"))
    assert text == (
        "a.yaml: method: 'repsin' is not a known method; allowed: full, linear_probe, repsim; did you mean 'repsim'?"
    )
    assert "did you mean" not in str(unknown("a.yaml", "method", "xyzzy", NAMES, "method"))


def test_a_request_error_holds_its_mistakes_and_prints_a_line_each() -> None:
    first, second = (Mistake(where="f", key=key, problem="is\nwrong") for key in "ab")
    error = RequestError(first, second)
    assert error.mistakes == (first, second)
    assert str(error) == "f: a: is wrong\nf: b: is wrong"
    with pytest.raises(ValueError, match="needs at least one mistake"):
        RequestError()
