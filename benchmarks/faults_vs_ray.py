"""The same faults on a sweep of ours and on plain Ray Tune + OptunaSearch + MLflowLoggerCallback, side by side.

    python benchmarks/faults_vs_ray.py [--quick | --times N] [--fault NAME ...] [--markdown FILE] [--keep DIR]

Both sides run the same trials (plain_ray.py: same space, same two first trials, same epochs, two at a time) and are hit
at the same seeded random moments. Whoever attends them resumes what has ended early, interrupts and resumes what has
been silent for PATIENCE seconds, and looks once more when MLflow lacks something: MAX_RESUMES times in all.

What has really happened comes from neither side: every training process appends a line, fsynced, when an epoch or a
trial ends (fault_shim/sitecustomize.py).

finished   trials that had ended at least GRACE seconds before the fault (later ones are still on their way)
lost       of these, the ones missing or not completed in the final record (our journal, Ray's experiment) or in MLflow
repeated   of these, the ones that were trained again; and, apart from that, epochs that were
resumed    how often somebody had to start it again by hand
recovered  seconds from the fault to the end of the first new epoch that began after it and was not run again later (of
           the trial that was hit, where a worker was); where it had to be resumed, the first after that; the median of
           all runs; never: not before it had been silent for PATIENCE seconds
as asked   runs after which every trial that was asked for is in the record and in MLflow once, and has ended
zombies    runs left RUNNING in MLflow, trials left RUNNING in Optuna

Linux only. The figure is what we lost or repeated, over all faults. Goal: 0.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from fault_injection import (
    FAULTS,
    CameTooLate,
    Family,
    Fault,
    Hit,
    NotPossibleHere,
    Scene,
    Server,
    read_lines,
    small_disk,
)
from fault_sides import SIDES, Kept, Setting, Side, environment, fixed, kept_by
from fault_table import Outcome, Outcomes, markdown, print_table, rows
from PIL import Image

GOAL = 0
GRACE = 1.0
PATIENCE = 150.0
"""Seconds; longer than a start takes on a busy machine."""
MAX_RESUMES = 2
MOMENT_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True)
class Attended:
    """How a sweep ended. Times in seconds since 1970.

    ``restarted``: when it was first resumed because it had not ended well; ``silent``: when it was first given up.
    """

    kept: Kept
    lacking: list[str]
    resumed: int
    restarted: float | None
    silent: float | None


def begin(scene: Scene, setting: Setting, command: Sequence[str]) -> None:
    """Start the driver, the first time or again."""
    with (setting.folder / "driver.log").open("ab") as out:
        scene.driver = subprocess.Popen(
            command, cwd=setting.disk, env=environment(setting), stdout=out, stderr=out, start_new_session=True
        )
    scene.family.adopt(scene.driver.pid)


def wait_for_moment(scene: Scene, epochs: float) -> None:
    """Until so many epochs have ended; the rest of it is a part of the next one. CameTooLate when it never comes."""
    deadline = time.monotonic() + MOMENT_SECONDS
    while sum(line.event == "epoch" for line in read_lines(scene.log)) < epochs:
        if time.monotonic() > deadline or (scene.driver is not None and scene.driver.poll() is not None):
            raise CameTooLate("the sweep did not get that far")
        time.sleep(0.05)
    time.sleep(scene.rng.uniform(0, 0.5))


def wait_for_end(scene: Scene, *, since: float) -> int | None:
    """The driver's exit code; None when it lives and nothing has happened for PATIENCE seconds."""
    assert scene.driver is not None
    while scene.driver.poll() is None:
        last = max([since, *(line.ended for line in read_lines(scene.log))])
        if time.time() - last > PATIENCE:
            return None
        time.sleep(0.1)
    return scene.driver.returncode


def interrupt(scene: Scene) -> None:
    """Ctrl-C, and, where that does not help, SIGKILL."""
    assert scene.driver is not None
    scene.driver.send_signal(signal.SIGINT)
    try:
        scene.driver.wait(15)
    except subprocess.TimeoutExpired:
        scene.driver.kill()
        scene.driver.wait()


