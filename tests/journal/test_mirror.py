"""The journal's copy elsewhere: what it holds, who may write it, and that its absence stops nothing."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from repsim.errors import RequestError
from sweeps import mirror as module
from sweeps.journal import Journal, first_line, read_history
from sweeps.lease import LeaseLost
from sweeps.mirror import (
    Mirror,
    Segment,
    Writer,
    chain,
    check_current,
    check_free,
    claim,
    forget,
    latest_writer,
    mirrored,
    rebuild,
    remembered,
)
from sweeps.mirror_store import Store
from sweeps.run_folder import RunFolder

numbers = itertools.count()
FIRST, SECOND = Writer(1, "aaaaaaaa"), Writer(2, "00000000")


@pytest.fixture
def uri() -> str:
    """A storage of the test's own."""
    return f"memory://mirror-{next(numbers)}"


@pytest.fixture
def store(uri: str) -> Store:
    return Store(uri)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    files = {"space.yaml": b"name: x\n", "journal.jsonl": first_line({"name": "x"})}
    return RunFolder.create(tmp_path / "runs", "x", files)


@pytest.fixture
def journal(folder: RunFolder) -> Iterator[Journal]:
    with Journal.open(folder.journal) as opened:
        yield opened


def mirror_of(uri: str, folder: RunFolder, journal: Journal, said: list[str] | None = None) -> Mirror:
    """One that uploads when it is told to."""
    hears: Callable[[str], None] = (lambda line: None) if said is None else said.append
    return Mirror(uri, folder, lambda: journal.history.length, hears, every=3600.0)


def more(journal: Journal, count: int = 1) -> None:
    """So many lines more."""
    for _ in range(count):
        journal.reference(f"set {journal.history.length}", {"val_cka": 0.5})


# names and chains


def test_a_name_says_what_a_segment_holds() -> None:
    segment = Segment.of(b"a\nb\n", number=3, first=7, writer=FIRST)
    assert (segment.first, segment.last) == (7, 8)
    assert segment.name == f"000003-7-8-0001aaaaaaaa-{segment.digest}.jsonl"
    assert Segment.parse(segment.name) == segment
    assert Segment.parse("000003-7-8.jsonl") is None
    assert Writer.parse(str(FIRST)) == FIRST
    assert Writer.parse("x") is None
    assert FIRST < SECOND < Writer(2, "00000001")


def piece(first: int, last: int, writer: Writer = FIRST) -> Segment:
    return Segment(number=1, first=first, last=last, writer=writer, digest="0" * 16)


def test_a_chain_ends_where_a_segment_is_missing() -> None:
    assert chain([]) == []
    assert chain([piece(5, 6), piece(0, 2)]) == [piece(0, 2)]
    assert chain([piece(3, 6), piece(0, 2)]) == [piece(0, 2), piece(3, 6)]


def test_the_later_writers_lines_count() -> None:
    late = piece(3, 9)  # of the first writer, before it had seen that it was replaced
    assert chain([piece(0, 2), late, piece(3, 4, SECOND), piece(5, 5, SECOND)]) == [
        piece(0, 2),
        piece(3, 4, SECOND),
        piece(5, 5, SECOND),
    ]


# what is mirrored


def test_the_mirror_holds_what_the_journal_holds(uri: str, store: Store, folder: RunFolder, journal: Journal) -> None:
    with mirror_of(uri, folder, journal) as kept:
        kept.catch_up()
        more(journal, 3)
        kept.catch_up()
        kept.catch_up()  # nothing new: no segment
        more(journal)
    segments, content = mirrored(store, "x")
    assert content == folder.journal.read_bytes()
    assert [(segment.number, segment.first, segment.last) for segment in segments] == [(1, 0, 0), (2, 1, 3), (3, 4, 4)]
    assert store.read("x/space.yaml") == folder.space.read_bytes()
    assert remembered(folder) == uri


