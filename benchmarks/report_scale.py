"""The report of a very large sweep: how long it takes, how much memory, how heavy the page.

    python benchmarks/report_scale.py [--quick] [--trials N] [--keep DIR]

Makes a sweep of 10,000 trials of 30 epochs that were never trained, in a sqlite store: the database and the sweep's own
run are MLflow's and the sweep writer's work, the trials' rows are inserted in bulk into the tables that MLflow made
(through its interface it would take most of an hour), and the compact tables are written by the sweep's own code. Then,
in this order,

- ours: ``python reports/build.py`` in a process of its own, start to end, pictures and page included; then once more
  in this process, to see where the seconds go (this build is not the one that counts);
- theirs: ``search_runs`` over all trials, and ``get_metric_history`` curve by curve, on a sample of runs and multiplied
  (labelled so), without building anything from it.

Goals: at most 20 s and 2 GiB, a page of at most 15 MB, ten times faster than theirs. The last line holds our seconds.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from repsim.records import (
    CURVE_PREFIX,
    EPOCH_METRICS,
    KIND_TRIAL,
    STANDARD_METRICS,
    EpochResult,
    Status,
    Tag,
    TrialResult,
)
from sweeps.compaction import Compaction, last_values
from sweeps.provenance import provenance
from sweeps.search import Outcome, Search
from sweeps.space import Space, space_from_dict
from sweeps.tracking import SweepWriter
from sweeps.tracking_children import PARENT
from sweeps.tracking_rows import milliseconds, params, points, run_name, state_tags, texts, trial_tags
from sweeps.tracking_uri import open_client
from sweeps.trial import Trial, TrialRecord

GOAL, MEMORY_GOAL, SIZE_GOAL, FASTER_GOAL = 20.0, 2.0, 15.0, 10.0
TRIALS, QUICK_TRIALS, EPOCHS = 10_000, 500, 30
SAMPLE = 50
NAME = "scale"
REPOSITORY = Path(__file__).resolve().parent.parent
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
METHODS = ("linear_probe", "full", "repsim", "hcs", "feature_mse", "l2_sp", "lora")


def the_space(trials: int) -> Space:
    """A space of the usual size."""
    document = {
        "name": NAME,
        "objectives": [{"metric": "val_accuracy"}, {"metric": "val_cka"}],
        "budget": {"trials": trials, "epochs": EPOCHS},
        "search": {"sampler": "random", "parallel": 2},
        "space": {
            "method": list(METHODS),
            "strength": {"low": 0.03, "high": 30.0, "log": True, "when": {"penalty": "any"}},
            "backbone": ["tf_efficientnet_lite0", "mobilenetv2_100"],
            "optim.lr": {"low": 1e-5, "high": 1e-3, "log": True},
        },
    }
    return space_from_dict(document, where="report_scale")


def made_up(trial: Trial, epochs: int = EPOCHS) -> TrialRecord:
    """A completed record, in the region where fronts lie, of a trial that was never trained; every 50th has failed."""
    rng = random.Random(trial.number)
    held = 1.0 if trial.config.method == "linear_probe" else rng.betavariate(3, 2)
    accuracy = max(0.3, min(0.99, 0.92 - 0.15 * held**3 + rng.gauss(0, 0.02)))
    final = dict.fromkeys(STANDARD_METRICS, 0.5) | {"val_accuracy": accuracy, "val_cka": held, "train_seconds": 20.0}
    course = [
        EpochResult(
            epoch=epoch,
            values={name: final[name] * (0.5 + epoch / (2 * epochs)) for name in EPOCH_METRICS},
            train_loss=1.0 / epoch,
            train_penalty=0.1,
            learning_rate=1e-4,
            steps=10,
            train_seconds=0.6,
            seconds=0.7,
        )
        for epoch in range(1, epochs + 1)
    ]
    began = BEGAN + timedelta(seconds=11 * trial.number)
    record = TrialRecord(
        trial=trial,
        attempts=1,
        started=began.isoformat(),
        ended=(began + timedelta(seconds=21)).isoformat(),
        epochs=course,
    )
    if trial.number % 50 == 49:
        return replace(record, status=Status.FAILED, reason="FloatingPointError: train_loss is nan")
    facts: dict[str, object] = {
        "n_train": 360, "n_val": 120, "n_test": 120, "n_probe": 120, "data_hash": "d4", "probe_hash": "9a",
        "slot": trial.number % 2, "began": began.timestamp(), "finished": began.timestamp() + 21,
    }  # fmt: skip
    result = TrialResult(chosen_epoch=epochs, epochs=epochs, values=final, facts=facts)
    return replace(record, status=Status.COMPLETED, result=result, feasible=True)


class Bulk:
    """The trials' rows, put into MLflow's tables beside MLflow."""

    def __init__(self, path: Path, experiment: str, parent: str, space: Space) -> None:
        self._database = sqlite3.connect(path)
        self._experiment, self._parent, self._space = experiment, parent, space

    @contextmanager
    def without_indices(self) -> Iterator[None]:
        """They are made again at the end, as they were."""
        wanted = "select name, sql from sqlite_master where type = 'index' and sql is not null and tbl_name = ?"
        found = [row for table in ("metrics", "latest_metrics", "tags", "params") for row in self._all(wanted, table)]
        self._database.execute("pragma synchronous = off")
        for name, _ in found:
            self._database.execute(f'drop index "{name}"')
        yield
        for _, sql in found:
            self._database.execute(sql)
        self._database.commit()
        self._database.close()

    def _all(self, query: str, *values: str) -> list[Any]:
        return self._database.execute(query, values).fetchall()

    def add(self, run_id: str, record: TrialRecord) -> dict[str, str]:
        """One trial; returns its tags."""
        trial = record.trial
        begin, end = milliseconds(record.started), milliseconds(record.ended)
        status = "FINISHED" if record.status is Status.COMPLETED else "FAILED"
        run = (run_id, run_name(trial, self._space), "UNKNOWN", "", "", "", status, begin, end, "", "active", "")
        self._database.execute(f"insert into runs values ({'?,' * 12}?, null)", (*run, int(self._experiment)))
        kind = {Tag.KIND: KIND_TRIAL, Tag.SWEEP: NAME, PARENT: self._parent}
        tags = texts({**kind, **trial_tags(trial), **state_tags(record)})
        for table, values in (("tags", tags), ("params", params(trial))):
            rows = [(key, value, run_id) for key, value in values.items()]
            self._database.executemany(f"insert into {table} values (?, ?, ?)", rows)
        found = points(record)
        rows_of = [(point.key, point.value, point.timestamp, run_id, point.step, 0) for point in found]
        self._database.executemany("insert into metrics values (?, ?, ?, ?, ?, ?)", rows_of)
        last = last_values(found)
        by_key = {point.key: point for point in found}
        latest = [(key, last[key], by_key[key].timestamp, by_key[key].step, 0, run_id) for key in last]
        self._database.executemany("insert into latest_metrics values (?, ?, ?, ?, ?, ?)", latest)
        return tags


def make(folder: Path, trials: int) -> str:
    """The store with its sweep; returns its address."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    space = the_space(trials)
    writer = SweepWriter(uri=uri, space=space, sweep=NAME, provenance=provenance(), command="", artifact_root=folder)
    parent = writer.start()
    search, compaction = Search(space), Compaction(print)
    client = open_client(uri)
    bulk = Bulk(folder / "mlflow.db", client.get_run(parent).info.experiment_id, parent, space)
    with bulk.without_indices():
        while (trial := search.ask()) is not None:
            record = made_up(trial)
            values = None if record.result is None else record.result.values
            search.tell(trial, Outcome(status=record.status, values=values, reason=record.reason))
            run_id = f"{trial.number:032x}"
            tags = bulk.add(run_id, record)
            compaction.note(run_id, "FINISHED" if record.status is Status.COMPLETED else "FAILED", tags, record)
    reference, ideal = search.reference(space.data[0]), search.ideal(space.data[0])
    if reference is not None and ideal is not None:
        writer.set_reference(space.data[0], reference, ideal)
    writer.close("completed")
    compaction.write(client, parent)
    return uri


