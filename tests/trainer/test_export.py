"""A model on disk answers what its trial answered, and a folder that is not what it says is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from repsim import trainer as trainer_module
from repsim.catalogue import ADAPTERS, HEADS
from repsim.config import TrialConfig
from repsim.data import decode
from repsim.errors import RequestError
from repsim.export import MANIFEST, START, WEIGHTS, Classifier, load_model, model_files, save_model, save_point
from repsim.records import Objective, Predictions, TrialResult
from repsim.trainer import Trainer
from repsim.workspace import Workspace
from tests.trainer.cases import BACKBONES, runs_on
from tests.trainer.stripes import PER_CLASS, write_images

Configure = Callable[..., TrialConfig]
ADAPTED = [(adapter, backbone) for backbone in BACKBONES for adapter in ADAPTERS if runs_on(adapter, backbone)]


class Kept(NamedTuple):
    """A finished trial and the folder its model was written into."""

    trainer: Trainer
    result: TrialResult
    folder: Path


def finished(config: TrialConfig, workspace: Workspace, folder: Path, best_by: Objective | None = None) -> Kept:
    trainer = Trainer(config, workspace=workspace, best_by=best_by)
    while not trainer.done:
        trainer.step()
    result = trainer.finish()
    save_model(trainer, folder)
    return Kept(trainer, result, folder)


def stored(predictions: Predictions, classes: tuple[str, ...], split: str = "test") -> NDArray[np.float64]:
    """A trial's own probabilities, (n, classes)."""
    return np.array([predictions[split][f"probability {name}"] for name in classes]).T


def files(root: Path, predictions: Predictions, split: str = "test") -> list[Path]:
    return [root / str(name) for name in predictions[split]["image"]]