def test_only_what_is_there_for_good_is_mirrored(uri: str, store: Store, folder: RunFolder, journal: Journal) -> None:
    with mirror_of(uri, folder, journal) as kept:
        with folder.journal.open("ab") as file:  # a disk that fills up amid two lines; the first will be cut off again
            file.write(b'{"seq": 1}\n{"se')
        kept.catch_up()
        assert mirrored(store, "x")[1] == first_line_of(folder)
    assert mirrored(store, "x")[1] == first_line_of(folder)


def first_line_of(folder: RunFolder) -> bytes:
    return folder.journal.read_bytes().split(b"\n")[0] + b"\n"


def test_segments_come_by_themselves(uri: str, store: Store, folder: RunFolder, journal: Journal) -> None:
    with Mirror(uri, folder, lambda: journal.history.length, lambda line: None, every=0.02):
        more(journal)
        deadline = time.monotonic() + 20
        while mirrored(store, "x")[1] != folder.journal.read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_segment_that_was_cut_short_does_not_count(
    uri: str, store: Store, folder: RunFolder, journal: Journal
) -> None:
    with mirror_of(uri, folder, journal) as kept:
        kept.catch_up()
        more(journal, 2)
    segments, content = mirrored(store, "x")
    store.write(f"x/journal/{segments[-1].name}", content[len(first_line_of(folder)) : -5])
    assert mirrored(store, "x") == (segments[:1], first_line_of(folder))
    more(journal)
    with mirror_of(uri, folder, journal):  # the next driver writes those lines again
        pass
    assert mirrored(store, "x")[1] == folder.journal.read_bytes()


