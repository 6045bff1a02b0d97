"""Spaces that are right: what they load to, that they read back, and what they propose."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml

from repsim.catalogue import ADAPTERS, PENALTIES
from repsim.errors import RequestError
from sweeps.space import Branch, Choice, Constraint, Dimension, Range, Space, contains, load_space, space_from_dict
from sweeps.space_file import FOLDER, available_spaces
from sweeps.space_rules import TOP_KEYS
from sweeps.space_schema import FILE, README, readme_text, schema, schema_text
from sweeps.space_settings import SECTIONS

HEAD = """
name: trial
objectives: [{metric: val_accuracy}, {metric: val_cka}]
"""
LINEAR_HEADS = {name for name, info in ADAPTERS.items() if info.linear_head}


def write(folder: Path, text: str, head: str = HEAD) -> str:
    path = folder / "trial.yaml"
    path.write_text(head + textwrap.dedent(text), encoding="utf-8")
    return str(path)


def reread(space: Space) -> Space:
    return space_from_dict(yaml.safe_load(yaml.safe_dump(space.to_dict())))


@pytest.mark.parametrize("name", available_spaces())
def test_every_packaged_space_loads_and_reads_back(name: str) -> None:
    space = load_space(name)
    assert space.name == name
    assert space.question
    assert reread(space) == space
    assert space_from_dict(json.loads(json.dumps(space.to_dict()))).space_hash == space.space_hash
    assert pickle.loads(pickle.dumps(space)) == space
    assert space.name in space.describe()
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert "# yaml-language-server: $schema=schema.json" in text
    assert "two CPU cores" in text, "a packaged space says what it costs"


@pytest.mark.parametrize("name", available_spaces())
def test_packaged_spaces_and_resolved_ones_follow_the_schema(name: str) -> None:
    validator = jsonschema.Draft202012Validator(schema())
    validator.validate(yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))
    validator.validate(load_space(name).to_dict())


def test_the_schema_knows_what_each_key_takes() -> None:
    validator = jsonschema.Draft202012Validator(schema())
    base = load_space("pareto").to_dict()
    for fixed in ({"strength.target_cka": 0.9}, {"penalty.center": False}, {"penalty.layers": "all"}):
        assert validator.is_valid(base | {"fixed": fixed}), fixed
    for fixed in ({"strength.target_cka": 1.5}, {"penalty.center": 1}, {"head": "linaer"}):
        assert not validator.is_valid(base | {"fixed": fixed}), fixed
    assert "measure.sharpness" not in schema()["properties"]["space"]["properties"]


def test_the_schema_refuses_what_is_misspelt() -> None:
    document = load_space("pareto").to_dict() | {"objektives": []}
    assert not jsonschema.Draft202012Validator(schema()).is_valid(document)
    nested = load_space("pareto").to_dict() | {"space": {"optim.lr": {"low": 1, "hihg": 2}}}
    assert not jsonschema.Draft202012Validator(schema()).is_valid(nested)


def test_the_committed_schema_is_up_to_date() -> None:
    assert FILE.read_text(encoding="utf-8") == schema_text(), "run: python -m sweeps.space_schema"


def test_the_default_space_is_the_documented_one() -> None:
    space = load_space("pareto.yaml")
    assert (space.budget.trials, space.budget.epochs, space.trial_count) == (24, 6, 24)
    assert space.values("method") == ("full", "linear_probe", "repsim", "hcs", "feature_mse")
    assert space.values("backbone") == ("tf_efficientnet_lite0", "mobilenetv2_100")
    assert space.values("data.image_size") == (64,)
    assert space.domain("strength", {"method": "hcs"}, space.data[0]) == Range(low=0.03, high=30.0, log=True)
    assert space.domain("strength", {"method": "full"}, space.data[0]) is None
    assert space.domain("optim.lr", {"method": "hcs"}, space.data[0]) == Range(low=3e-5, high=1e-3, log=True)
    assert space.domain("optim.lr", {"method": "linear_probe"}, space.data[0]) is None
    with pytest.raises(KeyError, match="'seed' is not searched"):
        space.domain("seed", {}, space.data[0])


def test_anchors_are_the_probe_and_full_finetuning_at_defaults() -> None:
    space = load_space("pareto")
    probe, full = space.anchors(space.data[0])
    first = "tf_efficientnet_lite0"
    assert probe == {"method": "linear_probe", "backbone": first, "strength": None, "optim.lr": None}
    assert full == {"method": "full", "backbone": first, "strength": None, "optim.lr": 3e-4}
    config = space.config(full, data=space.data[0], seed=7)
    assert (config.method, config.optim.lr, config.optim.epochs, config.seed) == ("full", 3e-4, 6, 7)
    assert config.data.image_size == 64
    assert config.data.source == space.data[0]


def test_anchors_stand_even_where_their_methods_are_not_searched(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        fixed: {strength: 2}
        space:
          method: [repsim, hcs]
          data.image_size: [32, 64]
          optim.lr: {low: 1.0e-6, high: 1.0e-5}
        """,
    )
    space = load_space(path)
    probe, full = space.anchors(space.data[0])
    assert probe == {"method": "linear_probe", "data.image_size": 32}, "default lr lies outside the range: left out"
    assert space.config(probe, data=space.data[0], seed=0).strength is None
    assert space.config(full, data=space.data[0], seed=0).optim.lr == 3e-4
    assert space.config({"method": "hcs"}, data=space.data[0], seed=0).strength == 2.0


