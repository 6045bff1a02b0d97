"""What the sweep itself costs: trials that do nothing, through our engine and through bare Ray Tune, in the same run.

    python benchmarks/launcher_overhead.py [--quick] [--trials N] [--rounds N] [--mlflow-meanwhile]

The sides take turns, round by round, and so does who goes first: Ray's own time for the same trials varies twofold from
one start to the next. Figures are medians over the rounds. Each side runs in a process of its own, on a Ray of its own
with 2 slots and the same settings, random search, reused trial processes and one epoch per trial. Bare Ray: a class
trainable, no searcher, no callbacks. Ours is everything that a sweep has: the search with its front, the journal (every
event fsynced), attempt fences, the live view, process recycling. MLflow (sqlite) gets its updates when the last trial
of the first round has ended, and the time for that is given apart (``--mlflow-meanwhile``: in every round, on its
thread, as in a sweep). Goals: our rate is at least 0.6 of bare Ray's; our driver grows by at most 100 KiB a trial; with
as many trials behind it, a TPE proposal takes at most 100 ms. The last line holds the ratio of the rates.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune

from repsim.records import EPOCH_METRICS, STANDARD_METRICS, EpochResult, Status, TrialResult
from sweeps import engine
from sweeps.conductor import Sweep
from sweeps.disk import Disk
from sweeps.journal import Journal, first_line
from sweeps.listeners import Listeners
from sweeps.live import LiveView
from sweeps.provenance import provenance
from sweeps.ray_cluster import cluster
from sweeps.run_folder import RunFolder
from sweeps.search import Outcome, Search
from sweeps.slots import Slots
from sweeps.space import Space, space_from_dict
from sweeps.tracking import SweepWriter, prepare_store
from sweeps.trainable import Report, TrialProcess
from sweeps.trial import TrialRecord

GOAL, GROWTH_GOAL, ASK_GOAL = 0.6, 100.0, 100.0
TRIALS, QUICK_TRIALS = 2000, 200
ROUNDS = 3
ASKS = 10
SLOTS = Slots(parallel=2, threads=1)
METHODS = ("linear_probe", "full", "repsim", "hcs", "feature_mse")
DRAIN_SECONDS = 600.0


def the_space(trials: int, sampler: str) -> Space:
    """A space of the usual size, one epoch per trial."""
    document = {
        "name": "overhead",
        "objectives": [{"metric": "val_accuracy"}, {"metric": "val_cka"}],
        "budget": {"trials": trials, "epochs": 1},
        "search": {"sampler": sampler, "parallel": SLOTS.parallel},
        "space": {
            "method": list(METHODS),
            "strength": {"low": 0.03, "high": 30.0, "log": True, "when": {"penalty": "any"}},
            "optim.lr": {"low": 1e-5, "high": 1e-3, "log": True},
        },
    }
    return space_from_dict(document, where="launcher_overhead")


def made_up(number: int) -> dict[str, float]:
    """Standard metrics of a trial that was never trained."""
    rng = random.Random(number)
    return dict.fromkeys(STANDARD_METRICS, 0.5) | {"val_accuracy": rng.random(), "val_cka": rng.random()}


class NoOpProcess(TrialProcess):
    """The sweep's own slot process, without the training."""

    def _advance(self) -> Report:
        values = made_up(int(self._assignment.trial_id.removeprefix("t")))
        now = time.time()
        epoch = EpochResult(
            epoch=1,
            values={name: values[name] for name in EPOCH_METRICS},
            train_loss=0.5,
            train_penalty=None,
            learning_rate=1e-4,
            steps=1,
            train_seconds=0.0,
            seconds=0.0,
        )
        facts: dict[str, object] = {"slot": os.getpid(), "began": now, "finished": now}
        result = TrialResult(chosen_epoch=1, epochs=1, values=values, facts=facts)
        return Report(epochs=[epoch.to_dict()], result=result.to_dict())


