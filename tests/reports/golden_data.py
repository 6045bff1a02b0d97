"""What the report's figures are built from, as plain data; ``python -m tests.reports.golden_data`` writes it.

Only after a change of computation that the changelog explains; ``origin.json`` says which commit they come from.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from reports import drawing
from reports.build import build_report
from reports.chapters import chapter
from reports.drawing import Draw
from reports.fronts import study
from reports.load import load_sweep
from reports.paper_style import paper_table
from reports.store import open_store
from sweeps.tracking import prepare_store
from tests.reports.golden_sweep import NAME, write_sweep

FOLDER = Path(__file__).parent / "golden"
DIGITS = 10


def plain(value: object) -> object:
    """Dataclasses, arrays and sets as JSON has them; floats to ten significant digits."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((plain(one) for one in value), key=str)
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def built(folder: Path) -> dict[str, object]:
    """The data behind every figure of the golden sweep's report, by file name, its answer and its paper table."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    prepare_store(uri)
    write_sweep(uri, folder)
    found: dict[str, object] = {}
    save = drawing.save

    def kept(draw: Draw, to: Path, stem: str) -> tuple[str, str]:
        if not isinstance(draw, partial):
            raise TypeError(f"{stem} is drawn from something else than data")
        found[stem] = plain(draw.args)
        return save(draw, to, stem)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "save", kept)
        patch.setattr(chapter, "save", kept)
        build_report(NAME, uri, folder / "report", log=False)
    sweep = load_sweep(open_store(uri), NAME)
    studies = [study(sweep, data) for data in sweep.data_sets]
    ids = dict(zip(sweep.trials["mlflow_run_id"], sweep.trials["trial_id"], strict=True))
    found["answer"] = plain([[{"role": p.role, "point": p.point} for p in one.picks] for one in studies])
    found["paper"] = plain(paper_table(sweep, studies))
    text = json.dumps(found)
    for run, trial in ids.items():  # MLflow draws its ids at random
        text = text.replace(str(run), str(trial))
    names: dict[str, object] = json.loads(text)
    return names


def main() -> int:
    """Write the folder anew."""
    with tempfile.TemporaryDirectory() as temporary:
        found = built(Path(temporary))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    found["origin"] = {"commit": commit.stdout.strip(), "date": date.today().isoformat()}
    for old in FOLDER.glob("*.json"):
        old.unlink()
    for name, data in found.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(data, separators=(",", ":")) + "\n", encoding="utf-8")
    print(FOLDER)
    return 0


if __name__ == "__main__":
    sys.exit(main())