def test_a_storage_that_is_away_is_told_once_and_caught_up(
    uri: str, store: Store, folder: RunFolder, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with mirror_of(uri, folder, journal, said) as kept:
        kept.catch_up()
        write = Store.write
        monkeypatch.setattr(Store, "write", failing)
        for _ in range(3):
            more(journal)
            kept.catch_up()
        assert said == [
            f"the mirror {uri}/x does not answer ('the bucket is gone'); the sweep goes on, and is mirrored later"
        ]
        monkeypatch.setattr(Store, "write", write)
        kept.catch_up()
        kept.check()
    assert said[1:] == [f"the mirror {uri}/x is there again"]
    assert mirrored(store, "x")[1] == folder.journal.read_bytes()


def failing(store: Store, path: str, content: bytes) -> None:
    raise RuntimeError("the bucket is gone")


def test_what_is_not_there_at_the_end_is_told(
    uri: str, folder: RunFolder, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(module, "LAST_WORDS", 0.2)
    with mirror_of(uri, folder, journal, said):
        more(journal, 2)
        gone = threading.Event()
        monkeypatch.setattr(Store, "names", lambda store, folder: [str(gone.wait(20))])
    assert said == [f"{uri}/x lacks the journal's last 3 lines; --resume brings them there"]
    gone.set()


# who may write


def test_a_second_driver_elsewhere_ends_the_first(
    uri: str, store: Store, folder: RunFolder, journal: Journal, tmp_path: Path
) -> None:
    with mirror_of(uri, folder, journal) as kept:
        journal.fenced_by(kept)
        more(journal)
        kept.catch_up()
        rebuild(uri, tmp_path / "elsewhere", "x")
        more(journal)  # nobody has seen it yet
        before = store.names("x/journal")
        kept.catch_up()
        assert kept.lost
        assert journal.is_lost
        with pytest.raises(LeaseLost, match="another launch has taken the sweep up from its mirror"):
            more(journal)
    assert store.names("x/journal") == before, "it writes nothing any more"


def test_every_driver_claims_the_sweep(uri: str, store: Store, folder: RunFolder, journal: Journal) -> None:
    assert latest_writer(store, "x") is None
    for epoch in (1, 2):
        with mirror_of(uri, folder, journal):
            found = latest_writer(store, "x")
            assert found is not None
            assert found.epoch == epoch


def test_a_sweep_goes_on_elsewhere_from_its_mirror(
    uri: str, store: Store, folder: RunFolder, journal: Journal, tmp_path: Path
) -> None:
    with mirror_of(uri, folder, journal):
        more(journal, 3)
    rebuild(uri, tmp_path / "elsewhere", "x")
    other = RunFolder(tmp_path / "elsewhere" / "x")
    assert other.journal.read_bytes() == folder.journal.read_bytes()
    assert other.space.read_bytes() == folder.space.read_bytes()
    assert remembered(other) == uri
    with Journal.open(other.journal) as second, mirror_of(uri, other, second):
        second.resumed()
    assert mirrored(store, "x")[1] == other.journal.read_bytes()
    assert read_history(other.journal).resumes == 1


def test_a_folder_that_fell_behind_its_mirror_is_not_continued(
    uri: str, folder: RunFolder, journal: Journal, tmp_path: Path
) -> None:
    with mirror_of(uri, folder, journal):
        pass
    check_current(uri, folder)
    rebuild(uri, tmp_path / "elsewhere", "x")
    other = RunFolder(tmp_path / "elsewhere" / "x")
    with Journal.open(other.journal) as second, mirror_of(uri, other, second):
        second.resumed()
    for _ in range(2):
        with pytest.raises(RequestError, match=r"the sweep went on elsewhere; move that folder away"):
            check_current(uri, folder)
        more(journal)  # two stories now
    with pytest.raises(RequestError, match="went on elsewhere"), mirror_of(uri, folder, journal):
        pass


def test_a_driver_that_comes_between_is_seen(
    uri: str, store: Store, folder: RunFolder, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = first_line_of(folder) + b"other\n"
    segment = Segment.of(content, number=1, first=0, writer=FIRST)

    def slowly(store: Store, name: str) -> Writer:
        store.write(f"x/journal/{segment.name}", content)
        return claim(store, name)

    monkeypatch.setattr(module, "claim", slowly)
    with pytest.raises(RequestError, match="the sweep went on elsewhere"), mirror_of(uri, folder, journal):
        pass


# what is refused


def test_a_name_that_is_taken_in_the_storage(uri: str, folder: RunFolder, journal: Journal) -> None:
    check_free(uri, "x")
    with mirror_of(uri, folder, journal):
        pass
    with pytest.raises(RequestError, match=f"holds a sweep x already; resume it with --resume x --storage {uri}"):
        check_free(uri, "x")


def test_there_is_nothing_to_rebuild_from(uri: str, store: Store, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="holds no sweep x"):
        rebuild(uri, tmp_path, "x")
    store.write(f"x/writers/{FIRST}", b"")
    with pytest.raises(RequestError, match="holds no line of the journal of x"):
        rebuild(uri, tmp_path, "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("uri", "why"), [("nope://x", "Protocol not known: nope"), ("s3://x/y", "Install s3fs")])
def test_a_storage_without_its_plugin(uri: str, why: str) -> None:
    with pytest.raises(RequestError, match=f"--storage: {uri}: .*{why}.*; allowed: a folder, file://FOLDER"):
        check_free(uri, "x")


def test_a_storage_that_does_not_answer_at_the_start(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "names", lambda store, folder: failing(store, folder, b""))
    with pytest.raises(RequestError, match="cannot be used: 'the bucket is gone'"):
        check_free(uri, "x")


@pytest.mark.parametrize("written", ["{}", "file://{}"])
def test_a_folder_is_a_storage(folder: RunFolder, journal: Journal, tmp_path: Path, written: str) -> None:
    uri = written.format(tmp_path / "backup")
    check_free(uri, "x")
    with mirror_of(uri, folder, journal):
        more(journal)
    names = sorted(path.relative_to(tmp_path / "backup").parts[:2] for path in (tmp_path / "backup").rglob("*.*"))
    assert names == [("x", "journal"), ("x", "space.yaml")]
    assert mirrored(Store(uri), "x")[1] == folder.journal.read_bytes()


def test_a_run_that_is_not_mirrored_remembers_nothing(folder: RunFolder) -> None:
    assert remembered(folder) is None
    (folder.root / "mirror.json").write_text(json.dumps({"storage": "memory://x"}))
    assert remembered(folder) == "memory://x"
    forget(folder)
    assert remembered(folder) is None
