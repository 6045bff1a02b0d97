"""Where a mirror is kept: any file system that fsspec knows, reduced to list, read and write whole files."""

from __future__ import annotations

from typing import NoReturn

from repsim.errors import Mistake, RequestError, one_line

ALLOWED = "a folder, file://FOLDER, or what an installed fsspec plugin serves (s3://BUCKET/FOLDER needs s3fs)"


class Store:
    """A folder of files that are written once. Methods raise whatever the storage's plugin raises."""

    def __init__(self, uri: str) -> None:
        """RequestError when the URI is none, or its plugin is not installed; the storage itself is not asked."""
        import fsspec

        self.uri = uri.rstrip("/")
        try:
            self._files, self._root = fsspec.core.url_to_fs(uri, use_listings_cache=False)
        except (ImportError, ValueError, OSError) as error:
            _refuse(uri, one_line(str(error), 200))

    def names(self, folder: str) -> list[str]:
        """Sorted names of the files directly in a folder; none where it is not there."""
        try:
            found = self._files.ls(self._at(folder), detail=False, refresh=True)
        except FileNotFoundError:
            return []
        return sorted(str(path).rstrip("/").rpartition("/")[2] for path in found)

    def read(self, path: str) -> bytes:
        """A whole file."""
        return bytes(self._files.cat_file(self._at(path)))

    def write(self, path: str, content: bytes) -> None:
        """A whole file; a reader may see a part of it until this returns."""
        target = self._at(path)
        self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._files.pipe_file(target, content)

    def _at(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}"


def _refuse(uri: str, problem: str) -> NoReturn:
    raise RequestError(Mistake(where="--storage", key=uri, problem=problem, allowed=ALLOWED)) from None
