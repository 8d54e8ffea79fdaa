"""A figure of a study as a PDF."""

from pathlib import Path

from matplotlib.figure import Figure

from effective_lr.document import style
from effective_lr.engine.inputs import Layout
from effective_lr.engine.study import Study
from effective_lr.evidence import tidy
from effective_lr.evidence.tidy import Tables


def draw(study: Study, name: str, tables: Tables) -> Figure:
    """Draw the figure of that name in the figures.py of a study."""
    style.use()
    figure: Figure = study.module("figures").__dict__[name](tables)
    return figure


def write_figure(layout: Layout, study: str, name: str, output: Path) -> str:
    """Draw a figure of a study; returns its title and place, for the log."""
    chapter = layout.chapters[study]
    item = chapter.contents.figures[name]
    tables = tidy.read(chapter, layout.tables_of(study, item), chapter.experiments_of(item))
    style.save_pdf(draw(chapter.study, name, tables), output)
    return f"{item.title}: {output}"
