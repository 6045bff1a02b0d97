"""``python -m repsim``: one trial from a file, and what it says about a wrong one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from repsim.__main__ import epoch_line, main
from repsim.catalogue import ADAPTERS, HEADS, PENALTIES, WRAPPERS
from repsim.methods_page import FILE, page_text
from repsim.records import EPOCH_METRICS, METRICS, STANDARD_METRICS, EpochResult
from repsim.similarity.registry import REGISTRY

TINY = """\
data: phantom:tiny
data.image_size: 32
backbone: {name: test_efficientnet, weights: random}
optim: {epochs: 1, batch_size: 16}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def test_a_trial_is_run_and_written(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "result.json"
    assert main(["--config", str(config), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("epoch 1/1: loss ")
    assert all(f"{name} " in line for name in EPOCH_METRICS)
    found = json.loads(out.read_text())
    assert set(found["values"]) == set(STANDARD_METRICS)
    assert (found["config"]["backbone"], found["config"]["optim.epochs"]) == ("test_efficientnet", 1)
    assert (found["facts"]["n_train"], found["chosen_epoch"]) == (90, 1)


def test_the_result_alone_is_on_stdout(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(TINY + "method: linear_probe\n")
    assert main(["--config", str(config)]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["values"]["val_cka"] == pytest.approx(1, abs=1e-6)
    assert "epoch 1/1" in said.err


@pytest.mark.slow
def test_two_processes_are_one_training(config: Path, tmp_path: Path) -> None:
    config.write_text(TINY.replace("epochs: 1", "epochs: 2") + "method: repsim\n")
    found = []
    for launcher in ([], ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]):
        out = tmp_path / f"{len(found)}.json"
        command = [sys.executable, "-m", *launcher, "repsim", "--config", str(config), "--out", str(out)]
        told = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert told.returncode == 0, told.stderr
        assert told.stderr.count("epoch 2/2: loss ") == 1
        found.append(json.loads(out.read_text()))
    one, two = found
    assert (one["facts"]["workers"], two["facts"]["workers"]) == (1, 2)
    for name in ("val_accuracy", "val_cka", "test_nll", "sharpness"):
        assert two["values"][name] == pytest.approx(one["values"][name], rel=1e-2, abs=1e-3), name


def test_a_loss_that_is_not_finite_ends_with_1(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(TINY + "optim.lr: 1.0e+30\noptim.clip_norm: null\noptim.warmup_fraction: 0.0\n")
    assert main(["--config", str(config), "--out", str(tmp_path / "none.json")]) == 1
    said = capsys.readouterr()
    assert "the training loss became" in said.err
    assert "Traceback" not in said.err
    assert not (tmp_path / "none.json").exists()


def test_the_command_refuses_a_wrong_file_line_by_line(config: Path) -> None:
    config.write_text("metod: full\nstrenght: 1.0\n")
    done = subprocess.run(
        [sys.executable, "-m", "repsim", "--config", str(config)],
        cwd=Path(__file__).resolve().parents[1],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    first, second = done.stderr.splitlines()
    assert first.startswith(f"{config}: metod: 'metod' is not a known key; allowed: data, ")
    assert first.endswith("did you mean 'method'?")
    assert second.endswith("did you mean 'strength'?")


def test_a_wrong_request_ends_with_2_before_anything_is_trained(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "no" / "result.json"
    cases = {
        ("--config", str(tmp_path / "none.yaml")): f"{tmp_path}/none.yaml: cannot be read: No such file or directory\n",
        ("--config", str(config), "--out", str(missing)): f"cannot be written: there is no folder {missing.parent};",
        ("--config", str(config), "--out", str(tmp_path)): f"--out: {tmp_path}: is a folder;",
    }
    for arguments, words in cases.items():
        assert main(arguments) == 2
        said = capsys.readouterr()
        assert words in said.err
        assert (said.out, said.err.count("\n")) == ("", 1)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert main(["--config", str(config), "--out", str(tmp_path / "r.json")]) == 2
    assert f"--out: {tmp_path}/r.json: cannot be written; allowed: a file in a folder" in capsys.readouterr().err


def test_a_mistake_only_torch_can_see_ends_with_2(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(TINY.replace("test_efficientnet", "test_eficientnet"))
    assert main(["--config", str(config)]) == 2
    said = capsys.readouterr()
    assert "test_eficientnet" in said.err
    assert "Traceback" not in said.err


def test_an_epoch_is_one_line() -> None:
    result = EpochResult(
        epoch=2,
        values={"val_accuracy": 0.83},
        train_loss=0.40121,
        train_penalty=0.05,
        learning_rate=1e-4,
        steps=3,
        train_seconds=1.0,
        seconds=1.5,
    )
    assert epoch_line(result, 6) == "epoch 2/6: loss 0.4012, penalty 0.0500, val_accuracy 0.8300"


def test_the_page_of_methods_is_up_to_date() -> None:
    assert FILE.read_text(encoding="utf-8") == page_text(), "run: python -m repsim.methods_page"


def test_the_page_of_methods_tells_of_everything_once_in_tables_that_close() -> None:
    text = page_text()
    for names in (ADAPTERS, PENALTIES, HEADS, REGISTRY):
        assert all(f"| `{name}`" in text for name in names)
    assert all(f"| `{info.setting}` |" in text for info in WRAPPERS.values())
    asked = {name.removeprefix("val_") for name, metric in METRICS.items() if metric.asked_by and name[:5] != "test_"}
    assert all(f"`{name}`" in text or f"`val_{name}`" in text for name in asked)
    rows: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append(line)
            assert line.count(" | ") == rows[0].count(" | "), line
        else:
            rows.clear()
    assert not any("invertible_linear" in measure.invariances for measure in REGISTRY.values()), "the page says so"
