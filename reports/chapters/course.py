"""How the sweep went: what its front grew with, the slots over time, where the time went, what did not finish."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from reports.chapters.chapter import Chapter
from reports.chapters.course_drawing import draw_growth, draw_shares, draw_slots
from reports.chapters.course_pictures import (
    BARS,
    LANES,
    GrowthPicture,
    growth_picture,
    share_picture,
    shares,
    slot_picture,
)
from reports.chapters.spending import Spending, cost_table, epochs_trained, reasons_table, spending
from reports.chapters.timeline import PAUSE, Timeline, timeline
from reports.fronts import Study, runs
from reports.load import Sweep
from reports.markup import duration, esc, table_html
from reports.paper_tables import Table, show
from repsim.records import METRICS, Stage, Status


def section(chapter: Chapter) -> str:
    """The chapter; "" where no trial was recorded."""
    sweep = chapter.sweep
    if sweep.trials.empty:
        return ""
    line = timeline(sweep)
    spent = None if line is None else spending(sweep, line)
    parts = ["<h2>How it went</h2>", *_growth(chapter, line)]
    if line is None or spent is None:
        parts.append("<h3>The slots over time</h3>" + _text("No run has a recorded time, so nothing is said of slots."))
    else:
        parts += [_slots(chapter, line), _shares(chapter, spent, line)]
    parts += [_cost(sweep, spent), _reasons(sweep), _confirmation(sweep, spent)]
    return "\n".join(part for part in parts if part)


def _text(sentences: str) -> str:
    return f"<p>{esc(sentences)}</p>" if sentences else ""


def _growth(chapter: Chapter, line: Timeline | None) -> list[str]:
    parts = []
    for study, stem in zip(chapter.studies, chapter.stems, strict=True):
        if study.single:
            continue
        where = f" on {esc(study.data)}" if len(chapter.studies) > 1 else ""
        parts.append(f"<h3>Hypervolume against trials, epochs and time{where}</h3>")
        picture = growth_picture(chapter.sweep, study, line)
        if picture is None:
            parts.append(_text(study.course_note))
        else:
            draw = partial(draw_growth, picture)
            alt = "Hypervolume against trials, epochs and time"
            parts.append(chapter.figure(draw, f"hypervolume{stem}", alt, growth_caption(study, picture)))
    return parts


def growth_caption(study: Study, picture: GrowthPicture) -> str:
    """What the hypervolume is measured in, and what counts on each axis."""
    if study.reference is None:
        return ""
    corners = [
        f"{METRICS[o.metric].label} from {show(study.reference.worst[o.metric], METRICS[o.metric])} "
        f"to {show(study.reference.ideal[o.metric], METRICS[o.metric])}"
        for o in study.objectives
    ]
    said = [
        f"Share of the box between reference and ideal that the front dominates: {'; '.join(corners)}.",
        "The reference was fixed once, from the sweep's anchors; points outside the box count nothing.",
        "A step is a search trial that has ended, in that order; one that was stopped early or failed adds no area, "
        "but counts as a trial and brings the epochs that it trained.",
    ]
    if study.means:
        said.append("Counted are the search's own runs, before their front was confirmed.")
    if picture.unknown_epochs:
        said.append(
            f"{_count(picture.unknown_epochs, 'trial')} stopped early left no curve; their epochs are not counted."
        )
    if len(picture.panels) < 3:
        said.append("Epochs or times were not recorded, so that panel is missing.")
    if picture.pauses:
        said.append("Dotted: pauses, which the time leaves out.")
    return " ".join(said)


def _count(number: int, what: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{number} {what}" if number == 1 else f"{number:,} {what}s"


def percent(share: float) -> str:
    """``61 %``, ``4.2 %``."""
    return f"{100 * share:.0f} %" if share == 0 or share >= 0.0995 else f"{100 * share:.1f} %"


def _slots(chapter: Chapter, line: Timeline) -> str:
    picture = slot_picture(line, chapter.styles)
    heading = "<h3>The slots over time</h3>" + _text(" ".join(slot_sentences(line)))
    if picture is None:
        return heading + _text("No time has passed in the records, so there is nothing to draw.")
    caption = "A bar is a training run in its slot, its colour the method; what had not completed is pale."
    if picture.left_out:
        caption += (
            f" Of {_count(len(line.bars) + len(line.doubtful), 'bar')}, {picture.left_out:,} are not drawn: shown are "
            f"the last {BARS}, in the first {LANES} rows."
        )
    return heading + chapter.figure(partial(draw_slots, picture), "slots", "Training runs over time, by slot", caption)


def slot_sentences(line: Timeline) -> list[str]:
    """How many runs and slots, over what time; and what was not recorded."""
    work = line.at_work([line.last])[0]
    every = (*line.bars, *line.doubtful)
    said = []
    if work > 0:
        said.append(
            f"{_count(len({bar.run_id for bar in every}), 'run')} over {duration(work)}, at most {line.slots} at once. "
            "The number of slots is not recorded: it is taken as the most runs at once between two pauses."
        )
    if line.by_driver:
        said.append(
            f"Without a record of when they ran and in which process: {_count(line.by_driver, 'completed run')}. The "
            "driver's times stand in, and their row is one that was free."
        )
    unended = {bar.run_id for bar in every if bar.status in (Status.RUNNING.value, Status.WAITING.value)}
    if unended:
        said.append(f"Under way or waiting at the last recorded moment: {_count(len(unended), 'run')}.")
    if line.untimed:
        said.append(f"Without times that can be read: {_count(line.untimed, 'run')}.")
    again = {bar.run_id for bar in every if bar.retried}
    if again:
        said.append(
            f"Begun more than once: {_count(len(again), 'run')}, whose process died or whose sweep was interrupted. "
            "Recorded are the first beginning and, of a completed run, the last; in between it may have run or waited."
        )
    return [*said, *pause_sentences(line)]


def pause_sentences(line: Timeline) -> list[str]:
    """What was taken out of the time, and what can be known of it."""
    if not line.pauses:
        return []
    spanned = sum(
        any(bar.began <= began and bar.finished >= finished for bar in line.doubtful)
        for began, finished in line.pauses
        if began > line.origin
    )
    whole = duration(sum(finished - began for began, finished in line.pauses))
    said = (
        f"Left out of the time, and not counted as idle: {_count(len(line.pauses), 'pause')} of {PAUSE:.0f} s or more "
        f"({whole} in all), in which no run is known to have been under way. Interruptions are not recorded: whether "
        "the sweep was away, or at work without a run, cannot be told."
    )
    if spanned:
        said += f" In {spanned} of them a run was left unfinished and begun again after it, as on a resume."
    return [said]


def _shares(chapter: Chapter, spent: Spending, line: Timeline) -> str:
    picture = share_picture(spent)
    if picture is None:
        return ""
    draw = partial(draw_shares, picture)
    caption = "Slot time by what it was spent on, for all slots together and for each method's runs."
    if picture.left_out:
        caption += f" Not drawn: {_count(picture.left_out, 'method')} that took least."
    return (
        f"<h3>Where the time went</h3><p>{esc(' '.join(share_sentences(chapter.sweep, spent, line)))}</p>"
        + chapter.figure(draw, "slot_time", "Slot time by what it was spent on", caption)
        + table_html(share_table(spent))
    )


def share_sentences(sweep: Sweep, spent: Spending, line: Timeline) -> list[str]:
    """The shares in words, and what they cannot say."""
    training = percent(spent.share(spent.inside.training))
    rest = [f"{percent(spent.share(seconds))} {name}" for name, seconds in shares(spent)[1:] if seconds > 0]
    but = f"; the rest: {', '.join(rest)}" if rest else ""
    said = [f"{training} of the slots' time was training ({duration(spent.total)} in all){but}."]
    if spent.inside.other > 0:
        said.append("Other work of a run is loading, teacher features, checkpoints and waiting for the driver.")
    if spent.inside.undivided > 0:
        said.append(
            "A run that did not complete records no training time, so its time, much of it training, is not divided."
        )
    completed = sweep.trials[sweep.trials["status"] == Status.COMPLETED.value]
    if len(completed) and completed["evaluation_seconds"].isna().any():
        said.append("Some runs did not record their evaluation's time, which is then among the other work.")
    if any(bar.retried and bar.status == Status.COMPLETED.value for bar in line.bars):
        said.append("What a run that was begun again recorded covers all its attempts, and is counted in the last.")
    return said


def share_table(spent: Spending) -> Table:
    """Seconds and shares of the slots' time, what took none left out."""
    rows = [(name, seconds, percent(spent.share(seconds))) for name, seconds in shares(spent) if seconds > 0]
    return Table(
        name="slot_time",
        caption="",
        columns=("slot time", "seconds", "share"),
        rows=(*rows, ("all", spent.total, percent(spent.share(spent.total)))),
        metrics={"seconds": METRICS["train_seconds"], "share": METRICS["train_seconds"]},
    )


