"""How long does a real sweep that stops trials take to the front of one that does not?

    python benchmarks/search_real.py --data folder:DIR --work DIR [--seeds 3] [--trials 40] [--epochs 8] [--out FILE]
    python benchmarks/search_real.py --quick

Real sweeps through sweeps/launch.py, two trials at a time, of data/pbc_search_space.yaml. DIR is
meant to be PBC (peripheral blood cells, 250 of each of 8 classes, a folder per class). For each search seed

1. one training of ``partial+repsim`` with that seed, thrown away: it fills the cache with everything that the seed's
   trials will look for (decoded images, pretrained features, and what the frozen beginning hands on, of its views);
2. the sweep without stopping (``search.stopping: none``), to its end;
3. the sweep with stopping (``pareto``): same seed, same anchors, up to twice as many trials, for a stopped trial is
   cheap and the same time holds more of them. It is interrupted as soon as the hypervolume of its front is what the
   other's was in the end (the mark), or when it has taken longer than the other: it then never reached the mark.

The sides cannot take turns at going first, because the second needs the mark of the first.

Seconds run from the launch of the process to the time in the journal at which a trial ended: starting up counts,
shutting down does not. Hypervolumes are those of the val values that the search sees, both in the box of the sweep
without stopping. Each sweep has a folder of its own below WORK, with its MLflow database, and no report is built. When
the command is given again, sweeps that are over are not run again; one that was cut short starts afresh.

The last line holds the median over the seeds of (seconds to the mark with stopping) / (seconds that the whole sweep
without took), infinite where it never got there. Goal: 0.6. The lines before give it by seed, and the stricter ratio,
to the seconds after which the sweep without stopping had the mark for the first time.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from search_pairs import Pair, Sweep, box, print_pair, reached, told, verdict

from repsim.data.sources import count_images, parse_source, path_of
from repsim.errors import Mistake, RequestError
from sweeps.journal import History, read_history
from sweeps.judgement import Judgement
from sweeps.provenance import provenance
from sweeps.space import Space, load_space

REPOSITORY = Path(__file__).resolve().parent.parent
SPACE = REPOSITORY / "benchmarks" / "data" / "pbc_search_space.yaml"
STOPPING = ("none", "pareto")
WARMING = {"method": "partial+repsim", "strength": 1.0, "optim.lr": 3e-4}
PARALLEL = 2
NAME = "sweep"
LAUNCHED, CUT, SETTING = "launched.json", "cut", "setting.json"
"""When a sweep was launched; that it was interrupted on purpose; what all sweeps of a work folder share."""
LOOK_SECONDS = 1.0
GRACE_SECONDS = 60.0


class SweepBroke(RuntimeError):  # noqa: N818 (it says what happened)
    """A sweep ended in another way than it was to."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is the same for every seed. ``budget``: trials of the sweep with stopping."""

    data: str
    trials: int
    budget: int
    epochs: int

    def space(self, seed: int, stopping: str) -> Space:
        """What will be searched. Raises RequestError when it cannot be."""
        overrides = [f"budget.epochs={self.epochs}", f"search.stopping={stopping}"]
        return load_space(str(SPACE), overrides, data=[self.data], trials=self.planned(stopping), seed=seed)

    def planned(self, stopping: str) -> int:
        """Trials of a sweep."""
        return self.trials if stopping == "none" else self.budget

    def command(self, seed: int, stopping: str) -> list[str]:
        """The launch of a sweep, in a folder of its own."""
        words = [sys.executable, str(REPOSITORY / "sweeps" / "launch.py"), "--space", str(SPACE), "--name", NAME]
        words += ["--data", self.data, "--seed", str(seed), "--trials", str(self.planned(stopping))]
        words += ["--set", f"budget.epochs={self.epochs}", "--set", f"search.stopping={stopping}"]
        return [*words, "--parallel", str(PARALLEL), "--tracking-uri", "sqlite:///mlflow.db", "--no-report"]


def judge(setting: Setting) -> Judgement:
    """By the objectives that every sweep has."""
    space = setting.space(0, "none")
    return Judgement(objectives=space.objectives, constraints=space.constraints)


def read(folder: Path, judgement: Judgement, reference: Mapping[str, float] | None = None) -> tuple[Sweep, History]:
    """A sweep from its folder, live or over, in this box or (None) in its own."""
    history = read_history(journal_of(folder))
    launched = float(json.loads((folder / LAUNCHED).read_text(encoding="utf-8")))
    return told(history, launched, judgement, box(history) if reference is None else reference), history


def journal_of(folder: Path) -> Path:
    """Where a sweep that is started in ``folder`` writes its journal."""
    return folder / "runs" / NAME / "journal.jsonl"


