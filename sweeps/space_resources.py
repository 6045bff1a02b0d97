"""What one trial gets of the machine, and what it gets where that depends on the trial."""

from __future__ import annotations

from dataclasses import dataclass

from sweeps.space_conditions import When, holds, when_document


@dataclass(frozen=True, kw_only=True)
class Case:
    """A value that holds where ``when`` does; None is ``auto``."""

    when: When
    value: float | None


Setting = float | tuple[Case, ...] | None
"""One value for every trial, or cases of which the first that holds counts. None, as a value, is ``auto``."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the settings say about one trial; None is ``auto``."""

    workers: int
    cpus_per_worker: int | None
    gpus_per_worker: float | None


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What trials get; None is ``auto``, which is also what holds where no case does.

    ``workers`` processes, each with so many CPU threads and GPUs. After ``epoch_timeout`` seconds without an epoch a
    trial counts as hung; one that has waited ``placement_timeout`` seconds for machines that are not there fails.
    ``models`` says whose are kept on disk: those of the ``front``, or ``none``.
    """

    workers: Setting = 1
    cpus_per_worker: Setting = None
    gpus_per_worker: Setting = None
    epoch_timeout: float | None = None
    placement_timeout: float | None = None
    models: str = "front"

    def of(self, *, method: str, backbone: str, data: str) -> Asked:
        """What a trial with these gets."""

        def value(setting: Setting, otherwise: float | None) -> float | None:
            if not isinstance(setting, tuple):
                return setting
            held = (case.value for case in setting if holds(case.when, method=method, backbone=backbone, data=data))
            return next(held, otherwise)

        cpus, gpus = value(self.cpus_per_worker, None), value(self.gpus_per_worker, None)
        return Asked(
            workers=int(value(self.workers, 1) or 1),
            cpus_per_worker=None if cpus is None else int(cpus),
            gpus_per_worker=gpus,
        )

    def to_dict(self) -> dict[str, object]:
        """The section as people write it, with every default written out."""
        return {
            "workers": _document(self.workers),
            "cpus_per_worker": _document(self.cpus_per_worker),
            "gpus_per_worker": _document(self.gpus_per_worker),
            "epoch_timeout": _document(self.epoch_timeout),
            "placement_timeout": _document(self.placement_timeout),
            "models": self.models,
        }


def _document(setting: Setting) -> object:
    if not isinstance(setting, tuple):
        return "auto" if setting is None else setting
    return [
        {**({"when": when_document(case.when)} if case.when else {}), "value": _document(case.value)}
        for case in setting
    ]
