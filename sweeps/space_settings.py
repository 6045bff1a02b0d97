"""Reads the settings of a search (budget, sampler, confirmation) and judges whether they go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from repsim.config import TrialConfig
from repsim.errors import one_line
from repsim.records import EPOCH_METRICS, SIMILARITIES
from sweeps.space_notes import Notes, boolean_hint, integer, number, section, text_number_hint, word
from sweeps.space_resource_settings import RESOURCE_KEYS
from sweeps.space_types import ANCHORS, Budget, Dimension, Range, SearchSettings, Space

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "budget": ("trials", "epochs", "hours", "train_epochs", "stagnation"),
    "search": ("sampler", "stopping", "balance", "parallel", "seed"),
    "confirm": ("seeds", "runs"),
    "resources": RESOURCE_KEYS,
}
SAMPLERS = ("auto", "tpe", "nsga2", "nsga3", "gp", "qmc", "random", "grid")
STOPPING = ("none", "pareto")
BALANCE = ("none", "method", "backbone")
DEFAULT_TRIALS = 24
DEFAULT_EPOCHS = TrialConfig().optim.epochs
MAX_TRIALS = 100_000
MAX_SEED = 2**32 - 1
MAX_CONFIRM = 100
LEAST_SEEDS = 3
"""Fewer do not tell how far seeds scatter; the anchors get as many."""


def read_budget(
    notes: Notes, document: Mapping[str, object], fixed: Mapping[str, object], dimensions: Sequence[Dimension]
) -> Budget:
    """When the search ends."""
    budget = section(notes, document, "budget", SECTIONS["budget"])
    least = 2 if dimensions else 1
    trials = integer(
        notes,
        "budget.trials",
        budget.get("trials", max(DEFAULT_TRIALS, least)),
        low=least,
        high=MAX_TRIALS,
        otherwise=least,
    )
    epochs = integer(notes, "budget.epochs", budget.get("epochs", DEFAULT_EPOCHS), low=1, high=10_000, otherwise=1)
    hours = number(notes, "budget.hours", budget["hours"], above=0) if "hours" in budget else None
    epochs = _largest("optim.epochs", dimensions, fixed) or epochs
    limits = {
        key: integer(notes, f"budget.{key}", budget[key], low=low, high=10**9, otherwise=low)
        for key, low in (("train_epochs", epochs + 1), ("stagnation", 1))
        if key in budget
    }
    return Budget(
        trials=trials if dimensions else 1,
        epochs=epochs,
        hours=hours,
        train_epochs=limits.get("train_epochs"),
        stagnation=limits.get("stagnation"),
    )


def _largest(key: str, dimensions: Sequence[Dimension], fixed: Mapping[str, object]) -> int | None:
    """The largest whole number a key can take; None when the space says nothing about it."""
    found = [fixed[key]] if key in fixed else []
    for dimension in dimensions:
        if dimension.key == key:
            found += dimension.choices()
            found += [b.domain.high for b in dimension.branches if isinstance(b.domain, Range)]
    numbers = [int(value) for value in found if isinstance(value, int | float)]
    return max(numbers) if numbers else None


def read_search(notes: Notes, document: Mapping[str, object], dimensions: Sequence[Dimension]) -> SearchSettings:
    """How proposals are made."""
    search = section(notes, document, "search", SECTIONS["search"])
    sampler = word(notes, "search.sampler", search.get("sampler", "auto"), SAMPLERS)
    ranges = [d.key for d in dimensions if any(isinstance(b.domain, Range) for b in d.branches)]
    if sampler == "grid" and ranges:
        notes.add("search.sampler", f"a grid needs lists of values, and {', '.join(ranges)} has a range")
    balance = word(notes, "search.balance", search.get("balance", "none"), BALANCE)
    return SearchSettings(
        sampler=sampler,
        stopping=word(notes, "search.stopping", search.get("stopping", "none"), STOPPING),
        balance=None if balance == "none" else balance,
        parallel=_auto_integer(notes, "search.parallel", search.get("parallel", "auto")),
        seed=integer(notes, "search.seed", search.get("seed", 0), low=0, high=MAX_SEED, otherwise=0),
    )


def check_settings(notes: Notes, space: Space) -> None:
    """Note which settings do not go together."""
    if space.is_single_run:
        return
    _check_balance(notes, space)
    if space.search.sampler == "gp" and not notes.mistakes:
        _check_gp(notes, space)
    if space.search.stopping == "pareto":
        missing = [o.metric for o in space.objectives if o.metric not in EPOCH_METRICS]
        if missing:
            problem = (
                f"{', '.join(missing)} is measured after the last epoch alone, so trials cannot be compared before"
            )
            notes.add("search.stopping", problem, allowed="none, or objectives that are measured every epoch")
        if space.budget.epochs < 2:
            notes.add("search.stopping", "a trial of one epoch cannot be stopped early", allowed="none")
        if all(o.metric in SIMILARITIES for o in space.objectives):
            problem = "similarity alone is no reason to stop a trial: it is highest before any training"
            notes.add("search.stopping", problem, allowed="none, or an objective such as val_accuracy")
        _check_reported(notes, space)
    if space.confirm_seeds > 0 and space.search.seed + space.confirm_runs > MAX_SEED:
        problem = f"{space.search.seed} leaves no room for the seeds of {space.confirm_runs} confirmation runs"
        notes.add("search.seed", problem, allowed=f"at most {MAX_SEED - space.confirm_runs}")


def _check_reported(notes: Notes, space: Space) -> None:
    """What is stopped by the course of the last weights must be reported by those, or the two are compared in vain."""
    for key, usual in (("checkpoint", "last"), ("wise_alpha", 1.0)):
        others = [value for value in space.values(key) if value != usual] if _is_asked(space, key) else []
        if others:
            problem = f"pareto judges the last epoch's weights, and {key} {others[0]} reports others"
            notes.add("search.stopping", problem, allowed=f"none, or {key}: {usual}")


def _is_asked(space: Space, key: str) -> bool:
    return key in space.fixed or any(dimension.key == key for dimension in space.dimensions)


def _check_balance(notes: Notes, space: Space) -> None:
    key = space.search.balance
    if key is None:
        return
    found = [dimension for dimension in space.dimensions if dimension.key == key]
    if not found or len(space.values(key)) < 2:
        notes.add("search.balance", f"there is one {key}, so nothing to balance", allowed="none")
    elif any(branch.when for branch in found[0].branches):
        notes.add("search.balance", f"{key} depends on others, so its values cannot have equal shares", allowed="none")
    elif space.budget.trials < 2 * len(space.values(key)):
        least = 2 * len(space.values(key))
        notes.add("search.balance", f"{space.budget.trials} trials are too few", allowed=f"{least} trials or more")


def _check_gp(notes: Notes, space: Space) -> None:
    """A Gaussian process knows one flat space: in each study, a key is either always there or never."""
    balance = space.search.balance
    for dimension in space.dimensions:
        for data in space.data:
            for pinned in space.values(balance) if balance else (None,):
                domains = [
                    dimension.domain(method=str(method), backbone=str(backbone), data=data)
                    for method in ((pinned,) if balance == "method" else space.values("method"))
                    for backbone in ((pinned,) if balance == "backbone" else space.values("backbone"))
                ]
                if any(domain != domains[0] for domain in domains):
                    notes.add("search.sampler", *_no_gp(space, dimension))
                    return


def _no_gp(space: Space, dimension: Dimension) -> tuple[str]:
    asked = {"backbone" if key == "backbone" else "method" for b in dimension.branches for key in b.when} or {"method"}
    other = sorted(asked - {space.search.balance})
    fix = f"; write search: {{sampler: gp, balance: {other[0]}}}" if space.search.balance is None and other else ""
    return (f"gp would draw {dimension.key} at random, because it depends on {' and '.join(sorted(asked))}{fix}",)


def _auto_integer(notes: Notes, key: str, value: object) -> int | None:
    if value == "auto":
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 100_000:
        return value
    hint = text_number_hint(value) + boolean_hint(value)
    notes.add(key, f"{one_line(value)} is not allowed{hint}", allowed="auto, or a whole number from 1")
    return None


def read_confirm(notes: Notes, document: Mapping[str, object], trials: int) -> tuple[int, int]:
    """Fresh seeds of each candidate after the search (0 for none), and how many runs that may take."""
    confirm = section(notes, document, "confirm", SECTIONS["confirm"])
    given = confirm.get("seeds", 0)
    if isinstance(given, int) and not isinstance(given, bool) and 0 < given < LEAST_SEEDS:
        allowed = f"0, or a whole number from {LEAST_SEEDS}"
        notes.add("confirm.seeds", f"{given} is too few to tell luck from merit", allowed=allowed)
        return 0, 0
    seeds = integer(notes, "confirm.seeds", given, low=0, high=MAX_CONFIRM, otherwise=0)
    least = LEAST_SEEDS * len(ANCHORS) + seeds
    runs = confirm.get("runs", max(trials, least))
    if not seeds:  # nothing to run, but a number all the same
        integer(notes, "confirm.runs", confirm.get("runs", 0), low=0, high=MAX_TRIALS, otherwise=0)
        return 0, 0
    return seeds, integer(notes, "confirm.runs", runs, low=least, high=MAX_TRIALS, otherwise=least)