@pytest.mark.parametrize("adapter", ["linear_probe", "lp_ft"])
def test_anchors_have_the_head_that_a_probe_fits(adapter: str, tmp_path: Path) -> None:
    assert adapter in LINEAR_HEADS
    varied = load_space(write(tmp_path, "space: {method: [full, repsim], head: [mlp, linear, cosine]}"))
    assert [anchor["head"] for anchor in varied.anchors("x")] == ["linear", "linear"]
    without = load_space(write(tmp_path, "space: {method: [full, repsim], head: [mlp, cosine]}"))
    assert [anchor["head"] for anchor in without.anchors("x")] == ["linear", "mlp"], "the second stays in the space"
    fixed = load_space(write(tmp_path, "fixed: {head: mlp}\nspace: {method: [full, repsim]}"))
    probe, full = (fixed.config(anchor, data="x", seed=0) for anchor in fixed.anchors("x"))
    assert (probe.head.name, full.head.name) == ("linear", "mlp")
    plain = load_space(write(tmp_path, "space: {method: [full, repsim]}"))
    assert "head" not in plain.anchors("x")[0]
    kept = load_space(
        write(tmp_path, f"space: {{method: [full, {adapter}], head: {{value: [mlp, linear], when: {{method: full}}}}}}")
    )
    probe, full = (kept.config(anchor, data="x", seed=0) for anchor in kept.anchors("x"))
    assert (probe.head.name, full.head.name) == ("linear", "linear")


def test_a_point_is_asked_for_in_either_spelling(tmp_path: Path) -> None:
    nested = load_space(write(tmp_path, "fixed: {strength: {target_cka: 0.9}}\nspace: {method: [full, repsim]}"))
    dotted = load_space(write(tmp_path, "fixed: {strength.target_cka: 0.9}\nspace: {method: [full, repsim]}"))
    assert nested == dotted == reread(nested)
    assert nested.config({"method": "repsim"}, data="x", seed=0).target_cka == 0.9
    assert [nested.config(anchor, data="x", seed=0).target_cka for anchor in nested.anchors("x")] == [None, None]
    searched = load_space(write(tmp_path, "space: {method: [full, hcs], strength: {target_cka: [0.8, 0.9]}}"))
    assert searched.dimension("strength.target_cka").branches[0].when == {"penalty": ("any",)}
    assert searched.domain("strength.target_cka", {"method": "full"}, "x") is None
    assert searched.config({"method": "hcs", "strength.target_cka": 0.8}, data="x", seed=0).target_cka == 0.8
    for override in ("strength.target_cka=0.9", "strength={target_cka: 0.9}"):
        said = load_space("pareto", [override])
        assert said.fixed["strength.target_cka"] == 0.9, "the last word counts"
        assert "strength" not in {dimension.key for dimension in said.dimensions}
    back = load_space(str(tmp_path / "trial.yaml"), ["strength=2"])
    assert (back.fixed, back.dimensions[1:]) == ({"strength": 2.0}, ())
    narrowed = load_space(str(tmp_path / "trial.yaml"), ["method=[full, linear_probe]"])
    assert [dimension.key for dimension in narrowed.dimensions] == ["method"]


