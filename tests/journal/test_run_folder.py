"""A sweep's folder: made whole or not at all, found again, fenced."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from repsim.errors import RequestError
from sweeps.run_folder import RunFolder, check_name, write_atomically


def test_a_folder_is_made_with_its_files(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "runs", "pareto-1", {"space.yaml": b"name: pareto\n"})
    assert folder.root == tmp_path / "runs" / "pareto-1"
    assert folder.name == "pareto-1"
    assert folder.space.read_bytes() == b"name: pareto\n"
    assert {path.name for path in folder.root.iterdir()} == {
        "space.yaml",
        "checkpoints",
        "models",
        "predictions",
        "report",
    }
    for path in (folder.checkpoints, folder.models, folder.predictions, folder.report):
        assert path.is_dir()
    assert folder.journal.parent == folder.root
    assert folder.resume_command == "python sweeps/launch.py --resume pareto-1"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["pareto-1"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        folder = RunFolder.create(tmp_path, "mine", {"space.yaml": b""})
    finally:
        os.umask(before)
    assert folder.root.stat().st_mode & 0o777 == 0o750
    assert folder.space.stat().st_mode & 0o777 == 0o640


def test_a_name_that_is_taken_is_refused_with_the_resume_command(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, "pareto", {"space.yaml": b"first"})
    with pytest.raises(RequestError, match=r"exists already; resume it with `python sweeps/launch.py --resume pareto`"):
        RunFolder.create(tmp_path, "pareto", {"space.yaml": b"second"})
    assert (tmp_path / "pareto" / "space.yaml").read_bytes() == b"first"
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="exists already"):
        RunFolder.create(tmp_path, "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RequestError, match="exists already"):
        RunFolder.create(tmp_path, "dangling")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file", "pareto"]


def test_whether_a_name_is_free_can_be_asked_without_making_anything(tmp_path: Path) -> None:
    RunFolder.check_free(tmp_path / "runs", "pareto")
    assert list(tmp_path.iterdir()) == []
    RunFolder.create(tmp_path / "runs", "pareto")
    with pytest.raises(RequestError, match="--resume pareto"):
        RunFolder.check_free(tmp_path / "runs", "pareto")
    with pytest.raises(RequestError, match="is not a name"):
        RunFolder.check_free(tmp_path / "runs", "a/b")


def test_a_name_taken_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def beaten(self: Path, target: Path) -> Path:
        (target / "checkpoints").mkdir(parents=True)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", beaten)
    with pytest.raises(RequestError, match="exists already"):
        RunFolder.create(tmp_path, "pareto")
    assert [path.name for path in tmp_path.iterdir()] == ["pareto"]


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RequestError, match="cannot be written: No space left on device"):
        RunFolder.create(tmp_path, "pareto", {"space.yaml": b"x"})
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(RequestError, match=r"runs: cannot be written"):
        RunFolder.create(tmp_path / "runs", "pareto")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "/a", "a\\b", "a b", "-a", ".a", "a\n", "é", "x" * 129])
def test_names_that_are_not_plain_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestError, match=r"^--name: .* is not a name; allowed: up to 128 letters"):
        RunFolder.create(tmp_path / "runs", name)
    with pytest.raises(RequestError, match=r"^--resume: .* is not a name"):
        RunFolder.open_existing(tmp_path / "runs", name)
    assert list(tmp_path.iterdir()) == []


def test_plain_names_pass() -> None:
    for name in ("pareto", "pareto-261105-101500", "a.b_c+d", "_x", "9"):
        check_name(name)


def test_a_sweep_is_found_again(tmp_path: Path) -> None:
    made = RunFolder.create(tmp_path, "pareto-1")
    with pytest.raises(RequestError, match="has no journal, so there is nothing to resume"):
        RunFolder.open_existing(tmp_path, "pareto-1")
    made.journal.touch()
    assert RunFolder.open_existing(tmp_path, "pareto-1") == made
    with pytest.raises(RequestError, match="allowed: pareto-1; did you mean 'pareto-1'"):
        RunFolder.open_existing(tmp_path, "paretto-1")
    with pytest.raises(RequestError, match="holds no sweep"):
        RunFolder.open_existing(tmp_path / "none", "pareto-1")


def test_files_are_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"

    def killed(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"half")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_the_fence_moves_forward_only(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "pareto")
    assert folder.current_attempt("t0007") == 0
    folder.set_attempt("t0007", 1)
    folder.set_attempt("t0007", 1)  # a driver killed before it journaled the start does it again
    folder.set_attempt("t0007", 3)
    assert folder.current_attempt("t0007") == 3
    assert folder.current_attempt("t0008") == 0
    with pytest.raises(ValueError, match="t0007: attempt 2 is over, 3 is the current one"):
        folder.set_attempt("t0007", 2)
    assert (folder.checkpoints / "t0007" / "attempt").read_text() == "3\n"


def test_a_fence_that_is_not_a_number_is_an_error(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "pareto")
    folder.set_attempt("t0000", 1)
    (folder.checkpoints / "t0000" / "attempt").write_text("")
    with pytest.raises(ValueError, match="invalid literal for int"):
        folder.current_attempt("t0000")


def test_forgetting_a_checkpoint_leaves_the_fence(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "pareto")
    folder.forget_checkpoint("t0000")
    folder.set_attempt("t0000", 2)
    write_atomically(folder.checkpoint("t0000"), b"weights")
    folder.checkpoint("t0000").with_name(".checkpoint.pt.killed").touch()
    folder.forget_checkpoint("t0000")
    assert [path.name for path in (folder.checkpoints / "t0000").iterdir()] == ["attempt"]
    assert folder.current_attempt("t0000") == 2


CRASH = """Fatal Python error: Segmentation fault

