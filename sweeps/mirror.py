"""A copy of the journal elsewhere, kept current while the sweep runs: what a lost machine has not taken with it.

``STORAGE/NAME/journal/`` holds the journal's lines in segments, each written once and never changed:
``NUMBER-FIRST-LAST-WRITER-DIGEST.jsonl``, FIRST and LAST being line numbers from 0. ``STORAGE/NAME/writers/`` holds an
empty file ``WRITER`` (an epoch and a nonce) for every driver that has taken the sweep up. The latest of them is the one
that may write: any other stops as soon as it sees that. Where segments overlap, the later writer's count.

Only the journal (and the space) is mirrored. What a machine takes with it: the lines of the last seconds, the
checkpoints of running trials (which begin again), predictions and models.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Self

from repsim.errors import Mistake, RequestError, one_line
from sweeps.durable import write_atomically
from sweeps.lease import LeaseLost
from sweeps.mirror_store import Store
from sweeps.run_folder import RunFolder

EVERY = 10.0
"""Seconds between two segments: so much of the journal is lost with its machine, at most, where the storage answers."""
LAST_WORDS = 3.0
"""Seconds that the end of a launch waits for the last segment."""
_SEGMENT = re.compile(r"(\d{6,})-(\d+)-(\d+)-(\d{4,})([0-9a-f]{8})-([0-9a-f]{16})\.jsonl")
_WRITER = re.compile(r"(\d{4,})([0-9a-f]{8})")
NOTE = "mirror.json"
OFF = "none"
"""As a URI: no mirror any more."""


@dataclass(frozen=True, order=True)
class Writer:
    """A driver, by the order in which drivers took the sweep up; of two with one epoch the larger nonce goes first."""

    epoch: int
    nonce: str

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Read back ``str``; None for anything else."""
        found = _WRITER.fullmatch(name)
        return None if found is None else cls(int(found[1]), found[2])

    def __str__(self) -> str:
        return f"{self.epoch:04d}{self.nonce}"


@dataclass(frozen=True)
class Segment:
    """Lines ``first`` to ``last`` of the journal, both included."""

    number: int
    first: int
    last: int
    writer: Writer
    digest: str

    @classmethod
    def of(cls, content: bytes, *, number: int, first: int, writer: Writer) -> Self:
        """The segment that holds ``content``, whole lines."""
        return cls(number, first, first + content.count(b"\n") - 1, writer, digest_of(content))

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Read back ``name``; None for anything else."""
        found = _SEGMENT.fullmatch(name)
        if found is None:
            return None
        return cls(int(found[1]), int(found[2]), int(found[3]), Writer(int(found[4]), found[5]), found[6])

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.number:06d}-{self.first}-{self.last}-{self.writer}-{self.digest}.jsonl"


def digest_of(content: bytes) -> str:
    """Sixteen hexadecimal digits of SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def chain(segments: Iterable[Segment]) -> list[Segment]:
    """The segments that make up the journal, in order, from its first line on as far as they go without a gap.

    Where several go on from the same line, the latest writer's does: the others' are what a driver wrote before it had
    seen that it was replaced.
    """
    following: dict[int, Segment] = {}
    for segment in segments:
        rival = following.get(segment.first)
        if rival is None or (segment.writer, segment.last) > (rival.writer, rival.last):
            following[segment.first] = segment
    found: list[Segment] = []
    while (due := found[-1].last + 1 if found else 0) in following:
        found.append(following[due])
    return found


def mirrored(store: Store, name: str) -> tuple[list[Segment], bytes]:
    """The chain of a sweep's segments, each verified, and the journal that they hold; empty when there is none.

    A segment that is not what its name says was cut short as its driver died: it and what follows it do not count.
    """
    found = [Segment.parse(file) for file in store.names(f"{name}/journal")]
    good: list[Segment] = []
    content = b""
    for segment in chain(filter(None, found)):
        part = store.read(f"{name}/journal/{segment.name}")
        if digest_of(part) != segment.digest:
            break
        good.append(segment)
        content += part
    return good, content


def latest_writer(store: Store, name: str) -> Writer | None:
    """Who may write; None before anybody has."""
    return max(filter(None, map(Writer.parse, store.names(f"{name}/writers"))), default=None)


def claim(store: Store, name: str) -> Writer:
    """Become the one that may write."""
    before = latest_writer(store, name)
    writer = Writer(1 if before is None else before.epoch + 1, secrets.token_hex(4))
    store.write(f"{name}/writers/{writer}", b"")
    return writer


def check_free(uri: str, name: str) -> None:
    """RequestError when the storage cannot be used, or holds a sweep of that name."""
    store = Store(uri)
    with _reachable(store):
        taken = latest_writer(store, name) is not None
    if taken:
        _refuse(uri, f"holds a sweep {name} already; resume it with --resume {name} --storage {uri}, or choose --name")


def rebuild(uri: str, runs_dir: Path, name: str) -> None:
    """Make the run's folder from its mirror. RequestError when there is none, or it cannot be reached."""
    store = Store(uri)
    with _reachable(store):
        if latest_writer(store, name) is None:
            _refuse(uri, f"holds no sweep {name}, nor does {runs_dir}")
        claim(store, name)  # first: who else writes has to stop before it is known how far it came
        _, journal = mirrored(store, name)
        if not journal:
            _refuse(uri, f"holds no line of the journal of {name}: nothing can be resumed")
        space = store.read(f"{name}/space.yaml")
    note = json.dumps({"storage": uri}).encode() + b"\n"
    RunFolder.create(runs_dir, name, {"space.yaml": space, "journal.jsonl": journal, NOTE: note})


