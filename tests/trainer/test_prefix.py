"""A cached beginning: the same training with less work, only where it is exact, and nothing left behind."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from repsim.adapters import REGISTRY
from repsim.adapters.base import train_only
from repsim.backbones import freeze_batch_norm, has_dropout
from repsim.catalogue import ADAPTERS
from repsim.config import AdapterConfig, TrialConfig
from repsim.fitting import GradientFit
from repsim.model import FineTuned
from repsim.prefix import CachedPrefix, Prefix, find_prefix
from repsim.trainer import Trainer
from repsim.weights import build_module
from repsim.workspace import Workspace
from tests.trainer.stripes import tiny_workspace

Configure = Callable[..., TrialConfig]
BACKBONES = ("test_efficientnet", "test_vit")
SIDE = 64
IN_FRONT = {
    "test_efficientnet": ("blocks.4", ["conv_stem", "bn1", *(f"blocks.{i}" for i in range(4))]),
    "mobilenetv2_100": ("blocks.6", ["conv_stem", "bn1", *(f"blocks.{i}" for i in range(6))]),
    "tf_efficientnet_lite0": ("blocks.6", ["conv_stem", "bn1", *(f"blocks.{i}" for i in range(6))]),
    "resnet18": ("layer4", ["conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3"]),
    "test_convnext": ("stages.3", ["stem", *(f"stages.{i}" for i in range(3))]),
    "test_vit2": (
        "blocks.7",
        ["patch_embed", "pos_drop", "patch_drop", "norm_pre", *(f"blocks.{i}" for i in range(7))],
    ),
}
"""Backbone to the first of the stages that move when one does, and everything that can stand still in front of it."""


def prepared(name: str, stages: int = 1, adapter: str = "partial") -> nn.Module:
    """A backbone with random weights, as the adapter leaves it."""
    model = FineTuned(build_module(name), nn.Identity(), torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)).eval()
    REGISTRY[adapter].prepare(model, AdapterConfig(stages=stages), torch.Generator().manual_seed(0))
    return model.backbone


def boundary(backbone: nn.Module, stages: int = 1) -> str:
    found = REGISTRY["partial"].boundary
    assert found is not None
    return found(backbone, AdapterConfig(stages=stages))


def images(n: int = 3) -> Tensor:
    return torch.rand(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def prefix_of(trainer: Trainer) -> CachedPrefix | None:
    assert isinstance(trainer._fit, GradientFit)
    return trainer._fit._prefix


def trained(config: TrialConfig, workspace: Workspace, *, cached: bool = True) -> Trainer:
    trainer = Trainer(config, workspace=workspace)
    assert isinstance(trainer._fit, GradientFit)
    assert trainer._fit._prefix is not None
    if not cached:
        trainer._fit._prefix = None
    while not trainer.done:
        trainer.step()
    return trainer


def losses(trainer: Trainer) -> list[tuple[float, float | None]]:
    return [(epoch.train_loss, epoch.train_penalty) for epoch in trainer.epochs]


def same_weights(a: Trainer, b: Trainer) -> bool:
    other = b.model.state_dict()
    return all(torch.equal(value, other[name]) for name, value in a.model.state_dict().items())


@contextmanager
def counted(module: nn.Module) -> Iterator[list[str]]:
    """Names of the convolutions and linear layers that are called inside."""
    names: list[str] = []
    layers = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [m.register_forward_hook(lambda *_, n=n: names.append(n)) for n, m in layers]  # type: ignore[misc]
    try:
        yield names
    finally:
        for handle in handles:
            handle.remove()


def test_the_catalogue_and_the_code_agree_on_who_has_a_frozen_beginning() -> None:
    assert {name for name, info in ADAPTERS.items() if info.caches_prefix} == {"partial"}
    assert all((REGISTRY[name].boundary is not None) == info.caches_prefix for name, info in ADAPTERS.items())


@pytest.mark.parametrize("name", IN_FRONT)
def test_the_whole_beginning_stands_still(name: str) -> None:
    backbone = prepared(name)
    expected, skipped = IN_FRONT[name]
    assert boundary(backbone) == expected
    prefix = find_prefix(backbone, expected, images())
    assert prefix is not None
    assert list(prefix.skipped) == skipped
    names = list(backbone.state_dict())
    with torch.no_grad(), counted(backbone) as ran, prefix.given(backbone, torch.rand(2, *prefix.shape)):
        backbone(images(2))
    behind = set(ran) - set(skipped)  # a hook is called even where the layer only hands out zeros
    assert behind
    assert not any(one.startswith(f"{still}.") for one in behind for still in skipped)
    assert list(backbone.state_dict()) == names


def test_more_stages_move_the_boundary_forward() -> None:
    backbone = prepared("test_efficientnet", stages=5)
    assert [boundary(backbone, k) for k in (1, 2, 5)] == ["blocks.4", "blocks.3", "blocks.0"]
    prefix = find_prefix(backbone, "blocks.0", images())
    assert prefix is not None
    assert list(prefix.skipped) == ["conv_stem", "bn1"]


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("method", ["partial", "partial+repsim"])
def test_training_is_the_same_with_and_without(
    method: str, backbone: str, configure: Configure, workspace: Workspace
) -> None:
    """Not bit for bit: the cache was computed in batches of another size, which are summed in another order."""
    config = configure(method=method, backbone=backbone, **{"adapter.stages": 2})
    cached, plain = (trained(config, workspace, cached=cached) for cached in (True, False))
    assert np.array(losses(cached), dtype=float) == pytest.approx(
        np.array(losses(plain), dtype=float), rel=1e-5, abs=1e-5, nan_ok=method == "partial"
    )
    weights = plain.model.state_dict()
    start = Trainer(config, workspace=workspace).model.state_dict()
    for name, value in cached.model.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=1e-5, atol=1e-5)
    assert any(not torch.allclose(value, start[name], rtol=1e-3, atol=1e-3) for name, value in weights.items())


@pytest.mark.parametrize(
    "more", [{"optim.sam": "sam"}, {"optim.average": "swa", "optim.batch_norm": "train"}, {"data.augment": "none"}]
)
def test_wrappers_and_plain_images_change_nothing_about_it(
    more: dict[str, object], configure: Configure, workspace: Workspace
) -> None:
    config = configure(method="partial", **more)
    cached, plain = (trained(config, workspace, cached=cached) for cached in (True, False))
    assert losses(cached) == [(pytest.approx(loss, rel=1e-4), None) for loss, _ in losses(plain)]
    for name, value in cached.model.state_dict().items():  # where a gradient is nearly 0, Adam's step is of any size
        torch.testing.assert_close(value, plain.model.state_dict()[name], rtol=1e-3, atol=2e-4)


def test_a_step_neither_runs_the_beginning_nor_makes_images(
    configure: Configure, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(configure(method="partial"), workspace=workspace)
    fit = trainer._fit
    assert isinstance(fit, GradientFit)
    fit.prepare_epoch(1)
    with counted(trainer.model.backbone) as ran, monkeypatch.context() as patched:
        patched.setattr(fit._views, "augment", None)
        fit.run_epoch(1)
    assert fit._prefix is not None
    behind = set(ran) - set(fit._prefix.prefix.skipped)
    assert behind
    assert all(name.startswith(("blocks.4", "conv_head")) for name in behind)
    with counted(trainer.model.backbone) as ran:
        trainer._outputs("val", trainer.model)
    assert "conv_stem" in ran


def test_other_trials_in_between_and_a_fresh_cache_change_nothing(
    configure: Configure, workspace: Workspace, tmp_path: Path
) -> None:
    a, b = configure(method="partial"), configure(method="partial", seed=1, **{"adapter.stages": 2})
    first, between, again = (trained(config, workspace) for config in (a, b, a))
    assert losses(first) == losses(again) != losses(between)
    fresh = trained(a, tiny_workspace(tmp_path))
    assert losses(fresh) == losses(first)
    assert same_weights(fresh, first)


def test_a_checkpoint_continues_bit_for_bit(configure: Configure, workspace: Workspace) -> None:
    config = configure(method="partial+repsim", **{"optim.epochs": 3})
    interrupted = Trainer(config, workspace=workspace)
    interrupted.step()
    buffer = io.BytesIO()
    torch.save(interrupted.state_dict(), buffer)
    buffer.seek(0)
    resumed = Trainer(config, workspace=workspace)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    while not resumed.done:
        resumed.step()
    whole = trained(config, workspace)
    assert losses(whole) == losses(resumed)
    assert same_weights(whole, resumed)


def test_what_is_cached_is_what_the_boundary_is_given(configure: Configure, workspace: Workspace) -> None:
    config = configure(method="partial")
    teacher, data, views = workspace.teacher(config), workspace.images(config.data), workspace.views(config)
    seen: list[Tensor] = []
    module = workspace.backbone(config).module
    handle = module.get_submodule("blocks.4").register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    rows = data.train[:5]
    with torch.no_grad():
        teacher._model.features(views.augment(data.images[rows], rows, 1))
    handle.remove()
    cached = teacher.inputs(1, "blocks.4")
    assert isinstance(cached, np.memmap)
    assert cached.shape == (30, *seen[0].shape[1:])
    torch.testing.assert_close(torch.from_numpy(np.array(cached[:5])), seen[0], rtol=1e-5, atol=1e-6)
    assert not np.allclose(cached, teacher.inputs(0, "blocks.4"))
    assert not np.array_equal(cached.shape, teacher.inputs(1, "blocks.3").shape)


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("full", {}),
        ("lora", {}),
        ("partial", {"optim.precision": "bf16"}),
        ("partial+repsim", {"penalty.layers": "all"}),
        ("partial+repsim", {"penalty.layers": "blocks.4,last"}),
        ("partial+delta", {}),
    ],
)
def test_elsewhere_every_step_runs_the_whole_network(
    method: str, more: dict[str, object], configure: Configure, workspace: Workspace
) -> None:
    trainer = Trainer(configure(method=method, **more, **{"optim.epochs": 1}), workspace=workspace)
    assert prefix_of(trainer) is None
    with counted(trainer.model.backbone) as ran:
        trainer._fit.run_epoch(1)
    assert "conv_stem" in ran


def test_a_cache_that_would_be_too_large_is_not_made(
    configure: Configure, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(method="partial")
    found = prefix_of(Trainer(config, workspace=workspace))
    assert found is not None
    size = 4 * int(np.prod(found.prefix.shape)) * 30 * config.n_views
    for limit, cached in ((size, True), (size - 1, False)):
        monkeypatch.setattr("repsim.prefix.PREFIX_CACHE_BYTES", limit)
        assert (prefix_of(Trainer(config, workspace=workspace)) is not None) == cached


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_noise_in_front_of_the_boundary_forbids_it(rate: float) -> None:
    backbone = prepared("test_vit2")
    block = backbone.get_submodule("blocks.2.mlp.drop1")
    assert isinstance(block, nn.Dropout)
    block.p = rate
    assert has_dropout(block) == (rate > 0.0)
    assert (find_prefix(backbone, "blocks.7", images()) is None) == (rate > 0.0)
    behind = backbone.get_submodule("blocks.7.mlp.drop1")
    assert isinstance(behind, nn.Dropout)
    behind.p = 0.1
    assert (find_prefix(backbone, "blocks.7", images()) is None) == (rate > 0.0)


def test_batch_norms_that_move_forbid_it() -> None:
    backbone = build_module("test_efficientnet")
    train_only(FineTuned(backbone, nn.Identity(), torch.zeros(1), torch.ones(1)), lambda name: "blocks.4" in name)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    assert find_prefix(backbone, "blocks.4", images()) is None
    freeze_batch_norm(backbone)
    assert find_prefix(backbone, "blocks.4", images()) is not None
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_what_learns_in_front_of_the_boundary_forbids_it() -> None:
    backbone = prepared("test_vit2")
    assert find_prefix(backbone, "blocks.7", images()) is not None
    backbone.get_parameter("pos_embed").requires_grad_(True)
    assert find_prefix(backbone, "blocks.7", images()) is None


class Chain(nn.Module):
    """Two layers in a row, and ways in which the second is not all that the first leads to."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.first.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.first(x)
        if self.kind == "written into":
            found += 1.0
        after: Tensor = self.second(found)
        if self.kind == "twice":
            after = self.second(after)
        if self.kind == "again behind":
            after = self.first(after)
        return after + found if self.kind == "around" else after


