"""The machines of a cluster, and how many trials they carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from repsim.errors import Mistake, RequestError
from sweeps.placement import Share, described, fits, places
from sweeps.slots import TRIALS_PER_SLOT, Slots
from sweeps.space import Space
from sweeps.space_resource_settings import sizes
from sweeps.space_resources import Asked


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One node of a cluster, as Ray was told to count it: ``cpus`` cores and ``gpus`` GPUs."""

    name: str
    cpus: int
    gpus: int = 0


def most_at_a_time(space: Space, machines: Sequence[Machine], slots: Slots) -> int:
    """Trials at a time on these machines: what fits, but never more than was asked or, with ``auto``, makes sense.

    Of trials of several sizes as many as there would be of the smallest: Ray has those wait that do not fit.
    """
    asked = space.search.parallel
    return min(_most(space, machines, slots), _sensible(space) if asked is None else asked)


def slots_on(space: Space, machines: Sequence[Machine]) -> Slots:
    """As :func:`sweeps.slots.choose_slots`, for a cluster; the threads of a worker are those of one machine.

    RequestError when the machines together have not what one trial asks for: Ray would wait for it for ever.
    """
    asked, parallel = [size for _, _, size in sizes(space)], space.search.parallel
    gpus = sum(machine.gpus for machine in machines)
    whole = Slots(parallel=1, threads=1, gpus=1.0 if gpus > 0 else 0.0)
    _check_fits(machines, {whole.share(one) for one in asked})
    if parallel is None:
        parallel = max(1, min(_most(space, machines, whole), _sensible(space)))
    share = 0.0 if gpus == 0 else min(1.0, gpus / parallel)
    return Slots(parallel=parallel, threads=_threads(machines, asked, parallel, share), gpus=share)


def _most(space: Space, machines: Sequence[Machine], slots: Slots) -> int:
    """How many trials of the smallest size fit."""
    shares = {slots.share(one) for _, _, one in sizes(space)}
    return max(places(share, machines) // share.workers for share in shares)


def _threads(machines: Sequence[Machine], asked: Sequence[Asked], parallel: int, gpus: float) -> int:
    """The most threads with which ``parallel`` of the smallest trials, and the largest trial, still find their places.

    The smallest number that was asked for, where every size says one.
    """
    said = [one.cpus_per_worker for one in asked if one.cpus_per_worker is not None]
    if len(said) == len(asked):
        return min(said)
    enough = []
    for threads in range(1, max(machine.cpus for machine in machines) + 1):
        shares = {Slots(parallel=parallel, threads=threads, gpus=gpus).share(one) for one in asked}
        many = max(places(share, machines) // share.workers for share in shares) >= parallel
        if many and all(fits(share, machines) for share in shares):
            enough.append(threads)
    return max(enough, default=1)


def _sensible(space: Space) -> int:
    return max(1, space.budget.trials // TRIALS_PER_SLOT)


def _check_fits(machines: Sequence[Machine], shares: set[Share]) -> None:
    for share in shares:
        if fits(share, machines):
            continue
        most_cpus, most_gpus = max(machine.cpus for machine in machines), max(machine.gpus for machine in machines)
        there = f"; there is {described(machines)}"
        if share.gpus > most_gpus:
            key, problem = "gpus_per_worker", f"a trial asks for {share.gpus:g} GPUs, no node of the cluster has them"
            allowed = f"0 to {most_gpus}"
        elif share.cpus > most_cpus:
            key, problem = "cpus_per_worker", f"a trial asks for {share.cpus} cores, no node of the cluster has them"
            allowed = f"1 to {most_cpus}" if most_cpus > 0 else "nodes with cores: `ray start --num-cpus N`"
        else:
            key, problem = "workers", f"a trial asks for {share}, the nodes of the cluster hold fewer{there}"
            allowed = f"1 to {places(share, machines)}"
        raise RequestError(Mistake(where="space", key=f"resources.{key}", problem=problem, allowed=allowed))
