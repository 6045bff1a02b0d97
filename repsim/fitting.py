"""How a trial's trainable parameters are found: by optimiser steps, in closed convergence on features, or both."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from repsim.averaging import WeightAverage, recompute_batch_norm
from repsim.catalogue import ADAPTERS
from repsim.config import Target, TrialConfig
from repsim.data.dataset import ImageSet
from repsim.data.views import Views
from repsim.errors import NonFiniteLossError
from repsim.feed import Feed
from repsim.model import FineTuned
from repsim.optimisation import at_worst_neighbour, build_optimizer, lr_scale, set_lr, trained_parameters
from repsim.penalties import Penalty
from repsim.prefix import CachedPrefix
from repsim.probe import fit_linear_probe
from repsim.ranks import ALONE, Ranks
from repsim.seeding import generator, torch_seed
from repsim.targeting import StrengthControl
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

    def facts(self) -> dict[str, object]:
        """What a finished trial should say of the fitting, with the model that is reported; facts of ``records``."""
        return {}

    def state_dict(self) -> dict[str, object]:
        """What the fit keeps beside the model's weights."""
        return {}

    def load_state_dict(self, state: Mapping[str, object]) -> None:  # noqa: B027 - most keep nothing
        """Continue from ``state_dict``."""


class GradientFit(Fit):
    """AdamW on cross-entropy + strength x penalty, over seeded batches of one augmented view per epoch.

    With a cached ``prefix`` the steps start behind the frozen beginning of the network; the rest is the same.

    Where the strength is a target, :class:`~repsim.targeting.StrengthControl` says what it is at each step.

    With ``optim.average`` the model holds the averaged weights after :meth:`run_epoch`, and the last ones during it.

    Among several ``ranks`` each runs the network on its share of a batch; what follows is about the whole batch, and
    the same on all of them.
    """

    def __init__(
        self,
        config: TrialConfig,
        model: FineTuned,
        penalty: Penalty | None,
        images: ImageSet,
        views: Views,
        teacher: Teacher,
        feed: Feed,
        prefix: CachedPrefix | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.n_epochs = config.optim.epochs
        self._config, self._model, self._penalty = config, model, penalty
        self._images, self._views, self._teacher, self._feed = images, views, teacher, feed
        self._prefix, self._ranks = prefix, ranks
        self._device = model.mean.device
        factor = ADAPTERS[config.parsed_method.adapter].head_lr_factor
        self._optimizer = build_optimizer(model, config.optim, factor)
        self._parameters = trained_parameters(model)
        self._plan = batch_plan(len(images.train), config.optim.batch_size, max(SMALLEST_BATCH, ranks.size))
        self._steps_per_epoch = len(self._plan)
        n_steps = self.n_epochs * self._steps_per_epoch
        self._average = None if config.optim.average == "none" else WeightAverage(model, config.optim, n_steps)
        target = config.target_cka
        self._control = None
        if target is not None:
            self._control = StrengthControl(config, target, model, images, teacher, n_steps, ranks)
        weights = images.class_weights() if config.data.class_weights == "balanced" else None
        self._class_weights = None if weights is None else torch.tensor(weights, dtype=torch.float32).to(self._device)
        self._view_order = generator(config.seed, "views").permutation(views.n_views)
        self._network: nn.Module | None = None

    def prepare_epoch(self, epoch: int) -> None:
        """Fetch what penalty and cached beginning need of the pretrained network in this epoch's view."""
        self._feed.prepare(self._view(epoch))
        if self._prefix is not None:
            self._prefix.prepare(self._view(epoch))
        if self._control is not None:
            self._control.prepare()

    def run_epoch(self, epoch: int) -> Fitted:
        """One pass over the training images."""
        self.prepare_epoch(epoch)
        if self._average is not None:
            self._average.remove()
        self._meet()
        apart = () if self._ranks.size == 1 else (self._ranks.rank,)
        torch.manual_seed(torch_seed(self._config.seed, "dropout", epoch, *apart))
        order, plan = generator(self._config.seed, "batches", epoch).permutation(len(self._images.train)), self._plan
        total_loss = total_penalty = 0.0
        self._model.train()
        scale = 0.0
        for number, (start, end) in enumerate(plan):
            step = (epoch - 1) * self._steps_per_epoch + number
            scale = lr_scale(step, self.n_epochs * self._steps_per_epoch, self._config.optim)
            set_lr(self._optimizer, scale)
            rows = order[start:end]
            loss, penalty = self._step(rows, self._view(epoch), epoch, step)
            if self._average is not None:
                self._average.update(step)
            if self._control is not None:
                self._control.after_step(step)
            total_loss += loss * len(rows)
            total_penalty += penalty * len(rows)
        if self._penalty is not None:
            self._penalty.after_epoch()
        if self._average is not None and self._average.install():
            recompute_batch_norm(self._model, self._batches(order, plan, self._view(epoch)))
        return Fitted(
            loss=total_loss / len(order),
            penalty=None if self._penalty is None else total_penalty / len(order),
            learning_rate=self._config.optim.lr * scale,
            steps=len(plan),
        )

    def _meet(self) -> None:
        """Begin the epoch from the same weights on every rank."""
        self._ranks.align([self._model] if self._penalty is None else [self._model, self._penalty])
        if self._network is None:
            self._network = self._ranks.parallel(self._model)

    def _strength(self) -> float | None:
        if self._control is not None:
            return self._control.strength
        strength = self._config.strength
        return None if isinstance(strength, Target) else strength

    def facts(self) -> dict[str, object]:
        """The target's outcome, where one was asked for."""
        return {} if self._control is None else self._control.facts()

    def _view(self, epoch: int) -> int:
        return int(self._view_order[(epoch - 1) % len(self._view_order)])

    def _batches(self, order: Index, plan: list[tuple[int, int]], view: int) -> Iterator[Tensor]:
        for start, end in plan:
            yield self._inputs(order[start:end], view)

    def _inputs(self, rows: Index, view: int) -> Tensor:
        indices = self._images.train[rows]
        return self._views.augment(self._images.images[indices], indices, view).to(self._device)

    def _labels(self, rows: Index) -> Tensor:
        return torch.from_numpy(self._images.labels[self._images.train[rows]]).to(self._device)

    def _step(self, rows: Index, view: int, epoch: int, step: int) -> tuple[float, float]:
        own, labels = rows[self._ranks.share(len(rows))], self._labels(rows)
        if self._prefix is None:
            images = self._inputs(own, view)
        else:
            images = self._prefix.images(len(own), self._views.image_size)
        where, optim = f"step {step + 1} (epoch {epoch})", self._config.optim
        value, penalty = self._backward(images, labels, rows, where)
        if optim.sam != "none":
            named = [(name, p) for name, p in self._model.named_parameters() if p.requires_grad]
            # what penalties learn of the features is about the weights themselves, not about their neighbour
            measured = nullcontext() if self._penalty is None else self._penalty.forgetting()
            with at_worst_neighbour(self._model, named, optim), measured:
                self._backward(images, labels, rows, f"the worst neighbour of {where}")
        if optim.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, optim.clip_norm)
        self._optimizer.step()
        if self._penalty is not None:
            self._penalty.after_step()
        return value, penalty

    def _backward(self, images: Tensor, labels: Tensor, rows: Index, where: str) -> tuple[float, float]:
        """Fill the gradients; the loss, and the penalty in it (0 without one). NonFiniteLossError names ``where``.

        ``images`` are this rank's share of the batch, ``labels`` and ``rows`` the whole of it.
        """
        if self._network is None:
            raise RuntimeError("an epoch has to begin before its steps")
        n, own = len(rows), rows[self._ranks.share(len(rows))]
        enabled = self._config.optim.precision == "bf16"
        beginning = nullcontext() if self._prefix is None else self._prefix.given(own)
        precision = torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=enabled)
        with self._feed.watching() as seen, beginning, precision:
            features, logits = (self._ranks.join(answer, n) for answer in self._network(images))
        loss = nn.functional.cross_entropy(logits.float(), labels, weight=self._class_weights)
        penalty: Tensor | None = None
        if self._penalty is not None:
            penalty = self._penalty(self._feed.batch(features, labels, rows, images, seen))
        strength = self._strength()
        if penalty is not None and strength is not None:
            loss = loss + strength * penalty
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._parameters, math.inf)  # clips nothing, and says how large
        value, size = torch.stack([loss.detach(), norm]).tolist()  # together: the device is waited for once
        for what, number in (("training loss", value), ("gradient's norm", size)):
            if not math.isfinite(number):
                raise NonFiniteLossError(f"the {what} became {number} at {where}")
        return value, 0.0 if penalty is None else float(penalty.detach())

    def state_dict(self) -> dict[str, object]:
        """Optimiser state and average; orders and learning rates are functions of the epoch."""
        average = None if self._average is None else self._average.state_dict()
        control = None if self._control is None else self._control.steering.state_dict()
        return {"optimizer": self._optimizer.state_dict(), "average": average, "control": control}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Continue from ``state_dict``."""
        optimizer = state["optimizer"]
        if not isinstance(optimizer, dict):
            raise TypeError("the optimiser state must be a dict")
        self._optimizer.load_state_dict(optimizer)
        if self._average is not None:
            self._average.load_state_dict(cast(Mapping[str, object], state["average"]))
        if self._control is not None:
            self._control.steering.load_state_dict(cast(Mapping[str, object], state["control"]))


class ProbedGradientFit(GradientFit):
    """As :class:`GradientFit`, from a head that is a converged linear probe."""

    def prepare_epoch(self, epoch: int) -> None:
        """Fetch the pretrained features, for the first epoch also those of the images as they are."""
        super().prepare_epoch(epoch)
        if epoch == 1:
            self._teacher.clean()

    def run_epoch(self, epoch: int) -> Fitted:
        """One pass over the training images; before the first, the probe."""
        if epoch == 1:
            probe_head(self._config, self._model, self._images, self._teacher)
        return super().run_epoch(epoch)


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
        loss = probe_head(self._config, self._model, self._images, self._teacher)
        return Fitted(loss=loss, penalty=None, learning_rate=0.0, steps=1)


def probe_head(config: TrialConfig, model: FineTuned, images: ImageSet, teacher: Teacher) -> float:
    """Make the head the converged logistic regression on the pretrained features; its mean training loss."""
    features = teacher.clean()
    weights = images.class_weights() if config.data.class_weights == "balanced" else None
    fitted = fit_linear_probe(
        features[images.train],
        images.labels[images.train],
        features[images.val],
        images.labels[images.val],
        weights,
    )
    head = model.head
    if not isinstance(head, nn.Linear):
        raise TypeError(f"a linear probe needs a linear head, not {type(head).__name__}")
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(fitted.weight))
        head.bias.copy_(torch.from_numpy(fitted.bias))
        logits = head(torch.from_numpy(features[images.train]).to(head.weight.device))
        labels = torch.from_numpy(images.labels[images.train]).to(head.weight.device)
        return float(nn.functional.cross_entropy(logits, labels))


def batch_plan(n: int, batch_size: int, smallest: int = SMALLEST_BATCH) -> list[tuple[int, int]]:
    """Ranges (start, end) that cover 0 … n; a rest below ``smallest`` joins the batch before it."""
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and n - starts[-1] < smallest:
        starts.pop()
    return list(zip(starts, [*starts[1:], n], strict=True))