@pytest.mark.parametrize(
    ("kind", "possible"),
    [("plain", True), ("around", False), ("twice", False), ("written into", False), ("again behind", False)],
)
def test_only_a_chain_can_be_cut(kind: str, possible: bool) -> None:
    assert (find_prefix(Chain(kind), "second", images()) is not None) == possible


def test_everything_is_as_it_was_after_an_error() -> None:
    backbone = prepared("test_efficientnet")
    with torch.no_grad():
        expected = backbone(images())
    prefix = find_prefix(backbone, "blocks.4", images())
    assert prefix is not None
    own = backbone.get_submodule("blocks.0")
    own.forward = own.forward  # an instance's own forward must come back, too
    kept = own.forward
    with pytest.raises(RuntimeError, match="channels"), prefix.given(backbone, torch.rand(3, 1, 4, 4)):
        backbone(images())
    with pytest.raises(AttributeError, match="missing"), broken(prefix).given(backbone, torch.rand(3, 48, 4, 4)):
        raise AssertionError("not reached")
    assert own.__dict__["forward"] is kept
    assert not any("forward" in m.__dict__ for m in backbone.modules() if m is not own)
    assert not backbone.get_submodule("blocks.4")._forward_pre_hooks
    with torch.no_grad():
        assert torch.equal(backbone(images()), expected)


def broken(prefix: Prefix) -> Prefix:
    return Prefix(
        boundary=prefix.boundary,
        skipped={**prefix.skipped, "missing": (1,)},
        shape=prefix.shape,
        channels_last=prefix.channels_last,
    )


def test_no_view_no_step(configure: Configure, workspace: Workspace) -> None:
    prefix = prefix_of(Trainer(configure(method="partial"), workspace=workspace))
    assert prefix is not None
    with pytest.raises(RuntimeError, match="no view has been prepared"), prefix.given(np.arange(2)):
        raise AssertionError("not reached")
