"""How small a share of a GPU a trial needs, from what trials like it were measured to hold at most.

The figure of a result, ``peak_memory_bytes``, is what the trial's tensors took. The driver's context, the libraries'
workspaces and what the allocator cannot hand back come on top, so the need is taken half as large again, and a
gibibyte more. The rule is arithmetic and tested as such; on real GPUs it has not been tried.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from repsim.config import TrialConfig

MARGIN = 1.5
CONTEXT_BYTES = 2**30
MOST_PER_GPU = 4
"""More trials than this on a GPU wait for its processor rather than for its memory."""


def packed_share(peak_bytes: float | None, gpu_bytes: float | None) -> float:
    """The share of a GPU, 1/k with k from 1 to 4, in which a trial that holds ``peak_bytes`` fits; 1 where unknown.

    Shares are 1/k because Ray never cuts one trial's share across two GPUs.
    """
    if peak_bytes is None or gpu_bytes is None:
        return 1.0
    return 1.0 / max(1, min(MOST_PER_GPU, int(gpu_bytes // (MARGIN * peak_bytes + CONTEXT_BYTES))))


class Packing:
    """Remembers the largest peak of each kind of trial, and the memory of the smallest GPU that was seen.

    Kinds are told apart by what decides on memory beside the method: backbone, image size, batch size, precision. Of
    methods, the largest counts.
    """

    def __init__(self) -> None:
        self._peaks: dict[Hashable, float] = {}
        self._gpu_bytes: float | None = None

    def learn(self, config: TrialConfig, values: Mapping[str, float], facts: Mapping[str, object]) -> None:
        """Take a finished trial into account; one that ran without a GPU says nothing."""
        gpu = facts.get("gpu_bytes")
        if not isinstance(gpu, int | float):
            return
        self._gpu_bytes = gpu if self._gpu_bytes is None else min(self._gpu_bytes, gpu)
        kind = _kind(config)
        self._peaks[kind] = max(self._peaks.get(kind, 0.0), values["peak_memory_bytes"])

    def share(self, config: TrialConfig) -> float:
        """The share of a GPU for a trial with this configuration."""
        return packed_share(self._peaks.get(_kind(config)), self._gpu_bytes)

    def smallest(self) -> float:
        """The smallest share that any trial would get now."""
        return min((packed_share(peak, self._gpu_bytes) for peak in self._peaks.values()), default=1.0)


def _kind(config: TrialConfig) -> Hashable:
    optim = config.optim
    return (config.backbone.name, config.data.image_size, optim.batch_size, optim.precision, optim.sam)