def test_strength_is_absent_without_a_penalty_even_when_nothing_says_so(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, "space: {method: [full, repsim], strength: {low: 1, high: 30}}"))
    assert space.dimension("strength").branches[0].when == {"penalty": ("any",)}
    assert space.domain("strength", {"method": "repsim"}, "x") == Range(low=1.0, high=30.0)
    assert not space.dimension("strength").branches[0].domain.integer, "a strength is no whole number"  # type: ignore[union-attr]
    assert reread(space) == space


def test_dependent_values(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        data: [phantom:ultrasound, 'folder:a b']
        space:
          optim.batch_size: {low: 8, high: 64, log: true}
          method: [full, full+repsim, linear_probe]
          optim.lr:
            - {when: {backbone: "*lite*", adapter: full}, value: {low: 1.0e-5, high: 1.0e-3, log: true}}
            - {when: {data: "folder:*"}, value: [1.0e-4, 2]}
            - {when: {penalty: none, method: [linear_probe]}, low: 1, high: 2}
            - {value: 5.0e-4}
          backbone: [tf_efficientnet_lite0, mobilenetv2_100]
        """,
    )
    space = load_space(path)
    assert [d.key for d in space.dimensions] == ["method", "backbone", "optim.batch_size", "optim.lr"]
    assert space.values("method") == ("full", "repsim", "linear_probe")
    assert space.dimension("optim.batch_size").branches[0].domain == Range(low=8, high=64, log=True, integer=True)
    lite, mobile = {"backbone": "tf_efficientnet_lite0"}, {"backbone": "mobilenetv2_100"}
    first, second = space.data
    assert space.domain("optim.lr", lite, first) == Range(low=1e-5, high=1e-3, log=True), "method: full by default"
    assert space.domain("optim.lr", {**mobile, "method": "full"}, second) == Choice(values=(1e-4, 2.0))
    assert space.domain("optim.lr", {**mobile, "method": "linear_probe"}, first) == Range(low=1.0, high=2.0)
    assert space.domain("optim.lr", {**mobile, "method": "repsim"}, first) == Choice(values=(5e-4,))
    assert reread(space) == space
    assert space.trial_count == 48


def test_a_method_may_depend_on_the_backbone(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        space:
          method: [{when: {backbone: mobilenetv2_100}, value: [repsim]}, {value: [full, hcs]}]
          backbone: [mobilenetv2_100, tf_efficientnet_lite0]
        """,
    )
    space = load_space(path)
    assert [d.key for d in space.dimensions] == ["backbone", "method"]
    assert space.domain("method", {"backbone": "mobilenetv2_100"}, "x") == Choice(values=("repsim",))
    assert reread(space) == space


def test_the_order_of_lines_changes_nothing(tmp_path: Path) -> None:
    one = load_space(write(tmp_path, "space: {method: [full], optim.lr: [1, 2], optim.batch_size: [8, 16]}"))
    two = load_space(write(tmp_path, "space: {optim.batch_size: [8, 16], optim.lr: [1, 2], method: [full]}"))
    assert one == two


def test_an_empty_space_is_one_run(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, "fixed: {method: repsim, optim.clip_norm: null}\nspace: {}"))
    assert space.is_single_run
    assert space.anchors(space.data[0]) == ()
    assert (space.budget.trials, space.trial_count) == (1, 1)
    config = space.config({}, data=space.data[0], seed=3)
    assert (config.method, config.optim.clip_norm, config.seed) == ("repsim", None, 3)
    assert load_space("one_run", trials=1).is_single_run
    assert not load_space("pareto").is_single_run


