"""Fashion-MNIST and CIFAR-10, each prepared once per resolution as one file of tensors with a checksum.

`prepare` reads a dataset from the first place that has it, checks every file, averages blocks of pixels,
normalizes, and writes the tensors (`torch.save`) and a small JSON record. The record depends on the content
alone, not on where the data came from or on the machine: it is what a training job names as its input. `load`
checks the tensors against it.
"""

import argparse
import gzip
import hashlib
import json
import math
import os
import socket
import sys
import tarfile
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from effective_lr.config import DATASETS, VALIDATION_SIZE, UserError

# sha256 of the uncompressed files, computed from the Debian package dataset-fashion-mnist
# 0.0~git20200523.55506a9-1. With their original gzip headers (file name and time) restored, its files have
# the md5 that torchvision lists for the publisher's downloads: every source holds these bytes.
FASHION_MNIST = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
DOWNLOAD_TIMEOUT = 10.0  # seconds without an answer

TENSORS = ("train_images", "train_labels", "test_images", "test_labels")
Tensors = dict[str, Tensor]  # by these names: images (N, C, height, width), labels int64 (N,)


@dataclass(frozen=True, eq=False)
class Splits:
    """One prepared dataset: images float32 (N, C, resolution, resolution), labels int64 (N,).

    `sha256` is that of the whole prepared file, and stays with its subsets.
    """

    train_images: Tensor
    train_labels: Tensor
    validation_images: Tensor
    validation_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    sha256: str

    def subset(self, train: int, validation: int, test: int) -> "Splits":
        """The first images of each split, with their labels; UserError where a split has fewer."""
        for split, count, labels in [
            ("train", train, self.train_labels),
            ("validation", validation, self.validation_labels),
            ("test", test, self.test_labels),
        ]:
            if not 1 <= count <= len(labels):
                raise UserError(f"{count} {split} images are asked for; choose from 1 to {len(labels)}")
        return replace(
            self,
            train_images=self.train_images[:train],
            train_labels=self.train_labels[:train],
            validation_images=self.validation_images[:validation],
            validation_labels=self.validation_labels[:validation],
            test_images=self.test_images[:test],
            test_labels=self.test_labels[:test],
        )

    def to(self, device: torch.device | str) -> "Splits":
        """The same data on a device, images in the channels_last memory format."""
        return replace(
            self,
            train_images=self.train_images.to(device, memory_format=torch.channels_last),
            train_labels=self.train_labels.to(device),
            validation_images=self.validation_images.to(device, memory_format=torch.channels_last),
            validation_labels=self.validation_labels.to(device),
            test_images=self.test_images.to(device, memory_format=torch.channels_last),
            test_labels=self.test_labels.to(device),
        )


