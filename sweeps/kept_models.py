"""Which models stay in the run folder: those of trials that are on the front, or may yet be on the last one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from sweeps.derived import trial_of
from sweeps.run_folder import RunFolder
from sweeps.search import Search
from sweeps.trial import TrialRecord


def forget_models(folder: RunFolder, search: Search, records: Mapping[str, TrialRecord]) -> None:
    """Remove the models of trials that have ended and will not be on the front; ``records`` are those of the sweep.

    What cannot be removed stays until the next time: it costs space, and no result.
    """
    if not folder.models.is_dir():
        return
    contenders: dict[str, set[str] | None] = {}
    for model in folder.models.iterdir():
        record = records.get(model.name)
        if record is None or not record.status.terminal:  # a trial that is under way may be writing its own
            continue
        data = record.trial.data
        if data not in contenders:
            found = search.contenders(data)
            contenders[data] = None if found is None else set(map(trial_of, found))
        kept = contenders[data]
        if kept is not None and model.name not in kept:
            shutil.rmtree(model, ignore_errors=True)
