"""Measure every configuration of a grid, epoch by epoch, so that searches can be compared without training again.

    python benchmarks/search_table.py --data folder:DIR --work DIR [--processes 2] [--assemble]

The grid is data/busi_search_space.yaml at the levels of search_grid.py, with two training seeds. DIR is the public
breast ultrasound set BUSI (780 images, a folder per class). Runs come in a seeded random order, both seeds of a
configuration together, so a part of the table is a fair sample of it. Each finished run is appended to
``WORK/runs.jsonl`` and synced; started again, the command goes on with what is missing. Neither sharpness nor the test
images are measured. When all runs are there, or with ``--assemble`` from those there are, the parquet file is written,
with how it was made in its metadata.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from search_grid import SEEDS, SPACE, TABLE, Point, grid_space, params_of, points

from repsim.errors import RequestError
from repsim.records import EPOCH_METRICS
from sweeps.provenance import provenance
from sweeps.space import Space

Row = Mapping[str, object]
Job = tuple[Point, int]
ORDER_SEED = 0
RUNS = "runs.jsonl"
MADE = "made"
"""Key of the parquet file's metadata: JSON, how the table was made."""
TIMES = ("train_loss", "train_seconds", "seconds")
_workspace: object = None


def measure(point: Point, seed: int, source: str) -> dict[str, object]:
    """One run: its epochs, or the reason why it has none."""
    from repsim.errors import DegenerateInputError, NonFiniteLossError
    from repsim.trainer import Trainer
    from repsim.workspace import Workspace

    config = grid_space().config(params_of(point), data=source, seed=seed)
    if not isinstance(_workspace, Workspace):
        raise RuntimeError("the process has not been prepared")
    started = time.perf_counter()
    trainer = Trainer(config, workspace=_workspace)
    found: dict[str, object] = {"point": list(point), "seed": seed, "failed": None}
    found["preparation_seconds"] = time.perf_counter() - started
    try:
        while not trainer.done:
            trainer.step()
    except (NonFiniteLossError, DegenerateInputError) as error:
        found["failed"] = str(error)
    facts = trainer._facts()
    kept = ("data_hash", "weights_id", "n_train", "n_val", "n_probe", "n_classes", "threads")
    return found | {
        "epochs": [
            {name: epoch.values[name] for name in EPOCH_METRICS} | {name: getattr(epoch, name) for name in TIMES}
            for epoch in trainer.epochs
        ],
        "facts": {name: facts[name] for name in kept},
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def prepare(parent: int) -> None:
    """Once per worker process: one thread, one workspace, and an end when the parent has gone."""
    import torch

    from repsim.workspace import Workspace

    global _workspace
    torch.set_num_threads(1)
    _workspace = Workspace(device=torch.device("cpu"))

    def leave_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


def jobs(space: Space) -> list[Job]:
    """All runs, in the order they are made."""
    order = points(space)
    random.Random(ORDER_SEED).shuffle(order)
    return [(point, seed) for point in order for seed in SEEDS]


def read_runs(file: Path) -> dict[Job, Row]:
    """Finished runs; a last line cut short by a kill is taken off the file."""
    if not file.exists():
        return {}
    whole = file.read_bytes()
    complete = whole[: whole.rfind(b"\n") + 1]
    if len(complete) < len(whole):
        os.truncate(file, len(complete))
    rows = [json.loads(line) for line in complete.splitlines()]
    return {((row["point"][0], row["point"][1], row["point"][2]), row["seed"]): row for row in rows}


def append(file: Path, row: Row) -> None:
    """One line, on disk when this returns."""
    with file.open("ab") as stream:
        stream.write(json.dumps(row).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def run(missing: Sequence[Job], source: str, processes: int, file: Path, ready: int) -> None:
    """Make the missing runs, saying after each how long the rest will take."""
    context = multiprocessing.get_context("spawn")
    started, total = time.monotonic(), ready + len(missing)
    with ProcessPoolExecutor(processes, context, prepare, (os.getpid(),)) as pool:
        futures: list[Future[dict[str, object]]] = [pool.submit(measure, *job, source) for job in missing]
        try:
            for number, future in enumerate(as_completed(futures), start=1):
                row = future.result()
                append(file, row)
                passed = time.monotonic() - started
                left = passed / number * (len(missing) - number)
                said = f"{ready + number}/{total} runs, {passed / 60:.1f} min, {left / 60:.0f} min left"
                print(f"{said}: {row['point']} seed {row['seed']}{_ending(row)}", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _ending(row: Row) -> str:
    epochs = row["epochs"]
    if row["failed"] is not None:
        return f" failed: {row['failed']}"
    if not isinstance(epochs, list):
        raise TypeError("a run without epochs")
    return f" val_accuracy {epochs[-1]['val_accuracy']:.3f} val_cka {epochs[-1]['val_cka']:.3f}"


def assemble(space: Space, rows: Mapping[Job, Row], file: Path, made: Mapping[str, object]) -> None:
    """Write the table: a row per configuration, seed and epoch; ``failed`` is empty where the run went through."""
    columns: dict[str, list[object]] = {name: [] for name in ("config", "method", "strength", "optim.lr", "seed")}
    columns |= {name: [] for name in ("epoch", *EPOCH_METRICS, *TIMES, "failed")}
    for index, point in enumerate(points(space)):
        for seed in SEEDS:
            row = rows.get((point, seed))
            epochs = [] if row is None else row["epochs"]
            if row is None or not isinstance(epochs, list):
                continue
            for number, epoch in enumerate(epochs or [dict.fromkeys((*EPOCH_METRICS, *TIMES))], start=1):
                values = [index, *point, seed, number, *(epoch[name] for name in (*EPOCH_METRICS, *TIMES))]
                for column, value in zip(columns.values(), [*values, row["failed"] or ""], strict=True):
                    column.append(value)
    whole = {"config": pa.int16(), "seed": pa.int16(), "epoch": pa.int16(), "optim.lr": pa.float64()}
    whole |= {"method": pa.string(), "failed": pa.string(), "strength": pa.float64()}
    arrays = {name: pa.array(values, whole.get(name, pa.float32())) for name, values in columns.items()}
    table = pa.table(arrays).replace_schema_metadata({MADE: json.dumps(made)})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, compression="zstd")


def how_made(space: Space, rows: Mapping[Job, Row], processes: int, commit: str | None) -> dict[str, object]:
    """Command, code, machine and data behind the table. Raises ValueError when runs are on different data.

    ``commit``: the code that made the runs; None is the present one.
    """
    facts = {json.dumps(row["facts"], sort_keys=True) for row in rows.values()}
    if len(facts) != 1:
        raise ValueError(f"the runs rest on {len(facts)} different data sets or settings")
    ended = sorted(str(row["ended"]) for row in rows.values())
    seconds = [epoch["seconds"] for row in rows.values() for epoch in row["epochs"]]  # type: ignore[attr-defined]
    return {
        "command": f"python benchmarks/search_table.py --data folder:DIR --work DIR --processes {processes}",
        "space": SPACE.read_text(encoding="utf-8"),
        "configurations": len({point for point, _ in rows}),
        "of": len(points(space)),
        "runs": len(rows),
        "failed": sum(row["failed"] is not None for row in rows.values()),
        "first_run_ended": ended[0],
        "last_run_ended": ended[-1],
        "epoch_seconds": round(sum(seconds), 1),
        "facts": json.loads(facts.pop()),
        **{key: value for key, value in provenance().items() if key != "host"},
        **({} if commit is None else {"git_commit": commit, "git_dirty": False}),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="SOURCE", help="folder:DIR with the images, a folder per class")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="finished runs are kept here")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--runs", type=int, metavar="N", help="make at most N more runs")
    parser.add_argument("--assemble", action="store_true", help="make no runs; write the table from those there are")
    parser.add_argument("--commit", help="the code that made the runs, to be noted where it is not this one")
    parser.add_argument("--out", type=Path, default=TABLE)
    arguments = parser.parse_args()
    if arguments.data is None and not arguments.assemble:
        parser.error("--data is needed, unless --assemble")
    space = grid_space()
    arguments.work.mkdir(parents=True, exist_ok=True)
    file = arguments.work / RUNS
    rows = read_runs(file)
    wanted = jobs(space)
    missing = [job for job in wanted if job not in rows]
    if not arguments.assemble:
        chosen = missing if arguments.runs is None else missing[: arguments.runs]
        print(f"{len(points(space))} configurations, {len(wanted)} runs, {len(missing)} missing", flush=True)
        run(chosen, arguments.data, arguments.processes, file, len(wanted) - len(missing))
        rows = read_runs(file)
        if any(job not in rows for job in wanted):
            return 0
    made = how_made(space, rows, arguments.processes, arguments.commit)
    assemble(space, rows, arguments.out, made)
    print(json.dumps({key: value for key, value in made.items() if key != "space"}, indent=1))
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1024:.0f} KiB, {len(rows)} of {len(wanted)} runs")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RequestError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
