"""The report's sentences: the answer, the price, the warnings. Plain text; the page escapes it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from reports import cautions
from reports.confirmed import UNDER_WAY, Estimate
from reports.fronts import KNEE, WITHIN, Point, Study, best_second, front_order, recommend, runs, wise_words
from reports.load import Sweep
from reports.paper_tables import show
from reports.values import finite
from repsim.records import FACTS, METRICS, Objective, Stage, Status

NO_ERROR_BARS = "n = 1, no error bars"
ACROSS_BACKBONES = (
    "Similarity compares a model with its own pretrained backbone, so a value reached on one backbone is not the same "
    "quantity as that value on another: read similarities within a panel, not across."
)
BETWEEN = "between a trial's pretrained and finetuned weights"
SHOWN_NAMES = 20
SHOWN_NOTES = 3


def describe(point: Point) -> str:
    """``t0007 (repsim, λ = 1.2, mobilenetv2_100)``; of a derived point, ``t0007-w03 (repsim wise α=0.3, …)``."""
    strength = "" if point.strength is None else f", λ = {show(point.strength)}"
    return f"{point.trial_id} ({point.method}{wise_words(point.alpha)}{strength}, {point.backbone})"


def amount(value: float, objective: Objective) -> str:
    """A difference in words: shares in points (hundredths), everything else as a number with its unit."""
    metric = METRICS[objective.metric]
    if metric.unit == "fraction":
        return f"{100 * value:.1f} points of {metric.label}"
    unit = f" {metric.unit}" if metric.unit else ""
    return f"{value:.3g}{unit} of {metric.label}"


def headline(study: Study) -> str:
    """The one-line answer for a data set."""
    searched = study.trials[study.trials["stage"] == Stage.SEARCH.value]
    if not study.points:
        if len(searched) and searched["status"].eq(Status.FAILED.value).all():
            return f"All {len(searched)} trials failed, so there is no answer."
        return "No trial has completed yet, so there is no answer."
    if not study.members:
        return "No completed trial is feasible, so there is no front."
    best = study.members[0]
    values = ", ".join(
        f"{METRICS[objective.metric].label} {show(value, METRICS[objective.metric])}"
        for objective, value in zip(study.objectives, best.values, strict=True)
    )
    if study.single:
        return f"A single run, so there is no front to draw: {describe(best)} reached {values}."
    if study.axes.x is None:
        return f"The best point is {describe(best)}: {values}."
    if len(study.members) == 1:
        return f"There is nothing to pay: {describe(best)} is best in every objective, with {values}."
    if len(study.backbones) > 1:
        return on_backbone(study, best.backbone)
    return price(study)


def price(study: Study) -> str:
    """What the best point of the second objective within one standard error (or else the knee) costs."""
    best = study.members[0]
    if len(study.members) == 1:
        return f"{describe(best)} is best in every objective."
    for wanted in (WITHIN, KNEE):
        for pick in study.picks:
            if wanted in pick.role and pick.point.trial_id != best.trial_id:
                return trade(study, best, pick.point)
    return trade(study, best, best_second(study.members, study.objectives))


def cost(study: Study, best: Point, target: Point) -> str:
    """``1.2 points of val accuracy for +0.310 val similarity (CKA)``: what ``target`` costs and gives against ``best``.

    Nothing is given for where the two are measured against different pretrained models.
    """
    paid = amount(abs(best.values[0] - target.values[0]), study.axes.y)
    if best.backbone != target.backbone:
        return f"{paid} against {best.trial_id}, on another backbone: their similarities cannot be compared"
    pairs = zip(study.objectives[1:], best.values[1:], target.values[1:], strict=True)
    return f"{paid} for {' and '.join(change(after - before, objective) for objective, before, after in pairs)}"


def change(difference: float, objective: Objective) -> str:
    """A signed difference in words: ``+0.310 val similarity (CKA)``, ``−1.2 points of test accuracy``."""
    metric = METRICS[objective.metric]
    sign = "−" if difference < 0 else "+"
    if metric.unit == "fraction":
        return f"{sign}{amount(abs(difference), objective)}"
    unit = f" {metric.unit} of" if metric.unit else ""
    return f"{sign}{show(abs(difference), metric)}{unit} {metric.label}"


def trade(study: Study, best: Point, target: Point) -> str:
    """What it costs, in the first objective, to have ``target`` instead of ``best``."""
    if study.axes.x is None or best.trial_id == target.trial_id:
        return f"{describe(best)} is best in every objective."
    metric = METRICS[study.axes.x.metric]
    before, after = (f"{show(p.values[1], metric)} ({p.trial_id})" for p in (best, target))
    size = size_of_loss(study, best, target)
    if best.backbone != target.backbone:
        paid = amount(abs(best.values[0] - target.values[0]), study.axes.y)
        less = f", {size}" if size else ""
        return (
            f"Taking {target.trial_id} instead of {best.trial_id} costs {paid}{less}; "
            "their similarities are to different models."
        )
    return f"{cost(study, best, target)}, from {before} to {after}." + (f" The loss is {size}." if size else "")


def size_of_loss(study: Study, best: Point, target: Point) -> str:
    """``less than one standard error (2.4 points)``, the larger one of the two; "" where none is known."""
    known = [(point.se, point) for point in (best, target) if point.se is not None]
    if not known:
        return ""
    error, point = max(known, key=lambda pair: pair[0])
    loss = abs(best.values[0] - target.values[0])
    size = f"{100 * error:.1f} points" if METRICS[study.axes.y.metric].unit == "fraction" else f"{error:.3g}"
    kind = "" if not study.means else f", binomial, of {point.trial_id}" if point.binomial else " over fresh seeds"
    return f"{'less' if loss <= error else 'more'} than one standard error ({size}{kind})"


def explanation(study: Study) -> list[str]:
    """The sentences under the headline: which roles fall together or are vacant, each other backbone's price."""
    if len(study.members) < 2 or study.axes.x is None:
        return []
    said = [vacancies(study)] if vacancies(study) else []
    others = [name for name in study.backbones if name != study.members[0].backbone]
    return said + [on_backbone(study, name) for name in others if within_backbone(study, name).members]


