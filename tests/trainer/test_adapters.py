"""Adapters on real architectures: what moves, what it costs, that nothing changes at the start, and who is refused."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from repsim.adapters import REGISTRY, check_adapter
from repsim.adapters.lora import FUSED_ATTENTION, targets
from repsim.adapters.partial import stages
from repsim.backbones import Backbone, feature_dim, freeze_batch_norm
from repsim.catalogue import ADAPTERS
from repsim.config import AdapterConfig, TrialConfig
from repsim.errors import RequestError
from repsim.model import FineTuned, Mergeable
from repsim.optimisation import trained_parameters
from repsim.sharpness.surface import surface
from repsim.trainer import Trainer, train
from repsim.weights import build_module
from repsim.workspace import Workspace

Configure = Callable[..., TrialConfig]
SMALL = ("test_efficientnet", "test_resnet", "test_convnext", "test_vit", "test_vit2")
"""A convnet of 1x1 convolutions, one of 3x3, one of linear layers; a ViT, and one with registers and layer scale."""
CPU = torch.device("cpu")


def backbone_of(module: nn.Module, name: str = "some") -> Backbone:
    return Backbone(
        module=module,
        name=name,
        dim=0,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        pretraining="random",
        weights_id="0" * 16,
        weights_source="test",
    )


def model_of(name: str, device: str = "cpu") -> FineTuned:
    """A backbone with random weights and a head of five classes."""
    module = build_module(name, device=device)
    freeze_batch_norm(module)
    head = nn.Linear(feature_dim(module), 5, device=device)
    return FineTuned(module, head, torch.full((1, 3, 1, 1), 0.5), torch.full((1, 3, 1, 1), 0.5)).eval()


def prepared(adapter: str, name: str, device: str = "cpu", **settings: object) -> FineTuned:
    model = model_of(name, device)
    REGISTRY[adapter].prepare(model, AdapterConfig(**settings), torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    return model


def trained_count(model: FineTuned) -> int:
    """Trainable parameters of the backbone."""
    return sum(parameter.numel() for parameter in trained_parameters(model.backbone))


def able(adapter: str, name: str) -> bool:
    return REGISTRY[adapter].refuse(build_module(name, device="meta"), AdapterConfig()) is None


def test_the_catalogue_and_the_code_know_the_same_adapters() -> None:
    assert list(REGISTRY) == list(ADAPTERS)
    assert all((info.lr_range is not None) == info.trains_backbone for info in ADAPTERS.values())
    for name, info in ADAPTERS.items():
        assert (REGISTRY[name].fit == "gradient") != info.linear_head


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_first_step_starts_from_the_pretrained_features(adapter: str, name: str) -> None:
    if not able(adapter, name):
        pytest.skip("refused")
    images = torch.rand(4, 3, 64, 64)
    with torch.no_grad():
        before = model_of(name).features(images)
        after = prepared(adapter, name).features(images)
    assert torch.equal(before, after) == ADAPTERS[adapter].identity_at_start


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_pretrained_parameters_keep_their_names_and_values(adapter: str, name: str) -> None:
    if not able(adapter, name):
        pytest.skip("refused")
    pretrained, state = build_module(name).state_dict(), prepared(adapter, name).backbone.state_dict()
    assert all(torch.equal(state[key], value) for key, value in pretrained.items())
    new = state.keys() - pretrained.keys()
    assert bool(new) == (adapter in ("lora", "adaptformer", "vpt"))
    model, other = prepared(adapter, name), prepared(adapter, name)
    model.load_state_dict(other.state_dict(), strict=True)
    trained = {key for key, parameter in model.backbone.named_parameters() if parameter.requires_grad}
    assert new <= trained
    assert bool(trained) == ADAPTERS[adapter].trains_backbone
    assert all(parameter.requires_grad for parameter in model.head.parameters())


VIT_B = {
    "full": ({}, 85_798_656),
    "linear_probe": ({}, 0),
    "partial": ({"stages": 1}, 7_087_872 + 1_536),
    "bitfit": ({}, 12 * 8_448 + 768 + 768),
    "norm_only": ({}, 25 * 2 * 768),
    "lora": ({"rank": 8}, 36_864 * 8),
    "adaptformer": ({"bottleneck": 64}, 1_189_632),
    "vpt": ({"prompts": 10}, 9_216 * 10),
    "lp_ft": ({}, 85_798_656),
}
"""Settings, and what moves in the backbone of a ViT-B/16: 12 blocks of width 768."""


@pytest.mark.parametrize("adapter", VIT_B)
def test_counts_of_a_vit_b_are_the_papers(adapter: str) -> None:
    settings, expected = VIT_B[adapter]
    model = prepared(adapter, "vit_base_patch16_224", "meta", **settings)  # type: ignore[arg-type]
    assert trained_count(model) == expected
    assert sum(p.numel() for p in trained_parameters(model.head)) == 3_845
    assert set(VIT_B) == set(ADAPTERS)


VIT_S = {
    "full": ({}, 21_549_312),
    "linear_probe": ({}, 0),
    "partial": ({"stages": 1}, 1_775_232 + 768),
    "bitfit": ({}, 12 * 4_224 + 384 + 384),
    "norm_only": ({}, 25 * 2 * 384),
    "lora": ({"rank": 8}, 18_432 * 8),
    "adaptformer": ({"bottleneck": 64}, 12 * (2 * 64 * 384 + 64 + 384)),
    "vpt": ({"prompts": 10}, 4_608 * 10),
    "lp_ft": ({}, 21_549_312),
}
"""The same of DINOv2's ViT-S/14 at 98 px: width 384, 49 patches, two layer scales in every block."""


