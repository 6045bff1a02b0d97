"""The machines of a cluster, and how many trials they carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from repsim.errors import Mistake, RequestError
from sweeps.slots import TRIALS_PER_SLOT, Slots
from sweeps.space import Space


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One node of a cluster, as Ray was told to count it: ``cpus`` cores and ``gpus`` GPUs."""

    name: str
    cpus: int
    gpus: int = 0


def capacity(machines: Sequence[Machine], slots: Slots) -> int:
    """How many such slots fit on the machines at a time; a slot never lies on two of them."""
    return sum(_fit(machine, slots.threads, slots.gpus) for machine in machines)


def most_at_a_time(space: Space, machines: Sequence[Machine], slots: Slots) -> int:
    """Trials at a time on these machines: what fits, but never more than was asked or, with ``auto``, makes sense."""
    asked = space.search.parallel
    return min(capacity(machines, slots), _sensible(space) if asked is None else asked)


def slots_on(space: Space, machines: Sequence[Machine]) -> Slots:
    """As :func:`sweeps.slots.choose_slots`, for a cluster; the threads of a slot are those of one machine.

    RequestError when no machine has what one trial asks for: Ray would wait for it for ever.
    """
    gpus, cpus = sum(machine.gpus for machine in machines), space.resources.cpus_per_worker
    asked, share = space.search.parallel, space.resources.gpus_per_worker
    least = Slots(parallel=1, threads=1 if cpus is None else cpus, gpus=0.0 if share is None else share)
    _check_fits(machines, least)
    most = gpus if gpus > 0 and share is None else capacity(machines, least)
    parallel = max(1, min(most, _sensible(space))) if asked is None else asked
    if share is None:
        share = 0.0 if gpus == 0 else min(1.0, gpus / parallel)
    threads = cpus
    if threads is None:
        largest = max(machine.cpus for machine in machines)
        enough = [t for t in range(1, largest + 1) if sum(_fit(m, t, share) for m in machines) >= parallel]
        threads = max(enough, default=1)
    return Slots(parallel=parallel, threads=threads, gpus=share)


def _sensible(space: Space) -> int:
    return max(1, space.budget.trials // TRIALS_PER_SLOT)


def _fit(machine: Machine, threads: int, gpus: float) -> int:
    by_cores = machine.cpus // threads
    if gpus == 0:
        return by_cores
    per_gpu = machine.gpus * int(1 / gpus) if gpus <= 1 else int(machine.gpus / gpus)
    return min(by_cores, per_gpu)


def _check_fits(machines: Sequence[Machine], slot: Slots) -> None:
    if capacity(machines, slot) > 0:
        return
    cpus, gpus = max(machine.cpus for machine in machines), max(machine.gpus for machine in machines)
    if slot.gpus > gpus:
        key, problem = "gpus_per_worker", f"a trial asks for {slot.gpus:g} GPUs, no node of the cluster has them"
        allowed = f"0 to {gpus}"
    else:
        key, problem = "cpus_per_worker", f"a trial asks for {slot.threads} cores, no node of the cluster has them"
        allowed = f"1 to {cpus}" if cpus > 0 else "nodes with cores: `ray start --num-cpus N`"
    raise RequestError(Mistake(where="space", key=f"resources.{key}", problem=problem, allowed=allowed))
