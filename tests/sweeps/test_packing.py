"""How small a share of a GPU trials get, from what was measured. Numbers alone: no GPU is looked at."""

from __future__ import annotations

import pytest

from repsim.config import TrialConfig
from sweeps.packing import CONTEXT_BYTES, MARGIN, MOST_PER_GPU, Packing, packed_share

GIB = 2**30


@pytest.mark.parametrize(
    ("peak", "gpu", "share"),
    [
        (4 * GIB, 80 * GIB, 1 / 4),  # ten would fit, and would wait for the processor
        (4 * GIB, 24 * GIB, 1 / 3),
        (6 * GIB, 24 * GIB, 1 / 2),
        (10 * GIB, 24 * GIB, 1.0),
        (60 * GIB, 24 * GIB, 1.0),  # it does not fit at all, which a share cannot mend
        (0.0, 24 * GIB, 1 / MOST_PER_GPU),
        (None, 24 * GIB, 1.0),
        (4 * GIB, None, 1.0),
        (None, None, 1.0),
    ],
)
def test_as_many_as_fit_with_a_margin(peak: float | None, gpu: float | None, share: float) -> None:
    assert packed_share(peak, gpu) == share


def test_the_margin_is_kept_at_the_boundary() -> None:
    peak = 4.0 * GIB
    exactly = 2 * (MARGIN * peak + CONTEXT_BYTES)
    assert packed_share(peak, exactly) == 0.5
    assert packed_share(peak, exactly - 1) == 1.0


def config(backbone: str = "resnet18", **keys: object) -> TrialConfig:
    return TrialConfig.from_flat({"backbone": backbone, **{key.replace("__", "."): v for key, v in keys.items()}})


def seen(packing: Packing, peak: float, gpu: object = 24 * GIB, **keys: object) -> None:
    packing.learn(config(**keys), {"peak_memory_bytes": peak}, {} if gpu is None else {"gpu_bytes": gpu})  # type: ignore[arg-type]


def test_what_nobody_has_measured_gets_a_whole_gpu() -> None:
    packing = Packing()
    assert packing.share(config()) == packing.smallest() == 1.0
    seen(packing, 2 * GIB)
    assert packing.share(config()) == 0.25
    assert packing.share(config("vit_large_patch14_clip_224")) == 1.0
    assert packing.smallest() == 0.25


def test_of_one_backbone_the_largest_counts_whatever_the_method() -> None:
    packing = Packing()
    seen(packing, 1 * GIB, method="linear_probe")
    seen(packing, 6 * GIB, method="full")
    seen(packing, 2 * GIB, method="lora")
    assert packing.share(config(method="repsim")) == 0.5


@pytest.mark.parametrize(
    "keys",
    [{"data__image_size": 224}, {"optim__batch_size": 64}, {"optim__precision": "bf16"}, {"optim__sam": "sam"}],
    ids=lambda keys: next(iter(keys)),
)
def test_what_decides_on_memory_is_told_apart(keys: dict[str, object]) -> None:
    packing = Packing()
    seen(packing, 2 * GIB)
    assert packing.share(config(**keys)) == 1.0


def test_of_several_kinds_of_gpus_the_smallest_counts() -> None:
    packing = Packing()
    seen(packing, 6 * GIB, 80 * GIB)
    assert packing.share(config()) == 0.25
    seen(packing, 1 * GIB, 24 * GIB)
    assert packing.share(config()) == 0.5


@pytest.mark.parametrize("gpu", [None, "24 GiB"])
def test_a_trial_on_a_cpu_says_nothing_about_gpus(gpu: object) -> None:
    packing = Packing()
    seen(packing, 2 * GIB, gpu)
    assert packing.share(config()) == 1.0
