"""A figure of a study as a PDF for the paper and a picture for pages."""

from io import BytesIO
from pathlib import Path

from PIL import Image

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
    picture = BytesIO()
    figure.savefig(picture, dpi=DOTS_PER_INCH)
    png.write_bytes(few_colors(picture.getvalue()))


def few_colors(png: bytes) -> bytes:
    """The picture in 256 colors: a third of the bytes, since all but a few colors of a drawing are edges of lines."""
    picture = BytesIO()
    opaque = Image.open(BytesIO(png)).convert("RGB")
    opaque.quantize(256, dither=Image.Dither.NONE).save(picture, "PNG", optimize=True)
    return picture.getvalue()
