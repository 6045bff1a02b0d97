"""What a careful reviewer would hold against a sweep, from what it recorded: (short, sentence) pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from reports.fronts import Point, Study
from reports.load import Sweep
from reports.paper_style import moves
from reports.paper_tables import varied_keys
from reports.searched import LOWER, UPPER, Choices, branches, domain, either, number
from reports.values import finite
from repsim.catalogue import parse_method
from repsim.config import TARGET_KEY
from repsim.front import standard_error
from repsim.records import METRICS, Stage, Status

Caution = tuple[str, str]
PER_KEY = 10
"""Trials per searched key below which a search is called small: n = 10 d (Loeppky, Sacks & Welch 2009)."""
FEW_IMAGES = 100
FEW_SEEDS = 3
UNEVEN = 3
"""A method tried this many times less often than another is named."""
_ENOUGH = 6
_NAMED = 8
_RANGED = {"strength": "λ", "optim.lr": "learning rate"}
_SIZES = {LOWER: "smallest", UPPER: "largest"}


def of_code(sweep: Sweep) -> list[Caution]:
    """What is wrong with what is known of the code: changed, of several commits, or not known at all."""
    trials = [sweep.code[str(run_id)] for run_id in sweep.trials["mlflow_run_id"]]
    found: list[Caution] = []
    changed = sum(dirty for _, dirty in trials)
    if sweep.git_dirty or changed:
        some = f" when {changed} of {len(trials)} trials ran" if 0 < changed < len(trials) else ""
        text = f"The working tree had uncommitted changes{some}, so the commit alone does not name the code that ran."
        found.append(("dirty tree", text))
    commits = Counter(commit for commit, _ in trials if commit)
    named = dict.fromkeys([*([sweep.git_commit] if sweep.git_commit else []), *commits])
    if len(named) > 1:
        told = ", ".join(f"{commit[:12]}: {commits[commit]} trials" for commit in named)
        text = (
            f"Trials were trained by the code of {len(named)} commits ({told}), so differences between them may be the "
            "code's. Versions of packages are recorded once, when a sweep starts, and may differ too."
        )
        found.append(("mixed code", text))
    unknown = [what for what, known in (("commit", named), ("package versions", sweep.versions)) if not known]
    if unknown and trials:
        text = (
            f"The sweep did not record its {' and '.join(unknown)}, so nobody can tell which code made these numbers."
        )
        found.append(("unknown code", text))
    return found


def of_study(sweep: Sweep, study: Study) -> list[Caution]:
    """Everything to be said of a data set, the most serious first."""
    if study.single:
        return [*_weights(sweep, study), *_few_images(study), *_targets(sweep, study), *_not_measured(sweep, study)]
    return [
        *_weights(sweep, study),
        *_anchors(sweep, study),
        *_few_seeds(study),
        *_few_images(study),
        *_targets(sweep, study),
        *_no_result(study),
        *_uneven(sweep, study),
        *_small_budget(sweep, study),
        *_edges(sweep, study),
        *_short_training(sweep, study),
        *_not_measured(sweep, study),
        *_threads(sweep, study),
    ]


def _names(trial_ids: Sequence[str]) -> str:
    more = f" and {len(trial_ids) - _NAMED} more" if len(trial_ids) > _NAMED else ""
    return f"{', '.join(trial_ids[:_NAMED])}{more}"


def _search(study: Study) -> pd.DataFrame:
    """The search's own trials that have ended."""
    terminal = [status.value for status in Status if status.terminal]
    return study.trials[study.trials["stage"].eq(Stage.SEARCH.value) & study.trials["status"].isin(terminal)]


def _weights(sweep: Sweep, study: Study) -> list[Caution]:
    found = []
    for backbone in dict.fromkeys(str(name) for name in study.trials["backbone"]):
        mine = [sweep.facts[run] for run in study.trials.loc[study.trials["backbone"] == backbone, "mlflow_run_id"]]
        ids = {str(facts["weights_id"]) for facts in mine if facts.get("weights_id")}
        sizes = {
            str(sweep.configs[run].get("data.image_size"))
            for run in study.trials.loc[study.trials["backbone"] == backbone, "mlflow_run_id"]
        }
        if len(ids) > len(sizes):  # a transformer's weights are fitted to the images' size, which may be searched
            text = (
                f"Trials of {backbone} started from different weights, so their similarities are to different models."
            )
            found.append(("mixed ground", text))
        if any(facts.get("pretraining") == "random" for facts in mine):
            text = f"{backbone} started from random weights, so there was no pretrained representation to keep."
            found.append(("not pretrained", text))
    return found


