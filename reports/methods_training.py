"""Sentences for a paper on what was trained: data, networks, methods, optimisation. Plain text, from the store."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from reports.fronts import Study
from reports.load import Sweep
from reports.searched import either, number
from reports.values import finite
from repsim.catalogue import ADAPTERS, HEADS, PACKAGED_WEIGHTS, PENALTIES, Method, parse_method
from repsim.config import TARGET_KEY
from repsim.records import PARAM_PREFIX, Stage

_OWN_SPLIT = ("phantom:", "medmnist:", "npz:")
_RESIZE = {"pad": "padded with black borders", "squash": "stretched", "crop": "cropped to their centre"}


def searched(trials: pd.DataFrame) -> pd.DataFrame:
    """The rows of the search's own trials."""
    return trials[trials["stage"] == Stage.SEARCH.value]


def used(sweep: Sweep, trials: pd.DataFrame, key: str) -> tuple[object, ...]:
    """The values of a configuration key among ``trials``, each once, numbers by size; what is absent is left out."""
    found: dict[object, object] = {}
    for run_id in trials["mlflow_run_id"].tolist():  # Arrow hands texts out one by one slowly
        value = sweep.configs[run_id].get(key)
        if value is not None:
            found.setdefault(json.dumps(value) if isinstance(value, list | dict) else value, value)
    present = list(found.values())
    numbers = [size for value in present if (size := finite(value)) is not None]
    if len(numbers) < len(present):
        return tuple(present)
    return tuple(value for _, value in sorted(zip(numbers, present, strict=True), key=lambda pair: pair[0]))


def said(sweep: Sweep, trials: pd.DataFrame, key: str) -> str:
    """The values of a key in words, or the range of many; "" where no trial says anything."""
    values = used(sweep, trials, key)
    numbers = [found for value in values if (found := finite(value)) is not None]
    if len(values) > 5 and len(numbers) == len(values):
        return f"{number(numbers[0])} to {number(numbers[-1])} ({len(values)} values)"
    return either(values) if values else ""


def data(sweep: Sweep, studies: Sequence[Study]) -> list[str]:
    """Each data set's size, classes and split, then what was done to all images."""
    sentences = [sentence for study in studies for sentence in _data_set(sweep, study)]
    trials = searched(sweep.trials)
    size = said(sweep, trials, "data.image_size")
    ways = [_RESIZE.get(str(way), str(way)) for way in used(sweep, trials, "data.resize")]
    if size:
        sentences.append(f"Images were brought to squares of {size} px, {either(ways)}.")
    twice = [
        2 * round(epochs) for value in used(sweep, trials, "optim.epochs") if (epochs := finite(value)) is not None
    ]
    known = used(sweep, trials, "data.views")
    views = [f"2 × epochs ({either(twice)})" if value == "auto" else value for value in known]
    augment = used(sweep, trials, "data.augment")
    if "standard" in augment and views:
        sentences.append(
            "Training images were flipped, zoomed, shifted, rotated and changed in brightness and contrast at random, "
            f"in a fixed set of {either(views)} views per image{', or not at all' if len(augment) > 1 else ''}."
        )
    elif augment:
        sentences.append("Training images were not augmented.")
    if "balanced" in used(sweep, trials, "data.class_weights"):
        some = " in some trials" if len(used(sweep, trials, "data.class_weights")) > 1 else ""
        sentences.append(f"The training loss weighed classes by their inverse frequency{some}.")
    return sentences


def _data_set(sweep: Sweep, study: Study) -> list[str]:
    facts = next((sweep.facts[run] for run in study.trials["mlflow_run_id"] if sweep.facts[run]), {})
    counts = [finite(facts.get(f"n_{part}")) for part in ("train", "val", "test", "classes")]
    known = [round(count) for count in counts if count is not None]
    if len(known) < len(counts):
        return [f"Of the data set {study.data} no trial recorded a size."]
    train, val, test, classes = known
    largest, smallest = (finite(facts.get(f"{which}_class_fraction")) for which in ("largest", "smallest"))
    shares = ""
    if largest is not None and smallest is not None:
        shares = f" (the largest holds {100 * largest:.0f} % of them, the smallest {100 * smallest:.0f} %)"
    sentences = [
        f"The data set {study.data} has {train + val + test} images in {classes} classes{shares}: {train} for "
        f"training, {val} for validation and {test} for testing."
    ]
    sentences.append(_split(sweep, study))
    for key, what in (
        ("skipped_images", "images could not be read and were left out"),
        ("duplicates_across_splits", "pairs of equal images lie in different parts of the split"),
    ):
        listed = facts.get(key)
        if isinstance(listed, list) and listed:
            sentences.append(f"{len(listed)} {what}.")
    return [sentence for sentence in sentences if sentence]


