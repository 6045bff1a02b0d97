"""The chapter on representations: what training left of each layer, and which way the trials took."""

from __future__ import annotations

from functools import partial

from reports import words
from reports.chapters.chapter import Chapter
from reports.chapters.layer_maps import LAST, MOST, LayerMapsPicture, layer_maps_picture, records_layers
from reports.chapters.representation_drawing import draw_layer_maps, draw_trajectories
from reports.chapters.trajectories import LABELLED, TrajectoriesPicture, plane, trajectories_picture
from reports.fronts import Study
from reports.markup import esc
from reports.paper_tables import show
from reports.values import finite
from repsim.records import METRICS

HOW_TO = "--set measure.layers=full"


def section(chapter: Chapter) -> str:
    """Maps of layers and trajectories of every data set; "" where no trial was measured after two epochs or more."""
    parts = []
    for study, stem in zip(chapter.studies, chapter.stems, strict=True):
        where = f" on {study.data}" if len(chapter.studies) > 1 else ""
        ways = trajectories_picture(chapter.sweep, study, chapter.styles)
        parts += [_layers(chapter, study, stem, where, ways), _trajectories(chapter, study, stem, where, ways)]
    if not any(parts):
        return ""
    lead = (
        "How far the features went from the pretrained ones, and how they got there. Every map and every line is one "
        "training run of the search (n = 1); this is for looking, and nothing was chosen by it."
    )
    return "\n".join(["<h2>Representations</h2>", f"<p>{esc(lead)}</p>", *(part for part in parts if part)])


def _layers(chapter: Chapter, study: Study, stem: str, where: str, ways: TrajectoriesPicture | None) -> str:
    picture = layer_maps_picture(chapter.sweep, study)
    head = f"<h3>Layer by layer{esc(where)}</h3>"
    if picture is not None:
        return head + chapter.figure(
            partial(draw_layer_maps, picture),
            f"layers{stem}",
            f"Similarity with the pretrained network by layer and epoch{where}",
            " ".join(layer_words(study, picture)),
        )
    if records_layers(chapter.sweep, study):
        text = "Similarity was recorded by layer, but of no front member or anchor that trains its backbone."
        return f"{head}<p>{esc(text)}</p>"
    if ways is None:
        return ""
    return (
        f"{head}<p>No similarity by layer was recorded. Launched with <code>{esc(HOW_TO)}</code>, a sweep records it "
        "after every epoch, and heatmaps of the front members stand here.</p>"
    )


def layer_words(study: Study, picture: LayerMapsPicture) -> list[str]:
    """What the maps show, of whom, and which layer changed most."""
    drawn = sum(not one.anchor for one in picture.maps)
    few = f"{drawn} of the {picture.members}, evenly spaced along the front (at most {MOST} maps)"
    whose = f"all {drawn}" if drawn == picture.members else few
    n = finite(study.trials["n_probe"].dropna().max()) if study.trials["n_probe"].notna().any() else None
    on = "" if n is None else f" on {show(n)} val images"
    said = [
        f"Debiased linear CKA of each layer with its pretrained self{on}, after each epoch, input at the bottom; a "
        "layer's features are means over positions (in a transformer, over the patches' tokens). The top row is the "
        "features before the head, which val similarity is about. The pretrained network itself is 1 everywhere.",
        f"Front members that train their backbone: {whose}, in the front's order; one scale for all.",
    ]
    if any(one.reported in one.epochs and one.reported != one.epochs[-1] for one in picture.maps):
        said.append("A triangle marks the epoch that is reported, where it is not the last.")
    if any(value is None for one in picture.maps for row in one.values for value in row):
        said.append("Blank cells were not measured.")
    if picture.least_kept:
        total = sum(count for _, count in picture.least_kept)
        shares = ", ".join(f"{_called(layer)} in {count}" for layer, count in picture.least_kept)
        said.append(f"Least like its pretrained self in the reported models, of {total}: {shares}.")
    return said


def _called(layer: str) -> str:
    return f"the features {LAST}" if layer == LAST else layer


def _trajectories(chapter: Chapter, study: Study, stem: str, where: str, picture: TrajectoriesPicture | None) -> str:
    if picture is None:
        return ""
    return f"<h3>On the way{esc(where)}</h3>" + chapter.figure(
        partial(draw_trajectories, picture),
        f"trajectories{stem}",
        f"The way of each trial from epoch to epoch{where}",
        " ".join(trajectory_words(study, picture)),
    )


def trajectory_words(study: Study, picture: TrajectoriesPicture) -> list[str]:
    """How to read the lines, which ones there are, and that they are no points of the front."""
    x, y = plane(study)
    said = [
        f"{METRICS[y].label} against {METRICS[x].label} after each epoch, from an open circle (the first) to the large "
        "mark (the model that is reported). Only reported models compete for the front: the epochs before are where a "
        "trial came through, partway along its schedule, and never points of the front."
    ]
    if any(way.reported not in (None, way.points[-1]) for way in picture.told):
        said.append(
            "A mark that is not at its line's end is the epoch, or the model on the way there, that was chosen."
        )
    if len([way for way in picture.told if not way.anchor]) > LABELLED:
        said.append(f"Of the front members, {LABELLED} evenly spaced ones bear their names.")
    if picture.others:
        some = f"{picture.pale} of the {picture.others}" if picture.pale < picture.others else f"the {picture.others}"
        said.append(f"Coloured lines are front members and anchors, pale ones {some} other trials.")
    if study.means:
        said.append("The front is of means over fresh seeds; drawn are the search's own runs of those configurations.")
    if picture.backbones > 1:
        more = picture.backbones - len(picture.panels)
        left = f" {more} more backbones are left out." if more else ""
        said.append(f"{words.ACROSS_BACKBONES}{left}")
    return said
