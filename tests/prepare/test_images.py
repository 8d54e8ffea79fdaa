"""The prepared data: the right numbers from every source, and a clear sentence where a source is wrong."""

import gzip
import hashlib
import json
import pickle
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from effective_lr.__main__ import main
from effective_lr.errors import UserError
from effective_lr.prepare import catalog, dataset, images, sources
from effective_lr.prepare.images import FACTS
from effective_lr.prepare.sources import FOLDER_VARIABLE, Missing, Source
from effective_lr.studies.normalization.settings import DATASETS, VALIDATION_SIZE
from shared import ROOT

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
NAMES = tuple(source.path.removesuffix(".gz") for source in images.FASHION_MNIST.values())
TRAIN, TEST, UNSEEN = 60, 20, 25  # of the small files that the tests write


class Outputs:
    """Where a preparation writes, and what it wrote last."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tensors, self.record_file = folder, folder / "x.pt", folder / "x.json"
        self.source = ""

    def prepare(self, name: str, folder: Path) -> dict[str, Tensor]:
        self.source = catalog.prepare(name, folder, self.tensors, self.record_file)
        return dataset.load(self.tensors, self.record_file)

    @property
    def record(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.record_file.read_text())
        return content

    def refusal(self, name: str, folder: Path) -> str:
        """The message of a preparation that must fail and write nothing."""
        before = {path: path.read_bytes() for path in self.folder.glob("*")}
        with pytest.raises(UserError) as error:
            self.prepare(name, folder)
        assert {path: path.read_bytes() for path in self.folder.glob("*")} == before
        assert "\n" not in str(error.value)
        return str(error.value)


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    return Outputs(tmp_path / "prepared")


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """The data folder of the user."""
    return tmp_path / "user"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Datasets of a few images, no Debian package, no internet."""
    monkeypatch.setattr(images, "UNSEEN", UNSEEN)
    for name in FACTS:
        monkeypatch.setitem(FACTS, name, FACTS[name]._replace(train=TRAIN, test=TEST))
    monkeypatch.setattr(sources, "DEBIAN_FOLDER", tmp_path / "debian")
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)

    def offline(source: Source) -> bytes:
        raise URLError("Name or service not known")

    monkeypatch.setattr(sources, "download", offline)


@pytest.fixture
def fashion(small: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Small uncompressed files by name, whose checksums the module expects."""
    rng = np.random.default_rng(1)
    files = {}
    for name in NAMES:
        n = TRAIN if name.startswith("train") else TEST
        shape, top = ((n, 28, 28), 256) if "images" in name else ((n,), 10)
        array = rng.integers(top, size=shape, dtype=np.uint8)
        files[name] = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()
    known = {
        key: replace(source, sha256=hashlib.sha256(files[name]).hexdigest())
        for (key, source), name in zip(images.FASHION_MNIST.items(), NAMES, strict=True)
    }
    monkeypatch.setattr(images, "FASHION_MNIST", known)
    return files


def put(files: dict[str, bytes], folder: Path, level: int | None = 9) -> Path:
    """Write the files into a folder, gzipped unless the level is None."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if level is None:
            (folder / name).write_bytes(content)
        else:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, level))
    return folder


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="the Debian package dataset-fashion-mnist is missing")
def test_real_pixels_are_block_means_normalized_on_the_training_split(outputs: Outputs, user: Path) -> None:
    def raw(name: str, header: int) -> Tensor:
        content = gzip.decompress((DEBIAN / f"{name}.gz").read_bytes())
        return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header)

    tensors = outputs.prepare("fashion-mnist-14", user)
    facts = DATASETS["fashion-mnist"]
    assert tensors["train_images"].shape == (facts.train, facts.channels, 14, 14)
    assert tensors["test_images"].shape == (facts.test, facts.channels, 14, 14)
    assert tensors["train_images"].dtype == torch.float32
    assert torch.equal(tensors["train_labels"], raw("train-labels-idx1-ubyte", 8).long())
    assert torch.equal(tensors["test_labels"], raw("t10k-labels-idx1-ubyte", 8).long())
    found = tensors["train_images"].double()
    assert found[:-VALIDATION_SIZE].mean().item() == pytest.approx(0, abs=1e-6)
    assert found[:-VALIDATION_SIZE].std(correction=0).item() == pytest.approx(1, abs=1e-6)
    # The validation split must not be part of it: with it, the mean moves by more than the tolerance above.
    assert abs(found.mean().item()) > 1e-4
    record = outputs.record
    pixels = raw("train-images-idx3-ubyte", 16).view(60_000, 1, 28, 28)
    for start in (0, 55_000):
        means = avg_pool2d(pixels[start : start + 500].double() / 255, 2)
        expected = (means - record["pixel_mean"][0]) / record["pixel_std"][0]
        torch.testing.assert_close(found[start : start + 500], expected, rtol=0, atol=1e-6)


