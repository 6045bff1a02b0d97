"""Ultrasound-like images made from a seed: the data set that needs no download.

A B-mode image is simulated the way it comes about: scatterers with random phases, their strength set by a map of the
tissue in decibels, are blurred by the point spread of the beam; the magnitude (Rayleigh-distributed speckle) is
log-compressed. The map holds wavy layers (skin, fat, gland, fascia, muscle), attenuation with depth, clutter, and, but
for ``normal``, a lesion. ``benign`` ones tend to be smooth ellipses, wider than tall, with enhancement behind;
``malignant`` ones tend to be spiculated, taller than wide, with a shadow behind. The tendencies overlap by
:class:`Difficulty`. The same numpy gives the same images on every machine of one kind.
"""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from repsim.data.listing import SPLITS

Field = NDArray[np.float64]

SIDE = 96
"""Pixels at which the images are made; they are then resized like any other."""
CLASSES = ("benign", "malignant", "normal")
VERSION = 1
"""Raised whenever the rendering changes; part of the cache's key."""


@dataclass(frozen=True, kw_only=True)
class Difficulty:
    """How hard the classes are to tell apart.

    ``overlap`` (0 to 1): how far the lesion's shape and posterior artefact move from their class's mean to the common
    mean. ``spread`` (> 0): standard deviation of those traits, relative to the distance of the class means without
    overlap. ``faintness`` (dB): how much of the lesion's contrast is taken away. ``clutter`` (0 to 1): how often
    shadows, fat lobules and gain changes that mean nothing occur.
    """

    overlap: float
    spread: float
    faintness: float
    clutter: float


DIFFICULTY = Difficulty(overlap=0.08, spread=0.28, faintness=3.0, clutter=0.65)
"""Of ``phantom:ultrasound``: set so that ImageNet features under a linear probe leave room for finetuning."""
EASY = Difficulty(overlap=0.0, spread=0.1, faintness=0.0, clutter=0.1)
"""Of ``phantom:tiny``."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A phantom: how many images per part (train, val, test), the share of each class, its seed and its difficulty."""

    sizes: tuple[int, int, int]
    shares: tuple[float, float, float]
    entropy: int
    difficulty: Difficulty


# With 200 test images chance alone moves an accuracy by 3 points: this entropy is one of eight that were tried, and
# puts the linear probes of both packaged backbones inside the band that benchmarks/phantom_difficulty.py checks.
RECIPES: dict[str, Recipe] = {
    "ultrasound": Recipe(sizes=(600, 200, 200), shares=(0.4, 0.25, 0.35), entropy=6, difficulty=DIFFICULTY),
    "tiny": Recipe(sizes=(90, 30, 30), shares=(1 / 3, 1 / 3, 1 / 3), entropy=20_241, difficulty=EASY),
}
NAMES = tuple(RECIPES)
"""What may follow ``phantom:``."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Names, class names and parts of a phantom's images, in the order they are rendered."""

    names: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...]


def plan(name: str) -> Plan:
    """The images of phantom ``name``, sorted by name; KeyError for an unknown one."""
    return plan_of(RECIPES[name])


def plan_of(recipe: Recipe) -> Plan:
    """The images of a recipe, sorted by name: each part holds the classes by their shares."""
    rows = []
    for part, size in zip(SPLITS, recipe.sizes, strict=True):
        edges = np.round(np.cumsum((0.0, *recipe.shares)) * size).astype(int)
        for label, count in zip(CLASSES, np.diff(edges), strict=True):
            rows += [(f"{part}/{label}_{number:04d}", label, part) for number in range(count)]
    rows.sort()
    return Plan(
        names=tuple(row[0] for row in rows),
        labels=tuple(row[1] for row in rows),
        splits=tuple(row[2] for row in rows),
    )


def stamp(name: str) -> str:
    """Changes whenever the images of phantom ``name`` do."""
    return hashlib.sha256(f"{VERSION} {name} {SIDE} {RECIPES[name]!r}".encode()).hexdigest()


def render(name: str) -> NDArray[np.uint8]:
    """The images of phantom ``name`` in the order of its plan: uint8 (n, 96, 96)."""
    return render_recipe(RECIPES[name])


def render_recipe(recipe: Recipe) -> NDArray[np.uint8]:
    """The images of a recipe in the order of its plan: uint8 (n, 96, 96). Image k depends on the seed and k alone."""
    labels = plan_of(recipe).labels
    images = np.empty((len(labels), SIDE, SIDE), dtype=np.uint8)
    for index, label in enumerate(labels):
        images[index] = render_one(label, recipe.difficulty, np.random.default_rng([recipe.entropy, index]))
    return images


