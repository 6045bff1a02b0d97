"""What a backbone can give a penalty: source classifiers, watched layers, and the refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from repsim._torchvision import guard
from repsim.backbones import Backbone, load_backbone
from repsim.config import BackboneConfig, TrialConfig
from repsim.errors import RequestError
from repsim.feed import Feed
from repsim.layers import pooled, stage_widths, watched
from repsim.penalties.checks import check_penalty, needs_of, watched_widths
from repsim.trainer import Trainer
from repsim.weights import build_module, find_source_head, find_weights
from repsim.workspace import Workspace
from tests.trainer.penalty_tools import SOURCE_CLASSES, weights_with_classifier

guard()
import timm  # noqa: E402

Configure = Callable[..., TrialConfig]
CNN, VIT = "test_efficientnet", "test_vit"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def cnn(folder: Path) -> Backbone:
    return load_backbone(BackboneConfig(name=CNN, weights="random"), cache_dir=folder)


@pytest.fixture(scope="module")
def vit(folder: Path) -> Backbone:
    return load_backbone(BackboneConfig(name=VIT, weights="random"), cache_dir=folder)


def config(**flat: object) -> TrialConfig:
    return TrialConfig.from_flat({"backbone": CNN, "backbone.weights": "random"} | flat)


# source classifiers


@pytest.mark.parametrize("name", [CNN, VIT, "test_resnet"])
def test_a_classifier_is_found_under_either_code_base(name: str) -> None:
    whole = timm.create_model(name, num_classes=7).eval()
    module = build_module(name).eval()
    module.load_state_dict({key: value for key, value in whole.state_dict().items() if key in module.state_dict()})
    foreign = {f"m.layer{i}.{key.rpartition('.')[2]}": v for i, (key, v) in enumerate(module.state_dict().items())}
    classifier = {"m._fc.weight": whole.get_classifier().weight, "m._fc.bias": whole.get_classifier().bias}
    images = torch.rand(3, 3, 160, 160)
    for state in (whole.state_dict(), foreign | classifier):
        head = find_source_head(state, module)
        assert head is not None
        assert head.weight.requires_grad is False
        with torch.no_grad():
            logits = nn.functional.linear(module(images), head.weight, head.bias)
            torch.testing.assert_close(logits, whole(images), atol=1e-5, rtol=1e-4)


def test_what_is_no_classifier_is_not_taken_for_one() -> None:
    module = build_module(CNN)
    state = dict(module.state_dict())
    assert find_source_head(state, module) is None
    weight, bias = torch.zeros(7, 256), torch.zeros(7)
    assert find_source_head(state | {"classifier.weight": weight, "classifier.bias": bias}, module) is not None
    assert find_source_head(state | {"classifier.weight": weight[:, :200], "classifier.bias": bias}, module) is None
    assert find_source_head(state | {"classifier.weight": weight}, module) is None
    assert find_source_head(state | {"projection.weight": weight, "projection.bias": bias}, module) is None
    two = {f"{name}.{part}": value for name in ("head", "fc") for part, value in (("weight", weight), ("bias", bias))}
    assert find_source_head(state | two, module) is None


def test_weights_bring_their_classifier_along(folder: Path) -> None:
    path = weights_with_classifier(CNN, folder)
    found = find_weights(BackboneConfig(name=CNN, weights=str(path)), folder)
    assert found.source_head is not None
    assert found.source_head.weight.shape == (SOURCE_CLASSES, 256)
    backbone = load_backbone(BackboneConfig(name=CNN, weights=str(path)), cache_dir=folder)
    assert backbone.source_head is not None
    assert find_weights(BackboneConfig(name=CNN, weights="random"), folder).source_head is None


def test_the_hub_brings_a_classifier_unless_it_was_self_supervised(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    create, asked = timm.create_model, []

    def online(name: str, *, pretrained: bool, num_classes: int) -> object:
        asked.append(num_classes)
        return create(name, pretrained=False, num_classes=num_classes)

    monkeypatch.setattr(timm, "create_model", online)
    found = find_weights(BackboneConfig(name=CNN), folder)
    assert found.source_head is not None
    assert found.source_head.weight.shape == (1000, 256)
    assert asked[-1] == 1000
    assert list(found.state) == list(build_module(CNN).state_dict())
    monkeypatch.setattr("repsim.weights.pretraining_of", lambda tag: "self_supervised")
    assert find_weights(BackboneConfig(name=CNN), folder).source_head is None


def test_a_hub_model_whose_classifier_changes_its_body_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    create, asked = timm.create_model, []

    def online(name: str, *, pretrained: bool, num_classes: int) -> object:
        asked.append(num_classes)
        return create(VIT if num_classes and pretrained else name, pretrained=False, num_classes=num_classes)

    monkeypatch.setattr(timm, "create_model", online)
    found = find_weights(BackboneConfig(name=CNN), folder)
    assert asked[-1] == 0
    assert found.source_head is None


@pytest.mark.parametrize("penalty", ["lwf", "co_tuning"])
def test_no_source_classifier_is_said_with_its_reason(penalty: str, cnn: Backbone) -> None:
    asked = config(method=penalty)
    with pytest.raises(RequestError, match=rf"method: {penalty} needs the classifier .* random weights have none"):
        check_penalty(asked, cnn)
    with pytest.raises(RequestError, match=r"self-supervised weights \(package x\) have none"):
        check_penalty(asked, replace(cnn, pretraining="self_supervised", weights_source="package x"))
    with pytest.raises(RequestError, match=r"none came with its weights \(file y\); allowed: a penalty that needs no"):
        check_penalty(asked, replace(cnn, pretraining="unknown", weights_source="file y"))
    check_penalty(config(method="repsim"), cnn)
    check_penalty(config(method="full"), cnn)


def test_a_trainer_refuses_before_it_trains(configure: Configure, workspace: Workspace) -> None:
    with pytest.raises(RequestError, match="lwf needs the classifier"):
        Trainer(configure(method="lwf"), workspace=workspace)
    with pytest.raises(RequestError, match=r"'blocks\.9' is not a layer of test_efficientnet"):
        Trainer(configure(method="repsim", **{"penalty.layers": "blocks.9"}), workspace=workspace)


# layers


@pytest.mark.parametrize(
    ("method", "layers", "expected"),
    [
        ("repsim", "auto", ["last"]),
        ("repsim", "last", ["last"]),
        ("hcs", "all", ["blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4", "last"]),
        ("rsa", ["blocks.3", "last"], ["blocks.3", "last"]),
        ("rsa", "blocks.3, blocks.1", ["blocks.3", "blocks.1"]),
        ("delta", "auto", ["blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4"]),
        ("delta", "last", ["blocks.4"]),
        ("delta", "blocks.2", ["blocks.2"]),
        ("rift", "auto", []),
        ("full", "auto", []),
    ],
)
def test_layers_are_asked_for_by_name(method: str, layers: object, expected: list[str], cnn: Backbone) -> None:
    asked = config(method=method, **{"penalty.layers": layers})
    check_penalty(asked, cnn)
    widths = watched_widths(asked, cnn)
    assert list(widths) == expected
    assert all(widths[name] == stage_widths(cnn.module).get(name, 256) for name in expected)
    assert ("layers" in needs_of(asked)) == (expected not in ([], ["last"]) and method != "delta")


@pytest.mark.parametrize(
    ("method", "layers", "words"),
    [
        (
            "repsim",
            "block.3",
            r"penalty\.layers: 'block\.3' is not a layer of test_efficientnet; allowed: auto, all, bl",
        ),
        ("repsim", "blocks.30", r"did you mean 'blocks\.3'\?"),
        ("delta", "blocks.1,last", r"penalty\.layers: 'last' is not a layer"),
        (
            "rift",
            "all",
            r"'all' cannot be held by rift, which knows the last features alone; allowed: auto, or one of re",
        ),
        ("l2_sp", "blocks.1", r"'blocks\.1' cannot be held by l2_sp"),
    ],
)
def test_layers_that_cannot_be_held_are_refused(method: str, layers: str, words: str, cnn: Backbone) -> None:
    with pytest.raises(RequestError, match=words):
        check_penalty(config(method=method, **{"penalty.layers": layers}), cnn)


def test_a_backbone_without_stages_is_refused_where_they_are_needed(cnn: Backbone) -> None:
    bare = replace(cnn, module=nn.Identity())
    for method, layers in (("delta", "auto"), ("repsim", "all")):
        with pytest.raises(RequestError, match=r"has no stages that timm names, and (delta|repsim) with '(auto|all)'"):
            check_penalty(config(method=method, **{"penalty.layers": layers}), bare)
    check_penalty(config(method="repsim"), bare)


@pytest.mark.parametrize("layers", ["", "blocks.1,,last", "last,last", "blocks.1, blocks.1"])
def test_layer_names_are_each_said_once(layers: str) -> None:
    with pytest.raises(RequestError, match=r"penalty\.layers: .*allowed: auto, last, all, or layer names, each once"):
        config(method="repsim", **{"penalty.layers": layers})


def test_watched_layers_have_the_widths_timm_says(cnn: Backbone, vit: Backbone) -> None:
    for backbone in (
        cnn,
        vit,
        load_backbone(BackboneConfig(name="test_resnet", weights="random"), cache_dir=Path("x")),
    ):
        widths = stage_widths(backbone.module)
        with watched(backbone.module, list(widths)) as seen, torch.inference_mode():
            backbone.module(torch.rand(2, 3, 160, 160))
        assert {name: output.shape[:2] for name, output in seen.items()} == {n: (2, w) for n, w in widths.items()}
        assert {name: output.shape for name, output in pooled(seen).items()} == {n: (2, w) for n, w in widths.items()}
        with torch.inference_mode():
            before = {name: output.clone() for name, output in seen.items()}
            backbone.module(torch.rand(2, 3, 160, 160))
        assert all(torch.equal(seen[name], before[name]) for name in widths)  # nobody listens any more


def test_tokens_that_are_no_patches_are_left_out(vit: Backbone) -> None:
    images = torch.rand(2, 3, 160, 160)
    with watched(vit.module, ["blocks.2"]) as seen, torch.inference_mode():
        vit.module(images)
    plain = seen["blocks.2"].clone()
    assert plain.shape == (2, 64, 100)

    def prompt(block: nn.Module, inputs: object, tokens: torch.Tensor) -> torch.Tensor:
        return torch.cat([tokens[:, :1], torch.full_like(tokens[:, :7], 9.0), tokens[:, 1:]], dim=1)

    handle = vit.module.get_submodule("blocks.2").register_forward_hook(prompt)
    with watched(vit.module, ["blocks.2"]) as seen, torch.inference_mode():
        vit.module(images)
    handle.remove()
    assert torch.equal(seen["blocks.2"], plain)


def test_channels_last_stages_are_turned() -> None:
    module = nn.Identity()
    module.output_fmt = "NHWC"  # type: ignore[assignment]
    with watched(nn.ModuleDict({"stage": module}), ["stage"]) as seen:
        module(torch.zeros(2, 5, 6, 3))
    assert seen["stage"].shape == (2, 5, 6, 3)  # the wrapper says nothing, so nothing is turned
    wrapper = nn.ModuleDict({"stage": module})
    wrapper.output_fmt = "NHWC"  # type: ignore[assignment]
    with watched(wrapper, ["stage"]) as seen:
        module(torch.zeros(2, 5, 6, 3))
    assert seen["stage"].shape == (2, 3, 5, 6)


# what penalties are fed


def test_cached_layers_are_those_of_the_network_itself(configure: Configure, workspace: Workspace) -> None:
    asked = configure(method="repsim", **{"penalty.layers": "blocks.1,blocks.4"})
    teacher, images = workspace.teacher(asked), workspace.images(asked.data)
    found = teacher.layers(1, ("blocks.1", "blocks.4"))
    batch = workspace.views(asked).augment(images.images[images.train], images.train, 1)
    live = pooled(teacher.maps(batch, ("blocks.1", "blocks.4"), bf16=False))
    for name, width in (("blocks.1", 24), ("blocks.4", 64)):
        assert found[name].shape == (len(images.train), width)
        np.testing.assert_allclose(found[name], live[name].numpy(), atol=1e-5, rtol=1e-4)
    other = teacher.layers(0, ("blocks.1", "blocks.4"))
    assert not np.allclose(found["blocks.1"], other["blocks.1"])


def test_statistics_are_those_of_an_augmented_view(configure: Configure, workspace: Workspace) -> None:
    asked = configure(method="rift")
    teacher = workspace.teacher(asked)
    np.testing.assert_allclose(teacher.statistics().covariance.numpy(), np.cov(teacher.view(0).T), rtol=1e-3, atol=1e-9)
    assert teacher.statistics() is teacher.statistics()


@pytest.mark.parametrize(
    ("method", "layers", "filled"),
    [
        ("repsim", "auto", {"teacher"}),
        ("repsim", "all", {"teacher", "layers"}),
        ("rift", "auto", set()),
        ("l2_sp", "auto", set()),
        ("delta", "auto", {"maps"}),
        ("full", "auto", set()),
    ],
)
def test_a_batch_holds_what_is_needed_and_no_more(
    method: str, layers: str, filled: set[str], configure: Configure, workspace: Workspace
) -> None:
    asked = configure(method=method, **{"penalty.layers": layers})
    trainer = Trainer(asked, workspace=workspace)
    feed = Feed(asked, workspace.backbone(asked), trainer.model, workspace.teacher(asked))
    feed.prepare(0)
    feed.prepare(0)
    images = torch.rand(4, 3, 32, 32)
    with feed.watching() as seen:
        features, _ = trainer.model(images)
    batch = feed.batch(features, torch.zeros(4, dtype=torch.int64), np.arange(4), images, seen)
    assert ({"teacher"} if batch.teacher is not None else set()) | {
        name for name in ("layers", "maps") if getattr(batch, name)
    } == filled
    assert set(batch.layers) == set(batch.teacher_layers)
    assert set(batch.maps) == set(batch.teacher_maps)
    for name, output in batch.maps.items():
        torch.testing.assert_close(output, batch.teacher_maps[name], atol=1e-5, rtol=1e-4)
        assert output.requires_grad
        assert not batch.teacher_maps[name].requires_grad
    assert batch.backbone is trainer.model.backbone