def shortcomings(kept: Kept, code: int | None, setting: Setting, diverged: str | None) -> list[str]:
    """Why this is not the end that was asked for; empty when it is."""
    found = [] if code == 0 else ["it fell silent" if code is None else f"exit code {code}"]
    if len(kept.record) != setting.trials:
        found.append(f"{len(kept.record)} of {setting.trials} trials in the record")
    open_ended = Counter(status for _, status in kept.record if status not in ("completed", "failed", "pruned"))
    found += [f"{count} {status} in the record" for status, count in open_ended.items()]
    failed = sum(status == "failed" and key != diverged for key, status in kept.record)
    if failed:
        found.append(f"{failed} failed")
    if (diverged, "completed") in kept.record:
        found.append("the trial that diverged counts as completed")
    if len(kept.mlflow) != setting.trials or {key for key, _ in kept.mlflow} != {key for key, _ in kept.record}:
        found.append(f"{len(kept.mlflow)} runs in MLflow")
    running = sum(status not in ("FINISHED", "FAILED") for _, status in kept.mlflow)
    if running:
        found.append(f"{running} runs in MLflow not ended")
    return found


def attend(side: Side, scene: Scene, setting: Setting, diverged: str | None) -> Attended:
    """See it through to its end, as a patient person would."""
    resumed, done, since = 0, 0, time.time()
    silent: float | None = None
    restarted: float | None = None
    while True:
        code = wait_for_end(scene, since=since)
        if code is None:
            silent = time.time() if silent is None else silent
            interrupt(scene)
        done += code == 0
        if code == 0 or resumed == MAX_RESUMES:
            kept = kept_by(side, setting)
            lacking = shortcomings(kept, code, setting, diverged)
            if not lacking or resumed == MAX_RESUMES or done == 2:
                return Attended(kept=kept, lacking=lacking, resumed=resumed, restarted=restarted, silent=silent)
        resumed, since = resumed + 1, time.time()
        if code != 0 and restarted is None:
            restarted = since
        begin(scene, setting, side.resume(setting))


def seconds_to_recover(scene: Scene, hit: Hit, seen: Attended, *, diverged: bool) -> float | None:
    """From the fault to the end of the first new epoch that began after it; None: it fell silent, or none was left.

    An epoch that was run again later does not count (an orphan had trained it, in vain), nor does one before the
    sweep had to be started again.
    """
    lines = [line for line in read_lines(scene.log) if line.event == "epoch"]
    before = {(line.key, line.epoch) for line in lines if line.began <= hit.at}
    last = {(line.key, line.epoch): line for line in sorted(lines, key=lambda line: line.ended)}
    new = [line for step, line in last.items() if step not in before]
    if hit.target is not None:
        new = [line for line in new if (line.key == hit.target) != diverged]
    if seen.restarted is not None:
        new = [line for line in new if line.began > seen.restarted] or new
    first = min((line.ended for line in new), default=None)
    if first is None or (seen.silent is not None and first > seen.silent):
        return None
    return first - hit.at


def score(scene: Scene, hit: Hit, seen: Attended) -> Outcome:
    """Compare what has really happened with what is kept."""
    lines = read_lines(scene.log)
    diverged = scene.log.with_name(scene.log.name + ".diverge").exists()
    finished = {line.key for line in lines if line.event == "finish" and line.ended < hit.at - GRACE}
    recorded = {key for key, status in seen.kept.record if status == "completed"}
    recorded &= {key for key, status in seen.kept.mlflow if status == "FINISHED"}
    epochs = [(line.key, line.epoch) for line in lines if line.event == "epoch"]
    return Outcome(
        finished=len(finished),
        lost=len(finished - recorded),
        repeated=len({line.key for line in lines if line.key in finished and line.began > hit.at}),
        epochs_again=len(epochs) - len(set(epochs)),
        resumed=seen.resumed,
        recovered=seconds_to_recover(scene, hit, seen, diverged=diverged),
        fell_silent=seen.silent is not None,
        zombies=seen.kept.zombies,
        shortcomings=seen.lacking,
    )


@contextmanager
def scene_for(setting: Setting, fault: Fault, rng: random.Random) -> Iterator[tuple[Scene, Setting]]:
    """Folders, disk and server of one run; every process that came of it is killed afterwards."""
    for folder in (setting.disk, setting.folder / "r", setting.folder / "t"):
        folder.mkdir(parents=True)
    with ExitStack() as stack:
        if fault.small_disk:
            stack.enter_context(small_disk(setting.disk))
        server = None
        if fault.server:
            server = Server(setting.folder, setting.database)
            stack.callback(server.stop)
            server.start()
            setting = replace(setting, uri=server.uri)
        family = Family()
        stack.callback(family.end)
        yield (
            Scene(
                folder=setting.disk,
                log=setting.folder / "log",
                database=setting.database,
                epochs=setting.epochs,
                family=family,
                server=server,
                rng=rng,
            ),
            setting,
        )


