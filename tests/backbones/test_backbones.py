from __future__ import annotations

import copy
import io
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from repsim.backbones import Backbone, check_backbone_name, freeze_batch_norm, load_backbone, normalise
from repsim.catalogue import PACKAGED_WEIGHTS
from repsim.config import BackboneConfig
from repsim.errors import RequestError
from repsim.weight_wheels import fetched_file
from repsim.weights import _installed_file, match_tensors, read_checkpoint

TINY = "test_resnet"  # as in conftest.py
# Features of the pattern below: mean, standard deviation, largest value and its place. Computed with torch 2.13.0 on a
# CPU in float32, after each model with its own classifier had named the palace in the photograph further down
# (resnet50 has no classifier; there the first tensor names matched one to one).
GOLDENS = {
    "tf_efficientnet_lite0": (0.422627, 1.025308, 5.882845, 1190),
    "mobilenetv2_100": (0.506511, 0.776206, 4.176046, 130),
    "tf_efficientnet_lite1": (0.474582, 1.095362, 6.000000, 298),
    "tf_efficientnet_lite2": (0.378184, 0.937147, 5.708637, 1098),
    "resnet50": (1.028324, 1.103457, 7.271039, 286),
}
FOR_ANY_SIZE = [name for name, entry in PACKAGED_WEIGHTS.items() if entry.patch is None]  # test_onnx_weights.py: others
PALACE = 698  # index of "palace" among the 1000 ImageNet classes


def checkpoint(name: str, cache: Path) -> Path:
    entry = PACKAGED_WEIGHTS[name]
    path = _installed_file(entry)
    if path is None and entry.fetch:
        path = fetched_file(entry, cache / "weights")
    if path is None:
        assert entry.extra is not None, f"{entry.distribution} is an ordinary dependency"
        pytest.skip(f"the {entry.extra} extra is not installed")
    return path


def pattern() -> Tensor:
    """A smooth synthetic image (1, 3, 96, 96) in [0, 1]."""
    y, x = np.meshgrid(np.arange(96), np.arange(96), indexing="ij")
    planes = [0.5 + 0.5 * np.sin(2 * np.pi * x / 32), y / 95, 0.5 + 0.5 * np.cos(2 * np.pi * (x + y) / 48)]
    return torch.from_numpy(np.stack(planes).astype(np.float32))[None]


def photograph() -> Tensor:
    """A Chinese palace from scikit-learn's samples, cut square, (1, 3, 224, 224) in [0, 1]."""
    pixels = torch.from_numpy(load_sample_image("china.jpg").astype(np.float32) / 255).permute(2, 0, 1)[None]
    height, width = pixels.shape[-2:]
    left = (width - height) // 2
    square = pixels[..., left : left + height]
    return nn.functional.interpolate(square, size=(224, 224), mode="bilinear", antialias=True)


def pattern_features(backbone: Backbone) -> NDArray[np.float64]:
    with torch.inference_mode():
        features: NDArray[np.float64] = backbone.module(normalise(pattern(), backbone)).double().numpy()[0]
    return features


