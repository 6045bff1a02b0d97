"""Wrong input by the hundred: space files, ``--set`` values and csv files, each made from its kind and number alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

import search_spaces
from tests.faults.fuzz_parts import KNOWN_KEYS, ODD_KEYS, TRIAL_KEYS, VALUES, Case, changed_bytes, misspelt
from tests.faults.fuzz_tables import PICTURES, csv_case

KINDS = ("space", "set", "csv")
SOUND_SPACE = f"""\
name: fuzz
data: csv:case.csv
objectives: [{{metric: val_accuracy, direction: maximize}}, {{metric: val_cka, direction: maximize}}]
budget: {{trials: 2, epochs: 1}}
fixed: {{data.image_size: 32, backbone: test_efficientnet, backbone.weights: random, optim.batch_size: 4}}
space: {{method: [full, repsim]}}
# images: {PICTURES}
"""
PACKAGED = {path.stem: path.read_text() for path in sorted(Path(search_spaces.__file__).parent.glob("*.yaml"))}


def make_case(kind: str, number: int) -> Case:
    """Case ``number`` (>= 0) of a kind; the same at every call. Raises KeyError for an unknown kind."""
    makers: Mapping[str, Callable[[random.Random], Case]] = {"space": _space_case, "set": _set_case, "csv": csv_case}
    return makers[kind](random.Random(f"{kind} {number}"))


def write_pictures(folder: Path) -> Path:
    """Twenty images of 12 px in ``folder/pictures``, and things there that are none."""
    root = folder / PICTURES
    (root / "folder.png").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(20):
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(root / f"{number:02d}.png")
    (root / "broken.png").write_bytes((root / "00.png").read_bytes()[:60])
    (root / "text.png").write_text("no image")
    return root


# ---- space files


def _space_case(rng: random.Random) -> Case:
    name = rng.choice((*PACKAGED, "sound"))
    text = SOUND_SPACE.replace("csv:case.csv", "phantom:tiny") if name == "sound" else PACKAGED[name]
    if rng.random() < 0.5:
        content = _changed_document(rng, text).encode("utf-8", "surrogatepass")
    else:
        for _ in range(rng.randint(1, 2)):
            text = rng.choice(_TEXT_CHANGES)(rng, text)
        content = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.2:
        content = changed_bytes(rng, content)
    return Case(arguments=("--space", "case.yaml"), path="case.yaml", content=content)


def _changed_document(rng: random.Random, text: str) -> str:
    """The document with a few keys deleted, repeated, renamed or retyped, written as YAML again."""
    document: object = yaml.safe_load(text)
    for _ in range(rng.randint(1, 3)):
        place, key = rng.choice(_places(document))
        value = place[key]  # type: ignore[index]
        change = rng.randrange(7)
        if change == 0:
            del place[key]  # type: ignore[attr-defined]
        elif change == 1 and isinstance(place, dict):
            place[misspelt(rng, str(key))] = place.pop(key) if rng.random() < 0.5 else value
        elif change == 2:
            place[key] = rng.choice(([value], {"value": value}, str(value), {key: value}, [value] * 3))  # type: ignore[index]
        elif change == 6 and isinstance(document, dict):
            document[rng.choice(("fixed", "space"))] = {rng.choice(TRIAL_KEYS): _plain_value(rng)}
        elif change == 3 and isinstance(place, dict):
            place[rng.choice((*KNOWN_KEYS, None, True, 3, 1.5))] = _plain_value(rng)
        else:
            place[key] = _plain_value(rng)  # type: ignore[index]
    return str(yaml.safe_dump(document, allow_unicode=rng.random() < 0.5, sort_keys=False))


def _places(value: object) -> list[tuple[object, object]]:
    """(container, key or index) of everything inside a document."""
    found: list[tuple[object, object]] = []
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    for key in keys:
        found.append((value, key))
        found += _places(value[key])  # type: ignore[index]
    return found or [({"nothing": 1}, "nothing")]


def _plain_value(rng: random.Random) -> object:
    """What YAML makes of one of the values, or nested garbage."""
    if rng.random() < 0.15:
        garbage: object = rng.choice((1, "a", None, float("nan")))
        for _ in range(rng.randint(1, 40)):
            garbage = [garbage] if rng.random() < 0.5 else {"a": garbage}
        return garbage
    while True:
        text = rng.choice(VALUES)
        try:
            return text if "&x" in text else yaml.safe_load(text)  # a list that holds itself has no end
        except (yaml.YAMLError, LookupError, ValueError, OverflowError, AttributeError):  # then it is no document
            continue


def _replace_value(rng: random.Random, text: str) -> str:
    lines = text.split("\n")
    at = rng.choice([number for number, line in enumerate(lines) if ":" in line] or [0])
    lines[at] = f"{lines[at].partition(':')[0]}: {rng.choice(VALUES)}"
    return "\n".join(lines)


def _insert_line(rng: random.Random, text: str) -> str:
    lines = text.split("\n")
    key = rng.choice((*KNOWN_KEYS, *ODD_KEYS, "<<", "!!merge <<", "?", "- ", "%YAML 1.1", "---", "..."))
    indent = rng.choice(("", "", "  ", "\t", " "))
    lines.insert(rng.randrange(len(lines)), f"{indent}{key}: {rng.choice(VALUES)}")
    return "\n".join(lines)


def _drop_or_repeat_line(rng: random.Random, text: str) -> str:
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    lines[at : at + 1] = rng.choice(([], [lines[at]] * 2, [lines[at][1:]], [f"  {lines[at]}"]))
    return "\n".join(lines)


def _replace_whole(rng: random.Random, text: str) -> str:
    depth = rng.choice((20, 90, 300, 3000))
    wholes = (
        *(
            "",
            "\n\n",
            "# nothing",
            "---",
            "--- \n...\n---",
            "null",
            "[]",
            "- a\n- b",
            "3",
            "'text'",
            "{}",
            "--- 1\n--- 2",
        ),
        *("[" * depth, "[" * depth + "]" * depth, "{a: " * depth, "- " * depth, "a:\n" * depth, "? " * depth),
        "\n".join(f"{' ' * level}a:" for level in range(min(depth, 300))),
        text + "\nquestion: &a [x, x]\nspace: &b [*a, *a]\nfixed: [*b, *b]",
        "%YAML 3.0\n---\n" + text,
        "%TAG ! tag:yaml.org,2002:\n---\n" + text,
        text + "\n---\n" + text,
        text * 3,
        f"space: {{strength: {'[' * depth}1{']' * depth}}}\n" + text,
        text.replace("name:", "name: !!str"),
    )
    return rng.choice(wholes)


def _mangle_characters(rng: random.Random, text: str) -> str:
    odd = (*"\t\r\x00\x07\x1b\x7f\x85\u2028\ufeff:-?[]{},#&*!|>'\"%@`\\", "\r\n", "é", "🩺", "\udcff", "\U0010ffff")
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(odd) + text[at + rng.randint(0, 2) :]
    return text


def _other_layout(rng: random.Random, text: str) -> str:
    return rng.choice((text.replace("  ", "\t"), text.replace("\n", "\r\n"), text.replace("\n", "\r"), text.upper()))


_TEXT_CHANGES: tuple[Callable[[random.Random, str], str], ...] = (
    *(_replace_value, _replace_value, _replace_value, _insert_line, _insert_line, _drop_or_repeat_line),
    *(_replace_whole, _mangle_characters, _other_layout),
)


# ---- --set

SOUND_SETS = (
    *("budget.trials=4", "budget.epochs=1", "budget.hours=0.5", "search.seed=7", "search.parallel=2", "name=other"),
    *("optim.lr=[1.0e-4, 1.0e-3]", "optim.lr={low: 1.0e-4, high: 1.0e-3, log: true}", "optim.lr=3.0e-4", "question=é"),
    *(
        "search.sampler=random",
        "data=phantom:tiny",
        "data=[tiny, phantom:ultrasound]",
        "data.fractions=[0.5, 0.3, 0.2]",
    ),
    *("method=[full, repsim]", "method=hcs", "strength=[0.1, 1]", "constraints=[val_accuracy >= 0.5]", "head=linear"),
    *("data.resize=[pad, crop]", "optim.batch_size=8", "fixed.data.probe_size=50", "optim.epochs={low: 1, high: 3}"),
    *("resources.cpus_per_worker=1", "backbone=[test_efficientnet, mobilenetv2_100]", "data.on_error=skip", "fixed={}"),
)


def _set_case(rng: random.Random) -> Case:
    arguments = ["--space", rng.choice(tuple(PACKAGED))]
    arguments += [f"--set={rng.choice(SOUND_SETS)}" for _ in range(rng.randint(0, 3))]
    for _ in range(rng.choice((0, 0, 1, 1, 1, 2))):
        key = rng.choice(KNOWN_KEYS)
        if rng.random() < 0.3:
            key = rng.choice((misspelt(rng, key), rng.choice(ODD_KEYS), f"fixed.{key}", f"space.{key}"))
        value = rng.choice(VALUES)
        if rng.random() < 0.1:
            value = _mangle_characters(rng, value + " ")
        written = rng.choice(
            (f"{key}={value}",) * 8 + (f"{key}", f"{key}=={value}", f"={value}", value, f"{key}:{value}")
        )
        arguments += [f"--set={written}"] if rng.random() < 0.8 else ["--set", written]
    if rng.random() < 0.25:
        flag = rng.choice(("--trials", "--seed", "--parallel", "--data", "--name", "--spce", "--trails=3"))
        arguments += [flag, rng.choice(VALUES)]
    return Case(arguments=tuple(arguments))
