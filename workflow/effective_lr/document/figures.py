"""A figure of a study as a PDF for the paper and a picture for pages."""

from pathlib import Path

from effective_lr.document import style
from effective_lr.engine.study import Study
from effective_lr.evidence.tidy import Tables

DOTS_PER_INCH = 200


def draw(study: Study, name: str, tables: Tables, pdf: Path, png: Path) -> None:
    """Draw the figure of that name in the figures.py of a study."""
    style.use()
    figure = study.module("figures").__dict__[name](tables)
    pdf.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(pdf, metadata={"CreationDate": None}, transparent=True)
    figure.savefig(png, dpi=DOTS_PER_INCH)
