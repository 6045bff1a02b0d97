"""Rules that the sources keep, read from their syntax: who may import whom, no circles, sizes, types, names."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from source_tree import (
    PACKAGES,
    ROOT,
    calls_print,
    find_cycle,
    functions,
    import_graph,
    imports,
    length,
    missing_annotations,
    module_name,
    source_files,
    trees,
)

LONGEST_FUNCTION = 70
LONGEST_MODULE = 450
OURS = {*PACKAGES, "search_spaces", "benchmarks", "tests"}

CONTRACTS = {"repsim.config", "repsim.records", "repsim.catalogue", "repsim.errors", "repsim.front"}
LIBRARIES = {
    "repsim": {"torch", "timm", "numpy", "scipy", "sklearn", "PIL", "pydantic", "yaml", "filelock", "safetensors"},
    "sweeps": {
        "ray",
        "optuna",
        "mlflow",
        "sqlalchemy",
        "fsspec",
        "packaging",
        "numpy",
        "scipy",
        "torch",
        "pyarrow",
        "rich",
        "yaml",
        "filelock",
    },
    "reports": {"mlflow", "pandas", "pyarrow", "numpy", "scipy", "matplotlib", "plotly"},
}
"""What a package may import beside itself and the standard library."""
OPTIONAL = {"repsim": {"google", "medmnist", "onnx", "torchvision"}}
"""Imported where it is installed, done without where it is not."""
NEIGHBOURS = {"repsim": set[str](), "sweeps": {"repsim", "search_spaces"}, "reports": CONTRACTS}
"""What a package may import of ours beside itself: a package, or single modules of it."""
LIGHT = {
    **{name: {"pydantic", "yaml"} for name in CONTRACTS},
    "sweeps.space": {"yaml"},
    "sweeps.search": {"optuna"},
}
"""Modules that stay light: all that they may import, in functions as well, beside the standard library and ours."""
COMES_WITH = {"sqlalchemy": "mlflow", "packaging": "mlflow", "fsspec": "ray"}
"""Imported although pyproject.toml does not name it, because what it names cannot be without it."""
PRINTING = {"repsim.__main__", "repsim.weight_wheels"}
"""A command, and the message before a download that may take a minute."""


def top(module: str) -> str:
    return module.partition(".")[0]


def foreign(tree: ast.Module) -> set[str]:
    """Top-level names of what a file imports that is neither the standard library nor ours."""
    names = {top(found.module) for found in imports(tree)}
    return names - sys.stdlib_module_names - OURS - {""}


def strangers(package: str, name: str, tree: ast.Module) -> list[str]:
    """What a module imports against the rules of its package."""
    allowed = LIBRARIES[package] | OPTIONAL.get(package, set())
    found = [f"{name} imports {library}" for library in sorted(foreign(tree) - allowed)]
    for imported in imports(tree):
        inside = imported.module
        if top(inside) not in OURS or top(inside) == package:
            continue
        if not any(inside == friend or inside.startswith(f"{friend}.") for friend in NEIGHBOURS[package]):
            found.append(f"{name} imports {inside}")
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_what_it_may(package: str) -> None:
    assert [one for name, tree in trees(package).items() for one in strangers(package, name, tree)] == []


@pytest.mark.parametrize("name", LIGHT)
def test_a_light_module_imports_what_it_may(name: str) -> None:
    assert foreign(trees(top(name))[name]) <= LIGHT[name]


def test_forbidden_imports_are_seen_wherever_they_hide() -> None:
    text = "def f():\n    import ray.tune\nfrom sweeps import space\nimport repsim.trainer as t\nimport json\n"
    hidden = ast.parse(text)
    assert strangers("repsim", "m", hidden) == ["m imports ray", "m imports sweeps.space"]
    assert strangers("reports", "m", hidden) == [
        "m imports ray",
        "m imports sweeps.space",
        "m imports repsim.trainer",
    ]
    assert strangers("sweeps", "m", ast.parse("import reports.build, timm")) == [
        "m imports timm",
        "m imports reports.build",
    ]
    assert strangers("reports", "m", ast.parse("from repsim.records import METRICS\nimport pandas")) == []


def test_imports_are_absolute() -> None:
    relative = [f"{n}:{i.line}" for n, t in trees(*PACKAGES).items() for i in imports(t) if i.module.startswith(".")]
    assert relative == []
    assert [found.module for found in imports(ast.parse("from . import near"))] == ["..near"]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    graph = import_graph(trees(package))
    assert len(graph) > 5
    assert sum(map(len, graph.values())) > 5
    assert find_cycle(graph) is None


def test_a_circle_is_found() -> None:
    modules = {
        "p": ast.parse("from p.a import thing"),
        "p.a": ast.parse("from p import b"),
        "p.b": ast.parse("if True:\n    from p.c import x"),
        "p.c": ast.parse("import p.a"),
    }
    assert find_cycle(import_graph(modules)) == ["p.a", "p.b", "p.c", "p.a"]
    modules["p.c"] = ast.parse(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import p.a\ndef f(): import p.a"
    )
    assert find_cycle(import_graph(modules)) is None


def declared() -> dict[str, list[Requirement]]:
    """Dependencies by extra; the plain ones under the empty string."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: [Requirement(text) for text in texts] for extra, texts in groups.items()}


