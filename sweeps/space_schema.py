"""The JSON schema of a space file, for editors, and the tables of its README.

``python -m sweeps.space_schema`` writes search_spaces/schema.json and the tables in search_spaces/README.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from repsim.catalogue import ADAPTERS, HEADS, PENALTIES, method_names
from repsim.config import TARGET_KEY, Target, TrialConfig
from repsim.records import METRICS, OBJECTIVE_METRICS
from sweeps.space_conditions import WHEN_KEYS
from sweeps.space_domains import searchable_keys
from sweeps.space_file import FOLDER
from sweeps.space_goals import DIRECTIONS
from sweeps.space_notes import NAME
from sweeps.space_resource_settings import MAX_WORKERS, MODELS
from sweeps.space_rules import CONSTANT_KEYS, DEFAULT_DATA
from sweeps.space_settings import (
    BALANCE,
    DEFAULT_EPOCHS,
    DEFAULT_TRIALS,
    LEAST_SEEDS,
    MAX_CONFIRM,
    MAX_SEED,
    MAX_TRIALS,
    SAMPLERS,
    STOPPING,
)
from sweeps.space_types import STRENGTH_KEYS

Schema = dict[str, Any]
FILE = FOLDER / "schema.json"
README = FOLDER / "README.md"


_METHODS = (
    f"an adapter ({', '.join(f'`{name}`' for name in ADAPTERS)}), a penalty "
    f"({', '.join(f'`{name}`' for name in PENALTIES)}), or both, joined by `+`"
)
"""There are too many to list each."""


def schema() -> Schema:
    """JSON schema (draft 2020-12) of a space file. It allows what is valid; it cannot know all that is not."""
    values = _value_schemas()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Search space",
        "type": "object",
        "additionalProperties": False,
        "required": ["name", "objectives", "space"],
        "properties": {
            "name": _text("Name of the MLflow experiment and of run folders.", pattern=f"^{NAME.pattern}$"),
            "question": _text("What the sweep is to answer.", default=""),
            "data": {
                "description": "SOURCE, or a list of them: one independent study each.",
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True},
                ],
                "default": DEFAULT_DATA,
            },
            "objectives": {
                "description": "The axes of the trade-off, measured on validation images.",
                "type": "array",
                "minItems": 2,
                "maxItems": 3,
                "items": _closed(
                    {
                        "metric": {"enum": list(OBJECTIVE_METRICS), "description": _metric_help()},
                        "direction": {"enum": list(DIRECTIONS), "description": "Default: the metric's own."},
                    },
                    required=["metric"],
                ),
            },
            "constraints": {
                "description": "METRIC >= NUMBER or METRIC <= NUMBER.",
                "type": "array",
                "items": {"type": "string", "pattern": r"^\s*\S+?\s*(>=|<=)\s*\S+\s*$"},
            },
            **_sections(),
            "initial": {
                "description": "Points to be tried first, after the anchors; what is left out takes its default.",
                "type": "array",
                "items": _closed({key: {"$ref": f"#/$defs/{key}"} for key in values if key not in CONSTANT_KEYS})
                | {"minProperties": 1},
            },
            "fixed": _closed(
                {key: {"$ref": f"#/$defs/{key}"} for key in values},
                "Keys of the trial's configuration with one value each.",
            ),
            "space": _closed(
                {key: _searched(key, v["description"]) for key, v in values.items() if key not in CONSTANT_KEYS},
                "Searched keys; {} is one run.",
            ),
        },
        "$defs": _definitions(values),
    }


def _sections() -> Schema:
    auto_whole = _auto({"type": "integer", "minimum": 1}) | {"default": "auto"}
    return {
        "budget": _closed(
            {
                "trials": _whole(1, MAX_TRIALS, DEFAULT_TRIALS, "Trials per data set, the two anchors included."),
                "epochs": _whole(1, 10_000, DEFAULT_EPOCHS, "Epochs per trial."),
                "hours": {"type": "number", "exclusiveMinimum": 0, "description": "Stop proposing after this long."},
                "train_epochs": {
                    "type": "integer",
                    "minimum": 2,
                    "description": "Stop before all search trials together have trained more epochs.",
                },
                "stagnation": {
                    "type": "integer",
                    "minimum": 1,
                    "description": "Stop after so many trials in a row without a larger hypervolume.",
                },
            }
        ),
        "search": _closed(
            {
                "sampler": {"enum": list(SAMPLERS), "default": "auto"},
                "stopping": {"enum": list(STOPPING), "default": "none"},
                "balance": {"enum": list(BALANCE), "default": "none", "description": "Equal shares for each of these."},
                "parallel": auto_whole | {"description": "Trials at a time."},
                "seed": _whole(0, MAX_SEED, 0, "Seed of the proposals and of every trial's training."),
            }
        ),
        "confirm": _closed(
            {
                "seeds": {
                    "anyOf": [{"const": 0}, {"type": "integer", "minimum": 3, "maximum": MAX_CONFIRM}],
                    "default": 0,
                    "description": "Fresh seeds of each candidate after the search.",
                },
                "runs": {
                    "type": "integer",
                    "minimum": LEAST_SEEDS,
                    "maximum": MAX_TRIALS,
                    "description": "At most so many confirmation runs per data set; default: as many as trials.",
                },
            }
        ),
        "resources": _resources(),
    }


def _auto(value: Schema) -> Schema:
    return {"anyOf": [{"const": "auto"}, value]}


def _dependent(value: Schema, default: object, description: str) -> Schema:
    """A setting: one value, or cases."""
    case = _closed({"when": {"$ref": "#/$defs/when"}, "value": value}, required=["value"])
    anyone = [value, case, {"type": "array", "items": case, "minItems": 1}]
    return {"anyOf": anyone, "default": default, "description": description}


def _resources() -> Schema:
    return _closed(
        {
            "workers": _dependent(
                {"type": "integer", "minimum": 1, "maximum": MAX_WORKERS}, 1, "Processes that share a trial."
            ),
            "cpus_per_worker": _dependent(_auto({"type": "integer", "minimum": 1}), "auto", "CPU threads of each."),
            "gpus_per_worker": _dependent(
                _auto({"type": "number", "minimum": 0}), "auto", "GPUs of each, or a share of one."
            ),
            "epoch_timeout": _auto({"type": "number", "exclusiveMinimum": 0})
            | {
                "default": "auto",
                "description": "Seconds without an epoch after which a trial counts as hung and is tried again.",
            },
            "placement_timeout": _auto({"type": "number", "exclusiveMinimum": 0})
            | {
                "default": "auto",
                "description": "Seconds that a trial waits for machines that are not there; then it fails.",
            },
            "models": {
                "enum": list(MODELS),
                "default": "front",
                "description": "Whose models are kept: those of the front's members, or nobody's.",
            },
        }
    )


def _value_schemas() -> Schema:
    """Dotted key to the schema of one value, from the trial's configuration."""
    whole = TrialConfig.model_json_schema()
    sections: Mapping[str, Schema] = whole["$defs"]
    found: Schema = {}
    for key in searchable_keys():
        section, _, name = key.partition(".")
        properties = whole["properties"]
        reference = properties[section].get("$ref", "")
        if reference:
            properties = sections[reference.rpartition("/")[2]]["properties"]
            section = name or "name"
        elif key == TARGET_KEY:
            properties, section = Target.model_json_schema()["properties"], name
        value = {k: v for k, v in properties[section].items() if k != "title"}
        found[key] = value | {"description": " ".join(value.get("description", "").split())}
    found["method"] |= {"enum": list(method_names())}
    found["head"] |= {"enum": list(HEADS)}
    return found


