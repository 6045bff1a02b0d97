"""Spaces that are wrong: every mistake at once, one line each, with what is allowed."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml

from repsim.errors import RequestError
from sweeps.space import Space, load_space, space_from_dict

GOOD = """
name: good
objectives: [{metric: val_accuracy, direction: maximize}, {metric: val_cka, direction: maximize}]
budget: {trials: 4, epochs: 2}
"""
SEARCH = "space: {method: [full, repsim], backbone: [tf_efficientnet_lite0, mobilenetv2_100]}\n"


def load(folder: Path, text: str) -> Space:
    path = folder / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    return load_space(str(path))


IN_SPACE = [
    ("optim.lr: {low: -1, high: 1}", r"space\.optim\.lr\.low: -1 is not allowed; allowed: greater than 0"),
    ("optim.lr: {low: 0, high: 1, log: true}", r"space\.optim\.lr\.low: 0 is not allowed; allowed: greater than 0"),
    ("strength: {low: 0, high: 1, log: true}", r"strength\.low: 0 cannot be the lower end on a log scale"),
    ("strength: {low: 0, high: 1, log: yess}", r"strength\.log: 'yess' is not allowed; allowed: true, false"),
    ("optim.lr: {low: 2, high: 1}", r"space\.optim\.lr: low 2 is above high 1"),
    ("optim.lr: {low: 1, high: 1}", r"space\.optim\.lr: low 1 equals high 1"),
    ("optim.lr: {low: 1e-5, high: 1.0e-3}", r"lr\.low: '1e-5' is not a finite number .*: write 1\.0e-5\)"),
    ("optim.lr: [5e-4]", r"lr\[0\]: '5e-4' is not allowed \(YAML reads it as text: write 5\.0e-4\)"),
    ("optim.lr: 1.5e5", r"lr: '1.5e5' is not allowed \(YAML reads it as text: write 1\.5e\+5\)"),
    ("optim.lr: '0.1'", r"lr: '0\.1' is not allowed \(text: write it without quotes\)"),
    ("optim.lr: {low: .nan, high: 1}", r"lr\.low: nan is not a finite number"),
    ("optim.lr: {low: 0.1, high: .inf}", r"lr\.high: inf is not a finite number"),
    ("optim.lr: [.nan]", r"lr\[0\]: nan is not allowed; allowed: a finite number"),
    ("optim.lr: {low: 0.1}", r"space\.optim\.lr: has no high; allowed: low and high, or value"),
    ("optim.lr: {low: 0.1, hgih: 1}", r"space\.optim\.lr\.hgih: is not a known key.*did you mean 'high'\?"),
    ("optim.lr: {low: 0.1, high: yes}", r"lr\.high: True is not a finite number \(YAML reads yes, no, on and off"),
    ("optim.lr: {value: 1, low: 1}", r"lr\.low: stands beside 'value'"),
    ("optim.lr: []", r"space\.optim\.lr: is an empty list"),
    ("optim.lr:", r"space\.optim\.lr: is empty; allowed: a value"),
    ("optim.lr: [1, null]", r"lr\[1\]: is empty \(null stands for an absent value\)"),
    ("optim.lr: [1, [2]]", r"lr\[1\]: \[2\] is not a single value"),
    ("optim.lr: [1, 1.0]", r"lr: names 1\.0 twice"),
    ("optim.lr: [{value: 1, when: {method: full}}, 2]", r"lr\[1\]: 2 stands among values that depend on others"),
    ("optim.lr: [{value: 1}, {value: 2}]", r"lr\[0\]: holds everywhere, so what follows it is never reached"),
    ("optim.lr: {value: 1, when: {metod: full}}", r"lr\.when\.metod: is not a known key.*did you mean 'method'\?"),
    ("optim.lr: {value: 1, when: full}", r"lr\.when: 'full' is not a condition; allowed: {method, adapter"),
    ("optim.lr: {value: 1, when: {method: []}}", r"lr\.when\.method: is an empty list"),
    ("optim.lr: {value: 1, when: {penalty: repsin}}", r"'repsin' matches no penalty.*did you mean 'repsim'\?"),
    ("optim.lr: {value: 1, when: {adapter: none}}", r"'none' matches no adapter"),
    ("optim.lr: {value: 1, when: {penalty: null}}", r"when\.penalty: None is not allowed \(write none\)"),
    ("optim.lr: {value: 1, when: {backbone: resnet}}", r"'resnet' matches no backbone of this space"),
    ("optim.lr: {value: 1, when: {data: 'csv:*'}}", r"'csv:\*' matches no data of this space"),
    ("optim.lr: {value: 1, when: {method: hcs}}", r"space\.optim\.lr: its 'when' holds for no trial of this space"),
    ("strength: {value: 1, when: {penalty: none}}", r"there is no strength without a penalty"),
    ("optim.epochs: {low: 1.5, high: 3}", r"epochs\.low: 1\.5 is not allowed; allowed: a valid integer"),
    ("optim.epochs: [0]", r"epochs\[0\]: 0 is not allowed; allowed: greater than or equal to 1"),
    ("data.resize: no", r"data\.resize: False is not allowed \(YAML reads yes, no"),
    ("checkpoint: bst", r"checkpoint: 'bst' is not allowed; allowed: 'last' or 'best'; did you mean 'best'\?"),
    ("data.views: [1.5]", r"views\[0\]: 1\.5 is not allowed; allowed: 'auto', or a whole number from 1 to 10000"),
    ("head: [linaer]", r"head\[0\]: 'linaer' is not a known head; allowed: linear, .*; did you mean 'linear'\?"),
    ("optim.lrate: 1", r"space\.optim\.lrate: is not a known key.*did you mean 'optim\.lr'\?"),
    ("seed: [1, 2]", r"space\.seed: all trials of a search train with search\.seed"),
    ("data: [a]", r"space\.data: the data is named at the top of the file"),
    ("data.split_seed: [1, 2]", r"space\.data\.split_seed: is constant within a search.*; allowed: fixed"),
    ("1: 2", r"space\.1: is not a known key"),
    ("measure.sharpness: [full]", r"measure\.sharpness: is constant within a search: all trials are measured alike"),
    ("measure.layers: [none, full]", r"measure\.layers: is constant within a search: all trials are measured alike"),
    ("measure.quality: {value: full}", r"measure\.quality: is constant within a search.*; allowed: fixed"),
    ("strength: {target_cka: [0.9, 1.5]}", r"strength\.target_cka\[1\]: 1\.5 is not allowed"),
    ("strength.target_cka: {value: 0.9, when: {penalty: none}}", r"target_cka\.when\.penalty: there is no strength"),
    ("strength: {target_cka: 0.9, low: 1}", r"space\.strength\.target_cka: is not a known key"),
]
AT_TOP = [
    (
        "space: {method: [full, lp_ft], head: [linear, mlp]}",
        r"space\.head: 'mlp' meets method 'lp_ft', which fits a linear head",
    ),
    (
        "space: {method: [linear_probe, hcs], head: {value: mlp, when: {penalty: none}}}",
        r"head: 'mlp' meets method 'linear_probe'",
    ),
    ("bugdet: {trials: 3}", r"bugdet: is not a known key.*did you mean 'budget'\?"),
    ("budget: {trails: 3}", r"budget\.trails: is not a known key.*did you mean 'trials'\?"),
    ("budget: {trials: 0}", r"budget\.trials: 0 is not allowed; allowed: a whole number from 2 to"),
    ("budget: {trials: 1}", r"budget\.trials: 1 is not allowed; allowed: a whole number from 2 to"),
    ("budget: {trials: -5}", r"budget\.trials: -5 is not allowed"),
    ("budget: {trials: 2.5}", r"budget\.trials: 2\.5 is not allowed"),
    ("budget: {trials: yes}", r"budget\.trials: True is not allowed \(YAML reads yes"),
    ("budget: {epochs: 0}", r"budget\.epochs: 0 is not allowed; allowed: a whole number from 1"),
    ("budget: {hours: 0}", r"budget\.hours: 0 is not allowed; allowed: a number above 0"),
    ("budget: {hours: .inf}", r"budget\.hours: inf is not allowed"),
    ("budget: {stagnation: 0}", r"budget\.stagnation: 0 is not allowed; allowed: a whole number from 1"),
    ("budget: {train_epochs: 6}", r"budget\.train_epochs: 6 is not allowed; allowed: a whole number from 7"),
    ("budget: 12", r"budget: 12 is not a section; allowed: \{trials: …"),
    ("search: {sampler: tbe}", r"search\.sampler: 'tbe' is not allowed.*did you mean 'tpe'\?"),
    ("search: {stopping: paretto}", r"search\.stopping: 'paretto' is not allowed; allowed: none, pareto; did you mean"),
    (
        "budget: {epochs: 1}\nsearch: {stopping: pareto}",
        r"search\.stopping: a trial of one epoch cannot be stopped early",
    ),
    ("search: {balance: methods}", r"search\.balance: 'methods' is not allowed.*did you mean 'method'\?"),
    ("budget: {trials: 3}\nsearch: {balance: method}", r"search\.balance: 3 trials are too few; allowed: 4 trials or"),
    (
        "search: {balance: backbone}\nspace: {method: [full, hcs]}",
        r"balance: there is one backbone, so nothing to balance",
    ),
    (
        "search: {balance: method}\nspace: {method: {value: [full, hcs], when: {backbone: a}}, backbone: [a, b]}",
        r"balance: method depends on others, so its values cannot have equal shares",
    ),
    (
        "search: {sampler: gp}\nspace: {method: [full, hcs], strength: {low: 1, high: 2}}",
        r"gp would draw strength at random, because it depends on method; write search: {sampler: gp, balance: method}",
    ),
    ("initial: {method: full}", r"initial: .* is not a list; allowed: \[{KEY: VALUE"),
    ("initial: [full]", r"initial\[0\]: 'full' is not a point; allowed: {KEY: VALUE, …} of method, backbone"),
    ("initial: [{metod: full}]", r"initial\[0\]\.metod: is not a known key.*did you mean 'method'\?"),
    ("initial: [{method: repsm}]", r"initial\[0\]\.method: 'repsm' is not a known method.*did you mean 'repsim'\?"),
    ("initial: [{}, {method: full}]", r"initial\[0\]: {} is not a point"),
    (
        "initial: [{method: full}, {backbone: mobilenetv2_10}]",
        r"initial\[1\]\.backbone: 'mobilenetv2_10' is not in the space beside method full; allowed: tf.*2_100'\?",
    ),
    ("search: {stopping: no}", r"search\.stopping: False is not allowed \(YAML reads yes"),
    ("search: {parallel: 0}", r"search\.parallel: 0 is not allowed; allowed: auto, or a whole number from 1"),
    ("search: {seed: -1}", r"search\.seed: -1 is not allowed"),
    (
        "confirm: {seeds: 2}",
        r"confirm\.seeds: 2 is too few to tell luck from merit; allowed: 0, or a whole number from 3",
    ),
    ("confirm: {seeds: 101}", r"confirm\.seeds: 101 is not allowed"),
    ("confirm: {seeds: -3}", r"confirm\.seeds: -3 is not allowed"),
    ("confirm: {runs: x}", r"confirm\.runs: 'x' is not allowed; allowed: a whole number from 0"),
    ("confirm: {seeds: 3, runs: 1}", r"confirm\.runs: 1 is not allowed"),
    ("resources: {models: all}", r"resources\.models: 'all' is not allowed; allowed: front, none"),
    ("resources: {models: no}", r"resources\.models: False is not allowed.*put the word in quotes"),
    ("resources: {workers: 0}", r"resources\.workers: 0 is not allowed"),
    ("resources: {cpus_per_worker: none}", r"resources\.cpus_per_worker: 'none' is not allowed"),
    ("resources: {gpus_per_worker: -1}", r"resources\.gpus_per_worker: -1 is not allowed; allowed: a number from 0"),
    ("data: []", r"data: is an empty list"),
    ("data: [a, a]", r"data\[1\]: 'a' is named twice"),
    ("data: 3", r"data: 3 is not a data source; allowed: phantom:NAME"),
    ("question: [a]", r"question: \[.a.\] is not text"),
    ("fixed: {method: repsm}", r"fixed\.method: 'repsm' is not a known method.*did you mean 'repsim'\?"),
    (
        "fixed: {method: lp_ft, head: mlp}",
        r"fixed\.head: 'mlp' meets method 'lp_ft', which fits a linear head; allowed:",
    ),
    ("fixed: {method: full, strength.target_cka: 0.9}", r"fixed\.strength\.target_cka: no method of this space has"),
    ("fixed: {method: hcs, strength.target_cka: 0.9, strength: 1}", r"0\.9 is asked for, and strength 1\.0 too"),
    ("fixed: {method: linear_probe+repsim}", r"fixed\.method: 'linear_probe\+repsim' makes no sense"),
    ("fixed: {method: full+repsm}", r"fixed\.method: 'repsm' in 'full\+repsm' is not a known penalty"),
    ("fixed: {optim.lr: {low: 1, high: 2}}", r"fixed\.optim\.lr: .* is not one value"),
    ("fixed: {data: {image_size: 32}}", r"fixed\.data: the data is named at the top of the file"),
    ("fixed: {data.fractions: [0.5, 0.5]}", r"fixed\.data\.fractions: \[0\.5, 0\.5\] is not allowed"),
    ("fixed: {data.fractions: [0.5, 0.2, 0.2]}", r"data\.fractions: must add up to 1, these make 0\.9"),
    ("fixed: {seed: 1}", r"fixed\.seed: all trials of a search train with search\.seed"),
    ("fixed: {backbone: ' '}", r"fixed\.backbone: must not be empty"),
    ("fixed: {backbone: 3}", r"fixed\.backbone: 3 is not allowed; allowed: a valid string"),
    ("fixed: [a]", r"fixed: \[.a.\] is not a section"),
    ("constraints: val_accuracy >= 0.7", r"constraints: 'val_accuracy >= 0\.7' is not a list"),
    ("constraints: [val_accuracy > 0.7]", r"constraints\[0\]: 'val_accuracy > 0\.7' is not a constraint"),
    ("constraints: [val_accuracy >= x]", r"constraints\[0\]: 'x' is not a finite number"),
    ("constraints: [val_accuracy >= nan]", r"constraints\[0\]: 'nan' is not a finite number"),
    ("constraints: [val_acuracy >= 0.7]", r"'val_acuracy' is not a known metric.*did you mean 'val_accuracy'\?"),
    ("constraints: [test_accuracy >= 0.7]", r"'test_accuracy': test images are never a constraint"),
    ("constraints: [val_cka >= 0.7, val_cka >= 0.8]", r"val_cka has a bound on this side already"),
    ("constraints: [val_cka >= 0.7, val_cka <= 0.6]", r"val_cka <= 0\.6 and val_cka >= 0\.7 cannot both hold"),
]
OBJECTIVES = [
    ("[{metric: val_accuracy}]", r"objectives: there is one objective: a trade-off is between two or three metrics"),
    ("[]", r"objectives: there are no objectives"),
    ("[{metric: val_nll}, {metric: val_cka}, {metric: val_auc}, {metric: val_ece}]", r"there are 4 objectives"),
    ("val_accuracy", r"objectives: 'val_accuracy' is not a list"),
    ("[val_accuracy, val_cka]", r"objectives\[0\]: 'val_accuracy' is not an objective; allowed: \{metric"),
    ("[{metric: val_cka}, {metric: val_cka}]", r"objectives\[1\]\.metric: 'val_cka' is named twice"),
    ("[{metric: val_cka}, {direction: maximize}]", r"objectives\[1\]: has no metric"),
    (
        "[{metric: test_accuracy}, {metric: val_cka}]",
        r"'test_accuracy': test images are never an objective, .*did you mean 'val_accuracy'\?",
    ),
    ("[{metric: val_acuracy}, {metric: val_cka}]", r"not a known metric.*did you mean 'val_accuracy'\?"),
    ("[{metric: train_nll}, {metric: val_cka}]", r"'train_nll' has no better direction"),
    (
        "[{metric: val_qwk}, {metric: val_cka}]",
        r"'val_qwk' is reported by trials with measure\.quality: full alone, so it cannot be an objective",
    ),
    ("[{metric: val_nll, direction: maximize}, {metric: val_cka}]", r"'maximize' would look for the worst val_nll"),
    ("[{metric: val_nll, direction: max}, {metric: val_cka}]", r"direction: 'max' is not allowed.*'maximize'"),
    ("[{metric: val_nll, dirction: minimize}, {metric: val_cka}]", r"dirction: is not a known key.*'direction'"),
]
NAMES = [
    ("a/b", r"name: 'a/b' cannot be a name; allowed: letters, digits"),
    ("'..'", r"name: '\.\.' cannot be a name"),
    ("'a b'", r"cannot be a name"),
    ("größe", r"cannot be a name"),
    ("x" * 65, r"cannot be a name"),
    ("2024", r"name: 2024 is not text \(put it in quotes\)"),
]


def whole(text: str) -> str:
    """``text`` over the good document, its keys replacing the good ones."""
    document = yaml.safe_load(GOOD + SEARCH)
    replaced = {key for key in document if re.search(rf"^{key}:", text, re.MULTILINE)}
    kept = {key: value for key, value in document.items() if key not in replaced}
    return yaml.safe_dump(kept) + text + "\n"


@pytest.mark.parametrize(("line", "match"), IN_SPACE, ids=[line for line, _ in IN_SPACE])
def test_mistakes_in_space(tmp_path: Path, line: str, match: str) -> None:
    extra = "" if line.startswith(("method", "backbone")) else "  backbone: [tf_efficientnet_lite0, mobilenetv2_100]\n"
    with pytest.raises(RequestError, match=match) as caught:
        load(tmp_path, f"{GOOD}space:\n  method: [full, repsim]\n{extra}  {line}\n")
    assert len(caught.value.mistakes) == 1, str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "bad.yaml"))


@pytest.mark.parametrize(("line", "match"), AT_TOP, ids=[line for line, _ in AT_TOP])
def test_mistakes_at_the_top(tmp_path: Path, line: str, match: str) -> None:
    text = whole(f"{line}\nspace: {{}}" if line.startswith(("fixed: {method", "fixed: {backbone")) else line)
    with pytest.raises(RequestError, match=match) as caught:
        load(tmp_path, text)
    assert len(caught.value.mistakes) == 1, str(caught.value)


@pytest.mark.parametrize(("value", "match"), OBJECTIVES, ids=[value for value, _ in OBJECTIVES])
def test_wrong_objectives(tmp_path: Path, value: str, match: str) -> None:
    with pytest.raises(RequestError, match=match):
        load(tmp_path, whole(f"objectives: {value}"))


@pytest.mark.parametrize(("value", "match"), NAMES)
def test_wrong_names(tmp_path: Path, value: str, match: str) -> None:
    with pytest.raises(RequestError, match=match):
        load(tmp_path, whole(f"name: {value}"))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("fixed: {method: full}\nspace: {strength: [1, 2]}", "no method of this space has a penalty"),
        ("fixed: {strength: 1}\nspace: {}", r"fixed\.strength: no method of this space has a penalty"),
        ("fixed: {optim.lr: 1}\nspace: {optim.lr: [1, 2]}", r"space\.optim\.lr: is fixed as well"),
        (
            "search: {sampler: grid}\nspace: {optim.lr: {low: 1, high: 2}}",
            r"a grid needs .*, and optim\.lr has a range",
        ),
        ("space: {method: {value: full, when: {method: full}}}", "method depends on itself"),
        ("space: {backbone: {value: a, when: {backbone: a}}}", "backbone depends on itself"),
        (
            "space: {method: {value: full, when: {backbone: a}}, backbone: {value: a, when: {penalty: none}}}",
            "method depends on backbone and backbone on method",
        ),
        ("space: [a]", r"space: \[.a.\] is not a section"),
        ("space:", "space: None is not a section; allowed: searched keys"),
        ("yes: 1", "True: is not a known key"),
    ],
)
def test_parts_that_do_not_fit(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(RequestError, match=match):
        load(tmp_path, whole(text))


def mistakes(folder: Path, text: str) -> list[str]:
    """Every mistake, without the file's name."""
    with pytest.raises(RequestError, match="allowed") as caught:
        load(folder, whole(text))
    return [str(mistake).partition(": ")[2] for mistake in caught.value.mistakes]


