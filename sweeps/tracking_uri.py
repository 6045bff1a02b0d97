"""Which MLflow store a sweep writes to: the URI is checked before anything starts, the database made once."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import threading
import urllib.parse
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.errors import Mistake, RequestError, nearest, one_line

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

ALLOWED = "sqlite:///FILE.db, http://HOST:PORT, https://HOST, postgresql://…, mysql://… or mssql://…"
PROBE_SECONDS = 5.0
"""A server that has not answered by then counts as unreachable."""

_SERVERS = ("http", "https")
_DATABASES = ("postgresql", "mysql", "mssql")
_SQLITE_MAGIC = b"SQLite format 3\x00"
_NO_URI = re.compile(r"\?|%[0-9A-Fa-f]{2}")  # SQLAlchemy cuts the one off and decodes the other
_ENVIRONMENT = "MLFLOW_TRACKING_URI"
_FLAG = "--tracking-uri"


def resolve_tracking_uri(uri: str | None) -> str:
    """The absolute URI of the store to write to: ``uri``, else ``MLFLOW_TRACKING_URI``, else ``./mlflow.db``.

    Writes nothing. Raises :class:`RequestError` for a folder or ``file:`` URI (MLflow gave those up), an unknown
    scheme, a database file that cannot be opened or belongs to something else, and a server that does not answer
    within :data:`PROBE_SECONDS`.
    """
    where = _FLAG
    if uri is None:
        uri, where = os.environ.get(_ENVIRONMENT, ""), _ENVIRONMENT
        if uri == "":
            uri, where = f"sqlite:///{Path.cwd() / 'mlflow.db'}", "mlflow.db"
    scheme = uri.partition(":")[0].partition("+")[0].lower() if ":" in uri else ""
    if scheme == "sqlite":
        return _resolve_sqlite(uri, where)
    if scheme in _SERVERS:
        _probe(uri, where, lambda: _ask_server(uri), _server_problem)
        return uri
    if scheme in _DATABASES:
        _probe(uri, where, lambda: _ask_database(uri), _database_problem)
        return uri
    if scheme in ("", "file"):
        folder = uri.partition(":")[2].removeprefix("//") if scheme == "file" else uri
        problem = f"{one_line(uri)} is a folder, and MLflow keeps no runs in plain folders any more"
        instead = f"sqlite:///{Path(folder or '.') / 'mlflow.db'}" if "\x00" not in folder else "sqlite:///mlflow.db"
        raise RequestError(Mistake(where=where, key="", problem=f"{problem}; write {one_line(instead)}"))
    raise RequestError(
        Mistake(
            where=where,
            key="",
            problem=f"{one_line(redacted(uri))} has an unknown scheme",
            allowed=ALLOWED,
            suggestion=nearest(scheme, ("sqlite", *_SERVERS, *_DATABASES)),
        )
    )


class StoreBusyError(OSError):
    """The database is there and cannot be used now."""


def prepare_store(uri: str) -> None:
    """Create the sqlite database behind ``uri`` unless it exists, and check that this MLflow can read the store.

    MLflow creates its tables in steps; several processes opening a fresh file at once crash, and a kill in between
    leaves a file nobody can open. So the database is made under another name, under a lock, and moved into place.
    Prints nothing. Raises :class:`RequestError` when the store cannot be used, StoreBusyError when it cannot be yet.
    """
    path = sqlite_path(uri)
    if path is not None:
        try:
            _create_database(path)
        except OSError as error:
            raise RequestError(Mistake(where=uri, key="", problem=f"cannot be written: {error.strerror}")) from None
    _import_mlflow()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with quiet_mlflow():
            open_client(uri).search_experiments(max_results=1)
    except MlflowException as error:
        raise RequestError(Mistake(where=redacted(uri), key="", problem=_store_problem(uri, error))) from None
    except SQLAlchemyError as error:  # a lock that was held for longer than the driver waits
        raise StoreBusyError(" ".join(str(error).split())) from None


def open_client(uri: str) -> MlflowClient:
    """A client of the store; MLflow is imported here, quietly and without its telemetry."""
    _import_mlflow()
    from mlflow.tracking import MlflowClient

    # a request that failed is tried again by the writer, which looks first whether it was carried out
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    with quiet_mlflow():
        return MlflowClient(tracking_uri=uri)


@contextmanager
def quiet_mlflow() -> Iterator[None]:
    """Keep MLflow, alembic and SQLAlchemy off the terminal: their log lines from now on, their warnings inside.

    What goes wrong reaches the person through this project's own messages. MLflow sets its level when it is imported,
    so the levels hold for what is imported before the block.
    """
    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _import_mlflow() -> None:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.tracking  # noqa: F401


def sqlite_path(uri: str) -> Path | None:
    """The file behind a ``sqlite:///`` URI; None for every other store."""
    prefix, separator, rest = uri.partition(":///")
    return Path(rest) if separator and prefix.partition("+")[0].lower() == "sqlite" else None


def artifact_location(uri: str, experiment: str, root: Path | None = None) -> str | None:
    """Where a new experiment keeps its artifacts: a folder in ``root``, by default ``./mlruns`` beside sqlite.

    None: the server decides.
    """
    if root is None:
        if sqlite_path(uri) is None:
            return None
        root = Path.cwd() / "mlruns"
    folder = re.sub(r"[^\w.-]", "_", experiment).lstrip(".") or "_"
    return (root.absolute() / folder).as_uri()


