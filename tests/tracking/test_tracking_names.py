"""What trials are called: by method, strength or the point asked for, and backbone."""

from __future__ import annotations

from dataclasses import replace

from tracking_samples import trial

from repsim.config import TrialConfig
from sweeps.tracking_rows import describe


def test_a_trial_is_told_apart_by_its_weight_or_the_point_it_was_asked_for() -> None:
    weighed, plain = trial(1), trial(2, "full", None)
    asked = replace(weighed, config=TrialConfig.from_flat({"method": "repsim", "strength.target_cka": 0.9}))
    assert describe(weighed) == "repsim λ=1.2 tf_efficientnet_lite0"
    assert describe(plain) == "full tf_efficientnet_lite0"
    assert describe(asked) == "repsim cka→0.9 tf_efficientnet_lite0"
