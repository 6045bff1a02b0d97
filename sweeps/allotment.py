"""Who has how much of this machine: what the next trial gets, and whether there is room for one."""

from __future__ import annotations

from repsim.config import TrialConfig
from repsim.records import TrialResult
from sweeps.packing import Packing
from sweeps.placement import Share
from sweeps.slots import Slots
from sweeps.space import Space
from sweeps.space_resource_settings import sizes

_SLACK = 1e-9


class Allotment:
    """Shares of trials under way. On a cluster, whose size changes, there is always room: Ray finds the place."""

    def __init__(self, space: Space, slots: Slots) -> None:
        self._resources, self._slots = space.resources, slots
        self._sizes = {asked for _, _, asked in sizes(space)}
        self._packing = Packing()
        self._taken: dict[str, Share] = {}

    def learn(self, config: TrialConfig, result: TrialResult) -> None:
        """A trial has ended with this."""
        self._packing.learn(config, result.values, result.facts)

    def take(self, trial_id: str, config: TrialConfig, data: str, deaths: int) -> Share:
        """What a trial gets from now on. One that died before does not share a GPU: it may have been for memory."""
        asked = self._resources.of(method=config.method, backbone=config.backbone.name, data=data)
        share = self._slots.share(asked, lambda: 1.0 if deaths else self._packing.share(config))
        self._taken[trial_id] = share
        return share

    def give_back(self, trial_id: str) -> None:
        """The trial runs no more."""
        self._taken.pop(trial_id, None)

    @property
    def has_room(self) -> bool:
        """Whether the smallest trial fits beside those under way; a proposal made before that would know less."""
        if not self._taken or not self._slots.cpus:
            return True
        cpus = self._slots.total_cpus - sum(share.workers * share.cpus for share in self._taken.values())
        gpus = self._slots.all_gpus - sum(share.workers * share.gpus for share in self._taken.values())
        smallest = (self._slots.share(asked, self._packing.smallest) for asked in self._sizes)
        return any(one.workers * one.cpus <= cpus and one.workers * one.gpus <= gpus + _SLACK for one in smallest)