def load(tensors: Path, record: Path) -> Splits:
    """The splits in a prepared file; UserError if it is unreadable or not the one that the record describes.

    The last `VALIDATION_SIZE` images of the training files are the validation split.
    """
    mend = f"delete {tensors} and {record} and prepare the data again"
    try:
        expected = json.loads(record.read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{record} is not a record with a sha256 ({_reason(error)}): {mend}") from error
    try:
        stored = torch.load(tensors, weights_only=True)
        found = _sha256(stored)
    except Exception as error:  # a damaged file makes torch.load raise nearly anything
        raise UserError(
            f"{tensors} cannot be read as tensors with sha256 {expected} ({_reason(error)}): {mend}"
        ) from error
    if found != expected:
        raise UserError(f"{tensors} has tensors with sha256 {found}, but {record} expects {expected}: {mend}")
    images, labels = stored["train_images"], stored["train_labels"]
    return Splits(
        train_images=images[:-VALIDATION_SIZE],
        train_labels=labels[:-VALIDATION_SIZE],
        validation_images=images[-VALIDATION_SIZE:],
        validation_labels=labels[-VALIDATION_SIZE:],
        test_images=stored["test_images"],
        test_labels=stored["test_labels"],
        sha256=found,
    )


def prepare(dataset: str, resolution: int, folder: Path, tensors: Path, record: Path) -> None:
    """Write the prepared tensors and their record, and print one line that says where the data came from.

    Images are means over k x k blocks of pixels, k = size / resolution, divided by 255, and normalized per
    channel by mean and standard deviation (population) over the training split. The first of these places
    with any file of the dataset is used: `folder`, the Debian package (Fashion-MNIST), torchvision's download
    into `folder`. UserError, and no output, if the resolution does not divide, a file is missing or damaged,
    or no place has the dataset.
    """
    size = DATASETS[dataset].size
    if resolution < 1 or size % resolution:
        divisors = ", ".join(str(r) for r in range(1, size + 1) if size % r == 0)
        raise UserError(
            f"resolution {resolution} does not divide the {size} x {size} pixels of {dataset}: use one of {divisors}"
        )
    read = {"fashion-mnist": _fashion_mnist, "cifar10": _cifar10}[dataset]
    raw, checksums, source = read(folder)
    prepared, mean, std = _normalized(raw, resolution)
    description = {
        "dataset": dataset,
        "resolution": resolution,
        "pixel_mean": mean,
        "pixel_std": std,
        "shapes": {name: list(prepared[name].shape) for name in TENSORS},
        "source_checksums": checksums,
        "sha256": _sha256(prepared),
    }
    text = json.dumps(description, indent=2, sort_keys=True) + "\n"
    _write({tensors: lambda path: torch.save(prepared, path), record: lambda path: path.write_text(text)})
    print(f"{dataset}: prepared at {resolution} x {resolution} from the {source}")


def _normalized(raw: Tensors, resolution: int) -> tuple[Tensors, list[float], list[float]]:
    """Normalized block means, and the mean and standard deviation of each channel on a scale of 0 to 1."""
    # Integer sums are exact: neither the number of threads nor the machine can change a bit of the record.
    sums = {}
    for name in ("train_images", "test_images"):
        n, channels, size, _ = raw[name].shape
        k = size // resolution
        sums[name] = raw[name].reshape(n, channels, resolution, k, resolution, k).sum((3, 5), dtype=torch.int32)
    white = 255 * k * k
    mean, std = [], []
    for channel in sums["train_images"][:-VALIDATION_SIZE].unbind(1):
        values = channel.flatten().long()
        count, total, squares = len(values), int(values.sum()), int(values.dot(values))
        mean.append(total / (count * white))
        std.append(math.sqrt(count * squares - total**2) / (count * white))
    shift, scale = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)
    images = {name: blocks.float().div_(white).sub_(shift).div_(scale) for name, blocks in sums.items()}
    return raw | images, mean, std


# torchvision is imported where it is needed: it takes a second, and training jobs only load.
# Each source gives the raw data (images uint8), the checksum of every file, and what it is in words.


def _fashion_mnist(folder: Path) -> tuple[Tensors, dict[str, str], str]:
    checksums = {name: f"sha256:{sha256}" for name, sha256 in FASHION_MNIST.items()}
    packed = [f"{name}.gz" for name in FASHION_MNIST]
    names = [*FASHION_MNIST, *packed]
    downloaded = folder / "FashionMNIST" / "raw"
    for place in (downloaded, folder / "fashion-mnist", folder):
        if _holds_any(place, names):
            mend = f"put the right file there, or delete all Fashion-MNIST files in {place}"
            return _read_idx(place, mend), checksums, f"local folder {place}"
    if _holds_any(DEBIAN_FOLDER, names):
        mend = f"reinstall the Debian package dataset-fashion-mnist, or put the right files into {folder}"
        return _read_idx(DEBIAN_FOLDER, mend), checksums, f"Debian package in {DEBIAN_FOLDER}"
    from torchvision.datasets import FashionMNIST

    _download(
        FashionMNIST,
        folder,
        f"fashion-mnist is neither in {folder} nor in {DEBIAN_FOLDER}",
        f"install the Debian package dataset-fashion-mnist, or put {', '.join(packed)} into {folder}",
    )
    mend = f"delete {downloaded} and prepare the data again"
    return _read_idx(downloaded, mend), checksums, f"torchvision download in {downloaded}"


