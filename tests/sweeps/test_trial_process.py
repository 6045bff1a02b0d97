"""A slot's process, driven without Ray's scheduling: what it reports, what it writes, and what the fence forbids."""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import ray
import torch

from repsim.errors import Mistake, RequestError
from repsim.export import MANIFEST, WEIGHTS, load_model
from repsim.records import EpochResult
from sweeps import run_folder, trainable
from sweeps.run_folder import RunFolder
from sweeps.trainable import GROWN_MIB, RECYCLED_AFTER, Assignment, Report, TrialProcess, node_name, resident_mib
from sweeps.trial_errors import TrialFailed, TrialNotBegun, TrialOutOfDisk, TrialOutOfMemory
from tests.trainer.stripes import tiny_config, write_images


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "stripes")


@pytest.fixture
def assignment(images: Path, tmp_path: Path) -> Assignment:
    folder = RunFolder.create(tmp_path / "runs", "x")
    folder.set_attempt("t0000", 1)
    return Assignment(
        trial_id="t0000",
        attempt=1,
        config=tiny_config(images, method="repsim").flat(),
        objective=("val_accuracy", "maximize"),
        known_epochs=0,
        run_folder=str(folder.root),
        launched_from=str(tmp_path),
        cache_dir=str(tmp_path / "cache"),
        threads=1,
    )


