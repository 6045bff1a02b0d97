"""How steep and how curved the loss is around a solution, over the pretrained network's weights and the head's.

The same weights for every method; see :meth:`repsim.model.FineTuned.merged`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from repsim.records import RHO_ABSOLUTE, RHO_AVERAGE, RHO_WORST_ADAPTIVE
from repsim.sharpness.average_case import average_case
from repsim.sharpness.hessian import Eigenvalue, hessian_top, hessian_trace
from repsim.sharpness.one_step import sharpness
from repsim.sharpness.surface import Batches, Loss
from repsim.sharpness.worst_case import worst_case

__all__ = [
    "FULL",
    "Batches",
    "Eigenvalue",
    "Loss",
    "average_case",
    "hessian_top",
    "hessian_trace",
    "sharpness",
    "worst_case",
]


def _worst(model: nn.Module, batches: Batches) -> dict[str, float]:
    return {"sharpness_worst_case": worst_case(model, batches, rho=RHO_ABSOLUTE)}


def _worst_adaptive(model: nn.Module, batches: Batches) -> dict[str, float]:
    return {"sharpness_worst_case_adaptive": worst_case(model, batches, rho=RHO_WORST_ADAPTIVE, adaptive=True)}


def _average(model: nn.Module, batches: Batches) -> dict[str, float]:
    mean, error = average_case(model, batches, rho=RHO_AVERAGE)
    return {"sharpness_average_case": mean, "sharpness_average_case_sem": error}


def _top(model: nn.Module, batches: Batches) -> dict[str, float]:
    found = hessian_top(model, batches)
    return {"hessian_top": found.value, "hessian_top_error": found.error}


def _trace(model: nn.Module, batches: Batches) -> dict[str, float]:
    mean, error = hessian_trace(model, batches)
    return {"hessian_trace": mean, "hessian_trace_sem": error}


FULL: dict[str, Callable[[nn.Module, Batches], dict[str, float]]] = {
    "sharpness_worst_case": _worst,
    "sharpness_worst_case_adaptive": _worst_adaptive,
    "sharpness_average_case": _average,
    "hessian_top": _top,
    "hessian_trace": _trace,
}
"""What ``measure.sharpness: full`` adds: each gives values by their names in ``records.METRICS``, a batch being one m.

Each raises FloatingPointError when a loss or a product at the trained weights is not finite. On the same images, the
worst cases cost 21 gradients each, the average case 41 losses, the Hessian 10 products for its trace and up to 20 for
its eigenvalue; a product costs some three to four gradients.
"""
