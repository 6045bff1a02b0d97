"""Many trainings of one benchmark: whatever the output file does not hold yet, several at a time, one thread each."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

Flat = Mapping[str, object]
Row = Mapping[str, object]

_workspace: list[object] = []


def run_missing(jobs: Sequence[Flat], out: Path, slots: int, describe: Callable[[Row], str]) -> int:
    """Train every flat configuration that ``out`` (JSON lines, appended to) does not hold; can be stopped at any time.

    A row holds ``config`` (as asked, the data set by its folder's name), ``values``, ``facts``, ``derived`` and
    ``seconds``; or ``refused``, why the configuration cannot be run or broke down.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    done = {_key(row["config"]) for row in read_rows(out)} if out.exists() else set()
    todo = [job for job in jobs if _key(_named(job)) not in done]
    print(f"{len(done)} runs done, {len(todo)} to do, {slots} at a time", flush=True)
    started = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(slots, mp_context=context) as pool, out.open("a") as file:
        futures = [pool.submit(_train, job) for job in todo]
        for number, future in enumerate(as_completed(futures), 1):
            if (error := future.exception()) is not None:  # or the pool would train all the others first
                pool.shutdown(wait=False, cancel_futures=True)
                raise error
            row = future.result()
            file.write(json.dumps(row) + "\n")
            file.flush()
            left = (time.perf_counter() - started) / number * (len(todo) - number)
            print(f"[{number}/{len(todo)}] {describe(row)}; {left / 60:.0f} min left", flush=True)
    return 0


def read_rows(path: Path) -> list[dict[str, object]]:
    """The rows of a file of JSON lines; a last line that a kill cut short is taken off the file."""
    whole = path.read_bytes()
    complete = whole[: whole.rfind(b"\n") + 1]
    if len(complete) < len(whole):
        os.truncate(path, len(complete))
    return [json.loads(line) for line in complete.splitlines()]


def results_file(text: str) -> Path:
    """For argparse: a file with at least one row."""
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text} is not there; `run --out {text}` makes it")
    if not read_rows(path):
        raise argparse.ArgumentTypeError(f"{text} holds no finished run")
    return path


def mean_sem(values: Sequence[float]) -> str:
    """``0.812 ± 0.004``; the mean alone for one value."""
    mean = statistics.fmean(values)
    return f"{mean:.3f}" if len(values) < 2 else f"{mean:.3f} ± {statistics.stdev(values) / len(values) ** 0.5:.3f}"


def _train(flat: Flat) -> dict[str, object]:
    import torch

    from repsim.config import TrialConfig
    from repsim.errors import DegenerateInputError, NonFiniteLossError, RequestError
    from repsim.trainer import train
    from repsim.workspace import Workspace

    torch.set_num_threads(1)
    if not _workspace:
        _workspace.append(Workspace())
    workspace = _workspace[0]
    assert isinstance(workspace, Workspace)
    started = time.perf_counter()
    row: dict[str, object] = {"config": _named(flat)}
    try:
        result = train(TrialConfig.from_flat(flat), workspace=workspace)
    except RequestError as error:
        return row | {"refused": error.mistakes[0].problem}
    except (NonFiniteLossError, DegenerateInputError) as error:
        return row | {"refused": f"broke down: {error}"}
    answer = result.to_dict()
    kept = {name: answer.get(name, []) for name in ("values", "facts", "derived")}
    return row | kept | {"seconds": time.perf_counter() - started}


def _named(flat: Flat) -> dict[str, object]:
    return {**flat, "data": Path(str(flat["data"])).name}


def _key(config: object) -> str:
    return json.dumps(config, sort_keys=True)