@pytest.fixture(scope="module")
def kept(configure: Configure, workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Of a trial whose statistics move, so that there is state beside the parameters."""
    config = configure(method="repsim", **{"optim.batch_norm": "train", "optim.lr": 1e-3})
    return finished(config, workspace, tmp_path_factory.mktemp("kept"))


@pytest.mark.parametrize(("adapter", "backbone"), ADAPTED)
def test_every_adapter_answers_what_its_trial_answered(
    configure: Configure, workspace: Workspace, image_folder: Path, tmp_path: Path, adapter: str, backbone: str
) -> None:
    kept = finished(configure(method=adapter, backbone=backbone, **{"optim.lr": 1e-3}), workspace, tmp_path)
    found = load_model(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {WEIGHTS, MANIFEST}
    for split in ("val", "test"):
        answers = found.probabilities(files(image_folder, kept.result.predictions, split))
        expected = stored(kept.result.predictions, found.classes, split)
        if ADAPTERS[adapter].trains_backbone:
            assert np.array_equal(answers, expected)
        else:  # its features were computed among all images, in other batches
            np.testing.assert_allclose(answers, expected, rtol=1e-5)
        assert [found.classes[i] for i in answers.argmax(axis=1)] == kept.result.predictions[split]["predicted"]
    whole, pixels = found.merged(), torch.rand(3, 3, 32, 32)
    assert not any("lora" in name for name in whole)
    reported = kept.trainer.reported
    assert reported is not None
    assert all(torch.equal(whole[name], tensor) for name, tensor in reported.merged().state_dict().items())
    with torch.no_grad():
        assert torch.equal(found.model(pixels)[1], reported.eval()(pixels)[1])


@pytest.mark.parametrize("head", HEADS)
def test_every_head_answers_what_its_trial_answered(
    configure: Configure, workspace: Workspace, image_folder: Path, tmp_path: Path, head: str
) -> None:
    settings = {"head.per_feature": True, "head.intersection": "min", "head.scale": 3.0, "optim.epochs": 1}
    kept = finished(configure(head=head, **settings), workspace, tmp_path)
    found = load_model(tmp_path)
    answers = found.probabilities(files(image_folder, kept.result.predictions))
    assert np.array_equal(answers, stored(kept.result.predictions, found.classes))


def test_the_chosen_epoch_is_kept_and_not_the_last(
    configure: Configure, workspace: Workspace, image_folder: Path, tmp_path: Path
) -> None:
    best = Objective(metric="val_cka", direction="maximize")  # it only falls
    config = configure(checkpoint="best", **{"optim.lr": 1e-3, "optim.epochs": 3})
    kept = finished(config, workspace, tmp_path, best)
    assert kept.result.chosen_epoch < 3
    found = load_model(tmp_path)
    answers = found.probabilities(files(image_folder, kept.result.predictions))
    assert np.array_equal(answers, stored(kept.result.predictions, found.classes))


@pytest.mark.parametrize(("method", "backbone"), [("full", "test_efficientnet"), ("lora", "test_vit")])
def test_a_point_between_the_weights_is_written_from_both_ends(
    configure: Configure,
    workspace: Workspace,
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    backbone: str,
) -> None:
    monkeypatch.setattr(trainer_module, "WISE_ALPHAS", (0.0, 0.3))
    settings = {"optim.lr": 1e-3, "optim.batch_norm": "train", "measure.wise": True}
    kept = finished(configure(method=method, backbone=backbone, **settings), workspace, tmp_path / "trial")
    assert START in {path.name for path in kept.folder.iterdir()}
    for point in kept.result.derived:
        out = tmp_path / f"{point.alpha:g}"
        save_point(kept.folder, point.alpha, out)
        assert {path.name for path in out.iterdir()} == {WEIGHTS, MANIFEST}
        found = load_model(out)
        assert found.config.wise_alpha == point.alpha
        answers = found.probabilities(files(image_folder, point.predictions))
        assert np.array_equal(answers, stored(point.predictions, found.classes))
    again = load_model(kept.folder)
    answers = again.probabilities(files(image_folder, kept.result.predictions))
    assert np.array_equal(answers, stored(kept.result.predictions, again.classes))
    assert not np.array_equal(answers, stored(kept.result.derived[1].predictions, again.classes))


def test_a_trial_that_is_itself_between_the_weights_is_kept_as_such(
    configure: Configure, workspace: Workspace, image_folder: Path, tmp_path: Path
) -> None:
    config = configure(method="lora", backbone="test_vit", wise_alpha=0.3, **{"optim.lr": 1e-3})
    kept = finished(config, workspace, tmp_path)
    found = load_model(tmp_path)
    answers = found.probabilities(files(image_folder, kept.result.predictions))
    assert np.array_equal(answers, stored(kept.result.predictions, found.classes))
    with pytest.raises(RequestError, match="files: is that of a trial without points between"):
        save_point(tmp_path, 0.5, tmp_path / "point")


def test_files_bytes_and_pixels_are_one_and_the_same_image(kept: Kept, image_folder: Path) -> None:
    found, paths = load_model(kept.folder), files(image_folder, kept.result.predictions)
    expected = found.probabilities(paths)
    assert np.array_equal(found.probabilities(path.read_bytes() for path in paths), expected)
    assert np.array_equal(found.probabilities([np.asarray(Image.open(path)) for path in paths]), expected)
    assert found.probabilities([]).shape == (0, 3)


def test_images_are_brought_to_the_trials_size_in_the_trials_way(
    configure: Configure, workspace: Workspace, tmp_path: Path
) -> None:
    wide = tmp_path / "wide.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 60), dtype=np.uint8)).save(wide)
    answers = []
    for resize in ("pad", "squash"):
        config = configure(**{"data.resize": resize, "optim.epochs": 1})
        model = finished(config, workspace, tmp_path / resize)
        found = load_model(tmp_path / resize)
        pixels = decode.decode(wide, 32, resize).copy()
        assert model.trainer.reported is not None
        with torch.no_grad():
            logits = model.trainer.reported.eval()(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255.0)[1]
        answers.append(found.probabilities([wide]))
        np.testing.assert_allclose(answers[-1], torch.softmax(logits.double(), 1), rtol=1e-5)
    assert not np.allclose(answers[0], answers[1])


HOSTILE = ("<script>alert(1)</script>", "a,b\n\"c' =1+1", "ünïcode ✓ \\u0000 ../..")


def test_class_names_stay_what_they_are(configure: Configure, workspace: Workspace, tmp_path: Path) -> None:
    root = write_images(tmp_path / "images")
    lines = ["image,label"]
    for folder, name in zip(("fine", "middle", "coarse"), HOSTILE, strict=True):
        quoted = '"' + name.replace('"', '""') + '"'
        lines += [f"{folder}/{number:03d}.png,{quoted}" for number in range(PER_CLASS)]
    table = root / "table.csv"
    table.write_text("\n".join(lines), encoding="utf-8")
    kept = finished(configure(data=f"csv:{table}", **{"optim.epochs": 1}), workspace, tmp_path / "model")
    found = load_model(kept.folder)
    assert sorted(found.classes) == sorted(HOSTILE)
    paths = files(root, kept.result.predictions)
    assert np.array_equal(found.probabilities(paths), stored(kept.result.predictions, found.classes))


# what is refused


def test_there_is_no_model_before_the_end(configure: Configure, workspace: Workspace) -> None:
    with pytest.raises(RuntimeError, match="no model to keep before finish"):
        model_files(Trainer(configure(), workspace=workspace))


@pytest.fixture
def copy(kept: Kept, tmp_path: Path) -> Path:
    """Of the folder, to be spoilt."""
    for path in kept.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def change(folder: Path, changes: Mapping[str, object]) -> None:
    document = json.loads((folder / MANIFEST).read_text())
    for key, value in changes.items():
        if value is None:
            del document[key]
        else:
            document[key] = value
    (folder / MANIFEST).write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2}, "format: 2 is none that this version reads; allowed: 1"),
        ({"format": None}, "format: None is none that this version reads"),
        ({"format": "1"}, "format: '1' is none that this version reads"),
        ({"classes": ["one"]}, "classes: Tuple should have at least 2 items"),
        ({"classes": ["a", "a", "b"]}, "classes: Value error, must name each class once"),
        ({"classes": [1, 2, 3]}, r"classes\.0: Input should be a valid string"),
        (
            {"classes": ["a", "b"]},
            r"'head\.bias' is torch\.float32 \[3\], the network's is torch\.float32 \[2\]",
        ),
        ({"std": [0.2, 0.0, 0.2]}, r"std\.1: Input should be greater than 0"),
        ({"mean": [0.2, float("nan"), 0.2]}, r"mean\.1: Input should be a finite number"),
        ({"code": "import os"}, "code: Extra inputs are not permitted"),
        ({"weights_id": None}, "weights_id: Field required"),
        ({"decoding": 0}, "decoding: the images were decoded by rules of version 0, this is version 1"),
        ({"files": {}}, rf"{WEIGHTS}: is damaged or was changed"),
    ],
)
def test_a_manifest_that_was_changed_is_refused(copy: Path, changes: dict[str, object], said: str) -> None:
    load_model(copy)
    change(copy, changes)
    with pytest.raises(RequestError, match=said):
        load_model(copy)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "ful"}, "method: 'ful' is not a known method.*did you mean 'full'"),
        ({"optim.lrate": 1}, "optim.lrate: .*is not a known key"),
        ({"backbone": "no_such_net"}, "'no_such_net' is not a timm model"),
        ({"backbone": "hf-hub:somebody/something"}, "is not a timm model"),
        ({"backbone": "local-dir:somewhere"}, "is not a timm model"),
        ({"backbone": "test_vit", "method": "lora", "strength": None}, r"tensor .* is none of the network's"),
        ({"method": "vpt", "strength": None}, "backbone test_efficientnet: method: vpt"),
        ({"data.image_size": 10**9}, "data.image_size: 1000000000 is not allowed"),
        ({"head": "mlp"}, r"tensor 'head\.0\.bias' is missing"),
    ],
)
def test_a_configuration_that_was_changed_is_refused(copy: Path, changes: dict[str, object], said: str) -> None:
    config = json.loads((copy / MANIFEST).read_text())["config"]
    change(copy, {"config": config | changes})
    with pytest.raises(RequestError, match=said):
        load_model(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff\xfe", "[" * 100_000])
def test_what_is_no_manifest_is_refused(copy: Path, text: str) -> None:
    (copy / MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(RequestError, match=r"config\.json"):
        load_model(copy)


def test_files_that_are_missing_or_damaged_are_named(copy: Path) -> None:
    whole = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(RequestError, match=rf"{WEIGHTS}: is damaged or was changed: it is not the file that"):
        load_model(copy)
    (copy / WEIGHTS).unlink()
    with pytest.raises(RequestError, match=rf"{WEIGHTS}: cannot be read: No such file"):
        load_model(copy)
    (copy / MANIFEST).unlink()
    with pytest.raises(RequestError, match=rf"{MANIFEST}: cannot be read: No such file"):
        load_model(copy)


def reseal(folder: Path) -> None:
    """Make the manifest name the weights as they are now."""
    change(folder, {"files": {WEIGHTS: hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()}})


def test_weights_that_do_not_fit_are_refused_by_name(copy: Path) -> None:
    good = load_file(copy / WEIGHTS)

    def refused(state: dict[str, torch.Tensor], said: str) -> None:
        save_file(state, copy / WEIGHTS)
        reseal(copy)
        with pytest.raises(RequestError, match=said):
            load_model(copy)

    refused({name: tensor for name, tensor in good.items() if name != "head.bias"}, r"tensor 'head\.bias' is missing")
    refused({**good, "extra": torch.zeros(1)}, "tensor 'extra' is none of the network's")
    refused({**good, "head.bias": good["head.bias"].double()}, r"tensor 'head\.bias' is torch\.float64")
    refused({**good, "head.bias": torch.full((3,), float("inf"))}, r"'head\.bias' holds values that are not finite")
    (copy / WEIGHTS).write_bytes(b"\x80\x04K\x01.")
    reseal(copy)
    with pytest.raises(RequestError, match="is not a readable safetensors file"):
        load_model(copy)


def test_an_image_that_cannot_be_decoded_is_named(kept: Kept, tmp_path: Path, image_folder: Path) -> None:
    found, good = load_model(kept.folder), files(image_folder, kept.result.predictions)[0]
    with pytest.raises(RequestError, match=r"nowhere\.png: is not a file that can be read"):
        found.probabilities([good, tmp_path / "nowhere.png"])
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(RequestError, match=r"text\.png: cannot be decoded"):
        found.probabilities([tmp_path / "text.png"])
    with pytest.raises(RequestError, match="image 2: cannot be decoded"):
        found.probabilities([good, b"no image"])


def test_a_model_is_loaded_in_eval_mode_and_leaves_the_generator_alone(kept: Kept) -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    found: Classifier = load_model(kept.folder)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not found.model.training