def test_a_scalar_in_space_is_fixed(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, "space: {method: hcs, optim.lr: 1.0e-4}"))
    assert space.is_single_run
    assert space.fixed == {"method": "hcs", "optim.lr": 1e-4}


def test_epochs_come_from_the_budget_unless_said_otherwise(tmp_path: Path) -> None:
    plain = load_space("pareto", ["budget.epochs=3"])
    assert plain.config({}, data="x", seed=0).optim.epochs == 3
    fixed = load_space("pareto", ["optim.epochs=2"])
    assert fixed.budget.epochs == 2
    assert fixed.config({}, data="x", seed=0).optim.epochs == 2
    searched = load_space(write(tmp_path, "space: {optim.epochs: {low: 2, high: 9}}"))
    assert searched.budget.epochs == 9
    assert searched.config({"optim.epochs": 4}, data="x", seed=0).optim.epochs == 4
    back = load_space(write(tmp_path, "fixed: {optim.epochs: 2}\nspace: {method: [full, hcs]}"), ["budget.epochs=5"])
    assert back.config({}, data="x", seed=0).optim.epochs == 5, "the last word counts"


def test_constraints(tmp_path: Path) -> None:
    path = write(tmp_path, "constraints: [val_accuracy >= 0.7, 'val_cka<=1e-1']\nspace: {}")
    space = load_space(path)
    assert space.constraints == (
        Constraint(metric="val_accuracy", sense=">=", bound=0.7),
        Constraint(metric="val_cka", sense="<=", bound=0.1),
    )
    above, below = space.constraints
    assert above.violation(0.8) < 0 < above.violation(0.6)
    assert below.violation(0.05) < 0 < below.violation(0.2)
    assert reread(space) == space
    assert "val_cka <= 0.1" in space.describe()


def test_what_decides_the_search_is_described() -> None:
    space = load_space("confirmed.yaml", seed=3)
    told = "sampler auto, stopping pareto, balance method, seed 3, 2 initial points, 3 fresh seeds to confirm"
    assert f"search by: {told}" in space.describe()
    space = replace(space, initial=(), confirm_seeds=0, search=replace(space.search, balance=None, stopping="none"))
    assert space.describe().endswith("search by: sampler auto, stopping none, seed 3")
    assert "search by" not in load_space("one_run.yaml").describe()


def test_overrides_and_flags() -> None:
    space = load_space(
        "pareto",
        ["fixed.data.image_size=32", "method=[repsim, full]", "optim.lr=1.0e-4", "search.sampler=random", "name=other"],
        data=["phantom:tiny", "folder:x"],
        trials=4,
        parallel=3,
        seed=9,
    )
    assert (space.name, space.data) == ("other", ("phantom:tiny", "folder:x"))
    assert space.fixed == {"data.image_size": 32, "measure.layers": "full", "optim.lr": 1e-4}
    assert space.values("method") == ("repsim", "full")
    assert (space.budget.trials, space.search.parallel, space.search.seed) == (4, 3, 9)
    assert space.search.sampler == "random"
    assert reread(space) == space


def test_what_a_flag_makes_pointless_is_dropped() -> None:
    space = load_space("pareto", ["method=linear_probe"])
    assert [d.key for d in space.dimensions] == ["backbone"]
    searched = load_space("pareto", ["space.data.image_size=[32, 64]", "data.fractions=[0.5, 0.25, 0.25]"])
    assert "data.image_size" not in searched.fixed
    assert searched.fixed["data.fractions"] == (0.5, 0.25, 0.25)


def test_the_hash_names_the_question_not_its_size() -> None:
    base = load_space("pareto")
    assert len(base.space_hash) == 16
    assert load_space("pareto", trials=99, parallel=2).space_hash == base.space_hash
    for override in ("search.seed=1", "budget.epochs=2", "optim.lr=1.0e-4", "data=phantom:tiny"):
        assert load_space("pareto", [override]).space_hash != base.space_hash, override