def ours(uri: str, folder: Path) -> tuple[float, float, float]:
    """Seconds, GiB and MB of the page."""
    command = [sys.executable, str(REPOSITORY / "reports" / "build.py"), "--sweep", NAME, "--tracking-uri", uri]
    command += ["--out", str(folder / "report"), "--no-log"]
    path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": path})
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return seconds, peak, (folder / "report" / "index.html").stat().st_size / 1e6


def parts(uri: str, folder: Path) -> str:
    """Where the seconds of a build go, in words; this process has imported what it needs before."""
    from reports import build, drawing, load, page
    from reports.chapters import chapter

    spent = dict.fromkeys(("reading the store", "pictures", "page"), 0.0)

    def timed(name: str, real: Any) -> Any:
        def call(*arguments: Any, **more: Any) -> Any:
            started = time.perf_counter()
            found = real(*arguments, **more)
            spent[name] += time.perf_counter() - started
            return found

        return call

    held = [(load, "load_sweep"), (drawing, "save"), (chapter, "save"), (page, "render")]
    names = ("reading the store", "pictures", "pictures", "page")
    before = [getattr(module, attribute) for module, attribute in held]
    try:
        for (module, attribute), name, real in zip(held, names, before, strict=True):
            setattr(module, attribute, timed(name, real))
        started = time.perf_counter()
        build.build_report(NAME, uri, folder / "again", log=False)
        whole = time.perf_counter() - started
    finally:
        for (module, attribute), real in zip(held, before, strict=True):
            setattr(module, attribute, real)
    told = [*spent.items(), ("tables, chapters and the rest", whole - sum(spent.values()))]
    return f"once more, without imports, {whole:.1f} s: {', '.join(f'{name} {took:.1f}' for name, took in told)}"


