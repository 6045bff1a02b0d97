"""Spaces built in code and a synthetic objective: sweeps without training."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace

from repsim.config import TrialConfig
from repsim.records import FACTS, METRICS, Objective, Status, TrialResult
from sweeps.samplers import SAMPLERS
from sweeps.search import Outcome, Search
from sweeps.space import Branch, Budget, Choice, Dimension, Domain, Range, Resources, SearchSettings, Space
from sweeps.trial import Trial, TrialRecord

QUICK = tuple(name for name in SAMPLERS if name != "gp")
"""A Gaussian process takes half a second a proposal and loads torch: it has its own tests."""
METHODS = ("full", "linear_probe", "repsim", "hcs", "feature_mse")
BACKBONES = ("tf_efficientnet_lite0", "mobilenetv2_100")
STRENGTH = Dimension(
    key="strength",
    branches=(Branch(when={"penalty": ("any",)}, domain=Range(low=0.03, high=30.0, log=True)),),
)
LR = Range(low=3e-5, high=1e-3, log=True)


def always(key: str, domain: Domain) -> Dimension:
    """A dimension without conditions."""
    return Dimension(key=key, branches=(Branch(when={}, domain=domain),))


PARETO = (
    always("method", Choice(values=METHODS)),
    always("backbone", Choice(values=BACKBONES)),
    STRENGTH,
    always("optim.lr", LR),
)


def make_space(
    *,
    sampler: str = "auto",
    trials: int = 24,
    seed: int = 0,
    data: tuple[str, ...] = ("phantom:ultrasound",),
    dimensions: tuple[Dimension, ...] = PARETO,
    **changes: object,
) -> Space:
    """The default question, with a budget and a sampler."""
    space = Space(
        name="pareto",
        question="",
        data=data,
        objectives=(
            Objective(metric="val_accuracy", direction="maximize"),
            Objective(metric="val_cka", direction="maximize"),
        ),
        constraints=(),
        budget=Budget(trials=trials, epochs=6),
        search=SearchSettings(sampler=sampler, seed=seed),
        confirm_seeds=0,
        resources=Resources(),
        fixed={"data.image_size": 64},
        dimensions=dimensions,
    )
    return replace(space, **changes)  # type: ignore[arg-type]


def values_of(config: TrialConfig) -> dict[str, float]:
    """Every metric, from a smooth trade-off: strength costs accuracy and keeps similarity; lr has an optimum."""
    method = config.parsed_method
    pull = 0.0 if config.strength is None else config.strength / (1 + config.strength)
    kept = {"repsim": 0.9, "hcs": 0.7, "feature_mse": 0.8}.get(method.penalty or "", 0.0) * pull
    miss = (math.log10(config.optim.lr) + 3.5) ** 2
    wobble = int(hashlib.sha256(config.config_id.encode()).hexdigest()[:6], 16) / 16**6
    values = dict.fromkeys(METRICS, 0.5)
    values["val_accuracy"] = 0.9 - 0.1 * pull - 0.05 * miss + 0.005 * wobble
    values["val_cka"] = min(1.0, 0.3 + kept + 0.03 * miss)
    if method.adapter == "linear_probe":
        values |= {"val_accuracy": 0.75 + 0.005 * wobble, "val_cka": 1.0}
    return values


def outcome_of(trial: Trial) -> Outcome:
    """Mostly completed; every seventh fails, every eleventh is pruned, every thirteenth answers NaN."""
    if trial.number % 7 == 5:
        return Outcome(status=Status.FAILED, reason="RuntimeError: out of memory")
    if trial.number % 11 == 9:
        return Outcome(status=Status.PRUNED, reason="behind the front")
    values = values_of(trial.config)
    if trial.number % 13 == 8:
        values["val_cka"] = math.nan
    return Outcome(status=Status.COMPLETED, values=values)


def record_of(trial: Trial, outcome: Outcome | None) -> TrialRecord:
    """What the journal would say of a trial; running without an outcome."""
    if outcome is None:
        return TrialRecord(trial=trial, status=Status.RUNNING, attempts=1)
    result = None
    if outcome.status is Status.COMPLETED and outcome.values is not None:
        result = TrialResult(chosen_epoch=6, epochs=6, values=dict(outcome.values), facts=dict.fromkeys(FACTS, 0))
    return TrialRecord(trial=trial, status=outcome.status, attempts=1, reason=outcome.reason, result=result)


def simulate(
    search: Search,
    *,
    parallel: int = 1,
    steps: int | None = None,
    running: list[Trial] | None = None,
    judge: Callable[[Trial], Outcome] = outcome_of,
) -> tuple[list[Trial], dict[str, Outcome], list[Trial]]:
    """Ask and tell, first in first out, until nothing is proposed or ``steps`` proposals were made.

    Returns the proposals made here, the outcomes as judged, and the trials left running.
    """
    running = list(running or [])
    proposed: list[Trial] = []
    outcomes: dict[str, Outcome] = {}
    while steps is None or len(proposed) < steps:
        while len(running) >= parallel:
            trial = running.pop(0)
            outcomes[trial.trial_id] = search.tell(trial, judge(trial))
        trial_or_none = search.ask()
        if trial_or_none is None and running and steps is None and not search.exhausted:
            trial = running.pop(0)  # what comes next hangs on how it ends
            outcomes[trial.trial_id] = search.tell(trial, judge(trial))
            continue
        if trial_or_none is None:
            break
        proposed.append(trial_or_none)
        running.append(trial_or_none)
    if steps is None:
        for trial in running:
            outcomes[trial.trial_id] = search.tell(trial, judge(trial))
        running = []
    return proposed, outcomes, running