def _cost(sweep: Sweep, spent: Spending | None) -> str:
    return f"<h3>What it cost</h3><p>{esc(' '.join(cost_sentences(sweep)))}</p>{table_html(cost_table(sweep, spent))}"


def cost_sentences(sweep: Sweep) -> list[str]:
    """What is counted, and what the table cannot hold."""
    epochs = epochs_trained(sweep)
    stages = runs(sweep.trials)["stage"]
    among = ", confirmations among them," if (stages == Stage.CONFIRM.value).any() else ""
    said = [
        f"{_count(len(stages), 'run')}{among} trained {_count(sum(epochs.by_run.values()), 'epoch')}.",
        "Training time, throughput while training, and peak memory are those of completed runs; epochs are those of "
        "all runs, as far as their curves reach.",
    ]
    if epochs.assumed:
        said.append(f"Without a curve, and counted with the epochs asked of them: {_count(epochs.assumed, 'run')}.")
    return said


def _reasons(sweep: Sweep) -> str:
    heading = "<h3>Stopped, failed and waiting, by reason</h3>"
    table = reasons_table(sweep)
    if not table.rows:
        return heading + _text("No run was stopped early, failed or waits.")
    told = "A # stands for any number, so that reasons which differ in their numbers alone are counted as one."
    return heading + _text(told) + table_html(table, long=("reason",)) + _text(table.caption)


def _confirmation(sweep: Sweep, spent: Spending | None) -> str:
    said = confirmation_sentences(sweep, spent)
    return f"<h3>What the confirmation took</h3>{_text(' '.join(said))}" if said else ""


def confirmation_sentences(sweep: Sweep, spent: Spending | None) -> Sequence[str]:
    """How many fresh seeds were trained and how much time that took; nothing where there are none."""
    fresh = sweep.trials[sweep.trials["stage"] == Stage.CONFIRM.value]
    if fresh.empty:
        return []
    ends = fresh["status"].value_counts()
    counts = ", ".join(f"{count} {status}" for status, count in sorted(ends.items(), key=lambda item: str(item[0])))
    said = f"{_count(len(fresh), 'confirmation run')} ({counts})"
    if spent is None or spent.confirming.seconds <= 0:
        return [f"{said}; how long they took is not recorded."]
    took = spent.confirming.seconds
    return [
        f"{said} took {duration(took)} of slot time, {percent(spent.share(took))} of all; "
        f"{duration(spent.confirming.training)} of it is known to be training."
    ]
