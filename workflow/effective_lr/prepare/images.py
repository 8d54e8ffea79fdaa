"""Fashion-MNIST and CIFAR-10: checked files become block means of pixels, normalized per channel.

CIFAR-10 has two forms: `cifar10` is the official files, `cifar10-jpeg` a lossy copy, for those who have only that. They
are two datasets, and no run on one can be taken for a run on the other.
"""

import gzip
import hashlib
import math
import os
import pickle
import socket
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

from effective_lr.errors import UserError, reason
from effective_lr.prepare.dataset import FOLDER_VARIABLE, Missing, Prepared, Tensors, local_file


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

# sha256 of the uncompressed files, computed from the Debian package dataset-fashion-mnist
# 0.0~git20200523.55506a9-1. With their original gzip headers (file name and time) restored, its files have
# the md5 that torchvision lists for the publisher's downloads: every source holds these bytes.
FASHION_MNIST = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}

# The first images of each class in a public copy of CIFAR-10 as JPEG files, <split>/<class>/<number>.jpg; sha256 over
# the files of a split, in the order of `_jpeg_names`.
JPEG_ARCHIVE = "cifar10_jpeg.zip"
JPEG_SHA256 = {
    "train": "0dbf451f2edc5a7c19bbc284f071ce8ec1bd75b1763c314d1d0f7d0e9aa9c1ca",
    "test": "d9e1b77f998394db1345ff36c1c31f5d79a26e2db69ee72a0fc09cfb10013057",
}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
DOWNLOAD_TIMEOUT = 10.0  # seconds without an answer

TENSORS = ("train_images", "train_labels", "test_images", "test_labels")


def read(dataset: str, side: int, folder: Path) -> Prepared:
    """Images float32 (N, channels, side, side) and labels int64 (N,), for training and test.

    Images are means over k × k blocks of pixels, k = size / side, divided by 255, and normalized per channel by mean
    and standard deviation (population) over the training images but the last `UNSEEN`. The first of these places with
    any file of the dataset is used: `folder`, the Debian package (Fashion-MNIST), torchvision's download into `folder`;
    for the JPEG copy `folder` and the folder of `FOLDER_VARIABLE`.
    Raises UserError if a file is missing or damaged, or no place has the dataset.
    """
    readers = {"fashion-mnist": _fashion_mnist, "cifar10": _cifar10, "cifar10-jpeg": _cifar10_jpeg}
    raw, checksums, source = readers[dataset](folder)
    tensors, mean, std = _normalized(raw, side)
    facts = {"resolution": side, "pixel_mean": mean, "pixel_std": std, "source_checksums": checksums}
    return Prepared(tensors, facts, source)


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


# torchvision is imported where it is needed: it takes a second, and training jobs only load.
# Each source gives the raw data (images uint8), the checksum of every file, and what it is in words.


def own_places(folder: Path) -> tuple[Path, ...]:
    """Where a person, or a download, may have put Fashion-MNIST."""
    return folder / "FashionMNIST" / "raw", folder / "fashion-mnist", folder


def _fashion_mnist(folder: Path) -> tuple[Tensors, dict[str, str], str]:
    checksums = {name: f"sha256:{sha256}" for name, sha256 in FASHION_MNIST.items()}
    packed = [f"{name}.gz" for name in FASHION_MNIST]
    names = [*FASHION_MNIST, *packed]
    downloaded = folder / "FashionMNIST" / "raw"
    for place in own_places(folder):
        if _holds_any(place, names):
            remedy = f"put the right file there, or delete all Fashion-MNIST files in {place}"
            return _read_idx(place, remedy), checksums, f"local folder {place}"
    if _holds_any(DEBIAN_FOLDER, names):
        remedy = f"reinstall the Debian package dataset-fashion-mnist, or put the right files into {folder}"
        return _read_idx(DEBIAN_FOLDER, remedy), checksums, f"Debian package in {DEBIAN_FOLDER}"
    from torchvision.datasets import FashionMNIST

    _download(
        FashionMNIST,
        folder,
        f"fashion-mnist is neither in {folder} nor in {DEBIAN_FOLDER}",
        f"install the Debian package dataset-fashion-mnist, or put {', '.join(packed)} into {folder}",
    )
    remedy = f"delete {downloaded} and prepare the data again"
    return _read_idx(downloaded, remedy), checksums, f"torchvision download in {downloaded}"


def _read_idx(place: Path, remedy: str) -> Tensors:
    facts = FACTS["fashion-mnist"]
    image = (facts.channels, facts.size, facts.size)
    shapes = ((facts.train, *image), (facts.train,), (facts.test, *image), (facts.test,))
    raw = {}
    for key, (name, expected), shape in zip(TENSORS, FASHION_MNIST.items(), shapes, strict=True):
        plain = place / name
        path = plain if plain.is_file() else place / f"{name}.gz"
        header = 16 if len(shape) > 1 else 8
        length = header + math.prod(shape)
        try:
            content = path.read_bytes()
            if path != plain:
                content = gzip.decompress(content)
        except FileNotFoundError as error:
            raise UserError(f"{path} is missing beside the other Fashion-MNIST files: {remedy}") from error
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(
                f"{path} ({path.stat().st_size} bytes) cannot be unpacked to the expected {length} bytes "
                f"({reason(error)}): {remedy}"
            ) from error
        if len(content) != length:
            raise UserError(f"{path} holds {len(content)} bytes of data, expected {length}: {remedy}")
        if (found := hashlib.sha256(content).hexdigest()) != expected:
            raise UserError(f"{path} holds data with sha256 {found}, expected {expected}: {remedy}")
        values = torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).view(shape)
        raw[key] = values if len(shape) > 1 else values.long()
    return raw