def _anchors(sweep: Sweep, study: Study) -> list[Caution]:
    trials = _search(study)
    completed = set(trials.loc[trials["status"] == Status.COMPLETED.value, "method"])
    missing = [name for name in ("linear_probe", "full") if name not in completed]
    if not missing or not completed or sweep.state == "running":
        return []
    have, its = ("has", "it is") if len(missing) == 1 else ("have", "they are")
    text = f"{' and '.join(missing)} {have} no completed trial, and {its} what every other method is measured against."
    return [("missing baseline", text)]


def _few_seeds(study: Study) -> list[Caution]:
    few = [point.trial_id for point in study.members if point.repeats is not None and point.repeats.n < FEW_SEEDS]
    if not few:
        return []
    text = f"On the front with fewer than {FEW_SEEDS} fresh seeds, so that a standard error says little: {_names(few)}."
    return [("few seeds", text)]


def _few_images(study: Study) -> list[Caution]:
    sizes = {name: finite(study.trials[f"n_{name}"].dropna().min()) for name in ("val", "test")}
    few = {name: size for name, size in sizes.items() if size is not None and 0 < size < FEW_IMAGES}
    if not few:
        return []
    told = " and ".join(
        f"{number(size)} {name} images (one is {100 / size:.1f} points of accuracy)" for name, size in few.items()
    )
    return [("few images", f"There are only {told}.")]


def _targets(sweep: Sweep, study: Study) -> list[Caution]:
    asked, missed = 0, []
    for trial_id, run in zip(study.trials["trial_id"], study.trials["mlflow_run_id"], strict=True):
        outcome = sweep.facts[run].get("target_outcome")
        asked += outcome is not None
        if outcome == "not reached":
            goal, came = finite(sweep.configs[run].get(TARGET_KEY)), finite(sweep.facts[run].get("control_cka"))
            told = "" if goal is None or came is None else f" (asked {goal:.3g}, came to {came:.3g})"
            missed.append(f"{trial_id}{told}")
    if not missed:
        return []
    text = f"{len(missed)} of {asked} runs did not reach the similarity that was asked for: {_names(missed)}."
    return [("target not reached", text)]


def _no_result(study: Study) -> list[Caution]:
    trials = _search(study)
    completed = set(trials.loc[trials["status"] == Status.COMPLETED.value, "method"])
    empty = Counter(str(method) for method in trials["method"] if method not in completed)
    if not empty or not completed:
        return []
    told = ", ".join(f"{method} ({count} tried)" for method, count in sorted(empty.items()))
    return [("no result", f"Nothing is known of methods none of whose trials completed: {told}.")]


def _uneven(sweep: Sweep, study: Study) -> list[Caution]:
    counts = Counter(str(method) for method in _search(study)["method"])
    counts = Counter({method: count for method, count in counts.items() if _tunable(sweep, study, method)})
    if not counts:
        return []
    most, times = counts.most_common(1)[0]
    seldom = sorted(method for method, count in counts.items() if UNEVEN * count <= times)
    if times < _ENOUGH or not seldom:
        return []
    told = ", ".join(f"{method} {counts[method]}" for method in seldom)
    text = (
        f"Methods were not tried equally often ({most} {times} times, {told}): the best of many tries looks better "
        "than the best of few, whatever the method."
    )
    return [("uneven effort", text)]


def _facts(method: str, backbone: str, data: str) -> Mapping[str, str | None] | None:
    """What a ``when`` may ask about; None for a method that nobody knows."""
    try:
        parsed = parse_method(method)
    except ValueError:
        return None
    told = {"method": parsed.name, "adapter": parsed.adapter, "penalty": parsed.penalty}
    return {**told, "backbone": backbone, "data": data}


def _tunable(sweep: Sweep, study: Study, method: str) -> bool:
    """Whether there is anything to try of a method beside the backbone; believed where it was not recorded."""
    if not moves(method):
        return False
    keys = [key for key in sweep.space if key not in ("method", "backbone")]
    if not sweep.space:
        return True
    for backbone in study.trials["backbone"].unique():
        facts = _facts(method, str(backbone), study.data)
        found = [None if facts is None else domain(branches(sweep.space[key]), facts) for key in keys]
        if any(item is not None and not (isinstance(item, Choices) and len(item.values) < 2) for item in found):
            return True
    return False


