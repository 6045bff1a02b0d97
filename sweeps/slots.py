"""How many trials run at once on this machine, and what each one gets."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from repsim.errors import Mistake, RequestError
from sweeps.space import Space

TRIALS_PER_SLOT = 4
_NVIDIA = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True, kw_only=True)
class Slots:
    """``parallel`` trials at a time, each with ``threads`` CPU threads and a share of ``gpus`` GPUs."""

    parallel: int
    threads: int
    gpus: float = 0.0


def choose_slots(space: Space) -> Slots:
    """Threads over all slots never exceed the cores: spinning threads that share a core cost a factor of ten.

    ``parallel: auto`` is a slot for each GPU, or for each core where there is none (one thread makes the best use of a
    core), but never more than a quarter of the trials, because a proposal should know what came before it.
    """
    cores, gpus = len(os.sched_getaffinity(0)), visible_gpus()
    asked, cpus = space.search.parallel, space.resources.cpus_per_worker
    most = gpus if gpus > 0 else max(1, cores // (1 if cpus is None else cpus))
    parallel = max(1, min(most, space.budget.trials // TRIALS_PER_SLOT)) if asked is None else asked
    threads = max(1, cores // parallel) if cpus is None else cpus
    share = space.resources.gpus_per_worker
    if share is None:
        share = 0.0 if gpus == 0 else min(1.0, gpus / parallel)
    return Slots(parallel=parallel, threads=threads, gpus=share)


def check_gpus(space: Space) -> None:
    """RequestError when a trial asks for more GPUs than there are: Ray would wait for them for ever."""
    share, there = choose_slots(space).gpus, visible_gpus()
    if share > there:
        problem = f"a trial asks for {share:g} GPUs, this machine shows {there}"
        raise RequestError(
            Mistake(where="space", key="resources.gpus_per_worker", problem=problem, allowed=f"0 to {there}")
        )


def visible_gpus() -> int:
    """Counted without torch: the driver must not open a CUDA context."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([part for part in visible.split(",") if part.strip() not in ("", "-1")])
    return len(list(_NVIDIA.glob("*"))) if _NVIDIA.is_dir() else 0
