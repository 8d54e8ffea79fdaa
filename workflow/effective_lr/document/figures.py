"""A figure of a study as a PDF for the paper or a picture for pages."""

from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from effective_lr.document import style
from effective_lr.engine.study import Study
from effective_lr.evidence.tidy import Tables

DOTS_PER_INCH = 200


def draw(study: Study, name: str, tables: Tables) -> Figure:
    """Draw the figure of that name in the figures.py of a study."""
    style.use()
    figure: Figure = study.module("figures").__dict__[name](tables)
    return figure


def save_pdf(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"CreationDate": None}, transparent=True)


def picture(study: Study, name: str, tables: Tables) -> bytes:
    """As PNG."""
    file = BytesIO()
    draw(study, name, tables).savefig(file, dpi=DOTS_PER_INCH)
    return quantized(file.getvalue())


def quantized(png: bytes) -> bytes:
    """The picture in 256 colors: a third of the bytes, since all but a few colors of a drawing are edges of lines."""
    smaller = BytesIO()
    opaque = Image.open(BytesIO(png)).convert("RGB")
    opaque.quantize(256, dither=Image.Dither.NONE).save(smaller, "PNG", optimize=True)
    return smaller.getvalue()