def _cifar10(folder: Path) -> tuple[Tensors, dict[str, str], str]:
    from torchvision.datasets import CIFAR10

    md5s = dict([*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])])
    checksums = {name: f"md5:{md5}" for name, md5 in md5s.items()}
    batches, archive = folder / CIFAR10.base_folder, folder / CIFAR10.filename
    kind = "local folder"
    if not archive.is_file() and not _holds_any(batches, md5s):
        _download(CIFAR10, folder, f"cifar10 is not in {folder}", f"put {CIFAR10.filename} into {folder}")
        kind = "torchvision download"
    if _holds_any(batches, md5s):
        remedy = f"delete {batches}, and put {CIFAR10.filename} into {folder} or let it be downloaded"
        for name in md5s:
            if not (batches / name).is_file():
                raise UserError(f"{name} is missing in {batches}: {remedy}")
        contents = {name: (batches / name).read_bytes() for name in md5s}
        return _batches(contents, md5s, batches, remedy), checksums, f"{kind} {batches}"
    remedy = f"delete {archive}, and put a good copy there or let it be downloaded"
    contents = {}
    try:
        with tarfile.open(archive) as tar:
            for name in md5s:  # nothing is extracted: the known members are read by their names
                member = tar.extractfile(f"{CIFAR10.base_folder}/{name}")
                contents[name] = member.read() if member else b""
    except KeyError as error:
        raise UserError(f"{name} is missing in {archive}: {remedy}") from error
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{archive} ({archive.stat().st_size} bytes) cannot be unpacked ({reason(error)}): {remedy}"
        ) from error
    return _batches(contents, md5s, archive, remedy), checksums, f"{kind} {archive}"


def _batches(contents: dict[str, bytes], md5s: dict[str, str], source: Path, remedy: str) -> Tensors:
    """Images uint8 and labels from the content of the official files, whose md5 torchvision lists."""
    from torchvision.datasets import CIFAR10

    for name, expected in md5s.items():
        if (found := hashlib.md5(contents[name], usedforsecurity=False).hexdigest()) != expected:
            raise UserError(f"{name} in {source} has md5 {found}, expected {expected}: {remedy}")
    raw: Tensors = {}
    facts = FACTS["cifar10"]
    for split, names in [("train", CIFAR10.train_list), ("test", CIFAR10.test_list)]:
        batches = [pickle.loads(contents[name], encoding="latin1") for name, _ in names]  # checked by md5 just before
        images = [torch.frombuffer(bytearray(batch["data"]), dtype=torch.uint8) for batch in batches]
        raw[f"{split}_images"] = torch.cat(images).view(-1, facts.channels, facts.size, facts.size)
        raw[f"{split}_labels"] = torch.tensor([label for batch in batches for label in batch["labels"]])
    return raw


def _cifar10_jpeg(folder: Path) -> tuple[Tensors, dict[str, str], str]:
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
        found, expected = hashlib.sha256(b"".join(contents)).hexdigest(), JPEG_SHA256[split]
        if found != expected:
            raise UserError(
                f"{path}: {len(names)} images, {names[0]} to {names[-1]}, have sha256 {found}, expected {expected}: "
                f"{remedy}"
            )
        pixels = np.stack([_decoded(content) for content in contents])
        raw[f"{split}_images"] = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        raw[f"{split}_labels"] = torch.arange(count) % len(CLASSES)
    checksums = {f"{split} images": f"sha256:{sha256}" for split, sha256 in JPEG_SHA256.items()}
    return raw, checksums, f"local file {path}"


def _jpeg_names(split: str, count: int) -> list[str]:
    """The images in an order that goes round the classes, so that any range of it has equally many of each."""
    return [f"{split}/{CLASSES[i % len(CLASSES)]}/{i // len(CLASSES):04}.jpg" for i in range(count)]


def _decoded(content: bytes) -> np.ndarray:
    """uint8 (32, 32, 3)."""
    from PIL import Image

    with Image.open(BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def _holds_any(place: Path, names: Collection[str]) -> bool:
    return any((place / name).is_file() for name in names)


def _download(dataset: Callable[..., Any], folder: Path, state: str, remedy: str) -> None:
    """Let torchvision download into `folder`; files appear there only after all of them were checked."""
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder) as scratch:
            dataset(scratch, download=True)
            for file in [path for path in Path(scratch).rglob("*") if path.is_file()]:
                target = folder / file.relative_to(scratch)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
    except (OSError, RuntimeError, HTTPException) as error:
        raise UserError(f"{state}, and torchvision could not download it ({reason(error)}): {remedy}") from error
    finally:
        socket.setdefaulttimeout(patience)
