"""What a trial is asked: one frozen value, unknown keys refused, every default in this file.

A configuration has two spellings. Nested (the fields below) and *flat*: dotted keys as written in search spaces and
shown in tables (``optim.lr``), where ``data``, ``backbone`` and ``head`` alone stand for their first field. This module
needs pydantic and the standard library only; whether a file can be read or a backbone exists is found out later.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    Tag,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from repsim.catalogue import ADAPTERS, HEADS, PENALTIES, Method, parse_method
from repsim.config_sections import MOST_VIEWS as MOST_VIEWS
from repsim.config_sections import AdapterConfig as AdapterConfig
from repsim.config_sections import BackboneConfig as BackboneConfig
from repsim.config_sections import DataConfig as DataConfig
from repsim.config_sections import Frozen as Frozen
from repsim.config_sections import HeadConfig as HeadConfig
from repsim.config_sections import MeasureConfig as MeasureConfig
from repsim.config_sections import NonNegative as NonNegative
from repsim.config_sections import OptimConfig as OptimConfig
from repsim.config_sections import PenaltyConfig as PenaltyConfig
from repsim.config_sections import Positive as Positive
from repsim.config_sections import Seed as Seed
from repsim.errors import Mistake, RequestError, nearest, one_line, unknown
from repsim.method_spelling import method_mistake


class Target(Frozen):
    """A point asked for, instead of a λ: how similar to the pretrained features the finetuned ones shall end up."""

    target_cka: Annotated[float, Field(gt=0, lt=1)]
    """Debiased CKA to arrive at: λ is then found while training (``repsim.targeting``)."""


TARGET_KEY = "strength.target_cka"
ADDING = ("measure.layers", "measure.wise")
"""Keys that make no other run and name no other configuration: they add to what a trial answers, and change nothing."""
_STRENGTH_TAGS = ("a weight", "a point")


def _strength_tag(value: object) -> str:
    return _STRENGTH_TAGS[isinstance(value, Target | Mapping)]


Strength = Annotated[
    Annotated[NonNegative | None, Tag(_STRENGTH_TAGS[0])] | Annotated[Target, Tag(_STRENGTH_TAGS[1])],
    Discriminator(_strength_tag),
    # the flat spelling's: a point has a key of its own there
    WithJsonSchema({"anyOf": [{"minimum": 0, "type": "number"}, {"type": "null"}]}),
]


_MOST_HCS = {"biased": 1.0, "debiased": 2.0}
"""Largest 1 - CKA: from such a margin on, ``hcs`` is 0 for any features."""


class _MisfitError(ValueError):
    """What does not go together, kept apart on its way through pydantic; ``where`` is filled in by who knows it."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("; ".join(str(mistake) for mistake in mistakes))


def _misfit(key: str, problem: str, allowed: str = "") -> Mistake:
    return Mistake(where="", key=key, problem=problem, allowed=allowed)


def line_problem(method: str, *, at_a_point: bool) -> str:
    """Why a method has no line from the pretrained weights to its own, as a sentence part; empty when it has one.

    ``at_a_point``: a model on the line is the result itself, and so the backbone has to move.
    """
    adapter = ADAPTERS[parse_method(method).adapter]
    if not adapter.identity_at_start:
        return "does not start at the pretrained network"
    return "does not move the backbone" if at_a_point and not adapter.trains_backbone else ""


