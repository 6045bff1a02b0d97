"""What importing a module loads, seen in fresh interpreters: the light doors stay light, and data flows one way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WATCHED = ("torch", "timm", "numpy", "scipy", "sklearn", "pandas", "ray", "optuna", "mlflow", "sweeps", "reports")
PROBE = """
import importlib, json, sys
names, watched = json.loads(sys.argv[1])
loaded, before = {}, set()
for name in names:
    importlib.import_module(name)
    now = {top for top in watched if top in sys.modules}
    loaded[name] = sorted(now - before)
    before = now
print(json.dumps(loaded))
"""


def modules_of(package: str) -> tuple[str, ...]:
    """Every module of a package, by file; ``__main__`` is a command and is not imported by anyone."""
    files = (ROOT / package).rglob("*.py")
    names = (".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files)
    return tuple(sorted(name.removesuffix(".__init__") for name in names if not name.endswith(".__main__")))


@cache
def loaded_by(modules: tuple[str, ...]) -> Mapping[str, list[str]]:
    """The watched packages that each module adds, imported one after the other in one new interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps([modules, WATCHED])],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: Mapping[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def offences(loaded: Mapping[str, Iterable[str]], never: Iterable[str]) -> dict[str, list[str]]:
    """The modules that load what they never may, with what it is."""
    found = {module: sorted(set(names) & set(never)) for module, names in loaded.items()}
    return {module: names for module, names in found.items() if names}


LIGHT = ("repsim", "repsim.errors", "repsim.catalogue", "repsim.records", "repsim.config", "repsim.front")
PLANNING = ("sweeps.space", "sweeps.arguments", "sweeps.estimate", "sweeps.launch", "sweeps.doctor")
RULES = {
    "the contracts": (LIGHT, WATCHED),
    "all of repsim": (modules_of("repsim"), ("ray", "optuna", "mlflow", "pandas", "sweeps", "reports")),
    "space and command line": (PLANNING, ("torch", "timm", "ray", "mlflow", "optuna", "pandas", "reports")),
    "search": (("sweeps.search",), ("torch", "timm", "ray", "mlflow", "reports")),
    "reports": (modules_of("reports"), ("torch", "timm", "ray", "optuna", "sweeps")),
}


@pytest.mark.parametrize("rule", RULES)
def test_nothing_is_loaded_that_may_not_be(rule: str) -> None:
    modules, never = RULES[rule]
    assert offences(loaded_by(modules), never) == {}


def test_the_check_can_fail() -> None:
    loaded = loaded_by(modules_of("repsim"))
    assert "torch" in {name for names in offences(loaded, ["torch"]).values() for name in names}
    assert offences({"repsim.a": ["torch"], "repsim.b": ["numpy"]}, ["torch", "ray"]) == {"repsim.a": ["torch"]}
    with pytest.raises(AssertionError, match=r"No module named 'repsim\.no_such_module'"):
        loaded_by(("repsim.no_such_module",))


def test_every_module_of_the_rules_is_looked_at() -> None:
    assert {"repsim.trainer", "repsim.penalties.repsim", "repsim.data"} <= set(modules_of("repsim"))
    assert "reports.build" in modules_of("reports")


def test_the_lazy_names_of_repsim_are_what_they_say() -> None:
    import repsim
    from repsim.config import TrialConfig

    assert repsim.TrialConfig is TrialConfig
    assert set(repsim.__all__) == set(repsim._HOME)
    with pytest.raises(AttributeError, match="module 'repsim' has no attribute 'Trianer'"):
        repsim.Trianer  # noqa: B018
