"""When two configurations are the same run: settings that nothing reads do not make another."""

from __future__ import annotations

import json

from repsim.catalogue import ADAPTERS, HEADS, PENALTIES, WRAPPERS
from repsim.config import ADDING, TrialConfig

_OWNED = frozenset(
    {f"head.{name}" for info in HEADS.values() for name in info.settings}
    | {f"optim.{name}" for info in WRAPPERS.values() for name in info.settings}
)
"""Keys of heads and optimiser wrappers, each read by some of them alone."""
UNREAD_BY_A_PROBE = ("optim.", "data.augment", "data.views", "checkpoint")
"""A linear probe is a converged fit on the images as they are, the same at every learning rate."""


def identity(config: TrialConfig) -> str:
    """The configuration as text, without its seed and the settings that it does not read.

    What is taken beside the result (``measure.wise``, ``measure.layers``) makes no other run, a result at another
    ``wise_alpha`` does. A rank does not count without LoRA, a margin not without a penalty that has one, and for an
    adapter that does not move the backbone not even the optimiser does.
    """
    read = _settings_read(config)
    ignored = () if ADAPTERS[config.parsed_method.adapter].trains_backbone else UNREAD_BY_A_PROBE

    def counts(key: str) -> bool:
        of_a_part = key in _OWNED or key.startswith(("adapter.", "penalty."))
        return key not in ("seed", *ADDING) and (key in read or not of_a_part) and not key.startswith(ignored)

    return json.dumps({key: value for key, value in config.flat().items() if counts(key)})


def settings_of(adapter: str, penalty: str | None) -> frozenset[str]:
    """The keys below ``adapter`` and ``penalty`` that such a method reads."""
    found = {f"adapter.{name}" for name in ADAPTERS[adapter].settings}
    if penalty is not None:
        info = PENALTIES[penalty]
        found |= {f"penalty.{name}" for name in info.settings} | ({"penalty.layers"} if info.layerwise else set())
    return frozenset(found)


def _settings_read(config: TrialConfig) -> frozenset[str]:
    method = config.parsed_method
    chosen = (WRAPPERS.get(name) for name in (config.optim.sam, config.optim.average))
    wrapped = {f"optim.{name}" for info in chosen if info is not None for name in info.settings}
    head = {f"head.{name}" for name in HEADS[config.head.name].settings}
    return settings_of(method.adapter, method.penalty) | wrapped | head
