"""Makes ``import timm`` work beside a torchvision whose compiled part does not fit the installed torch.

A CPU build of torch next to a CUDA build of torchvision leaves the compiled operators unloaded, and torchvision's
Python part then fails on the missing schemas of two detection operators that nothing here uses. Call :func:`guard`
before the first import of timm; this is the one place that knows about it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_kept_alive: list[torch.library.Library] = []  # a library that is collected takes its schemas with it


def guard() -> None:
    """Import torchvision, declaring the missing operator schemas first where its compiled part cannot be loaded.

    A torchvision that works, or none at all, is left as it is; calling again does nothing. Any other reason for
    torchvision failing to import is raised unchanged.
    """
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _forget_torchvision()
        _declare_operators()
        importlib.import_module("torchvision")


def _forget_torchvision() -> None:
    for name in list(sys.modules):
        if name == "torchvision" or name.startswith("torchvision."):
            del sys.modules[name]


def _declare_operators() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)  # type: ignore[no-untyped-call]
    _kept_alive.append(library)
