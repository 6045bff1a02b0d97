"""A fixed sweep with everything a report draws: a grid of methods, fresh seeds, layers, curves, slots, a failure.

It goes through the search and the writer, as a sweep does. What a trial answers is a function of its configuration.
"""

from __future__ import annotations

import math
import random
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

from repsim.records import EPOCH_METRICS, STANDARD_METRICS, EpochResult, Status, TrialResult
from sweeps.provenance import provenance
from sweeps.search import Outcome, Search
from sweeps.space import Space, space_from_dict
from sweeps.tracking import SweepWriter
from sweeps.trial import Trial, TrialRecord

NAME, EPOCHS = "golden", 4
LAYERS = ("blocks.0", "blocks.2", "blocks.4", "blocks.6")
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def golden_space() -> Space:
    """Seven methods and strengths on two backbones, listed one by one."""
    document = {
        "name": NAME,
        "question": "Does the report still say the same?",
        "data": "phantom:ultrasound",
        "objectives": [{"metric": "val_accuracy"}, {"metric": "val_cka"}],
        "budget": {"trials": 24, "epochs": EPOCHS},
        "search": {"sampler": "grid", "parallel": 2},
        "confirm": {"seeds": 3, "runs": 21},
        "space": {
            "method": ["full", "repsim", "hcs"],
            "strength": {"value": [0.1, 1.0, 10.0], "when": {"penalty": "any"}},
            "backbone": ["tf_efficientnet_lite0", "mobilenetv2_100"],
            "optim.lr": [1.0e-4, 3.0e-4],
        },
    }
    return space_from_dict(document, where="golden")


def answered(trial: Trial) -> dict[str, float]:
    """Final values: a trade-off that the strength moves along, better on one backbone, with luck from the seed."""
    config = trial.config
    luck = random.Random(zlib.crc32(f"{config.config_id}{config.seed}".encode()))
    strength = config.strength if isinstance(config.strength, float) else 0.0
    held = 1.0 if config.method == "linear_probe" else 0.35 + 0.6 * strength / (1.0 + strength)
    spread = 0.0 if config.method == "linear_probe" else 0.01
    accuracy = 0.93 - 0.16 * held**3 - 0.02 * (config.backbone.name != "tf_efficientnet_lite0")
    accuracy += 0.01 * math.log10(config.optim.lr / 1e-4) + luck.gauss(0.0, spread)
    values = dict.fromkeys(STANDARD_METRICS, 0.5)
    return values | {
        "val_accuracy": round(accuracy, 4),
        "test_accuracy": round(accuracy - 0.01, 4),
        "val_cka": round(min(1.0, held + luck.gauss(0.0, spread)), 4),
        "test_cka": round(held, 4),
        "sharpness": round(0.05 - 0.03 * held, 4),
        "train_seconds": 20.0 + 5.0 * strength / (1.0 + strength),
        "overhead_seconds": 4.0,
        "evaluation_seconds": 2.0,
    }


def recorded(trial: Trial, order: int) -> TrialRecord:
    """What became of the trial that was the ``order``-th to start: two at a time, the fifth fails."""
    final = answered(trial)
    began = BEGAN + timedelta(seconds=15 * order)
    ended = began + timedelta(seconds=29)
    times = {"started": began.isoformat(), "ended": ended.isoformat()}
    if order == 5:
        reason = "NonFiniteLossError: the training loss became nan at step 3 (epoch 1)"
        return TrialRecord(trial=trial, status=Status.FAILED, attempts=1, reason=reason, **times)
    epochs = [
        EpochResult(
            epoch=epoch,
            values={name: final[name] * (0.6 + 0.1 * epoch) for name in EPOCH_METRICS},
            train_loss=1.0 / epoch,
            train_penalty=0.1 * epoch,
            learning_rate=1e-4,
            steps=12,
            train_seconds=5.0,
            seconds=6.0,
            layers={name: 1.0 - (1.0 - final["val_cka"]) * epoch * n / 16 for n, name in enumerate(LAYERS, start=1)},
        )
        for epoch in range(1, EPOCHS + 1)
    ]
    facts: dict[str, object] = {
        "n_train": 360, "n_val": 120, "n_test": 120, "n_probe": 120, "n_classes": 3, "largest_class_fraction": 0.34,
        "smallest_class_fraction": 0.33, "data_hash": "d4", "probe_hash": "9a", "weights_id": "w1",
        "pretraining": "supervised", "skipped_images": [], "duplicates_across_splits": [], "threads": 1, "workers": 1,
        "layers": list(LAYERS), "slot": order % 2, "began": began.timestamp(), "finished": ended.timestamp(),
    }  # fmt: skip
    result = TrialResult(chosen_epoch=EPOCHS, epochs=EPOCHS, values=final, facts=facts)
    return TrialRecord(
        trial=trial, status=Status.COMPLETED, attempts=1, epochs=epochs, result=result, feasible=True, **times
    )


def write_sweep(uri: str, folder: Path) -> None:
    """Search, confirm and record it in the store at ``uri``, artifacts in ``folder``."""
    space = golden_space()
    search = Search(space)
    writer = SweepWriter(uri=uri, space=space, sweep=NAME, provenance=provenance(), command="", artifact_root=folder)
    writer.start()
    order = 0
    while (trial := search.ask()) is not None:
        record = recorded(trial, order)
        values = None if record.result is None else record.result.values
        search.tell(trial, Outcome(status=record.status, values=values, reason=record.reason, n_val=120))
        writer.update(record)
        order += 1
    data = space.data[0]
    reference, ideal, plan = search.reference(data), search.ideal(data), search.confirmation(data)
    if reference is None or ideal is None:
        raise RuntimeError("the golden sweep has no reference point")
    writer.set_reference(data, reference, ideal)
    end = {"end": plan.end.value, "reason": plan.reason, "delta": dict(plan.margins)}
    writer.set_confirmation({data: {**end, "candidates": search.candidates(data)}})
    writer.end("completed")
    writer.close("completed")