def is_over(folder: Path) -> bool:
    """Whether there is nothing more to run: the sweep has finished, or was cut on purpose."""
    if not (folder / LAUNCHED).exists() or not journal_of(folder).exists():
        return False
    return (folder / CUT).exists() or read_history(journal_of(folder)).finished


def warm(setting: Setting, seed: int) -> None:
    """Fill the cache, and the system's with the libraries of a sweep; in a process of its own, to keep ours small."""
    import torch

    from repsim.trainer import Trainer

    for library in ("ray.tune", "mlflow", "optuna"):
        importlib.import_module(library)
    torch.set_num_threads(1)
    trainer = Trainer(setting.space(seed, "none").config(WARMING, data=setting.data, seed=seed))
    while not trainer.done:
        trainer.step()


def launch(folder: Path, command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a sweep in an empty folder of its own, which notes when."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    with (folder / "log").open("wb") as log:
        (folder / LAUNCHED).write_text(json.dumps(time.time()), encoding="utf-8")
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def end(child: subprocess.Popen[bytes]) -> None:
    """Ctrl-C, and SIGKILL for it and its process group where that does not help; nothing when it has ended."""
    if child.poll() is not None:
        return
    child.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        try:
            child.wait(GRACE_SECONDS)
        finally:  # also when a second Ctrl-C interrupts the wait
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


@dataclass(frozen=True, kw_only=True)
class Rival:
    """The sweep without stopping, and its box: what the sweep with stopping is measured against while it runs."""

    sweep: Sweep
    reference: Mapping[str, float]


def run_sweep(folder: Path, setting: Setting, seed: int, rival: Rival | None) -> None:
    """One sweep, with a line after each trial; with stopping when there is a rival.

    Then it is cut when it has the rival's hypervolume, or has taken longer. Raises SweepBroke when it ends otherwise.
    """
    stopping = "none" if rival is None else "pareto"
    judgement = judge(setting)
    child, launched, seen, enough = launch(folder, setting.command(seed, stopping)), time.time(), 0, False
    try:
        while not enough and child.poll() is None:
            time.sleep(LOOK_SECONDS)
            enough = rival is not None and time.time() - launched > rival.sweep.seconds
            count = count_ended(journal_of(folder))
            if count == seen:
                continue
            seen, (found, _) = count, read(folder, judgement, None if rival is None else rival.reference)
            enough = enough or (rival is not None and reached(found.curve, rival.sweep.volume) < math.inf)
            print(f"seed {seed}, {stopping}: {progress(found, setting.planned(stopping), rival)}", flush=True)
    finally:
        end(child)
    if enough:
        (folder / CUT).touch()
    elif child.returncode != 0:
        words = (folder / "log").read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line for line in reversed(words) if line.strip()), "it said nothing")
        raise SweepBroke(f"exit code {child.returncode}: {last.strip()} (see {folder / 'log'})")


def count_ended(journal: Path) -> int:
    """Trials that have ended, without folding the whole journal; 0 while there is none."""
    return journal.read_bytes().count(b'"event":"ended"') if journal.exists() else 0


def progress(found: Sweep, planned: int, rival: Rival | None) -> str:
    """How far a sweep is, in words."""
    mark = "" if rival is None else f" (the mark: {rival.sweep.volume:.4f}, within {rival.sweep.seconds:.0f} s)"
    counts = f"{found.ended}/{planned} trials ended, {found.stopped} stopped, {found.failed} failed"
    return f"{counts}, {found.seconds:.0f} s, hypervolume {found.volume:.4f}{mark}"


def run_pair(work: Path, setting: Setting, seed: int) -> Pair:
    """Both sweeps of a seed, as far as they are not over. Raises SweepBroke or RequestError when one cannot be used."""
    folders = {stopping: work / f"seed-{seed}" / stopping for stopping in STOPPING}
    judgement = judge(setting)
    if not all(map(is_over, folders.values())):
        began = time.monotonic()
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            pool.submit(warm, setting, seed).result()
        print(f"seed {seed}: the cache is warm, {time.monotonic() - began:.0f} s", flush=True)
    if not is_over(folders["none"]):
        shutil.rmtree(folders["pareto"], ignore_errors=True)  # it was cut at a mark that is no more
        run_sweep(folders["none"], setting, seed, None)
    plain, history = read(folders["none"], judgement)
    reference = box(history)
    if reference is None:
        raise SweepBroke(f"an anchor did not complete, so there is no hypervolume (see {folders['none'] / 'log'})")
    if not is_over(folders["pareto"]):
        run_sweep(folders["pareto"], setting, seed, Rival(sweep=plain, reference=reference))
    return Pair(seed=seed, plain=plain, stopping=read(folders["pareto"], judgement, reference)[0])