def test_a_line_of_weights_is_judged_for_every_method_beside_the_heads(tmp_path: Path) -> None:
    text = "fixed: {measure.wise: true}\nspace: {method: [vpt, lora, vpt+hcs, lp_ft], head: [linear, mlp]}"
    heads, probed, *lines = mistakes(tmp_path, text)
    assert "space.head: 'mlp' meets the line of weights" in heads
    assert "space.head: 'mlp' meets method 'lp_ft'" in probed
    assert [line.partition(", which")[0] for line in lines] == [
        f"fixed.measure.wise: there is no line of weights for method '{method}'" for method in ("vpt", "vpt+hcs")
    ]
    (point,) = mistakes(tmp_path, "fixed: {wise_alpha: 0.5}\nspace: {method: [full, repsim]}")
    assert point.startswith("fixed.wise_alpha: there is no line of weights for method 'linear_probe'")


def test_what_stands_behind_a_wrong_head_is_told_as_well(tmp_path: Path) -> None:
    text = "fixed: {head: mlp, penalty.margin: 3, strength.target_cka: 0.9}\nspace: {method: [lp_ft, hcs, bss]}"
    head, margin, target = mistakes(tmp_path, text)
    assert head.startswith("fixed.head: 'mlp' meets method 'lp_ft'")
    assert margin.startswith("fixed.penalty.margin: 3 frees every dissimilarity")
    assert target.startswith("fixed.strength.target_cka: 0.9 is out of reach of bss")


