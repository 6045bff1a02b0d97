"""What a person must know before using a promoted model, in Markdown: the card beside it, and a short form of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from repsim.export import Manifest
from repsim.records import METRICS, Tag
from sweeps.front_members import Front, Member

DESCRIPTION_LIMIT = 4900
"""Characters of a description that every supported registry takes."""
_PER_SPLIT = ("accuracy", "balanced_accuracy", "auc", "nll", "ece", "cka", "procrustes", "knn_overlap")
_SINGLE = ("sharpness", "train_nll", "trainable_parameters")
_WORDS = {
    "knee": "the knee of the front: nearest to the best of both, each scaled by the front's range",
    "accuracy": "the most accurate member of the front",
    "similar": "the most similar member of the front within one standard error of the most accurate one",
}


def card(front: Front, member: Member, manifest: Manifest, pick: str, name: str) -> str:
    """The whole card, for the file beside the model. Text from users stands in code spans, on one line each."""
    return "\n\n".join(
        [
            f"# {code(name)}",
            _summary(front, member, manifest, pick),
            f"## Data\n\n{_data(front, member, manifest)}",
            f"## Model\n\n{_model(member, manifest)}",
            f"## Metrics\n\n{_metrics(front, member)}",
            f"## Intended use\n\n{_use(manifest)}",
            f"## Limits\n\n{_limits(front, member)}",
            f"## Loading it\n\n{_loading(name)}",
        ]
    )


def description(front: Front, member: Member, manifest: Manifest, pick: str, name: str) -> str:
    """The card as the registry's description, cut at a line where it would be too long for some registries."""
    text = card(front, member, manifest, pick, name)
    if len(text) <= DESCRIPTION_LIMIT:
        return text
    end = "\n\nThe rest stands in `README.md` beside the model."
    return text[: DESCRIPTION_LIMIT - len(end)].rpartition("\n")[0] + end


