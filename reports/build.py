"""Build the report of a sweep from MLflow: ``python reports/build.py --sweep NAME``."""

from __future__ import annotations

import argparse
import gc
import io
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.printing import find_browser, print_page
from reports.request_parser import RequestParser
from repsim.errors import Mistake, RequestError, one_line

if TYPE_CHECKING:
    import pandas as pd

_DESCRIPTION = """\
Build the report of one sweep from the MLflow store it was recorded in: the front with its standard errors, the price
of similarity in plain words, every trial, every failure, and the exact command that repeats each front member.

Nothing but the store is read, so a report can be built while the sweep runs, on another machine, or years later.
"""
_EPILOG = """\
examples:
  python reports/build.py --sweep latest                  the sweep started last, from ./mlflow.db
  python reports/build.py --sweep pareto-261120-070500    writes runs/pareto-261120-070500/report/index.html
  python reports/build.py --sweep pareto-261120-070500 --tracking-uri http://localhost:5000 --out /tmp/report

what is written into the report folder:
  index.html                  the page: self-contained, needs no network
  trials.parquet              every trial: configuration, metrics, state
  front.parquet               the rows of trials.parquet that are on the front
  tables/*.csv *.md *.tex     methods by data set as a paper prints them (paper), front members (front), trials per
                              method (methods); LaTeX needs booktabs, graphicx and T1 fontenc
  tables/methods_paragraph.*  every setting in sentences (md, tex)
  figures/*.png *.svg         the pictures, for papers
  report.pdf                  with --format pdf
  points/TRIAL.yaml           a space file per front member: launching it repeats that trial

exit status: 0 written; 2 the request is wrong (no store, no such sweep, a folder that cannot be written).
"""


_FILES = ("index.html", "trials.parquet", "front.parquet", "tables", "figures", "points")


def parser() -> argparse.ArgumentParser:
    """The command line; a wrong one is a RequestError."""
    found = RequestParser(
        prog="python reports/build.py",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--sweep", required=True, metavar="NAME", help="name of the sweep, or latest")
    found.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="the MLflow store (default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in the current folder)",
    )
    found.add_argument("--out", metavar="DIR", type=Path, help="folder to write (default: runs/NAME/report)")
    found.add_argument(
        "--format",
        choices=("html", "pdf"),
        default="html",
        help="pdf: print the page into report.pdf as well, with Chromium or Chrome (default: html)",
    )
    found.add_argument(
        "--fresh",
        action="store_true",
        help="ask the store for every trial, also for those that the sweep keeps in its compact tables",
    )
    found.add_argument(
        "--no-log", action="store_true", help="do not attach the folder to the sweep's run as artifact 'report'"
    )
    return found


def build_report(
    sweep: str, tracking_uri: str | None = None, out: Path | None = None, *, log: bool = True, fresh: bool = False
) -> Path:
    """Write the report of ``sweep`` (a name, or ``latest``) into folder ``out`` and return the folder.

    ``tracking_uri`` defaults to MLFLOW_TRACKING_URI, else ./mlflow.db; ``out`` to runs/NAME/report. With ``log`` the
    folder is also attached to the sweep's parent run as artifact ``report``. Raises RequestError when the store, the
    sweep or the folder is not there; a store is never created. What an earlier build left in ``out`` is replaced,
    the page last.
    """
    from reports.load import load_sweep
    from reports.store import default_tracking_uri, open_store

    uri = tracking_uri or default_tracking_uri()
    client = open_store(uri)
    loaded = load_sweep(client, sweep, fresh=fresh)
    folder = (out or _default_folder(loaded.name)).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except ValueError as error:  # no system takes such a name
        raise _not_written(folder, str(error)) from None
    except OSError as error:
        raise _not_written(folder, error.strerror or str(error)) from None
    try:
        with tempfile.TemporaryDirectory(prefix=".report-", dir=folder) as work:
            _write(loaded, Path(work), folder, uri)
            _move(Path(work), folder)
    except OSError as error:
        raise _not_written(folder, error.strerror or str(error)) from None
    if log:
        _attach(client, loaded.run_id, folder)
    return folder


def _not_written(folder: Path, reason: str) -> RequestError:
    problem = f"{one_line(str(folder), 200)} cannot be written: {one_line(reason)[1:-1]}"
    return RequestError(Mistake(where="--out", key="", problem=problem))


def _default_folder(name: str) -> Path:
    if not re.fullmatch(r"[^/\\\x00]+", name) or name in (".", ".."):
        problem = f"the sweep's name {one_line(name)} cannot be a folder"
        raise RequestError(Mistake(where="--out", key="", problem=problem, allowed="name a folder with --out DIR"))
    return Path("runs") / name / "report"