def vacancies(study: Study) -> str:
    """Why fewer than three different points are recommended; "" where there are three."""
    roles: dict[str, list[str]] = {}
    for pick in study.picks:
        roles.setdefault(pick.point.trial_id, []).append(pick.role)
    said = [
        f"{trial_id} is {len(names)} of the recommended points at once: {'; '.join(names)}."
        for trial_id, names in roles.items()
        if len(names) > 1
    ]
    taken = [pick.role for pick in study.picks]
    if KNEE not in taken:
        said.append("There is no knee: that takes three points on the front that differ in every objective.")
    if not any(WITHIN in role for role in taken):
        label = METRICS[study.axes.y.metric].label
        said.append(f"No standard error of {label} is known, so no point is named {WITHIN} of the best.")
    return " ".join(said)


def chosen_luck(study: Study) -> str:
    """What being picked for its values does to a point's values."""
    if study.means:
        return (
            "The points were picked by the means over fresh seeds that are shown, so the best of them still looks a "
            "little better than it is."
        )
    return (
        "Every point is one run, picked for its values, so the best look better than they are; with confirm.seeds set, "
        "a sweep trains its front again from fresh seeds."
    )


def on_backbone(study: Study, backbone: str) -> str:
    """The price within one backbone, where similarities mean the same."""
    text = price(within_backbone(study, backbone))
    return f"On {backbone}, {text[0].lower()}{text[1:]}"


def within_backbone(study: Study, backbone: str) -> Study:
    """The same study, restricted to one backbone: its own front and its own picks."""
    points = tuple(point for point in study.points if point.backbone == backbone)
    means = tuple(point for point in study.means if point.backbone == backbone)
    pool = means if study.means else points
    front = front_order(pool, study.objectives)
    picks = recommend([pool[index] for index in front], study.objectives)
    return replace(study, points=points, means=means, front=front if pool else (), picks=picks)