def theirs(uri: str, trials: int) -> tuple[float, float]:
    """Seconds of ``search_runs`` over all trials, and of ``get_metric_history`` as multiplied from a sample."""
    client = open_client(uri)
    found = client.get_experiment_by_name(NAME)
    if found is None:
        raise RuntimeError("the experiment is gone")
    started, runs, token = time.perf_counter(), list[Any](), None
    while True:
        page = client.search_runs([found.experiment_id], "tags.kind = 'trial'", max_results=1000, page_token=token)
        runs += page
        token = page.token
        if not token:
            break
    searched = time.perf_counter() - started
    if len(runs) != trials:
        raise RuntimeError(f"{len(runs)} of {trials} trials found")
    sample: Sequence[Any] = runs[:: max(1, len(runs) // SAMPLE)]
    started = time.perf_counter()
    for run in sample:
        for key in run.data.metrics:
            if key.startswith(CURVE_PREFIX):
                client.get_metric_history(run.info.run_id, key)
    return searched, (time.perf_counter() - started) * len(runs) / len(sample)


def measure(folder: Path, trials: int) -> int:
    """Make, build, compare; the exit code."""
    started = time.perf_counter()
    uri = make(folder, trials)
    size = (folder / "mlflow.db").stat().st_size / 2**20
    print(f"{trials} trials of {EPOCHS} epochs, database {size:.0f} MiB, made in {time.perf_counter() - started:.0f} s")
    seconds, peak, page = ours(uri, folder)
    print(f"report built in {seconds:.1f} s (goal {GOAL:.0f}), {peak:.2f} GiB (goal {MEMORY_GOAL:.0f}), ", end="")
    print(f"page {page:.1f} MB (goal {SIZE_GOAL:.0f})", flush=True)
    print(parts(uri, folder), flush=True)
    searched, histories = theirs(uri, trials)
    print(f"search_runs {searched:.1f} s, get_metric_history {histories:.0f} s (from a sample of {SAMPLE} runs)")
    faster = (searched + histories) / seconds
    print(f"{faster:.0f} times faster, pictures and page included (goal {FASTER_GOAL:.0f})")
    ok = seconds <= GOAL and peak <= MEMORY_GOAL and page <= SIZE_GOAL and faster >= FASTER_GOAL
    print(f"report_scale: {seconds:.1f} (goal {GOAL:.0f}) {'ok' if ok else 'short'}")
    return 0 if ok else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_TRIALS} trials instead of {TRIALS}")
    parser.add_argument("--trials", type=int, metavar="N", help="that many trials")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="make store and report here, and leave them")
    arguments = parser.parse_args()
    trials = arguments.trials if arguments.trials is not None else QUICK_TRIALS if arguments.quick else TRIALS
    if arguments.keep is not None:
        arguments.keep.mkdir(parents=True)
        return measure(arguments.keep.resolve(), trials)
    with tempfile.TemporaryDirectory(prefix="report_scale-") as temporary:
        return measure(Path(temporary), trials)


if __name__ == "__main__":
    sys.exit(main())