def _split(sweep: Sweep, study: Study) -> str:
    if study.data.startswith(_OWN_SPLIT):
        return "The split is the source's own."
    trials = searched(study.trials)
    shares = used(sweep, trials, "data.fractions")
    if not shares or not isinstance(shares[0], list):
        return ""
    text = "/".join(f"{100 * share:.0f}" for value in shares[0] if (share := finite(value)) is not None)
    group = said(sweep, trials, "data.group")
    together = f", images of the same {group} kept together" if group else ""
    return (
        f"Where the source brings no split of its own, it was split {text} % by class{together} "
        f"(split seed {said(sweep, trials, 'data.split_seed')})."
    )


def networks(sweep: Sweep) -> list[str]:
    """Backbones with their weights, and the head."""
    trials = searched(sweep.trials)
    told = []
    for backbone in dict.fromkeys(str(name) for name in trials["backbone"]):
        mine = trials[trials["backbone"] == backbone]
        facts = [sweep.facts[run] for run in mine["mlflow_run_id"]]
        ids = list(dict.fromkeys(str(fact["weights_id"]) for fact in facts if fact.get("weights_id")))
        kinds = list(dict.fromkeys(str(fact["pretraining"]) for fact in facts if fact.get("pretraining")))
        told.append(f"{backbone} ({_weights(backbone, ids, kinds)})")
    heads = [f"{name} ({HEADS[str(name)].summary})" for name in used(sweep, trials, "head") if str(name) in HEADS]
    sentences = [f"The pretrained network{'s' if len(told) > 1 else ''}: {'; '.join(told)}."] if told else []
    return sentences + ([f"The head was {either(heads)}."] if heads else [])


def _weights(backbone: str, ids: Sequence[str], kinds: Sequence[str]) -> str:
    if not ids:
        return "weights not recorded"
    told = f"weights {' and '.join(ids)}"
    if kinds:
        pretraining = [kind.replace("_", "-") for kind in kinds]
        told = f"{either(pretraining)} {told}" if kinds != ["random"] else f"random {told}: not pretrained"
    package = PACKAGED_WEIGHTS.get(backbone)
    if package is not None and any(name.startswith(package.sha256[:16]) for name in ids):
        told += f", package {package.distribution} {package.version}"
    return told


def methods(sweep: Sweep) -> list[str]:
    """What was compared: each adapter and each penalty that occurs, with its settings; targets, if any."""
    trials = searched(sweep.trials)
    parsed: dict[str, Method | None] = {}
    for name in trials["method"]:
        try:
            parsed[str(name)] = parse_method(str(name))
        except ValueError:
            parsed[str(name)] = None
    if not parsed:
        return []
    names = either(list(parsed), "and")
    sentences = [f"Compared were {names}." if len(parsed) > 1 else f"The method was {names}."]
    adapters = dict.fromkeys(method.adapter for method in parsed.values() if method is not None)
    penalties = dict.fromkeys(m.penalty for m in parsed.values() if m is not None and m.penalty is not None)
    for adapter in adapters:
        about = ADAPTERS[adapter]
        mine = trials[trials["adapter"] == adapter]
        sentences.append(_part(sweep, mine, about.title, about.summary, about.paper, "adapter", about.settings))
    for penalty in penalties:
        info = PENALTIES[penalty]
        mine = trials[trials["penalty"] == penalty]
        settings = (*info.settings, *(("layers",) if info.layerwise else ()))
        sentences.append(_part(sweep, mine, info.title, info.summary, info.paper, "penalty", settings))
    if penalties:
        sentences.append(
            "A penalty is added to the cross-entropy with the weight λ, which has no unit and is scaled so that 1 is "
            "of the same order of magnitude for every penalty and backbone; a penalty named without an adapter goes "
            "with full finetuning."
        )
    return sentences + _targets(sweep, trials)


