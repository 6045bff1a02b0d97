"""What a sweep will cost, before it starts: trials, epochs, disk and time. Arithmetic on a few measured constants.

Measured on one thread of a server CPU (AVX-512, 2 GHz class), fp32, batches of 32: a training step of
tf_efficientnet_lite0 takes 223 ms at 96 px and 119 ms at 64 px, one of mobilenetv2_100 160 ms at 96 px; a forward pass
takes a quarter of a step. What methods and optimiser wrappers add to a step stands in the catalogue. Times of other
machines and backbones differ, so the answer is a range.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from repsim.catalogue import ADAPTERS, PENALTIES, PREFIX_CACHE_BYTES, WRAPPERS, parse_method
from repsim.config import TrialConfig
from repsim.records import WISE_ALPHAS
from sweeps.space import ANCHORS, Range, Space

STEP_SECONDS_96: Mapping[str, float] = {"tf_efficientnet_lite0": 0.223, "mobilenetv2_100": 0.160}
"""Seconds per training step of 32 images of 96 px on one thread."""
OTHER_STEP_SECONDS_96 = (0.16, 1.5)
"""From, to: what is assumed of any other backbone."""
FORWARD_SHARE = 0.25
SHARPNESS_STEPS = 36.0
"""Sharpness on 512 images, in training steps: one gradient, and five forward passes (one per radius)."""
SHARPNESS_FULL_STEPS = 600.0
"""``measure.sharpness: full`` adds 42 gradients, 41 losses and some 30 products with the Hessian, on 128 images."""
SIMILARITY_FULL_SECONDS = 3.0
"""What ``measure.similarity: full`` adds; it grows with the probe, not with the backbone."""
PROBE_SECONDS = 2.0
"""Fit of a linear probe on cached features."""
START_SECONDS = (8.0, 25.0)
"""Per slot: importing, decoding, loading weights."""
SPREAD = (0.8, 2.0)
"""Fastest and slowest machine, relative to the measured one."""
FEATURE_BYTES = 1280 * 4
"""One image's features."""
PREFIX_BYTES_PER_PIXEL = 2 * 4
"""What a frozen beginning hands on per pixel of the image, in a small ViT; in a convnet it is a tenth of that."""
PARAMETER_BYTES = 3 * 4
"""Weights and two moments of the optimiser in fp32."""
WEIGHT_BYTES = 4
"""Of a kept model, per parameter."""
FRONT_MEMBERS = 12
"""Models that a front is taken to keep; it may be any number up to all trials."""
PARAMETERS = 4_000_000
"""Of a backbone that nobody has looked at yet."""
SWEEP_BYTES = 6_000_000
"""MLflow's empty database, and a report without trials."""
TRIAL_BYTES = 300_000
"""Journal, MLflow and report per trial, predictions aside."""
POINT_BYTES = 60_000
"""The same per derived point, which has no curves."""
PREDICTION_BYTES = 200
"""Per image that is predicted."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Search trials and epochs of the whole sweep (all data sets), bytes on disk, seconds from launch to end.

    ``confirmations`` are the fresh seeds at most; their epochs are in ``epochs``, their cost in the higher figures.
    ``cache_bytes`` are decoded images, pretrained features and what frozen beginnings hand on, ``run_bytes`` the rest,
    checkpoints and the models that are kept included; the latter are ``model_bytes``.
    """

    trials: int
    epochs: int
    cache_bytes: int
    run_bytes: int
    model_bytes: int
    seconds_low: float
    seconds_high: float
    confirmations: int = 0

    def lines(self) -> tuple[str, ...]:
        """For ``--dry-run``."""
        fresh = f", and at most {self.confirmations} fresh seeds" if self.confirmations else ""
        models = f", of it {_bytes_text(self.model_bytes)} models of the front" if self.model_bytes else ""
        return (
            f"trials: {self.trials}{fresh}",
            f"epochs: at most {self.epochs}",
            f"disk: about {_bytes_text(self.cache_bytes + self.run_bytes)}{models}",
            f"time: {_time_text(self.seconds_low)} to {_time_text(self.seconds_high)} without a GPU",
        )