def four_states(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials with ``status`` running, completed, pruned or failed; why one waits stays in its ``reason``."""
    return trials.assign(status=trials["status"].replace({"proposed": "running", "waiting": "running"}))


def _write(sweep: Any, work: Path, folder: Path, uri: str) -> None:
    """Everything into ``work``; ``folder`` is where it will lie and ``uri`` the store, for commands and links."""
    from reports import figures, fronts, methods_paragraph, page, paper_render, paper_style, paper_tables, points
    from reports.chapters import CHAPTERS
    from reports.chapters.chapter import Chapter
    from reports.run_links import run_links

    for name in ("figures", "tables", "points"):
        (work / name).mkdir()
    studies = [fronts.study(sweep, data) for data in sweep.data_sets]
    trials = fronts.mark_front(sweep, studies)
    told = four_states(trials)
    told.to_parquet(work / "trials.parquet", index=False)
    told[told["on_front"].fillna(False)].to_parquet(work / "front.parquet", index=False)
    tables = [paper_tables.front_table(sweep, studies), paper_tables.methods_table(sweep, studies)]
    paper_tables.write_tables(tables, work / "tables")
    paper = paper_style.paper_table(sweep, studies)
    if paper is not None:
        paper_render.write_paper(paper, work / "tables")
    topics = methods_paragraph.topics(sweep, studies, paper)
    methods_paragraph.write_paragraph(topics, work / "tables")
    points.write_points(sweep, studies, work / "points")
    styles = figures.choose_styles(
        [point.method for study in studies for point in study.points],
        [point.backbone for study in studies for point in study.points],
    )
    stems = _stems([study.data for study in studies])
    drawn = [_draw(study, styles, work / "figures", stem) for study, stem in zip(studies, stems, strict=True)]
    chapter = Chapter(
        sweep=sweep,
        studies=tuple(studies),
        styles=styles,
        stems=tuple(stems),
        figures=work / "figures",
        report=folder,
    )
    chapters = [section(chapter) for section in CHAPTERS]
    chapters += [paper_render.section(paper), methods_paragraph.section(topics)]
    links = run_links(uri, sweep.experiment_id)
    text = page.render(sweep, studies, drawn, chapters, {table.name: table for table in tables}, folder, links)
    (work / "index.html").write_text(text, encoding="utf-8")


def _stems(data_sets: Sequence[str]) -> list[str]:
    """What file names end in, per data set: nothing for a single one."""
    if len(data_sets) == 1:
        return [""]
    return [f"_{number}_{slug(data)}" for number, data in enumerate(data_sets, start=1)]


def slug(text: str) -> str:
    """Letters, digits and dashes, at most 40."""
    return "-".join(re.findall(r"[A-Za-z0-9]+", text))[:40]


def _draw(study: Any, styles: Any, folder: Path, stem: str) -> Any:
    from reports import drawing, figures, page

    def save(picture: Any, name: str) -> tuple[str, str] | None:
        return None if picture is None else drawing.save(partial(drawing.draw_front, picture), folder, name)

    picture = None if study.single else figures.front_picture(study, styles)
    panels = []
    for number, backbone in enumerate(study.backbones if picture is not None and len(study.backbones) > 1 else ()):
        panel = figures.front_picture(study, styles, backbone)
        saved = save(panel, f"front{stem}_backbone_{number + 1}_{slug(backbone)}")
        if saved is not None:
            panels.append((backbone, saved))
    return page.Drawn(
        front=save(picture, f"front{stem}"),
        front_file=f"figures/front{stem}.svg and .png",
        picture=picture,
        panels=panels,
    )


def _move(work: Path, folder: Path) -> None:
    """Put the files in their place, the page last, and drop the points of an earlier build."""
    from reports.points import MARK

    for old in (folder / "points").glob("*.yaml"):
        if old.read_text(encoding="utf-8").startswith(MARK):
            old.unlink()
    files = sorted(path for path in work.rglob("*") if path.is_file())
    for path in sorted(files, key=lambda path: path.name == "index.html"):
        target = folder / path.relative_to(work)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)


def _attach(client: Any, run_id: str, folder: Path) -> None:
    """The report stands on disk already, so an artifact store that refuses is a warning, not a failure."""
    from mlflow.exceptions import MlflowException

    try:
        for path in (folder / name for name in _FILES):  # the folder may be anybody's, and hold other files
            if path.is_dir():
                client.log_artifacts(run_id, str(path), artifact_path=f"report/{path.name}")
            else:
                client.log_artifact(run_id, str(path), artifact_path="report")
    except (MlflowException, OSError) as error:
        print(f"warning: the report was not attached to the run: {one_line(str(error), 300)}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    # the matrices are small, and beside a running sweep threads wait for each other longer than they multiply
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # nearly all that is made lives to the end, and each collection would look at all of it again
    gc.set_threshold(100_000, 50, 100)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows no accents is not worth a crash
    try:
        options = parser().parse_args(arguments)
        printed = options.format == "pdf"
        browser = find_browser() if printed else ""
        folder = build_report(
            options.sweep, options.tracking_uri, options.out, log=not options.no_log, fresh=options.fresh
        )
        if printed:
            print_page(browser, folder / "index.html", folder / "report.pdf")
    except RequestError as error:
        for mistake in error.mistakes:
            print(mistake, file=sys.stderr)
        return 2
    for name in (*(("report.pdf",) if printed else ()), *_FILES):
        print(folder / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
