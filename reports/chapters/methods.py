"""The chapter on methods: each one's own front, what it attains again, and who is better where that can be said."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from reports.chapters.attainment import FEWEST, by_backbone
from reports.chapters.chapter import Chapter
from reports.chapters.comparison import (
    DRAWS,
    FEWEST_TRIALS,
    LEVEL,
    Paired,
    Rarefied,
    means_of,
    paired,
    rarefied,
)
from reports.chapters.methods_drawing import MOST, MethodsPicture, draw_methods, methods_picture
from reports.confirmed import Estimate
from reports.fronts import Study
from reports.markup import esc, table_html
from reports.paper_tables import Table
from repsim.records import METRICS


def section(chapter: Chapter) -> str:
    """ "" where no data set has two methods."""
    parts = []
    for study, stem in zip(chapter.studies, chapter.stems, strict=True):
        told = _study(chapter, study, stem)
        if told and len(chapter.studies) > 1:
            parts.append(f"<h3>On {esc(study.data)}</h3>")
        parts += [told] if told else []
    return "\n".join(["<h2>Method by method</h2>", *parts]) if parts else ""


def _study(chapter: Chapter, study: Study, stem: str) -> str:
    parts = []
    owners = by_backbone(study)
    for number, (backbone, methods) in enumerate(owners.items(), start=1):
        ordered = tuple(name for name in chapter.styles.methods if name in methods)
        picture = methods_picture(study, chapter.styles, backbone, ordered)
        if picture is None:
            continue
        if len(owners) > 1:
            parts.append(f"<h4>{esc(backbone)}</h4>")
        name = f"methods{stem}" if len(owners) == 1 else f"methods{stem}_backbone_{number}"
        parts.append(chapter.figure(partial(draw_methods, picture), name, "Each method's own front", _caption(picture)))
        parts += _comparison(study, backbone)
        left = len(ordered) - MOST
        if left > 0:
            parts.append(f"<p>{left} methods more are not drawn, for lack of room; the table has them.</p>")
    return "\n".join(parts)


def _caption(picture: MethodsPicture) -> str:
    said = [
        "In colour the trials of one method and its own front, pale those of all others, circled the anchors. "
        "Similarity is to the method's own pretrained backbone, so only panels of one backbone are comparable."
    ]
    seeds = sorted({panel.attained.n for panel in picture.panels if panel.attained.surfaces})
    if seeds:
        n = " to ".join(str(n) for n in {seeds[0]: 0, seeds[-1]: 0})
        said.append(
            f"Dark lines bound what a quarter (dotted), half (dashed) and three quarters (dash-dotted) of n = {n} "
            "fresh seeds attain with the method's confirmed configurations."
        )
    else:
        said.append(
            f"There are no attainment surfaces: they take {FEWEST} fresh seeds of a method's confirmed configurations "
            "(confirm.seeds)."
        )
    return " ".join(said)[:-1]


def _comparison(study: Study, backbone: str) -> list[str]:
    tests = paired(study, backbone)
    if tests:
        return [_paired_words(tests), table_html(_means_table(study, backbone)), table_html(_paired_table(tests))]
    volumes = rarefied(study, backbone)
    if not volumes:
        return [f"<p>{esc(_why_not(study))}</p>"]
    return [f"<p>{esc(_rarefied_words(volumes))}</p>", table_html(_rarefied_table(volumes))]


def _why_not(study: Study) -> str:
    if study.reference is None:
        return "The methods are not compared: the sweep recorded no reference point for the hypervolume."
    return f"The methods are not compared: fewer than two were tried {FEWEST_TRIALS} times."


def _paired_words(tests: Sequence[Paired]) -> str:
    clear = [test for test in tests if test.adjusted is not None and test.adjusted < LEVEL]
    seeds = sorted({test.n for test in tests})
    n = " to ".join(str(n) for n in {seeds[0]: 0, seeds[-1]: 0})
    said = (
        "Each method is stood for by the confirmed configuration whose val means dominate most of the reference box; "
        f"compared are test values over n = {n} common fresh seeds, by paired t-tests with Holm's correction over "
        f"{len(tests)} tests. "
    )
    if not clear:
        return f"<p>{esc(said + 'No difference was found, which is not to say that there is none.')}</p>"
    items = "".join(
        f"<li>{esc(test.first)} against {esc(test.second)}: {esc(METRICS[test.metric].label)} "
        f"{test.difference:+.3f} ± {test.error:.3f}, p = {test.adjusted:.2g}</li>"
        for test in clear
    )
    return f"<p>{esc(said)}Differences found:</p><ul>{items}</ul><p>Of the other pairs no difference was found.</p>"


def _means_table(study: Study, backbone: str) -> Table:
    names = list(
        dict.fromkeys(name for o in study.objectives for name in (o.metric.replace("val_", "test_"), o.metric))
    )
    known = [name for name in names if name in METRICS]
    rows = []
    for method, point in means_of(study, backbone).items():
        told = point.repeats
        if told is not None:
            values = [
                Estimate(mean=told.means[name], error=told.errors[name]) if name in told.means else None
                for name in known
            ]
            rows.append((method, point.trial_id, point.strength, told.n, *values))
    labels = [METRICS[name].label for name in known]
    return Table(
        name="methods_confirmed",
        caption="",
        columns=("method", "trial", "strength", "n", *labels),
        rows=tuple(rows),
        metrics={METRICS[name].label: METRICS[name] for name in known},
    )


def _paired_table(tests: Sequence[Paired]) -> Table:
    rows = [
        (
            f"{test.first} − {test.second}", METRICS[test.metric].label, test.n,
            Estimate(mean=test.difference, error=test.error), test.p, test.adjusted,
        )
        for test in tests
    ]  # fmt: skip
    columns = ("methods", "metric", "n", "difference ± SEM", "p", "p, Holm")
    return Table(name="methods_paired", caption="", columns=columns, rows=tuple(rows), metrics={})


def _rarefied_words(volumes: Sequence[Rarefied]) -> str:
    m = volumes[0].m
    equal = all(one.n == m for one in volumes)
    if equal:
        return (
            f"Every method was tried {m} times. The hypervolumes are those of the method's own trials, n = 1 training "
            "each: exploratory, because another search would have found other points."
        )
    drawn = "" if all(one.exact for one in volumes) else f", or of {DRAWS:,} drawn ones where there are many"
    return (
        "Exploratory. Methods were tried different numbers of times, and the best of more is better by luck alone, so "
        f"each is cut down to m = {m} trials: mean and standard deviation of the hypervolume over all subsets of that "
        f"size{drawn}. Stopped and failed trials count as tried, an anchor as a trial of its method; methods with "
        f"fewer than {FEWEST_TRIALS} trials are left out. A search that looked more closely where one method was good "
        "makes that method's trials better than chance: this favours it."
    )


def _rarefied_table(volumes: Sequence[Rarefied]) -> Table:
    rows = [(one.method, one.n, one.m, round(one.mean, 4), round(one.spread, 4)) for one in volumes]
    columns = ("method", "trials", "m", "hypervolume", "standard deviation")
    return Table(name="methods_rarefied", caption="", columns=columns, rows=tuple(rows), metrics={})