def separation(study: Study) -> str:
    """How many front points the validation images can tell apart."""
    total = len(study.members)
    if study.separated is None:
        return "No standard error is known for this objective, so nothing is said about how many points differ."
    label = METRICS[study.axes.y.metric].label
    kind = ""
    if study.means:
        kind = "over seeds" + (", or binomial where seeds show no spread" if _any_binomial(study) else "") + "; "
    return (
        f"One standard error of {label} tells {study.separated} of the {total} front points apart "
        f"({kind}counted from the best down; kept when more than the larger of the two standard errors away)."
    )


def _any_binomial(study: Study) -> bool:
    return any(point.binomial for point in study.members)


def on_test(study: Study, point: Point) -> str:
    """``Over 4 fresh seeds: test accuracy 0.812 ± 0.010, …`` of a confirmed point; "" of any other."""
    if point.repeats is None:
        return ""
    told = point.repeats
    names = [objective.metric.replace("val_", "test_") for objective in study.objectives]
    shown = [
        f"{METRICS[name].label} {show(Estimate(mean=told.means[name], error=told.errors[name]), METRICS[name])}"
        for name in names
        if name in told.means
    ]
    seeds = "1 fresh seed" if told.n == 1 else f"{told.n} fresh seeds"
    return f"Over {seeds}: {', '.join(shown)}." if shown else ""


def confirmation(study: Study) -> str:
    """What fresh seeds did to the front, why they ended, and how much luck was taken to explain; "" without any."""
    found = study.confirmation
    if found is None:
        return ""
    said = []
    if study.means:
        seeds = sorted({point.repeats.n for point in study.members if point.repeats is not None})
        over = f" over {' to '.join(str(n) for n in {seeds[0]: 0, seeds[-1]: 0})} fresh seeds" if seeds else ""
        said.append(
            f"{len(found.candidates)} configurations were candidates, {len(study.members)} are on the confirmed front: "
            f"the means{over} of val metrics that no other candidate's means dominate. The search's own runs are no "
            "part of a mean, because they were chosen for their values."
        )
    else:
        said.append("No candidate has two completed fresh seeds, so the front is the search's: n = 1, no error bars.")
    if found.missing and study.means:
        said.append(f"{found.missing} candidates have no completed fresh seed and are left out.")
    if found.delta:
        sizes = ", ".join(f"{METRICS[name].label} {size:.3g}" for name, size in found.delta.items())
        said.append(f"A candidate is what none betters by more than luck explains, δ = {sizes}.")
    if found.end == UNDER_WAY:
        said.append(f"The confirmation was not complete when this was built: {found.reason}.")
    elif found.end:
        said.append(f"The confirmation ended: {found.end} ({found.reason}).")
    return " ".join(said)


_STOPPED = re.compile(r"stopped (at epoch \d+ of \d+)")


def stopped_early(study: Study) -> str:
    """``12 trials stopped early: 7 at epoch 2 of 8, 5 at epoch 4 of 8.``; "" where none was."""
    pruned = study.trials[study.trials["status"] == Status.PRUNED.value]
    if pruned.empty:
        return ""
    reasons = []
    for text in pruned["reason"].fillna(""):
        match = _STOPPED.match(text)
        reasons.append(match.group(1) if match else text.partition(":")[0] or "no reason recorded")
    counts = [f"{count} {reason}" for reason, count in sorted(Counter(reasons).items(), key=lambda item: -item[1])]
    trials = "1 trial was" if len(pruned) == 1 else f"{len(pruned)} trials were"
    return f"{trials} stopped early: {', '.join(counts)}. None is on the front."


