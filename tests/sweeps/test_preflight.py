"""What a backbone cannot do is refused before anything starts: one line per mistake, in one go."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from repsim.errors import RequestError
from sweeps.preflight import Looked, preflight
from sweeps.space import load_space

HEAD = """\
name: trial
data: phantom:tiny
objectives: [{metric: val_accuracy}, {metric: val_cka}]
budget: {trials: 4, epochs: 1}
"""
CONVNET = "test_efficientnet"


def look(folder: Path, space: str, *, size: int = 32, fixed: str = "") -> Looked:
    path = folder / "trial.yaml"
    fixed = f"fixed: {{data.image_size: {size}, backbone.weights: random{fixed and ', '}{fixed}}}\n"
    path.write_text(HEAD + fixed + textwrap.dedent(space), encoding="utf-8")
    return preflight(load_space(str(path)), cache_dir=folder / "cache", say=lambda text: None)


def refusals(folder: Path, space: str, *, size: int = 32, fixed: str = "") -> list[str]:
    with pytest.raises(RequestError, match="allowed") as caught:
        look(folder, space, size=size, fixed=fixed)
    return [str(mistake) for mistake in caught.value.mistakes]


def test_what_a_convnet_can_do_passes(tmp_path: Path) -> None:
    methods = "full, linear_probe, lora, lora+repsim, partial, bitfit, norm_only, lp_ft, repsim, delta, l2_sp, rift"
    found = look(
        tmp_path,
        f"space: {{method: [{methods}], adapter.rank: {{low: 2, high: 8}}, adapter.stages: [1, 2]}}",
        fixed=f"backbone: {CONVNET}",
    )
    assert found.n_images["phantom:tiny"] > 0
    assert found.parameters > 0


@pytest.mark.parametrize("adapter", ["vpt", "adaptformer"])
def test_adapters_of_transformers_are_refused_on_convnets_once(adapter: str, tmp_path: Path) -> None:
    space = f"space: {{method: [full, {adapter}, {adapter}+repsim, {adapter}+hcs]}}"
    (line,) = refusals(tmp_path, space, fixed=f"backbone: {CONVNET}")
    assert line.startswith(f"backbone {CONVNET}: method: {adapter} needs the blocks of a transformer")
    assert line.endswith("allowed: timm's VisionTransformer: vit_*, deit_*, and DINOv2's")


def test_only_the_backbone_that_cannot_is_named(tmp_path: Path) -> None:
    space = f"space: {{method: [full, vpt], backbone: [test_vit, {CONVNET}]}}"
    (line,) = refusals(tmp_path, space, size=160)
    assert f"backbone {CONVNET}: " in line


def test_a_method_that_meets_only_backbones_that_can_is_not_refused(tmp_path: Path) -> None:
    space = f"""
    space:
      backbone: [{CONVNET}, test_vit]
      method: [{{when: {{backbone: test_vit}}, value: [full, vpt]}}, {{value: [full, lora]}}]
    """
    assert look(tmp_path, space, size=160).parameters > 0


@pytest.mark.parametrize("penalty", ["lwf", "co_tuning"])
def test_a_penalty_without_its_source_classifier_is_refused(penalty: str, tmp_path: Path) -> None:
    (line,) = refusals(tmp_path, f"space: {{method: [full, {penalty}]}}", fixed=f"backbone: {CONVNET}")
    assert line.startswith(f"backbone {CONVNET}: method: {penalty} needs the classifier")
    assert "random weights have none" in line
    assert "tf_efficientnet_lite0" in line.partition("allowed: ")[2]


@pytest.mark.parametrize("stages", ["[1, 99]", "{low: 1, high: 99}"])
def test_more_stages_than_there_are_are_refused(stages: str, tmp_path: Path) -> None:
    space = f"space: {{method: [full, partial, partial+repsim], adapter.stages: {stages}}}"
    (line,) = refusals(tmp_path, space, fixed=f"backbone: {CONVNET}")
    assert line.startswith(f"backbone {CONVNET}: adapter.stages: 99 is more than the backbone has; allowed: 1 to ")


def test_settings_that_no_method_reads_are_not_judged(tmp_path: Path) -> None:
    space = "space: {method: [full, repsim], adapter.stages: [1, 99], penalty.layers: [last]}"
    assert look(tmp_path, space, fixed=f"backbone: {CONVNET}").parameters > 0


def test_layers_that_are_not_there_are_refused_beside_everything_else(tmp_path: Path) -> None:
    space = "space: {method: [repsim, vpt], penalty.layers: [last, 'blocks.99']}"
    first, second = refusals(tmp_path, space, fixed=f"backbone: {CONVNET}")
    assert f"'blocks.99' is not a layer of {CONVNET}" in first
    assert "did you mean 'blocks." in first
    assert "vpt needs" in second


def test_a_single_run_is_looked_at_too(tmp_path: Path) -> None:
    (line,) = refusals(tmp_path, "space: {}", fixed=f"backbone: {CONVNET}, method: vpt")
    assert "vpt needs the blocks of a transformer" in line


def test_a_backbone_that_does_not_exist_is_one_mistake(tmp_path: Path) -> None:
    (line,) = refusals(tmp_path, "space: {method: [full, vpt]}", fixed="backbone: test_eficientnet")
    assert "did you mean 'test_efficientnet" in line


def test_every_worker_needs_an_image_of_every_split(tmp_path: Path) -> None:
    space = "space: {method: [full, repsim]}\n"
    sizes = "resources: {workers: [{when: {penalty: any}, value: 64}]}"
    fixed = f"backbone: {CONVNET}, optim.batch_size: 64"
    look(tmp_path, space + sizes.replace("64", "2"), fixed=fixed)
    lines = refusals(tmp_path, space + sizes, fixed=fixed)
    assert [line.partition(" holds")[0] for line in lines] == [
        f"phantom:tiny: {name} split:" for name in ("val", "test")
    ]
    assert "at least 64" in lines[0]
