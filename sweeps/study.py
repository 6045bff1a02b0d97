"""One data set's part of a search: what was proposed, how it ended, and what its samplers are told of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import optuna
from optuna.trial import TrialState

from repsim.catalogue import ADAPTERS
from repsim.config import TrialConfig
from repsim.records import Stage, Status
from sweeps.balance import Balanced
from sweeps.confirmation import End, Plan, Run, front_of_means, next_runs
from sweeps.domains import Params
from sweeps.experience import Experience
from sweeps.identity import identity
from sweeps.judgement import Candidate, Judgement, Outcome, Values
from sweeps.past import Past
from sweeps.proposals import MODELLED, Proposer
from sweeps.space import Space
from sweeps.space_initial import completed
from sweeps.stopping import ParetoStopping, Stopping
from sweeps.trial import Trial

GROWTH = 1e-3
"""A hypervolume that has grown by no more than this has stagnated."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A completed trial of an earlier sweep on the same images: its params in this space, its metrics, whence it is."""

    data: str
    params: Mapping[str, object]
    values: Values
    origin: str = ""


class _Draws(Protocol):
    def draw(self, ordinal: int, past: Experience, is_new: Callable[[Params], bool]) -> Params | None: ...

    def startup(self) -> int: ...


class Study:
    """The search over one data set. ``outcomes`` are in the order in which trials ended."""

    def __init__(self, space: Space, data: str, judgement: Judgement, evidence: Sequence[Evidence] = ()) -> None:
        self._space, self.data, self._judgement = space, data, judgement
        told = [self._earlier(entry) for entry in evidence if entry.data == data]
        self._plain = Proposer(space, data, evidence=told)
        balanced = space.search.balance is not None and not space.is_single_run
        self._proposer: _Draws = Balanced(space, data, evidence=told) if balanced else self._plain
        self._first = self._first_params()
        self._rule: Stopping | None = None
        if space.search.stopping == "pareto" and not space.is_single_run:
            self._rule = ParetoStopping(space.objectives, space.budget.epochs)
        self.trials: list[Trial] = []
        self.confirmations: list[Trial] = []
        self.outcomes: dict[str, Outcome] = {}
        self.changes = 0
        """How often the front has changed: as long as this stays, so does whatever is computed from it."""
        self._ended_by = ""
        self._identities: set[bytes] = set()
        self._epochs: dict[str, int] = {}
        self._partial: dict[str, Values] = {}
        self._past = Experience(judgement.directions, by=space.search.balance)
        self._running: dict[str, Trial] = {}
        self._trained = 0  # by the search trials that have ended
        self._leading: list[tuple[int, Candidate]] = []
        self._volumes: list[float] = []
        self._planned: tuple[int, Plan] | None = None

    # proposals

    def propose(self, trial_id: str) -> Trial | None:
        """The next search trial; None when there is none now. ``ended_by`` says when there never will be."""
        if self.ended_by:
            return None
        number, budget = len(self.trials), self._space.budget
        params = self._params(number)
        if params is None:
            self._ended_by = "the space: every point was tried"
            return None
        trial = Trial(
            trial_id=trial_id,
            number=number,
            data=self.data,
            stage=Stage.SEARCH,
            params=dict(params),
            config=self._config(params),
            anchor=number < len(self._space.anchors(self.data)),
        )
        if budget.train_epochs is not None and self.trained + planned_epochs(trial.config) > budget.train_epochs:
            if not self.outstanding:  # else one of them may be stopped, and leave epochs over
                self._ended_by = "budget.train_epochs"
            return None
        return trial

    def confirm(self, trial_id: str) -> Trial | None:
        """The next fresh seed of a candidate; None when there is none now."""
        made = {(trial.config.config_id, trial.config.seed) for trial in self.confirmations}
        due = next((one for one in self.plan.due if one not in made), None)
        if due is None:
            return None
        confirmed = next(trial for trial in self.trials if trial.config.config_id == due[0])
        return replace(
            confirmed,
            trial_id=trial_id,
            number=len(self.confirmations),
            stage=Stage.CONFIRM,
            config=TrialConfig.from_flat({**confirmed.config.flat(), "measure.wise": False, "seed": due[1]}),
            anchor=False,
            confirms=confirmed.trial_id,
        )

    def add(self, trial: Trial) -> None:
        """Take over a proposal. Raises ValueError when its ordinal is not the next."""
        mine = self.trials if trial.stage is Stage.SEARCH else self.confirmations
        if trial.number != len(mine):
            raise ValueError(f"trial {trial.trial_id} has number {trial.number}, {len(mine)} is the next")
        mine.append(trial)
        self._running[trial.trial_id] = trial
        if trial.stage is Stage.SEARCH:
            self._identities.add(_digest(trial.config))
            self._past.add(Past(params=trial.params, state=TrialState.RUNNING))

    def knows(self, trial: Trial) -> bool:
        """Whether this is one of its trials."""
        mine = self.trials if trial.stage is Stage.SEARCH else self.confirmations
        return trial.number < len(mine) and mine[trial.number].trial_id == trial.trial_id

    @property
    def ended_by(self) -> str:
        """What ended the search, such as ``budget.trials``; empty while there may be proposals."""
        spent = len(self.trials) >= (1 if self._space.is_single_run else self._space.budget.trials)
        return self._ended_by or ("budget.trials" if spent else "")

    @property
    def startup(self) -> int:
        """How many proposals are made before results are looked at; 0 when they never are."""
        return self._proposer.startup()

    # progress

    @property
    def outstanding(self) -> list[Trial]:
        """Proposed and not ended, confirmations last."""
        return list(self._running.values())

    @property
    def trained(self) -> int:
        """Epochs of the search trials, with all that running ones may still train."""
        return self._trained + sum(self._epochs_of(trial) for trial in self._searching())

    @property
    def plan(self) -> Plan:
        """What is to be confirmed, once the search is over and its trials have ended."""
        if self._planned is None or self._planned[0] != len(self.outcomes):
            self._planned = len(self.outcomes), self._plan()
        return self._planned[1]

    def _plan(self) -> Plan:
        seeds = 0 if self._space.is_single_run else self._space.confirm_seeds
        n_val = max((outcome.n_val for outcome in self.outcomes.values()), default=0)
        return next_runs(
            self._runs() if seeds > 0 else [],
            self._space.objectives,
            n_val=n_val or 10**12,  # not known: the binomial part of δ is left out
            seeds=seeds,
            search_seed=self._space.search.seed,
            max_runs=self._space.confirm_runs,
            feasible=self._judgement.feasible,
        )

    @property
    def over(self) -> bool:
        """Whether the search has ended with all its trials, so that it may be confirmed."""
        return bool(self.ended_by) and not self._searching()

    def confirmed_front(self) -> list[str] | None:
        """Ids of the search trials whose configurations are on the front of the means over fresh seeds.

        None while no candidate has two, so that there are no means worth the name.
        """
        means = front_of_means(self._runs(), self.plan.candidates, self._space.objectives, self._judgement.feasible)
        if not self.over or all(mean.n < 2 for mean in means):
            return None
        kept = {mean.config_id for mean in means if mean.on_front}
        return [trial.trial_id for trial in self.trials if trial.config.config_id in kept]

    @property
    def confirmed(self) -> bool:
        """Whether no confirmation is due any more (the search being over)."""
        return self.plan.end is not End.NOT_YET

    def report(self, trial: Trial, epoch: int, values: Values) -> bool:
        """Take in an epoch; whether the trial goes on. Anchors, probes and confirmations always do."""
        stoppable = self.observe(trial, epoch, values) and not trial.anchor
        if self._rule is None or not stoppable:
            return True
        return self._rule.report(trial.trial_id, epoch, values, of=trial.config.optim.epochs)

    def observe(self, trial: Trial, epoch: int, values: Values) -> bool:
        """Take in an epoch without a verdict; whether the stopping rule looks at it."""
        self._epochs[trial.trial_id] = max(epoch, self._epochs.get(trial.trial_id, 0))
        self._partial[trial.trial_id] = values
        if self._rule is None or trial.stage is not Stage.SEARCH or _is_probe(trial.config):
            return False
        self._rule.observe(trial.trial_id, epoch, values, of=trial.config.optim.epochs)
        return True

    def reason(self, trial: Trial) -> str:
        """Why the trial was stopped; empty for one that was not."""
        return "" if self._rule is None else self._rule.reason(trial.trial_id)

    def end(self, trial: Trial, outcome: Outcome) -> None:
        """Take in how a trial ended, as judged. Raises ValueError when it has ended before."""
        if trial.trial_id in self.outcomes:
            raise ValueError(f"trial {trial.trial_id} has ended before")
        self.outcomes[trial.trial_id] = outcome
        self._running.pop(trial.trial_id, None)
        if trial.stage is not Stage.SEARCH:
            return
        self._trained += self._epochs_of(trial)
        self._past.end(trial.number, self._as_past(trial, outcome))
        self._lead(trial, outcome)
        if self._rule is not None:
            useless = outcome.status is Status.FAILED
            if outcome.values is not None and outcome.status is Status.COMPLETED:
                useless = not self._judgement.feasible(outcome.values)
                if not useless and _is_probe(trial.config):
                    self._rule.anchor(trial.trial_id, outcome.values)
            if useless:
                self._rule.forget(trial.trial_id)
        if not self.ended_by and self._stagnates():
            self._ended_by = "budget.stagnation"

    # what there is

    def candidates(self) -> list[Candidate]:
        """What may be on the front: ids and metrics of the completed search trials, each with its derived points."""
        ended = (trial.trial_id for trial in self.trials if trial.trial_id in self.outcomes)
        return [candidate for trial_id in ended for candidate in _candidates(trial_id, self.outcomes[trial_id])]

    def leading(self) -> list[Candidate]:
        """Those of ``candidates`` that are on the front, in the same order; kept as trials end, so asking is cheap."""
        return [candidate for _, candidate in self._leading]

    def anchors(self) -> list[str]:
        """Ids of the anchors proposed so far."""
        return [trial.trial_id for trial in self.trials[: len(self._first)] if trial.anchor]

    def reference(self) -> dict[str, float] | None:
        """The hypervolume's reference point; None until both anchors have completed."""
        ended = [trial_id for trial_id in self.anchors() if trial_id in self.outcomes]
        found = [dict(_candidates(trial_id, self.outcomes[trial_id])).get(trial_id) for trial_id in ended]
        values = [value for value in found if value is not None]
        wanted = len(self._space.anchors(self.data))
        return self._judgement.reference(values) if wanted and len(values) == wanted else None

    def optuna_study(self) -> optuna.Study:
        """The search trials as an Optuna study in memory."""
        return self._plain.study(enumerate(self._experience().entries))

    # internals

    def _searching(self) -> list[Trial]:
        """Search trials that have not ended."""
        return [trial for trial in self._running.values() if trial.stage is Stage.SEARCH]

    def _first_params(self) -> list[Params]:
        """Anchors, then the person's own points; those that are the same run as one before are left out."""
        found: list[Params] = []
        if self._space.is_single_run:
            return found
        known: set[str] = set()
        anchors = self._space.anchors(self.data)
        starts = [completed(self._space, self.data, given) for given in self._space.initial]
        for number, params in enumerate([*anchors, *starts]):
            same = identity(self._config(params))
            if number < len(anchors) or same not in known:
                found.append(dict(params))
            known.add(same)
        return found

    def _params(self, number: int) -> Mapping[str, object] | None:
        if self._space.is_single_run:
            return {}
        if number < len(self._first):
            return self._first[number]
        return self._proposer.draw(number, self._experience(), self._is_new)

    def _config(self, params: Mapping[str, object]) -> TrialConfig:
        return self._space.config(params, data=self.data, seed=self._space.search.seed)

    def _is_new(self, params: Params) -> bool:
        return _digest(self._config(params)) not in self._identities

    def _experience(self) -> Experience:
        """The search trials as samplers see them; while they are modelled, with what is expected of stopped ones."""
        if self._rule is None or len(self._past) > MODELLED:
            return self._past
        expecting = (
            replace(entry, expected=self._expected(trial)) if entry.state is TrialState.PRUNED else entry
            for trial, entry in zip(self.trials, self._past.entries, strict=True)
        )
        return Experience(self._judgement.directions, expecting, by=self._space.search.balance)

    def _expected(self, trial: Trial) -> tuple[float, ...] | None:
        """What a stopped trial would have come to, by what is known now: the same after a restart."""
        named = None if self._rule is None else self._rule.expected(trial.trial_id)
        return None if named is None else self._judgement.point(named)

    def _lead(self, trial: Trial, outcome: Outcome) -> None:
        """Only what led before, or is new, can lead: whoever is dominated stays so."""
        new = [(trial.number, candidate) for candidate in _candidates(trial.trial_id, outcome)]
        if not new:
            return
        both = sorted([*self._leading, *new], key=lambda entry: entry[0])
        front = set(self._judgement.front([candidate for _, candidate in both]))
        if front != {name for _, (name, _) in self._leading}:
            self._leading = [entry for entry in both if entry[1][0] in front]
            self.changes += 1

    def _as_past(self, trial: Trial, outcome: Outcome) -> Past:
        if outcome.status is Status.FAILED or (outcome.status is Status.COMPLETED and outcome.values is None):
            return Past(params=trial.params, state=TrialState.FAIL)
        completed_values = outcome.values if outcome.status is Status.COMPLETED else None
        values = self._partial.get(trial.trial_id, {}) if completed_values is None else completed_values
        return Past(
            params=trial.params,
            state=TrialState.COMPLETE if outcome.status is Status.COMPLETED else TrialState.PRUNED,
            values=self._judgement.point(values) if self._judgement.measured(values) else None,
            violations=self._judgement.violations(values),
            anchor=trial.anchor,
        )

    def _earlier(self, evidence: Evidence) -> Past:
        return Past(
            params=evidence.params,
            state=TrialState.COMPLETE,
            values=self._judgement.point(evidence.values),
            violations=self._judgement.violations(evidence.values),
        )

    def _runs(self) -> list[Run]:
        return [self._as_run(trial) for trial in (*self.trials, *self.confirmations) if trial.trial_id in self.outcomes]

    def _as_run(self, trial: Trial) -> Run:
        outcome = self.outcomes[trial.trial_id]
        return Run(
            config_id=trial.config.config_id,
            seed=trial.config.seed,
            values=outcome.values if outcome.status is Status.COMPLETED else None,
            confirms=trial.stage is Stage.CONFIRM,
            anchor=trial.anchor,
        )

    def _epochs_of(self, trial: Trial) -> int:
        outcome = self.outcomes.get(trial.trial_id)
        if outcome is None or (outcome.status is Status.COMPLETED and trial.trial_id not in self._epochs):
            return planned_epochs(trial.config)
        return self._epochs.get(trial.trial_id, 0)

    def _stagnates(self) -> bool:
        """Whether the hypervolume has stopped growing; asked once at the end of each search trial."""
        patience, reference, first = self._space.budget.stagnation, self.reference(), len(self._first)
        begun = len(self.trials) >= first and all(trial.trial_id in self.outcomes for trial in self.trials[:first])
        if patience is None or reference is None or not begun:
            return False
        self._volumes.append(self._judgement.hypervolume(self.leading(), reference))
        return len(self._volumes) > patience and self._volumes[-1] - self._volumes[-1 - patience] <= GROWTH


def _candidates(trial_id: str, outcome: Outcome) -> list[Candidate]:
    """The trial and its derived points; none unless it completed."""
    if outcome.status is not Status.COMPLETED or outcome.values is None:
        return []
    return list({trial_id: outcome.values, **outcome.derived}.items())


def planned_epochs(config: TrialConfig) -> int:
    """Epochs that a trial trains when nothing stops it; a linear probe's fit counts as one."""
    return 1 if _is_probe(config) else config.optim.epochs


def _digest(config: TrialConfig) -> bytes:
    """Names a run in 16 bytes: there are as many as trials."""
    return hashlib.blake2b(identity(config).encode(), digest_size=16).digest()


def _is_probe(config: TrialConfig) -> bool:
    return not ADAPTERS[config.parsed_method.adapter].trains_backbone
