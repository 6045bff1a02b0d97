"""A sweep as one zip archive of parquet tables and artifacts, and back into an MLflow store."""

from __future__ import annotations

import io
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reports.run_links import LOCAL_UI
from reports.store import find_sweep, search_all
from reports.sweep_runs import PARENT, sweep_runs
from repsim.errors import Mistake, RequestError, one_line
from repsim.records import KIND_SWEEP, Tag

FORMAT = 1
HEADER = "bundle.json"
IMPORTED_FROM = "imported_from"
"""Tag of an imported run: its id in the store it comes from."""
_ARTIFACTS = "artifacts"
_NOTE = "mlflow.note.content"
_REPORT = "report/index.html"
_VIEW = "mlflow.sharedViewState.repsim-"
_VIEW_OF_ALL = f"{_VIEW}fronts"
"""Tags of an experiment in which the UI keeps its tables of runs: one named by the sweep's run, one of all fronts."""
_LINK = r"#/experiments/[^/?\s]+/runs(/|\?viewStateShareKey=repsim-)([0-9A-Za-z]+)"
"""Where the UI shows a run, or the table of a sweep's trials."""
_TEXT, _WHOLE = pa.string(), pa.int64()
_PAIRS = pa.schema({"run_id": _TEXT, "key": _TEXT, "value": _TEXT})
_SCHEMAS: Mapping[str, pa.Schema] = {
    "runs": pa.schema({"run_id": _TEXT, "name": _TEXT, "status": _TEXT, "started": _WHOLE, "ended": _WHOLE}),
    "tags": _PAIRS,
    "params": _PAIRS,
    "metrics": pa.schema({"run_id": _TEXT, "key": _TEXT, "value": pa.float64(), "timestamp": _WHOLE, "step": _WHOLE}),
}
_BATCH = 800
"""Metrics per call, and 100 parameters or tags: servers take no more at once."""
_FEW = 100
_LARGEST = 64 * 2**30
"""Bytes that an archive may unpack to; more is an attack or a mistake."""


