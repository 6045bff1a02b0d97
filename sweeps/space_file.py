"""Finds and reads a space file, and applies what the command line changes in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import search_spaces
from repsim.errors import Mistake, RequestError, nearest, one_line
from sweeps.space_notes import Notes
from sweeps.space_overrides import Edits
from sweeps.space_rules import TOP_KEYS, build_space
from sweeps.space_types import Space
from sweeps.space_yaml import parse_yaml

FOLDER = Path(search_spaces.__file__).parent
"""The packaged spaces."""
_SUFFIX = ".yaml"
_MAX_BYTES = 1_000_000


def find_space(path_or_name: str) -> Path:
    """The file meant by a path, or by a name in search_spaces/; RequestError when there is none."""
    flag = f"--space {one_line(path_or_name)[1:-1]}"
    if not path_or_name.strip() or "\x00" in path_or_name:
        raise RequestError(Mistake(where=flag, key="", problem="is not a file name", allowed=_packaged()))
    written = Path(path_or_name)
    candidates = [written, Path(path_or_name + _SUFFIX)]
    if len(written.parts) == 1:
        candidates += [FOLDER / candidate for candidate in candidates]
    try:
        for candidate in candidates:
            if candidate.is_file():
                return candidate
        problem = "is a folder" if written.is_dir() else "is not a file" if written.exists() else "does not exist"
    except (OSError, ValueError) as error:
        raise RequestError(Mistake(where=flag, key="", problem=f"cannot be read: {error}")) from None
    names = available_spaces()
    raise RequestError(
        Mistake(
            where=flag,
            key="",
            problem=problem,
            allowed=_packaged(),
            suggestion=nearest(path_or_name.removesuffix(_SUFFIX), names) if len(written.parts) == 1 else None,
        )
    )


def available_spaces() -> tuple[str, ...]:
    """Names of the packaged spaces, without ``.yaml``."""
    return tuple(sorted(path.stem for path in FOLDER.glob(f"*{_SUFFIX}")))


def _packaged() -> str:
    return f"a path, or one of search_spaces/: {', '.join(available_spaces())}"


def load_space(
    path_or_name: str,
    overrides: Sequence[str] = (),
    *,
    data: Sequence[str] | None = None,
    trials: int | None = None,
    parallel: int | None = None,
    seed: int | None = None,
) -> Space:
    """Read and validate a space: a path, or the name of a file in search_spaces/ (``.yaml`` may be left out).

    ``overrides`` are ``KEY=VALUE`` (dotted key, YAML value); the others replace ``data``, ``budget.trials``,
    ``search.parallel`` and ``search.seed``. Raises :class:`repsim.errors.RequestError` with every mistake at once.
    """
    path = find_space(path_or_name)
    notes = Notes(where=str(path))
    document = _read_document(path, notes)
    edits = Edits(document=document, notes=notes)
    for override in overrides:
        edits.apply(override)
    if data is not None:
        edits.put("--data", ("data",), list(data))
    for flag, place, value in (
        ("--trials", ("budget", "trials"), trials),
        ("--parallel", ("search", "parallel"), parallel),
        ("--seed", ("search", "seed"), seed),
    ):
        if value is not None:
            edits.put(flag, place, value)
    return build_space(document, notes=notes, narrowed=edits.narrowed)


def _read_document(path: Path, notes: Notes) -> dict[str, object]:
    """The mapping in a file; RequestError when it cannot be read or is something else."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise RequestError(Mistake(where=str(path), key="", problem=f"is larger than {_MAX_BYTES} bytes"))
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
        raise RequestError(Mistake(where=str(path), key="", problem=problem)) from None
    except UnicodeDecodeError:
        raise RequestError(Mistake(where=str(path), key="", problem="is not text in UTF-8")) from None
    value = parse_yaml(text, notes)
    if isinstance(value, dict):
        return value
    if not notes.mistakes:
        what = "is empty" if value is None else f"holds {one_line(value)}, not keys and values"
        notes.add("", what, allowed=f"the keys {', '.join(TOP_KEYS)}")
    raise RequestError(*notes.mistakes)
