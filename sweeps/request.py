"""What one launch is to do, once the command line and the space are known to be right."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from sweeps.machines import Machine, slots_on
from sweeps.run_folder import RESUME_COMMAND
from sweeps.slots import Slots, choose_slots
from sweeps.space import Space


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What is to be run: a validated space, and where. ``resume`` says that ``runs_dir/name`` is to be continued.

    ``warm_start`` names earlier sweeps in ``runs_dir``; ``machines`` are those of the cluster at ``address``, once they
    have been looked at; ``storage`` is where the journal is mirrored.
    """

    space: Space
    name: str
    runs_dir: Path
    resume: bool
    command: str
    tracking_uri: str | None = None
    address: str | None = None
    storage: str | None = None
    machines: tuple[Machine, ...] = ()
    cache_dir: Path | None = None
    report: bool = True
    warm_start: tuple[str, ...] = ()

    @property
    def slots(self) -> Slots:
        """How many trials run at once, here or on the cluster, and what each gets."""
        return slots_on(self.space, self.machines) if self.machines else choose_slots(self.space)

    @property
    def resume_command(self) -> str:
        """What takes this sweep up again where it ran."""
        where = "" if self.address is None else f" --address {shlex.quote(self.address)}"
        return RESUME_COMMAND.format(name=self.name) + where