@pytest.mark.parametrize("margin", ["[0.1, 1.5]", "{low: 0.1, high: 1.0}", "{value: 1.5, when: {method: hcs}}"])
def test_a_margin_that_frees_everything_is_refused_wherever_it_stands(margin: str, tmp_path: Path) -> None:
    space = f"space: {{method: [hcs, triplet], penalty.margin: {margin}, penalty.estimator: [debiased, biased]}}"
    (line,) = mistakes(tmp_path, space)
    assert line.startswith("space.penalty.margin: 1")
    assert "biased CKA leaves hcs at most 1" in line
    load(tmp_path, whole(space.replace("[debiased, biased]", "debiased")))
    load(
        tmp_path, whole(space.replace("[hcs, triplet]", "[repsim, triplet]").replace("method: hcs", "method: triplet"))
    )


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", r"bad\.yaml: is empty; allowed: the keys name"),
        (b"- a", "holds .*, not keys and values"),
        (b"a: [", r"is not YAML: .* \(line 1, column 5\)"),
        (b"a: b: c", "is not YAML: "),
        (b"\xff\xfe\xfa", "is not text in UTF-8"),
        (b"a: \x00", "is not YAML: "),
        (b"a: !!python/object:os.system x", "is not YAML: could not determine a constructor"),
        (b"a: &x 1\nb: *x", "is not YAML: aliases"),
        (b"a: 0b_", "is not YAML: not a valid int"),
        (b"a: !!bool maybe", "is not YAML: not a valid bool"),
        (b"a: !!map bc", r"is not YAML: expected a mapping node, but found scalar \(line 1, column 4\)"),
        (b"a: !!map [bc, de]", r"is not YAML: expected a mapping node, but found sequence"),
        (b'a: "\\U00110000"', r"is not YAML: an escape such as \\U00110000 names no character"),
        (b'a: "\\UFFFFFFFF"', r"is not YAML: an escape such as \\U00110000 names no character"),
        (b'a: "\\ud83e"', r"is half a character; write the character itself \(line 1, column 4\)"),
        (b"a: 0x" + b"f" * 40, "is not YAML: the number is too large"),
        (b"[" * 3000, "is not YAML a person would write: it is nested too deeply"),
        (b"a: " + b"x" * 1_000_001, "is larger than 1000000 bytes"),
        (b"--- 1\n--- 2", "is not YAML: "),
    ],
)
def test_files_that_are_no_spaces(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=match):
        load_space(str(path))


