"""Reads the sources as syntax trees, for the checks beside this file."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("repsim", "sweeps", "reports")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Imported:
    """One imported name: the module it is said to come from, its line, and whether importing the file imports it."""

    module: str
    line: int
    at_import: bool


def module_name(path: Path, root: Path = ROOT) -> str:
    """``repsim/data/__init__.py`` is ``repsim.data``."""
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def source_files(*folders: str) -> list[Path]:
    """Python files of the folders, sorted."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def trees(*folders: str) -> dict[str, ast.Module]:
    """Module name to syntax tree."""
    return {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in source_files(*folders)}


def imports(tree: ast.Module) -> Iterator[Imported]:
    """Every import of a file. ``from a import b`` gives ``a.b``: whether b is a module is for the caller to know.

    Imports inside functions and under ``if TYPE_CHECKING`` are not ``at_import``.
    """
    yield from _imports(tree, at_import=True)


def _imports(node: ast.AST, *, at_import: bool) -> Iterator[Imported]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Imported(alias.name, child.lineno, at_import)
        elif isinstance(child, ast.ImportFrom):
            dots = "." * child.level
            for alias in child.names:
                yield Imported(f"{dots}{child.module or ''}.{alias.name}", child.lineno, at_import)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from _imports(child, at_import=False)
        else:
            yield from _imports(child, at_import=at_import and not isinstance(child, Function))


def functions(tree: ast.Module) -> Iterator[Function]:
    """Every function and method, nested ones included."""
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield node


def length(function: Function) -> int:
    """Lines from ``def`` to the last statement."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def missing_annotations(tree: ast.Module) -> list[str]:
    """``function: argument`` for every argument, and ``function: return`` for every result, without a type."""
    missing = []
    methods = {
        id(member)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for member in node.body
        if isinstance(member, Function) and "staticmethod" not in map(ast.unparse, member.decorator_list)
    }
    for function in functions(tree):
        arguments = [*function.args.posonlyargs, *function.args.args]
        arguments = arguments[1:] if id(function) in methods else arguments
        arguments += function.args.kwonlyargs
        arguments += [extra for extra in (function.args.vararg, function.args.kwarg) if extra is not None]
        missing += [f"{function.name}: {argument.arg}" for argument in arguments if argument.annotation is None]
        if function.returns is None:
            missing.append(f"{function.name}: return")
    return missing


def calls_print(tree: ast.Module) -> list[int]:
    """Lines that call ``print``."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def import_graph(modules: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """Module to the modules among ``modules`` that importing it names, directly."""
    graph: dict[str, set[str]] = {}
    for name, tree in modules.items():
        named = {_resolve(found.module, modules) for found in imports(tree) if found.at_import}
        graph[name] = {target for target in named if target is not None and target != name}
    return graph


def _resolve(imported: str, modules: Mapping[str, ast.Module]) -> str | None:
    """``repsim.data.cache.decode_all`` is in module ``repsim.data.cache``; None when it is nobody of ours."""
    while imported and imported not in modules:
        imported = imported.rpartition(".")[0]
    return imported or None


def find_cycle(graph: Mapping[str, set[str]]) -> list[str] | None:
    """Modules that import each other in a circle, the first one repeated at the end; None when there are none."""
    done: set[str] = set()

    def visit(module: str, above: list[str]) -> list[str] | None:
        if module in above:
            return [*above[above.index(module) :], module]
        if module in done:
            return None
        for target in sorted(graph.get(module, ())):
            found = visit(target, [*above, module])
            if found is not None:
                return found
        done.add(module)
        return None

    for module in sorted(graph):
        found = visit(module, [])
        if found is not None:
            return found
    return None