def estimate(space: Space, n_images: Mapping[str, int], slots: int, *, parameters: int = PARAMETERS) -> Estimate:
    """Cost of a sweep over ``n_images`` images per SOURCE, in ``slots`` (>= 1) trials at a time.

    ``parameters`` is the size of the largest backbone.
    Raises ValueError for fewer than one slot and KeyError for a SOURCE whose size is not given.
    """
    if slots < 1:
        raise ValueError(f"a sweep needs at least one slot, not {slots}")
    low = high = 0.0
    cache = run = 0
    for source in space.data:
        images = n_images[source]
        low += _study_seconds(space, images, slots, worst=False)
        high += _study_seconds(space, images, slots, worst=True)
        cache += _cache_bytes(space, images)
        run += _run_bytes(space, images)
    models = _model_bytes(space, slots, parameters)
    hours = math.inf if space.budget.hours is None else 3600.0 * space.budget.hours * len(space.data)
    return Estimate(
        trials=space.trial_count,
        epochs=len(space.data) * (_search_epochs(space) + space.confirm_runs * space.budget.epochs),
        cache_bytes=cache,
        run_bytes=SWEEP_BYTES + run + slots * parameters * PARAMETER_BYTES + models,
        model_bytes=models,
        seconds_low=START_SECONDS[0] + min(low * SPREAD[0], hours),
        seconds_high=START_SECONDS[1] + min(high * SPREAD[1], hours),
        confirmations=space.confirm_runs * len(space.data),
    )


def _search_epochs(space: Space) -> int:
    """Epochs of one data set's search trials, at most."""
    most = space.budget.trials * space.budget.epochs
    return most if space.budget.train_epochs is None else min(most, space.budget.train_epochs)


def _study_seconds(space: Space, images: int, slots: int, *, worst: bool) -> float:
    """One data set: the anchors, then trials drawn evenly over methods and backbones, ``slots`` at a time."""
    methods, backbones = [str(m) for m in space.values("method")], [str(b) for b in space.values("backbone")]
    drawn = [_trial_seconds(space, m, b, images, worst=worst) for m in methods for b in backbones]
    anchors = (
        [] if space.is_single_run else [_trial_seconds(space, m, backbones[0], images, worst=worst) for m in ANCHORS]
    )
    mean = sum(drawn) / len(drawn)
    fresh = space.confirm_runs if worst else 0
    total = sum(anchors) + (space.budget.trials - len(anchors) + fresh) * mean
    longest = max([*drawn, *anchors])
    parsed = [parse_method(method) for method in methods]
    by_view = any(one.penalty is not None or ADAPTERS[one.adapter].caches_prefix for one in parsed)
    views = _views(space) if by_view else 1
    teachers = sum(_step_seconds(space, b, worst) * FORWARD_SHARE * images / 32 * views for b in backbones)
    return max(total / slots, longest) + teachers / min(slots, len(backbones))


def _trial_seconds(space: Space, method: str, backbone: str, images: int, *, worst: bool) -> float:
    train, val, test = (images * share for share in _fractions(space))
    step = _step_seconds(space, backbone, worst)
    forward = step * FORWARD_SHARE / 32
    final = SHARPNESS_STEPS * step + (val + test) * forward + _extra_seconds(space, step, train * forward)
    parsed = parse_method(method)
    probe = PROBE_SECONDS if ADAPTERS[parsed.adapter].linear_head else 0.0
    if not ADAPTERS[parsed.adapter].trains_backbone:
        return probe + final
    if _takes_lines(space):
        probe += PROBE_SECONDS
        final += len(WISE_ALPHAS) * (SHARPNESS_STEPS * step + (val + test) * forward)
    epochs = _number(space, "optim.epochs", worst, space.budget.epochs)
    penalty = 1.0 if parsed.penalty is None else PENALTIES[parsed.penalty].step_cost
    factor = ADAPTERS[parsed.adapter].step_cost * penalty * _wrapped(space, worst)
    return probe + epochs * (train * factor * step / 32 + val * forward) + final


def _extra_seconds(space: Space, step: float, train_pass: float) -> float:
    """What ``measure`` asks for beside the standard numbers."""
    asked = {key: space.fixed.get(f"measure.{key}") == "full" for key in ("sharpness", "similarity", "quality")}
    costs = {"sharpness": SHARPNESS_FULL_STEPS * step, "similarity": SIMILARITY_FULL_SECONDS, "quality": train_pass}
    return sum(seconds for key, seconds in costs.items() if asked[key])


def _takes_lines(space: Space) -> bool:
    """Whether every trial that moves the backbone measures the points between its two ends as well."""
    return space.fixed.get("measure.wise") is True


