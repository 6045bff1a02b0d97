"""How many epochs until a search has the front that plain TPE has after 60 trials? Replayed on a table of real trials.

    python benchmarks/search_vs_peers.py [--table FILE | --synthetic] [--quick] [--sides NAME...] [--out FILE]

The table (search_table.py) holds real curves of every point of a grid, with two seeds. Every search runs on it with 4
slots and a simulated clock, 20 times with seeds of its own; what it proposes is taken to the nearest measured point. It
sees the curves of the first training seed, and the front it has chosen by them is scored by the results of the second.

The mark is the median hypervolume of plain TPE (Ray's OptunaSearch, nothing stopped) after 60 trials. Counted are the
epochs until a search is there for the first time, over its search seeds: median and quartiles, and how many got there
within the epochs allowed (the others count as later than any). Plain TPE's own figure is counted the same way. The last
line holds our median over plain TPE's. Goal: 0.5, and fewer epochs than Syne Tune's MOASHA, as released or repaired.

The second table says what each stopping rule does to a random order of all the points: how many of the points on the
table's front (by the seed that the search sees) it stops, how many of all, and which share of the epochs it spends.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
from search_grid import TABLE, Point, grid_space, params_of
from search_replay import SEARCHED, Run, Table, replay
from search_sides import MOASHA, PLAIN, REPLACED, Listed, has_syne_tune, sides, stoppers
from search_synthetic import synthetic

from repsim.records import Status

GOAL = 0.5
KILLED_GOAL = 0.10
OURS = "auto + pareto"
MARK_TRIALS = 60
SLOTS = 4


@cache
def the_table(file: str | None) -> Table:
    """The measured table, or the made-up one; once per process."""
    space = grid_space()
    return synthetic(space) if file is None else Table.read(space, Path(file))


def one_run(job: tuple[str | None, str, int, int, int, bool]) -> Run:
    """One search: table, side, search seed, budget of trials that ours plan with, epochs allowed, clock."""
    file, side, seed, trials, epochs, recorded = job
    table = the_table(file)
    make = sides(trials)[side]
    return replay(make(table.space, seed), table, slots=SLOTS, epochs=epochs, recorded_time=recorded)


def one_order(job: tuple[str | None, str, int]) -> Run:
    """Every point of the table once, in a random order after the anchors, under one stopping rule."""
    file, rule, seed = job
    table = the_table(file)
    rest = [point for point in table.points if point not in table.anchors]
    order = [table.anchors[i] for i in range(len(table.anchors))]
    order += [rest[i] for i in np.random.default_rng(seed).permutation(len(rest))]
    stopper = stoppers(table.space)[rule](seed)
    whole = len(table.points) * table.space.budget.epochs
    return replay(Listed(map(params_of, order), stopper), table, slots=SLOTS, epochs=whole)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower, median, upper; infinite where the searches that never got there reach it."""
    ordered, found = sorted(values), []
    for share in (0.25, 0.5, 0.75):
        place = share * (len(ordered) - 1)
        low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
        found.append(low if low == high else low + (place - math.floor(place)) * (high - low))
    return found[0], found[1], found[2]


def _epochs(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.0f}"


def print_sides(table: Table, runs: dict[str, list[Run]], mark: float) -> dict[str, float]:
    """The first table; median epochs by side."""
    front, medians = set(table.front(SEARCHED)), {}
    print(f"{'search':26} {'epochs to':>9} {'quartiles':>12} {'reached':>8} {'trials':>7} {'stopped':>8} ", end="")
    print(f"{'of front':>9} {'volume at the end':>18}")
    for side, found in runs.items():
        low, middle, high = quartiles([run.reached(mark) for run in found])
        medians[side] = middle
        reached = sum(run.reached(mark) < math.inf for run in found)
        trials = statistics.fmean(len(run.ended) for run in found)
        last = statistics.median(run.volumes[-1][1] for run in found)
        spread = f"{_epochs(low)}-{_epochs(high)}"
        print(f"{side:26} {_epochs(middle):>9} {spread:>12} {reached:>4}/{len(found):<3} {trials:7.0f} ", end="")
        print(f"{_percent(stopped_share(found)):>8} {_percent(stopped_share(found, front)):>9} {last:18.4f}")
    return medians


def stopped_share(runs: Sequence[Run], among: Collection[Point] | None = None) -> float:
    """Share of the trials (of these points) that were stopped; 0 where there are none."""
    found = [status is Status.PRUNED for run in runs for point, status in run.ended if among is None or point in among]
    return statistics.fmean(found) if found else 0.0


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def print_rules(table: Table, found: dict[str, list[Run]]) -> dict[str, float]:
    """The second table; share of the front stopped, by rule."""
    front = table.front(SEARCHED)
    whole = sum(len(table.curve(point, SEARCHED).epochs) for point in table.points)
    best = table.hypervolume(front)
    print(f"\n{'stopping rule':26} {'stopped of front':>16} {'of all':>8} {'epochs spent':>13} {'volume kept':>12}")
    shares = {}
    for rule, runs in found.items():
        shares[rule] = stopped_share(runs, set(front))
        spent = statistics.fmean(run.epochs for run in runs) / whole
        kept = statistics.fmean(run.volumes[-1][1] for run in runs) / best
        print(f"{rule:26} {_percent(shares[rule]):>16} {_percent(stopped_share(runs)):>8} ", end="")
        print(f"{_percent(spent):>13} {_percent(kept):>12}")
    orders = len(next(iter(found.values())))
    print(f"({len(front)} of {len(table.points)} points are on the front; {orders} random orders; ", end="")
    print(f"goal: at most {_percent(KILLED_GOAL)} of the front)")
    return shares