def run_case(side: Side, fault: Fault, setting: Setting, seed: str) -> Outcome:
    """One fault, once, on one side."""
    rng = random.Random(seed)
    moment = rng.uniform(0.25, 0.75) * (1 + (setting.trials - 1) * setting.epochs)
    with scene_for(setting, fault, rng) as (scene, placed):
        begin(scene, placed, side.start(placed))
        wait_for_moment(scene, moment)
        hit = fault.inject(scene)
        order = scene.log.with_name(scene.log.name + ".diverge")
        diverged = hit.target if order.exists() else None
        return score(scene, hit, attend(side, scene, placed, diverged))


def write_images(folder: Path) -> Path:
    """Noise in three colours, 240 images each: an epoch takes some half a second."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir(parents=True)
        for index in range(240):
            pixels = rng.normal(110, 50, (32, 32, 3))
            pixels[..., number] += 20
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{index:03d}.png")
    return folder


def warm_up(setting: Setting) -> None:
    """Fill the cache that both sides share."""
    import torch

    from repsim.config import TrialConfig
    from repsim.trainer import Trainer
    from repsim.workspace import Workspace

    torch.set_num_threads(1)
    config = TrialConfig.from_flat({**fixed(setting.images, setting.epochs), "method": "repsim"})
    Trainer(config, workspace=Workspace(cache_dir=setting.cache)).step()


def measure(arguments: argparse.Namespace, root: Path, outcomes: Outcomes, notes: list[str]) -> int:
    """Fill in the outcomes, by fault and side, and what is to be said about them; how many came to nothing."""
    missed = 0
    trials, epochs = (4, 6) if arguments.quick else (6, 8)
    common = Setting(
        folder=root, disk=root, images=root / "images", cache=root / "cache", trials=trials, epochs=epochs, uri=""
    )
    write_images(common.images)
    warm_up(common)
    asked = [(number, name) for number, name in enumerate(FAULTS) if name in (arguments.fault or FAULTS)]
    sides = [side for side in SIDES if side.name in (arguments.side or side.name)]
    for number, name in asked:
        outcomes[name] = {side.name: [] for side in SIDES}
        for repetition, side in itertools.product(range(arguments.times), sides):
            folder = root / f"{number}.{repetition}{side.name[0].lower()}"
            disk = folder / "d"
            setting = replace(common, folder=folder, disk=disk, uri=f"sqlite:///{disk / 'mlflow.db'}")
            label, began = f"{name}, {side.name}, {repetition + 1}", time.monotonic()
            try:
                outcome = run_case(side, FAULTS[name], setting, f"{arguments.seed} {name} {repetition}")
            except NotPossibleHere as problem:
                notes.append(f"{label}: skipped: {problem}")
            except CameTooLate as problem:
                notes.append(f"{label}: the fault was not tried: {problem}")
                missed += 1
            else:
                outcomes[name][side.name].append(outcome)
                notes += [f"{label}: {'; '.join(outcome.shortcomings)}"] if outcome.shortcomings else []
            print(f"# {label}: {time.monotonic() - began:.0f} s, {outcomes[name][side.name][-1:]}", flush=True)
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="each fault once, on 4 trials of 6 epochs instead of 6 of 8"
    )
    parser.add_argument("--times", type=int, help="how often each fault is tried (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--fault", action="append", choices=list(FAULTS), help="only this one; repeatable")
    parser.add_argument("--side", action="append", choices=[side.name for side in SIDES], help="only this one")
    parser.add_argument("--markdown", type=Path, help="write the table here, too")
    parser.add_argument("--keep", type=Path, help="run here (a short path) and keep what is left behind")
    arguments = parser.parse_args()
    arguments.times = arguments.times or (1 if arguments.quick else 3)
    outcomes: Outcomes = {}
    notes: list[str] = []
    whole = False
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="fvr-", ignore_cleanup_errors=True) as temporary:
        root = Path(temporary) if arguments.keep is None else arguments.keep.resolve()
        root.mkdir(parents=True, exist_ok=True)
        try:
            whole = measure(arguments, root, outcomes, notes) == 0
        except (KeyboardInterrupt, SystemExit):
            notes.append("interrupted: not everything was measured")
    table = rows(outcomes)
    print_table(table)
    print(*(f"  {note}" for note in notes), sep="\n")
    figure = sum(run.lost + run.repeated for sides in outcomes.values() for run in sides["ours"])
    ok = whole and figure <= GOAL
    last = f"faults_vs_ray: {figure} (goal {GOAL}) {'ok' if ok else 'short'}"
    if arguments.markdown is not None:
        command = shlex.join(["python", "benchmarks/faults_vs_ray.py", *sys.argv[1:]])
        definitions = next(part for part in (__doc__ or "").split("\n\n") if part.startswith("finished"))
        arguments.markdown.write_text(markdown(table, notes, last, command, definitions))
    print(last)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