def warnings_for(sweep: Sweep, studies: Sequence[Study]) -> list[tuple[str, str]]:
    """(short, sentence) pairs, most serious first; an empty list where nothing is wrong."""
    found: list[tuple[str, str]] = []
    status = runs(sweep.trials)["status"]
    open_states = {s.value: int((status == s.value).sum()) for s in Status if not s.terminal}
    waiting = "".join(f", {count} {name}" for name, count in open_states.items() if count)
    if waiting or sweep.state in ("killed", "failed"):
        done = len(status) - sum(open_states.values())
        text = f"The sweep was not complete when this was built: {done} trials finished{waiting}."
        found.append(("incomplete sweep", text))
    failed = int((status == Status.FAILED.value).sum())
    if failed:
        text = f"{failed} of {len(status)} trials failed; the reasons are listed below, and none is on the front."
        found.append(("failed trials", text))
    found += cautions.of_code(sweep)
    single = [study.data for study in studies if not study.means]
    if single and len(status):
        which = "" if len(single) == len(studies) else f"{', '.join(single)}: "
        text = (
            f"{which}Every point is one training run, so the spread between seeds is not known. Where a standard error "
            "is given, it is the binomial one that comes from the number of val images alone."
        )
        found.append((NO_ERROR_BARS, text))
    for study in studies:
        who = f"{study.data}: " if len(studies) > 1 else ""
        told = [*_data_warnings(sweep, study), *cautions.of_study(sweep, study)]
        found.extend((short, f"{who}{text}") for short, text in told)
    if sweep.notes:
        more = f" And {len(sweep.notes) - SHOWN_NOTES} more like this." if len(sweep.notes) > SHOWN_NOTES else ""
        found.append(("unreadable record", " ".join(sweep.notes[:SHOWN_NOTES]) + more))
    return found


def _data_warnings(sweep: Sweep, study: Study) -> list[tuple[str, str]]:
    found = []
    facts = known_facts(sweep, study)
    share = _imbalance(facts)
    if share is not None and study.axes.y.metric == "val_accuracy":
        largest, smallest = share
        text = (
            f"The largest class holds {100 * largest:.0f} % of the images and the smallest {100 * smallest:.0f} %, "
            f"while the objective is plain accuracy: always answering the largest class would score {largest:.2f}. "
            "Balanced accuracy stands beside it."
        )
        found.append(("imbalanced classes", text))
    found += _listed(facts, "skipped_images", "unreadable images were left out")
    duplicates = "cases of the same image in different splits, which flatters val and test"
    found += _listed(facts, "duplicates_across_splits", duplicates)
    run_ids = [str(run_id) for run_id in study.trials["mlflow_run_id"]]
    for place, what in ((0, "images"), (1, "similarity probes")):
        if len({sweep.hashes[run_id][place] for run_id in run_ids} - {""}) > 1:
            text = f"Trials saw different {what} (the recorded hashes differ), so their numbers cannot be compared."
            found.append(("mixed ground", text))
    if study.incomplete:
        text = f"Completed without a value for every objective, so not on the front: {', '.join(study.incomplete)}."
        found.append(("missing values", text))
    return found


def _listed(facts: Mapping[str, object], key: str, what: str) -> list[tuple[str, str]]:
    items = facts.get(key)
    if not isinstance(items, list) or not items:
        return []
    more = f"; and {len(items) - SHOWN_NAMES} more" if len(items) > SHOWN_NAMES else ""
    shown = "; ".join(_item(item) for item in items[:SHOWN_NAMES])
    return [(key.replace("_", " "), f"{what[0].upper()}{what[1:]}, {len(items)} in all: {shown}{more}.")]


def _item(item: object) -> str:
    return " = ".join(str(part) for part in item) if isinstance(item, list) else str(item)


def _imbalance(facts: Mapping[str, object]) -> tuple[float, float] | None:
    largest, smallest = finite(facts.get("largest_class_fraction")), finite(facts.get("smallest_class_fraction"))
    if largest is None or smallest is None or largest <= 2 * smallest:
        return None
    return largest, smallest


def known_facts(sweep: Sweep, study: Study) -> Mapping[str, object]:
    """The facts of the first trial of a data set that recorded any."""
    for run_id in study.trials["mlflow_run_id"]:
        if sweep.facts[run_id]:
            return {name: sweep.facts[run_id][name] for name in FACTS if name in sweep.facts[run_id]}
    return {}