def code(text: object) -> str:
    """Any text as a Markdown code span on one line: nothing in it is markup."""
    plain = "".join(character if character.isprintable() else "?" for character in " ".join(str(text).split()))
    longest = max((len(run) for run in _backticks(plain)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if plain.startswith("`") or plain.endswith("`") or not plain else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def _backticks(text: str) -> Iterable[str]:
    return (part for part in "".join(c if c == "`" else " " for c in text).split())


def _summary(front: Front, member: Member, manifest: Manifest, pick: str) -> str:
    role = _WORDS.get(pick, "chosen by name from the front")
    config = manifest.config
    return (
        f"An image classifier of {len(manifest.classes)} classes: {code(config['backbone'])}, finetuned with "
        f"{code(config['method'])}. It is {code(member.trial_id)} of sweep {code(front.sweep)}, {role} "
        f"({len(front.members)} members; chosen by validation metrics alone)."
    )


def _data(front: Front, member: Member, manifest: Manifest) -> str:
    facts, config = member.facts, manifest.config
    counts = ", ".join(f"{facts[f'n_{split}']} {split}" for split in ("train", "val", "test") if f"n_{split}" in facts)
    found = [
        f"- Source: {code(front.data)}" + (f" ({counts} images)" if counts else ""),
        f"- Classes: {', '.join(map(code, manifest.classes[:50]))}" + (" …" if len(manifest.classes) > 50 else ""),
        f"- Input: {config['data.image_size']} × {config['data.image_size']} px, RGB, rectangles by "
        f"{code(config['data.resize'])}, then normalised as the backbone was pretrained.",
    ]
    if Tag.DATA_HASH in member.tags:
        found.append(f"- Data hash: {code(member.tags[Tag.DATA_HASH])} (pixels, labels and names)")
    share = facts.get("largest_class_fraction")
    if isinstance(share, float):
        found.append(f"- Largest class: {100 * share:.0f} % of the images")
    doubles = facts.get("duplicates_across_splits")
    if isinstance(doubles, list) and doubles:
        found.append(f"- {len(doubles)} pairs of equal images lie in different parts of the split.")
    return "\n".join(found)


def _model(member: Member, manifest: Manifest) -> str:
    config = manifest.config
    strength = config.get("strength") if config.get("strength") is not None else config.get("strength.target_cka")
    found = [
        f"- Backbone: {code(config['backbone'])}, pretrained weights {code(manifest.weights_id)}"
        f" ({code(member.facts.get('pretraining', 'unknown'))})",
        f"- Method: {code(config['method'])}" + ("" if strength is None else f", strength {code(strength)}"),
        f"- Head: {code(config['head'])}; seed {code(config['seed'])}; "
        f"epoch {code(member.tags.get(Tag.CHOSEN_EPOCH, '?'))} of {code(config['optim.epochs'])}",
    ]
    if config.get("wise_alpha") != 1.0:
        found.append(f"- Weights: at α = {code(config['wise_alpha'])} between pretrained (0) and finetuned (1)")
    if Tag.GIT_COMMIT in member.tags:
        dirty = " with changes" if member.tags.get(Tag.GIT_DIRTY) == "true" else ""
        found.append(f"- Code: commit {code(member.tags[Tag.GIT_COMMIT])}{dirty}")
    found.append(f"- MLflow run: {code(member.run_id)}")
    return "\n".join(found)


def _metrics(front: Front, member: Member) -> str:
    facts = member.facts
    sizes = [f"n = {facts[f'n_{split}']}" if f"n_{split}" in facts else "" for split in ("val", "test")]
    header = ["", *(f"{split} ({n})" if n else split for split, n in zip(("val", "test"), sizes, strict=True))]
    seeds = len(member.seeds)
    if seeds:
        header += [f"{split}, mean of {seeds} fresh seeds" for split in ("val", "test")]
    rows = []
    for metric in _PER_SPLIT:
        cells = [_number(member.metrics.get(f"{split}_{metric}")) for split in ("val", "test")]
        if seeds:
            cells += [_mean(member.mean(f"{split}_{metric}")) for split in ("val", "test")]
        rows.append([METRICS[f"val_{metric}"].label.removeprefix("val "), *cells])
    single = [f"{METRICS[one].label} {_number(member.metrics[one])}" for one in _SINGLE if one in member.metrics]
    return "\n\n".join(
        [
            _table(header, rows),
            f"Also: {', '.join(single)}." if single else "",
            "Similarity (CKA and below) compares the features with the pretrained backbone's on the same images; 1 is "
            "unchanged." + (" Means are ± one standard error over the seeds." if seeds > 1 else ""),
        ]
    ).replace("\n\n\n\n", "\n\n")


def _use(manifest: Manifest) -> str:
    return (
        f"Research on images of the kind it was trained on, one of {len(manifest.classes)} classes each. It always "
        "answers with one of its classes, also for an image that shows none of them. It is no medical device: nobody "
        "has tested it for decisions about patients."
    )


def _limits(front: Front, member: Member) -> str:
    found = [
        "- Measured on one split of one data set; how it does on other devices, sites or populations is unknown.",
        "- The probabilities are a softmax and not calibrated; the ECE above says how far they are off.",
    ]
    if member.seeds:
        found.append(
            "- The model is the search's own run, which was picked for its validation values; the means over fresh "
            "seeds are free of that luck, and what to expect of the method."
        )
    else:
        found.append(
            "- n = 1: one seed, picked for its validation values, which therefore flatter it. Its test values took no "
            "part in the choice."
        )
    if not front.ended:
        found.append("- The sweep had not ended when it was chosen: the front may have changed since.")
    found.append("- Answers agree bit for bit with the trial's for the same number of threads on the same machine.")
    return "\n".join(found)


def _loading(name: str) -> str:
    return (
        "```python\nimport mlflow, pandas\nfrom pathlib import Path\n\n"
        f'model = mlflow.pyfunc.load_model("models:/{name}/VERSION")\n'
        'files = sorted(map(str, Path("FOLDER").glob("*.png")))\n'
        'answers = pandas.DataFrame(model.predict(pandas.DataFrame({"image": files})), index=files)\n```\n\n'
        "The column `image` takes paths, the bytes of image files, or `data:` URIs. Paths are opened on the machine "
        "that runs the model: behind a server, allow only who may read its files."
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _mean(told: tuple[float, float | None, int] | None) -> str:
    if told is None:
        return ""
    mean, error, _ = told
    return _number(mean) if error is None else f"{_number(mean)} ± {error:.2g}"


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def version_tags(front: Front, member: Member, pick: str) -> Mapping[str, str]:
    """What the registry lists a version by."""
    return {
        Tag.SWEEP: front.sweep,
        Tag.TRIAL_ID: member.trial_id,
        "pick": pick,
        Tag.DATA: front.data[:200],
        Tag.METHOD: member.tags.get(Tag.METHOD, ""),
        Tag.BACKBONE: member.tags.get(Tag.BACKBONE, ""),
    }
