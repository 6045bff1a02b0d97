"""Peak memory of one trial in a process that runs many."""

from __future__ import annotations

import resource
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class PeakMemory:
    """Starts counting when it is made.

    On a GPU: the allocator's peak. Otherwise the process's largest resident set since then where Linux lets it be
    reset, else since the process began.
    """

    def __init__(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        try:
            _CLEAR.write_text("5")
        except OSError:
            return

    def peak_bytes(self, device: torch.device) -> int:
        """The largest amount of memory in use since the start."""
        if device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(device))
        if _STATUS.exists():
            for line in _STATUS.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
