"""Judges a space document as a whole and builds the :class:`sweeps.space.Space` it describes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

from repsim.catalogue import parse_method
from repsim.config import TARGET_KEY, TrialConfig
from repsim.errors import RequestError, nearest, one_line
from sweeps.space_conditions import matches
from sweeps.space_domains import REFUSED, canonical, read_branches, searchable_keys
from sweeps.space_goals import OBJECTIVES_ALLOWED, read_constraints, read_objectives
from sweeps.space_initial import check_initial, read_initial
from sweeps.space_notes import (
    NAME_ALLOWED,
    Notes,
    check_keys,
    join,
    name_problem,
)
from sweeps.space_resource_settings import check_case_names, check_resources, read_resources
from sweeps.space_settings import (
    SECTIONS,
    check_settings,
    read_budget,
    read_confirm,
    read_search,
)
from sweeps.space_types import STRENGTH_KEYS, Branch, Dimension, Space
from sweeps.space_whole import check_whole

TOP_KEYS = ("name", "question", "data", "objectives", "constraints", *SECTIONS, "initial", "fixed", "space")
DEFAULT_DATA = TrialConfig().data.source
CONSTANT_KEYS = (
    "data.split_seed",
    "data.fractions",
    "data.group",
    "data.probe_size",
    "data.task",
    "data.on_error",
    "measure.sharpness",
    "measure.similarity",
    "measure.quality",
    "measure.layers",
    "measure.wise",
    "wise_alpha",
)
"""Keys that decide which images are measured, and what is measured on them."""
_EVERY_POINT = "measure.wise: true in fixed, which takes these points of every trial without training again"


def space_from_dict(document: Mapping[str, object], *, where: str = "space") -> Space:
    """Validate a document such as ``Space.to_dict`` writes; RequestError, naming ``where``, with every mistake."""
    return build_space(document, notes=Notes(where=where))


def build_space(document: Mapping[str, object], *, notes: Notes, narrowed: bool = False) -> Space:
    """Validate a document and build its space, or raise RequestError with every mistake at once.

    ``notes`` names the file and holds what was found wrong before. ``narrowed`` says that a flag replaced methods,
    backbones or data: searched keys that can then never hold are dropped instead of refused.
    """
    check_keys(notes, "", document, TOP_KEYS)
    for key in ("name", "objectives", "space"):
        if key not in document:
            notes.add(key, "is missing", allowed=_REQUIRED[key])
    name = _name(notes, document)
    question = document.get("question", "")
    if not isinstance(question, str):
        notes.add("question", f"{one_line(question)} is not text", allowed="a sentence in quotes")
    data = _data(notes, document.get("data", DEFAULT_DATA))
    objectives = read_objectives(notes, document["objectives"]) if "objectives" in document else ()
    constraints = read_constraints(notes, document.get("constraints"))
    fixed = _fixed(notes, document.get("fixed"))
    dimensions = _dimensions(notes, document.get("space", {}), fixed)
    dimensions = _ordered(notes, dimensions)
    dimensions, fixed = _living(notes, dimensions, fixed, data, narrowed)
    budget = read_budget(notes, document, fixed, dimensions)
    confirm_seeds, confirm_runs = read_confirm(notes, document, budget.trials)
    space = Space(
        name=name,
        question=str(question),
        data=data,
        objectives=objectives,
        constraints=constraints,
        budget=budget,
        search=read_search(notes, document, dimensions),
        confirm_seeds=confirm_seeds,
        confirm_runs=confirm_runs,
        resources=read_resources(notes, document),
        fixed=fixed,
        dimensions=dimensions,
        initial=read_initial(notes, document.get("initial"), dimensions),
    )
    known = {"backbone": _listed("backbone", dimensions, fixed), "data": data}
    check_case_names(notes, space.resources, known, narrowed=narrowed)
    if not notes.mistakes:
        check_settings(notes, space)
        check_resources(notes, space)
        check_whole(notes, space)
    if not notes.mistakes:
        check_initial(notes, space)
    if notes.mistakes:
        raise RequestError(*notes.mistakes)
    return space


_REQUIRED = {
    "name": NAME_ALLOWED,
    "objectives": OBJECTIVES_ALLOWED,
    "space": "searched keys and their values, or {} for one run of what is fixed",
}


def _name(notes: Notes, document: Mapping[str, object]) -> str:
    if "name" not in document:
        return ""
    problem = name_problem(document["name"])
    if problem is not None:
        notes.add("name", problem, allowed=NAME_ALLOWED)
    return str(document["name"])


def _data(notes: Notes, value: object) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    if not items:
        notes.add("data", "is an empty list", allowed="at least one SOURCE")
    found: list[str] = []
    for position, item in enumerate(items):
        here = f"data[{position}]" if isinstance(value, list) else "data"
        if not isinstance(item, str) or not item.strip() or "\x00" in item:
            notes.add(
                here,
                f"{one_line(item)} is not a data source",
                allowed="phantom:NAME, folder:DIR, csv:FILE, npz:FILE, medmnist:NAME, or a path",
            )
        elif item in found:
            notes.add(here, f"{one_line(item)} is named twice", allowed="each source once")
        else:
            found.append(item)
    return tuple(found)


def _fixed(notes: Notes, value: object) -> dict[str, object]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        notes.add("fixed", f"{one_line(value)} is not a section", allowed="{KEY: VALUE, …}")
        return {}
    fixed: dict[str, object] = {}
    for key, given in _flat_strength(value).items():
        path = join("fixed", key)
        if not _trial_key(notes, path, key):
            continue
        if isinstance(given, Mapping):
            notes.add(
                path, f"{one_line(given)} is not one value (what is searched belongs in space)", allowed="a value"
            )
            continue
        found = canonical(notes, str(key), path, given)
        if found is not REFUSED:
            fixed[str(key)] = found
    return fixed


def _flat_strength(section: Mapping[object, object]) -> Mapping[object, object]:
    """``strength: {target_cka: …}`` spelt as the dotted key it stands for."""
    given, inner = section.get("strength"), TARGET_KEY.removeprefix("strength.")
    if not isinstance(given, Mapping) or set(given) != {inner} or TARGET_KEY in section:
        return section
    return {**{key: value for key, value in section.items() if key != "strength"}, TARGET_KEY: given[inner]}


def _trial_key(notes: Notes, path: str, key: object) -> bool:
    """Whether ``key`` may stand in ``fixed`` or ``space``; a mistake is noted when not."""
    allowed = searchable_keys()
    if isinstance(key, str) and key in allowed:
        return True
    if key == "seed":
        notes.add(path, "all trials of a search train with search.seed", allowed="search: {seed: …}")
    elif key in ("data", "data.source"):
        notes.add(path, "the data is named at the top of the file", allowed="data: SOURCE")
    else:
        notes.unknown_key(path, key, allowed)
    return False


def _dimensions(notes: Notes, value: object, fixed: dict[str, object]) -> tuple[Dimension, ...]:
    """The searched keys, in the order of the file; unconditional scalars go to ``fixed`` instead."""
    if not isinstance(value, Mapping):
        notes.add("space", f"{one_line(value)} is not a section", allowed=_REQUIRED["space"])
        return ()
    found: list[Dimension] = []
    for written, given in _flat_strength(value).items():
        key, path = str(written), join("space", written)
        if not _trial_key(notes, path, written):
            continue
        if key in fixed:
            notes.add(path, "is fixed as well", allowed="either in fixed or in space")
        elif key == "wise_alpha":
            notes.add(path, "is not searched: one training has all its points", allowed=_EVERY_POINT)
        elif key in CONSTANT_KEYS:
            notes.add(path, "is constant within a search: all trials are measured alike", allowed="fixed")
        elif isinstance(given, list | Mapping):
            branches = read_branches(notes, key, path, given)
            if branches:
                found.append(Dimension(key=key, branches=branches))
        elif given is None:
            notes.add(path, "is empty", allowed="a value, a list of values, or {low, high, log}")
        else:
            value_found = canonical(notes, key, path, given)
            if value_found is not REFUSED:
                fixed[key] = value_found
    return tuple(found)


def _ordered(notes: Notes, dimensions: tuple[Dimension, ...]) -> tuple[Dimension, ...]:
    """Method and backbone first, in the order their conditions ask for; the rest by name.

    The order decides what a sampler proposes, so it must not hang on the order of lines in a file.
    """
    leading = {d.key: d for d in dimensions if d.key in ("method", "backbone")}
    asks = {key: {_asked(k) for b in d.branches for k in b.when} & set(leading) for key, d in leading.items()}
    for key, asked in asks.items():
        if key in asked:
            notes.add(
                f"space.{key}.when",
                f"{key} depends on itself",
                allowed="backbone, data" if key == "method" else "method, adapter, penalty, data",
            )
    if "backbone" in asks.get("method", ()) and "method" in asks.get("backbone", ()):
        notes.add("space.method.when", "method depends on backbone and backbone on method")
    order = ["backbone", "method"] if "backbone" in asks.get("method", ()) else ["method", "backbone"]
    rest = sorted((d for d in dimensions if d.key not in leading), key=lambda d: d.key)
    return tuple([leading[key] for key in order if key in leading] + rest)


def _asked(when_key: str) -> str:
    return "method" if when_key in ("adapter", "penalty") else when_key


def _listed(key: str, dimensions: Sequence[Dimension], fixed: Mapping[str, object]) -> tuple[str, ...]:
    for dimension in dimensions:
        if dimension.key == key:
            return tuple(str(value) for value in dimension.choices())
    return (str(fixed.get(key, TrialConfig().flat()[key])),)


def _living(
    notes: Notes, dimensions: tuple[Dimension, ...], fixed: dict[str, object], data: tuple[str, ...], narrowed: bool
) -> tuple[tuple[Dimension, ...], dict[str, object]]:
    """Dimensions whose conditions can be met, and a strength only where there is a penalty."""
    methods, backbones = _listed("method", dimensions, fixed), _listed("backbone", dimensions, fixed)
    penalised = [parse_method(method).penalty is not None for method in methods]
    pointless = [key for key in STRENGTH_KEYS if fixed.get(key) is not None and not any(penalised)]
    if narrowed:
        fixed = {key: value for key, value in fixed.items() if key not in pointless}
    else:
        for key in pointless:
            notes.add(f"fixed.{key}", _NO_PENALTY)
    kept: list[Dimension] = []
    for written in dimensions:
        dimension = _penalised_only(notes, written) if written.key in STRENGTH_KEYS else written
        before = len(notes.mistakes)
        _check_when_names(notes, dimension, {"backbone": backbones, "data": data}, narrowed)
        alive = any(
            dimension.domain(method=m, backbone=b, data=d) is not None
            for m, b, d in itertools.product(methods, backbones, data)
        )
        if alive:
            kept.append(dimension)
        elif not narrowed and data and len(notes.mistakes) == before:
            hopeless = dimension.key in STRENGTH_KEYS and not any(penalised)
            notes.add(
                f"space.{dimension.key}", _NO_PENALTY if hopeless else "its 'when' holds for no trial of this space"
            )
    return tuple(kept), fixed


_NO_PENALTY = "no method of this space has a penalty, so there is no strength"


def _penalised_only(notes: Notes, dimension: Dimension) -> Dimension:
    """A strength is absent without a penalty (an anchor's, say): ``penalty: any`` is implied where nothing is said."""
    branches: list[Branch] = []
    for branch in dimension.branches:
        asked = branch.when.get("penalty")
        if asked is not None and "none" in asked:
            key = f"space.{dimension.key}.when.penalty"
            notes.add(key, "there is no strength without a penalty", allowed="any, or a penalty")
        branches.append(branch if asked else replace(branch, when={**branch.when, "penalty": ("any",)}))
    return replace(dimension, branches=tuple(branches))


def _check_when_names(notes: Notes, dimension: Dimension, known: Mapping[str, tuple[str, ...]], narrowed: bool) -> None:
    """Backbones and data in a ``when`` must be among the space's own, unless a flag replaced those."""
    for branch in dimension.branches:
        for key, names in known.items():
            for pattern in branch.when.get(key, ()):
                if not narrowed and names and not any(matches(pattern, name) for name in names):
                    notes.add(
                        f"space.{dimension.key}.when.{key}",
                        f"{one_line(pattern)} matches no {key} of this space",
                        allowed=", ".join(names),
                        suggestion=nearest(pattern, names),
                    )