def _searched(key: str, description: object) -> Schema:
    one = {"$ref": f"#/$defs/{key}"}
    choices = {"type": "array", "items": one, "minItems": 1}
    when = {"$ref": "#/$defs/when"}
    dependent = _closed(
        {"value": {"anyOf": [one, choices, {"$ref": "#/$defs/range"}]}, "when": when}, required=["value"]
    )
    branch = {"anyOf": [dependent, {"$ref": "#/$defs/range_when"}]}
    return {
        "description": description,
        "anyOf": [
            one,
            choices,
            dependent,
            {"$ref": "#/$defs/range_when"},
            {"type": "array", "items": branch, "minItems": 1},
        ],
    }


def _definitions(values: Schema) -> Schema:
    """What is referred to: one value of each key, ranges, and conditions."""
    one = {"type": "string", "minLength": 1}
    patterns = {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}
    when = _closed(dict.fromkeys(WHEN_KEYS, patterns), "Where the value holds: literal, glob, any, none.")
    ends = {"low": {"type": "number"}, "high": {"type": "number"}, "log": {"type": "boolean", "default": False}}
    return {
        "when": when | {"minProperties": 1},
        "range": _closed(ends, required=["low", "high"]),
        "range_when": _closed(ends | {"when": {"$ref": "#/$defs/when"}}, required=["low", "high"]),
        **values,
    }