def _part(
    sweep: Sweep, trials: pd.DataFrame, title: str, summary: str, paper: str, section: str, settings: Sequence[str]
) -> str:
    told = [(name, said(sweep, trials, f"{section}.{name}")) for name in settings]
    known = ", ".join(f"{name} {value}" for name, value in told if value)
    cited = "" if paper == "common practice" else f" ({paper})"
    return f"{title[0].upper()}{title[1:]}{cited}: {summary.replace('`', '')}{f'; {known}' if known else ''}."


def _targets(sweep: Sweep, trials: pd.DataFrame) -> list[str]:
    """Where a similarity was asked for in place of a weight: which, and how often it was arrived at."""
    asked = [run for run in trials["mlflow_run_id"] if sweep.configs[run].get(TARGET_KEY) is not None]
    if not asked:
        return []
    outcomes = [sweep.facts[run]["target_outcome"] for run in asked if "target_outcome" in sweep.facts[run]]
    counts = [f"{outcomes.count(name)} {name}" for name in dict.fromkeys(str(outcome) for outcome in outcomes)]
    told = f" ({', '.join(counts)})" if counts else ""
    return [
        f"In {len(asked)} trials λ was not given but found while training, so that the debiased CKA on a sample of "
        f"training images becomes {said(sweep, trials, TARGET_KEY)}{told}."
    ]


def optimisation(sweep: Sweep) -> list[str]:
    """How weights were moved, for all methods that move them by steps; and the linear probe."""
    trials = searched(sweep.trials)
    moved = trials[trials["adapter"].fillna("") != "linear_probe"]
    sentences = []
    if len(moved) < len(trials):
        sentences.append(
            "Linear probes are logistic regressions on standardised features, fitted to convergence, with the L2 "
            "strength of lowest validation loss."
        )
    if moved.empty or PARAM_PREFIX + "optim.lr" not in trials.columns:
        return sentences

    def of(key: str) -> str:
        return said(sweep, moved, f"optim.{key}")

    clip = of("clip_norm")
    told = [
        f"for {of('epochs')} epochs in batches of {of('batch_size')}",
        f"peak learning rate {of('lr')}, {_head_lr(sweep, moved)}",
        f"weight decay {of('weight_decay')} (not on biases and norms)",
        f"linear warm-up over the first {_percent(used(sweep, moved, 'optim.warmup_fraction'))} % of the steps, "
        f"then {of('schedule')}",
        f"gradients clipped to norm {clip}" if clip else "no clipping of gradients",
        f"{of('precision')} arithmetic",
        f"statistics of batch norms: {of('batch_norm')}",
    ]
    others = "All other trials" if sentences else "All trials"
    sentences.append(f"{others} were trained with AdamW {'; '.join(told)}.")
    sentences += _wrappers(sweep, moved)
    kept = {"last": "the last epoch", "best": "the epoch with the best validation value of the first objective"}
    chosen = [kept.get(str(value), str(value)) for value in used(sweep, trials, "checkpoint")]
    return sentences + ([f"Reported are the weights of {either(chosen)}."] if chosen else [])


def _percent(values: Sequence[object]) -> str:
    return either([100 * share for value in values if (share := finite(value)) is not None])


def _head_lr(sweep: Sweep, trials: pd.DataFrame) -> str:
    own = said(sweep, trials, "optim.head_lr")
    if own:
        return f"of the head {own}"
    factors = {
        adapter: ADAPTERS[adapter].head_lr_factor
        for adapter in dict.fromkeys(str(name) for name in trials["adapter"].dropna())
        if adapter in ADAPTERS
    }
    if len(set(factors.values())) == 1:
        return f"{number(next(iter(factors.values())))} times that for the head"
    return "for the head " + ", ".join(f"{number(factor)} times that ({name})" for name, factor in factors.items())


def _wrappers(sweep: Sweep, trials: pd.DataFrame) -> list[str]:
    found = []
    for key, detail, what in (
        ("sam", "sam_rho", "Sharpness-aware steps"),
        ("average", "", "Averaged weights"),
    ):
        kinds = used(sweep, trials, f"optim.{key}")
        if set(kinds) - {"none"}:
            radius = said(sweep, trials, f"optim.{detail}") if detail else ""
            found.append(f"{what}: {either(kinds)}{f', ρ {radius}' if radius else ''}.")
    return found
