"""The sweep's ended trials as two parquet tables beside its MLflow run, for readers in a hurry.

A store answers run by run and curve by curve; ten thousand trials take it minutes. ``compact/trials.parquet`` holds
what the runs of ended trials hold (a row each; tags, parameters and last metric values as JSON),
``compact/curves.parquet`` every epoch's values. They are written from the sweep's own records, never read back, and are
a convenience: without them, or where they are out of date, readers ask the store.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from repsim.records import COMPACT_CURVES, COMPACT_FORMAT, COMPACT_TRIALS, CURVE_PREFIX
from sweeps.patient import short
from sweeps.tracking_rows import Point, milliseconds, params, points
from sweeps.trial import TrialRecord

if TYPE_CHECKING:
    import pyarrow as pa
    from mlflow import MlflowClient

GROWTH, PAUSE_SECONDS = 1.25, 60.0
"""Written again amid a sweep when there are so many times more ended trials, and so many seconds later."""


@dataclass(frozen=True, kw_only=True)
class _Ended:
    run_id: str
    run_status: str
    tags: Mapping[str, str]
    record: TrialRecord


class Compaction:
    """Collects ended trials; the records are the journal's own, so that nothing is held twice."""

    def __init__(self, report: Callable[[str], None]) -> None:
        """``report`` hears once that the tables cannot be written."""
        self._report: Callable[[str], None] | None = report
        self._ended: dict[str, _Ended] = {}
        self._written, self._last = 0, time.monotonic()

    def note(self, run_id: str, run_status: str, tags: Mapping[str, str], record: TrialRecord) -> bool:
        """A trial has ended and its run has been written; ``tags`` are the run's, and may change later.

        Whether it is time to write amid the sweep: so rarely that all of it costs a few times what the last one does.
        """
        self._ended[record.trial.trial_id] = _Ended(run_id=run_id, run_status=run_status, tags=tags, record=record)
        grown = len(self._ended) > GROWTH * self._written
        return grown and time.monotonic() - self._last >= PAUSE_SECONDS

    def write(self, client: MlflowClient, parent: str) -> None:
        """Attach both tables to the sweep's run, the trials last: they name the number of curve values there must be.

        An artifact store that refuses costs a message, once, and nothing else.
        """
        from mlflow.exceptions import MlflowException

        ended = sorted(self._ended.values(), key=lambda one: one.record.trial.trial_id)
        self._written, self._last = len(ended), time.monotonic()
        try:
            _attach(client, parent, ended)
        except (MlflowException, OSError) as error:
            if self._report is not None:
                self._report(f"MLflow: the compact tables were not written ({short(error)}); the report does without")
            self._report = None


def _attach(client: MlflowClient, parent: str, ended: list[_Ended]) -> None:
    import pyarrow.parquet as pq

    curves = _curves(ended)
    told = {"format": str(COMPACT_FORMAT), "parent": parent, "curves": str(curves.num_rows)}
    trials = _trials(ended).replace_schema_metadata(told)
    with tempfile.TemporaryDirectory(prefix="compact-") as temporary:
        for table, name in ((curves, COMPACT_CURVES), (trials, COMPACT_TRIALS)):
            path = Path(temporary) / Path(name).name
            pq.write_table(table, path, compression="zstd")
            client.log_artifact(parent, str(path), str(Path(name).parent))


def _trials(ended: list[_Ended]) -> pa.Table:
    import pyarrow as pa

    rows = [
        (
            one.run_id,
            one.run_status,
            milliseconds(one.record.started),
            milliseconds(one.record.ended),
            json.dumps(dict(one.tags)),
            json.dumps(params(one.record.trial)),
            json.dumps(last_values(points(one.record))),
        )
        for one in ended
    ]
    text, whole = pa.string(), pa.int64()
    kinds = {
        "run_id": text, "status": text, "start_time": whole, "end_time": whole,
        "tags": text, "params": text, "metrics": text,
    }  # fmt: skip
    columns = list(zip(*rows, strict=True)) or [()] * len(kinds)
    return pa.table([pa.array(list(c), k) for c, k in zip(columns, kinds.values(), strict=True)], names=list(kinds))


def last_values(found: list[Point]) -> dict[str, float]:
    """What MLflow shows as a run's metrics: the value of the last step, of the latest time among those."""
    last: dict[str, Point] = {}
    for point in found:
        rival = last.get(point.key)
        if rival is None or (point.step, point.timestamp) >= (rival.step, rival.timestamp):
            last[point.key] = point
    return {key: point.value for key, point in last.items()}


def _curves(ended: list[_Ended]) -> pa.Table:
    """A row per run, metric and epoch, in this order, metrics by name."""
    import pyarrow as pa

    names: dict[str, int] = {}
    runs, metrics, epochs, values = [], [], [], []
    for index, one in enumerate(ended):
        course = {
            (point.key.removeprefix(CURVE_PREFIX), point.step): point.value
            for point in points(one.record)
            if point.key.startswith(CURVE_PREFIX)
        }
        for (name, epoch), value in sorted(course.items()):
            runs.append(index)
            metrics.append(names.setdefault(name, len(names)))
            epochs.append(epoch)
            values.append(value)
    ids = pa.array([one.run_id for one in ended], pa.string())
    return pa.table(
        {
            "mlflow_run_id": pa.DictionaryArray.from_arrays(pa.array(runs, pa.int32()), ids),
            "metric": pa.DictionaryArray.from_arrays(pa.array(metrics, pa.int32()), pa.array(list(names), pa.string())),
            "epoch": pa.array(epochs, pa.int64()),
            "value": pa.array(values, pa.float64()),
        }
    )
