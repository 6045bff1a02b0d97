"""The pictures of benchmarks/search_plots.py: bands, refusals, and files that are the same each time."""

from __future__ import annotations

import json
import math
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from search_plots import (  # noqa: E402
    DEFAULT,
    LINES,
    MOST_SIDES,
    at,
    bands,
    chosen,
    main,
    minutes_to,
    read_peers,
    read_real,
    spread,
)
from search_replay import Run  # noqa: E402
from search_sides import sides  # noqa: E402
from search_vs_peers import OURS, PLAIN, write_curves  # noqa: E402

from repsim.errors import RequestError  # noqa: E402

CURVE = [[12, 0.2], [24, 0.5]]
PAIR = {
    "seed": 3,
    "mark": 0.5,
    "none": {"curve": [[60, 0.3], [120, 0.5]], "ended": 2},
    "pareto": {"curve": [[30, 0.2], [90, 0.6]], "ended": 2},
}


def written(folder: Path, document: object) -> Path:
    file = folder / "runs.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


def peers(folder: Path, names: Sequence[str] = DEFAULT) -> Path:
    curves = {name: [[[12, 0.1 * n], [30 + n, 0.1 + 0.1 * n]] for n in range(1, 4)] for name in names}
    return written(folder, {"mark": 0.25, "volumes": curves})


def test_a_curve_is_nothing_before_its_first_point_and_holds_its_last() -> None:
    places = np.array([0.0, 11.9, 12.0, 23.0, 24.0, 99.0])
    assert at([(12, 0.2), (24, 0.5)], places).tolist() == [0.0, 0.0, 0.2, 0.2, 0.5, 0.5]


def test_bands_are_the_quartiles_of_step_functions() -> None:
    curves = [[(1.0, 0.1), (4.0, 0.9)], [(1.0, 0.2)], [(2.0, 0.3)], [(1.0, 0.4)], [(1.0, 0.5)]]
    low, middle, high = bands(curves, np.array([0.0, 1.0, 2.0, 4.0]))
    assert low.tolist() == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert middle.tolist() == pytest.approx([0.0, 0.2, 0.3, 0.4])
    assert high.tolist() == pytest.approx([0.0, 0.4, 0.4, 0.5])


def test_minutes_are_counted_to_the_first_time_at_the_mark() -> None:
    curve = [(60.0, 0.3), (90.0, 0.5), (120.0, 0.4)]
    assert minutes_to(curve, 0.5) == 1.5
    assert minutes_to(curve, 0.6) == math.inf


def test_names_keep_their_distance_their_order_and_the_picture() -> None:
    assert spread([0.2, 0.8], 0.1) == [0.2, 0.8]
    for places in ([0.5, 0.5, 0.5], [0.99, 1.0, 0.98, 0.3], [0.0, 0.01, 0.05, 0.13]):
        found = spread(places, 0.1)
        ordered = sorted(found)
        assert all(b - a >= 0.1 - 1e-9 for a, b in pairwise(ordered)), places
        assert np.argsort(found, kind="stable").tolist() == np.argsort(places, kind="stable").tolist()
        assert 0.0 <= ordered[0] <= ordered[-1] <= 1.0


def test_what_the_comparison_writes_is_read(tmp_path: Path) -> None:
    file = tmp_path / "curves.json"
    write_curves(file, 0.4, {PLAIN: [Run(volumes=[(1, 0.1), (13, 0.4)]), Run(volumes=[(2, 0.2)])]})
    assert read_peers(file) == (0.4, {PLAIN: [[(1.0, 0.1), (13.0, 0.4)], [(2.0, 0.2)]]})