def export_sweep(client: Any, name: str, file: Path) -> str:
    """Write sweep ``name`` (or ``latest``) into ``file``; returns what was written, in words.

    The file appears when it is complete. Raises RequestError when there is no such sweep.
    """
    parent = find_sweep(client, name)
    runs = [parent, *sweep_runs(client, parent)]
    experiment = client.get_experiment(parent.info.experiment_id)
    header = {
        "format": FORMAT,
        "sweep": parent.data.tags.get(Tag.SWEEP, ""),
        "experiment": experiment.name,
        "run_id": parent.info.run_id,
        "views": {
            key: text for key, text in experiment.tags.items() if key in (_VIEW_OF_ALL, f"{_VIEW}{parent.info.run_id}")
        },
    }
    handle, temporary = tempfile.mkstemp(prefix=".bundle-", dir=file.absolute().parent)
    try:
        with os.fdopen(handle, "wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(HEADER, json.dumps(header, indent=1))
            for table, rows in _tables(client, runs).items():
                archive.writestr(f"{table}.parquet", _parquet(rows, _SCHEMAS[table]))
            count = sum(_pack_artifacts(client, run.info.run_id, archive) for run in runs)
        os.replace(temporary, file)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return f"{len(runs) - 1} runs of sweep {one_line(str(header['sweep']))} and {count} artifacts"


def _tables(client: Any, runs: Sequence[Any]) -> dict[str, list[tuple[object, ...]]]:
    """Rows by table; of a metric, every value that was ever logged."""
    found: dict[str, list[tuple[object, ...]]] = {name: [] for name in _SCHEMAS}
    for run in runs:
        info, data = run.info, run.data
        found["runs"].append((info.run_id, info.run_name, info.status, info.start_time, info.end_time))
        found["tags"] += [(info.run_id, key, value) for key, value in sorted(data.tags.items())]
        found["params"] += [(info.run_id, key, value) for key, value in sorted(data.params.items())]
        for key in sorted(data.metrics):
            history = client.get_metric_history(info.run_id, key)
            found["metrics"] += [(info.run_id, key, one.value, one.timestamp, one.step) for one in history]
    return found


def _parquet(rows: Sequence[tuple[object, ...]], schema: pa.Schema) -> bytes:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    buffer = io.BytesIO()
    pq.write_table(pa.table([pa.array(list(c), t) for c, t in zip(columns, schema.types, strict=True)], schema), buffer)
    return buffer.getvalue()


def _pack_artifacts(client: Any, run_id: str, archive: zipfile.ZipFile) -> int:
    paths = list(_artifact_paths(client, run_id, None))
    with tempfile.TemporaryDirectory(prefix="bundle-") as temporary:
        for path in paths:
            local = client.download_artifacts(run_id, path, temporary)
            archive.write(local, f"{_ARTIFACTS}/{run_id}/{path}")
            Path(local).unlink()
    return len(paths)


def _artifact_paths(client: Any, run_id: str, folder: str | None) -> Iterator[str]:
    for item in client.list_artifacts(run_id, folder):
        if item.is_dir:
            yield from _artifact_paths(client, run_id, item.path)
        else:
            yield item.path


def import_sweep(client: Any, file: Path) -> str:
    """Read what :func:`export_sweep` wrote into the store; returns what was read, in words.

    Links between runs, in descriptions and in a report that was built for ``mlflow ui``, lead to the new runs. Raises
    RequestError for a file that is no bundle, and for a sweep that the store has already. Runs whose import is
    interrupted are deleted again.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            _check_archive(archive, file)
            header = json.loads(archive.read(HEADER))
            tables = {name: _rows(archive, name) for name in _SCHEMAS}
            _check_header(header, tables, file)
            return _import(client, archive, header, tables)
    except (zipfile.BadZipFile, KeyError, ValueError, pa.ArrowException) as error:
        raise _no_bundle(file, one_line(str(error), 200)) from None


def _no_bundle(file: Path, why: str) -> RequestError:
    allowed = "a file that python reports/bundle.py export wrote"
    return RequestError(
        Mistake(where=one_line(str(file), 200), key="", problem=f"is no bundle: {why}", allowed=allowed)
    )


def _check_archive(archive: zipfile.ZipFile, file: Path) -> None:
    """Every name stays inside the archive's own folder, and the whole is of a size that can be meant."""
    for entry in archive.infolist():
        path = PurePosixPath(entry.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or "\x00" in entry.filename:
            raise _no_bundle(file, f"{one_line(entry.filename)} leaves its folder")
    if sum(entry.file_size for entry in archive.infolist()) > _LARGEST:
        raise _no_bundle(file, f"it unpacks to more than {_LARGEST // 2**30} GiB")


def _check_header(header: object, tables: Mapping[str, Sequence[Mapping[str, Any]]], file: Path) -> None:
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else None
        raise _no_bundle(file, f"format {found!r} is not {FORMAT}")
    known = {row["run_id"] for row in tables["runs"]}
    if header.get("run_id") not in known:
        raise _no_bundle(file, "the sweep's own run is missing")
    if any(row["run_id"] not in known for name in ("tags", "params", "metrics") for row in tables[name]):
        raise _no_bundle(file, "a table speaks of a run that is not there")


def _rows(archive: zipfile.ZipFile, table: str) -> list[dict[str, Any]]:
    read = pq.read_table(io.BytesIO(archive.read(f"{table}.parquet")))
    if not read.schema.equals(_SCHEMAS[table]):
        raise ValueError(f"{table}.parquet has other columns")
    rows: list[dict[str, Any]] = read.to_pylist()
    return rows


def _import(
    client: Any, archive: zipfile.ZipFile, header: Mapping[str, Any], tables: Mapping[str, list[dict[str, Any]]]
) -> str:
    same = [run for run in _sweeps(client) if run.data.tags.get(Tag.SWEEP) == header["sweep"]]
    if same:
        problem = f"{one_line(header['sweep'])} is a sweep of this store already"
        raise RequestError(Mistake(where="import", key="", problem=problem, allowed="a store without it"))
    experiment = client.get_experiment_by_name(header["experiment"])
    target = client.create_experiment(header["experiment"]) if experiment is None else experiment.experiment_id
    made: dict[str, str] = {}
    mine = {name: _by_run(tables[name]) for name in ("tags", "params", "metrics")}
    try:
        for row in _parents_first(tables):
            told = {name: rows.get(row["run_id"], []) for name, rows in mine.items()}
            made[row["run_id"]] = _import_run(client, target, row, told, made)
        for note in (row for row in tables["tags"] if row["key"] == _NOTE):
            client.set_tag(made[note["run_id"]], _NOTE, _led(note["value"], target, made))
        _make_views(client, target, header, made)
        count = _unpack_artifacts(client, archive, target, made)
    except BaseException:
        for run_id in made.values():
            client.delete_run(run_id)
        raise
    return f"{len(made) - 1} runs of sweep {one_line(header['sweep'])} and {count} artifacts"


def _led(text: str, experiment: str, made: Mapping[str, str], base: str = "") -> str:
    """``text`` with its links (behind ``base``) to imported runs leading to where those are now."""

    def lead(found: re.Match[str]) -> str:
        new = made.get(found[2])
        return found[0] if new is None else f"{base}#/experiments/{experiment}/runs{found[1]}{new}"

    return re.sub(re.escape(base) + _LINK, lead, text)


def _make_views(client: Any, experiment: str, header: Mapping[str, Any], made: Mapping[str, str]) -> None:
    """The UI's tables of the sweep's trials and of all fronts; a table that is there stays as it is."""
    views, run_id = header.get("views"), header["run_id"]
    known = client.get_experiment(experiment).tags
    for old, new in ((f"{_VIEW}{run_id}", f"{_VIEW}{made[run_id]}"), (_VIEW_OF_ALL, _VIEW_OF_ALL)):
        text = views.get(old) if isinstance(views, dict) else None
        if isinstance(text, str) and new not in known:
            client.set_experiment_tag(experiment, new, text)


def _by_run(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["run_id"], []).append(row)
    return found


def _sweeps(client: Any) -> list[Any]:
    return search_all(client, f"tags.{Tag.KIND} = '{KIND_SWEEP}'")


def _parents_first(tables: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The runs, each behind the one it is filed under, in a tree at most three deep."""
    above = {row["run_id"]: row["value"] for row in tables["tags"] if row["key"] == PARENT}

    def depth(run_id: str) -> int:
        first = above.get(run_id)
        return 0 if first is None else 1 if above.get(first) is None else 2

    return sorted(tables["runs"], key=lambda row: depth(row["run_id"]))


def _import_run(
    client: Any,
    experiment: str,
    row: Mapping[str, Any],
    told: Mapping[str, list[dict[str, Any]]],
    made: Mapping[str, str],
) -> str:
    """A run like the one in ``row``; ``made`` has the new ids of those it may be filed under."""
    from mlflow.entities import Metric, Param, RunTag

    tags = {one["key"]: one["value"] for one in told["tags"]} | {IMPORTED_FROM: row["run_id"]}
    if PARENT in tags:
        tags[PARENT] = made[tags[PARENT]]
    run = client.create_run(experiment, start_time=row["started"], run_name=row["name"])
    new: str = run.info.run_id
    for some in _pieces([RunTag(key, value) for key, value in tags.items()], _FEW):
        client.log_batch(new, tags=some)
    for some in _pieces([Param(one["key"], one["value"]) for one in told["params"]], _FEW):
        client.log_batch(new, params=some)
    points = [Metric(one["key"], one["value"], one["timestamp"], one["step"]) for one in told["metrics"]]
    for some in _pieces(points, _BATCH):
        client.log_batch(new, metrics=some)
    if row["ended"] is None:
        client.update_run(new, status=row["status"])
    else:
        client.set_terminated(new, row["status"], row["ended"])
    return new


def _pieces(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _unpack_artifacts(client: Any, archive: zipfile.ZipFile, experiment: str, made: Mapping[str, str]) -> int:
    count = 0
    for entry in archive.infolist():
        parts = PurePosixPath(entry.filename).parts
        if entry.is_dir() or len(parts) < 3 or parts[0] != _ARTIFACTS or parts[1] not in made:
            continue
        with tempfile.TemporaryDirectory(prefix="bundle-") as temporary:
            local = Path(temporary) / parts[-1]
            content = archive.read(entry)
            if "/".join(parts[2:]) == _REPORT:
                # a server's addresses stay: it shows its own store, whatever is imported elsewhere
                page = content.decode("utf-8", "surrogateescape")
                content = _led(page, experiment, made, f"{LOCAL_UI}/").encode("utf-8", "surrogateescape")
            local.write_bytes(content)
            folder = "/".join(parts[2:-1]) or None
            client.log_artifact(made[parts[1]], str(local), folder)
        count += 1
    return count
