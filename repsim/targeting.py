"""Arrive at a similarity that was asked for: λ is found while training, by integral control of log λ.

``strength: {target_cka: c}`` asks for finetuned features whose debiased linear CKA with the pretrained ones is c. At
control points the CKA of a fixed stratified sample of *training* images, as they are and in eval mode, is measured, and
log λ moves by a gain times logit(c) - logit(ĉ). Val and test images are never looked at: that val lands where the
sample does is a matter of measurement, not of construction.

- Control points lie at equal shares of the summed root of the learning rate: dense where the weights move, and few in
  a tail in which λ can do little more.
- ĉ is where the features are heading: the CKA answers λ with a lag of about ``LAG`` control intervals, and a
  first-order lag arrives at c + LAG x (its change per interval, over the last two). Without it the loop takes the fall
  from CKA 1 at the start for a λ too large, and overshoots.
- While the learning rate is high, its noise alone lowers the CKA; what its decay will give back (``ANNEALING`` logits
  from the peak to 0) is taken off the target.
- In logits the CKA is roughly linear in log λ, with a slope of about 1: one gain serves targets of 0.5 and of 0.95, and
  the start is the geometric middle of the penalty's ``strength_range``, taken to be where the CKA is ``MIDDLE``, times
  the ratio of the odds. Coming from below is quick, coming from above is not: once the task is learned, little pulls.

Dual ascent on λ itself (λ + η (c - CKA)) needs hundreds of epochs for the three decades that λ spans.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from repsim.catalogue import PENALTIES
from repsim.config import OptimConfig, TrialConfig
from repsim.data.dataset import ImageSet
from repsim.data.splits import stratified_sample
from repsim.evaluation import outputs_of
from repsim.model import FineTuned
from repsim.optimisation import lr_scale
from repsim.ranks import ALONE, Ranks
from repsim.seeding import generator
from repsim.similarity.cka import debiased_cka
from repsim.teacher import Teacher

POINTS = 16
"""Equal shares of the summed root of the learning rate; λ changes between them."""
FEWEST, MOST = 256, 1024
"""Bounds on the number of control images (128 scatter by 0.04)."""
COST = 0.1
"""Share of the training's time that control may take, as far as FEWEST images allow it."""
FORWARD = 1 / 6
"""Time of a forward pass in eval mode, as a share of a training step, per image: augmentation and backward are more."""
TOLERANCE = 0.03
"""How near the target counts as reached, on the control images."""
GAIN, LAG = 0.6, 2.0
ANNEALING = 0.2
MIDDLE = 0.9
LARGEST_STEP = 1.0
"""Most that log λ moves at one control point."""
REACH = 10.0
"""λ may leave the penalty's ``strength_range`` by this factor at either end: below, it no longer acts."""

Index = NDArray[np.int64]


def control_steps(n_steps: int, optim: OptimConfig) -> frozenset[int]:
    """The steps (of 0 … n_steps - 1) after which λ is looked at: at most POINTS - 1, never the last one."""
    done = np.cumsum([math.sqrt(lr_scale(step, n_steps, optim)) for step in range(n_steps)])
    ends = np.searchsorted(done, done[-1] * np.arange(1, POINTS) / POINTS)
    return frozenset(int(step) for step in ends if step < n_steps - 1)


def control_images(images: ImageSet, epochs: int, seed: int) -> Index:
    """Sorted indices of the training images that λ is steered by, classes in proportion; another set for every seed.

    As many as COST allows, but FEWEST … MOST, or all there are.
    """
    affordable = int(COST / FORWARD * len(images.train) * epochs / POINTS)
    size = min(max(affordable, FEWEST), MOST)
    entropy = [int(word) for word in generator(seed, "control").integers(2**32, size=4)]
    chosen: Index = images.train[stratified_sample(images.labels[images.train], size, entropy)]
    return chosen