@pytest.fixture
def slot(assignment: Assignment, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrialProcess]:
    """A process as Ray makes it, in this one; what it does to the process is undone."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # a trial without GPUs sees none
    monkeypatch.chdir("/")  # not where the sweep was launched from; and the old folder comes back afterwards
    monkeypatch.setattr(trainable, "end_with", lambda engine: None)
    catching = faulthandler.is_enabled()
    process = TrialProcess.__new__(TrialProcess)
    process.setup(assignment.to_config())
    yield process
    process.cleanup()
    if catching and sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)


def test_a_trial_reports_its_epochs_and_its_result(slot: TrialProcess, assignment: Assignment) -> None:
    folder = RunFolder(Path(assignment.run_folder))
    first = slot.step()
    assert not first["done"]
    assert Report.from_result(first).result is None
    assert folder.checkpoint("t0000").exists()
    last = slot.step()
    assert last["done"]
    report = Report.from_result(last)
    assert len(report.epochs) == 1
    assert report.result is not None
    facts = report.result["facts"]
    assert isinstance(facts, dict)
    assert facts["finished"] > facts["began"]
    assert facts["node"] == node_name()
    assert (folder.predictions / "t0000_val.parquet").exists()


def test_the_model_of_a_trial_is_left_where_it_was_asked_for_and_nowhere_else(
    slot: TrialProcess, assignment: Assignment, images: Path
) -> None:
    folder = RunFolder(Path(assignment.run_folder))
    once = replace(assignment, config=assignment.config | {"optim.epochs": 1})
    slot.reset_config(once.to_config())
    assert slot.step()["done"]
    assert list(folder.models.iterdir()) == []
    slot.reset_config(replace(once, keep_model=True).to_config())
    assert slot.step()["done"]
    assert {path.name for path in (folder.models / "t0000").iterdir()} == {WEIGHTS, MANIFEST}
    stored = pq.read_table(folder.predictions / "t0000_test.parquet").to_pydict()
    found = load_model(folder.models / "t0000")
    answers = found.probabilities(images / name for name in stored["image"])
    assert answers.T.tolist() == [stored[f"probability {name}"] for name in found.classes]


def test_images_that_the_driver_has_not_seen_are_not_trained_on(slot: TrialProcess, assignment: Assignment) -> None:
    slot.reset_config(replace(assignment, data_hashes=["another"]).to_config())
    with pytest.raises(
        TrialFailed, match=r"node .* has other images than the driver: data hash \w+ instead of another"
    ):
        slot.step()
    assert not RunFolder(Path(assignment.run_folder)).checkpoint("t0000").exists()
    slot.reset_config(assignment.to_config())
    slot.step()
    assert slot._group is not None
    [images] = slot._group._workspace._images.values()
    slot.reset_config(replace(assignment, data_hashes=["another", images.data_hash]).to_config())
    slot.step()


def test_a_node_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert node_name() == f"{socket.gethostname()} (no Ray)"
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    context = SimpleNamespace(get_node_id=lambda: "0123456789abcdef")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    assert node_name() == f"{socket.gethostname()} (01234567)"


def test_a_process_whose_attempt_is_over_leaves_no_model(slot: TrialProcess, assignment: Assignment) -> None:
    folder = RunFolder(Path(assignment.run_folder))
    once = replace(assignment, config=assignment.config | {"optim.epochs": 1}, keep_model=True)
    slot.reset_config(once.to_config())
    slot._write_predictions = lambda result: folder.set_attempt("t0000", 2)  # type: ignore[method-assign]
    with pytest.raises(TrialFailed, match="another attempt has taken over"):
        slot.step()
    assert list(folder.models.iterdir()) == []


def test_a_disk_that_is_too_full_for_the_model_is_nobodys_fault(
    slot: TrialProcess, assignment: Assignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(Path(assignment.run_folder))
    folder.models.rmdir()  # a sweep from before models were kept
    slot.reset_config(replace(assignment, config=assignment.config | {"optim.epochs": 1}, keep_model=True).to_config())
    written = run_folder.write_atomically

    def full(path: Path, content: bytes) -> None:
        if path.suffix == ".safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        written(path, content)

    monkeypatch.setattr(run_folder, "write_atomically", full)
    with pytest.raises(TrialOutOfDisk, match="No space left"):
        slot.step()
    assert list((folder.models / "t0000").iterdir()) == []


def test_relative_paths_start_where_the_sweep_was_launched(
    slot: TrialProcess, assignment: Assignment, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").symlink_to(images)
    slot.reset_config(replace(assignment, config=assignment.config | {"data": "mine", "optim.epochs": 1}).to_config())
    assert slot.step()["done"]


def test_the_next_attempt_continues_from_the_checkpoint(slot: TrialProcess, assignment: Assignment) -> None:
    slot.step()
    RunFolder(Path(assignment.run_folder)).set_attempt("t0000", 2)
    assert slot.reset_config(replace(assignment, attempt=2, known_epochs=1).to_config())
    report = Report.from_result(slot.step())
    assert len(report.epochs) == 1
    assert report.epochs[0]["epoch"] == 2
    assert report.result is not None


def test_an_epoch_that_no_driver_has_heard_of_is_told_by_the_next_attempt(
    slot: TrialProcess, assignment: Assignment
) -> None:
    slot.step()  # the checkpoint is written, and the driver killed before it could journal the epoch
    RunFolder(Path(assignment.run_folder)).set_attempt("t0000", 2)
    assert slot.reset_config(replace(assignment, attempt=2, known_epochs=0).to_config())
    report = Report.from_result(slot.step())
    assert [epoch["epoch"] for epoch in report.epochs] == [1, 2]


def test_a_process_whose_attempt_is_over_writes_nothing(slot: TrialProcess, assignment: Assignment) -> None:
    folder = RunFolder(Path(assignment.run_folder))
    folder.set_attempt("t0000", 2)
    with pytest.raises(TrialFailed, match="another attempt has taken over"):
        slot.step()
    assert not folder.checkpoint("t0000").exists()
    slot.reset_config(replace(assignment, config=assignment.config | {"optim.epochs": 1}).to_config())
    with pytest.raises(TrialFailed, match="another attempt has taken over"):
        slot.step()
    assert list(folder.predictions.iterdir()) == []


def test_a_failure_says_what_happened_on_one_line(slot: TrialProcess, assignment: Assignment) -> None:
    wrong = dict(assignment.config) | {"data": "folder:gone"}
    slot.reset_config(replace(assignment, config=wrong).to_config())
    with pytest.raises(TrialFailed, match=r"RequestError: .*gone") as caught:
        slot.step()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("later", [1000.0 + GROWN_MIB + 1, None])
def test_a_process_that_has_grown_is_replaced_after_a_while(
    slot: TrialProcess, assignment: Assignment, monkeypatch: pytest.MonkeyPatch, later: float | None
) -> None:
    monkeypatch.setattr(trainable, "resident_mib", lambda: 1000.0)
    assert slot.reset_config(assignment.to_config())
    monkeypatch.setattr(trainable, "resident_mib", lambda: later)
    for _ in range(RECYCLED_AFTER - 2):
        assert slot.reset_config(assignment.to_config())
    slot.step()  # the last one it serves
    assert slot.reset_config(assignment.to_config())
    with pytest.raises(TrialNotBegun, match=f"its process has grown over {RECYCLED_AFTER} trials and is replaced"):
        slot.step()


def test_a_process_that_has_not_grown_goes_on(
    slot: TrialProcess, assignment: Assignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainable, "resident_mib", lambda: 1000.0)
    assert slot.reset_config(assignment.to_config())
    monkeypatch.setattr(trainable, "resident_mib", lambda: 1000.0 + GROWN_MIB)
    for _ in range(RECYCLED_AFTER):
        assert slot.reset_config(assignment.to_config())
    slot.step()


def test_memory_that_is_held_is_seen() -> None:
    before = resident_mib()
    ballast = bytearray(b"x" * 2**26)
    after = resident_mib()
    assert before is not None
    assert after is not None
    assert 48 < after - before < 192, len(ballast)


# how a trial's error is told


class FakeTrainer:
    """A trainer of two epochs, the first of which ``fails``."""

    def __init__(self, fails: Callable[[], object]) -> None:
        self.done = False
        self._fails = fails

    def step(self) -> EpochResult:
        self._fails()
        raise AssertionError("it should have failed")


def allocate() -> object:
    return torch.empty(10**15)  # more than a processor can address


def raises(error: Exception) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


def full_while_caching() -> object:
    try:
        raise OSError(errno.ENOSPC, "No space left on device")
    except OSError as error:
        raise RequestError(Mistake(where="cache", key="", problem=f"cannot be written: {error.strerror}")) from None


WRONG = [
    pytest.param(raises(MemoryError()), TrialOutOfMemory, "^MemoryError: MemoryError", id="python's memory"),
    pytest.param(allocate, TrialOutOfMemory, "^RuntimeError: .*can't allocate memory", id="torch's memory"),
    pytest.param(
        raises(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")),
        TrialOutOfMemory,
        "^OutOfMemoryError: CUDA out of memory",
        id="the GPU's memory",
    ),
    pytest.param(raises(OSError(errno.ENOSPC, "No space left")), TrialOutOfDisk, "No space left", id="a full disk"),
    pytest.param(raises(OSError(errno.EDQUOT, "Quota exceeded")), TrialOutOfDisk, "Quota exceeded", id="a full quota"),
    pytest.param(raises(OSError(errno.EIO, "Input/output error")), TrialFailed, "Input/output", id="a broken disk"),
    pytest.param(raises(OSError("no number")), TrialFailed, "^OSError: no number", id="an error without a number"),
    pytest.param(raises(RuntimeError("two\nlines")), TrialFailed, "^RuntimeError: two lines", id="its own error"),
    pytest.param(
        raises(OSError(errno.ENOMEM, "Cannot allocate memory")),
        TrialOutOfMemory,
        "Cannot allocate memory",
        id="the system's memory",
    ),
    pytest.param(
        raises(OSError("4000000 requested and 262112 written")),
        TrialOutOfDisk,
        "262112 written",
        id="a full disk, in numpy's words",
    ),
    pytest.param(
        full_while_caching,
        TrialOutOfDisk,
        "No space left",
        id="a full cache",
    ),
]


@pytest.mark.parametrize(("fails", "kind", "match"), WRONG)
def test_the_machines_errors_are_told_from_the_trials(
    slot: TrialProcess, fails: Callable[[], object], kind: type[TrialFailed], match: str
) -> None:
    slot._trainer = FakeTrainer(fails)  # type: ignore[assignment]
    with pytest.raises(TrialFailed, match=match) as caught:
        slot.step()
    assert type(caught.value) is kind
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.__cause__ is not None


def test_an_error_without_words_says_where(slot: TrialProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("repsim.trainer.Trainer.step", fail)
    with pytest.raises(TrialFailed) as caught:
        slot.step()
    assert str(caught.value).startswith("AssertionError: AssertionError")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_the_trials_error(value: float) -> None:
    trainable._check_finite({"val_cka": 1.0})
    with pytest.raises(FloatingPointError, match=f"^val_cka is {value}, train_loss is {value}$"):
        trainable._check_finite({"val_cka": value, "val_auc": 0.5, "train_loss": value})


def test_a_disk_full_at_the_checkpoint_keeps_the_one_before(
    slot: TrialProcess, assignment: Assignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot.reset_config(replace(assignment, config=dict(assignment.config) | {"optim.epochs": 3}).to_config())
    slot.step()
    folder = RunFolder(Path(assignment.run_folder))
    before = folder.checkpoint("t0000").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(TrialOutOfDisk, match="No space left on device"):
            slot.step()
    assert folder.checkpoint("t0000").read_bytes() == before
    assert {path.name for path in folder.checkpoint("t0000").parent.iterdir()} == {
        "attempt",
        "checkpoint.pt",
        "crash.txt",
    }


# crashes


def test_a_trial_without_a_crash_has_an_empty_note(slot: TrialProcess, assignment: Assignment) -> None:
    folder = RunFolder(Path(assignment.run_folder))
    assert folder.crash_note("t0000").read_bytes() == b""
    assert folder.read_crash("t0000") is None
    folder.crash_note("t0000").write_text("Fatal Python error: Aborted\n")
    slot.reset_config(assignment.to_config())
    assert folder.read_crash("t0000") is None, "what an earlier attempt left is gone"


def test_each_trial_has_its_own_note_and_none_is_left_open(slot: TrialProcess, assignment: Assignment) -> None:
    folder = RunFolder(Path(assignment.run_folder))
    folder.set_attempt("t0001", 1)
    before = set(os.listdir("/proc/self/fd"))
    for number in (1, 0, 1):
        slot.reset_config(replace(assignment, trial_id=f"t{number:04d}").to_config())
    assert len(set(os.listdir("/proc/self/fd")) - before) <= 1
    assert slot._crash_note._open is not None
    assert os.path.samestat(os.fstat(slot._crash_note._open), folder.crash_note("t0001").stat())
    assert faulthandler.is_enabled()
    slot.cleanup()
    slot.cleanup()
    assert not faulthandler.is_enabled()


def test_without_room_for_a_note_the_trial_runs(
    slot: TrialProcess, assignment: Assignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        slot.reset_config(assignment.to_config())
    assert not slot.step()["done"]


def in_a_process(work: Callable[[], object]) -> int:
    """Carry out ``work`` in a real process of its own; its wait status."""
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            work()
        finally:
            os._exit(42)
    return os.waitpid(child, 0)[1]


def read_null() -> object:
    return ctypes.string_at(0)


@pytest.mark.parametrize(
    ("crash", "number", "words"),
    [(read_null, signal.SIGSEGV, "Segmentation fault"), (os.abort, signal.SIGABRT, "Aborted")],
    ids=["segfault", "abort"],
)
def test_a_process_that_crashes_says_where(
    assignment: Assignment, crash: Callable[[], object], number: signal.Signals, words: str
) -> None:
    process = TrialProcess.__new__(TrialProcess)

    def work() -> None:
        process.setup(assignment.to_config())
        process._trainer = FakeTrainer(crash)  # type: ignore[assignment]
        process.step()

    status = in_a_process(work)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == number
    said = RunFolder(Path(assignment.run_folder)).read_crash("t0000")
    assert said is not None
    where = "__init__.py" if crash is read_null else "test_trial_process.py"  # ctypes.string_at is Python code
    assert said.startswith(f"{words}, {where}:")
    assert said.rpartition(":")[2].isdigit()


def test_a_process_that_is_killed_leaves_no_word(assignment: Assignment) -> None:
    process = TrialProcess.__new__(TrialProcess)

    def work() -> None:
        process.setup(assignment.to_config())
        os.kill(os.getpid(), signal.SIGKILL)

    assert os.WTERMSIG(in_a_process(work)) == signal.SIGKILL
    folder = RunFolder(Path(assignment.run_folder))
    assert folder.crash_note("t0000").exists()
    assert folder.read_crash("t0000") is None


# orphans


def test_the_process_that_started_it_is_watched(
    assignment: Assignment, monkeypatch: pytest.MonkeyPatch, slot: TrialProcess
) -> None:
    watched: list[tuple[int, bool]] = []
    seen = threading.Event()

    def end_with(engine: int) -> None:
        watched.append((engine, threading.current_thread().daemon))
        seen.set()

    monkeypatch.setattr(trainable, "end_with", end_with)
    slot.cleanup()
    slot.setup(assignment.to_config())
    assert seen.wait(10)
    assert watched == [(os.getppid(), True)]


@pytest.mark.parametrize("dies", [True, False], ids=["the engine dies", "the engine lives"])
def test_a_process_whose_engine_dies_ends_by_itself(assignment: Assignment, dies: bool) -> None:
    """A real engine process, and a real trial's process below it that is busy for ever."""
    alive, begun = os.pipe(), os.pipe()  # the end of the trial's process closes them

    def trial() -> None:
        os.close(alive[0])
        process = TrialProcess.__new__(TrialProcess)
        process.setup(assignment.to_config())
        os.write(begun[1], b".")
        while True:
            time.sleep(0.01)

    engine = os.fork()
    if engine == 0:
        in_a_process(trial)
        os._exit(0)
    for end in (alive[1], begun[1]):
        os.close(end)
    try:
        assert select.select([begun[0]], [], [], 30)[0]
        assert os.read(begun[0], 1) == b"."
        if dies:
            os.kill(engine, signal.SIGKILL)
            os.waitpid(engine, 0)
        began = time.monotonic()
        ended = bool(select.select([alive[0]], [], [], 10 if dies else 2.5)[0])
        assert ended == dies
        assert time.monotonic() - began < 8
    finally:
        for end in (alive[0], begun[0]):
            os.close(end)
        if not dies:
            os.kill(engine, signal.SIGKILL)
            os.waitpid(engine, 0)