def _small_budget(sweep: Sweep, study: Study) -> list[Caution]:
    how = sweep.search.get("search")
    if isinstance(how, Mapping) and how.get("sampler") == "grid":
        return []  # every combination is tried, however many there are
    trials = _search(study)
    if sweep.space:
        keys = [key for key, document in sweep.space.items() if _varies(document)]
    else:
        ids = [str(run_id) for run_id in trials["mlflow_run_id"]]
        keys = [key for key in (varied_keys(sweep, ids) if ids else ()) if _values(sweep, ids, key) > 1]
    if not keys or len(trials) >= PER_KEY * len(keys):
        return []
    text = (
        f"{len(trials)} trials are few for {len(keys)} searched settings ({', '.join(keys)}): a rule of thumb asks for "
        f"{PER_KEY} per setting, so better points may have been missed."
    )
    return [("small budget", text)]


def _varies(document: object) -> bool:
    found = branches(document)
    return len(found) > 1 or any(not isinstance(item.domain, Choices) or len(item.domain.values) > 1 for item in found)


def _values(sweep: Sweep, run_ids: Sequence[str], key: str) -> int:
    return len({str(sweep.configs[run_id].get(key)) for run_id in run_ids} - {"None"})


def _edges(sweep: Sweep, study: Study) -> list[Caution]:
    """Front members at the end of what was searched: one end for several of them, or for the most accurate."""
    tried = {str(method) for method in study.trials["method"]}
    members = [point for point in study.members if point.derived_from is None and moves(point.method)]
    ends: dict[tuple[str, str], list[Point]] = {}
    for key in _RANGED:
        for point in members:
            end = _end(sweep, study, key, point)
            adapter = parse_method(point.method).adapter if end is not None else ""
            if end is not None and not (key == "strength" and end == LOWER and adapter in tried):
                ends.setdefault((key, end), []).append(point)
    told = [
        f"the {_SIZES[end]} {_RANGED[key]} searched ({_names([point.trial_id for point in found])})"
        for (key, end), found in ends.items()
        if len(found) > 1 or found[0] is study.members[0]
    ]
    if not told:
        return []
    return [("edge of the range", f"Points of the front have {', and '.join(told)}: the range may be too narrow.")]


def _end(sweep: Sweep, study: Study, key: str, point: Point) -> str | None:
    value = finite(sweep.configs[point.run_id].get(key))
    facts = _facts(point.method, point.backbone, study.data)
    if value is None or facts is None:
        return None
    found = domain(branches(sweep.space.get(key)), facts)
    return None if found is None else found.end(value)


def _short_training(sweep: Sweep, study: Study) -> list[Caution]:
    """Whether the first objective still rose by more than one standard error over the last third of the epochs."""
    if study.axes.y.metric != "val_accuracy":
        return []
    n_val = finite(study.trials["n_val"].dropna().min())
    curves = sweep.curves[sweep.curves["metric"] == study.axes.y.metric]
    rising, known = [], 0
    for point in study.members:
        course = list(curves.loc[curves["mlflow_run_id"] == point.run_id, "value"])
        if len(course) < 3 or n_val is None or not moves(point.method):
            continue
        known += 1
        before = course[-1 - len(course) // 3]
        error = standard_error(course[-1], round(n_val))
        if error is not None and course[-1] - before > error:
            rising.append(point.trial_id)
    if not rising or 2 * len(rising) < known:
        return []
    text = (
        f"{METRICS[study.axes.y.metric].label} still rose by more than one standard error over the last third of the "
        f"epochs at {len(rising)} of {known} points of the front ({_names(rising)}): longer training may change it."
    )
    return [("short training", f"{text[0].upper()}{text[1:]}")]


def _not_measured(sweep: Sweep, study: Study) -> list[Caution]:
    missing: Counter[str] = Counter()
    for run in study.trials["mlflow_run_id"]:
        pairs = sweep.facts[run].get("not_measured")
        missing.update(str(pair[0]) for pair in (pairs if isinstance(pairs, list) else []) if isinstance(pair, list))
    if not missing:
        return []
    told = ", ".join(f"{name} in {count} runs" for name, count in sorted(missing.items()))
    return [("not measured", f"Asked for, but not defined on these images: {told}.")]


def _threads(sweep: Sweep, study: Study) -> list[Caution]:
    found = {finite(sweep.facts[run].get("threads")) for run in study.trials["mlflow_run_id"]} - {None}
    counts = sorted(count for count in found if count is not None)
    if len(counts) < 2:
        return []
    text = f"Runs had {either(counts, 'and')} CPU threads: a run repeats bit for bit with the same number only."
    return [("mixed threads", text)]
