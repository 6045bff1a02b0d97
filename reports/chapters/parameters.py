"""What varied between the trials of a search, and which of them each setting could have touched."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.fronts import Point, Study
from reports.load import Sweep
from reports.paper_tables import varied_keys
from repsim.catalogue import ADAPTERS, HEADS, PENALTIES, WRAPPERS, HeadInfo, Method, WrapperInfo, parse_method
from repsim.config import TARGET_KEY

ADAPTER, PENALTY = "adapter", "penalty"
NO_PENALTY = "none"
DECADES = 1.5
"""A range of positive numbers wider than this many factors of ten is looked at on a logarithmic scale."""
FEW = 8
"""So many distinct numbers, or fewer, are choices out of a list and no range."""
_STRENGTHS = ("strength", TARGET_KEY)
_OWNED = frozenset(
    {f"head.{name}" for info in HEADS.values() for name in info.settings}
    | {f"optim.{name}" for info in WRAPPERS.values() for name in info.settings}
)
_UNREAD_BY_A_PROBE = ("optim.", "data.augment", "data.views", "checkpoint")

Value = float | str | None


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A setting over the searched trials: ``values`` (one per trial) are numbers or texts, None where it has no say.

    A penalty's setting has none in a trial without that penalty. ``log`` numbers are positive and spread over more than
    DECADES. ``range`` says that numbers come from one: there are more than FEW different ones.
    """

    name: str
    values: tuple[Value, ...]

    @property
    def present(self) -> tuple[float | str, ...]:
        """The values of the trials that have it."""
        return tuple(value for value in self.values if value is not None)

    @property
    def numbers(self) -> tuple[float, ...]:
        """The same where they are numbers; empty where any is text."""
        found = tuple(value for value in self.present if isinstance(value, float))
        return found if len(found) == len(self.present) else ()

    @property
    def log(self) -> bool:
        """Whether it is looked at on a logarithmic scale."""
        return wide(self.numbers)

    @property
    def range(self) -> bool:
        """Whether its values come from a range rather than from a list."""
        return len(set(self.numbers)) > FEW


def wide(numbers: Sequence[float]) -> bool:
    """Whether positive ``numbers`` spread over more than DECADES; False without any."""
    return bool(numbers) and min(numbers) > 0 and math.log10(max(numbers) / min(numbers)) > DECADES


def searched(study: Study) -> tuple[Point, ...]:
    """The trials that the search drew and that came to their end: no anchor, none stopped early, no derived point."""
    return tuple(p for p in study.points if not p.anchor and not p.pruned and p.derived_from is None)


def parameters(sweep: Sweep, points: Sequence[Point]) -> tuple[Parameter, ...]:
    """What varies over ``points``, one value per point; a method's two parts stand beside it where they say more."""
    configs = [sweep.configs[point.run_id] for point in points]
    methods = [_parsed(point.method) for point in points]
    known = varied_keys(sweep, [point.run_id for point in points]) if points else ()
    columns: dict[str, list[Value]] = {
        "method": [point.method for point in points],
        ADAPTER: [None if method is None else method.adapter for method in methods],
        PENALTY: [None if method is None else method.penalty or NO_PENALTY for method in methods],
    }
    for part in (ADAPTER, PENALTY):
        if _same_split(columns[part], columns["method"]):
            del columns[part]
    for key in known:
        if key == "backbone":
            columns[key] = [point.backbone for point in points]
        elif key != "method":
            columns[key] = _column(
                key,
                [
                    config.get(key) if reads(config, method, key) else _ABSENT
                    for config, method in zip(configs, methods, strict=True)
                ],
            )
    found = (Parameter(name=name, values=tuple(values)) for name, values in columns.items())
    return tuple(parameter for parameter in found if len(set(parameter.present)) > 1)


_ABSENT = object()


def reads(config: Mapping[str, object], method: Method | None, key: str) -> bool:
    """Whether a trial of this flat configuration takes any notice of ``key``; a method that is not known reads all.

    LoRA's rank means nothing to a method without LoRA, a learning rate nothing to a linear probe. The search has the
    same rule for telling runs apart, in a package that reports may not import; a test holds the two together.
    """
    if key in _STRENGTHS:
        return config.get(key) is not None
    if method is None:
        return True
    adapter, penalty = ADAPTERS[method.adapter], PENALTIES.get(method.penalty or "")
    if not adapter.trains_backbone and key.startswith(_UNREAD_BY_A_PROBE):
        return False
    section, _, name = key.partition(".")
    if section == "adapter":
        return name in adapter.settings
    if section == "penalty":
        return penalty is not None and (name in penalty.settings or (name == "layers" and penalty.layerwise))
    if key in _OWNED:
        table: Mapping[str, HeadInfo | WrapperInfo] = HEADS if section == "head" else WRAPPERS
        chosen = ("head",) if section == "head" else ("optim.sam", "optim.average")
        owners = (table.get(str(config.get(choice))) for choice in chosen)
        return any(owner is not None and name in owner.settings for owner in owners)
    return True


def _parsed(method: str) -> Method | None:
    try:
        return parse_method(method)
    except ValueError:
        return None


def _same_split(part: Sequence[Value], whole: Sequence[Value]) -> bool:
    """Whether ``part`` separates the trials exactly as ``whole`` does."""
    pairs = set(zip(part, whole, strict=True))
    return len(pairs) == len(set(part)) == len(set(whole))


def _column(key: str, values: Sequence[object]) -> list[Value]:
    """Numbers where all are; else text, in which a null that is no absence has its name."""
    told = [value for value in values if value is not _ABSENT and value is not None]
    if told and all(isinstance(value, int | float) and not isinstance(value, bool) for value in told):
        return [float(value) if isinstance(value, int | float) else None for value in values]
    return [None if value is _ABSENT else _text(value) for value in values]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