class TrialConfig(Frozen):
    """One finetuning run, complete: the same value gives the same numbers on the same machine and thread count."""

    data: DataConfig = DataConfig()
    backbone: BackboneConfig = BackboneConfig()
    head: HeadConfig = HeadConfig()
    optim: OptimConfig = OptimConfig()
    adapter: AdapterConfig = AdapterConfig()
    penalty: PenaltyConfig = PenaltyConfig()
    measure: MeasureConfig = MeasureConfig()
    method: str = "full"
    """``ADAPTER[+PENALTY]``."""
    strength: Strength = None
    """λ, dimensionless: the penalty's weight. Null without a penalty; 1.0 when a penalty is named without it.

    Or ``{target_cka: 0.9}``, flat ``strength.target_cka: 0.9``: the similarity to arrive at instead of a weight.
    """
    seed: Seed = 0
    """Head initialisation, batch and view order, dropout."""
    checkpoint: Literal["last", "best"] = "last"
    """Which epoch's weights are reported."""
    wise_alpha: Annotated[float, Field(ge=0, le=1)] = 1.0
    """What is reported is (1 - this) x pretrained + this x finetuned weights; rebuilds a point of ``measure.wise``."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        fields = dict(value)
        for name, first in _FIRST_FIELD.items():
            if isinstance(fields.get(name), str):
                fields[name] = {first: fields[name]}
        if fields.get("strength") is None and isinstance(fields.get("method"), str):
            try:
                method = parse_method(fields["method"])
            except ValueError:
                return fields
            fields["strength"] = None if method.penalty is None else 1.0
        return fields

    @field_validator("method")
    @classmethod
    def _known_method(cls, value: str) -> str:
        return parse_method(value).name

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        """Each part may be right and the whole wrong: everything that does not go together, at once."""
        found = [*self._strength_misfits(), *self._head_misfits(), *self._line_misfits(), *self._margin_misfits()]
        if found:
            raise _MisfitError(found)
        return self

    def _strength_misfits(self) -> Iterator[Mistake]:
        if self.strength is None:
            return
        penalty, target = self.parsed_method.penalty, self.target_cka
        if penalty is None:
            said = f"strength is {self.strength:g}" if target is None else f"{TARGET_KEY} is {target:g}"
            yield _misfit("", f"{said}, but method {self.method!r} has no penalty; leave it out")
        elif target is not None and not PENALTIES[penalty].raises_cka:
            able = ", ".join(info.name for info in PENALTIES.values() if info.raises_cka)
            problem = (
                f"{target:g} is out of reach of {penalty}, which does not bring features back, whatever its weight"
            )
            yield _misfit(TARGET_KEY, problem, f"a strength, or one of {able}")

    def _head_misfits(self) -> Iterator[Mistake]:
        if ADAPTERS[self.parsed_method.adapter].linear_head and self.head.name != "linear":
            yield _misfit("", f"method {self.method!r} fits a linear head, but head is {self.head.name!r}")

    def _line_misfits(self) -> Iterator[Mistake]:
        if not self.measure.wise and self.wise_alpha == 1.0:
            return
        asked = "measure.wise is true" if self.measure.wise else f"wise_alpha is {self.wise_alpha:g}"
        if self.measure.wise and self.wise_alpha < 1.0:
            yield _misfit("", f"{asked}, and wise_alpha {self.wise_alpha:g}: the points are taken from a model at 1")
        if self.head.name != "linear":
            yield _misfit("", f"{asked}, and the line begins at a linear probe, but head is {self.head.name!r}")
        problem = line_problem(self.method, at_a_point=self.wise_alpha < 1.0)
        if problem:
            yield _misfit("", f"{asked}, but method {self.method!r} {problem}, so there is no line")

    def _margin_misfits(self) -> Iterator[Mistake]:
        margin, most = self.penalty.margin, _MOST_HCS[self.penalty.estimator]
        if self.parsed_method.penalty == "hcs" and margin is not None and margin >= most:
            problem = f"{margin:g} frees every dissimilarity: {self.penalty.estimator} CKA leaves hcs at most {most:g}"
            yield _misfit("penalty.margin", problem, f"a number from 0, below {most:g}")

    @property
    def parsed_method(self) -> Method:
        """Adapter and penalty."""
        return parse_method(self.method)

    @property
    def target_cka(self) -> float | None:
        """The similarity asked for, or None where λ is given or there is no penalty."""
        return self.strength.target_cka if isinstance(self.strength, Target) else None

    @property
    def wise_words(self) -> str:
        """``wise α=0.3`` for a model between the pretrained and the finetuned one, else nothing: for labels."""
        return "" if self.wise_alpha == 1.0 else f"wise α={self.wise_alpha:g}"

    @property
    def takes_a_line(self) -> bool:
        """Whether points between the pretrained and the finetuned weights are measured (a linear probe has none)."""
        return self.measure.wise and ADAPTERS[self.parsed_method.adapter].trains_backbone

    @property
    def strength_words(self) -> str:
        """``λ=1.2``, ``cka→0.9``, or nothing without a penalty: for labels."""
        if isinstance(self.strength, Target):
            return f"cka→{self.strength.target_cka:g}"
        return "" if self.strength is None else f"λ={self.strength:.3g}"

    @property
    def n_views(self) -> int:
        """Size of the finite set of training views."""
        if self.data.augment == "none":
            return 1
        return 2 * self.optim.epochs if self.data.views == "auto" else self.data.views

    def flat(self) -> dict[str, object]:
        """Dotted keys to JSON values, in field order; ``from_flat`` reads it back.

        Of ``strength`` and ``strength.target_cka``, which are always both there, at most one is not null.
        """
        found: dict[str, object] = {}
        for key, value in self.model_dump(mode="json").items():
            if key == "strength":
                found |= {key: None if isinstance(value, dict) else value, TARGET_KEY: self.target_cka}
            elif isinstance(value, dict):
                for inner, inner_value in value.items():
                    short = key if _FIRST_FIELD.get(key) == inner else f"{key}.{inner}"
                    found[short] = inner_value
            else:
                found[key] = value
        return found

    @property
    def config_id(self) -> str:
        """Twelve hexadecimal digits naming the configuration without its seed."""
        canonical = {key: value for key, value in self.flat().items() if key != "seed"}
        # what is not asked for is left out, so that configurations keep the names they had before one could ask
        for key, nothing in ((TARGET_KEY, None), ("wise_alpha", 1.0)):
            if canonical[key] == nothing:
                del canonical[key]
        for key in ADDING:
            del canonical[key]  # they add results and leave this one as it is: a fresh seed may do without
        text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @classmethod
    def from_flat(cls, flat: Mapping[str, object], *, where: str = "configuration") -> Self:
        """Build from dotted keys.

        Raises :class:`RequestError` with one mistake per key that is unknown or holds a value out of range; ``where``
        is the file the person wrote them in.
        """
        mistakes = [
            unknown(where, key, key, FLAT_KEYS, "key") for key in flat if key not in FLAT_KEYS and key not in _NESTED
        ]
        both = [flat.get(key) for key in ("strength", TARGET_KEY)]
        if None not in both:
            problem = f"{one_line(both[1])} is asked for, and strength {one_line(both[0])} too"
            mistakes.append(Mistake(where=where, key=TARGET_KEY, problem=problem, allowed="one of the two"))
        if mistakes:
            raise RequestError(*mistakes)
        nested: dict[str, object] = {}
        for key, value in flat.items():
            if key in ("strength", TARGET_KEY) and value is None:
                continue  # null says nothing, and must not hide what the other key says
            section, dot, name = key.partition(".")
            if not dot and section in _FIRST_FIELD:
                dot, name = ".", _FIRST_FIELD[section]
            if not dot:
                nested[section] = value
                continue
            inner = nested.setdefault(section, {})
            if isinstance(inner, dict):
                inner[name] = value
        try:
            found = cls.model_validate(nested)
        except ValidationError as error:
            raise RequestError(*mistakes_from(error, where)) from None
        sections = {key: _shared(value) for key, value in vars(found).items() if isinstance(value, Frozen)}
        vars(found).update(sections)
        return found


@lru_cache(maxsize=256)
def _shared(section: Frozen) -> Frozen:
    """The first of equal sections: a sweep's trials differ in few, and there may be 100,000 trials."""
    return section


