"""A wrong request: exit 2, one line per mistake, nothing half-written. Through the command line's own ``main``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from sweeps import rehearsal
from sweeps.launch import main
from tests.launch.sweeping import write_space
from tests.trainer.stripes import write_images


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command is called from, with a space file ``tiny.yaml`` on images in ``images``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / "cache"))
    write_space(tmp_path, write_images(tmp_path / "images"))
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> list[str]:
    """The lines on stderr of a request that is refused and leaves nothing behind."""
    before = {path.name for path in folder.iterdir()} | {"cache"}
    code = main(list(arguments))
    printed = capsys.readouterr()
    assert code == 2
    assert {path.name for path in folder.iterdir()} <= before
    lines = printed.err.splitlines()
    assert lines
    assert "Traceback" not in printed.err
    return lines


SPACE_MISTAKES = {
    "a misspelt key": ("budgit: {trials: 3}", "budgit", "budget"),
    "a misspelt method": ("space: {method: [full, repsin]}", "repsin", "did you mean 'repsim'"),
    "low above high": ("space: {method: [full], optim.lr: {low: 0.1, high: 0.01}}", "optim.lr", "0.1"),
    "1e-5 as YAML reads it": ("space: {method: [full], optim.lr: {low: 1e-5, high: 0.01}}", "optim.lr", "1.0e-5"),
    "an objective on test": (
        "objectives: [{metric: test_accuracy, direction: maximize}, {metric: val_cka, direction: maximize}]",
        "test_accuracy",
        "test",
    ),
    "zero trials": ("budget: {trials: 0, epochs: 1}", "trials", "0"),
}


@pytest.mark.parametrize("case", SPACE_MISTAKES)
def test_a_wrong_space_file(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, key, said = SPACE_MISTAKES[case]
    path = folder / "tiny.yaml"
    document = yaml.safe_load(path.read_text()) | yaml.safe_load(text)
    path.write_text(yaml.safe_dump(document))
    (line,) = refused(capsys, folder, "--space", "tiny.yaml")
    assert line.startswith("tiny.yaml: ")
    assert key in line
    assert said in line


def one_image_class(folder: Path) -> tuple[str, str]:
    lone = folder / "images" / "lonely"
    lone.mkdir()
    (folder / "images" / "fine" / "000.png").rename(lone / "000.png")
    return str(folder / "images"), "lonely"


def truncated_image(folder: Path) -> tuple[str, str]:
    path = folder / "images" / "fine" / "003.png"
    path.write_bytes(path.read_bytes()[:200])
    return str(folder / "images"), "003.png"


def no_image_at_all(folder: Path) -> tuple[str, str]:
    path = folder / "images" / "fine" / "004.png"
    path.write_text("not an image")
    return str(folder / "images"), "004.png"


def empty_folder(folder: Path) -> tuple[str, str]:
    (folder / "empty").mkdir()
    return str(folder / "empty"), "empty"


def missing_folder(folder: Path) -> tuple[str, str]:
    return "folder:nowhere", "nowhere"


def labels_without_images(folder: Path) -> tuple[str, str]:
    rows = ["image,label", *(f"gone_{index}.png,{'ab'[index % 2]}" for index in range(8))]
    (folder / "labels.csv").write_text("\n".join(rows))
    return "csv:labels.csv", "gone_0.png"


def wrong_npz(folder: Path) -> tuple[str, str]:
    np.savez(folder / "wrong.npz", pictures=np.zeros((4, 8, 8), dtype=np.uint8))
    return "npz:wrong.npz", "train_images"


@pytest.mark.parametrize(
    "prepare",
    [
        one_image_class,
        truncated_image,
        no_image_at_all,
        empty_folder,
        missing_folder,
        labels_without_images,
        wrong_npz,
    ],
)
def test_wrong_images(
    prepare: Callable[[Path], tuple[str, str]], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, said = prepare(folder)
    lines = refused(capsys, folder, "--space", "tiny.yaml", "--data", source)
    assert any(said in line for line in lines)


def test_an_unreadable_image_can_be_skipped(folder: Path) -> None:
    from repsim.config import DataConfig
    from repsim.data.dataset import load_images

    source, name = truncated_image(folder)
    images = load_images(DataConfig(source=source, image_size=32, on_error="skip"))
    assert images.skipped == (f"fine/{name}",)
    assert len(images) == 50


def test_an_unknown_backbone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refused(capsys, folder, "--space", "tiny.yaml", "--set", "backbone=tf_efficientnet_lite00")
    assert "did you mean 'tf_efficientnet_lite0'" in line


def test_an_image_size_the_backbone_cannot_take(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refused(capsys, folder, "--space", "tiny.yaml", "--set", "backbone=vit_tiny_patch16_224")
    assert "32 px is not a size it takes" in line
    assert "allowed: 224 px" in line


def test_weights_that_are_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refused(capsys, folder, "--space", "tiny.yaml", "--set", "backbone.weights=gone.pt")
    assert "gone.pt" in line


@pytest.mark.parametrize("uri", ["file:./mlruns", "http://127.0.0.1:9", "sqlite:////nowhere/at/all.db", "gopher://x"])
def test_a_broken_tracking_uri(uri: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refused(capsys, folder, "--space", "tiny.yaml", "--tracking-uri", uri)
    assert uri.split(":")[0] in line or "--tracking-uri" in line


@pytest.mark.parametrize("more", [(), ("--dry-run",)], ids=["start", "dry run"])
def test_a_storage_without_its_plugin(more: Sequence[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refused(capsys, folder, "--space", "tiny.yaml", "--storage", "nope://x", *more)
    assert line.startswith("--storage: nope://x: 'Protocol not known: nope'")


def test_a_storage_that_does_not_know_the_sweep(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refused(capsys, folder, "--resume", "gone", "--storage", str(folder / "images"))
    assert "holds no sweep gone" in line


def test_runs_that_cannot_be_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "runs").write_text("in the way")
    (line,) = refused(capsys, folder, "--space", "tiny.yaml")
    assert "runs: cannot be written" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.chmod(0o500)
    try:
        (line,) = refused(capsys, folder, "--space", "tiny.yaml")
    finally:
        folder.chmod(0o700)
    assert "permission denied" in line


def test_a_disk_too_small_for_the_sweep(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    (line,) = refused(capsys, folder, "--space", "tiny.yaml")
    assert "1.0 MB are free" in line


def test_more_gpus_than_there_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refused(capsys, folder, "--space", "tiny.yaml", "--set", "resources.gpus_per_worker=64")
    assert "resources.gpus_per_worker: a trial asks for 64 GPUs, this machine shows" in line


IMPOSSIBLE = {
    "an adapter": ("method=[full, vpt]", "vpt needs the blocks of a transformer"),
    "a penalty": ("method=[full, lwf]", "lwf needs the classifier"),
    "a rank": ("space={method: [full, lora], adapter.rank: [8, 1000]}", "adapter.rank: 1000 makes no layer"),
    "a layer": ("penalty.layers=blocks.9", "'blocks.9' is not a layer of test_efficientnet"),
    "a backbone": ("backbone=tf_efficientnet_lite00", "did you mean 'tf_efficientnet_lite0'"),
    "GPUs": ("resources.gpus_per_worker=64", "a trial asks for 64 GPUs"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_a_dry_run_refuses_what_a_start_would(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, said = IMPOSSIBLE[case]
    command = ("--space", "tiny.yaml", "--set", change)
    (line,) = refused(capsys, folder, *command, "--dry-run")
    assert said in line
    assert refused(capsys, folder, *command) == [line]


def test_a_dry_run_looks_at_few_images_and_says_when_there_are_many(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, said = truncated_image(folder)
    assert said in "\n".join(refused(capsys, folder, "--space", "tiny.yaml", "--dry-run"))
    monkeypatch.setattr(rehearsal, "FEW_IMAGES", 50)
    assert main(["--space", "tiny.yaml", "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.endswith(f"not looked at: the 51 images of {source}\n")
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("more", [("--tracking-uri", "gopher://x"), ("--name", "old")])
def test_a_dry_run_refuses_where_nothing_can_be_written(
    more: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "runs" / "old").mkdir(parents=True)
    assert refused(capsys, folder, "--space", "tiny.yaml", *more, "--dry-run") == refused(
        capsys, folder, "--space", "tiny.yaml", *more
    )


def test_a_space_file_that_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refused(capsys, folder, "--space", "paretto.yaml")
    assert "did you mean 'pareto'" in line


def test_a_name_that_is_taken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "runs" / "old").mkdir(parents=True)
    (line,) = refused(capsys, folder, "--space", "tiny.yaml", "--name", "old")
    assert "python sweeps/launch.py --resume old" in line


def test_nothing_to_resume(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refused(capsys, folder, "--resume", "never")
    assert "nothing to resume" in line


def test_several_mistakes_are_said_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = refused(
        capsys, folder, "--space", "tiny.yaml", "--set", "budget.trials=0", "--set", "optim.epoch=3", "--seed", "-1"
    )
    assert len(lines) >= 1
    text = "\n".join(lines)
    assert "--seed" in text