def render_one(label: str, difficulty: Difficulty, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One image of class ``label``: uint8 (96, 96)."""
    tissue, gland_top, gland_bottom = _layers(rng)
    tissue += _texture(rng)
    tissue += _lobules(rng, difficulty, gland_top)
    tissue += _streaks(rng, difficulty)
    if label != "normal":
        tissue += _lesion(label, difficulty, rng, gland_top, gland_bottom)
    depth = _DOWN
    clutter = difficulty.clutter
    tissue += -rng.uniform(2.0, 4.0 + 8.0 * clutter) * depth + rng.uniform(-3.0, 3.0) * clutter * _ACROSS
    return _b_mode(tissue, rng, clutter)


_AXIS = (np.arange(SIDE) + 0.5) / SIDE
_DOWN, _ACROSS = np.meshgrid(_AXIS, _AXIS, indexing="ij")
_FREQUENCY = np.fft.fftfreq(SIDE)


def _sigmoid(values: Field) -> Field:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(values, -40.0, 40.0))))


def _smooth(field: NDArray[np.complex128] | Field, sigma_down: float, sigma_across: float) -> NDArray[np.complex128]:
    """Gaussian blur (periodic), sigmas in pixels."""
    down = np.exp(-2.0 * (np.pi * sigma_down * _FREQUENCY) ** 2)
    across = np.exp(-2.0 * (np.pi * sigma_across * _FREQUENCY) ** 2)
    return np.asarray(np.fft.ifft2(np.fft.fft2(field) * down[:, None] * across[None, :]))


def _texture(rng: np.random.Generator) -> Field:
    """Slow variation of the echo strength, longer across than down, dB."""
    coarse = _smooth(rng.standard_normal((SIDE, SIDE)), rng.uniform(1.5, 3.5), rng.uniform(4.0, 10.0)).real
    return np.asarray(coarse * (rng.uniform(2.0, 4.0) / coarse.std()))


def _wave(rng: np.random.Generator, base: float, height: float) -> Field:
    """A wavy boundary: its depth (0..1) in every column."""
    phases = rng.uniform(0.0, 2.0 * np.pi, 3)
    heights = height * rng.uniform(0.3, 1.0, 3) / np.arange(1, 4)
    tilt = rng.uniform(-height, height) * (_AXIS - 0.5)
    waves = sum(heights[k] * np.sin(2.0 * np.pi * (k + 1) * 0.7 * _AXIS + phases[k]) for k in range(3))
    return np.asarray(base + tilt + waves)


def _layers(rng: np.random.Generator) -> tuple[Field, float, float]:
    """Echo strength of the layers (dB), and the mean depths between which the gland lies."""
    depths = (rng.uniform(0.03, 0.06), rng.uniform(0.14, 0.26), rng.uniform(0.66, 0.82))
    skin, top, bottom = (_wave(rng, base, height) for base, height in zip(depths, (0.006, 0.03, 0.03), strict=True))
    levels = (4.0, rng.uniform(-11.0, -6.0), rng.uniform(-1.0, 1.5), rng.uniform(-12.0, -6.0))
    tissue = np.full((SIDE, SIDE), levels[0])
    for boundary, before, after, soft in zip(
        (skin, top, bottom), levels, levels[1:], (0.006, 0.02, 0.01), strict=False
    ):
        tissue += (after - before) * _sigmoid((_DOWN - boundary) / soft)
    for boundary, strength in ((top, rng.uniform(0.0, 5.0)), (bottom, rng.uniform(4.0, 9.0))):
        tissue += strength * np.exp(-(((_DOWN - boundary) / 0.012) ** 2))
    stripes = np.sin(2.0 * np.pi * (_DOWN - bottom) / rng.uniform(0.05, 0.08) + rng.uniform(0, 6))
    tissue += rng.uniform(0.5, 2.5) * stripes * _sigmoid((_DOWN - bottom) / 0.02)
    return tissue, depths[1], depths[2]


def _lobules(rng: np.random.Generator, difficulty: Difficulty, gland_top: float) -> Field:
    """Fat lobules: faint dark ellipses that mean nothing, dB."""
    tissue = np.zeros((SIDE, SIDE))
    for _ in range(rng.poisson(2.5 * difficulty.clutter)):
        centre = rng.uniform(0.05, 0.95), rng.uniform(gland_top - 0.05, 0.7)
        wide, tall = rng.uniform(0.05, 0.16), rng.uniform(0.03, 0.08)
        distance = np.hypot((_ACROSS - centre[0]) / wide, (_DOWN - centre[1]) / tall)
        tissue -= rng.uniform(2.0, 6.0) * _sigmoid((1.0 - distance) / 0.12)
    return tissue


def _streaks(rng: np.random.Generator, difficulty: Difficulty) -> Field:
    """Shadows of ligaments and stripes of enhancement that mean nothing, dB."""
    tissue = np.zeros((SIDE, SIDE))
    for _ in range(rng.poisson(2.0 * difficulty.clutter)):
        centre, width, start = rng.uniform(0.0, 1.0), rng.uniform(0.03, 0.12), rng.uniform(0.1, 0.6)
        lean = rng.uniform(-0.15, 0.15) * (_DOWN - start)
        column = np.exp(-(((_ACROSS - centre - lean) / width) ** 2))
        tissue += rng.uniform(-8.0, 4.0) * column * _sigmoid((_DOWN - start) / 0.04)
    return tissue


@dataclass(frozen=True)
class _Traits:
    """What tells benign from malignant: log width over height, spiculation (0..1), posterior effect (dB)."""

    log_aspect: float
    spiculation: float
    posterior: float


_TYPICAL = {
    "benign": _Traits(log_aspect=0.42, spiculation=0.08, posterior=5.0),
    "malignant": _Traits(log_aspect=-0.18, spiculation=0.75, posterior=-9.0),
}


def _traits(label: str, difficulty: Difficulty, rng: np.random.Generator) -> _Traits:
    own, benign, malignant = (np.array(astuple(_TYPICAL[name])) for name in (label, "benign", "malignant"))
    mean = own + difficulty.overlap * ((benign + malignant) / 2.0 - own)
    drawn = mean + difficulty.spread * np.abs(benign - malignant) * rng.standard_normal(3)
    return _Traits(float(drawn[0]), float(np.clip(drawn[1], 0.0, 1.0)), float(drawn[2]))


def _lesion(
    label: str, difficulty: Difficulty, rng: np.random.Generator, gland_top: float, gland_bottom: float
) -> Field:
    """The change a lesion makes, dB: a dark body, its rim, and what the beam brings back from behind it."""
    traits = _traits(label, difficulty, rng)
    radius = rng.uniform(0.10, 0.19)
    wide, tall = radius * np.exp(traits.log_aspect / 2.0), radius * np.exp(-traits.log_aspect / 2.0)
    middle = 0.5 * (gland_top + gland_bottom)
    across = _ACROSS - rng.uniform(0.25, 0.75)
    down = _DOWN - (middle + rng.uniform(-0.08, 0.06))
    tilt = rng.normal(0.0, 0.15)
    turned = across * np.cos(tilt) + down * np.sin(tilt), down * np.cos(tilt) - across * np.sin(tilt)
    distance = np.hypot(turned[0] / wide, turned[1] / tall)
    distance /= _outline(np.arctan2(turned[1] / tall, turned[0] / wide), traits.spiculation, rng)
    soft = 0.04 + 0.05 * traits.spiculation
    body = _sigmoid((1.0 - distance) / soft)
    contrast = max(3.0, rng.normal(16.0, 3.0) - difficulty.faintness)
    rim = np.exp(-(((distance - 1.08) / 0.10) ** 2))
    rim_strength = rng.uniform(0.0, 3.5) * (1.0 - 0.5 * traits.spiculation)
    path = np.cumsum(body, axis=0) / (2.0 * tall * SIDE)
    behind = _smooth(np.minimum(path, 1.2), 0.0, 1.0).real
    return np.asarray(-contrast * body + rim_strength * rim + traits.posterior * behind * (1.0 - 0.5 * body))


def _outline(angle: Field, spiculation: float, rng: np.random.Generator) -> Field:
    """Radius of the lesion's edge at every angle, relative to the ellipse: gentle lobes, and spikes by spiculation."""
    outline = np.ones_like(angle)
    for order in (2, 3):
        outline += rng.uniform(0.0, 0.05) * np.cos(order * angle + rng.uniform(0.0, 2.0 * np.pi))
    spikes = np.zeros_like(angle)
    for order in rng.choice(np.arange(5, 14), size=4, replace=False):
        spikes += rng.uniform(0.5, 1.0) * np.cos(int(order) * angle + rng.uniform(0.0, 2.0 * np.pi))
    return np.asarray(np.clip(outline + spiculation * 0.22 * (spikes + 0.3 * np.abs(spikes)), 0.35, 2.0))


def _b_mode(tissue: Field, rng: np.random.Generator, clutter: float) -> NDArray[np.uint8]:
    """Echo strength (dB) to an 8-bit image: speckle, noise floor, log compression."""
    phases = rng.standard_normal((SIDE, SIDE)) + 1j * rng.standard_normal((SIDE, SIDE))
    along, lateral = rng.uniform(0.6, 0.8), rng.uniform(0.9, 1.4)
    echo = np.abs(_smooth(phases * 10.0 ** (tissue / 20.0), along, lateral))
    echo *= 2.0 * np.sqrt(np.pi * along * lateral)
    floor = 10.0 ** (rng.uniform(-34.0, -30.0) / 20.0)
    decibels = 20.0 * np.log10(np.hypot(echo, floor))
    span = rng.uniform(46.0, 56.0)
    top = rng.uniform(19.0, 22.0) + rng.uniform(-4.0, 4.0) * clutter
    shown = np.clip((decibels - top) / span + 1.0, 0.0, 1.0)
    video = _smooth(shown, 0.45, 0.45).real.clip(0.0, 1.0) ** rng.uniform(1.3, 1.7)
    return np.asarray(np.rint(255.0 * video), dtype=np.uint8)
