"""What wrong input is made of: odd values and keys, and the changes every kind of file can suffer."""

from __future__ import annotations

import random
from dataclasses import dataclass

from sweeps.space_domains import searchable_keys
from sweeps.space_rules import TOP_KEYS
from sweeps.space_settings import SECTIONS

# fmt: off
PLAIN = (
    *(
        "full",
        "repsim",
        "[full, repsim]",
        "linear_probe+repsim",
        "[full, full]",
        "repsm",
        "auto",
        "none",
        "any",
        "last",
    ),
    *(
        "{low: 1, high: 2}",
        "{low: 2, high: 1}",
        "{low: 1.0e-5, high: 1.0e-3, log: true}",
        "{low: 0, high: 1, log: yes}",
    ),
    *("{low: .nan, high: .inf}", "{low: 5.0e-324, high: 1.7e+308, log: true}", "{low: -1, high: 1e400}", "{low: 1}"),
    *(
        "{value: 1, when: {penalty: any}}",
        "[{when: {method: full}, value: 1}, {value: 2}]",
        "{when: {when: {when: 1}}}",
    ),
    *("{value: 1, when: {method: '[!a-'}}", "{value: 1, when: {data: '*', backbone: any}}", "[{value: 1}, 2]"),
    *("{metric: val_cka, direction: maximize}", "[{metric: val_cka}, {metric: test_cka}]", "[{metric: sharpness}]"),
    *(
        "[val_accuracy >= 0.7]",
        "[val_accuracy >= 1e999]",
        "['val_accuracy >= nan']",
        "[val_cka <= 0.1, val_cka >= 0.9]",
    ),
    *("phantom:tiny", "phantom:", "phantom:../x", "folder:", "folder:/nowhere", "csv:case.yaml", "npz:/dev/null"),
    *("npz:case.yaml", "medmnist:../../x", "~nobody-here/images", "folder:~nobody-here", ".", "case.yaml", "/dev/null"),
    *(
        "csv:/dev/null",
        "csv:/dev/zero",
        "npz:/dev/zero",
        "/dev/zero",
        "csv:.",
        "[phantom:tiny, phantom:tiny]",
        "[phantom:tiny, tiny]",
        "'csv:'",
        "http://x/y.csv",
    ),
    *("test_efficientnet", "grid", "tpe", "random", "32", "16", "1024", "[0.6, 0.2, 0.2]", "[1, 0, 0]", "[.inf, 1, 2]"),
)
"""Values a person could mean."""
NUMBERS = (
    *(
        "0",
        "1",
        "2",
        "3",
        "-1",
        "2.5",
        "1e-5",
        "1.0e-5",
        ".nan",
        ".inf",
        "-.inf",
        "1_000",
        "0x10",
        "0b_",
        "017",
        "0o17",
    ),
    *("1:30", "190:20:30.15", "2024-01-01", "2024-01-01T00:00:00Z", "9" * 19, "9" * 400, "-" + "1" * 5000, "1e400"),
    *("'1'", '"1.5"', "+.5", "1.", "--1", "١٢", "０", "1e", "0x", "4294967295", "4294967296", "9223372036854775808"),
)
WORDS = (
    *("", "~", "null", "yes", "No", "on", "OFF", "true", "é", "名前", "🩺", "x" * 300, "y" * 5000, "a b", "%s", "{0}"),
    *('"\\ud800"', '"\\U00110000"', '"\\UFFFFFFFF"', '"\\x00"', '"\\x1b[31m"', '"a\\nb"', '"\\u2028"', '"\\u202e"'),
    *("'unclosed", '"unclosed', '"\\q"', '"\\xZZ"', "a: b: c", "a #b", "@x", "`x`", "%x", "#", "|\n  text", ">-\n  t"),
    *("| text", "\t1", "1\t2", "--- x", "...", "? x", "- a", "=", "<<", ": :", "!", "&", "*", "a\u0085b", "\ufeff"),
)
STRUCTURE = (
    *("[", "{", "]", "}", "[]", "{}", "[[[]]]", "[1, 2", "{a: }", "{a: 1, a: 2}", "{? [a] : b}", "{? {a: b} : c}"),
    *("{.nan: 1, .NaN: 2}", "{null: null}", "{1: 2, yes: no}", "[,]", "{,}", "[a: b]", "{a: [}", "{<<: {a: b}}"),
    *("*x", "&x 1", "&x [*x]", "[&x a, *x]", "&x {a: &y [1], b: *y}", "!!python/object:os.system x", "!!int x"),
    *("!!int [1]", "!!int {a: b}", "!!float x", "!!bool maybe", "!!bool [a]", "!!null x", "!!str [a]", "!!map [a, b]"),
    *(
        "!!map x",
        "!!map xy",
        "!!map [[a, b]]",
        "!!seq {a: b}",
        "!!seq x",
        "!!set {a}",
        "!!binary aGk=",
        "!!pairs [a: 1]",
    ),
    *("!!timestamp x", "!!omap [a: 1]", "!local x", "! x", "!<tag:yaml.org,2002:map> q", "!!merge x", "!!value ="),
    *("{!!merge <<: 3}", "{!!merge <<: [1]}", "{!!merge <<: {a: b}}", "!!str 1", "!!int '1'", "!e!x y", "!<> x"),
)
VALUES = (*PLAIN, *PLAIN, *NUMBERS, *WORDS, *STRUCTURE)
TRIAL_KEYS = tuple(key for key in searchable_keys())
KNOWN_KEYS = (*TOP_KEYS, *TRIAL_KEYS, *(f"{section}.{key}" for section, keys in SECTIONS.items() for key in keys))
ODD_KEYS = (
    *("", " ", ".", "..", "a.b.c", "name.x", "space.", ".space", "fixed.fixed", "space.space.method", "data.source"),
    *(
        "seed",
        "data",
        "backbone.name",
        "space.strength.low",
        "objectives[0]",
        "\x00",
        "é",
        "🩺",
        "--",
        "-x",
        "__class__",
    ),
    *(
        "a\nb",
        "x" * 300,
        "\udcff",
        "fixed.\ud800",
        "budget.{0}",
        "%s",
        "yes",
        "1",
        "method ",
        "METHOD",
        "optim",
        "head.",
    ),
)
# fmt: on


@dataclass(frozen=True, kw_only=True)
class Case:
    """One command line, and the file it is about; ``path`` is None when there is none."""

    arguments: tuple[str, ...]
    path: str | None = None
    content: bytes = b""

    def __str__(self) -> str:
        shown = self.content if len(self.content) < 3000 else self.content[:3000] + b" ..."
        return f"arguments: {self.arguments!r}\n{self.path}: {shown!r}"


def misspelt(rng: random.Random, word: str) -> str:
    """One letter dropped, doubled, swapped with its neighbour, or in the other case."""
    if len(word) < 2:
        return word + "x"
    at = rng.randrange(len(word) - 1)
    return rng.choice(
        (
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word.swapcase(),
            f" {word}",
        )
    )


def changed_bytes(rng: random.Random, content: bytes) -> bytes:
    noise = bytes(rng.randrange(256) for _ in range(rng.randint(1, 20)))
    at = rng.randrange(len(content) + 1)
    text = content.decode("utf-8", "replace")
    return rng.choice(
        (
            b"\xef\xbb\xbf" + content,
            text.encode("utf-16"),
            text.encode("latin-1", "replace"),
            content[:at],
            content[:at] + noise + content[at:],
            content[:at] + b"\xe9" + content[at:],
            noise,
            content + b"\x1a",
        )
    )
