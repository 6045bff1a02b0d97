"""Arriving at a similarity that was asked for: the law, the control points, the trial, and its spelling."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from repsim.config import ADDING, FLAT_KEYS, OptimConfig, Target, TrialConfig, load_config
from repsim.data.dataset import ImageSet
from repsim.errors import RequestError
from repsim.records import FACTS
from repsim.targeting import FEWEST, MOST, POINTS, REACH, Steering, StrengthControl, control_images, control_steps
from repsim.trainer import Trainer, train
from repsim.workspace import Workspace

Configure = Callable[..., TrialConfig]
RANGE = (0.03, 30.0)
ASKED: dict[str, object] = {"method": "repsim", "strength.target_cka": 0.9}


def simulate(steering: Steering, slope: float, offset: float, *, lag: float = 2.0, points: int = POINTS - 1) -> float:
    """The CKA after so many control points on features whose logit follows ``offset + slope log λ`` with a lag."""
    share, cka = 1 - math.exp(-1 / lag), 1.0
    for _ in range(points):
        arrives = 1 / (1 + math.exp(-(offset + slope * math.log(steering.strength))))
        cka += share * (arrives - cka)
        steering.see(cka)
    return cka


@pytest.mark.parametrize("target", [0.5, 0.7, 0.9, 0.95])
@pytest.mark.parametrize(("slope", "offset"), [(1.2, 2.4), (0.8, 1.4), (1.0, 0.5)])
def test_lagging_features_arrive_at_the_target(target: float, slope: float, offset: float) -> None:
    steering = Steering(target, *RANGE)
    cka = simulate(steering, slope, offset)
    assert cka == pytest.approx(target, abs=0.03)
    assert steering.outcome(cka) == ("reached", f"control cka {cka:.3f}")


def test_a_lambda_that_stays_where_it_starts_does_not_arrive() -> None:
    """The negative half: it is the control that brings the features there."""

    class Still(Steering):
        def see(self, cka: float, decay: float = 0.0) -> None:
            pass

    assert abs(simulate(Still(0.9, *RANGE), 0.8, 0.4) - 0.9) > 0.05
    assert abs(simulate(Steering(0.9, *RANGE), 0.8, 0.4) - 0.9) < 0.03


def test_a_target_below_what_is_there_anyway_does_not_bind() -> None:
    steering = Steering(0.5, *RANGE)
    for _ in range(POINTS):
        steering.see(0.95)
    assert steering.strength == pytest.approx(RANGE[0] / REACH)
    outcome, reason = steering.outcome(0.95)
    assert outcome == "not binding"
    assert reason == "control cka 0.950 at λ 0.003: above the target even where the penalty hardly acts"


def test_a_target_out_of_reach_is_said_so() -> None:
    steering = Steering(0.9, *RANGE)
    for _ in range(POINTS):
        steering.see(0.3)
    assert steering.strength == pytest.approx(RANGE[1] * REACH)
    outcome, reason = steering.outcome(0.3)
    assert outcome == "not reached"
    assert reason.endswith("below the target even where the penalty rules")


@pytest.mark.parametrize(("cka", "why"), [(1.0, "had moved that far"), (0.5, "had come back")])
def test_too_short_a_training_is_not_taken_for_an_end_of_the_range(cka: float, why: str) -> None:
    steering = Steering(0.8, *RANGE)
    steering.see(cka)
    outcome, reason = steering.outcome(cka)
    assert outcome == "not reached"
    assert reason.endswith(why)


def test_the_first_point_only_looks_and_the_next_ones_move_towards_the_target() -> None:
    for cka, sign in ((0.95, -1), (0.6, 1)):
        steering = Steering(0.8, *RANGE)
        start = steering.strength
        steering.see(cka)
        assert steering.strength == start
        steering.see(cka)
        assert np.sign(steering.strength - start) == sign


def test_features_on_their_way_to_the_target_are_left_alone() -> None:
    """Falling towards it, they would be pulled past it by a law that only sees where they are."""
    falling, resting = Steering(0.7, *RANGE), Steering(0.7, *RANGE)
    for one, two in ((0.95, 0.85), (0.85, 0.85)):
        falling.see(one)
        resting.see(two)
    assert resting.strength < falling.strength


def test_what_the_decay_of_the_learning_rate_gives_back_is_not_asked_for() -> None:
    early, late = Steering(0.8, *RANGE), Steering(0.8, *RANGE)
    for _ in range(2):
        early.see(0.78, 0.9)
        late.see(0.78, 0.0)
    assert early.strength < late.strength


def test_a_higher_target_starts_at_a_larger_lambda_inside_the_reach() -> None:
    starts = [Steering(target, *RANGE).strength for target in (0.01, 0.5, 0.7, 0.9, 0.999)]
    assert starts == sorted(starts)
    assert starts[3] == pytest.approx(math.sqrt(RANGE[0] * RANGE[1]))
    assert starts[0] == pytest.approx(RANGE[0] / REACH), "the odds of 0.01 would ask for less"


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_control_points_follow_the_learning_rate(schedule: str) -> None:
    optim = OptimConfig.model_validate({"schedule": schedule})
    steps = sorted(control_steps(1000, optim))
    assert len(steps) == POINTS - 1
    assert steps[-1] < 999
    gaps = np.diff(steps)
    if schedule == "cosine":
        assert gaps[-1] > 1.5 * gaps.min()
    else:
        assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("n_steps", [1, 2, 5, POINTS, 40])
def test_short_trainings_have_fewer_points_and_none_after_the_last_step(n_steps: int) -> None:
    steps = control_steps(n_steps, OptimConfig())
    assert steps <= set(range(n_steps - 1))
    assert len(steps) == min(n_steps - 1, POINTS - 1) or n_steps in (POINTS, 40)


def make_images(n: int) -> ImageSet:
    labels = np.arange(n) % 4 // 3  # three to one
    everything = np.arange(n)
    return ImageSet(
        images=np.zeros((n, 1, 1, 3), np.uint8),
        labels=labels,
        names=tuple(map(str, everything)),
        classes=("a", "b"),
        train=everything[: n - 8],
        val=everything[n - 8 : n - 4],
        test=everything[n - 4 :],
        hashes=("",) * n,
        data_hash="",
        skipped=(),
        duplicates=(),
    )


def test_control_images_are_stratified_training_images_of_bounded_number() -> None:
    images = make_images(4008)
    few, more = control_images(images, 1, 0), control_images(images, 100, 0)
    assert (len(few), len(more)) == (FEWEST, MOST)
    for chosen in (few, more):
        assert set(chosen) <= set(images.train)
        assert len(set(chosen)) == len(chosen)
        assert images.labels[chosen].mean() == pytest.approx(0.25, abs=0.01)
    assert np.array_equal(few, control_images(images, 1, 0))
    assert not np.array_equal(few, control_images(images, 1, 1))
    assert np.array_equal(control_images(make_images(68), 1, 0), np.arange(60))


def test_a_trial_steers_lambda_and_says_how_it_went(configure: Configure, workspace: Workspace) -> None:
    trainer = Trainer(configure(**ASKED, **{"optim.lr": 0.003}), workspace=workspace)
    while not trainer.done:
        trainer.step()
    facts = trainer.finish().facts
    assert set(facts) <= set(FACTS)
    assert facts["target_outcome"] in ("reached", "not binding", "not reached")
    assert facts["strength_final"] != pytest.approx(Steering(0.9, *RANGE).strength)
    assert facts["n_control"] == len(trainer._images.train)
    plain = train(configure(method="repsim"), workspace=workspace).facts
    assert not {"target_outcome", "target_reason", "strength_final", "control_cka", "n_control"} & set(plain)


def test_resuming_a_steered_trial_is_bit_exact(configure: Configure, workspace: Workspace) -> None:
    config = configure(**ASKED, **{"optim.epochs": 3, "optim.lr": 0.003})
    straight, first = (Trainer(config, workspace=workspace) for _ in range(2))
    for _ in range(3):
        straight.step()
    first.step()
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    second = Trainer(config, workspace=workspace)
    second.load_state_dict(torch.load(buffer, weights_only=True))
    while not second.done:
        second.step()
    assert [e.train_loss for e in second.epochs] == [e.train_loss for e in straight.epochs]
    assert second._fit.facts() == straight._fit.facts()
    for one, two in zip(second.model.parameters(), straight.model.parameters(), strict=True):
        assert torch.equal(one, two)
    forgetful = Trainer(config, workspace=workspace)
    state = first.state_dict()
    fresh = Trainer(config, workspace=workspace).state_dict()
    state["fit"] = {**state["fit"], "control": fresh["fit"]["control"]}  # type: ignore[dict-item, index]
    forgetful.load_state_dict(state)
    forgetful.step()
    assert forgetful.epochs[-1].train_loss != straight.epochs[1].train_loss, "λ's state must matter"


def test_looking_disturbs_nothing(configure: Configure, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """With λ held still, a steered trial is the plain one, bit for bit."""
    plain = Trainer(configure(method="repsim", strength=Steering(0.9, *RANGE).strength), workspace=workspace)
    before = plain.step().train_loss
    seen: list[float] = []
    monkeypatch.setattr(Steering, "see", lambda self, cka, decay=0.0: seen.append(cka))
    held = Trainer(configure(**ASKED), workspace=workspace)
    assert held.step().train_loss == before
    assert seen
    assert all(0.0 < cka <= 1.0 for cka in seen)
    monkeypatch.undo()
    steered = Trainer(configure(**ASKED), workspace=workspace)
    assert steered.step().train_loss != before


def test_steering_needs_a_penalty(configure: Configure, workspace: Workspace) -> None:
    trainer = Trainer(configure(method="full"), workspace=workspace)
    with pytest.raises(ValueError, match="no strength to steer without a penalty"):
        StrengthControl(trainer.config, 0.9, trainer.model, trainer._images, trainer._teacher, 10)


def test_both_spellings_of_a_target_are_one(tmp_path: Path) -> None:
    flat = TrialConfig.from_flat(ASKED)
    assert flat.strength == Target(target_cka=0.9)
    assert (flat.target_cka, flat.strength_words) == (0.9, "cka→0.9")
    assert TrialConfig.model_validate({"method": "repsim", "strength": {"target_cka": 0.9}}) == flat
    written = flat.flat()
    assert tuple(written) == FLAT_KEYS
    assert (written["strength"], written["strength.target_cka"]) == (None, 0.9)
    again = TrialConfig.from_flat(json.loads(json.dumps(written)))
    assert (again, again.config_id) == (flat, flat.config_id)
    path = tmp_path / "trial.yaml"
    path.write_text("method: repsim\nstrength: {target_cka: 0.9}\n")
    assert load_config(path) == flat
    number = TrialConfig.from_flat({"method": "repsim", "strength": 3})
    assert (number.target_cka, number.strength_words) == (None, "λ=3")
    assert (number.flat()["strength"], number.flat()["strength.target_cka"]) == (3.0, None)
    assert TrialConfig().strength_words == ""


def test_names_of_configurations_without_a_target_do_not_know_of_targets() -> None:
    flats: list[dict[str, object]] = [{}, {"method": "repsim"}, {"method": "lora+hcs", "strength": 3}]
    unnamed = ("seed", "strength.target_cka", "wise_alpha", *ADDING)  # came later, or name nothing
    for flat in flats:
        config = TrialConfig.from_flat({**flat, "strength.target_cka": None})
        known = {key: value for key, value in config.flat().items() if key not in unnamed}
        text = json.dumps(known, sort_keys=True, separators=(",", ":"))
        assert config.config_id == hashlib.sha256(text.encode()).hexdigest()[:12]
    asked: list[dict[str, object]] = [{**ASKED, "strength.target_cka": 0.8}, ASKED, {"method": "repsim"}]
    assert len({TrialConfig.from_flat(flat).config_id for flat in asked}) == 3


@pytest.mark.parametrize(
    ("flat", "words"),
    [
        (
            {**ASKED, "strength": 1.0},
            r"strength\.target_cka: 0\.9 is asked for, and strength 1\.0 too; allowed: .*",
        ),
        ({**ASKED, "method": "full"}, r"strength\.target_cka is 0\.9, but method 'full' has no penalty; leave it out"),
        ({**ASKED, "strength.target_cka": 1.0}, r"strength\.target_cka: 1\.0 is not allowed; allowed: less than 1"),
        ({**ASKED, "strength.target_cka": 0.0}, r"strength\.target_cka: 0\.0 is not allowed; allowed: greater than 0"),
        ({**ASKED, "strength.target_cka": "a"}, r"strength\.target_cka: 'a' is not allowed; allowed: a valid number"),
        ({"method": "repsim", "strength": "a"}, r"strength: 'a' is not allowed; allowed: a valid number"),
        ({"method": "repsim", "strength.target": 0.9}, r".*; did you mean 'strength\.target_cka'\?"),
    ],
)
def test_a_wrong_target_is_one_line(flat: dict[str, object], words: str) -> None:
    with pytest.raises(RequestError, match=rf"^f: {words}$") as caught:
        TrialConfig.from_flat(flat, where="f")
    assert len(caught.value.mistakes) == 1