def test_files_are_found_by_path_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pareto").mkdir()
    assert load_space("pareto").budget.trials == 24
    (tmp_path / "pareto.yaml").write_text(HEAD + "budget: {trials: 3}\nspace: {method: [full, hcs]}", encoding="utf-8")
    assert load_space("pareto").budget.trials == 3
    assert load_space(str(FOLDER / "pareto")).budget.trials == 24


def test_contains() -> None:
    assert contains(Range(low=1, high=2), 2)
    assert not contains(Range(low=0, high=2), True)
    assert not contains(Range(low=1, high=2), None)
    assert contains(Choice(values=("a",)), "a")
    assert not contains(Choice(values=("a",)), "b")


def test_absent_where_no_branch_holds() -> None:
    branch = Branch(when={"method": ("hcs",)}, domain=Choice(values=(1,)))
    dimension = Dimension(key="optim.lr", branches=(branch,))
    assert dimension.domain(method="full+hcs", backbone="b", data="d") == branch.domain
    assert dimension.domain(method="full", backbone="b", data="d") is None


def test_a_stored_space_that_became_invalid_is_refused() -> None:
    with pytest.raises(RequestError, match=r"^runs/a/space\.yaml: budget\.trials: 0 is not allowed"):
        space_from_dict(load_space("pareto").to_dict() | {"budget": {"trials": 0}}, where="runs/a/space.yaml")


def test_every_method_a_convnet_can_take_gets_the_same_budget() -> None:
    space = load_space("methods")
    transformers = {"adaptformer", "vpt"}
    assert set(space.values("method")) == (set(ADAPTERS) | set(PENALTIES)) - transformers
    runs = 0
    for method in map(str, space.values("method")):
        found = [space.domain(key, {"method": method}, space.data[0]) for key in ("strength", "optim.lr")]
        sizes = [len(domain.values) for domain in found if isinstance(domain, Choice)]
        assert sizes == ([] if method == "linear_probe" else [3]), method
        runs += sizes[0] if sizes else 1
        adapter, penalty = ADAPTERS.get(method), PENALTIES.get(method)
        low, high = penalty.strength_range if penalty else (adapter and adapter.lr_range) or (0, 0)
        assert all(low <= value <= high for domain in found if isinstance(domain, Choice) for value in domain.values)
    assert space.budget.trials == runs == 58


def test_reading_imports_nothing_heavy_and_is_quick() -> None:
    code = (
        "import sys, sweeps.space, sweeps.arguments, sweeps.estimate, sweeps.space_schema;"
        "from sweeps.space import load_space; load_space('pareto'); sweeps.arguments.parse_arguments(['--space', 'x']);"
        "print([m for m in ('torch', 'timm', 'ray', 'optuna', 'mlflow', 'pandas', 'numpy') if m in sys.modules])"
    )
    started = time.perf_counter()
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
    assert time.perf_counter() - started < 3.0, "0.3 s when nothing else runs"


def test_the_tables_of_the_readme_are_up_to_date() -> None:
    text = README.read_text(encoding="utf-8")
    assert readme_text(text) == text, "run: python -m sweeps.space_schema"
    for key in (*TOP_KEYS, *(f"{section}.{key}" for section, keys in SECTIONS.items() for key in keys)):
        assert f"`{key}`" in text or key in SECTIONS, key
    (center,) = (line for line in text.splitlines() if line.startswith("| `penalty.center` |"))
    assert center.startswith("| `penalty.center` | `true` | `true`, `false` |")
    (target,) = (line for line in text.splitlines() if line.startswith("| `strength.target_cka` |"))
    assert "a number above 0 below 1" in target
    with pytest.raises(ValueError, match="no marks around the table of metrics"):
        readme_text(text.replace("<!-- metrics", "<!-- metric"))


def test_the_readme_shows_a_file_that_loads(tmp_path: Path) -> None:
    shown = README.read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    space = load_space(write(tmp_path, shown, head=""))
    assert space.dimensions == load_space("pareto").dimensions
    assert space.constraints
