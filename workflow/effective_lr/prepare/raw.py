"""The raw files of the datasets together in one folder, from which they are prepared without a network.

CIFAR-10 and tokens of the user's own stay out: no published result rests on them.
"""

import shutil
from pathlib import Path

from effective_lr.prepare import images, tabular, text
from effective_lr.prepare.dataset import Missing
from effective_lr.prepare.sources import COOLING_LOAD, GOLUB_38, GOLUB_72


def collect(folder: Path, into: Path) -> str:
    """Copy the raw files, downloaded where this machine lacks them, and name the optional ones that could not be had.

    `folder` is looked at first, and Fashion-MNIST and Shakespeare are downloaded into it. Raises UserError where a file
    is damaged, or one that is not optional cannot be had.
    """
    images.read("fashion-mnist", images.FACTS["fashion-mnist"].size, folder)  # checks the files
    text.shakespeare(folder)
    places = (*images.own_places(folder), images.DEBIAN_FOLDER)
    into.mkdir(parents=True, exist_ok=True)
    found = next(files for place in places if (files := list(place.glob("*-ubyte*"))))
    for path in [*found, folder / text.WHEEL]:
        shutil.copy(path, into)
    left_out = ""
    for source in (COOLING_LOAD, GOLUB_38, GOLUB_72):
        try:
            content, _ = tabular.obtain(source, folder)
        except Missing as error:
            left_out += f"; left out: {error}"
            continue
        (into / source.path).parent.mkdir(exist_ok=True)
        (into / source.path).write_bytes(content)
    return f"{sum(path.is_file() for path in into.rglob('*'))} files{left_out}"
