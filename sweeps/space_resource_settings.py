"""Reads what trials get of the machine, and judges whether every trial of the space can be run on so much."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from repsim.config import TrialConfig
from repsim.errors import nearest, one_line
from sweeps.space_conditions import matches
from sweeps.space_domains import read_when
from sweeps.space_notes import Notes, boolean_hint, check_keys, finite, number, section, text_number_hint, word
from sweeps.space_resources import Asked, Case, Resources, Setting
from sweeps.space_types import Space
from sweeps.space_whole import ends, methods_and_backbones

RESOURCE_KEYS = ("workers", "cpus_per_worker", "gpus_per_worker", "epoch_timeout", "placement_timeout", "models")
DEPENDENT = RESOURCE_KEYS[:3]
"""Settings that may depend on the trial."""
MODELS = ("front", "none")
MAX_WORKERS = 1024
_CASE_KEYS = ("when", "value")
_DEFAULTS: Mapping[str, object] = TrialConfig().flat()
_Reader = Callable[[Notes, str, object], float | None]


def read_resources(notes: Notes, document: Mapping[str, object]) -> Resources:
    """What one trial gets."""
    given = section(notes, document, "resources", RESOURCE_KEYS)
    return Resources(
        workers=_setting(notes, "resources.workers", given.get("workers", 1), _workers),
        cpus_per_worker=_setting(notes, "resources.cpus_per_worker", given.get("cpus_per_worker", "auto"), _cpus),
        gpus_per_worker=_setting(notes, "resources.gpus_per_worker", given.get("gpus_per_worker", "auto"), _gpus),
        epoch_timeout=_seconds(notes, "resources.epoch_timeout", given),
        placement_timeout=_seconds(notes, "resources.placement_timeout", given),
        models=word(notes, "resources.models", given.get("models", "front"), MODELS),
    )


def _seconds(notes: Notes, path: str, given: Mapping[str, object]) -> float | None:
    value = given.get(path.rpartition(".")[2], "auto")
    return None if value == "auto" else number(notes, path, value, above=0)


def _setting(notes: Notes, path: str, value: object, read: _Reader) -> Setting:
    """One value, or cases; what is wrong is noted."""
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        return read(notes, path, value)
    if not value:
        notes.add(path, "is an empty list", allowed="at least one {when: {…}, value: …}")
    cases = []
    for position, item in enumerate(value):
        here = f"{path}[{position}]"
        if not isinstance(item, Mapping):
            notes.add(here, f"{one_line(item)} is no case", allowed="{when: {…}, value: …}, and last {value: …}")
            continue
        check_keys(notes, here, item, _CASE_KEYS)
        if "value" not in item:
            if all(key in _CASE_KEYS for key in item):  # else it is the misspelt key that was noted
                notes.add(here, "has no value", allowed="{when: {…}, value: …}")
            continue
        when = read_when(notes, f"{here}.when", item["when"]) if "when" in item else {}
        if not when and position < len(value) - 1:
            problem = "holds everywhere, so what follows it is never reached"
            notes.add(here, problem, allowed="a 'when', or the last place")
        cases.append(Case(when=when, value=read(notes, f"{here}.value", item["value"])))
    return tuple(cases)


def _workers(notes: Notes, path: str, value: object) -> float | None:
    return _whole(notes, path, value, f"a whole number from 1 to {MAX_WORKERS}", most=MAX_WORKERS)


def _cpus(notes: Notes, path: str, value: object) -> float | None:
    return None if value == "auto" else _whole(notes, path, value, "auto, or a whole number from 1", most=100_000)


def _whole(notes: Notes, path: str, value: object, allowed: str, *, most: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
        return value
    hint = text_number_hint(value) + boolean_hint(value)
    notes.add(path, f"{one_line(value)} is not allowed{hint}", allowed=allowed)
    return 1


def _gpus(notes: Notes, path: str, value: object) -> float | None:
    if value == "auto":
        return None
    found = finite(value)
    if found is not None and found > 1 and not found.is_integer():
        problem = f"{one_line(value)} is neither a share of one GPU nor a number of GPUs"
        notes.add(path, problem, allowed="a number from 0 to 1, or a whole number")
        return None
    return number(notes, path, value, above=0, inclusive=True)


def check_case_names(
    notes: Notes, resources: Resources, known: Mapping[str, Sequence[str]], *, narrowed: bool = False
) -> None:
    """Backbones and data in a ``when`` must be among the space's own, unless a flag replaced those."""
    for name in DEPENDENT if not narrowed else ():
        setting: Setting = getattr(resources, name)
        for case in setting if isinstance(setting, tuple) else ():
            for key, names in known.items():
                for pattern in case.when.get(key, ()):
                    if names and not any(matches(pattern, one) for one in names):
                        problem = f"{one_line(pattern)} matches no {key} of this space"
                        where = f"resources.{name}.when.{key}"
                        notes.add(where, problem, allowed=", ".join(names), suggestion=nearest(pattern, names))


def sizes(space: Space) -> Iterator[tuple[Mapping[str, object], str, Asked]]:
    """Every method and backbone that can meet, on each data set, with what such a trial gets; the anchors first."""
    for data in space.data:
        for chosen in [*space.anchors(data), *methods_and_backbones(space, data)]:
            backbone = str(chosen.get("backbone", space.values("backbone")[0]))
            yield chosen, data, space.resources.of(method=str(chosen["method"]), backbone=backbone, data=data)


def check_resources(notes: Notes, space: Space) -> None:
    """Note which trials cannot be shared among as many workers as they get."""
    for chosen, data, asked in sizes(space):
        if asked.workers == 1:
            continue
        share = asked.gpus_per_worker
        if share is not None and 0 < share < 1:
            problem = f"{asked.workers} workers of one trial cannot share a GPU, and {share:g} is a share"
            notes.add("resources.gpus_per_worker", problem, allowed="auto, 0, or a whole number")
        smallest = min(_numbers(space, "optim.batch_size", chosen, data))
        if smallest < asked.workers:
            problem = f"a batch of {smallest:g} images leaves some of {asked.workers} workers without one"
            notes.add("resources.workers", problem, allowed=f"at most {smallest:g}, or a larger optim.batch_size")
        if "train" in _values(space, "optim.batch_norm", chosen, data):
            problem = f"{asked.workers} workers would take batch-norm statistics apart, which is other training"
            notes.add("resources.workers", problem, allowed="1, or optim.batch_norm: frozen")


def _numbers(space: Space, key: str, chosen: Mapping[str, object], data: str) -> list[float]:
    return [value for value in _values(space, key, chosen, data) if isinstance(value, int | float)]


def _values(space: Space, key: str, chosen: Mapping[str, object], data: str) -> list[object]:
    """What a key can be in a trial; where it is absent, its default."""
    default = space.fixed.get(key, _DEFAULTS[key])
    if all(dimension.key != key for dimension in space.dimensions):
        return [default]
    return [default if value is None else value for value in ends(space.domain(key, chosen, data))]
