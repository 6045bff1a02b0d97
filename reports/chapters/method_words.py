"""The sentences and tables of the chapter on methods. Plain text; the chapter escapes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reports.chapters.attainment import Attainment
from reports.chapters.comparison import Champion, Paired, reported
from reports.chapters.fresh_seeds import LEAST_SEEDS
from reports.chapters.methods_drawing import MethodsPicture
from reports.chapters.rarefaction import FEWEST_TRIALS, PLACES, Rarefied, box, tried
from reports.confirmed import Estimate
from reports.fronts import Study
from reports.paper_tables import Table, show
from repsim.records import METRICS


def spread(numbers: Sequence[int]) -> str:
    """``4``, or ``3 to 5`` where they differ."""
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def caption(picture: MethodsPicture, study: Study) -> str:
    """What the small multiples show."""
    said = [
        "In colour the trials of one method and its own front, pale those of all methods, circled the anchors. "
        "Similarity is to the method's own pretrained backbone, so only panels of one backbone are comparable."
    ]
    if any(panel.means for panel in picture.panels):
        said.append(
            "A method with means over fresh seeds (large points) has their front; the front of one without is that of "
            "the search's own runs, n = 1."
        )
    else:
        said.append("They are the search's own runs, n = 1, picked for their values: a method tried more looks better.")
    if study.axes.colour is not None:
        said.append("With three objectives the plane shows a projection, so fronts are not joined.")
    if picture.sampled:
        said.append("Of many trials an even sample is drawn, and every one on its method's front.")
    said.append(_attained_words([panel.attained for panel in picture.panels], study))
    return " ".join(said)


def _attained_words(found: Sequence[Attainment], study: Study) -> str:
    known = [one for one in found if one.surfaces]
    if not known:
        if study.axes.colour is not None:
            return "There are no attainment surfaces: they are lines in the plane of two objectives."
        return (
            f"There are no attainment surfaces: they take {LEAST_SEEDS} fresh seeds of a method's confirmed "
            "configurations (confirm.seeds)."
        )
    said = (
        "Dark lines bound what a quarter (dotted), half (dashed) and three quarters (dash-dotted) of "
        f"n = {spread([one.n for one in known])} fresh seeds attain with the method's confirmed configurations: "
        "attainment surfaces, of val values."
    )
    left_out = sum(one.left_out for one in known)
    if left_out:
        said += f" Left out of them: {left_out} configurations that lack one of those seeds."
    without = len(found) - len(known)
    if without:
        said += f" {without} of the {len(found)} methods have none, for want of {LEAST_SEEDS} seeds."
    return said


def paired_words(tests: Sequence[Paired], total: int) -> tuple[str, list[str]]:
    """What is compared and how, and a line for each difference found; ``total`` counts the section's tests."""
    clear = [test for test in tests if test.found]
    n = spread([test.n for test in tests])
    said = (
        "Each method is stood for by the confirmed configuration whose val means dominate most of the reference box; "
        f"compared are test values over n = {n} common fresh seeds, by paired t-tests (two-sided) with Holm's "
        f"correction over all tests of this chapter ({total}). A method with more confirmed configurations has more to "
        "pick from, which favours it. "
    )
    if any(test.p is None for test in tests):
        said += "Where every seed gave the same difference there is nothing to test. "
    if not clear:
        return said + "No difference was found, which is not to say that there is none.", []
    lines = [
        f"{test.first} against {test.second}: {METRICS[test.metric].label} {test.difference:+.3g} ± {test.error:.2g} "
        f"(mean difference ± SEM), n = {test.n}, p = {show(test.adjusted)} (Holm)"
        for test in clear
    ]
    others = "" if len(clear) == len(tests) else "; in the other tests none was found"
    return f"{said}Differences found{others}:", lines


def means_table(study: Study, found: Mapping[str, Champion]) -> Table:
    """The configurations that stand for their methods; ``picked from`` counts the confirmed ones of the method."""
    names = dict.fromkeys(name for objective in study.objectives for name in (reported(objective), objective.metric))
    rows = []
    for method, champion in found.items():
        told = champion.point.repeats
        if told is not None:
            values = [
                Estimate(mean=told.means[name], error=told.errors[name]) if name in told.means else None
                for name in names
            ]
            rows.append((method, champion.point.trial_id, champion.point.strength, champion.of, told.n, *values))
    labels = [METRICS[name].label for name in names]
    return Table(
        name="methods_confirmed",
        caption="",
        columns=("method", "trial", "strength", "picked from", "n", *labels),
        rows=tuple(rows),
        metrics={METRICS[name].label: METRICS[name] for name in names},
    )


def paired_table(tests: Sequence[Paired]) -> Table:
    """Every test, also those that found nothing."""
    rows = [
        (
            f"{test.first} − {test.second}", METRICS[test.metric].label, test.n,
            Estimate(mean=test.difference, error=test.error), test.p, test.adjusted, _verdict(test),
        )
        for test in tests
    ]  # fmt: skip
    columns = ("methods", "metric", "n", "difference ± SEM", "p", "p, Holm", "found")
    return Table(name="methods_paired", caption="", columns=columns, rows=tuple(rows), metrics={})


def _verdict(test: Paired) -> str:
    if test.p is None:
        return "the same in every seed: not tested"
    if not test.found:
        return "no difference found"
    return f"{test.first} {'higher' if test.difference > 0 else 'lower'}"


def why_not(study: Study) -> str:
    """Why the search's own runs are not compared."""
    if box(study) is None:
        return "The search's own runs are not compared: the sweep recorded no box to measure a hypervolume in."
    return f"The search's own runs are not compared: fewer than two were tried {FEWEST_TRIALS} times."


def rarefied_words(volumes: Sequence[Rarefied], study: Study, backbone: str, *, fair: bool) -> str:
    """What the hypervolumes are of, and how far they can be trusted; ``fair``: each method had the same share."""
    m, equal = volumes[0].m, len({one.n for one in volumes}) == 1
    how = "exact, over all subsets of that size"
    if not all(one.exact for one in volumes):
        how = f"estimated at {PLACES:,} random places of the box where there are many trials"
    cut = f"the hypervolume expected of m = {m} of its trials ({how})"
    if fair:
        said = "The search gave every method an equal share of trials (search.balance: method), so hypervolumes compare"
        said += f": n = {m} trials each. " if equal else f"; where a share came out larger, it is cut down to {cut}. "
        said += "There was one search, so they have no error bars: another search.seed would have found other points. "
    elif equal:
        said = f"Exploratory. Methods were tried n = {m} times each, as it came about; there was one search. "
    else:
        said = (
            "Exploratory. Methods were tried different numbers of times, and the best of more is better by luck alone, "
            f"so each is cut down to {cut}. A search that looked more closely where one method was good makes that "
            "method's trials better than chance: this favours it. "
        )
    said += "Stopped and failed trials count as tried, an anchor as a trial of its method; derived points do not count."
    few = sorted(name for name, found in tried(study, backbone).items() if len(found) < FEWEST_TRIALS)
    return said + (f" Left out with fewer than {FEWEST_TRIALS} trials: {', '.join(few)}." if few else "")


def rarefied_table(volumes: Sequence[Rarefied]) -> Table:
    """Hypervolumes at m trials, and of all n."""
    rows = [(one.method, one.n, one.m, f"{one.mean:.4f}", f"{one.whole:.4f}") for one in volumes]
    columns = ("method", "trials", "m", "hypervolume at m", "hypervolume of all")
    return Table(name="methods_rarefied", caption="", columns=columns, rows=tuple(rows), metrics={})