@pytest.mark.parametrize("adapter", VIT_S)
def test_counts_of_a_vit_s_follow_the_same_formulas(adapter: str) -> None:
    settings, expected = VIT_S[adapter]
    module = build_module("vit_small_patch14_dinov2", device="meta", image_size=98)
    model = FineTuned(module, nn.Linear(384, 5, device="meta"), torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1))
    check_adapter(TrialConfig.from_flat({"method": adapter}), backbone_of(module))
    config = AdapterConfig(**settings)  # type: ignore[arg-type]
    REGISTRY[adapter].prepare(model, config, torch.Generator().manual_seed(0))
    assert trained_count(model) == expected
    assert set(VIT_S) == set(ADAPTERS)


@pytest.mark.parametrize(
    ("adapter", "name", "settings", "expected"),
    [
        ("lora", "test_vit", {"rank": 2}, 6 * 2 * 4 * 64),
        ("lora", "test_vit", {"rank": 4}, 6 * 4 * 4 * 64),
        ("vpt", "test_vit", {"prompts": 3}, 6 * 3 * 64),
        ("vpt", "test_vit", {"prompts": 3, "prompt_depth": "shallow"}, 3 * 64),
        ("adaptformer", "test_vit", {"bottleneck": 8}, 6 * (2 * 8 * 64 + 8 + 64)),
        ("norm_only", "test_vit", {}, 13 * 2 * 64),
        ("partial", "test_vit", {"stages": 6}, 306_240 - 64 - 101 * 64 - (3 * 256 + 1) * 64),
        ("lora", "mobilenetv2_100", {"rank": 1}, None),
    ],
)
def test_small_counts_follow_the_formulas(
    adapter: str, name: str, settings: dict[str, object], expected: int | None
) -> None:
    model = prepared(adapter, name, "meta", **settings)
    if expected is None:  # every dense convolution behind the stem is 1x1 there: rank x (in + out) each
        layers = [m for m in build_module(name, device="meta").modules() if isinstance(m, nn.Conv2d)]
        dense = [m for m in layers if m.kernel_size == (1, 1)]
        assert len(dense) == 34
        expected = sum(m.in_channels + m.out_channels for m in dense)
    assert trained_count(model) == expected


def test_lora_finds_the_attention_of_other_transformers() -> None:
    swin = list(targets(build_module("swin_tiny_patch4_window7_224", device="meta"), 8))
    assert len(swin) == 12
    assert all(name.endswith("attn.qkv") for name, _ in swin)
    assert len(list(targets(build_module("vit_small_patch14_dinov2", device="meta"), 8))) == 12