def arguments_from(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--synthetic", action="store_true", help="a made-up table, to see it work")
    parser.add_argument("--quick", action="store_true", help="3 search seeds, and few sides")
    parser.add_argument("--seeds", type=int, default=20, help="search seeds (default 20)")
    parser.add_argument(
        "--sides",
        nargs="+",
        metavar="NAME",
        help="these; plain TPE is always there (default: all but rules in place of ours)",
    )
    parser.add_argument("--ours", default=OURS, help=f"the side that the figure is about (default: {OURS})")
    parser.add_argument("--trials", type=int, default=4 * MARK_TRIALS, help="the budget that our samplers plan with")
    parser.add_argument("--epochs", type=int, help="epochs allowed (default: those of 90 full trials)")
    parser.add_argument("--recorded-time", action="store_true", help="epochs take their measured seconds")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write marks, epochs and hypervolume curves here, as JSON")
    arguments = parser.parse_args(words)
    known = sides(1)
    for side in (arguments.ours, *(arguments.sides or ())):
        if side not in known:
            parser.error(f"{side!r} is not a side; allowed: {', '.join(known)}")
    return arguments


def chosen_sides(arguments: argparse.Namespace) -> list[str]:
    """Plain TPE, the side that the figure is about, and what was asked for."""
    few = [PLAIN, "random", arguments.ours, *MOASHA]
    usual = [side for side in sides(1) if side not in REPLACED]
    wanted = arguments.sides or (few if arguments.quick else usual)
    return [side for side in sides(1) if side in {PLAIN, arguments.ours, *wanted}]


def write_curves(file: Path, mark: float, runs: dict[str, list[Run]]) -> None:
    """For plots."""
    found = {side: [run.volumes for run in side_runs] for side, side_runs in runs.items()}
    file.write_text(json.dumps({"mark": mark, "volumes": found}) + "\n", encoding="utf-8")


def main() -> int:
    arguments = arguments_from()
    seeds = range(3 if arguments.quick else arguments.seeds)
    file = None if arguments.synthetic else str(arguments.table)
    if file is not None and not arguments.table.exists():
        print(f"{arguments.table}: not there; make it with search_table.py, or try --synthetic", file=sys.stderr)
        return 2
    table = the_table(file)
    epochs = arguments.epochs or round(1.5 * MARK_TRIALS * table.space.budget.epochs)
    names, rules = chosen_sides(arguments), stoppers(table.space)
    best = table.hypervolume(table.front(SEARCHED))
    print(f"{len(table.points)} points, best hypervolume {best:.4f}, {len(seeds)} search seeds, ", end="")
    print(f"{SLOTS} slots, {epochs} epochs allowed{', made-up curves' if file is None else ''}", flush=True)
    how = (arguments.trials, epochs, arguments.recorded_time)
    with ProcessPoolExecutor(arguments.processes) as pool:
        found = pool.map(one_run, [(file, side, seed, *how) for side in names for seed in seeds])
        ordered = pool.map(one_order, [(file, rule, seed) for rule in rules for seed in seeds])
        runs = {side: [next(found) for _ in seeds] for side in names}
        stopped = {rule: [next(ordered) for _ in seeds] for rule in rules}
    marks = [run.after_trials(MARK_TRIALS) for run in runs[PLAIN]]
    mark = statistics.median(volume for _, volume in marks)
    spent = statistics.median(epochs for epochs, _ in marks)
    print(f"the mark: {mark:.4f}, plain TPE's after {MARK_TRIALS} trials ({spent:.0f} epochs)\n")
    medians = print_sides(table, runs, mark)
    print_rules(table, stopped)
    if arguments.out is not None:
        write_curves(arguments.out, mark, runs)
    return verdict(medians, arguments.ours, spent)


def verdict(medians: dict[str, float], ours: str, spent: float) -> int:
    """The last lines; 0 when both goals are met."""
    figure = medians[ours] / medians[PLAIN]
    print(f"\nagainst the {spent:.0f} epochs of plain TPE's {MARK_TRIALS} trials: {medians[ours] / spent:.3f}")
    rivals = [medians[name] for name in MOASHA if name in medians]
    if not has_syne_tune():
        print("Syne Tune is not installed (pip install '.[peers]'), so that side is missing")
    ok = figure <= GOAL and bool(rivals) and medians[ours] < min(rivals)
    print(f"search_vs_peers: {figure:.3f} (goal {GOAL}) {'ok' if ok else 'short'}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
