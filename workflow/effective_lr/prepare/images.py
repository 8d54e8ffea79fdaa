"""Fashion-MNIST and CIFAR-10: checked files become block means of pixels, normalized per channel.

CIFAR-10 has two forms: `cifar10` is the official files, `cifar10-jpeg` a lossy copy, for those who have only that. They
are two datasets, and no run on one can be taken for a run on the other.
"""

import hashlib
import math
import pickle
import tarfile
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from effective_lr.errors import UserError, reason
from effective_lr.prepare.dataset import Prepared, Tensors
from effective_lr.prepare.sources import (
    CIFAR10,
    FASHION_MNIST,
    FOLDER_VARIABLE,
    Missing,
    checksums,
    local_file,
    obtain,
)


class Facts(NamedTuple):
    """Image shape and split sizes of a dataset, as its authors published it."""

    channels: int
    size: int  # pixels along one side
    train: int
    test: int


FACTS = {
    "fashion-mnist": Facts(channels=1, size=28, train=60_000, test=10_000),
    "cifar10": Facts(channels=3, size=32, train=50_000, test=10_000),
    "cifar10-jpeg": Facts(channels=3, size=32, train=22_500, test=5_000),
}
SIDES = [(name, facts.size // k) for name, facts in FACTS.items() for k in (1, 2)]
UNSEEN = 5_000  # the last training images, by which settings are chosen: mean and deviation of pixels leave them out

# The first images of each class in a public copy of CIFAR-10 as JPEG files, <split>/<class>/<number>.jpg; sha256 over
# the files of a split, in the order of `_jpeg_names`.
JPEG_ARCHIVE = "cifar10_jpeg.zip"
JPEG_SHA256 = {
    "train": "0dbf451f2edc5a7c19bbc284f071ce8ec1bd75b1763c314d1d0f7d0e9aa9c1ca",
    "test": "d9e1b77f998394db1345ff36c1c31f5d79a26e2db69ee72a0fc09cfb10013057",
}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

CIFAR10_BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}

TENSORS = ("train_images", "train_labels", "test_images", "test_labels")


def read(dataset: str, side: int, folder: Path) -> Prepared:
    """Images float32 (N, channels, side, side) and labels int64 (N,), for training and test.

    Images are means over k × k blocks of pixels, k = size / side, divided by 255, and normalized per channel by mean
    and standard deviation (population) over the training images but the last `UNSEEN`. Raises UserError if a file is
    damaged, Missing if no place has it.
    """
    readers = {"fashion-mnist": _fashion_mnist, "cifar10": _cifar10, "cifar10-jpeg": _cifar10_jpeg}
    raw, sums, path = readers[dataset](folder)
    tensors, mean, std = _normalized(raw, side)
    facts = {"resolution": side, "pixel_mean": mean, "pixel_std": std, "source_checksums": sums}
    return Prepared(tensors, facts, path)


def _normalized(raw: Tensors, side: int) -> tuple[Tensors, list[float], list[float]]:
    """Normalized block means, and the mean and standard deviation of each channel on a scale of 0 to 1."""
    # Integer sums are exact: neither the number of threads nor the machine can change a bit of the record.
    sums = {}
    for name in ("train_images", "test_images"):
        n, channels, size, _ = raw[name].shape
        k = size // side
        sums[name] = raw[name].reshape(n, channels, side, k, side, k).sum((3, 5), dtype=torch.int32)
    white = 255 * k * k
    mean, std = [], []
    for channel in sums["train_images"][:-UNSEEN].unbind(1):
        values = channel.flatten().long()
        count, total, squares = len(values), int(values.sum()), int(values.dot(values))
        mean.append(total / (count * white))
        std.append(math.sqrt(count * squares - total**2) / (count * white))
    shift, scale = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)
    images = {name: blocks.float().div_(white).sub_(shift).div_(scale) for name, blocks in sums.items()}
    prepared = raw | images
    return {name: prepared[name] for name in TENSORS}, mean, std


# Each source gives the raw data (images uint8), the checksum of every file, and where the last of them lies.


def _fashion_mnist(folder: Path) -> tuple[Tensors, dict[str, str], Path]:
    facts = FACTS["fashion-mnist"]
    image = (facts.channels, facts.size, facts.size)
    shapes = ((facts.train, *image), (facts.train,), (facts.test, *image), (facts.test,))
    raw = {}
    for key, source, shape in zip(TENSORS, FASHION_MNIST.values(), shapes, strict=True):
        content, path = obtain(source, folder)
        header = 16 if len(shape) > 1 else 8
        values = torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).view(shape)
        raw[key] = values if len(shape) > 1 else values.long()
    return raw, checksums(FASHION_MNIST.values()), path


def _cifar10(folder: Path) -> tuple[Tensors, dict[str, str], Path]:
    content, path = obtain(CIFAR10, folder)
    facts, raw = FACTS["cifar10"], {}
    with tarfile.open(fileobj=BytesIO(content)) as tar:
        for split, names in CIFAR10_BATCHES.items():
            members = [tar.extractfile(f"cifar-10-batches-py/{name}") for name in names]
            batches = [pickle.load(member, encoding="latin1") for member in members if member]  # of a known sha256
            images = [torch.frombuffer(bytearray(batch["data"]), dtype=torch.uint8) for batch in batches]
            raw[f"{split}_images"] = torch.cat(images).view(-1, facts.channels, facts.size, facts.size)
            raw[f"{split}_labels"] = torch.tensor([label for batch in batches for label in batch["labels"]])
    return raw, checksums([CIFAR10]), path


def _cifar10_jpeg(folder: Path) -> tuple[Tensors, dict[str, str], Path]:
    from PIL import Image

    path = local_file(folder, JPEG_ARCHIVE)
    if path is None:
        raise Missing(
            f"{JPEG_ARCHIVE} is neither in {folder} nor in the folder named by {FOLDER_VARIABLE}: put an archive of "
            "CIFAR-10's images by class there, train/airplane/0000.jpg and so on, or set dataset = cifar10"
        )
    facts = FACTS["cifar10-jpeg"]
    remedy = f"replace it by an archive whose first images of each class are those of the copy, or delete {path}"
    raw: Tensors = {}
    for split, count in [("train", facts.train), ("test", facts.test)]:
        names = _jpeg_names(split, count)
        try:
            with zipfile.ZipFile(path) as archive:
                contents = [archive.read(name) for name in names]
        except (KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(
                f"{path}: {len(names)} images, {names[0]} to {names[-1]}, cannot be read ({reason(error)}): {remedy}"
            ) from error
        if (found := hashlib.sha256(b"".join(contents)).hexdigest()) != JPEG_SHA256[split]:
            raise UserError(
                f"{path}: {len(names)} images, {names[0]} to {names[-1]}, have sha256 {found}, expected "
                f"{JPEG_SHA256[split]}: {remedy}"
            )
        pixels = np.stack([np.asarray(Image.open(BytesIO(content)).convert("RGB")) for content in contents])
        raw[f"{split}_images"] = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        raw[f"{split}_labels"] = torch.arange(count) % len(CLASSES)
    return raw, {f"{split} images": f"sha256:{sha256}" for split, sha256 in JPEG_SHA256.items()}, path


def _jpeg_names(split: str, count: int) -> list[str]:
    """The images in an order that goes round the classes, so that any range of it has equally many of each."""
    return [f"{split}/{CLASSES[i % len(CLASSES)]}/{i // len(CLASSES):04}.jpg" for i in range(count)]