def remembered(folder: RunFolder) -> str | None:
    """The storage that an earlier launch mirrored a run to."""
    try:
        return str(json.loads((folder.root / NOTE).read_text(encoding="utf-8"))["storage"])
    except FileNotFoundError:
        return None


def forget(folder: RunFolder) -> None:
    """A run that is not mirrored any more."""
    (folder.root / NOTE).unlink(missing_ok=True)


def check_current(uri: str, folder: RunFolder) -> None:
    """RequestError when the mirror knows what the run's folder does not: somebody else has gone on with the sweep."""
    store = Store(uri)
    with _reachable(store):
        _, there = mirrored(store, folder.name)
    _check_begins_with(folder, there, uri)


def _check_begins_with(folder: RunFolder, there: bytes, uri: str) -> None:
    if not folder.journal.read_bytes().startswith(there):
        _refuse(
            uri,
            f"has more of {folder.name} than, or other than, {folder.root}: the sweep went on elsewhere; "
            f"move that folder away, and --resume makes it anew from here",
        )


class Mirror:
    """Uploads, on a thread of its own, what is new in the journal. ``settled`` says how many lines are there for good.

    A storage that fails is told of once (``say``) and tried again, for ever. Use as a context manager.
    """

    def __init__(
        self,
        uri: str,
        folder: RunFolder,
        settled: Callable[[], int],
        say: Callable[[str], None],
        *,
        every: float = EVERY,
    ) -> None:
        self._store, self._folder, self._settled, self._say, self._every = Store(uri), folder, settled, say, every
        self._writer: Writer | None = None
        self._segments: list[Segment] = []
        self._offset = 0
        self._away = self._lost = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_up, name="mirror", daemon=True)

    @property
    def lost(self) -> bool:
        """Whether another driver was seen to have taken the sweep up; it stays true."""
        return self._lost

    def check(self) -> None:
        """Raises LeaseLost once another driver was seen; takes no time."""
        if self._lost:
            raise LeaseLost(f"{self._where}: another launch has taken the sweep up from its mirror")

    def __enter__(self) -> Self:
        """Claim the sweep and begin; RequestError when the storage cannot be used, or has more than the folder.

        Call :func:`check_current` first: after the claim, whoever wrote before has to stop.
        """
        with _reachable(self._store):
            self._writer = claim(self._store, self._folder.name)
            self._store.write(f"{self._folder.name}/space.yaml", self._folder.space.read_bytes())
            self._segments, content = mirrored(self._store, self._folder.name)
        _check_begins_with(self._folder, content, self._store.uri)
        self._offset = len(content)
        write_atomically(self._folder.root / NOTE, json.dumps({"storage": self._store.uri}).encode() + b"\n")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(LAST_WORDS)
        behind = self._settled() - self._next
        if behind > 0 and not self._lost:
            self._say(f"{self._where} lacks the journal's last {behind} lines; --resume brings them there")

    @property
    def _where(self) -> str:
        return f"{self._store.uri}/{self._folder.name}"

    @property
    def _next(self) -> int:
        return self._segments[-1].last + 1 if self._segments else 0

    def _keep_up(self) -> None:
        while not self._over.wait(self._every):
            self.catch_up()
        self.catch_up()

    def catch_up(self) -> None:
        """Upload what is new, if anything is, and if this is still the driver that may."""
        try:
            self._upload()
        # Each plugin raises errors of its own, and none of them may end the sweep: it is told and tried again.
        except Exception as error:
            if not self._away:
                self._away = True
                said = one_line(" ".join(str(error).split()) or type(error).__name__, 200)
                self._say(
                    f"the mirror {self._where} does not answer ({said}); the sweep goes on, and is mirrored later"
                )
            return
        if self._away:
            self._away = False
            self._say(f"the mirror {self._where} is there again")

    def _upload(self) -> None:
        if self._lost:
            return
        if latest_writer(self._store, self._folder.name) != self._writer or self._writer is None:
            self._lost = True
            return
        count = self._settled() - self._next
        with self._folder.journal.open("rb") as file:
            file.seek(self._offset)
            lines = file.read().split(b"\n")[:-1][:count]
        if not lines:
            return
        content = b"".join(line + b"\n" for line in lines)
        segment = Segment.of(content, number=len(self._segments) + 1, first=self._next, writer=self._writer)
        self._store.write(f"{self._folder.name}/journal/{segment.name}", content)
        self._segments.append(segment)
        self._offset += len(content)


@contextmanager
def _reachable(store: Store) -> Iterator[None]:
    """Within, whatever the storage raises is the person's to know, as a RequestError."""
    try:
        yield
    except RequestError:
        raise
    except Exception as error:  # each plugin raises errors of its own
        said = one_line(" ".join(str(error).split()) or type(error).__name__, 200)
        raise RequestError(Mistake(where="--storage", key=store.uri, problem=f"cannot be used: {said}")) from None


def _refuse(uri: str, problem: str) -> NoReturn:
    raise RequestError(Mistake(where="--storage", key=uri, problem=problem))