def test_a_character_written_as_json_writes_it_is_whole(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD + 'question: "\\ud83e\\ude7a?"\n' + SEARCH).question == "🩺?"


def test_keys_written_twice(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="key 'name' is written a second time in line ") as caught:
        load(tmp_path, GOOD + "name: again\nspace: {method: [full, hcs], method: [hcs]}\nbugdet: 1\n")
    text = str(caught.value)
    assert "key 'method' is written a second time" in text
    assert "'budget'" in text, "the rest is judged as well"


def test_missing_keys_and_all_mistakes_at_once(tmp_path: Path) -> None:
    with pytest.raises(RequestError) as caught:
        load(tmp_path, "budget: {trials: 0, epochs: -1}\nsaerch: 1\nfixed: {optim.lr: -1, head: x}\n")
    keys = [mistake.key for mistake in caught.value.mistakes]
    assert sorted(keys) == [
        "budget.epochs", "budget.trials", "fixed.head", "fixed.optim.lr", "name", "objectives", "saerch", "space",
    ]  # fmt: skip
    assert len(str(caught.value).splitlines()) == len(keys)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("nowhere/x.yaml", r"--space nowhere/x\.yaml: does not exist; allowed: a path, or one of search_spaces/: "),
        ("paretto", r"--space paretto: does not exist.*did you mean 'pareto'\?"),
        ("", "is not a file name"),
        ("a\x00b", "is not a file name"),
        ("x" * 5000, "cannot be read"),
        ("folder", "--space folder: is a folder"),
        ("/dev/null", "is not a file"),
    ],
)
def test_files_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, match: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(RequestError, match=match):
        load_space(name)


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(GOOD, encoding="utf-8")

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(RequestError, match=r"a\.yaml: cannot be read: Permission denied"):
        load_space(str(path))