_FIRST_FIELD = {"data": "source", "backbone": "name", "head": "name"}
FLAT_KEYS: tuple[str, ...] = tuple(TrialConfig().flat())
"""Every dotted key a trial's configuration has."""
_NESTED = {f"{section}.{first}" for section, first in _FIRST_FIELD.items()}


def mistakes_from(error: ValidationError, where: str) -> list[Mistake]:
    """Translate pydantic's report into one :class:`Mistake` per wrong value."""
    mistakes = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"] if part not in _STRENGTH_TAGS)
        section, _, name = key.partition(".")
        if _FIRST_FIELD.get(section) == name:
            key = section
        message = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        if item["type"] == "extra_forbidden":
            mistakes.append(unknown(where, key, key, FLAT_KEYS, "key"))
            continue
        raised = item.get("ctx", {}).get("error")
        if isinstance(raised, _MisfitError):
            mistakes += [replace(misfit, where=where) for misfit in raised.mistakes]
            continue
        given = item.get("input")
        if key == "method":
            mistakes.append(method_mistake(where, key, given))
        elif key == "head":
            mistakes.append(unknown(where, key, given, tuple(HEADS), key))
        elif item["type"] == "value_error":
            mistakes.append(Mistake(where=where, key=key, problem=message))
        else:
            hint = " (YAML reads 1e-5 as text: write 1.0e-5)" if _looks_like_a_number(given) else ""
            mistakes.append(
                Mistake(
                    where=where,
                    key=key,
                    problem=f"{one_line(given)} is not allowed{hint}",
                    allowed=message,
                    suggestion=nearest(given, re.findall(r"'([^']*)'", message)),
                )
            )
    return mistakes


def _looks_like_a_number(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        float(value)
    except ValueError:
        return False
    return True


def load_config(path: Path) -> TrialConfig:
    """Read a trial's configuration (nested or dotted keys) from a YAML file; RequestError when it is wrong."""
    import yaml

    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(Mistake(where=str(path), key="", problem=f"cannot be read: {error.strerror}")) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # yaml lets some of Python's own errors through
        raise RequestError(Mistake(where=str(path), key="", problem=f"is not YAML: {error}")) from None
    if not isinstance(loaded, dict):
        raise RequestError(Mistake(where=str(path), key="", problem="must hold keys and values"))
    flat: dict[str, object] = {}
    for key, value in loaded.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{inner}": inner_value for inner, inner_value in value.items()})
        else:
            flat[str(key)] = value
    return TrialConfig.from_flat(flat, where=str(path))
