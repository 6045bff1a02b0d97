"""Where a run is in the MLflow UI. What may be secret in a store's address stays out of the page."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from reports.store import DEFAULT_STORE

LOCAL_UI = "http://127.0.0.1:5000"
"""Where ``mlflow ui`` answers unless told otherwise."""
_DATABASES = ("postgresql", "mysql", "mssql", "sqlite")


@dataclass(frozen=True, kw_only=True)
class RunLinks:
    """The addresses of an experiment's runs in the MLflow UI.

    ``base`` is what stands before a run's id, None where no UI of the store is known; ``command`` is what has to run
    for the addresses to answer, "" where a server does already; ``where`` is where to run it.
    """

    base: str | None
    command: str
    where: str

    def run(self, run_id: str) -> str | None:
        """The address of one run's page."""
        return None if self.base is None else self.base + quote(run_id, safe="")


def run_links(tracking_uri: str, experiment_id: str) -> RunLinks:
    """Links into the store at ``tracking_uri``, without user, password or query of that address.

    MLflow's UI routes by the fragment: ``#/experiments/ID/runs/RUN`` (its ``getRunPageRoute``), whatever path the
    server is mounted at. A database has no UI of its own: ``mlflow ui`` is to be started on it.
    """
    route = f"/#/experiments/{quote(experiment_id, safe='')}/runs/"
    parts = urlsplit(tracking_uri)
    if parts.scheme in ("http", "https"):
        host = parts.netloc.rpartition("@")[2]
        path = quote(parts.path.rstrip("/"), safe="/%")
        return RunLinks(base=f"{parts.scheme}://{host}{path}{route}", command="", where="")
    if parts.scheme == "sqlite":
        file = Path(tracking_uri.removeprefix("sqlite:///").partition("?")[0]).absolute()
        if file == Path.cwd() / DEFAULT_STORE:
            command, where = "mlflow ui", f"in the folder that holds {DEFAULT_STORE}"
        else:
            command, where = f"mlflow ui --backend-store-uri {shlex.quote(f'sqlite:///{file}')}", ""
        return RunLinks(base=LOCAL_UI + route, command=command, where=where)
    if parts.scheme.partition("+")[0] in _DATABASES:
        where = "where MLFLOW_TRACKING_URI is the address of the store, which is not shown: it may hold a password"
        command = 'mlflow ui --backend-store-uri "$MLFLOW_TRACKING_URI"'
        return RunLinks(base=LOCAL_UI + route, command=command, where=where)
    return RunLinks(base=None, command="", where="")