@pytest.mark.parametrize(
    ("override", "match"),
    [
        ("budget.trials", r"'budget\.trials' is not KEY=VALUE"),
        ("=3", r"'=3' is not KEY=VALUE"),
        ("budget.trails=3", r"^--set budget\.trails: is not a known key.*did you mean 'trials'\?"),
        ("budgt.trials=3", r"^--set budgt\.trials: is not a known key.*did you mean 'budget\.trials'\?"),
        ("optim.epoch=3", r"^--set optim\.epoch: is not a known key.*did you mean 'optim\.epochs'\?"),
        ("budget.trials=0", r"^--set budget\.trials: 0 is not allowed"),
        ("budget={trials: 0}", r"^--set budget: trials: 0 is not allowed"),
        ("optim.lr=1e-5", r"^--set optim\.lr: '1e-5' is not allowed .*write 1\.0e-5"),
        ("optim.lr=[1, -1]", r"^--set optim\.lr: \[1\]: -1 is not allowed"),
        ("space.optim.lr.low=1", r"^--set space\.optim\.lr\.low: is not a known key"),
        ("fixed.seed=1", r"^--set fixed\.seed: all trials of a search train with search\.seed"),
        ("method=repsm", r"^--set method: 'repsm' is not a known method.*did you mean 'repsim'\?"),
        ("budget.trials=[", r"^--set budget\.trials: is not YAML"),
        ("question={a: 1, a: 2}", r"^--set question: key 'a' is written a second time"),
    ],
)
def test_wrong_overrides(override: str, match: str) -> None:
    with pytest.raises(RequestError, match=match):
        load_space("pareto", [override])


