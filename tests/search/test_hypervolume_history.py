"""The hypervolume after each trial, computed again from what has ended."""

from __future__ import annotations

from repsim.records import METRICS, Status
from sweeps.search import Outcome, Search
from sweeps.space import load_space

# the anchors, a better point, one that fails, two more, one that is worse than what is there, one that beats two
POINTS = [(0.5, 1.0), (0.9, 0.2), (0.7, 0.7), (0.8, 0.8), (0.6, 0.9), (0.55, 0.6), (0.75, 0.92), (0.85, 0.4)]


def test_the_history_is_what_a_live_search_saw() -> None:
    space = load_space("quick.yaml", trials=8)
    search, ended, seen = Search(space), [], []
    (data,) = space.data
    while (trial := search.ask()) is not None:
        accuracy, cka = POINTS[trial.number]
        values = dict.fromkeys(METRICS, 0.5) | {"val_accuracy": accuracy, "val_cka": cka}
        failed = trial.number == 3
        search.tell(
            trial,
            Outcome(status=Status.FAILED, reason="no") if failed else Outcome(status=Status.COMPLETED, values=values),
        )
        ended.append(trial.trial_id)
        seen.append(search.hypervolume(data))
    assert search.hypervolume_history(data, ended) == seen
    assert seen[0] is None
    assert seen[-1] is not None
    assert seen[2] == seen[3], "a failed trial changes nothing"
    assert seen[4] == seen[5], "nor does a dominated one"
    assert seen[6] != seen[5]


def test_without_a_box_there_is_no_curve() -> None:
    space = load_space("quick.yaml", trials=8)
    search = Search(space)
    trial = search.ask()
    assert trial is not None
    search.tell(trial, Outcome(status=Status.FAILED, reason="no"))
    assert search.hypervolume_history(space.data[0], [trial.trial_id]) == [None]