class Bare(tune.Trainable):  # type: ignore[misc]
    """The least that Ray Tune can run."""

    def step(self) -> dict[str, object]:
        """Two numbers, and done."""
        return {"val_accuracy": random.random(), "val_cka": random.random(), "done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The process serves the next trial as well."""
        return True


def resident_kib() -> float:
    """Memory of this process that is in RAM."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))


class Memory(Listeners):
    """The sweep's listeners; notes the driver's memory as trials end."""

    points: list[tuple[int, float]]

    def changed(self, record: TrialRecord) -> None:
        """As in a sweep."""
        super().changed(record)
        if record.status.terminal:
            self.points.append((len(self.points) + 1, resident_kib()))


def run_bare(trials: int) -> dict[str, object]:
    """Random search without callbacks."""
    with cluster(SLOTS, None, _lost), tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(Bare, {"cpu": SLOTS.threads}),
            param_space={
                "method": tune.choice(METHODS),
                "strength": tune.loguniform(0.03, 30.0),
                "lr": tune.loguniform(1e-5, 1e-3),
            },
            tune_config=tune.TuneConfig(num_samples=trials, reuse_actors=True, max_concurrent_trials=SLOTS.parallel),
            run_config=tune.RunConfig(
                name="bare",
                storage_path=folder,
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        started = time.perf_counter()
        results = tuner.fit()
        seconds = time.perf_counter() - started
        if len(results) != trials or results.errors:
            raise RuntimeError(f"{len(results)} of {trials} trials, {len(results.errors)} errors")
        return {"seconds": seconds}


def run_ours(trials: int, mlflow: str) -> dict[str, object]:
    """The sweep's parts, put together as a session does, with trials that do nothing.

    ``mlflow``: ``meanwhile``, ``afterwards`` or ``never``.
    """
    engine.TrialProcess = NoOpProcess  # type: ignore[misc]
    space = the_space(trials, "random")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        header = {"name": "overhead", "space": space.to_dict(), "seed": 0, "command": "", "provenance": provenance()}
        folder = RunFolder.create(root / "runs", "overhead", {"journal.jsonl": first_line(header)})
        uri = f"sqlite:///{root / 'mlflow.db'}"
        prepare_store(uri)
        writer = SweepWriter(uri=uri, space=space, sweep="overhead", provenance=provenance(), command="")
        if mlflow == "meanwhile":
            writer.start()
        with Journal.open(folder.journal) as journal, (root / "screen").open("w") as screen:
            search = Search(space)
            view = LiveView(space, search.total, screen)
            disk = Disk(folder.root, reserve=0, say=view.note, check=_nothing)
            memory = Memory(space=space, search=search, journal=journal, writer=writer, view=view, disk=disk)
            memory.points = []
            sweep = Sweep(
                space=space,
                search=search,
                journal=journal,
                folder=folder,
                listener=memory,
                disk=disk,
                slots=SLOTS,
                cache_dir=root / "cache",
            )
            with cluster(SLOTS, None, _lost), own_time() as own:
                started = time.perf_counter()
                engine.drive(sweep, SLOTS, _nothing)
                seconds = time.perf_counter() - started
            done = search.counts[Status.COMPLETED]
            size = folder.journal.stat().st_size
        started = time.perf_counter()
        if mlflow == "afterwards":
            writer.start()
        written = mlflow == "never" or writer.flush(DRAIN_SECONDS)
        drained = time.perf_counter() - started
        if mlflow != "never":
            writer.close("completed")
    if done != trials or not written:
        raise RuntimeError(f"{done} of {trials} trials completed; MLflow {'is' if written else 'is not'} drained")
    return {
        "seconds": seconds,
        "own_ms": 1e3 * own[0] / trials,
        "growth_kib": growth(memory.points),
        "drained_seconds": drained,
        "journal_bytes": size / trials,
    }


@contextmanager
def own_time() -> Iterator[list[float]]:
    """Seconds for which Ray's loop waits for the sweep: the search, its front, the journal, the live view."""
    spent = [0.0]
    ask: Any = engine._Guarded.ask

    def timed(guarded: Any, question: Any, otherwise: Any) -> Any:
        started = time.perf_counter()
        try:
            return ask(guarded, question, otherwise)
        finally:
            spent[0] += time.perf_counter() - started

    engine._Guarded.ask = timed  # type: ignore[method-assign, assignment]
    try:
        yield spent
    finally:
        engine._Guarded.ask = ask  # type: ignore[method-assign]


def growth(points: list[tuple[int, float]]) -> float:
    """KiB per trial, by least squares, the first tenth left out (imports and first uses)."""
    kept = np.array(points[len(points) // 10 :])
    return float(np.polyfit(kept[:, 0], kept[:, 1], 1)[0])


def run_ask(trials: int) -> dict[str, object]:
    """Milliseconds of a proposal after so many trials: the first (nothing is cached), and the median of the rest."""
    source, records = Search(the_space(trials, "random")), []
    while (trial := source.ask()) is not None:
        values = made_up(trial.number)
        result = TrialResult(chosen_epoch=1, epochs=1, values=values, facts={})
        records.append(TrialRecord(trial=trial, status=Status.COMPLETED, result=result))
        source.tell(trial, Outcome(status=Status.COMPLETED, values=values))
    found: dict[str, object] = {}
    for sampler in ("tpe", "auto"):
        space = the_space(trials, sampler)
        search = Search(replace(space, budget=replace(space.budget, trials=trials + ASKS + 1)))
        search.restore(records)
        times = []
        for _ in range(ASKS + 1):
            started = time.perf_counter()
            trial = search.ask()
            times.append(1e3 * (time.perf_counter() - started))
            if trial is None:
                raise RuntimeError("the search has nothing more to propose")
            search.tell(trial, Outcome(status=Status.COMPLETED, values=made_up(trial.number)))
        found[sampler] = (times[0], statistics.median(times[1:]))
    return found


def _nothing() -> None:
    """Nobody interrupts."""


def _lost(why: str) -> None:
    print(why, file=sys.stderr)
    os._exit(1)


def in_a_process(side: str, trials: int, mlflow: str = "never") -> Mapping[str, Any]:
    """One side, on its own; its answer is its last line."""
    command = [sys.executable, __file__, "--side", side, "--trials", str(trials), "--mlflow", mlflow]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def in_turns(trials: int, rounds: int, meanwhile: bool) -> dict[str, list[Mapping[str, Any]]]:
    """The answers of both sides, round by round; a line for each round."""
    found: dict[str, list[Mapping[str, Any]]] = {"bare": [], "ours": []}
    for number in range(rounds):
        for side in ("bare", "ours") if number % 2 == 0 else ("ours", "bare"):
            mlflow = "meanwhile" if meanwhile else "afterwards" if number == 0 else "never"
            found[side].append(in_a_process(side, trials, mlflow))
        bare, ours = found["bare"][-1]["seconds"], found["ours"][-1]["seconds"]
        print(f"round {number + 1}: bare Ray Tune {bare:.1f} s, ours {ours:.1f} s", flush=True)
    return found


def arguments_from() -> argparse.Namespace:
    """The command line, with what ``--quick`` stands for filled in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_TRIALS} trials instead of {TRIALS}, one round")
    parser.add_argument("--trials", type=int, metavar="N", help="that many trials")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"that many rounds (default {ROUNDS})")
    parser.add_argument("--mlflow-meanwhile", action="store_true", help="MLflow is written while trials run")
    parser.add_argument("--side", choices=("bare", "ours", "ask"), help="one side alone, its answer as JSON")
    parser.add_argument("--mlflow", choices=("never", "meanwhile", "afterwards"), default="never", help="with --side")
    arguments = parser.parse_args()
    if arguments.trials is None:
        arguments.trials = QUICK_TRIALS if arguments.quick else TRIALS
    if arguments.rounds is None:
        arguments.rounds = 1 if arguments.quick else ROUNDS
    if arguments.rounds < 1:
        parser.error(f"--rounds: {arguments.rounds} is not allowed; allowed: a whole number from 1")
    return arguments


def main() -> int:
    arguments = arguments_from()
    trials = arguments.trials
    if arguments.side is not None:
        sides = {
            "bare": lambda: run_bare(trials),
            "ours": lambda: run_ours(trials, arguments.mlflow),
            "ask": lambda: run_ask(trials),
        }
        print(json.dumps(sides[arguments.side]()))
        return 0
    print(f"{trials} trials that do nothing, {SLOTS.parallel} slots", flush=True)
    found = in_turns(trials, arguments.rounds, arguments.mlflow_meanwhile)
    ask = in_a_process("ask", trials)
    seconds = {side: statistics.median(answer["seconds"] for answer in answers) for side, answers in found.items()}
    for name, side in (("bare Ray Tune", "bare"), ("ours", "ours")):
        print(f"{name:14} {seconds[side]:8.1f} s {trials / seconds[side]:8.2f} trials/s")
    own = statistics.median(answer["own_ms"] for answer in found["ours"])
    print(f"of ours, {own:.1f} ms a trial in the search, its front, the journal and the live view")
    first = found["ours"][0]
    print(
        f"MLflow drained in {first['drained_seconds']:.1f} s{' more' if arguments.mlflow_meanwhile else ''}; ", end=""
    )
    print(f"journal {first['journal_bytes'] / 1024:.1f} KiB/trial")
    for sampler, (start, rest) in ask.items():
        print(
            f"{sampler} proposal after {trials} trials: first {start:.0f} ms, then {rest:.0f} ms (goal {ASK_GOAL:.0f})"
        )
    growing = statistics.median(answer["growth_kib"] for answer in found["ours"])
    print(f"our driver grows by {growing:.1f} KiB/trial (goal {GROWTH_GOAL:.0f})")
    figure = seconds["bare"] / seconds["ours"]
    ok = figure >= GOAL and growing <= GROWTH_GOAL and ask["tpe"][1] <= ASK_GOAL
    print(f"launcher_overhead: {figure:.3f} (goal {GOAL}) {'ok' if ok else 'short'}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
