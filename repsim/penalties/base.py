"""What every penalty is: a dimensionless scalar of a batch, what it is built from, what it keeps beside the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

from repsim.config import PenaltyConfig
from repsim.weights import SourceHead

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Mean (d,) and covariance (d, d) of the pretrained features of the training images, fp32.

    Of one augmented view, because that is what training shows: augmentation alone can move the covariance by more than
    finetuning does. Accumulated in float64; the covariance divides by n - 1.
    """

    mean: Tensor
    covariance: Tensor


@dataclass(frozen=True, kw_only=True)
class PenaltyContext:
    """What a penalty is built from; what its ``needs`` do not ask for is None or empty.

    ``dim`` is the width d of the features. ``train_features`` (n_train, d) are the pretrained network's for the first
    augmented view, ``statistics`` their moments, ``train_labels`` (n_train,) the classes. ``pretrained_weights`` are
    the backbone's trained parameters before the first step, by name. ``source_head`` is the classifier the backbone was
    pretrained with.
    """

    dim: int
    n_classes: int
    config: PenaltyConfig
    seed: int
    train_labels: Tensor | None = None
    train_features: Tensor | None = None
    statistics: Statistics | None = None
    pretrained_weights: Mapping[str, Tensor] = field(default_factory=dict)
    source_head: SourceHead | None = None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One training batch as penalties see it; filled only as far as the penalty's ``needs`` say.

    ``features`` (n, d) carry a gradient, ``teacher`` (n, d) are the pretrained network's for the same augmented images.
    ``layers`` and ``teacher_layers`` map watched layers to pooled features (n, c), ``maps`` and ``teacher_maps`` to
    their whole output (n, c, positions…). ``labels`` (n,) and the training ``backbone`` are always there in training.
    """

    features: Tensor
    teacher: Tensor | None = None
    labels: Tensor | None = None
    backbone: nn.Module | None = None
    layers: Mapping[str, Tensor] = field(default_factory=dict)
    teacher_layers: Mapping[str, Tensor] = field(default_factory=dict)
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    teacher_maps: Mapping[str, Tensor] = field(default_factory=dict)


class Penalty(nn.Module, ABC):
    """R of a batch: dimensionless, of order 1 when what it holds is lost, whatever the backbone.

    Computed in fp32 at least, also under autocast. A penalty that learns something of its own does so in
    :meth:`after_step`, without touching the model's optimiser, from what it remembered of the batch; it keeps what it
    learns in buffers, so that it travels with ``state_dict``. It remembers a batch only where :attr:`remembers`
    says so: not without a gradient, and not inside :meth:`forgetting`.
    """

    _forgets = False

    def forward(self, batch: Batch) -> Tensor:
        """The penalty of one batch: a scalar, fp32."""
        with torch.autocast(device_type=batch.features.device.type, enabled=False):
            return self.of(batch)

    @abstractmethod
    def of(self, batch: Batch) -> Tensor:
        """The formula."""

    @property
    def remembers(self) -> bool:
        """Whether the batch at hand is one to learn from, and not one merely to be measured."""
        return torch.is_grad_enabled() and not self._forgets

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        """Inside, values and gradients are as ever, but what :meth:`after_step` will learn from stays what it was.

        For passes at weights that are not the model's own, such as those of sharpness-aware steps.
        """
        within = [module for module in self.modules() if isinstance(module, Penalty)]
        try:
            for penalty in within:
                penalty._forgets = True
            yield
        finally:
            for penalty in within:
                penalty._forgets = False

    def after_step(self) -> None:
        """Called once after every optimiser step; the default keeps nothing."""

    def after_epoch(self) -> None:
        """Called once after every epoch, for upkeep that would be too dear at every step."""


class FeaturePenalty(Penalty):
    """A penalty that compares two sets of features of the same images, and so can hold any layer."""

    def of(self, batch: Batch) -> Tensor:
        """:meth:`value` of the batch's features and the pretrained ones."""
        return self.value(batch.features.float(), given(batch.teacher, "pretrained features").float())

    @abstractmethod
    def value(self, features: Tensor, teacher: Tensor) -> Tensor:
        """The formula, for features (n, d) with gradient and teacher (n, d) without, both fp32."""


def given(value: T | None, what: str) -> T:
    """``value``, which the penalty's ``needs`` promise; RuntimeError naming ``what`` when it is missing."""
    if value is None:
        raise RuntimeError(f"this penalty was not given the {what} it needs")
    return value


def centred(features: Tensor) -> Tensor:
    """Columns of (n, d) with their batch mean taken off."""
    return features - features.mean(dim=0, keepdim=True)


def energy(centred_features: Tensor) -> Tensor:
    """Squared Frobenius norm, kept away from 0 so that constant features cannot divide by it."""
    return centred_features.square().sum().clamp_min(1e-12)


class _Attached(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, at: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return upstream[0] * gradient, None, None


def attach_gradient(at: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
    """The scalar ``value``, with a gradient known in closed form: ``gradient`` (shaped like ``at``) towards ``at``."""
    attached: Tensor = _Attached.apply(at, value, gradient)  # type: ignore[no-untyped-call]
    return attached