ATTENTION = {
    "timm.layers.attention.Attention": ({"num_heads": 2}, (3, 4, 8)),
    "timm.models.vision_transformer.Attention": ({"num_heads": 2}, (3, 4, 8)),
    "timm.models.swin_transformer.WindowAttention": ({"num_heads": 2, "window_size": 2}, (3, 4, 8)),
    "timm.models.nest.Attention": ({"num_heads": 2}, (3, 1, 4, 8)),
    "timm.models.volo.Attention": ({"num_heads": 2}, (3, 2, 2, 8)),
    "timm.models.fastvit.Attention": ({"head_dim": 4}, (3, 8, 2, 2)),
    "timm.models.metaformer.Attention": ({"head_dim": 4}, (3, 4, 8)),
}
"""How each is made of width 8 with two heads, and the shape of three images of four tokens."""


def moved_by(attention: nn.Module, images: torch.Tensor, third: int) -> torch.Tensor:
    """Output (b, tokens, width) less what it was, once a constant is added to one third of what qkv answers."""
    constant = torch.zeros(24)
    constant[8 * third : 8 * (third + 1)] = torch.randn(8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = attention(images)
        hook = attention.qkv.register_forward_hook(lambda module, inputs, output: output + constant)  # type: ignore[union-attr]
        difference: torch.Tensor = attention(images) - before
        hook.remove()
    channels_last = difference if images.shape[-1] == 8 else difference.movedim(1, -1)
    return channels_last.reshape(3, 4, 8)


def is_query_key_value(attention: nn.Module, images: torch.Tensor) -> bool:
    """Softmax does not see a constant in every key; one in every value moves every token alike, one in q does not."""
    query, key, value = (moved_by(attention, images, third) for third in range(3))

    def uneven(difference: torch.Tensor) -> float:
        return float((difference - difference[:1, :1]).abs().max())

    no_key = float(key.abs().max()) < 1e-5
    return no_key and uneven(value) < 1e-5 < float(value.abs().max()) and uneven(query) > 1e-4


def attention_of(path: str, **settings: object) -> nn.Module:
    """Loud enough that what a query asks for makes a difference."""
    module, _, name = path.rpartition(".")
    torch.manual_seed(0)
    attention = getattr(importlib.import_module(module), name)(8, **settings)
    assert isinstance(attention, nn.Module)
    attention.eval()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_()
    return attention


@pytest.mark.parametrize("path", FUSED_ATTENTION)
def test_lora_knows_attention_whose_rows_are_all_q_then_all_k_then_all_v(path: str) -> None:
    settings, shape = ATTENTION[path]
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert is_query_key_value(attention_of(path, **settings), images)
    assert set(ATTENTION) == set(FUSED_ATTENTION)


def test_attention_laid_out_head_by_head_is_told_apart() -> None:
    settings = {"key_dim": 4, "num_heads": 2, "attn_ratio": 1, "resolution": (2, 2)}
    tiny = attention_of("timm.models.tiny_vit.Attention", **settings)
    assert tiny.qkv.out_features == 24  # type: ignore[union-attr]
    assert not is_query_key_value(tiny, torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", ["tiny_vit_5m_224", "efficientformer_l1", "convit_tiny", "xcit_nano_12_p16_224"])
def test_lora_refuses_attention_that_it_does_not_know(name: str) -> None:
    config = TrialConfig.from_flat({"method": "lora"})
    with pytest.raises(RequestError, match="method: lora does not know this backbone's attention"):
        check_adapter(config, backbone_of(build_module(name, device="meta")))


@pytest.mark.parametrize(
    ("name", "stem", "first"),
    [
        ("test_mambaout", "stem.", "stages.0."),
        ("repvit_m0_9", "stem.", "stages.0."),
        ("resnet18d", "conv1.", "layer1.0."),
        ("test_convnext", "stem.", "stages.0."),
        ("test_efficientnet", "conv_stem", "blocks."),
    ],
)
def test_lora_leaves_the_stem_of_a_convnet(name: str, stem: str, first: str) -> None:
    """Some stems have several convolutions, and all but the first have more than three channels."""
    module = build_module(name, device="meta")
    found = [layer for layer, _ in targets(module, 1)]
    assert found[0].startswith(first)
    assert any(layer.startswith(stem) for layer, _ in module.named_modules())
    assert not any(layer.startswith(stem) for layer in found)


def test_the_shares_of_parameters_that_the_catalogue_names_are_right() -> None:
    for adapter in ("bitfit", "norm_only"):
        shares = []
        for name in ("vit_base_patch16_224", "tf_efficientnet_lite0"):
            model = prepared(adapter, name, "meta")
            shares.append(100 * trained_count(model) / sum(p.numel() for p in model.backbone.parameters()))
        words = "{:.2f} % of the parameters of a ViT-B/16, {:.2f} % of EfficientNet-Lite0's; ".format(*shares)
        assert ADAPTERS[adapter].cost.startswith(words)


def loud(model: FineTuned) -> FineTuned:
    """Without the layer scales of 1e-5, behind which no change of attention could be seen."""
    with torch.no_grad():
        for key, parameter in model.backbone.named_parameters():
            if key.endswith("gamma"):
                parameter.fill_(1.0)
    return model


def randomised(adapter: str, name: str, dtype: torch.dtype) -> FineTuned:
    """As if trained: nothing that the adapter added is zero any more."""
    model = loud(prepared(adapter, name)).to(dtype)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, parameter in model.backbone.named_parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator, dtype=dtype))
                assert "lora" in key
    return model


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("name", SMALL)
def test_merged_equals_unmerged_in_plain_layers(name: str, dtype: torch.dtype, tolerance: float) -> None:
    model = randomised("lora", name, dtype)
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(2), dtype=dtype)
    state = copy.deepcopy(model.state_dict())
    merged = model.merged()
    with torch.no_grad():
        expected, found, start = (one.features(images) for one in (model, merged, loud(model_of(name)).to(dtype)))
    size = float(expected.abs().max())
    assert float((found - expected).abs().max()) <= tolerance * size
    assert float((start - expected).abs().max()) > 1e-3 * size
    assert not any(isinstance(layer, Mergeable) for layer in merged.modules())
    assert merged.backbone.state_dict().keys() == build_module(name).state_dict().keys()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_what_has_nothing_to_fold_is_merged_already() -> None:
    full = prepared("full", "test_vit")
    assert full.merged() is full
    for adapter in ("lora", "adaptformer", "vpt"):
        merged = prepared(adapter, "test_vit").merged()
        assert merged.merged() is merged


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_weights_that_are_compared_are_the_same_for_every_adapter(adapter: str) -> None:
    """Names, order and shapes are the pretrained network's and the head's; what was added stays in the function."""
    model, plain = prepared(adapter, "test_vit"), model_of("test_vit")
    images, merged = torch.rand(2, 3, 160, 160), model.merged()
    assert [(name, p.shape) for name, p in merged.named_parameters()] == [
        (name, p.shape) for name, p in plain.named_parameters()
    ]
    beside = [name for name, _ in model.named_parameters() if "adaptformer" in name or "prompts" in name]
    assert bool(beside) == (adapter in ("adaptformer", "vpt"))
    state = merged.state_dict()
    assert all(torch.equal(state[name], parameter) for name, parameter in model.named_parameters() if name in beside)
    with torch.no_grad():
        torch.testing.assert_close(merged.features(images), model.features(images), rtol=1e-5, atol=1e-6)
    with surface(merged, lambda: iter([(images, torch.tensor([0, 1]))])) as around:
        assert [w.shape for w in around.weights] == [p.shape for p in plain.parameters()]
        before = {name: state[name].clone() for name in beside}
        around.move([torch.ones_like(weight) for weight in around.weights])
        assert all(torch.equal(merged.state_dict()[name], value) for name, value in before.items())