def test_an_override_cannot_mend_a_section_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(whole("budget: 3"), encoding="utf-8")
    with pytest.raises(RequestError, match="budget: 3 is not a section"):
        load_space(str(tmp_path / "a.yaml"), ["budget.trials=4"])
    (tmp_path / "a.yaml").write_text(whole("budget:"), encoding="utf-8")
    assert load_space(str(tmp_path / "a.yaml"), ["budget.trials=4"]).budget.trials == 4


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"trials": 1}, "^--trials: 1 is not allowed; allowed: a whole number from 2"),
        ({"parallel": 0}, "^--parallel: 0 is not allowed"),
        ({"seed": -1}, "^--seed: -1 is not allowed"),
        ({"data": ["a", "a"]}, r"^--data: \[1\]: 'a' is named twice"),
        ({"data": []}, "^--data: is an empty list"),
    ],
)
def test_wrong_flags_are_blamed_on_the_flag(arguments: dict[str, object], match: str) -> None:
    with pytest.raises(RequestError, match=match):
        load_space("pareto", **arguments)  # type: ignore[arg-type]


def test_what_stopping_would_compare_in_vain_is_refused() -> None:
    document: dict[str, object] = {
        "name": "vain",
        "objectives": [{"metric": "val_accuracy"}, {"metric": "val_cka"}],
        "search": {"stopping": "pareto"},
        "space": {"method": ["full", "repsim"], "strength": {"low": 0.1, "high": 10, "when": {"penalty": "any"}}},
    }
    assert space_from_dict(document, where="x").search.stopping == "pareto"
    similar = document | {"objectives": [{"metric": "val_cka"}, {"metric": "val_procrustes"}]}
    with pytest.raises(RequestError, match="similarity alone is no reason to stop a trial"):
        space_from_dict(similar, where="x")
    for fixed, said in (
        ({"checkpoint": "best"}, "checkpoint best reports others"),
        ({"wise_alpha": 0.5}, "wise_alpha 0.5"),
    ):
        with pytest.raises(RequestError, match=said):
            space_from_dict(document | {"fixed": fixed}, where="x")


