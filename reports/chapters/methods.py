"""The chapter on methods: each one's own front, what it attains again, and who is better where that can be said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from reports.chapters.attainment import by_backbone
from reports.chapters.chapter import Chapter
from reports.chapters.comparison import Champion, Paired, champions, corrected, paired
from reports.chapters.method_words import (
    caption,
    means_table,
    paired_table,
    paired_words,
    rarefied_table,
    rarefied_words,
    why_not,
)
from reports.chapters.methods_drawing import MOST, MethodsPicture, draw_methods, methods_picture
from reports.chapters.rarefaction import rarefied
from reports.fronts import Study
from reports.markup import esc, table_html
from repsim.records import Stage


@dataclass(frozen=True, kw_only=True)
class Group:
    """One backbone of one data set, within which similarity means one thing."""

    study: Study
    stem: str
    backbone: str
    alone: bool
    methods: tuple[str, ...]
    picture: MethodsPicture
    champions: Mapping[str, Champion]
    tests: tuple[Paired, ...]


def section(chapter: Chapter) -> str:
    """ "" where no backbone of a data set has two methods, or there is a single objective.

    Holm's correction is over all tests of the section: those of all data sets and backbones.
    """
    groups = [
        group
        for study, stem in zip(chapter.studies, chapter.stems, strict=True)
        for group in _groups(chapter, study, stem)
    ]
    families = corrected([group.tests for group in groups])
    groups = [replace(group, tests=tuple(tests)) for group, tests in zip(groups, families, strict=True)]
    total = sum(test.p is not None for group in groups for test in group.tests)
    parts: list[str] = []
    for study in chapter.studies:
        mine = [group for group in groups if group.study is study]
        if mine and len(chapter.studies) > 1:
            parts.append(f"<h3>On {esc(study.data)}</h3>")
        for group in mine:
            parts += _group(chapter, group, total)
    return "\n".join(["<h2>Method by method</h2>", *parts]) if parts else ""


def _groups(chapter: Chapter, study: Study, stem: str) -> list[Group]:
    found = []
    owners = by_backbone(study)
    for number, (backbone, methods) in enumerate(owners.items(), start=1):
        ordered = tuple(name for name in chapter.styles.methods if name in methods)
        picture = methods_picture(study, chapter.styles, backbone, ordered)
        if picture is None:
            continue
        stand_ins = champions(study, backbone)
        found.append(
            Group(
                study=study,
                stem=f"methods{stem}" if len(owners) == 1 else f"methods{stem}_backbone_{number}",
                backbone=backbone,
                alone=len(owners) == 1,
                methods=ordered,
                picture=picture,
                champions=stand_ins,
                tests=tuple(paired(study, stand_ins)),
            )
        )
    return found


def _group(chapter: Chapter, group: Group, total: int) -> list[str]:
    parts = [] if group.alone else [f"<h4>{esc(group.backbone)}</h4>"]
    draw = partial(draw_methods, group.picture)
    said = caption(group.picture, group.study)
    parts.append(chapter.figure(draw, group.stem, "Each method's own front", said))
    left = len(group.methods) - MOST
    if left > 0:
        more = "1 method more is" if left == 1 else f"{left} methods more are"
        parts.append(f"<p>{more} not drawn, for lack of room.</p>")
    if group.tests:
        said, clear = paired_words(group.tests, total)
        parts.append(f"<p>{esc(said)}</p>")
        parts += [f"<ul>{''.join(f'<li>{esc(line)}</li>' for line in clear)}</ul>"] if clear else []
        parts += [table_html(means_table(group.study, group.champions)), table_html(paired_table(group.tests))]
    fair = equal_shares(chapter.sweep.search, group.study)
    if not group.tests or fair:
        volumes = rarefied(group.study, group.backbone)
        if volumes:
            parts.append(f"<p>{esc(rarefied_words(volumes, group.study, group.backbone, fair=fair))}</p>")
            parts.append(table_html(rarefied_table(volumes)))
        else:
            parts.append(f"<p>{esc(why_not(group.study))}</p>")
    return parts


def equal_shares(search: Mapping[str, object], study: Study) -> bool:
    """Whether the search gave each method the same share of trials on the one backbone there is.

    With several backbones each method chose among them, so that within a backbone shares differ again.
    """
    trials = study.trials
    backbones = trials.loc[trials["stage"] == Stage.SEARCH.value, "backbone"].nunique()
    how = search.get("search")
    return isinstance(how, Mapping) and how.get("balance") == "method" and bool(backbones == 1)
