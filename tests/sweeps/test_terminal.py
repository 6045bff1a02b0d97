"""Standard output whose reader goes away."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys, time
from sweeps.terminal import make_unbreakable
make_unbreakable()
make_unbreakable()
for number in range(20000):
    print("line", number, flush=True)
print("still there", file=sys.stderr)
"""


def test_a_reader_that_goes_away_takes_nothing_with_it() -> None:
    process = subprocess.Popen([sys.executable, "-c", CODE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "line 0\n"
    process.stdout.close()
    assert process.stderr.read() == "still there\n"
    process.stderr.close()
    assert process.wait(timeout=60) == 0
