"""A small confirmed sweep with everything a front can show: two backbones, five methods, means, derived points."""

from __future__ import annotations

import json
import random

from repsim.config import TrialConfig
from repsim.records import Tag
from tests.reports.recorded_sweeps import FACTS, FakeTrial, config, numbers

DATA = "phantom:ultrasound"
LITE, MOBILE = "tf_efficientnet_lite0", "mobilenetv2_100"
SETTINGS: dict[str, tuple[str, float | None, str]] = {
    "t0000": ("linear_probe", None, LITE),
    "t0001": ("full", None, LITE),
    "t0002": ("repsim", 1.0, LITE),
    "t0003": ("repsim", 4.0, LITE),
    "t0004": ("hcs", 8.0, MOBILE),
    "t0005": ("feature_mse", 2.0, MOBILE),
}
"""Method, strength and backbone of the candidates; the last is bettered."""
FRESH: dict[str, tuple[tuple[float, float], ...]] = {
    "t0000": ((0.775, 1.0),) * 3,
    "t0001": ((0.912, 0.38), (0.920, 0.40), (0.928, 0.42)),
    "t0002": ((0.914, 0.60), (0.915, 0.61), (0.922, 0.65)),
    "t0003": ((0.895, 0.79), (0.905, 0.80), (0.915, 0.81)),
    "t0004": ((0.868, 0.90), (0.872, 0.91)),
    "t0005": ((0.860, 0.83), (0.850, 0.85), (0.870, 0.84)),
}
"""(val accuracy, val CKA) of each fresh seed, from seed 1 on; the means' front is t0001, t0002, t0003, t0004, t0000."""
DERIVED = {"t0002-w03": (0.3, 0.88, 0.90), "t0002-w06": (0.6, 0.91, 0.74)}
"""α, val accuracy and val CKA of the models between t0002's weights."""
STOPPED = "stopped at epoch 2 of 12: with luck it would have ended at val accuracy 0.4; 9 of 14 results dominate that"
TAGS = {
    Tag.CONFIRMATION: json.dumps({
        DATA: {
            "end": "membership unchanged",
            "reason": "the front kept its 5 members when every candidate had seed 3",
            "delta": {"val_accuracy": 0.01, "val_cka": 0.02},
            "candidates": list(SETTINGS),
        }
    }),
    Tag.REFERENCE: json.dumps({
        DATA: {
            "reference": {"val_accuracy": 0.767, "val_cka": 0.37},
            "ideal": {"val_accuracy": 1.0, "val_cka": 1.0},
        }
    }),
}  # fmt: skip


def setting(trial_id: str, seed: int = 0) -> TrialConfig:
    """A candidate's configuration under a seed."""
    method, strength, backbone = SETTINGS[trial_id]
    return config(data=DATA, method=method, strength=strength, backbone=backbone, seed=seed)


def searched() -> list[FakeTrial]:
    """The candidates' own runs, a little luckier than their means, and twenty others; some stopped, one failed."""
    rng = random.Random(3)
    found = []
    for trial_id, values in FRESH.items():
        mean = [sum(column) / len(values) for column in zip(*values, strict=True)]
        lucky = numbers(mean[0] + 0.006, mean[1])
        name = f"{trial_id} {SETTINGS[trial_id][0]}"
        found.append(FakeTrial(trial_id, setting(trial_id), lucky, tags={"mlflow.runName": name}))
    for number in range(6, 26):
        method = rng.choice(["full", "repsim", "hcs", "feature_mse"])
        strength = None if method == "full" else round(10 ** rng.uniform(-1.0, 1.2), 3)
        held = 0.0 if strength is None else strength / (1.0 + strength)
        own = config(
            data=DATA, method=method, strength=strength, backbone=rng.choice([LITE, MOBILE]), optim__lr=1e-5 * number
        )
        values = numbers(0.90 - 0.07 * held + rng.gauss(0, 0.008), 0.36 + 0.42 * held + rng.gauss(0, 0.02))
        found.append(FakeTrial(f"t{number:04d}", own, values))
    for number in (26, 27):
        partial = {"curve/val_accuracy": 0.81, "curve/val_cka": 0.41 + 0.01 * number, "curve/train_loss": 1.0}
        own = config(data=DATA, optim__lr=1e-5 * number)
        found.append(
            FakeTrial(f"t{number:04d}", own, partial, status="pruned", reason=STOPPED, feasible=None, facts={})
        )
    broken = config(data=DATA, optim__lr=9e-4)
    reason = "the loss became NaN in step 12"
    found.append(FakeTrial("t0028", broken, status="failed", reason=reason, feasible=None, facts={}))
    return found


def front_trials() -> list[FakeTrial]:
    """All runs of the sweep: the search's, the fresh seeds, the derived points."""
    found = searched()
    for trial_id, values in FRESH.items():
        for seed, (accuracy, cka) in enumerate(values, start=1):
            number = f"t{100 + len(found):04d}"
            found.append(FakeTrial(number, setting(trial_id, seed), numbers(accuracy, cka), stage="confirm"))
    for name, (alpha, accuracy, cka) in DERIVED.items():
        method, strength, backbone = SETTINGS["t0002"]
        between = config(data=DATA, method=method, strength=strength, backbone=backbone, wise_alpha=alpha)
        found.append(
            FakeTrial(
                name,
                between,
                numbers(accuracy, cka) | {"overhead_seconds": 1.0},
                stage="derived",
                tags={Tag.DERIVED_FROM: "t0002"},
                facts=dict(FACTS),
            )
        )
    return found