def test_sharpness_sees_the_same_parameters_with_lora_as_without(configure: Configure, workspace: Workspace) -> None:
    """The frozen weights count too; a LoRA that has hardly moved is as sharp as a full finetuning that has not."""
    still = {"optim.lr": 1e-12, "optim.head_lr": 0.01, "optim.clip_norm": None, "backbone": "test_vit"}
    lora, full, bitfit = (
        train(configure(method=method, **still), workspace=workspace).values for method in ("lora", "full", "bitfit")
    )
    assert lora["sharpness"] == pytest.approx(full["sharpness"], rel=1e-3)
    assert bitfit["sharpness"] == pytest.approx(full["sharpness"], rel=1e-3)
    assert lora["trainable_parameters"] < full["trainable_parameters"] / 20


def test_stages_are_blocks_and_resolutions() -> None:
    vit = stages(build_module("test_vit", device="meta"))
    assert vit is not None
    assert len(vit) == 6
    assert {"norm.weight", "norm.bias", "blocks.5.attn.qkv.weight"} <= vit[-1]
    efficientnet = stages(build_module("test_efficientnet", device="meta"))
    assert efficientnet is not None
    assert len(efficientnet) == 5
    assert {"conv_head.weight", "bn2.weight"} <= efficientnet[-1]
    for name in ("resnet50", "convnext_tiny", "swin_tiny_patch4_window7_224", "regnety_002"):
        found = stages(build_module(name, device="meta"))
        assert found is not None
        assert len(found) == 4
    everything = {name for name, _ in build_module("test_vit", device="meta").named_parameters()}
    assert {name.partition(".")[0] for name in everything - set().union(*vit)} == {
        "cls_token",
        "pos_embed",
        "patch_embed",
    }