def as_json(setting: Setting, pairs: Sequence[Pair]) -> str:
    """Everything for plots and pages; null where the mark was never reached."""
    found = []
    for pair in pairs:
        sides = {"none": asdict(pair.plain), "pareto": asdict(pair.stopping)}
        figures = {"first": pair.first, "reached": pair.reached, "ratio": pair.ratio, "strict_ratio": pair.strict_ratio}
        known = {name: None if math.isinf(value) else value for name, value in figures.items()}
        found.append({"seed": pair.seed, "mark": pair.mark, **known, **sides})
    asked = asdict(setting) | {"data": Path(setting.data).name}
    return json.dumps({"setting": asked, **provenance(), "seeds": found}, indent=1, allow_nan=False) + "\n"


def check_setting(work: Path, setting: Setting) -> None:
    """Note the setting in the work folder; RequestError when the sweeps in there had another."""
    file, asked = work / SETTING, asdict(setting)
    if not file.exists():
        file.write_text(json.dumps(asked), encoding="utf-8")
    there = json.loads(file.read_text(encoding="utf-8"))
    if there != asked:
        differing = ", ".join(f"{name} {there.get(name)}" for name in asked if there.get(name) != asked[name])
        raise RequestError(
            Mistake(
                where="--work",
                key=str(work),
                problem=f"holds sweeps of another setting ({differing})",
                allowed="the same setting, or another folder",
            )
        )


def absolute(source: str) -> str:
    """The same source from any folder. Raises RequestError when it names no images."""
    count_images(source, where="--data", key="")
    kind, rest = parse_source(source, where="--data", key="")
    return f"{kind}:{path_of(rest).resolve()}" if kind in ("folder", "csv", "npz") else source


def arguments_from(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, with what ``--quick`` stands for filled in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="SOURCE", help="folder:DIR with the images, a folder per class")
    parser.add_argument("--work", type=Path, metavar="DIR", help="the sweeps are kept here, and taken up again")
    parser.add_argument("--quick", action="store_true", help="1 seed, 8 trials, 2 epochs, on a phantom, kept nowhere")
    parser.add_argument("--seeds", type=int, help="search seeds 0, 1, … (default 3)")
    parser.add_argument("--trials", type=int, help="of the sweep without stopping (default 40)")
    parser.add_argument("--budget", type=int, help="most trials of the sweep with stopping (default: twice as many)")
    parser.add_argument("--epochs", type=int, help="of every trial that is not stopped (default 8)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write figures and curves here, as JSON")
    arguments = parser.parse_args(words)
    for name, usual, quick in (("seeds", 3, 1), ("trials", 40, 8), ("epochs", 8, 2)):
        if getattr(arguments, name) is None:
            setattr(arguments, name, quick if arguments.quick else usual)
    if arguments.data is None and not arguments.quick:
        parser.error("--data is needed, unless --quick")
    if arguments.work is None and not arguments.quick:
        parser.error("--work is needed, unless --quick")
    if arguments.seeds < 1:
        parser.error(f"--seeds: {arguments.seeds} is not allowed; allowed: a whole number from 1")
    return arguments


def measure(work: Path, setting: Setting, seeds: int, out: Path | None) -> int:
    """Every seed; one that breaks is said and left out, and so costs the goal. The exit code."""
    pairs: list[Pair] = []
    for seed in range(seeds):
        try:
            pairs.append(run_pair(work, setting, seed))
        except (SweepBroke, RequestError) as problem:
            print(f"seed {seed} is left out: {problem}", flush=True)
            continue
        print_pair(pairs[-1])
        if out is not None:
            out.write_text(as_json(setting, pairs), encoding="utf-8")
    return verdict(pairs, seeds - len(pairs))


def main() -> int:
    arguments = arguments_from()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: sys.exit(143))
    setting = Setting(
        data=absolute(arguments.data or "phantom:ultrasound"),
        trials=arguments.trials,
        budget=arguments.budget or 2 * arguments.trials,
        epochs=arguments.epochs,
    )
    for stopping in STOPPING:
        setting.space(0, stopping)
    with tempfile.TemporaryDirectory(prefix="search_real-", ignore_cleanup_errors=True) as temporary:
        work = Path(temporary) if arguments.work is None else arguments.work.resolve()
        work.mkdir(parents=True, exist_ok=True)
        check_setting(work, setting)
        return measure(work, setting, arguments.seeds, arguments.out)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RequestError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
