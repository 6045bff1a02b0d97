"""The search, without an engine: ask for a trial, report its epochs, tell what became of it.

Ray drives it in a sweep, a loop drives it in simulations. One independent study per data set; proposals alternate over
the data sets.

study         what was proposed on a data set, how it ended, when it is enough     sweeps/study.py
proposals     how the next point is drawn                                          sweeps/proposals.py, samplers.py
balance       the same number of points for each method                            sweeps/balance.py
stopping      which trials need not be trained to the end                          sweeps/stopping.py
confirmation  which points of the front were luck                                  sweeps/confirmation.py
judgement     feasibility, fronts, hypervolume                                     sweeps/judgement.py

A proposal depends on the space, ``search.seed`` and the history alone, so ``restore`` needs nothing but the journal's
records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import optuna

from repsim.records import Stage, Status
from sweeps.confirmation import End, Plan
from sweeps.judgement import Judgement, Outcome
from sweeps.space import Space
from sweeps.study import Evidence, Study
from sweeps.trial import Trial, TrialRecord

__all__ = ["Evidence", "Outcome", "Search"]


class Search:
    """Ask and tell over a space; counts the budget, judges outcomes, knows the front.

    ``evidence`` are trials of earlier sweeps: samplers learn from them, nothing else does.
    """

    def __init__(self, space: Space, evidence: Sequence[Evidence] = ()) -> None:
        self._space = space
        self._judgement = Judgement(objectives=space.objectives, constraints=space.constraints)
        self._studies = {data: Study(space, data, self._judgement, evidence) for data in space.data}
        self._next = 0
        self._closed = ""
        self._volumes: dict[str, tuple[int, float]] = {}

    # proposals

    def ask(self) -> Trial | None:
        """The next trial: of the search, and once that is over, fresh seeds to confirm its front.

        None when there is none now. While trials are running there may be one later (``exhausted`` says); when none is,
        it is over: every budget is spent, the space is exhausted, or ``close`` was called.
        """
        if self._closed:
            return None
        open_studies = [study for study in self._studies.values() if not study.ended_by]
        for study in sorted(open_studies, key=lambda candidate: len(candidate.trials)):
            trial = study.propose(self._next_id)
            if trial is not None:
                return self._add(study, trial)
        for study in sorted(self._over(), key=lambda candidate: len(candidate.confirmations)):
            trial = study.confirm(self._next_id)
            if trial is not None:
                return self._add(study, trial)
        return None

    def close(self, why: str = "interrupted") -> None:
        """Propose nothing more (interrupted, or out of hours); trials under way may still be told."""
        self._closed = self._closed or why

    @property
    def closed_by(self) -> str:
        """Why nothing more is proposed, whatever is left to do; "" as long as nobody has closed the search."""
        return self._closed

    def report(self, trial: Trial, epoch: int, values: Mapping[str, float]) -> bool:
        """Whether the trial goes on after ``epoch`` (from 1), whose metrics these are."""
        return self._known(trial).report(trial, epoch, values)

    def reason(self, trial: Trial) -> str:
        """Why ``report`` said that the trial should stop; empty when it did not."""
        return self._known(trial).reason(trial)

    def tell(self, trial: Trial, outcome: Outcome) -> Outcome:
        """Take a terminal outcome; returns it as judged.

        A completed trial with a missing objective or constrained metric, or any value that is not finite, is judged
        failed, with the reason, and its values are never learnt from. Raises ValueError for an unknown trial, one that
        was told before, or a status that is not terminal.
        """
        study = self._known(trial)
        if not outcome.status.terminal:
            raise ValueError(f"{outcome.status.value} is not how a trial ends")
        judged = self.judge(outcome)
        study.end(trial, judged)
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
        known = [record for record in records if record.trial.stage is not Stage.DERIVED]
        for record in records:
            self._next = max(self._next, _ordinal(record.trial) + 1)
        for record in known:
            if record.trial.data not in self._studies:
                raise ValueError(f"trial {record.trial.trial_id} is on {record.trial.data!r}, not in the space")
            self._add(self._studies[record.trial.data], record.trial)
            for epoch in record.epochs:
                self._studies[record.trial.data].observe(record.trial, epoch.epoch, epoch.values)
        for record in sorted(known, key=lambda record: record.ended or ""):
            if record.status.terminal:
                self.tell(record.trial, outcome_of(record))

    # state

    @property
    def finished(self) -> bool:
        """Nothing is left to propose, and nothing proposed is unfinished."""
        return not self.outstanding and self.exhausted

    @property
    def exhausted(self) -> bool:
        """Whether ``ask`` will never give anything again, whatever becomes of the trials under way.

        A search that has not been asked since its last change may not know yet.
        """
        if self._closed:
            return True
        if not all(study.ended_by for study in self._studies.values()):
            return False
        if self._space.confirm_seeds == 0 or self._space.is_single_run:
            return True
        return not self.outstanding and all(study.confirmed for study in self._studies.values())

    @property
    def outstanding(self) -> list[Trial]:
        """Proposed and not told, in proposal order."""
        return sorted((t for study in self._studies.values() for t in study.outstanding), key=_ordinal)

    @property
    def counts(self) -> dict[Status, int]:
        """Search trials by state: running (proposed and not told), completed, pruned, failed."""
        trials = [(study, trial) for study in self._studies.values() for trial in study.trials]
        ended = [study.outcomes[t.trial_id].status for study, t in trials if t.trial_id in study.outcomes]
        found = {status: ended.count(status) for status in (Status.COMPLETED, Status.PRUNED, Status.FAILED)}
        return {Status.RUNNING: len(trials) - len(ended), **found}

    @property
    def total(self) -> int:
        """Search trials there will be over all data sets; fewer than the budgets once something else has ended it."""
        most = 1 if self._space.is_single_run else self._space.budget.trials
        return sum(len(s.trials) if self._closed or s.ended_by else most for s in self._studies.values())

    @property
    def startup(self) -> int:
        """How many proposals are made before any result is looked at, over all data sets; 0 when none ever is."""
        return sum(study.startup for study in self._studies.values())

    def ended_by(self, data: str) -> str:
        """What ended the search on a data set, such as ``budget.trials``; empty while it goes on."""
        return self._studies[data].ended_by or self._closed

    def confirmation(self, data: str) -> Plan:
        """How far the confirmation is, and in words why it ended."""
        return self._studies[data].plan

    def confirming(self, data: str) -> bool:
        """Whether fresh seeds were asked for and the search itself is over, so that there is a confirmation to tell."""
        return self._space.confirm_seeds > 0 and not self._space.is_single_run and self._studies[data].over

    def candidates(self, data: str) -> list[str]:
        """Ids of the search trials whose configurations may be on the confirmed front; empty until it is known."""
        chosen = set(self._studies[data].plan.candidates)
        return [trial.trial_id for trial in self._studies[data].trials if trial.config.config_id in chosen]

    def contenders(self, data: str) -> list[str] | None:
        """Ids of the trials and derived points that are, or may yet be, on the front that is shown in the end.

        None: any may. Fresh seeds may bring back what the search sees beaten, and as long as they have not told how far
        luck reaches, nobody can be ruled out. Without them, a point that is beaten once stays so.
        """
        leading, study = self.front(data), self._studies[data]
        if self._space.confirm_seeds == 0 or self._space.is_single_run:
            return leading
        if not study.over:
            return leading if self._closed else None
        plan = study.plan
        if plan.end is End.NOT_YET and not plan.candidates:
            return None
        return [*leading, *self.candidates(data)]

    def confirmed_front(self, data: str) -> list[str] | None:
        """Ids of the search trials whose means over fresh seeds no other candidate's dominate; None before any."""
        return self._studies[data].confirmed_front() if self.confirming(data) else None

    def study(self, data: str) -> optuna.Study:
        """The data set's history as an Optuna study in memory (for inspection; changing it changes nothing)."""
        return self._studies[data].optuna_study()

    # judgement

    def feasible(self, values: Mapping[str, float]) -> bool:
        """Whether every constraint holds; a constrained metric that is missing or not finite does not."""
        return self._judgement.feasible(values)

    def front(self, data: str) -> list[str]:
        """Ids of the completed, feasible search trials and derived points that no other dominates, in proposal order.

        A trial's derived points follow it.
        """
        return [name for name, _ in self._studies[data].leading()]

    def reference(self, data: str) -> dict[str, float] | None:
        """The hypervolume's reference point by metric, once both anchors completed; None before, or when one failed."""
        return self._studies[data].reference()

    def ideal(self, data: str) -> dict[str, float] | None:
        """The other corner of the hypervolume's box; None while there is no reference."""
        reference = self.reference(data)
        return None if reference is None else self._judgement.ideal(reference)

    def hypervolume(self, data: str) -> float | None:
        """Share of the box from reference to ideal that the feasible completed trials dominate; None without a box."""
        reference, study = self.reference(data), self._studies[data]
        if reference is None:
            return None
        known = self._volumes.get(data)
        if known is None or known[0] != study.changes:
            known = study.changes, self._judgement.hypervolume(study.leading(), reference)
            self._volumes[data] = known
        return known[1]

    def hypervolume_history(self, data: str, ended: Sequence[str]) -> list[float | None]:
        """The hypervolume after each of these trials (of any data set) had ended, in this order; None before a box."""
        study, reference = self._studies[data], self.reference(data)
        if reference is None:
            return [None] * len(ended)
        return self._judgement.hypervolumes(study.candidates(), reference, set(study.anchors()), ended)

    # internals

    @property
    def _next_id(self) -> str:
        return f"t{self._next:04d}"

    def _over(self) -> list[Study]:
        """Studies whose search has ended, with all its trials: they may be confirmed."""
        return [study for study in self._studies.values() if study.over]

    def _known(self, trial: Trial) -> Study:
        study = self._studies.get(trial.data)
        if study is None or not study.knows(trial):
            raise ValueError(f"trial {trial.trial_id} was not proposed by this search")
        return study

    def _add(self, study: Study, trial: Trial) -> Trial:
        study.add(trial)
        self._next = max(self._next, _ordinal(trial) + 1)
        return trial


def outcome_of(record: TrialRecord) -> Outcome:
    """How the journal says that a trial ended."""
    if record.status is Status.COMPLETED and record.result is not None:
        return Outcome.completed(record.trial.trial_id, record.result)
    return Outcome(status=record.status, reason=record.reason)


def _ordinal(trial: Trial) -> int:
    return int(trial.trial_id.removeprefix("t"))