def test_a_frozen_prefix_is_outside_the_graph_and_keeps_its_statistics(
    configure: Configure, workspace: Workspace
) -> None:
    config = configure(method="partial", **{"adapter.stages": 2, "optim.batch_norm": "train"})
    trainer = Trainer(config, workspace=workspace)
    before = {name: value.clone() for name, value in trainer.model.backbone.state_dict().items()}
    inside: list[bool] = []
    blocks = trainer.model.backbone.blocks
    assert isinstance(blocks, nn.Sequential)
    for block in blocks:
        block.register_forward_hook(lambda module, inputs, output: inside.append(output.requires_grad))
    trainer.step()
    assert inside[:5] == [False, False, False, True, True]
    after = trainer.model.backbone.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("running_mean" in name for name in moved)
    assert all(name.startswith(("blocks.3", "blocks.4", "conv_head", "bn2")) for name in moved)


def test_lp_ft_starts_from_the_probe(configure: Configure, workspace: Workspace) -> None:
    def head(method: str) -> torch.Tensor:
        trainer = Trainer(configure(method=method, **{"optim.lr": 1e-12}), workspace=workspace)
        trainer.step()
        weight = trainer.model.head.weight
        assert isinstance(weight, nn.Parameter)
        return weight.detach()

    probe = head("linear_probe")
    torch.testing.assert_close(head("lp_ft"), probe, rtol=1e-6, atol=1e-9)
    assert not torch.allclose(head("full"), probe, rtol=0.1)


@pytest.mark.parametrize(
    ("method", "head", "refused"),
    [
        ("linear_probe", "cosine", True),
        ("lp_ft", "mlp", True),
        ("lp_ft+repsim", "tversky", True),
        ("lora", "mlp", False),
    ],
)
def test_what_fits_a_linear_head_takes_no_other(method: str, head: str, refused: bool) -> None:
    flat = {"method": method, "head": head}
    if not refused:
        assert TrialConfig.from_flat(flat).head.name == head
        return
    with pytest.raises(
        RequestError, match=rf"method {method!r} fits a linear head, but head is {head!r}".replace("+", r"\+")
    ):
        TrialConfig.from_flat(flat)


class Bare(nn.Module):
    """Neither biases, nor norms, nor stages, nor attention."""

    def __init__(self, extra: nn.Module | None = None) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, bias=False)
        self.extra = nn.Identity() if extra is None else extra


