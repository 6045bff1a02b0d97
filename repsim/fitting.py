"""The two ways a trial's trainable parameters are found: by optimiser steps, or in closed convergence on features."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from repsim.config import TrialConfig
from repsim.data.dataset import ImageSet
from repsim.data.views import Views
from repsim.errors import NonFiniteLossError
from repsim.model import FineTuned
from repsim.optimisation import build_optimizer, lr_scale, set_lr, trained_parameters
from repsim.penalties import Penalty
from repsim.probe import fit_linear_probe
from repsim.seeding import generator, torch_seed
from repsim.teacher import Teacher

SMALLEST_BATCH = 4
"""A last batch below this joins the one before it: similarity of fewer rows is not defined."""

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Fitted:
    """One epoch's account: mean loss and mean penalty over its images, last learning rate, optimiser steps."""

    loss: float
    penalty: float | None
    learning_rate: float
    steps: int


class Fit(ABC):
    """Moves the model one epoch at a time. ``n_epochs`` is how many there are."""

    n_epochs: int

    @abstractmethod
    def run_epoch(self, epoch: int) -> Fitted:
        """Epoch 1 … n_epochs."""

    def prepare_epoch(self, epoch: int) -> None:  # noqa: B027 - most have nothing to prepare
        """Load what the epoch will need (teacher features), so that its time is not counted as training."""

    def state_dict(self) -> dict[str, object]:
        """What the fit keeps beside the model's weights."""
        return {}

    def load_state_dict(self, state: Mapping[str, object]) -> None:  # noqa: B027 - most keep nothing
        """Continue from ``state_dict``."""


class GradientFit(Fit):
    """AdamW on cross-entropy + strength x penalty, over seeded batches of one augmented view per epoch."""

    def __init__(
        self,
        config: TrialConfig,
        model: FineTuned,
        penalty: Penalty | None,
        images: ImageSet,
        views: Views,
        teacher: Teacher,
    ) -> None:
        self.n_epochs = config.optim.epochs
        self._config, self._model, self._penalty = config, model, penalty
        self._images, self._views, self._teacher = images, views, teacher
        self._device = model.mean.device
        self._optimizer = build_optimizer(model, config.optim)
        self._parameters = trained_parameters(model)
        self._steps_per_epoch = len(batch_plan(len(images.train), config.optim.batch_size))
        weights = images.class_weights() if config.data.class_weights == "balanced" else None
        self._class_weights = None if weights is None else torch.tensor(weights, dtype=torch.float32).to(self._device)
        self._view_order = generator(config.seed, "views").permutation(views.n_views)
        self._teacher_view: tuple[int, NDArray[np.float32]] | None = None

    def prepare_epoch(self, epoch: int) -> None:
        """Fetch the pretrained features of this epoch's view."""
        view = self._view(epoch)
        if self._penalty is not None and (self._teacher_view is None or self._teacher_view[0] != view):
            self._teacher_view = (view, self._teacher.view(view))

    def run_epoch(self, epoch: int) -> Fitted:
        """One pass over the training images."""
        self.prepare_epoch(epoch)
        torch.manual_seed(torch_seed(self._config.seed, "dropout", epoch))
        order = generator(self._config.seed, "batches", epoch).permutation(len(self._images.train))
        plan = batch_plan(len(order), self._config.optim.batch_size)
        total_loss = total_penalty = 0.0
        self._model.train()
        scale = 0.0
        for number, (start, end) in enumerate(plan):
            step = (epoch - 1) * self._steps_per_epoch + number
            scale = lr_scale(step, self.n_epochs * self._steps_per_epoch, self._config.optim)
            set_lr(self._optimizer, scale)
            rows = order[start:end]
            loss, penalty = self._step(rows, self._view(epoch), epoch, step)
            total_loss += loss * len(rows)
            total_penalty += penalty * len(rows)
        if self._penalty is not None:
            self._penalty.after_epoch()
        return Fitted(
            loss=total_loss / len(order),
            penalty=None if self._penalty is None else total_penalty / len(order),
            learning_rate=self._config.optim.lr * scale,
            steps=len(plan),
        )

    def _view(self, epoch: int) -> int:
        return int(self._view_order[(epoch - 1) % len(self._view_order)])

    def _step(self, rows: Index, view: int, epoch: int, step: int) -> tuple[float, float]:
        indices = self._images.train[rows]
        images = self._views.augment(self._images.images[indices], indices, view).to(self._device)
        labels = torch.from_numpy(self._images.labels[indices]).to(self._device)
        optim = self._config.optim
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=optim.precision == "bf16"):
            features, logits = self._model(images)
        loss = nn.functional.cross_entropy(logits.float(), labels, weight=self._class_weights)
        penalty = self._penalty_value(features, rows)
        if penalty is not None and self._config.strength is not None:
            loss = loss + self._config.strength * penalty
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NonFiniteLossError(f"the training loss became {value} at step {step + 1} (epoch {epoch})")
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if optim.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, optim.clip_norm)
        self._optimizer.step()
        if self._penalty is not None:
            self._penalty.after_step()
        return value, 0.0 if penalty is None else float(penalty.detach())

    def _penalty_value(self, features: Tensor, rows: Index) -> Tensor | None:
        if self._penalty is None or self._teacher_view is None:
            return None
        teacher = torch.from_numpy(self._teacher_view[1][rows]).to(self._device)
        value: Tensor = self._penalty(features, teacher)
        return value

    def state_dict(self) -> dict[str, object]:
        """Optimiser state; orders and learning rates are functions of the epoch."""
        return {"optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Continue from ``state_dict``."""
        optimizer = state["optimizer"]
        if not isinstance(optimizer, dict):
            raise TypeError("the optimiser state must be a dict")
        self._optimizer.load_state_dict(optimizer)


class FeatureFit(Fit):
    """The head alone, to convergence, on the pretrained features of the training images as they are."""

    n_epochs = 1

    def __init__(self, config: TrialConfig, model: FineTuned, images: ImageSet, teacher: Teacher) -> None:
        self._config, self._model, self._images, self._teacher = config, model, images, teacher

    def prepare_epoch(self, epoch: int) -> None:
        """Compute the pretrained features if nobody has yet."""
        self._teacher.clean()

    def run_epoch(self, epoch: int) -> Fitted:
        """Fit and write the head's weights."""
        features, images = self._teacher.clean(), self._images
        weights = images.class_weights() if self._config.data.class_weights == "balanced" else None
        fitted = fit_linear_probe(
            features[images.train],
            images.labels[images.train],
            features[images.val],
            images.labels[images.val],
            weights,
        )
        head = self._model.head
        if not isinstance(head, nn.Linear):
            raise TypeError(f"a linear probe needs a linear head, not {type(head).__name__}")
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(fitted.weight))
            head.bias.copy_(torch.from_numpy(fitted.bias))
            logits = head(torch.from_numpy(features[images.train]).to(head.weight.device))
            labels = torch.from_numpy(images.labels[images.train]).to(head.weight.device)
            loss = float(nn.functional.cross_entropy(logits, labels))
        return Fitted(loss=loss, penalty=None, learning_rate=0.0, steps=1)


def batch_plan(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Ranges (start, end) that cover 0 … n; a rest below SMALLEST_BATCH joins the batch before it."""
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and n - starts[-1] < SMALLEST_BATCH:
        starts.pop()
    return list(zip(starts, [*starts[1:], n], strict=True))
