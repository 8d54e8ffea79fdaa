"""The datasets by name, and their preparation."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from effective_lr.errors import UserError
from effective_lr.prepare import images, tabular, text
from effective_lr.prepare.dataset import Prepared, write
from effective_lr.prepare.sources import Missing

READERS: dict[str, Callable[[Path], Prepared]] = {  # of the folder in which a person may have put the files
    **{f"{name}-{side}": partial(images.read, name, side) for name, side in images.SIDES},
    "shakespeare": text.shakespeare,
    "tokens": text.tokens,
    "cooling-load": tabular.cooling_load,
    "leukemia": tabular.leukemia,
    "gse9476": tabular.gse9476,
}


def prepare(name: str, folder: Path, tensors: Path, record: Path, is_optional: bool = False) -> str:
    """Prepare a dataset and write its tensors and record; returns one line that names the source of the data.

    An optional one that cannot be had leaves a record with the reason under the key `missing`, and no tensors in the
    file. Raises UserError, and writes nothing, when files are damaged or the disk refuses.
    """
    if name not in READERS:
        raise UserError(f"{name}: no such dataset; expected one of {', '.join(sorted(READERS))}")
    try:
        prepared = READERS[name](folder)
    except Missing as error:
        if not is_optional:
            raise
        prepared = Prepared({}, {"missing": str(error)}, f"nowhere: {error}")
    write(name, prepared, tensors, record)
    return f"{name}: prepared from {prepared.source}" if prepared.tensors else f"{name}: {prepared.source}"