def test_every_place_compression_and_number_of_threads_gives_the_same_record(
    fashion: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = set()
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "second"))
    threads = torch.get_num_threads()
    for number, (place, level) in enumerate([("user", None), ("user", 9), ("second", 1), ("debian", 9)]):
        put(fashion, tmp_path / place, level)
        outputs = Outputs(tmp_path / f"prepared{number}")
        torch.set_num_threads(1 + number % 2)
        outputs.prepare("fashion-mnist-14", tmp_path / "user")
        records.add(outputs.record_file.read_bytes())
        assert f"fashion-mnist-14: prepared from {tmp_path / place}" in outputs.source
        shutil.rmtree(tmp_path / place)
    torch.set_num_threads(threads)
    assert len(records) == 1
    assert str(tmp_path) not in records.pop().decode()


def test_a_local_file_goes_before_another_place_even_when_damaged_and_is_named(
    fashion: dict[str, bytes], user: Path, outputs: Outputs
) -> None:
    put(fashion, sources.DEBIAN_FOLDER)
    for name, source in zip(NAMES, images.FASHION_MNIST.values(), strict=True):
        put({name: fashion[name]}, user, None)
        outputs.prepare("fashion-mnist-28", user)
        flip(user / name, -1)
        found = hashlib.sha256((user / name).read_bytes()).hexdigest()
        message = outputs.refusal("fashion-mnist-28", user)
        assert all(part in message for part in (str(user / name), found, source.sha256, "delete")), message
        (user / name).unlink()
    first = put({NAMES[0]: fashion[NAMES[0]]}, user) / f"{NAMES[0]}.gz"
    whole = first.read_bytes()
    for damaged in (whole[:-6] + b"123456", whole[:1000]):  # its checksum; what it unpacks to
        first.write_bytes(damaged)
        assert outputs.refusal("fashion-mnist-28", user).startswith(f"{first}: {len(damaged)} bytes with sha256 ")


