"""What mattered: which settings decided, every trial against every setting, and what a penalty's strength does."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from reports.chapters import smoothing
from reports.chapters.chapter import Chapter
from reports.chapters.importance import IN_BEST, MIN_TRIALS
from reports.chapters.influence import (
    Influence,
    InfluencePicture,
    draw_influence,
    influence_picture,
    influence_table,
    influences,
)
from reports.chapters.panels import DRAWN
from reports.chapters.parameters import Parameter, parameters, searched
from reports.chapters.slices import SlicesPicture, draw_slices, slices_picture
from reports.chapters.strength import KNOBS, StrengthPicture, draw_strength, strength_picture
from reports.fronts import Point, Study
from reports.markup import esc, table_html
from repsim.config import TARGET_KEY
from repsim.records import METRICS

TITLE = "What mattered (exploratory)"
LEAD = (
    "From the search's own runs: one seed each, where the sampler chose to look, with everything else varying beside "
    "the setting looked at. It says what to look at next and proves nothing. Anchors, trials stopped early and derived "
    "points are left out."
)


def section(chapter: Chapter) -> str:
    """The chapter's HTML; "" where no setting varied between two searched trials that came to their end."""
    parts, several = [], len(chapter.studies) > 1
    for study, stem in zip(chapter.studies, chapter.stems, strict=True):
        found = _study(chapter, study, stem, "h4" if several else "h3")
        if found and several:
            parts.append(f"<h3>{esc(study.data)}</h3>")
        parts += found
    return "\n".join([f"<h2>{TITLE}</h2>", f"<p>{esc(LEAD)}</p>", *parts]) if parts else ""


def _study(chapter: Chapter, study: Study, stem: str, heading: str) -> list[str]:
    points = searched(study)
    varied = parameters(chapter.sweep, points)
    if not varied:
        return []
    parts = [f"<{heading}>Which settings decided</{heading}>", *_importance(chapter, study, points, varied, stem)]
    slices = slices_picture(study, points, varied, chapter.styles)
    if slices is not None:
        parts.append(f"<{heading}>Every trial against every setting</{heading}>")
        draw = partial(draw_slices, slices)
        parts.append(chapter.figure(draw, f"slices{stem}", "Objectives against settings", slices_caption(slices)))
    strength = strength_picture(chapter.sweep, study, chapter.styles)
    if strength is not None:
        parts.append(f"<{heading}>What the strength does</{heading}>")
        draw = partial(draw_strength, strength)
        caption = strength_caption(strength)
        parts.append(chapter.figure(draw, f"strength{stem}", "Accuracy and similarity against strength", caption))
    return parts


def _importance(
    chapter: Chapter, study: Study, points: Sequence[Point], varied: Sequence[Parameter], stem: str
) -> list[str]:
    found = influences(study, points, varied)
    picture = influence_picture(study, found)
    parts = [f"<p>{esc(sentence)}</p>" for sentence in importance_words(study, found)]
    if picture is None:
        return parts
    draw = partial(draw_influence, picture)
    table = table_html(influence_table(study, found))
    return [
        *parts,
        chapter.figure(draw, f"importance{stem}", "Importance of settings", importance_caption(picture)),
        f"<details><summary>these numbers as a table</summary>{table}</details>",
    ]


def importance_words(study: Study, found: Sequence[Influence]) -> list[str]:
    """What decided each objective, and of which settings nothing can be said, with the reason."""
    total = found[0].of
    if total < MIN_TRIALS:
        few = "1 searched trial has" if total == 1 else f"{total} searched trials have"
        return [
            f"{few} come to their end, and {MIN_TRIALS} are needed to tell an importance: with fewer, the best quarter "
            f"is less than {IN_BEST} trials, and any setting would seem to decide who they are."
        ]
    said = []
    for row, objective in enumerate(study.objectives):
        told = [(influence.name, t) for influence in found if (t := influence.found[row]) is not None]
        if not told:
            continue
        label = METRICS[objective.metric].label
        most = max((t for _, t in told), key=lambda t: t.n)
        real = sorted(((name, t) for name, t in told if t.told), key=lambda item: -item[1].share)
        shares = ", ".join(f"{name} {t.share:.2f} ± {t.error:.2f}" for name, t in real)
        who = f"Who is in the best quarter by {label} ({most.best} of {most.n} trials) is settled"
        others = "; no other settles more than chance would" if len(real) < len(told) else ""
        said.append(
            f"{who} in part by a single setting: {shares}{others}."
            if real
            else f"{who} by no single setting more than chance would."
        )
    return said + _unknown(study, found)


def _unknown(study: Study, found: Sequence[Influence]) -> list[str]:
    few = [f"{influence.name} ({influence.n} of {influence.of})" for influence in found if influence.n < MIN_TRIALS]
    tied = [
        METRICS[objective.metric].label
        for row, objective in enumerate(study.objectives)
        if all(influence.found[row] is None for influence in found if influence.n >= MIN_TRIALS)
    ]
    said = []
    if few:
        said.append(f"Nothing is said of settings that fewer than {MIN_TRIALS} trials have: {', '.join(few)}.")
    if tied and len(few) < len(found):
        said.append(f"More than half of the trials tie for the best {' and '.join(tied)}, so nothing decides it.")
    return said


def importance_caption(picture: InfluencePicture) -> str:
    """How to read the bars."""
    partial_ones = [f"{bar.name} {bar.n} of {bar.of}" for bar in picture.bars if bar.n < bar.of]
    among = f" Judged among the trials that have the setting: {', '.join(partial_ones)}." if partial_ones else ""
    return (
        "PED-ANOVA: how much of being in the best quarter a setting settles by itself, from 0 to 1, each with one "
        "standard error (delete-d jackknife). What only combinations of settings decide is in no bar. The stroke is "
        f"where 95 % of the bars would end if the best were picked blindly; of twenty settings one gets past it.{among}"
    )


def slices_caption(picture: SlicesPicture) -> str:
    """What is drawn and what is not."""
    some = f" A panel draws {DRAWN} of them, evenly chosen." if picture.n > DRAWN else ""
    left = f" Not shown: {', '.join(picture.left_out)}." if picture.left_out else ""
    return f"{picture.n} searched trials, n = 1 each; a trial is in the panels of the settings that it has.{some}{left}"


def strength_caption(picture: StrengthPicture) -> str:
    """How the curves came about, and what is missing."""
    said = ["Searched trials, n = 1 each; the learning rate and other settings vary between them."]
    if picture.curves:
        said.append(
            "Lines are local linear fits in log λ that a single odd trial does not bend, bands their 90 % bootstrap "
            f"intervals, per method and backbone, from {smoothing.MIN_POINTS} trials and {smoothing.MIN_PLACES} "
            "strengths up."
        )
    else:
        said.append(
            f"No curve is drawn: that takes {smoothing.MIN_POINTS} trials at {smoothing.MIN_PLACES} strengths of one "
            "method on one backbone, or its band would say nothing."
        )
    if picture.confirmed:
        said.append("Large points are means over fresh seeds with one standard error.")
    if any(knob == TARGET_KEY for _, knob in picture.columns):
        said.append(f"Methods that were asked for a similarity instead of λ stand against it ({KNOBS[TARGET_KEY]}).")
    if picture.left_out:
        said.append(f"Trials at λ = 0 have no place on the axis: {picture.left_out}.")
    if picture.thinned:
        said.append(f"A panel draws {DRAWN} trials, evenly chosen; the curves are through all.")
    return " ".join(said)
