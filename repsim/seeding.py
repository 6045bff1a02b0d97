"""One seeded generator per purpose, a pure function of (seed, purpose, counters): resuming needs no stored state."""

from __future__ import annotations

import zlib

import numpy as np
import torch


def _sequence(seed: int, purpose: str, counters: tuple[int, ...]) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), *counters])


def generator(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """A numpy generator for one purpose (``"batches"``, ``"views"``) and, say, one epoch."""
    return np.random.default_rng(_sequence(seed, purpose, counters))


def torch_seed(seed: int, purpose: str, *counters: int) -> int:
    """A 63-bit seed for torch, independent of every other purpose's."""
    return int(_sequence(seed, purpose, counters).generate_state(1, np.uint64)[0] >> np.uint64(1))


def torch_generator(seed: int, purpose: str, *counters: int) -> torch.Generator:
    """A CPU torch generator for one purpose."""
    return torch.Generator().manual_seed(torch_seed(seed, purpose, *counters))