def test_the_sides_drawn_by_default_are_sides_and_each_has_a_line_of_its_own() -> None:
    optional = {name for name in DEFAULT if name.startswith("MOASHA")}
    assert set(DEFAULT) - optional <= set(sides(1))
    assert len(optional) == 2
    assert len(DEFAULT) == MOST_SIDES == len(set(map(str, LINES)))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "runs.json: \\[\\] is not allowed; allowed: a mapping with mark, volumes"),
        ({"mark": 0.3}, "allowed: a mapping with mark, volumes"),
        ({"mark": "high", "volumes": {"a": [CURVE]}}, "mark: 'high' is not allowed; allowed: a number from 0"),
        ({"mark": math.nan, "volumes": {"a": [CURVE]}}, "mark: nan is not allowed"),
        ({"mark": 0.3, "volumes": {}}, "volumes: {} is not allowed"),
        ({"mark": 0.3, "volumes": {"a": []}}, r"volumes\.a: \[\] is not allowed; allowed: a list: one curve"),
        ({"mark": 0.3, "volumes": {"a": [[]]}}, r"volumes\.a\[0\]: \[\] is not allowed; allowed: a list"),
        ({"mark": 0.3, "volumes": {"a": [[[1, 0.2, 3]]]}}, r"volumes\.a\[0\]\[0\]: \[1, 0.2, 3\] is not allowed"),
        ({"mark": 0.3, "volumes": {"a": [[[1, None]]]}}, r"volumes\.a\[0\]\[0\]: None is not allowed"),
        ({"mark": 0.3, "volumes": {"a": [[[1, True]]]}}, r"volumes\.a\[0\]\[0\]: True is not allowed"),
        ({"mark": 0.3, "volumes": {"a": [[[5, 0.2], [4, 0.3]]]}}, r"\[1\]: \[4, 0.3\] is not .* nothing before 5"),
    ],
)
def test_another_shape_of_curves_is_refused(document: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=message):
        read_peers(written(tmp_path, document))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"seeds": []}, r"seeds: \[\] is not allowed"),
        ({"seeds": [{"seed": 3, "mark": 0.5}]}, r"seeds\[0\]: .* allowed: a mapping with seed, mark, none, pareto"),
        ({"seeds": [{**PAIR, "none": {"ended": 2}}]}, r"seeds\[0\]\.none: .* allowed: a mapping with curve"),
        ({"seeds": [PAIR, {**PAIR, "seed": "3"}]}, r"seeds\[1\]\.seed: '3' is not allowed; allowed: a whole number"),
        ({"seeds": [{**PAIR, "seed": True}]}, r"seeds\[0\]\.seed: True is not allowed"),
        ({"seeds": [{**PAIR, "mark": -1}]}, r"seeds\[0\]\.mark: -1 is not allowed"),
        ({"seeds": [{**PAIR, "pareto": {"curve": [[1]]}}]}, r"seeds\[0\]\.pareto\.curve\[0\]: \[1\] is not allowed"),
    ],
)
def test_another_shape_of_sweeps_is_refused(document: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=message):
        read_real(written(tmp_path, document))


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"none\.json: cannot be read: No such file"):
        read_peers(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"mark": 0.', encoding="utf-8")
    with pytest.raises(RequestError, match=r"half\.json: is not JSON"):
        read_peers(tmp_path / "half.json")


def test_sides_are_chosen_from_those_there() -> None:
    file = Path("runs.json")
    assert chosen(file, ["other", PLAIN, OURS], None) == [OURS, PLAIN]
    assert chosen(file, ["other", PLAIN], ["other", "other"]) == ["other"]
    with pytest.raises(RequestError, match="holds no side that is drawn by default"):
        chosen(file, ["other"], None)
    with pytest.raises(RequestError, match=r"'othr' is not in runs\.json; allowed: other; did you mean 'other'"):
        chosen(file, ["other"], ["othr"])
    with pytest.raises(RequestError, match="7 sides; allowed: at most 6"):
        chosen(file, list("abcdefg"), list("abcdefg"))


@pytest.mark.parametrize("kind", ["peers", "real"])
def test_pictures_are_svg_and_the_same_bytes_each_time(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [{**PAIR, "seed": seed} for seed in range(4)]
    file = peers(tmp_path) if kind == "peers" else written(tmp_path, {"seeds": more})
    pictures = [tmp_path / "new" / f"{name}.svg" for name in "ab"]
    for picture in pictures:
        assert main([kind, str(file), "--out", str(picture)]) == 0
    assert capsys.readouterr().out.split() == [str(picture) for picture in pictures]
    first, second = (picture.read_bytes() for picture in pictures)
    assert first == second
    assert ET.fromstring(first).tag == "{http://www.w3.org/2000/svg}svg"


def test_mistakes_are_one_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.svg"
    assert main(["real", str(peers(tmp_path)), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "allowed: a mapping with seeds" in line
    assert not out.exists()
    for words in (["--out", "a.pdf"], ["--out", "a.svg", "--sides", "random"]):
        with pytest.raises(SystemExit, match="2"):
            main(["real", "runs.json", *words])
    said = capsys.readouterr().err
    assert "a.pdf must end in .svg or .png" in said
    assert "--sides: only peers has sides" in said
