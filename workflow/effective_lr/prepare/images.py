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

import numpy as np
import torch

from effective_lr.errors import UserError, reason
from effective_lr.prepare.dataset import Prepared, Tensors
from effective_lr.prepare.sources import CIFAR10, FASHION_MNIST, checksums, obtain, own_file

SIZES = {"fashion-mnist": 28, "cifar10": 32, "cifar10-jpeg": 32}  # pixels along one side
SIDES = [(name, size // k) for name, size in SIZES.items() for k in (1, 2)]
UNSEEN = 5_000  # the last training images, by which settings are chosen: mean and deviation of pixels leave them out

# The first images of each class in a public copy of CIFAR-10 as JPEG files, <split>/<class>/<number>.jpg: how many of
# each split, and the sha256 over these files in the order of `_cifar10_jpeg`.
JPEG_ARCHIVE = "cifar10_jpeg.zip"
JPEG_IMAGES = {
    "train": (22_500, "0dbf451f2edc5a7c19bbc284f071ce8ec1bd75b1763c314d1d0f7d0e9aa9c1ca"),
    "test": (5_000, "d9e1b77f998394db1345ff36c1c31f5d79a26e2db69ee72a0fc09cfb10013057"),
}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}


def read(dataset: str, side: int, folder: Path) -> Prepared:
    """Images float32 (N, channels, side, side) and labels int64 (N,), for training and test.

    Images are means over k × k blocks of pixels, k = size / side, divided by 255, and normalized per channel by mean
    and standard deviation (population) over the training images but the last `UNSEEN`. Raises UserError if a file is
    damaged, Missing if no place has it.
    """
    readers = {"fashion-mnist": _fashion_mnist, "cifar10": _cifar10, "cifar10-jpeg": _cifar10_jpeg}
    raw = readers[dataset](folder)
    tensors, mean, std = _normalized(raw.tensors, side)
    return raw._replace(tensors=tensors, facts={"resolution": side, "pixel_mean": mean, "pixel_std": std})


def _normalized(raw: Tensors, side: int) -> tuple[Tensors, list[float], list[float]]:
    """The data with normalized block means; mean and standard deviation of each channel on a scale of 0 to 1."""
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
    return raw | {name: blocks.float().div_(white).sub_(shift).div_(scale) for name, blocks in sums.items()}, mean, std


def _fashion_mnist(folder: Path) -> Prepared:
    raw = {}
    for name, source in FASHION_MNIST.items():
        content, path = obtain(source, folder)
        values = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        raw[name] = values[16:].view(-1, 1, 28, 28) if name.endswith("images") else values[8:].long()  # after a header
    return Prepared(raw, path, checksums(FASHION_MNIST.values()), {})


def _cifar10(folder: Path) -> Prepared:
    content, path = obtain(CIFAR10, folder)
    raw = {}
    with tarfile.open(fileobj=BytesIO(content)) as tar:
        for split, names in CIFAR10_BATCHES.items():
            members = [tar.extractfile(f"cifar-10-batches-py/{name}") for name in names]
            batches = [pickle.load(member, encoding="latin1") for member in members if member]  # of a known sha256
            images = np.concatenate([batch["data"] for batch in batches])
            raw[f"{split}_images"] = torch.from_numpy(images).view(-1, 3, 32, 32)
            raw[f"{split}_labels"] = torch.tensor([label for batch in batches for label in batch["labels"]])
    return Prepared(raw, path, checksums([CIFAR10]), {})


def _cifar10_jpeg(folder: Path) -> Prepared:
    from PIL import Image

    what = "an archive of CIFAR-10's images by class, train/airplane/0000.jpg and so on; or set dataset = cifar10"
    path = own_file(folder, JPEG_ARCHIVE, what)
    raw: Tensors = {}
    for split, (count, expected) in JPEG_IMAGES.items():
        labels = np.arange(count) % len(CLASSES)  # round the classes: any range has equally many of each
        names = [f"{split}/{CLASSES[label]}/{i // len(CLASSES):04}.jpg" for i, label in enumerate(labels)]
        try:
            with zipfile.ZipFile(path) as archive:
                contents = [archive.read(name) for name in names]
            if (found := hashlib.sha256(b"".join(contents)).hexdigest()) != expected:
                raise ValueError(f"their sha256 is {found}, expected {expected}")
        except (KeyError, OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(
                f"{path}: {count} images, {names[0]} to {names[-1]}, are not those of the copy ({reason(error)}): "
                "replace it by an archive whose first images of each class are these, or delete it"
            ) from error
        pixels = np.stack([np.asarray(Image.open(BytesIO(content)).convert("RGB")) for content in contents])
        raw[f"{split}_images"] = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        raw[f"{split}_labels"] = torch.from_numpy(labels)
    sums = {f"{split} images": f"sha256:{sha256}" for split, (_, sha256) in JPEG_IMAGES.items()}
    return Prepared(raw, path, sums, {})
