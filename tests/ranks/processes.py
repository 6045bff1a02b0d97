"""Ranks as processes of their own."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.ranks.cases import Answer

Together = Callable[[int, str], list[Answer]]


def start_ranks(folder: Path, size: int, names: Sequence[str]) -> list[subprocess.Popen[str]]:
    """One process per rank."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "error", "-m", "tests.ranks.worker"]
    return [
        subprocess.Popen(
            [*command, str(rank), str(size), str(port), str(folder), *names], stderr=subprocess.PIPE, text=True
        )
        for rank in range(size)
    ]