def _read_idx(place: Path, mend: str) -> Tensors:
    facts = DATASETS["fashion-mnist"]
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
            raise UserError(f"{path} is missing beside the other Fashion-MNIST files: {mend}") from error
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(
                f"{path} ({path.stat().st_size} bytes) cannot be unpacked to the expected {length} bytes "
                f"({_reason(error)}): {mend}"
            ) from error
        if len(content) != length:
            raise UserError(f"{path} holds {len(content)} bytes of data, expected {length}: {mend}")
        if (found := hashlib.sha256(content).hexdigest()) != expected:
            raise UserError(f"{path} holds data with sha256 {found}, expected {expected}: {mend}")
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
        mend = f"delete {batches}, and put {CIFAR10.filename} into {folder} or let it be downloaded"
        return _read_batches(folder, md5s, batches, mend), checksums, f"{kind} {batches}"
    mend = f"delete {archive}, and put a good copy there or let it be downloaded"
    with TemporaryDirectory() as scratch:
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(scratch, filter="data")
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise UserError(
                f"{archive} ({archive.stat().st_size} bytes) cannot be unpacked ({_reason(error)}): {mend}"
            ) from error
        return _read_batches(Path(scratch), md5s, archive, mend), checksums, f"{kind} {archive}"


def _read_batches(root: Path, md5s: dict[str, str], source: Path, mend: str) -> Tensors:
    from torchvision.datasets import CIFAR10

    # Checked here too, since torchvision's own message names no file.
    for name, expected in md5s.items():
        path = root / CIFAR10.base_folder / name
        if not path.is_file():
            raise UserError(f"{name} is missing in {source}: {mend}")
        if (found := hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()) != expected:
            raise UserError(f"{name} in {source} has md5 {found}, expected {expected}: {mend}")
    raw = {}
    for split in ("train", "test"):
        data = CIFAR10(root, train=split == "train")
        raw[f"{split}_images"] = torch.from_numpy(data.data).permute(0, 3, 1, 2)
        raw[f"{split}_labels"] = torch.tensor(data.targets)
    return raw


def _holds_any(place: Path, names: Collection[str]) -> bool:
    return any((place / name).is_file() for name in names)


def _download(dataset: Callable[..., Any], folder: Path, state: str, mend: str) -> None:
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
        raise UserError(f"{state}, and torchvision could not download it ({_reason(error)}): {mend}") from error
    finally:
        socket.setdefaulttimeout(patience)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _sha256(tensors: Tensors) -> str:
    """Over names, types, shapes and bytes: the format of the file that holds the tensors does not matter."""
    digest = hashlib.sha256()
    for name in TENSORS:
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def _write(files: dict[Path, Callable[[Path], object]]) -> None:
    """Write every file beside its place, then rename them all: each is there whole or not at all."""
    beside = {path: path.with_name(f"{path.name}.part") for path in files}
    try:
        for path, write in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write(beside[path])
        for path in files:
            os.replace(beside[path], path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        raise UserError(f"{path} cannot be written ({_reason(error)}): make room or name another place") from error
    finally:
        for part in beside.values():
            part.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> int:
    """The command line: `python -m effective_lr.data --help`. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Prepare one dataset at one resolution.")
    parser.add_argument("--dataset", required=True, choices=sorted(DATASETS))
    parser.add_argument("--resolution", required=True, type=int, help="pixels along each side, a divisor of the size")
    parser.add_argument("--folder", required=True, type=Path, help="where your own copy is, and a download goes")
    parser.add_argument("--tensors", required=True, type=Path, help="output: the tensors")
    parser.add_argument("--record", required=True, type=Path, help="output: the record, JSON")
    try:
        prepare(**vars(parser.parse_args(arguments)))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