def test_a_download_is_checked_kept_in_the_folder_and_local_from_then_on(
    fashion: dict[str, bytes], user: Path, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{name}.gz": gzip.compress(content) for name, content in fashion.items()}
    monkeypatch.setattr(sources, "download", lambda source: files[source.path])
    outputs.prepare("fashion-mnist-14", user)
    first = outputs.record
    assert {path.name: path.read_bytes() for path in user.iterdir()} == files
    monkeypatch.setattr(sources, "download", lambda source: b"another file")
    outputs.prepare("fashion-mnist-14", user)
    assert outputs.record == first
    message = outputs.refusal("fashion-mnist-14", user / "empty")
    assert "http://" in message and "the download: 12 bytes" in message and not (user / "empty").exists()


def test_an_unknown_dataset_is_refused_with_those_that_exist(user: Path, outputs: Outputs) -> None:
    message = outputs.refusal("fashion-mnist-10", user)
    assert "fashion-mnist-10" in message and all(name in message for name in catalog.READERS)


def test_facts_of_the_files_are_those_that_the_study_knows() -> None:
    assert {name: tuple(facts) for name, facts in FACTS.items()} == {k: tuple(v) for k, v in DATASETS.items()}
    assert images.UNSEEN == VALIDATION_SIZE


@pytest.fixture
def cifar(small: None, monkeypatch: pytest.MonkeyPatch, user: Path) -> tuple[Tensor, Tensor]:
    """The training images and labels of the archive in the folder of the user, which has a member that leads elsewhere.

    The keys are text: Python 2 wrote the real ones as bytes, which are decoded while they are unpickled.
    """
    user.mkdir()
    rng = np.random.default_rng(2)
    drawn, labels = [], []
    with tarfile.open(user / images.CIFAR10.path, "w:gz") as tar:
        for name, n in [*((f"data_batch_{i}", TRAIN // 5) for i in range(1, 6)), ("test_batch", TEST)]:
            drawn.append(rng.integers(256, size=(n, 3072), dtype=np.uint8))
            labels.append(rng.integers(10, size=n).tolist())
            content = pickle.dumps({"data": drawn[-1], "labels": labels[-1]}, protocol=2)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
        tar.addfile(tarfile.TarInfo("../outside"))
    digest = hashlib.sha256((user / images.CIFAR10.path).read_bytes()).hexdigest()
    monkeypatch.setattr(images, "CIFAR10", replace(images.CIFAR10, sha256=digest))
    pixels = torch.from_numpy(np.concatenate(drawn[:5])).view(TRAIN, 3, 32, 32)
    return pixels, torch.tensor([label for batch in labels[:5] for label in batch])


def test_cifar10_values(cifar: tuple[Tensor, Tensor], user: Path, outputs: Outputs) -> None:
    pixels, labels = cifar
    tensors, record = outputs.prepare("cifar10-16", user), outputs.record
    n = TRAIN - UNSEEN
    assert tensors["test_images"].shape == (TEST, 3, 16, 16)
    assert torch.equal(tensors["train_labels"], labels)
    means = avg_pool2d(pixels.double() / 255, 2)
    mean = means[:n].mean((0, 2, 3))
    std = means[:n].std((0, 2, 3), correction=0)
    assert record["pixel_mean"] == pytest.approx(mean.tolist(), abs=1e-14)
    assert record["pixel_std"] == pytest.approx(std.tolist(), abs=1e-14)
    assert record["dataset"] == "cifar10-16"
    assert record["source_checksums"] == {images.CIFAR10.path: f"sha256:{images.CIFAR10.sha256}"}
    expected = (means - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
    torch.testing.assert_close(tensors["train_images"].double(), expected, rtol=0, atol=1e-5)
    assert not (user.parent / "outside").exists() and len(list(user.iterdir())) == 1  # nothing is extracted


def jpeg(shade: int) -> bytes:
    """An image of one shade of grey, which JPEG keeps exactly."""
    file = BytesIO()
    Image.new("RGB", (32, 32), (shade, shade, shade)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def copy(small: None, monkeypatch: pytest.MonkeyPatch, user: Path) -> Path:
    """The archive, class by class as people pack it. The shade of an image is its number plus 20 times its class."""
    user.mkdir(exist_ok=True)
    with zipfile.ZipFile(user / images.JPEG_ARCHIVE, "w") as archive:
        for split, count in [("train", TRAIN // 10), ("test", TEST // 10)]:
            files = {(number, kind): jpeg(20 * kind + number) for number in range(count) for kind in range(10)}
            for number, kind in sorted(files, key=lambda place: place[::-1]):
                archive.writestr(f"{split}/{images.CLASSES[kind]}/{number:04}.jpg", files[number, kind])
            monkeypatch.setitem(images.JPEG_SHA256, split, hashlib.sha256(b"".join(files.values())).hexdigest())
    return user / images.JPEG_ARCHIVE


def test_jpeg_copy_goes_round_the_classes_and_is_found_in_the_second_folder(
    copy: Path, user: Path, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = outputs.refusal("cifar10-jpeg-16", user / "empty")
    assert all(text in message for text in (images.JPEG_ARCHIVE, f"{user / 'empty'}", FOLDER_VARIABLE))
    monkeypatch.setenv(FOLDER_VARIABLE, str(user))
    tensors, record = outputs.prepare("cifar10-jpeg-16", user / "empty"), outputs.record
    assert tensors["train_images"].shape == (TRAIN, 3, 16, 16)
    assert tensors["train_labels"].tolist() == [i % 10 for i in range(TRAIN)]
    assert tensors["test_labels"].tolist() == [i % 10 for i in range(TEST)]
    shades = tensors["test_images"][:, 0, 0, 0] * record["pixel_std"][0] + record["pixel_mean"][0]
    assert (255 * shades).round().tolist() == [20 * (i % 10) + i // 10 for i in range(TEST)]


def test_damaged_jpeg_copy_is_refused(copy: Path, user: Path, outputs: Outputs) -> None:
    whole = copy.read_bytes()
    with zipfile.ZipFile(copy) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}

    def refusal(changes: dict[str, bytes]) -> str:
        with zipfile.ZipFile(copy, "w") as archive:
            for name, content in (contents | changes).items():
                if content:
                    archive.writestr(name, content)
        return outputs.refusal("cifar10-jpeg-16", user)

    exchanged = {"test/cat/0000.jpg": contents["test/dog/0000.jpg"], "test/dog/0000.jpg": contents["test/cat/0000.jpg"]}
    assert re.search(rf"{copy}: .* sha256 [0-9a-f]{{64}}, expected {images.JPEG_SHA256['test']}", refusal(exchanged))
    assert "train/truck/0005.jpg" in refusal({"train/truck/0005.jpg": b""})
    copy.write_bytes(whole[: len(whole) // 2])
    assert str(copy) in outputs.refusal("cifar10-jpeg-16", user)


JPEG_COPY = sources.local_file(ROOT / "data", images.JPEG_ARCHIVE)


@pytest.mark.slow
@pytest.mark.skipif(JPEG_COPY is None, reason=f"no folder of data has {images.JPEG_ARCHIVE}")
def test_real_jpeg_copy(outputs: Outputs) -> None:
    tensors = outputs.prepare("cifar10-jpeg-16", ROOT / "data")
    facts = DATASETS["cifar10-jpeg"]
    assert tensors["train_images"].shape == (facts.train, 3, 16, 16)
    assert torch.bincount(tensors["test_labels"]).tolist() == 10 * [facts.test // 10]
    mean = torch.tensor(outputs.record["pixel_mean"])
    torch.testing.assert_close(mean, torch.tensor([0.491, 0.482, 0.447]), rtol=0, atol=0.01)  # those of CIFAR-10


def test_load_refuses_other_tensors_and_a_broken_record(
    fashion: dict[str, bytes], user: Path, outputs: Outputs
) -> None:
    put(fashion, user)
    damages: list[Callable[[Path], object]] = [
        lambda path: path.write_bytes(path.read_bytes()[:2000]),
        lambda path: flip(path, path.stat().st_size // 2),
        lambda path: path.unlink(),
        lambda path: torch.save({"images": torch.zeros(1)}, path),
        lambda path: torch.save({name: tensor.flatten() for name, tensor in torch.load(path).items()}, path),
    ]
    for damage in damages:
        expected = dataset.sha256(outputs.prepare("fashion-mnist-14", user))
        damage(outputs.tensors)
        with pytest.raises(UserError, match=f"^{outputs.tensors}") as error:
            dataset.load(outputs.tensors, outputs.record_file)
        assert all(part in str(error.value) for part in (expected, str(outputs.record_file), "delete"))
    for text in ("", "[]", "{}", None):
        outputs.record_file.unlink()
        if text is not None:
            outputs.record_file.write_text(text)
        with pytest.raises(UserError, match=r"x\.json.*sha256"):
            dataset.load(outputs.tensors, outputs.record_file)
        outputs.record_file.touch()


def test_optional_data_that_cannot_be_had_leaves_a_record_of_the_reason(
    outputs: Outputs, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(folder: Path) -> dataset.Prepared:
        raise Missing("put cars.csv there")

    monkeypatch.setitem(catalog.READERS, "cars", nowhere)
    assert "cars.csv" in outputs.refusal("cars", user)
    text = catalog.prepare("cars", user, outputs.tensors, outputs.record_file, is_optional=True)
    assert "cars.csv" in text and outputs.record["missing"] == "put cars.csv there"
    assert dataset.load(outputs.tensors, outputs.record_file) == {}


def test_full_disk_leaves_nothing(
    fashion: dict[str, bytes], user: Path, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_text(self: Path, text: str, encoding: str) -> None:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", write_text)
    message = outputs.refusal("fashion-mnist-14", put(fashion, user))
    assert re.search(r"x\.json: cannot be written \(.*No space left on device\)", message)
    assert list(outputs.folder.iterdir()) == []


def test_command_line(
    fashion: dict[str, bytes], user: Path, outputs: Outputs, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prepare", "--name", "fashion-mnist-14", "--folder", str(user)]
    words += ["--tensors", str(outputs.tensors), "--record", str(outputs.record_file)]
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert out == "" and str(user) in err and err.count("\n") == 1 and not outputs.folder.exists()
    put(fashion, user)
    assert main(words) == 0
    assert f"prepared from {user}" in capsys.readouterr().out
    assert outputs.record["shapes"]["test_images"] == [TEST, 1, 14, 14]
    assert sorted(path.name for path in outputs.folder.iterdir()) == ["x.json", "x.pt"]
