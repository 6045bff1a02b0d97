"""How many trials run at once on this machine, and what each one gets.

Rules, where nothing is said (``auto``):

- ``parallel`` is the number of the smallest trials that fit: one for each GPU, or for each core where there is none
  (one thread makes the best use of a core), ``workers`` of either for each trial. It is never more than a quarter of
  the trials, because a proposal should know what came before it.
- ``cpus_per_worker`` is the cores divided by the workers that may run at once: those of ``parallel`` of the smallest
  trials, or of the largest one.
- ``gpus_per_worker`` is one for each worker where there are GPUs. A trial of a single worker shares one with others
  where ``parallel`` asks for more trials than there are GPUs; where that is ``auto`` as well, as far as what its like
  were measured to need allows (:mod:`sweeps.packing`).

Threads over all workers never exceed the cores, unless the person's own numbers do: spinning threads that share a core
cost a factor of ten. With trials of several sizes, a trial starts when there is room for it, in the order of proposals.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from repsim.errors import Mistake, RequestError
from sweeps.packing import MOST_PER_GPU
from sweeps.placement import Node, Share, fits, places
from sweeps.space import Space
from sweeps.space_resource_settings import sizes
from sweeps.space_resources import Asked

TRIALS_PER_SLOT = 4
_UNCOUNTED = 2**53
"""CPUs of our own machine are no limit: a person may have more threads than cores."""
_NVIDIA = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True, kw_only=True)
class Slots:
    """``parallel`` trials at a time; where the space says ``auto``, a worker has ``threads`` threads and ``gpus`` GPUs.

    ``cpus`` and ``all_gpus`` are what there is to be shared out on a machine of our own (0 on a cluster, whose size
    changes). With ``packs``, trials of one worker may share a GPU once it is known what they need.
    """

    parallel: int
    threads: int
    gpus: float = 0.0
    cpus: int = 0
    all_gpus: int = 0
    packs: bool = False

    @property
    def total_cpus(self) -> int:
        """What a Ray of our own is told that the machine has."""
        return max(self.cpus, self.parallel * self.threads)

    def share(self, asked: Asked, packed: Callable[[], float] = lambda: 1.0) -> Share:
        """What a trial gets that asks for this much; ``packed`` is the share of a GPU that its like need."""
        cpus = self.threads if asked.cpus_per_worker is None else asked.cpus_per_worker
        gpus = asked.gpus_per_worker
        if gpus is None:
            alone = packed() if self.packs and self.gpus > 0 else self.gpus
            gpus = alone if asked.workers == 1 else float(math.ceil(self.gpus))
        return Share(workers=asked.workers, cpus=cpus, gpus=gpus)


def choose_slots(space: Space) -> Slots:
    """Slots for this machine, by the rules above."""
    cores, gpus = len(os.sched_getaffinity(0)), visible_gpus()
    asked, parallel = [size for _, _, size in sizes(space)], space.search.parallel
    packs = parallel is None and gpus > 0 and any(one.workers == 1 and one.gpus_per_worker is None for one in asked)
    # of sizes that fit equally often, the one with the fewest workers is the smallest
    most, fewest = max((_fit(one, cores, gpus, packs), -one.workers) for one in asked)
    if parallel is None:
        parallel = max(1, min(most, space.budget.trials // TRIALS_PER_SLOT))
    said = [one.cpus_per_worker for one in asked if one.cpus_per_worker is not None]
    at_once = max(parallel * -fewest, *(one.workers for one in asked))
    threads = min(said) if len(said) == len(asked) else max(1, cores // at_once)
    needs = {one.workers * (threads if one.cpus_per_worker is None else one.cpus_per_worker) for one in asked}
    return Slots(
        parallel=parallel,
        threads=threads,
        gpus=0.0 if gpus == 0 else 1.0 if packs else 1.0 / math.ceil(max(1.0, parallel / gpus)),
        cpus=max(parallel * min(needs), *needs, cores if len(needs) > 1 else 1),
        all_gpus=gpus,
        packs=packs,
    )


def _fit(asked: Asked, cores: int, gpus: int, packs: bool) -> int:
    """How many trials of this size fit on the machine."""
    each = asked.gpus_per_worker
    if gpus == 0 or each == 0:
        return cores // (asked.workers * (1 if asked.cpus_per_worker is None else asked.cpus_per_worker))
    if packs and each is None and asked.workers == 1:
        return max(gpus, min(MOST_PER_GPU * gpus, cores))
    one = Share(workers=asked.workers, gpus=1.0 if each is None else each)
    return places(one, [Node(cpus=_UNCOUNTED, gpus=gpus)]) // asked.workers


def check_gpus(space: Space) -> None:
    """RequestError when a trial asks for more GPUs than there are: Ray would wait for them for ever."""
    slots, there = choose_slots(space), visible_gpus()
    shows = f"this machine shows {there}"
    for _, _, asked in sizes(space):
        share = slots.share(asked)
        if fits(share, [Node(cpus=_UNCOUNTED, gpus=there)]):
            continue
        if share.workers == 1:
            key, allowed = "resources.gpus_per_worker", f"0 to {there}"
            problem = f"a trial asks for {share.gpus:g} GPUs, {shows}"
        else:
            most = int(there // share.gpus)
            key, allowed = "resources.workers", (f"1 to {most}, or " if most > 0 else "") + "gpus_per_worker: 0"
            plural = "s" if share.gpus > 1 else ""
            problem = f"a trial asks for {share.workers} workers with {share.gpus:g} GPU{plural} each, {shows}"
        raise RequestError(Mistake(where="space", key=key, problem=problem, allowed=allowed))


def visible_gpus() -> int:
    """Counted without torch: the driver must not open a CUDA context."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([part for part in visible.split(",") if part.strip() not in ("", "-1")])
    return len(list(_NVIDIA.glob("*"))) if _NVIDIA.is_dir() else 0
