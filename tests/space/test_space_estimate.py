"""Estimates: right orders of magnitude, and monotonous in what costs."""

from __future__ import annotations

import pytest

from repsim.catalogue import PREFIX_CACHE_BYTES
from sweeps.estimate import FRONT_MEMBERS, estimate
from sweeps.space import Space, load_space

N = {"phantom:ultrasound": 1000, "phantom:tiny": 100, "folder:x": 10_000}


def seconds(space: Space, slots: int = 2) -> tuple[float, float]:
    found = estimate(space, N, slots)
    assert 0 < found.seconds_low < found.seconds_high
    return found.seconds_low, found.seconds_high


def test_one_run_costs_what_its_steps_cost() -> None:
    # 19 steps of 119 ms, six epochs, and the sharpness: about 18 s on the measured machine
    space = load_space("one_run")
    found = estimate(space, N, 1)
    assert (found.trials, found.epochs) == (1, 6)
    assert 15 < found.seconds_low < 40 < found.seconds_high < 120


def test_more_work_costs_more() -> None:
    base = load_space("pareto")
    for override in ("budget.trials=48", "budget.epochs=20", "data.image_size=128", "data=folder:x"):
        low, high = seconds(load_space("pareto", [override]))
        assert low > seconds(base)[0], override
        assert high > seconds(base)[1], override
    assert seconds(base, slots=8)[1] < seconds(base)[1]
    assert seconds(load_space("pareto", ["method=linear_probe"]))[0] < seconds(base)[0] / 1.5
    two = load_space("pareto", data=["phantom:ultrasound", "phantom:tiny"])
    assert estimate(two, N, 2).trials == 48
    assert estimate(two, N, 2).run_bytes > estimate(base, N, 2).run_bytes


def test_searched_numbers_widen_the_range() -> None:
    base = seconds(load_space("pareto", ["data.image_size=64"]))
    wide = seconds(load_space("pareto", ["space.data.image_size=[32, 128]"]))
    assert wide[0] < base[0] < base[1] < wide[1]
    unknown = seconds(load_space("pareto", ["backbone=resnet50"]))
    assert unknown[1] / unknown[0] > base[1] / base[0], "an unknown backbone is a wider guess"


def test_methods_and_wrappers_cost_what_the_catalogue_says() -> None:
    plain = seconds(load_space("one_run", ["method=full"]))
    penalised = seconds(load_space("one_run", ["method=l2_sp"]))
    with_teacher = seconds(load_space("one_run", ["method=delta"]))
    assert plain[0] < penalised[0] < with_teacher[0]
    assert seconds(load_space("one_run", ["method=lp_ft"]))[0] > plain[0], "a probe comes first"
    assert seconds(load_space("one_run", ["method=partial"]))[0] < plain[0]
    average = seconds(load_space("one_run", ["method=full", "optim.average=ema"]))
    assert average == plain


def test_sharpness_aware_steps_cost_double() -> None:
    plain, sam = (
        load_space("one_run", ["method=full", f"optim.sam={kind}", "budget.epochs=200"]) for kind in ("none", "sam")
    )
    assert seconds(sam)[0] == pytest.approx(2 * seconds(plain)[0], rel=0.1)
    searched = seconds(load_space("pareto", ["space.optim.sam=[none, sam]"]))
    assert searched[0] == seconds(load_space("pareto"))[0]
    assert searched[1] > 1.5 * seconds(load_space("pareto"))[1]


def test_more_measures_take_more_time() -> None:
    plain = seconds(load_space("one_run"))
    sharp = seconds(load_space("one_run", ["measure.sharpness=full"]))
    assert sharp[0] > plain[0] + 40, "minutes on a CPU"
    for key in ("measure.similarity", "measure.quality"):
        more = seconds(load_space("one_run", [f"{key}=full"]))
        assert plain[0] < more[0] < sharp[0]
    assert seconds(load_space("one_run", ["measure.sharpness=standard"])) == plain


def test_hours_end_a_search() -> None:
    short = load_space("pareto", ["budget.hours=0.01", "budget.trials=1000"])
    assert seconds(short)[1] < 36 + 30


def test_views_and_fractions_count() -> None:
    base = load_space("pareto")
    plain = load_space("pareto", ["data.augment=none"])
    assert estimate(plain, N, 2).cache_bytes < estimate(base, N, 2).cache_bytes
    assert seconds(load_space("pareto", ["data.fractions=[0.2, 0.4, 0.4]"]))[1] < seconds(base)[1]


def test_a_frozen_beginning_takes_disk_up_to_its_limit() -> None:
    def cache(method: str, *more: str, images: int = 1000) -> int:
        space = load_space("pareto", [f"method={method}", *more])
        return estimate(space, {"phantom:ultrasound": images}, 2).cache_bytes

    one = cache("partial") - cache("full")
    assert one > 1e6
    assert cache("partial+repsim") == cache("partial")
    assert cache("partial", "data.views=1") - cache("full", "data.views=1") == pytest.approx(one / 12, rel=1e-3)
    assert cache("partial", "space.adapter.stages=[1, 3]") - cache("full") == pytest.approx(3 * one, rel=1e-3)
    many = 10_000_000
    backbones = len(load_space("pareto").values("backbone"))
    assert cache("partial", images=many) - cache("full", images=many) == backbones * PREFIX_CACHE_BYTES


def test_models_of_the_front_take_disk_and_all_of_them_until_fresh_seeds_have_told() -> None:
    def models(*overrides: str, trials: int = 24, parameters: int = 1_000_000) -> int:
        space = load_space("pareto", overrides, trials=trials)
        found = estimate(space, N, 2, parameters=parameters)
        assert 0 <= found.model_bytes < found.run_bytes
        return found.model_bytes

    plain = models()
    assert plain == (2 * FRONT_MEMBERS + 2) * 4_000_000, "in the run folder, in MLflow, and two just made"
    assert models(trials=1000) == plain
    assert models(parameters=2_000_000) == 2 * plain
    assert models(trials=4) == (2 * 4 + 2) * 4_000_000
    assert models("confirm.seeds=3") == (24 + FRONT_MEMBERS + 2) * 4_000_000
    assert models("measure.wise=true") > plain, "both ends of the line are kept"
    assert models("resources.models=none") == models("resources.models=none", "confirm.seeds=3") == 0


def test_lines() -> None:
    lines = estimate(load_space("pareto"), N, 2).lines()
    assert lines[:2] == ("trials: 24", "epochs: at most 144")
    assert lines[2].startswith("disk: about ")
    assert lines[2].endswith(" MB models of the front")
    assert "models" not in estimate(load_space("pareto", ["resources.models=none"]), N, 2).lines()[2]
    assert " min" in lines[3]
    long = estimate(load_space("pareto", ["budget.trials=9000", "data=folder:x"]), N, 1).lines()
    assert " h" in long[3]
    assert " GB" in long[2]


def test_refusals() -> None:
    with pytest.raises(ValueError, match="at least one slot, not 0"):
        estimate(load_space("pareto"), N, 0)
    with pytest.raises(KeyError, match="phantom:ultrasound"):
        estimate(load_space("pareto"), {}, 1)
