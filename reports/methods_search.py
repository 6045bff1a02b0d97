"""Sentences for a paper on how points were found, chosen, confirmed and measured. Plain text, from the store alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reports.confirmed import UNDER_WAY
from reports.fronts import Study, runs
from reports.load import Sweep
from reports.methods_training import said, searched, used
from reports.paper_tables import varied_keys
from reports.searched import branch_words, branches, either, number, value_words
from reports.values import finite
from repsim.records import METRICS, RHO_HEADLINE, Stage, Status

_SAMPLERS = {
    "auto": "a start that covers the space, then the candidate with the largest expected gain in hypervolume under a "
    "Gaussian process per objective",
    "tpe": "multi-objective TPE",
    "nsga2": "NSGA-II",
    "nsga3": "NSGA-III",
    "gp": "a Gaussian process per objective and the expected gain in hypervolume",
    "qmc": "a scrambled Halton sequence",
    "random": "independent uniform draws",
    "grid": "every combination once",
}
NOT_RECORDED = "The settings of the search (sampler, budget, stopping) were not recorded."
_PLACES = ("method", "backbone")


def _section(sweep: Sweep, name: str) -> Mapping[str, object]:
    found = sweep.search.get(name)
    return found if isinstance(found, Mapping) else {}


def search(sweep: Sweep, studies: Sequence[Study]) -> list[str]:
    """What was asked for and what was run."""
    if all(study.single for study in studies):
        return [f"It is one run, with seed {said(sweep, sweep.trials, 'seed')}: nothing was searched."]
    goals = " and ".join(f"{_verb(o.direction)} {METRICS[o.metric].label}" for o in sweep.objectives)
    within = f", subject to {' and '.join(sweep.constraints)}" if sweep.constraints else ""
    sentences = [f"The search was to {goals}{within}."]
    sentences += [_counts(study, several=len(studies) > 1) for study in studies]
    budget, how = _section(sweep, "budget"), _section(sweep, "search")
    if not budget or not how:
        sentences.append(NOT_RECORDED)
    else:
        sentences += _asked(budget, how, studies)
    sentences += _space(sweep)
    seeds = said(sweep, searched(sweep.trials), "seed")
    return sentences + ([f"Trials of the search were trained with seed {seeds}."] if seeds else [])


def _verb(direction: str) -> str:
    return "maximise" if direction == "maximize" else "minimise"


def _counts(study: Study, *, several: bool) -> str:
    trials = searched(study.trials)
    status = trials["status"].value_counts()
    counts = [f"{int(status[state.value])} {state.value}" for state in Status if state.value in status.index]
    where = f"On {study.data}, it" if several else "It"
    return f"{where} ran {len(trials)} trial{'' if len(trials) == 1 else 's'} ({', '.join(counts)})."


def _asked(budget: Mapping[str, object], how: Mapping[str, object], studies: Sequence[Study]) -> list[str]:
    """The recorded budget is the one at the start: a resumed sweep may have been given more trials."""
    trials = finite(budget.get("trials"))
    most = max((len(searched(study.trials)) for study in studies), default=0)
    said_of = f"{number(trials)} trials" if trials is not None else "no number of trials"
    if trials is not None and most > trials:
        said_of += " at its start, raised later"
    for key, words in (
        ("hours", "{} hours"), ("train_epochs", "{} epochs in all"), ("stagnation", "{} trials in a row without gain"),
    ):  # fmt: skip
        if budget.get(key) is not None:
            said_of += f", or {words.format(value_words(budget[key]))}"
    each = " per data set" if len(studies) > 1 else ""
    sampler = str(how.get("sampler", ""))
    sentences = [
        f"Its budget was {said_of}{each}, of at most {value_words(budget.get('epochs'))} epochs each; configurations "
        f"were proposed by the sampler {sampler} ({_SAMPLERS.get(sampler, 'not described here')}) with seed "
        f"{value_words(how.get('seed'))}, after linear_probe and full at default settings."
    ]
    if how.get("balance"):
        sentences.append(f"Beside these two, trials were shared out evenly, {how['balance']} by {how['balance']}.")
    if how.get("stopping") == "pareto":
        sentences.append(
            "After epochs 1, 2, 4, 8 … a trial was stopped when its expected result plus 1.5 standard deviations was "
            "dominated by a finished one."
        )
    elif how.get("stopping") == "none":
        sentences.append("No trial was stopped early.")
    return sentences


def _space(sweep: Sweep) -> list[str]:
    """The searched keys beside method and backbone: as recorded, or else as they varied among the trials."""
    if sweep.space:
        told = [
            f"{_key(str(key))} {'; '.join(branch_words(branch) for branch in branches(document))}"
            for key, document in sweep.space.items()
            if key not in _PLACES and branches(document)
        ]
        return [f"Searched were, beside {_what(sweep)}: {'; '.join(told)}."] if told else []
    trials = searched(sweep.trials)
    ids = [str(run_id) for run_id in trials["mlflow_run_id"]]
    keys = [key for key in (varied_keys(sweep, ids) if ids else ()) if key not in _PLACES]
    told = [f"{_key(key)} {said(sweep, trials, key)}" for key in keys if len(used(sweep, trials, key)) > 1]
    return [f"Varied among the trials, beside {_what(sweep)}: {'; '.join(told)}."] if told else []


def _key(key: str) -> str:
    return "λ" if key == "strength" else key


def _what(sweep: Sweep) -> str:
    several = searched(sweep.trials)["backbone"].nunique() > 1
    return "method and backbone" if several else "the method"


def selection(sweep: Sweep, studies: Sequence[Study]) -> list[str]:
    """Who is on the front, by which images, and what fresh seeds did."""
    if all(study.single for study in studies):
        return ["Nothing was selected; test images were measured once, after training."]
    feasible = ", are within the constraints" if sweep.constraints else ""
    sentences = [
        f"The front is made of the configurations that completed{feasible} and are dominated by no other in the "
        "objectives, which are measured on validation images; test images were measured once per run, after training, "
        "and chose nothing."
    ]
    for study in studies:
        where = f"On {study.data}: " if len(studies) > 1 else ""
        sentences += [
            f"{where}{sentence}" if number == 0 else sentence for number, sentence in enumerate(_seeds(study))
        ]
    asked = finite(_section(sweep, "confirm").get("seeds"))
    if asked is not None and asked > 0:
        most = _section(sweep, "confirm").get("runs")
        limit = f", in at most {value_words(most)} runs" if most is not None else ""
        sentences.append(
            f"Asked for were {number(asked)} fresh seeds of each candidate (what no other dominates by more than δ: "
            "the seeds' pooled standard deviation at the first two configurations plus, for shares of images, the "
            f"binomial standard error), and more until the front stands still{limit}."
        )
    return sentences


def _seeds(study: Study) -> list[str]:
    found = study.confirmation
    if found is None or not study.means:
        return ["Every value is one run's (n = 1), so no spread between seeds is known."]
    counts = [point.repeats.n for point in study.means if point.repeats is not None]
    over = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    sentences = [
        f"{len(found.candidates)} candidates were trained again; values are means over {over} fresh seeds ± the "
        "standard error of the mean (s/√n, between seeds on one split; none where no seed changes a value, as with a "
        "linear probe), without the search's own run, and the front is that of the means."
    ]
    if found.delta:
        sizes = ", ".join(f"{METRICS[name].label} {number(size)}" for name, size in found.delta.items())
        sentences.append(f"Differences up to δ count as luck: {sizes}.")
    if found.end and found.end != UNDER_WAY:
        sentences.append(f"The confirmation ended: {found.end}.")
    elif found.end:
        sentences.append("The confirmation was not complete.")
    return sentences


def measures(sweep: Sweep, studies: Sequence[Study]) -> list[str]:
    """How similarity and sharpness are defined here, on how many images; and the other objectives."""
    sizes = []
    for study in studies:
        known = [round(n) for value in study.trials["n_probe"].dropna().unique() if (n := finite(value)) is not None]
        if known:
            sizes.append(f"{either(known)}{f' on {study.data}' if len(studies) > 1 else ''}")
    on = f" (n = {', '.join(sizes)})" if sizes else ""
    shown = ["val_accuracy", "val_cka", "sharpness"]
    others = [METRICS[o.metric] for o in sweep.objectives if o.metric not in shown]
    sentences = [
        "Similarity is the debiased (U-centred) linear CKA, in double precision, between the features in front of the "
        "head of the pretrained and of the finetuned network, over a sample of the validation images"
        f"{on}, or of the test images where a value is called test; 1 is the pretrained representation up to rotation "
        "and scale.",
        f"Sharpness is the rise of the loss after one step along the gradient of length ρ = {RHO_HEADLINE:g} relative "
        "to each tensor's norm, over backbone and head (adapters merged), in evaluation mode, on up to 512 fixed "
        "training images.",
    ]
    sentences += [f"The {metric.label} is: {metric.description}." for metric in others]
    derived = sweep.trials[sweep.trials["stage"] == Stage.DERIVED.value]
    between = used(sweep, derived, "wise_alpha")
    if between:
        sentences.append(
            "Measured too, without training, were models with the weights (1 - α) × pretrained + α × finetuned, at "
            f"α = {either(between, 'and')}."
        )
    return sentences


def software(sweep: Sweep) -> list[str]:
    """Versions, commits and threads."""
    versions = ", ".join(f"{name} {version}" for name, version in sweep.versions.items())
    commits = code_of(sweep)
    told = ", ".join(f"{commit[:12]}{' with uncommitted changes' if dirty else ''}" for commit, dirty in commits)
    sentences = [f"Software: {versions}." if versions else "The versions of the software were not recorded."]
    sentences.append(f"Code: commit {told}." if told else "The commit of the code was not recorded.")
    threads = {
        round(found)
        for run_id in runs(sweep.trials)["mlflow_run_id"]
        if (found := finite(sweep.facts[run_id].get("threads"))) is not None
    }
    if threads:
        sentences.append(f"Each run had {either(sorted(threads))} CPU thread{'' if threads == {1} else 's'}.")
    return sentences


def code_of(sweep: Sweep) -> list[tuple[str, bool]]:
    """The (commit, whether it was changed) that runs were made with, the sweep's own first; unknown ones left out."""
    found = [(sweep.git_commit, sweep.git_dirty), *(sweep.code[str(run)] for run in sweep.trials["mlflow_run_id"])]
    return [pair for pair in dict.fromkeys(found) if pair[0]]