def closure() -> set[str]:
    """Canonical names of every distribution that the plain dependencies need, as installed here."""
    seen: set[str] = set()
    waiting = [(canonicalize_name(one.name), frozenset(one.extras)) for one in declared()[""]]
    while waiting:
        name, extras = waiting.pop()
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        seen.add(name)
        for one in map(Requirement, needs):
            wanted = one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras | {""})
            if wanted and canonicalize_name(one.name) not in seen:
                waiting.append((canonicalize_name(one.name), frozenset(one.extras)))
    return seen


def import_names(distributions: set[str]) -> set[str]:
    """Top-level import names that the distributions install."""
    found = importlib.metadata.packages_distributions()
    return {name for name, owners in found.items() if distributions & {canonicalize_name(one) for one in owners}}


@pytest.mark.parametrize("package", ["sweeps", "reports"])
def test_no_module_hides_another_when_its_folder_is_on_the_path(package: str) -> None:
    """``python sweeps/launch.py`` puts the folder first on the path."""
    taken = sys.stdlib_module_names | import_names(closure())
    assert {"json", "torch", "ray", "yaml", "click", "numpy"} <= taken
    stems = {path.stem for path in source_files(package)} - {"__init__"}
    assert len(stems) > 5
    assert stems & taken == set()


def test_what_is_imported_is_declared() -> None:
    names = {canonicalize_name(one.name) for group in declared().values() for one in group}
    owners = importlib.metadata.packages_distributions()
    undeclared = []
    for package in PACKAGES:
        for name, tree in trees(package).items():
            for library in sorted(foreign(tree) - OPTIONAL.get(package, set())):
                provided_by = {canonicalize_name(one) for one in owners.get(COMES_WITH.get(library, library), [])}
                if not provided_by & names:
                    undeclared.append(f"{name} imports {library}")
    assert undeclared == []


def test_every_declared_dependency_is_pinned_within_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    versions = {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in pins}
    assert len(versions) == len(pins)
    assert all(re.fullmatch(r"==\d[\w.]*", str(one.specifier)) for one in pins)
    for one in [*declared()[""], *declared()["dev"]]:
        assert one.specifier.contains(versions[canonicalize_name(one.name)]), one


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_and_functions_stay_short_enough_to_read(package: str) -> None:
    modules = {path: path.read_text(encoding="utf-8") for path in source_files(package)}
    assert {module_name(p): n for p, t in modules.items() if (n := len(t.splitlines())) > LONGEST_MODULE} == {}
    found = {f"{name}.{one.name}": length(one) for name, tree in trees(package).items() for one in functions(tree)}
    assert {name: lines for name, lines in found.items() if lines > LONGEST_FUNCTION} == {}


def test_length_counts_all_lines_of_a_function() -> None:
    (one,) = functions(ast.parse("x = 1\ndef f():\n    '''doc'''\n\n    return (\n        1)\ny = 2\n"))
    assert length(one) == 5


@pytest.mark.parametrize("package", PACKAGES)
def test_every_function_says_its_types(package: str) -> None:
    missing = {name: found for name, tree in trees(package).items() if (found := missing_annotations(tree))}
    assert missing == {}


def test_missing_types_are_seen() -> None:
    text = (
        "class A:\n    def f(self, a, *b: int, c) -> None: ...\n    @staticmethod\n    def g(x): ...\ndef h(**k): ...\n"
    )
    assert missing_annotations(ast.parse(text)) == ["h: k", "h: return", "f: a", "f: c", "g: x", "g: return"]


def test_the_library_does_not_print() -> None:
    found = {name for name, tree in trees("repsim").items() if calls_print(tree)}
    assert found - PRINTING == set()
    assert calls_print(ast.parse("def f():\n    print(1)\nself.print(2)\n")) == [2]


TEXT = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".json", ".css", ".html", ".sh", ".cfg", ""}
FOLDERS = ("repsim", "sweeps", "reports", "search_spaces", "benchmarks", "tests", "docs", "deploy", ".ci", ".github")
MACHINE = re.compile(r"\.\.[/]shared|/wor[k]/|/roo[t]/|/op[t]/")
"""Places that exist on one machine only."""


def text_files() -> list[Path]:
    """What the repository holds: the files of its root, and those of its folders."""
    inside = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    files = [path for path in [*ROOT.iterdir(), *inside] if path.is_file() and path.suffix in TEXT]
    return sorted(path for path in files if "__pycache__" not in path.parts and path.name != ".git")


def test_no_file_speaks_of_one_machine() -> None:
    files = text_files()
    assert {"README.md", "run", "launch.py", "test_source_rules.py"} <= {path.name for path in files}
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1)
        if MACHINE.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("text", ["see ../" + "shared/data", "cd /" + "work/main", "/" + "root/.cache", "/" + "opt/x"])
def test_a_place_of_one_machine_is_seen(text: str) -> None:
    assert MACHINE.search(text)
    assert not MACHINE.search("runs/NAME/report, https://example.org/optional/work, /tmp/report")
