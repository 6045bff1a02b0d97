"""The chapters between the front and the tables, in the order in which the page has them."""

from __future__ import annotations

from reports.chapters import methods
from reports.chapters.chapter import Section

CHAPTERS: tuple[Section, ...] = (methods.section,)
