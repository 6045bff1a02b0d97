"""The MLflow store: opened if it is there, never created; and what is searched in it."""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from repsim.errors import Mistake, RequestError, nearest, one_line
from repsim.records import KIND_SWEEP, Tag

DEFAULT_STORE = "mlflow.db"
_CONNECT_SECONDS = 5.0
_STORE_FORMS = "sqlite:///FILE, or the http address of an MLflow server"


def default_tracking_uri() -> str:
    """``MLFLOW_TRACKING_URI`` where it is set, else ``mlflow.db`` in the current folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / DEFAULT_STORE}"


def open_store(tracking_uri: str, *, create: bool = False) -> Any:
    """An MlflowClient on an existing store.

    Raises RequestError when there is none: a database is made where ``create`` says so alone, and a server that does
    not answer is found out in seconds.
    """
    try:
        scheme = urlsplit(tracking_uri).scheme
    except ValueError as error:
        raise RequestError(_store_mistake(tracking_uri, f"is not an address: {error}", _STORE_FORMS)) from None
    if scheme == "sqlite" and not (create and not _sqlite_file(tracking_uri).exists()):
        _check_sqlite(tracking_uri)
    elif scheme in ("http", "https"):
        _check_server(tracking_uri)
    elif scheme in ("", "file"):
        raise RequestError(
            _store_mistake(tracking_uri, "is a folder or a file name, not the address of a store", _STORE_FORMS)
        )
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient(tracking_uri=tracking_uri)
        client.search_experiments(max_results=1)
    except (MlflowException, ModuleNotFoundError) as error:
        raise RequestError(_store_mistake(tracking_uri, f"cannot be read: {one_line(str(error), 300)}")) from None
    return client


def _store_mistake(tracking_uri: str, problem: str, allowed: str = "") -> Mistake:
    return Mistake(where="--tracking-uri", key="", problem=f"{one_line(tracking_uri, 200)} {problem}", allowed=allowed)


def _sqlite_file(tracking_uri: str) -> Path:
    return Path(tracking_uri.removeprefix("sqlite:///").partition("?")[0])


def _check_sqlite(tracking_uri: str) -> None:
    path = _sqlite_file(tracking_uri)
    if not os.path.isfile(path):
        problem = "does not exist (no sweep has been recorded there)"
        raise RequestError(_store_mistake(tracking_uri, problem, "the store a sweep wrote: sqlite:///FOLDER/mlflow.db"))
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            tables = {row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")}
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise RequestError(_store_mistake(tracking_uri, f"cannot be read: {error}", _STORE_FORMS)) from None
    if not {"runs", "experiments", "tags"} <= tables:
        raise RequestError(_store_mistake(tracking_uri, "is a database, but not an MLflow store", _STORE_FORMS))


def _check_server(tracking_uri: str) -> None:
    parts = urlsplit(tracking_uri)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=_CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise RequestError(_store_mistake(tracking_uri, f"does not answer: {error}", _STORE_FORMS)) from None


def find_sweep(client: Any, name: str) -> Any:
    """The parent run of sweep ``name`` (``latest``: the one started last); RequestError when there is none."""
    parents = search_all(client, f"tags.{Tag.KIND} = '{KIND_SWEEP}'")
    if not parents:
        raise RequestError(Mistake(where="--sweep", key="", problem="this store holds no sweep at all"))
    parents.sort(key=lambda run: run.info.start_time, reverse=True)
    if name == "latest":
        return parents[0]
    for run in parents:
        if run.data.tags.get(Tag.SWEEP) == name:
            return run
    known = list(dict.fromkeys(run.data.tags.get(Tag.SWEEP, "") for run in parents))
    allowed = ", ".join(["latest", *known[:8]]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
    problem = f"{one_line(name)} is not a sweep in this store"
    raise RequestError(
        Mistake(where="--sweep", key="", problem=problem, allowed=allowed, suggestion=nearest(name, known))
    )


def search_all(
    client: Any, filter_string: str, experiments: Iterable[str] | None = None, *, deleted: bool = False
) -> list[Any]:
    """Every active (or every deleted) run that matches, from the given experiments (default: all), over all pages."""
    from mlflow.entities import ViewType

    view = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
    ids = list(experiments) if experiments is not None else [item.experiment_id for item in _experiments(client)]
    found: list[Any] = []
    token = None
    while ids:
        page = client.search_runs(ids, filter_string, view, max_results=1000, page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            break
    return found


def _experiments(client: Any) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = client.search_experiments(max_results=1000, page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            return found