class Steering:
    """The law by which log λ moves, apart from the training: measured CKAs in, λ out.

    ``low`` and ``high`` are the ends of the penalty's ``strength_range``.
    """

    def __init__(self, target: float, low: float, high: float) -> None:
        self.target = target
        self._range = (low, high)
        self._lowest, self._highest = math.log(low / REACH), math.log(high * REACH)
        middle = 0.5 * (math.log(low) + math.log(high))
        self._log = self._clamped(middle + _logit(target) - _logit(MIDDLE))
        self._seen: tuple[float, ...] = ()

    @property
    def strength(self) -> float:
        """λ as it is now."""
        return math.exp(self._log)

    def see(self, cka: float, decay: float = 0.0) -> None:
        """Take the CKA of one control point and move λ; the first one only tells where the features are.

        ``decay`` is what the learning rate will still lose, as a share of its peak.
        """
        self._seen = (*self._seen[-2:], cka)
        intervals = len(self._seen) - 1
        if intervals == 0:
            return
        heading = cka + LAG * (cka - self._seen[0]) / intervals
        step = GAIN * (_logit(self.target) - ANNEALING * decay - _logit(heading))
        self._log = self._clamped(self._log + min(max(step, -LARGEST_STEP), LARGEST_STEP))

    def _clamped(self, log_strength: float) -> float:
        return min(max(log_strength, self._lowest), self._highest)

    def outcome(self, cka: float) -> tuple[str, str]:
        """``reached``, ``not binding`` or ``not reached``, and why; ``cka`` is that of the finished model."""
        low, high = self._range
        if abs(cka - self.target) <= TOLERANCE:
            return "reached", f"control cka {cka:.3f}"
        found = f"control cka {cka:.3f} at λ {self.strength:.3g}"
        if cka > self.target:
            if self.strength <= low:
                return "not binding", f"{found}: above the target even where the penalty hardly acts"
            return "not reached", f"{found}: the training ended before the features had moved that far"
        if self.strength >= high:
            return "not reached", f"{found}: below the target even where the penalty rules"
        return "not reached", f"{found}: the training ended before the features had come back"

    def state_dict(self) -> dict[str, object]:
        """log λ and the last CKAs; how many control points there were follows from the step."""
        return {"log_strength": self._log, "seen": self._seen}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Continue from ``state_dict``."""
        self._log = cast(float, state["log_strength"])
        self._seen = cast("tuple[float, ...]", state["seen"])


class StrengthControl:
    """λ of a trial that asks for a similarity; call :meth:`after_step` after every optimiser step.

    ``seconds`` is the time control has taken in this process. Measures draw no random numbers.
    """

    def __init__(
        self,
        config: TrialConfig,
        target: float,
        model: FineTuned,
        images: ImageSet,
        teacher: Teacher,
        n_steps: int,
        ranks: Ranks = ALONE,
    ) -> None:
        penalty = config.parsed_method.penalty
        if penalty is None:
            raise ValueError("there is no strength to steer without a penalty")
        self.steering = Steering(target, *PENALTIES[penalty].strength_range)
        self._model, self._images, self._teacher, self._ranks = model, images, teacher, ranks
        self._n_steps, self._optim = n_steps, config.optim
        self._steps = control_steps(n_steps, config.optim)
        self._chosen = control_images(images, config.optim.epochs, config.seed)
        self.seconds = 0.0

    @property
    def strength(self) -> float:
        """λ as it is now."""
        return self.steering.strength

    def prepare(self) -> None:
        """Compute the pretrained features if nobody has yet."""
        self._teacher.clean()

    def after_step(self, step: int) -> None:
        """Measure and move λ where ``step`` (counted from 0 over all epochs) is a control point."""
        if step in self._steps:
            started = time.perf_counter()
            now, last = (lr_scale(at, self._n_steps, self._optim) for at in (step, self._n_steps - 1))
            self.steering.see(self._cka(), now - last)
            self.seconds += time.perf_counter() - started

    def facts(self) -> dict[str, object]:
        """What a finished trial says of its target, measured on the model as it is now."""
        cka = self._cka()
        outcome, reason = self.steering.outcome(cka)
        return {
            "target_outcome": outcome,
            "target_reason": reason,
            "strength_final": self.strength,
            "control_cka": cka,
            "n_control": len(self._chosen),
        }

    def _cka(self) -> float:
        now = outputs_of(self._model, self._images, self._chosen, self._ranks).features
        return debiased_cka(self._teacher.clean()[self._chosen], now)


def _logit(cka: float) -> float:
    inside = min(max(cka, 0.02), 0.98)
    return math.log(inside / (1.0 - inside))