def is_golden(features: NDArray[np.float64], name: str) -> bool:
    mean, std, largest, place = GOLDENS[name]
    found = [features.mean(), features.std(), features[place]]
    return np.allclose(found, [mean, std, largest], rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", FOR_ANY_SIZE)
def test_packaged_weights_give_the_known_features(name: str, fetched: Path) -> None:
    checkpoint(name, fetched)
    entry = PACKAGED_WEIGHTS[name]
    backbone = load_backbone(BackboneConfig(name=name), cache_dir=fetched)
    features = pattern_features(backbone)
    assert features.shape == (backbone.dim,)
    assert is_golden(features, name)
    assert (backbone.mean, backbone.std, backbone.pretraining) == (entry.mean, entry.std, entry.pretraining)
    assert backbone.weights_id == entry.sha256[:16]
    assert backbone.weights_source == f"package {entry.distribution} {entry.version}"


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv2_100"])
def test_two_tensors_of_one_shape_in_the_wrong_order_are_noticed(name: str, fetched: Path, tmp_path: Path) -> None:
    state = read_checkpoint(checkpoint(name, fetched))
    names = [key for key, tensor in state.items() if tensor.shape == (32,)]
    state[names[0]], state[names[1]] = state[names[1]], state[names[0]]
    torch.save(state, tmp_path / "swapped.pth")
    backbone = load_backbone(BackboneConfig(name=name, weights=str(tmp_path / "swapped.pth")), cache_dir=fetched)
    assert not is_golden(pattern_features(backbone), name)


@pytest.mark.parametrize("name", [name for name in FOR_ANY_SIZE if name != "resnet50"])
def test_with_its_own_classifier_the_backbone_knows_a_palace(name: str, fetched: Path) -> None:
    state = read_checkpoint(checkpoint(name, fetched))
    whole = timm.create_model(name, num_classes=1000).eval()
    matched, by_order = match_tensors(state, whole.state_dict(), where=name)
    whole.load_state_dict(matched)
    backbone = load_backbone(BackboneConfig(name=name), cache_dir=fetched)
    image = normalise(photograph(), backbone)
    with torch.inference_mode():
        probabilities = whole(image).softmax(1)[0]
        own = whole.get_classifier()(backbone.module(image)).softmax(1)[0]
    assert by_order
    assert int(probabilities.argmax()) == PALACE
    assert float(probabilities[PALACE]) > 0.25
    torch.testing.assert_close(own, probabilities, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    return load_backbone(BackboneConfig(name=TINY, weights="random"), cache_dir=Path("unused"))


def test_a_loaded_backbone_is_ready_to_measure(tiny: Backbone) -> None:
    assert not tiny.module.training
    assert tiny.module(torch.zeros(2, 3, 64, 64)).shape == (2, tiny.dim)
    kernels = [parameter for parameter in tiny.module.parameters() if parameter.ndim == 4 and parameter.shape[-1] > 1]
    assert kernels
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)


@pytest.mark.parametrize("name", [TINY, "test_vit", "test_efficientnet", "mobilenetv3_small_050"])
def test_the_width_is_that_of_the_features(name: str) -> None:
    backbone = load_backbone(BackboneConfig(name=name, weights="random"), cache_dir=Path("unused"))
    with torch.inference_mode():
        assert backbone.module(torch.zeros(2, 3, 160, 160)).shape == (2, backbone.dim)


def test_no_dropout_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def noisy(name: str, **settings: object) -> object:
        return create(name, drop_rate=0.5, drop_path_rate=0.5, **settings)

    monkeypatch.setattr(timm, "create_model", noisy)
    images = torch.rand(4, 3, 160, 160)
    for name in ("test_vit", "test_efficientnet", TINY):
        module = load_backbone(BackboneConfig(name=name, weights="random"), cache_dir=Path("unused")).module
        module.train()
        freeze_batch_norm(module)
        with torch.inference_mode():
            assert torch.equal(module(images), module(images))
    raw = noisy("test_vit", pretrained=False, num_classes=0)
    assert isinstance(raw, nn.Module)
    assert not torch.equal(raw.train()(images), raw(images))


def test_normalise_is_the_definition(tiny: Backbone) -> None:
    images = torch.rand(2, 3, 5, 4, dtype=torch.float64)
    changed = normalise(images, tiny)
    for channel in range(3):
        expected = (images[:, channel] - tiny.mean[channel]) / tiny.std[channel]
        torch.testing.assert_close(changed[:, channel], expected)
    assert changed.dtype == torch.float64


def running_means(module: nn.Module) -> list[Tensor]:
    return [buffer.clone() for name, buffer in module.named_buffers() if name.endswith("running_mean")]


def moved_by_training(module: nn.Module) -> bool:
    before = running_means(module)
    module.train()
    module(torch.rand(4, 3, 64, 64))
    return not all(torch.equal(a, b) for a, b in zip(before, running_means(module), strict=True))


def test_frozen_batch_norm_survives_train_copies_and_pickling(tiny: Backbone) -> None:
    assert moved_by_training(copy.deepcopy(tiny.module))
    frozen = copy.deepcopy(tiny.module)
    freeze_batch_norm(frozen)
    freeze_batch_norm(frozen)
    assert not moved_by_training(frozen)
    assert frozen.training
    twin = copy.deepcopy(frozen)
    assert not moved_by_training(twin)
    stream = io.BytesIO()
    torch.save(frozen, stream)
    stream.seek(0)
    assert not moved_by_training(torch.load(stream, weights_only=False))
    assert list(frozen.state_dict()) == list(tiny.module.state_dict())
    assert all(parameter.requires_grad for parameter in frozen.parameters())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tf_efficientnet_lit0", r"backbone: 'tf_efficientnet_lit0' is not a timm model; .*'tf_efficientnet_lite0'\?"),
        ("resnet18.nope", r"'nope' is not a weight tag of resnet18; allowed: .*resnet18\.a1_in1k"),
        ("hf-hub:someone/model", "is not a timm model"),
        ("../model", "is not a timm model"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        check_backbone_name(name)
    with pytest.raises(RequestError, match=message):
        load_backbone(BackboneConfig(name=name, weights="random"), cache_dir=Path("unused"))


@pytest.mark.parametrize("name", ["resnet18", "resnet18.a1_in1k", *PACKAGED_WEIGHTS])
def test_a_known_name_passes(name: str) -> None:
    check_backbone_name(name)
