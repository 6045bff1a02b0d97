"""The MLflow store: reachable, of the right version, not locked. Reads only; what is not there is not made."""

from __future__ import annotations

import base64
import importlib.metadata
import importlib.util
import json
import os
import re
import socket
import sqlite3
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

from repsim.errors import RequestError
from sweeps.doctor_checks.findings import Finding, bad, doubt, good
from sweeps.doctor_checks.places import filesystem
from sweeps.tracking_uri import redacted, resolve_tracking_uri, sqlite_path

NAME = "mlflow"
UI_PORT = 5000
_SECONDS = 5.0
_LOCK_SECONDS = 3.0
_VERSION = "SELECT version_num FROM alembic_version"
_PLACES = "SELECT artifact_location FROM experiments"
_REVISION = re.compile(r'^(revision|down_revision) *(?::[^=]+)?= *"(\w+)"', flags=re.MULTILINE)
_NETWORK_DISKS = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "glusterfs")


def store(uri: str | None) -> list[Finding]:
    """The store that ``--tracking-uri`` (None: what a sweep would take) names."""
    given = uri or os.environ.get("MLFLOW_TRACKING_URI") or ""
    if given.startswith(("http://", "https://")):
        return _server(given.rstrip("/"))
    try:
        resolved = resolve_tracking_uri(uri)
    except RequestError as error:
        return [bad(NAME, mistake.problem, mistake.allowed or "name another store") for mistake in error.mistakes]
    path = sqlite_path(resolved)
    return _database(resolved) if path is None else _sqlite(path)


def _sqlite(path: Path) -> list[Finding]:
    kind = filesystem(path.parent)
    found = []
    if kind is not None and kind.startswith(_NETWORK_DISKS):
        advice = "run an MLflow server (deploy/README.md) or keep the file on a local disk"
        found.append(doubt(NAME, f"{path} lies on {kind}, where SQLite's locks are not reliable", advice))
    if not path.exists() or path.stat().st_size == 0:
        return [*found, good(NAME, f"{path} does not exist yet: the first sweep makes it")]
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=_LOCK_SECONDS)) as connection:
            connection.isolation_level = None
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
            rows = connection.execute(_VERSION).fetchall()
            places = connection.execute(_PLACES).fetchall()
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            advice = "end the program that holds it (a sweep waits 20 s, then is refused)"
            return [*found, bad(NAME, f"{path} has been locked for {_LOCK_SECONDS:g} s", advice)]
        return [*found, bad(NAME, f"{path}: {error}", "name another file, or restore this one from a backup")]
    except sqlite3.DatabaseError as error:
        return [*found, bad(NAME, f"{path}: {error}", "name another file, or restore this one from a backup")]
    found.append(_schema(f"sqlite:///{path}", str(path), [str(row[0]) for row in rows]))
    return found + _owner(str(path), [str(row[0]) for row in places])


def _database(uri: str) -> list[Finding]:
    """A database that has just answered (``resolve_tracking_uri`` asked it)."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    try:
        with engine.connect() as connection:
            if not sqlalchemy.inspect(connection).has_table("alembic_version"):
                return [good(NAME, f"{redacted(uri)} is empty: the first sweep makes its tables")]
            rows = connection.execute(sqlalchemy.text(_VERSION)).all()
            places = connection.execute(sqlalchemy.text(_PLACES)).all()
    except sqlalchemy.exc.SQLAlchemyError as error:
        said = " ".join(str(error.__cause__ or error).split())[:200]
        return [bad(NAME, f"{redacted(uri)}: {said}", "give the user of that name its rights on the database")]
    finally:
        engine.dispose()
    schema = _schema(uri, redacted(uri), [str(row[0]) for row in rows])
    return [schema, *_owner(redacted(uri), [str(row[0]) for row in places])]


def _schema(uri: str, shown: str, versions: list[str]) -> Finding:
    """Whether a store's tables are those of the installed MLflow."""
    revisions = known_revisions()
    head = (set(revisions) - set(revisions.values())).pop()
    if versions == [head]:
        return good(NAME, f"{shown} answers, its tables are those of MLflow {importlib.metadata.version('mlflow')}")
    if versions and versions[0] in revisions:
        advice = f"back it up, then: mlflow db upgrade {redacted(uri)}"
        return bad(NAME, f"{shown} was made by an older MLflow (schema {versions[0]}, not {head})", advice)
    said = versions[0] if versions else "none"
    return bad(NAME, f"{shown} was made by a newer MLflow (schema {said})", "pip install --upgrade mlflow")


def _owner(shown: str, places: list[str]) -> list[Finding]:
    """A database that a server made: where its artifacts are, only the server knows."""
    if any(place.startswith("mlflow-artifacts:") for place in places):
        found = f"{shown} belongs to an MLflow server, which keeps the artifacts of its experiments"
        return [doubt(NAME, found, "write through it: --tracking-uri http://SERVER:5000")]
    return []


def known_revisions() -> dict[str, str]:
    """Each revision of the installed MLflow's tables with the one before it, read without importing MLflow."""
    found = importlib.util.find_spec("mlflow")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("mlflow is not installed")
    revisions = {}
    for path in (Path(found.origin).parent / "store" / "db_migrations" / "versions").glob("*.py"):
        said = dict(_REVISION.findall(path.read_text(encoding="utf-8")))
        if "revision" in said:
            revisions[said["revision"]] = said.get("down_revision", "")
    return revisions


def _server(uri: str) -> list[Finding]:
    """A server: its health, its version, and whether it lets this user read."""
    try:
        _ask(f"{uri}/health")
        version = _ask(f"{uri}/version").decode(errors="replace").strip()
        answer = json.loads(_ask(f"{uri}/api/2.0/mlflow/experiments/search", {"max_results": 1}))
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            advice = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            return [bad(NAME, f"{redacted(uri)} refuses access (HTTP {error.code})", advice)]
        advice = "see the server's log (its database may be away), and whether the address is right"
        return [bad(NAME, f"{redacted(uri)} answers with HTTP {error.code}", advice)]
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        advice = "start it (deploy/README.md), correct the address, or keep it out of the proxy (NO_PROXY)"
        return [bad(NAME, f"{redacted(uri)} does not answer as an MLflow server: {reason}", advice)]
    here = importlib.metadata.version("mlflow")
    if not isinstance(answer, dict) or not re.match(r"\d+\.", version):
        return [bad(NAME, f"{redacted(uri)} is something else than an MLflow server", "correct the address")]
    if version.split(".")[0] != here.split(".")[0]:
        return [doubt(NAME, f"{redacted(uri)} is MLflow {version}, here is {here}", "install the same version on both")]
    return [good(NAME, f"{redacted(uri)} answers, MLflow {version}")]


def _ask(url: str, document: object = None) -> bytes:
    request = urllib.request.Request(url, data=None if document is None else json.dumps(document).encode())
    request.add_header("Content-Type", "application/json")
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{what}") for what in ("USERNAME", "PASSWORD"))
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if user and password:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
    elif token:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
        read: bytes = answer.read(1_000_000)
    return read


def ui_port(port: int = UI_PORT) -> Finding:
    """Whether ``mlflow ui`` can listen where it does by default."""
    name = f"port {port}"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return doubt(name, "in use", f"mlflow ui --port {port + 1} (nothing to do where it is your MLflow server)")
    return good(name, "free for mlflow ui")
