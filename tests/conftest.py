"""What holds for every test: one thread, no display, and a cache of the session's own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Read once, when torch or matplotlib is first imported; sub-processes inherit them. Results depend on the thread count.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fuzz-cases",
        metavar="N",
        type=int,
        default=900,
        help="cases of wrong input in tests/faults/test_fuzz.py, split evenly over space files, --set values and csv "
        "files (default: 900); each is made from its number alone, so a larger N keeps the earlier ones",
    )


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the cache of the person who runs it, not even through a command it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPSIM_CACHE", str(tmp_path_factory.mktemp("repsim_cache")))
        yield