def _wrapped(space: Space, worst: bool) -> float:
    """The cost of the step's optimiser wrappers, the dearest or cheapest that the space can ask for."""
    product = 1.0
    for key in ("optim.sam", "optim.average"):
        costs = [WRAPPERS[name].step_cost if name in WRAPPERS else 1.0 for name in map(str, space.values(key))]
        product *= max(costs) if worst else min(costs)
    return product


def _step_seconds(space: Space, backbone: str, worst: bool) -> float:
    """Seconds per 32 images at the space's image size: a constant part, and one that grows with the pixels."""
    at_96 = STEP_SECONDS_96.get(backbone, OTHER_STEP_SECONDS_96[1 if worst else 0])
    size = _number(space, "data.image_size", worst, TrialConfig().data.image_size)
    return at_96 * (0.16 + 0.84 * (size / 96) ** 2)


def _number(space: Space, key: str, worst: bool, otherwise: float) -> float:
    """The largest or smallest number a key can take; ``otherwise`` where the space says nothing."""
    found = [space.fixed[key]] if key in space.fixed else []
    for dimension in space.dimensions:
        if dimension.key == key:
            for branch in dimension.branches:
                domain = branch.domain
                found += [domain.low, domain.high] if isinstance(domain, Range) else list(domain.values)
    numbers = [float(value) for value in found if isinstance(value, int | float)]
    if not numbers:
        return float(otherwise)
    return max(numbers) if worst else min(numbers)


def _fractions(space: Space) -> tuple[float, float, float]:
    given = space.fixed.get("data.fractions")
    if isinstance(given, tuple) and len(given) == 3:
        return (float(given[0]), float(given[1]), float(given[2]))
    return TrialConfig().data.fractions


def _views(space: Space) -> float:
    """Augmented views per image that the teacher sees: one an epoch, until every one has been seen."""
    if space.fixed.get("data.augment") == "none":
        return 1
    every = _number(space, "data.views", True, 2 * space.budget.epochs)
    return min(every, space.budget.trials * space.budget.epochs)


def _cache_bytes(space: Space, images: int) -> int:
    sizes = _number(space, "data.image_size", True, TrialConfig().data.image_size)
    pixels = images * sizes * sizes * 3
    features = images * (1 + _views(space) * _fractions(space)[0]) * FEATURE_BYTES * len(space.values("backbone"))
    return round(pixels + features) + _prefix_bytes(space, images, sizes)


def _prefix_bytes(space: Space, images: int, side: float) -> int:
    """One cache for each backbone and each number of stages that move, none of them larger than it may be."""
    if not any(ADAPTERS[parse_method(str(method)).adapter].caches_prefix for method in space.values("method")):
        return 0
    stages = _number(space, "adapter.stages", True, 1) - _number(space, "adapter.stages", False, 1) + 1
    caches = min(len(space.values("backbone")) * round(stages), space.budget.trials)
    largest = images * _views(space) * _fractions(space)[0] * side * side * PREFIX_BYTES_PER_PIXEL
    return caches * round(min(largest, PREFIX_CACHE_BYTES))


def _run_bytes(space: Space, images: int) -> int:
    predictions = images * sum(_fractions(space)[1:]) * PREDICTION_BYTES
    points = len(WISE_ALPHAS) if _takes_lines(space) else 0
    runs = space.budget.trials + space.confirm_runs
    return round(runs * (TRIAL_BYTES + predictions + points * (POINT_BYTES + predictions)))


def trial_model_bytes(space: Space, parameters: int) -> int:
    """What the model of one trial takes in the run folder; with derived points both ends of its line are kept."""
    if space.resources.models == "none":
        return 0
    return parameters * WEIGHT_BYTES * (2 if _takes_lines(space) else 1)


def _model_bytes(space: Space, slots: int, parameters: int) -> int:
    """Models of the front, once in the run folder and once in MLflow, and those just made that nobody has judged.

    Where fresh seeds are to confirm the front, no trial can be ruled out before, so all stay until then.
    """
    one = trial_model_bytes(space, parameters)
    front = min(space.budget.trials, FRONT_MEMBERS)
    kept = space.budget.trials if space.confirm_runs else front
    copies = front * parameters * WEIGHT_BYTES if one else 0
    return len(space.data) * (kept * one + copies) + slots * one


def _bytes_text(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"


def _time_text(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
