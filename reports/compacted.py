"""Ended trials from the tables that the sweep keeps beside its run; the store is asked for the rest only.

MLflow keeps no time of a run's last change beside that of its end. A row is taken as current when its run is in the
store, not deleted, and did not end again after the tables were written; runs that did, that are new or still open, are
read from the store. What somebody changed by hand in an ended run since is therefore not seen (``--fresh`` reads
everything anew).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from reports.curves import CURVE_COLUMNS, load_curves
from repsim.errors import one_line
from repsim.records import COMPACT_CURVES, COMPACT_FORMAT, COMPACT_TRIALS

_COLUMNS = ("run_id", "status", "start_time", "end_time", "tags", "params", "metrics")
_OVERLAP_MS = 60_000
"""Runs that ended so shortly before the newest row are read again: a table is written while others end."""


@dataclass(frozen=True, kw_only=True)
class Info:
    """As much of MLflow's RunInfo as reports need."""

    run_id: str
    status: str
    start_time: int
    end_time: int | None


@dataclass(frozen=True, kw_only=True)
class Data:
    """As much of MLflow's RunData as reports need."""

    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """A run out of the compact table, in the shape of MLflow's own."""

    info: Info
    data: Data


@dataclass(frozen=True, kw_only=True)
class Compact:
    """What the tables hold; ``newest`` is the latest end of a run in them, in milliseconds.

    ``curves`` has CURVE_COLUMNS, its texts as codes of few words.
    """

    runs: Mapping[str, StoredRun]
    curves: pa.Table = field(repr=False)

    @property
    def newest(self) -> int:
        """Runs that ended before this, less an overlap, need not be asked for."""
        return max((run.info.end_time or 0 for run in self.runs.values()), default=0)

    @property
    def asked_from(self) -> int:
        """From here on the store is asked."""
        return self.newest - _OVERLAP_MS


def read_compact(client: Any, parent: str, notes: list[str]) -> Compact | None:
    """The tables of the sweep whose run is ``parent``; None where there are none.

    Tables that cannot be read, or are another sweep's (an imported one's, for runs get new ids), count as none; the
    former is noted.
    """
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory(prefix="compact-") as temporary:
        try:
            if not any(item.path == COMPACT_TRIALS for item in client.list_artifacts(parent, "compact")):
                return None
            trials = pq.read_table(client.download_artifacts(parent, COMPACT_TRIALS, temporary))
            told = {key.decode(): value.decode() for key, value in (trials.schema.metadata or {}).items()}
            if told.get("format") != str(COMPACT_FORMAT) or told.get("parent") != parent:
                return None
            curves = pq.read_table(Path(client.download_artifacts(parent, COMPACT_CURVES, temporary)))
            if str(curves.num_rows) != told.get("curves"):
                return None  # written while we read
            return Compact(runs={run.info.run_id: run for run in _runs(trials)}, curves=_coded(curves))
        except (MlflowException, OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
            notes.append(
                f"The sweep's compact tables could not be read and were not used: {one_line(str(error), 200)}."
            )
            return None


def _runs(table: pa.Table) -> list[StoredRun]:
    columns = [table.column(name).to_pylist() for name in _COLUMNS]
    return [
        StoredRun(
            info=Info(run_id=str(run_id), status=str(status), start_time=int(start), end_time=int(end)),
            data=Data(tags=_texts(tags), params=_texts(params), metrics=_numbers(metrics)),
        )
        for run_id, status, start, end, tags, params, metrics in zip(*columns, strict=True)
    ]


def _texts(text: str) -> dict[str, str]:
    return {str(key): str(value) for key, value in json.loads(text).items()}


def _numbers(text: str) -> dict[str, float]:
    return {str(key): float(value) for key, value in json.loads(text).items()}


def _coded(table: pa.Table) -> pa.Table:
    words = pa.dictionary(pa.int32(), pa.string())
    kinds = {"mlflow_run_id": words, "metric": words, "epoch": pa.int64(), "value": pa.float64()}
    return pa.table({name: table.column(name).cast(kind) for name, kind in kinds.items()}).unify_dictionaries()


def merged_curves(client: Any, runs: Sequence[Any], compact: Compact | None) -> pd.DataFrame:
    """The curves of ``runs``, in their order: from the tables for those that ended as these have it, else the store.

    A run that is read again only because it ended with the newest is as these have it: nothing but the sweep writes
    curves, and never to a run that has ended.
    """
    if compact is None:
        return load_curves(client, runs)
    asked = [run for run in runs if not _as_told(run, compact)]
    order = {run.info.run_id: place for place, run in enumerate(runs)}
    kept = _in_order(
        compact.curves, {run.info.run_id: order[run.info.run_id] for run in runs if _as_told(run, compact)}
    )
    if not asked:
        return kept
    both = pd.concat([kept, load_curves(client, asked)], ignore_index=True)
    place = both["mlflow_run_id"].map(order)
    return both.assign(_place=place).sort_values("_place", kind="stable", ignore_index=True)[list(CURVE_COLUMNS)]


def _as_told(run: Any, compact: Compact) -> bool:
    """Whether the run is in the tables, with the end that it has now."""
    told = compact.runs.get(run.info.run_id)
    return told is not None and (told.info.end_time, told.info.status) == (run.info.end_time, run.info.status)


def _in_order(curves: pa.Table, order: Mapping[str, int]) -> pd.DataFrame:
    """The rows of the runs in ``order``, and in that order; others are left out."""
    codes = curves.column("mlflow_run_id").combine_chunks()
    places = np.array([order.get(name, -1) for name in codes.dictionary.to_pylist()], dtype=np.int64)
    place = places[codes.indices.to_numpy()] if len(codes) else places[:0]
    rows = np.flatnonzero(place >= 0)
    rows = rows[np.argsort(place[rows], kind="stable")]
    chosen = curves if np.array_equal(rows, np.arange(len(curves))) else curves.take(pa.array(rows))
    frame: pd.DataFrame = pa.table({name: _plain(chosen.column(name)) for name in CURVE_COLUMNS}).to_pandas()
    return frame.astype({"mlflow_run_id": "string", "metric": "string"})


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