class Depthwise(Bare):
    """With a stage, in which there is nothing dense."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)))

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        return {"stem": r"^stem", "blocks": r"^extra\.(\d+)"}


def refusals() -> Iterator[tuple[str, nn.Module, dict[str, object], str]]:
    convnet, vit = build_module("test_efficientnet", device="meta"), build_module("test_vit", device="meta")
    beit = build_module("beit_base_patch16_224", device="meta")
    yield (
        "adaptformer",
        convnet,
        {},
        r"method: adaptformer needs the blocks of a transformer, which EfficientNet has not",
    )
    yield "vpt", convnet, {}, r"method: vpt needs the blocks .* allowed: timm's VisionTransformer: vit_\*"
    yield "lora", beit, {}, r"method: lora does not know this backbone's attention; allowed: ViT, DeiT, DINOv2, Swin"
    yield (
        "lora",
        Depthwise(),
        {},
        r"method: lora finds neither attention nor dense convolutions here; allowed: a ViT",
    )
    yield "lora", Bare(), {}, r"method: lora stays behind the stem, and timm does not say what this backbone's is"
    yield "lora", convnet, {"adapter.rank": 500}, r"adapter\.rank: 500 makes no layer of this backbone smaller"
    yield "partial", vit, {"adapter.stages": 7}, r"adapter\.stages: 7 is more than the backbone has; allowed: 1 to 6"
    yield (
        "partial",
        Bare(),
        {},
        r"method: partial trains the last stages, and timm does not say what this backbone's are",
    )
    yield "bitfit", Bare(), {}, r"method: bitfit trains biases, and this backbone has none; allowed: a backbone with"
    yield (
        "norm_only",
        Bare(),
        {},
        r"method: norm_only trains scale and shift .* has none; allowed: a backbone with affine",
    )


def test_what_a_backbone_cannot_do_is_refused_with_what_can() -> None:
    for adapter, module, settings, words in refusals():
        config = TrialConfig.from_flat({"method": adapter, **settings})
        with pytest.raises(RequestError, match=f"backbone some: {words}"):
            check_adapter(config, backbone_of(module))
    check_adapter(TrialConfig.from_flat({"method": "bitfit"}), backbone_of(Bare(nn.Linear(2, 2))))
    check_adapter(TrialConfig.from_flat({"method": "norm_only"}), backbone_of(Bare(nn.LayerNorm(2))))
    for adapter in ADAPTERS:
        check_adapter(TrialConfig.from_flat({"method": adapter}), backbone_of(build_module("test_vit", device="meta")))


def test_the_trainer_refuses_before_it_builds(configure: Configure, workspace: Workspace) -> None:
    with pytest.raises(RequestError, match="backbone test_efficientnet: method: vpt needs the blocks of a transformer"):
        Trainer(configure(method="vpt+repsim"), workspace=workspace)


def test_partial_without_stages_is_a_programming_error() -> None:
    model = FineTuned(Bare(), nn.Linear(4, 2), torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1))
    with pytest.raises(ValueError, match="this backbone has no stages; check_adapter would have said so"):
        REGISTRY["partial"].prepare(model, AdapterConfig(), torch.Generator())


def test_shallow_prompts_pass_through_every_block_and_are_gone_at_the_end() -> None:
    lengths: dict[str, list[int]] = {}
    for depth in ("deep", "shallow"):
        model = prepared("vpt", "test_vit", prompts=3, prompt_depth=depth)
        seen = lengths.setdefault(depth, [])
        for block in model.backbone.blocks:  # type: ignore[union-attr]
            block.attn.register_forward_hook(lambda m, i, out, seen=seen: seen.append(out.shape[1]))  # type: ignore[union-attr]
        with torch.no_grad():
            seen.append(model.backbone.forward_features(torch.rand(1, 3, 64, 64)).shape[1])  # type: ignore[operator]
    tokens = 1 + 16
    assert lengths["deep"] == lengths["shallow"] == [tokens + 3] * 6 + [tokens]


def test_prompts_start_in_their_range_and_differ_by_block() -> None:
    first, second = (
        parameter.detach()
        for name, parameter in prepared("vpt", "test_vit", prompts=50).backbone.named_parameters()
        if name in ("blocks.0.prompts.tokens", "blocks.1.prompts.tokens")
    )
    limit = (6 / (3 * 16 * 16 + 64)) ** 0.5
    assert 0.98 * limit < float(first.abs().max()) <= limit
    assert not torch.equal(first, second)


def test_the_seed_decides_what_an_adapter_draws(configure: Configure, workspace: Workspace) -> None:
    def drawn(seed: int) -> torch.Tensor:
        trainer = Trainer(configure(method="lora", backbone="test_vit", seed=seed), workspace=workspace)
        return trainer.model.state_dict()["backbone.blocks.0.attn.qkv.lora_down"]

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))
