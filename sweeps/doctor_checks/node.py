"""Everything one machine is asked: the doctor's own, and each node of a cluster."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from repsim.data.cache import default_cache_dir
from sweeps.doctor_checks import gpus, inputs, machine, places, versions
from sweeps.doctor_checks.findings import Finding, bad, patiently

DISK_SECONDS = 20.0
"""A disk or a storage that has not answered by then hangs."""
_DATA_SECONDS = 60.0
_WEIGHT_SECONDS = 60.0
"""What a hub sends slower than that is not there when a trial starts."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What to look at. Plain values, so that machines with another version of this file can be asked as well.

    ``cache_bytes`` is what the space's caches will take, None without a space; ``sources`` are (SOURCE, group column),
    ``backbones`` (name, weights). ``slots`` and ``threads`` (in all) are those a sweep would use here; None on nodes,
    where Ray counts. ``mark`` is the file that the driver wrote into ``runs``; None on the driver's own machine.
    ``ray_gpus`` is what Ray offers of a node.
    """

    runs: str
    storage: str | None = None
    cache_bytes: int | None = None
    sources: tuple[tuple[str, str | None], ...] = ()
    backbones: tuple[tuple[str, str], ...] = ()
    slots: int = 1
    threads: int | None = None
    mark: str | None = None
    ray_gpus: float | None = None

    @property
    def of_node(self) -> bool:
        """Whether it is put to a node of a cluster, on which Ray runs already."""
        return self.ray_gpus is not None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a machine answered: findings, versions by name, and the fingerprint of each SOURCE's images."""

    host: str
    findings: tuple[Finding, ...]
    stock: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        findings = [finding.to_json() for finding in self.findings]
        return {"host": self.host, "findings": findings, "stock": dict(self.stock), "data": dict(self.data)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """What ``to_json`` gave."""
        findings = tuple(Finding.from_json(one) for one in document["findings"])
        return cls(host=document["host"], findings=findings, stock=document["stock"], data=document["data"])


def look(question: Question, environment: Mapping[str, str] | None = None) -> Answer:
    """Look at this machine. The slow and the heavy (torch) come last, and only where they are needed."""
    around = os.environ if environment is None else environment
    marks: dict[str, str] = {}
    found = [*([] if question.of_node else [versions.requirements()]), *_machine(question, around)]
    found += patiently("run folder", DISK_SECONDS, partial(_run_folder, question))
    found += patiently("cache", DISK_SECONDS, partial(_cache, question))
    if question.storage is not None:
        found += patiently("storage", DISK_SECONDS, partial(_storage, question.storage, question.of_node))
    for source, group in question.sources:
        found += patiently(f"data {source}", _DATA_SECONDS, partial(_data, source, group, marks))
    found += _gpus(question, around)
    for name, asked in question.backbones:
        found += patiently(f"weights of {name}", _WEIGHT_SECONDS, partial(_weights, name, asked))
    return Answer(host=socket.gethostname(), findings=tuple(found), stock=versions.stock(), data=marks)


def answer_in_json(question: Mapping[str, Any]) -> dict[str, Any]:
    """What a node is asked and answers, in plain values: :class:`Question`, :class:`Answer`."""
    return look(Question(**question)).to_json()


def _machine(question: Question, around: Mapping[str, str]) -> list[Finding]:
    """On a node Ray has its sockets already, and counts the cores."""
    found = [
        machine.home(around),
        machine.temporary_folder(around, ray_starts=not question.of_node),
        machine.shared_memory(),
        machine.descriptors(),
        machine.memory(question.slots),
    ]
    return found if question.of_node else [*found, machine.cores(question.threads), machine.loopback()]


def _run_folder(question: Question) -> list[Finding]:
    """On the driver's machine its room is looked at elsewhere, together with the estimate."""
    if question.mark is None:
        return []
    return [places.same_folder(Path(question.runs), question.mark)]


def _cache(question: Question) -> list[Finding]:
    advice = "set REPSIM_CACHE to a folder on a larger disk"
    return places.folder("cache", default_cache_dir(), question.cache_bytes, advice)


def _storage(uri: str, of_node: bool) -> list[Finding]:
    """The driver alone writes there; a node needs it as soon as the sweep is to be taken up on it."""
    found = places.storage(uri)
    return [replace(found, level="warn") if of_node and found.level == "FAIL" else found]


def _weights(name: str, asked: str) -> list[Finding]:
    return [inputs.weights(name, asked)]


def _data(source: str, group: str | None, marks: dict[str, str]) -> list[Finding]:
    finding, marks[source] = inputs.data(source, group)
    return [finding]


def _gpus(question: Question, environment: Mapping[str, str]) -> list[Finding]:
    """On a node Ray sets CUDA_VISIBLE_DEVICES for each task; what it offers in all is what counts there."""
    driver = gpus.read_driver()
    shown = None if question.of_node else environment.get(gpus.VISIBLE)
    found, usable = gpus.visible(driver, shown)
    if question.ray_gpus is not None:
        found += gpus.promised(usable, question.ray_gpus)
    found += gpus.memory(usable)
    build = gpus.read_torch_build()
    if build is None:
        return [*found, bad("torch build", "torch is not installed", "pip install -c constraints.txt -e .")]
    fits = gpus.torch_build(driver, usable, build)
    found.append(fits)
    if usable and fits.level != "FAIL":
        kept = {key: value for key, value in environment.items() if not (question.of_node and key == gpus.VISIBLE)}
        found.append(gpus.torch_sees(len(usable), kept))
    return found
