"""What one launch is to do, once the command line and the space are known to be right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sweeps.space import Space


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What is to be run: a validated space, and where. ``resume`` says that ``runs_dir/name`` is to be continued.

    ``warm_start`` names earlier sweeps in ``runs_dir``.
    """

    space: Space
    name: str
    runs_dir: Path
    resume: bool
    command: str
    tracking_uri: str | None = None
    address: str | None = None
    cache_dir: Path | None = None
    report: bool = True
    warm_start: tuple[str, ...] = ()
