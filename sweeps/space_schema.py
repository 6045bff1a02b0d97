"""The JSON schema of a space file, for editors: ``python -m sweeps.space_schema`` writes search_spaces/schema.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from repsim.catalogue import HEADS, method_names
from repsim.config import TrialConfig
from repsim.records import METRICS, OBJECTIVE_METRICS
from sweeps.space import WHEN_KEYS
from sweeps.space_domains import searchable_keys
from sweeps.space_file import FOLDER
from sweeps.space_goals import DIRECTIONS
from sweeps.space_notes import NAME
from sweeps.space_rules import (
    CONSTANT_KEYS,
    DEFAULT_DATA,
    DEFAULT_EPOCHS,
    DEFAULT_TRIALS,
    MAX_SEED,
    MAX_TRIALS,
    SAMPLERS,
)

Schema = dict[str, Any]
FILE = FOLDER / "schema.json"


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
            "fixed": _closed(values, "Keys of the trial's configuration with one value each."),
            "space": _closed(
                {key: _searched(value) for key, value in values.items() if key not in CONSTANT_KEYS},
                "Searched keys; {} is one run.",
            ),
        },
    }


def _sections() -> Schema:
    auto_whole = {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1}], "default": "auto"}
    return {
        "budget": _closed(
            {
                "trials": _whole(1, MAX_TRIALS, DEFAULT_TRIALS, "Trials per data set, the two anchors included."),
                "epochs": _whole(1, 10_000, DEFAULT_EPOCHS, "Epochs per trial."),
                "hours": {"type": "number", "exclusiveMinimum": 0, "description": "Stop proposing after this long."},
            }
        ),
        "search": _closed(
            {
                "sampler": {"enum": list(SAMPLERS), "default": "auto"},
                "stopping": {"enum": ["none"], "default": "none"},
                "parallel": auto_whole | {"description": "Trials at a time."},
                "seed": _whole(0, MAX_SEED, 0, "Seed of the proposals and of every trial's training."),
            }
        ),
        "confirm": _closed({"seeds": {"enum": [0], "default": 0}}),
        "resources": _closed(
            {
                "workers": {"enum": [1], "default": 1},
                "cpus_per_worker": auto_whole,
                "gpus_per_worker": {"anyOf": [{"const": "auto"}, {"type": "number", "minimum": 0}], "default": "auto"},
            }
        ),
    }


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
        value = {k: v for k, v in properties[section].items() if k != "title"}
        found[key] = value | {"description": " ".join(value.get("description", "").split())}
    found["method"] |= {"enum": list(method_names())}
    found["head"] |= {"enum": list(HEADS)}
    return found


def _searched(value: Schema) -> Schema:
    one = {k: v for k, v in value.items() if k not in ("description", "default")}
    choices = {"type": "array", "items": one, "minItems": 1}
    ends = {"low": {"type": "number"}, "high": {"type": "number"}, "log": {"type": "boolean", "default": False}}
    plain = [one, choices, _closed(ends, required=["low", "high"])]
    branch = {
        "anyOf": [
            _closed({"value": {"anyOf": plain}, "when": _when()}, required=["value"]),
            _closed(ends | {"when": _when()}, required=["low", "high"]),
        ]
    }
    return {
        "description": value["description"],
        "anyOf": [one, choices, branch, {"type": "array", "items": branch, "minItems": 1}],
    }


def _when() -> Schema:
    return {"$ref": "#/$defs/when"}


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
    one = {"type": "string", "minLength": 1}
    patterns = {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}
    when = _closed({key: patterns for key in WHEN_KEYS}, "Where the value holds; literal, glob, any, none.") | {
        "minProperties": 1
    }
    return json.dumps(schema() | {"$defs": {"when": when}}, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(schema_text(), encoding="utf-8")