@pytest.mark.parametrize("text", ["val_accuracy >= 2", "val_cka >= 1.01", "val_nll <= -1"])
def test_a_bound_that_nothing_reaches_is_refused(text: str) -> None:
    document = {
        "name": "bound",
        "objectives": [{"metric": "val_accuracy"}, {"metric": "val_cka"}],
        "constraints": [text],
        "space": {"method": ["full", "linear_probe"]},
    }
    with pytest.raises(RequestError, match="no trial can have"):
        space_from_dict(document, where="x")
    for fine in ("val_accuracy >= 1", "val_accuracy <= 0.9", "val_nll <= 0", "train_seconds <= 600"):
        assert space_from_dict(document | {"constraints": [fine]}, where="x").constraints


def test_the_seeds_of_a_confirmation_must_exist() -> None:
    document = {
        "name": "seeds",
        "objectives": [{"metric": "val_accuracy"}, {"metric": "val_cka"}],
        "confirm": {"seeds": 3},
        "search": {"seed": 2**32 - 1},
        "space": {"method": ["full", "linear_probe"]},
    }
    with pytest.raises(RequestError, match="leaves no room for the seeds"):
        space_from_dict(document, where="x")
    assert space_from_dict(document | {"confirm": {"seeds": 0}}, where="x").search.seed == 2**32 - 1
