"""The trainer's own promises: stopping before harm, choosing an epoch, refusing what makes no sense."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from repsim.config import TrialConfig
from repsim.errors import NonFiniteLossError, RequestError
from repsim.records import Objective
from repsim.trainer import Trainer, check_splits, train
from repsim.workspace import Workspace

Configure = Callable[..., TrialConfig]


def test_a_loss_that_is_not_finite_stops_before_the_step(configure: Configure, workspace: Workspace) -> None:
    trainer = Trainer(configure(method="repsim"), workspace=workspace)
    with torch.no_grad():
        trainer.model.head.weight.fill_(float("inf"))  # type: ignore[operator, union-attr]
    before = {name: value.clone() for name, value in trainer.model.backbone.state_dict().items()}
    with pytest.raises(NonFiniteLossError, match=r"became (nan|inf) at step 1 \(epoch 1\)"):
        trainer.step()
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.backbone.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "spoilt_pass", "where"),
    [
        ({}, 1, "step 1"),
        ({}, 2, "step 2"),
        ({"optim.clip_norm": 1.0}, 1, "step 1"),
        ({"optim.sam": "sam"}, 1, "step 1"),
        ({"optim.sam": "sam"}, 2, "the worst neighbour of step 1"),
    ],
)
@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_stops_before_the_step(
    changes: dict[str, object], spoilt_pass: int, where: str, factor: float, configure: Configure, workspace: Workspace
) -> None:
    trainer = Trainer(configure(method="repsim", **changes), workspace=workspace)
    passes = 0
    before: dict[str, torch.Tensor] = {}

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        nonlocal passes
        passes += 1
        if passes != spoilt_pass:
            return gradient
        return torch.full_like(gradient, factor)

    weight = next(p for p in trainer.model.backbone.parameters() if p.requires_grad)
    weight.register_hook(spoil)  # type: ignore[no-untyped-call]
    if where == "step 1":
        before = {name: value.clone() for name, value in trainer.model.backbone.state_dict().items()}
    with pytest.raises(NonFiniteLossError, match=rf"the gradient's norm became (nan|inf) at {where} \(epoch 1\)"):
        trainer.step()
    after = trainer.model.backbone.state_dict()
    assert all(bool(torch.isfinite(value).all()) for value in after.values())
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_best_epoch_is_kept(configure: Configure, workspace: Workspace) -> None:
    config = configure(
        method="full", checkpoint="best", **{"optim.epochs": 4, "optim.lr": 0.02, "optim.schedule": "constant"}
    )
    lowest = Trainer(config, workspace=workspace, best_by=Objective(metric="val_cka", direction="maximize"))
    while not lowest.done:
        lowest.step()
    result = lowest.finish()
    by_epoch = {epoch.epoch: epoch.values["val_cka"] for epoch in lowest.epochs}
    assert result.chosen_epoch == max(by_epoch, key=lambda epoch: (by_epoch[epoch], -epoch))
    assert result.values["val_cka"] == by_epoch[result.chosen_epoch]
    last = train(
        configure(method="full", **{"optim.epochs": 4, "optim.lr": 0.02, "optim.schedule": "constant"}),
        workspace=workspace,
    )
    assert last.chosen_epoch == 4
    assert result.chosen_epoch != 4
    assert result.values["test_cka"] != last.values["test_cka"]


def test_more_steps_than_epochs_and_fewer_are_refused(configure: Configure, workspace: Workspace) -> None:
    trainer = Trainer(configure(method="linear_probe"), workspace=workspace)
    with pytest.raises(RuntimeError, match="only 0 of 1 epochs have run"):
        trainer.finish()
    trainer.step()
    with pytest.raises(RuntimeError, match="all 1 epochs have run"):
        trainer.step()


def test_a_checkpoint_of_another_configuration_is_refused(configure: Configure, workspace: Workspace) -> None:
    one, other = (Trainer(configure(seed=seed), workspace=workspace) for seed in (0, 1))
    with pytest.raises(ValueError, match="belongs to another configuration"):
        other.load_state_dict(one.state_dict())


def test_splits_too_small_for_similarity_are_refused(configure: Configure) -> None:
    config = configure(method="repsim")
    check_splits(config, {"train": 4, "val": 4, "test": 4})
    with pytest.raises(RequestError, match=r"train split: holds 3 images; allowed: at least 4"):
        check_splits(config, {"train": 3, "val": 4, "test": 4})
    check_splits(configure(method="full"), {"train": 3, "val": 4, "test": 4})
    with pytest.raises(RequestError, match="val split"):
        check_splits(config, {"train": 4, "val": 3, "test": 4})


def test_frozen_batch_norm_makes_similarity_one_at_step_zero(configure: Configure, workspace: Workspace) -> None:
    """Otherwise the student would use other statistics than the teacher from the first batch on."""
    for batch_norm, kept in (("frozen", True), ("train", False)):
        trainer = Trainer(
            configure(method="repsim", **{"optim.batch_norm": batch_norm, "optim.lr": 1e-12}), workspace=workspace
        )
        first = trainer.step()
        assert first.train_penalty is not None
        assert (first.train_penalty < 1e-5) == kept


def test_bf16_trains_and_differs(configure: Configure, workspace: Workspace) -> None:
    plain, cast = (
        train(configure(method="repsim", **{"optim.precision": p}), workspace=workspace) for p in ("fp32", "bf16")
    )
    assert plain.values["val_nll"] != cast.values["val_nll"]
    assert plain.values["val_nll"] == pytest.approx(cast.values["val_nll"], rel=0.2)


def test_class_weights_change_the_fit(
    configure: Configure, workspace: Workspace, tmp_path: Path, image_folder: Path
) -> None:
    lopsided = tmp_path / "lopsided"
    for folder in sorted(image_folder.iterdir()):
        (lopsided / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[: 5 if folder.name == "fine" else None]:
            (lopsided / folder.name / path.name).symlink_to(path)
    for method in ("full", "linear_probe"):
        plain, weighted = (
            train(configure(method=method, data=str(lopsided), **{"data.class_weights": w}), workspace=workspace)
            for w in ("none", "balanced")
        )
        assert plain.values["val_nll"] != weighted.values["val_nll"]


_RUN = """
import json, sys, torch
from pathlib import Path
from repsim.config import TrialConfig
from repsim.trainer import train
from repsim.workspace import Workspace
torch.set_num_threads(1)
workspace = Workspace(cache_dir=Path(sys.argv[1]), device=torch.device("cpu"))
for flat in json.loads(sys.argv[2]):
    result = train(TrialConfig.from_flat(flat), workspace=workspace)
    print(json.dumps({k: v for k, v in result.values.items() if "second" not in k and k != "peak_memory_bytes"}))
"""


def in_a_fresh_process(cache: Path, flats: list[Mapping[str, object]]) -> list[dict[str, float]]:
    command = [sys.executable, "-W", "error", "-c", _RUN, str(cache), json.dumps(flats)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_b_a_in_one_process_equals_fresh_processes(configure: Configure, tmp_path: Path) -> None:
    a = configure(method="repsim").flat()
    b = configure(method="hcs", seed=3, **{"optim.lr": 0.003}).flat()
    first, second, third = in_a_fresh_process(tmp_path, [a, b, a])
    (alone,) = in_a_fresh_process(tmp_path, [b])
    assert first == third
    assert second == alone
    assert first != second


def test_golden_losses(configure: Configure, workspace: Workspace) -> None:
    """Origin: this code, torch 2.13.0, one CPU thread. A refactor must not move them; a new computation says so."""
    golden = json.loads((Path(__file__).parent / "golden_losses.json").read_text())
    assert set(golden) == {"full", "repsim", "hcs", "feature_mse"}
    for method, losses in golden.items():
        trainer = Trainer(configure(method=method, **{"optim.epochs": 3}), workspace=workspace)
        measured = [trainer.step().train_loss for _ in range(3)]
        assert measured == pytest.approx(losses, rel=1e-3), method
