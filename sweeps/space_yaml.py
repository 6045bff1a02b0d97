"""Plain YAML, read safely: no tags, no aliases, no dates, and no key twice."""

from __future__ import annotations

from typing import Any

import yaml

from repsim.errors import one_line
from sweeps.space_notes import Notes

_PLAIN_TAGS = tuple(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map"))


class _Loader(yaml.SafeLoader):
    """Plain YAML only: no aliases, no tags, dates stay text; duplicate keys are collected in ``duplicates``."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.duplicates: list[tuple[int, object]] = []

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(None, None, "aliases (*name) are not read", self.get_mark())
        return super().compose_node(parent, index)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> str:
        value: str = super().construct_scalar(node)
        if not any("\ud800" <= character <= "\udfff" for character in value):
            return value
        try:  # JSON writes a character beyond U+FFFF as two halves
            return value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            problem = "an escape such as \\ud800 is half a character; write the character itself"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None

    def construct_scalar_safely(self, node: yaml.ScalarNode) -> object:
        kind = node.tag.rpartition(":")[2]
        try:
            value: object = getattr(yaml.SafeLoader, f"construct_yaml_{kind}")(self, node)
        except (ValueError, KeyError, IndexError):
            raise yaml.constructor.ConstructorError(None, None, f"not a valid {kind}", node.start_mark) from None
        if isinstance(value, int) and abs(value) >= 2**63:
            raise yaml.constructor.ConstructorError(None, None, "the number is too large", node.start_mark)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        # a tag (!!map) can put another kind of node here, which the line below refuses
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in seen:
                    self.duplicates.append((key_node.start_mark.line + 1, key_node.value))
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _PLAIN_TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.yaml_constructors = {
    tag: constructor for tag, constructor in yaml.SafeLoader.yaml_constructors.items() if tag in (*_PLAIN_TAGS, None)
}
for _kind in ("bool", "int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_scalar_safely)


def parse_yaml(text: str, notes: Notes) -> object:
    """The value of a YAML text; None after noting what is wrong with it."""
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        value: object = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
        notes.add("", f"is not YAML: {error.problem or error.context}{place}")
        return None
    except yaml.YAMLError as error:
        notes.add("", f"is not YAML: {' '.join(str(error).split())}")
        return None
    except (ValueError, OverflowError):  # from chr(), in the scanner
        notes.add("", "is not YAML: an escape such as \\U00110000 names no character")
        return None
    except RecursionError:
        notes.add("", "is not YAML a person would write: it is nested too deeply")
        return None
    finally:
        if loader is not None:
            loader.dispose()
    for line, key in loader.duplicates:
        notes.add("", f"key {one_line(key)} is written a second time in line {line}", allowed="each key once")
    return value