Stack (most recent call first):
  File "/lib/torch/nn/modules/conv.py", line 553 in _conv_forward
  File "/src/repsim/trainer.py", line 201 in step

Extension modules: numpy.core._multiarray_umath (total: 1)
"""


@pytest.mark.parametrize(
    ("note", "said"),
    [
        (CRASH.encode(), "Segmentation fault, conv.py:553"),
        (CRASH[: CRASH.index("553") + 2].encode(), "Segmentation fault, conv.py:55"),
        (CRASH[: CRASH.index("line 553")].encode(), "Segmentation fault"),
        (b"Fatal Python error: Bus error\n", "Bus error"),  # outside of any Python thread
        (b"\xff\xfe said before\nFatal Python error: Aborted\n", "Aborted"),
        (b'Fatal Python error: Aborted\n  File "/src/my models/\xc3\xa4.py", line 7 in f\n', "Aborted, ä.py:7"),
    ],
    ids=["whole", "torn in a number", "torn in a line", "no place", "not text", "a strange place"],
)
def test_a_crash_is_told_in_a_few_words(tmp_path: Path, note: bytes, said: str) -> None:
    folder = RunFolder.create(tmp_path, "pareto")
    folder.set_attempt("t0000", 1)
    folder.crash_note("t0000").write_bytes(note)
    assert folder.read_crash("t0000") == said


@pytest.mark.parametrize("note", [b"", b"Fatal", b'  File "a.py", line 3 in f\n', b"Timeout (0:00:01)!\n", None])
def test_without_a_crash_there_is_nothing_to_tell(tmp_path: Path, note: bytes | None) -> None:
    folder = RunFolder.create(tmp_path, "pareto")
    assert folder.read_crash("t0000") is None
    folder.set_attempt("t0000", 1)
    if note is None:
        folder.crash_note("t0000").mkdir()
    else:
        folder.crash_note("t0000").write_bytes(note)
    assert folder.read_crash("t0000") is None


def test_a_note_goes_with_the_checkpoint_and_stays_with_its_trial(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "pareto")
    for trial_id in ("t0000", "t0001"):
        folder.set_attempt(trial_id, 1)
        folder.crash_note(trial_id).write_text(CRASH)
    folder.forget_checkpoint("t0000")
    assert folder.read_crash("t0000") is None
    assert folder.read_crash("t0001") is not None