def redacted(uri: str) -> str:
    """``uri`` without the password in it."""
    return re.sub(r"(://[^/@:]*):[^@/]*@", r"\1:…@", uri)


def _resolve_sqlite(uri: str, where: str) -> str:
    def refuse(problem: str) -> RequestError:
        return RequestError(Mistake(where=where, key="", problem=problem))

    path = sqlite_path(uri)
    if path is None or path.name == "" or "\x00" in uri:
        raise refuse(f"{one_line(uri)} names no file; write sqlite:///mlflow.db (three slashes, four before a root)")
    path = path.absolute()
    shown = one_line(str(path), 200)
    if _NO_URI.search(str(path)):
        raise refuse(f"{shown}: a sqlite URI cannot hold a path with a question mark or %41; work in another folder")
    try:
        if path.is_dir():
            raise refuse(f"{shown} is a folder; name a file in it: sqlite:///{path / 'mlflow.db'}")
        if not path.parent.is_dir():
            raise refuse(f"{shown}: the folder {one_line(str(path.parent), 200)} does not exist")
        if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
            raise refuse(f"{shown} is not writable")
        if path.exists() and path.stat().st_size > 0:
            with path.open("rb") as file:
                if file.read(len(_SQLITE_MAGIC)) != _SQLITE_MAGIC:
                    raise refuse(f"{shown} is not a SQLite database")
            if not _is_mlflows(path):
                raise refuse(f"{shown} is the database of another program; name another file")
    except OSError as error:
        raise refuse(f"{shown} cannot be opened: {error.strerror}") from None
    except sqlite3.DatabaseError as error:
        raise refuse(f"{shown} cannot be read: {error}") from None
    return f"sqlite:///{path}"


def _is_mlflows(path: Path) -> bool:
    address = f"file:{urllib.parse.quote(str(path))}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=1.0)) as connection:
        try:
            rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        except sqlite3.OperationalError:  # locked by a writer: then it is in use, and later opens wait for it
            return True
    tables = {str(row[0]) for row in rows}
    return not tables or {"experiments", "runs"} <= tables


def _create_database(path: Path) -> None:
    from filelock import FileLock

    with FileLock(path.with_name(f".{path.name}.lock")):
        if path.exists() and path.stat().st_size > 0:
            return
        draft = path.with_name(f".{path.name}.new")
        draft.unlink(missing_ok=True)
        _import_mlflow()
        with quiet_mlflow():
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

            make_store: Callable[[str, str], Any] = SqlAlchemyStore  # untyped in MLflow
            make_store(f"sqlite:///{draft}", str(path.parent / "mlruns")).engine.dispose()
        draft.replace(path)


def _probe(uri: str, where: str, ask: Callable[[], None], explain: Callable[[Exception], str]) -> None:
    """Run ``ask`` for at most PROBE_SECONDS; RequestError when it fails or does not end."""
    _import_mlflow()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    outcome: list[Exception | None] = []

    def run() -> None:
        try:
            ask()
        except (MlflowException, SQLAlchemyError, ImportError, OSError, ValueError) as error:
            outcome.append(error)
        else:
            outcome.append(None)

    thread = threading.Thread(target=run, name="tracking-probe", daemon=True)
    with quiet_mlflow(), _environment(MLFLOW_HTTP_REQUEST_TIMEOUT="4", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0"):
        thread.start()
        thread.join(PROBE_SECONDS)
    failure = outcome[0] if outcome else TimeoutError("timed out")
    if failure is not None:
        raise RequestError(Mistake(where=where, key="", problem=f"{one_line(redacted(uri))} {explain(failure)}"))


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def _ask_server(uri: str) -> None:
    from mlflow.tracking import MlflowClient

    MlflowClient(tracking_uri=uri).search_experiments(max_results=1)


def _ask_database(uri: str) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    engine.connect().close()
    engine.dispose()


def _server_problem(error: Exception) -> str:
    text = str(error)
    code = re.search(r"error code (\d{3})", text)
    if code is not None and code[1] in ("401", "403"):
        return f"refuses access (HTTP {code[1]}); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    if code is not None or "not in a valid JSON format" in text:
        return "answers, but not as an MLflow server does"
    return f"cannot be reached: {_cause(text)}"


def _database_problem(error: Exception) -> str:
    if isinstance(error, ImportError):
        return f"needs a driver that is not installed: {one_line(error.name or str(error))}"
    return f"cannot be opened: {_cause(str(error))}"


def _store_problem(uri: str, error: Exception) -> str:
    if "out-of-date database schema" in str(error) or "Can't locate revision" in str(error):
        return f"was made by another version of MLflow; back it up and run: mlflow db upgrade {redacted(uri)}"
    return f"cannot be used: {_cause(str(error))}"


def _cause(text: str) -> str:
    """The part of a long library message that says what happened, on one line."""
    if "timed out" in text or "timeout" in text.lower():
        return "timed out"
    found = re.search(r"\[Errno -?\d+\] ([^'\"()]+)", text)
    return one_line(found[1].strip() if found else " ".join(text.split()), 160).strip("'\"")
