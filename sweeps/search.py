"""The search, without an engine: ask for a trial, report its epochs, tell what became of it.

Ray drives it in a sweep, a loop drives it in simulations. One independent study per data set; proposals alternate over
the data sets. What is proposed when is described in :mod:`sweeps.proposals`; it depends on the space, ``search.seed``
and the history alone, so ``restore`` needs nothing but the journal's records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.trial import TrialState

from repsim.config import TrialConfig
from repsim.records import Stage, Status
from sweeps.domains import Params
from sweeps.identity import identity
from sweeps.judgement import Candidate, Judgement, Outcome
from sweeps.proposals import Past, Proposer
from sweeps.space import Space
from sweeps.trial import Trial, TrialRecord

__all__ = ["ANCHORS", "Outcome", "Search"]

ANCHORS = 2
"""Every sweep's first trials per data set: ``linear_probe`` and ``full`` at default settings."""


@dataclass
class _Study:
    """One data set's part of the search: its proposals in order, and how each ended (None while it runs)."""

    data: str
    proposer: Proposer
    trials: list[Trial] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    identities: set[str] = field(default_factory=set)
    exhausted: bool = False


class Search:
    """Ask and tell over a space; counts the budget, judges outcomes, knows the front."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._judgement = Judgement(objectives=space.objectives, constraints=space.constraints)
        self._studies = {data: _Study(data, Proposer(space, data)) for data in space.data}
        self._next = 0
        self._closed = False

    # proposals

    def ask(self) -> Trial | None:
        """The next proposal; None when every budget is spent, the space is exhausted, or ``close`` was called."""
        while not self._closed:
            studies = [study for study in self._studies.values() if self._open(study)]
            if not studies:
                return None
            study = min(studies, key=lambda candidate: len(candidate.trials))
            trial = self._propose(study)
            if trial is not None:
                self._add(study, trial)
                return trial
            study.exhausted = True
        return None

    def close(self) -> None:
        """Propose nothing more (interrupted, or out of hours); trials under way may still be told."""
        self._closed = True

    def report(self, trial: Trial, epoch: int, values: Mapping[str, float]) -> bool:
        """Whether the trial goes on after ``epoch``; always, while the only rule is ``stopping: none``."""
        self._known(trial)
        return True

    def tell(self, trial: Trial, outcome: Outcome) -> Outcome:
        """Take a terminal outcome; returns it as judged.

        A completed trial with a missing objective or constrained metric, or any value that is not finite, is judged
        failed, with the reason, and its values are never learnt from. Raises ValueError for an unknown trial, one that
        was told before, or a status that is not terminal.
        """
        study = self._known(trial)
        if trial.trial_id in study.outcomes:
            raise ValueError(f"trial {trial.trial_id} has ended before")
        if not outcome.status.terminal:
            raise ValueError(f"{outcome.status.value} is not how a trial ends")
        judged = self.judge(outcome)
        study.outcomes[trial.trial_id] = judged
        return judged

    def judge(self, outcome: Outcome) -> Outcome:
        """The outcome ``tell`` would return, without taking it."""
        return self._judgement.judge(outcome)

    def restore(self, records: Sequence[TrialRecord]) -> None:
        """Take over the journal's records, in proposal order: terminal ones are told, the others count as running.

        Raises ValueError when this search has proposed something already, or a record does not fit the space: another
        data set, or an ordinal that is not the next.
        """
        if self._next:
            raise ValueError("a search can only be restored before its first proposal")
        for record in records:
            trial = record.trial
            self._next = max(self._next, int(trial.trial_id.removeprefix("t")) + 1)
            if trial.stage is not Stage.SEARCH:
                continue
            if trial.data not in self._studies:
                raise ValueError(f"trial {trial.trial_id} is on {trial.data!r}, which is not in the space")
            study = self._studies[trial.data]
            if trial.number != len(study.trials):
                raise ValueError(f"trial {trial.trial_id} has number {trial.number}, {len(study.trials)} is the next")
            self._add(study, trial)
            if record.status.terminal:
                values = None if record.result is None else record.result.values
                self.tell(trial, Outcome(status=record.status, values=values, reason=record.reason))

    # state

    @property
    def finished(self) -> bool:
        """Nothing is left to propose, and nothing proposed is unfinished."""
        return not self.outstanding and (self._closed or not any(map(self._open, self._studies.values())))

    @property
    def outstanding(self) -> list[Trial]:
        """Proposed and not told, in proposal order."""
        trials = [t for study in self._studies.values() for t in study.trials if t.trial_id not in study.outcomes]
        return sorted(trials, key=lambda trial: int(trial.trial_id.removeprefix("t")))

    @property
    def counts(self) -> dict[Status, int]:
        """Search trials by state: running (proposed and not told), completed, pruned, failed."""
        ended = [outcome.status for study in self._studies.values() for outcome in study.outcomes.values()]
        found = {status: ended.count(status) for status in (Status.COMPLETED, Status.PRUNED, Status.FAILED)}
        return {Status.RUNNING: len(self.outstanding), **found}

    @property
    def total(self) -> int:
        """Search trials there will be over all data sets; fewer than the budgets once a space is exhausted."""
        spent = self._closed
        return sum(
            len(study.trials) if spent or study.exhausted else self._budget() for study in self._studies.values()
        )

    def study(self, data: str) -> optuna.Study:
        """The data set's history as an Optuna study in memory (for inspection; changing it changes nothing)."""
        study = self._studies[data]
        return study.proposer.study(self._past(study))

    # judgement

    def feasible(self, values: Mapping[str, float]) -> bool:
        """Whether every constraint holds; a constrained metric that is missing or not finite does not."""
        return self._judgement.feasible(values)

    def front(self, data: str) -> list[str]:
        """Ids of the completed, feasible search trials no other such trial dominates, in proposal order."""
        return self._judgement.front(self._candidates(data))

    def reference(self, data: str) -> dict[str, float] | None:
        """The hypervolume's reference point by metric, once both anchors completed; None before, or when one failed."""
        study = self._studies[data]
        anchors = [study.outcomes.get(trial.trial_id) for trial in study.trials if trial.anchor]
        values = [a.values for a in anchors if a is not None and a.status is Status.COMPLETED and a.values is not None]
        return None if len(values) < ANCHORS else self._judgement.reference(values)

    def ideal(self, data: str) -> dict[str, float] | None:
        """The other corner of the hypervolume's box; None while there is no reference."""
        reference = self.reference(data)
        return None if reference is None else self._judgement.ideal(reference)

    def hypervolume(self, data: str) -> float | None:
        """Share of the box from reference to ideal that the feasible completed trials dominate; None without a box."""
        reference = self.reference(data)
        return None if reference is None else self._judgement.hypervolume(self._candidates(data), reference)

    def hypervolume_history(self, data: str, ended: Sequence[str]) -> list[float | None]:
        """The hypervolume after each of these trials (of any data set) had ended, in this order; None before a box."""
        reference = self.reference(data)
        if reference is None:
            return [None] * len(ended)
        anchors = {trial.trial_id for trial in self._studies[data].trials if trial.anchor}
        return self._judgement.hypervolumes(self._candidates(data), reference, anchors, ended)

    # internals

    def _budget(self) -> int:
        return 1 if self._space.is_single_run else self._space.budget.trials

    def _open(self, study: _Study) -> bool:
        return not study.exhausted and len(study.trials) < self._budget()

    def _known(self, trial: Trial) -> _Study:
        study = self._studies.get(trial.data)
        if study is None or trial.number >= len(study.trials) or study.trials[trial.number].trial_id != trial.trial_id:
            raise ValueError(f"trial {trial.trial_id} was not proposed by this search")
        return study

    def _propose(self, study: _Study) -> Trial | None:
        number = len(study.trials)
        anchors = () if self._space.is_single_run else self._space.anchors(study.data)
        params: Mapping[str, object] | None
        if number < len(anchors):
            params = anchors[number]
        elif self._space.is_single_run:
            params = {}
        else:
            params = study.proposer.draw(number, self._past(study), lambda found: self._is_new(study, found))
        if params is None:
            return None
        return Trial(
            trial_id=f"t{self._next:04d}",
            number=number,
            data=study.data,
            stage=Stage.SEARCH,
            params=dict(params),
            config=self._config(study, params),
            anchor=number < len(anchors),
        )

    def _config(self, study: _Study, params: Mapping[str, object]) -> TrialConfig:
        return self._space.config(params, data=study.data, seed=self._space.search.seed)

    def _is_new(self, study: _Study, params: Params) -> bool:
        return identity(self._config(study, params)) not in study.identities

    def _add(self, study: _Study, trial: Trial) -> None:
        study.trials.append(trial)
        study.identities.add(identity(trial.config))
        self._next = max(self._next, int(trial.trial_id.removeprefix("t")) + 1)

    def _past(self, study: _Study) -> list[Past]:
        return [self._as_past(trial, study.outcomes.get(trial.trial_id)) for trial in study.trials]

    def _as_past(self, trial: Trial, outcome: Outcome | None) -> Past:
        if outcome is None:
            return Past(params=trial.params, state=TrialState.RUNNING)
        if outcome.status is not Status.COMPLETED or outcome.values is None:
            state = TrialState.PRUNED if outcome.status is Status.PRUNED else TrialState.FAIL
            return Past(params=trial.params, state=state)
        return Past(
            params=trial.params,
            state=TrialState.COMPLETE,
            values=self._judgement.point(outcome.values),
            violations=self._judgement.violations(outcome.values),
        )

    def _candidates(self, data: str) -> list[Candidate]:
        """What may be on the data set's front: ids and metrics of its completed search trials, in proposal order."""
        study = self._studies[data]
        outcomes = ((trial.trial_id, study.outcomes.get(trial.trial_id)) for trial in study.trials)
        return [
            (trial_id, outcome.values)
            for trial_id, outcome in outcomes
            if outcome is not None and outcome.status is Status.COMPLETED and outcome.values is not None
        ]