def _closed(properties: Schema, description: str = "", required: list[str] | None = None) -> Schema:
    found: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    if required is not None:
        found["required"] = required
    return found | ({"description": description} if description else {})


def _text(description: str, **more: object) -> Schema:
    return {"type": "string", "description": description, **more}


def _whole(low: int, high: int, default: int, description: str) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high, "default": default, "description": description}


def _metric_help() -> str:
    return "; ".join(f"{name}: {METRICS[name].description}" for name in OBJECTIVE_METRICS)


def schema_text() -> str:
    """What search_spaces/schema.json must hold."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def readme_text(text: str) -> str:
    """The README with its generated tables brought up to date; ValueError when a table's marks are missing."""
    for name, table in (("keys", _key_table()), ("metrics", _metric_table())):
        marks = re.compile(rf"(<!-- {name}: .*? -->\n).*?(<!-- end -->)", re.DOTALL)
        if marks.search(text) is None:
            raise ValueError(f"no marks around the table of {name}")
        text = marks.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text, count=1)  # type: ignore[misc]
    return text


def _key_table() -> str:
    defaults = TrialConfig().flat()
    rows = ["| key | default | allowed | meaning |", "|---|---|---|---|"]
    for key, value in _value_schemas().items():
        default = "" if key in STRENGTH_KEYS else _written(defaults[key])
        meaning = value["description"].replace("``", "`")
        allowed = _METHODS if key == "method" else _allowed(value)
        rows.append(f"| `{key}` | {default} | {allowed} | {meaning} |")
    return "\n".join(rows)


def _metric_table() -> str:
    rows = ["| metric | direction | unit | meaning |", "|---|---|---|---|"]
    for name in OBJECTIVE_METRICS:
        metric = METRICS[name]
        rows.append(f"| `{name}` | {metric.direction} | {metric.unit} | {metric.description} |")
    return "\n".join(rows)


def _allowed(value: Schema) -> str:
    """A value's schema in words."""
    if "anyOf" in value:
        return " or ".join(_allowed(one) for one in value["anyOf"])
    if "enum" in value or "const" in value:
        return ", ".join(_written(one) for one in value.get("enum", [value.get("const")]))
    kind = value.get("type")
    if kind == "boolean":
        return "`true`, `false`"
    if kind not in ("integer", "number"):
        return {"null": "`null`", "array": "three numbers above 0"}.get(str(kind), "text")
    words = (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"), ("exclusiveMaximum", "below"))
    limits = [f"{word} {value[name]}" for name, word in words if name in value]
    return " ".join(["a whole number" if kind == "integer" else "a number", *limits])


def _written(value: object) -> str:
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


if __name__ == "__main__":
    FILE.write_text(schema_text(), encoding="utf-8")
    README.write_text(readme_text(README.read_text(encoding="utf-8")), encoding="utf-8")
