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

from effective_lr.errors import UserError
from effective_lr.prepare import catalog, dataset, images, sources
from effective_lr.prepare.sources import FASHION_MNIST, FOLDER_VARIABLE, Missing, Source
from effective_lr.studies.normalization.settings import DATASETS, VALIDATION_SIZE
from shared import ROOT

DEBIAN = sources.DEBIAN_FOLDER
TRAIN, TEST, UNSEEN = 60, 20, 25  # of the small files that the tests write


def prepare(name: str, folder: Path, out: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the record that a preparation wrote."""
    catalog.prepare(name, folder, out / "x.pt", out / "x.json")
    return dataset.load(out / "x.pt", out / "x.json"), json.loads((out / "x.json").read_text())


def refusal(name: str, folder: Path, out: Path) -> str:
    """The message of a preparation that must fail and write nothing."""
    before = {path: path.read_bytes() for path in out.glob("*")}
    with pytest.raises(UserError) as error:
        prepare(name, folder, out)
    assert {path: path.read_bytes() for path in out.glob("*")} == before
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where a preparation writes."""
    return tmp_path / "prepared"


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """The data folder of the user."""
    (tmp_path / "user").mkdir()
    return tmp_path / "user"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Datasets of a few images, no Debian package, no internet."""

    def offline(source: Source) -> bytes:
        raise URLError("Name or service not known")

    monkeypatch.setattr(images, "UNSEEN", UNSEEN)
    monkeypatch.setattr(sources, "DEBIAN_FOLDER", tmp_path / "debian")
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(sources, "download", offline)


@pytest.fixture
def fashion(small: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Small unpacked files by the names of packed ones, whose checksums the module expects."""
    rng, files = np.random.default_rng(1), {}
    for name, source in FASHION_MNIST.items():
        n = TRAIN if name.startswith("train") else TEST
        shape, top = ((n, 28, 28), 256) if "images" in name else ((n,), 10)
        array = rng.integers(top, size=shape, dtype=np.uint8)
        content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()
        monkeypatch.setitem(FASHION_MNIST, name, replace(source, sha256=hashlib.sha256(content).hexdigest()))
        files[source.path] = content
    return files


def put(files: dict[str, bytes], folder: Path, level: int | None = 9) -> Path:
    """Write the files into a folder, gzipped unless the level is None."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if level is None:
            (folder / name.removesuffix(".gz")).write_bytes(content)
        else:
            (folder / name).write_bytes(gzip.compress(content, level))
    return folder


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="the Debian package dataset-fashion-mnist is missing")
def test_real_pixels_are_block_means_normalized_on_the_training_split(out: Path, user: Path) -> None:
    def raw(name: str, header: int) -> Tensor:
        content = gzip.decompress((DEBIAN / FASHION_MNIST[name].path).read_bytes())
        return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header)

    tensors, record = prepare("fashion-mnist-14", user, out)
    facts = DATASETS["fashion-mnist"]
    for split, count in (("train", facts.train), ("test", facts.test)):
        assert tensors[f"{split}_images"].shape == (count, facts.channels, 14, 14)
        assert torch.equal(tensors[f"{split}_labels"], raw(f"{split}_labels", 8).long())
    found = tensors["train_images"].double()
    assert found[:-VALIDATION_SIZE].mean().item() == pytest.approx(0, abs=1e-6)
    assert found[:-VALIDATION_SIZE].std(correction=0).item() == pytest.approx(1, abs=1e-6)
    # The validation split must not be part of it: with it, the mean moves by more than the tolerance above.
    assert abs(found.mean().item()) > 1e-4
    pixels = raw("train_images", 16).view(60_000, 1, 28, 28)
    for start in (0, 55_000):
        means = avg_pool2d(pixels[start : start + 500].double() / 255, 2)
        expected = (means - record["pixel_mean"][0]) / record["pixel_std"][0]
        torch.testing.assert_close(found[start : start + 500], expected, rtol=0, atol=1e-6)


def test_every_place_compression_and_number_of_threads_gives_the_same_record(
    fashion: dict[str, bytes], user: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = set()
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "second"))
    threads = torch.get_num_threads()
    for number, (place, level) in enumerate([("user", None), ("user", 9), ("second", 1), ("debian", 9)]):
        put(fashion, tmp_path / place, level)
        torch.set_num_threads(1 + number % 2)
        text = catalog.prepare("fashion-mnist-14", user, out / "x.pt", out / "x.json")
        records.add((out / "x.json").read_bytes())
        assert f"fashion-mnist-14: prepared from {tmp_path / place}" in text
        shutil.rmtree(tmp_path / place)
    torch.set_num_threads(threads)
    assert len(records) == 1
    assert str(tmp_path) not in records.pop().decode()


def test_a_local_file_goes_before_another_place_even_when_damaged_and_is_named(
    fashion: dict[str, bytes], user: Path, out: Path
) -> None:
    put(fashion, sources.DEBIAN_FOLDER)
    for name, source in zip(fashion, FASHION_MNIST.values(), strict=True):
        path = put({name: fashion[name]}, user) / name
        whole = path.read_bytes()
        other = gzip.compress(fashion[name][:-1] + b"?")
        for damaged in (other, whole[:-6] + b"123456", whole[:-10]):  # content; its checksum; cut off
            path.write_bytes(damaged)
            message = refusal("fashion-mnist-28", user, out)
            assert message.startswith(f"{path}: {len(damaged)} bytes with sha256 "), message
            assert source.sha256 in message and "delete" in message
        path.unlink()


def test_a_download_is_checked_kept_in_the_folder_and_local_from_then_on(
    fashion: dict[str, bytes], user: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name: gzip.compress(content) for name, content in fashion.items()}
    monkeypatch.setattr(sources, "download", lambda source: files[source.path])
    first = prepare("fashion-mnist-14", user, out)[1]
    assert {path.name: path.read_bytes() for path in user.iterdir()} == files
    monkeypatch.setattr(sources, "download", lambda source: b"another file")
    assert prepare("fashion-mnist-14", user, out)[1] == first
    message = refusal("fashion-mnist-14", user / "empty", out)
    assert "http://" in message and "the download: 12 bytes" in message and not (user / "empty").exists()


def test_an_unknown_dataset_and_one_that_is_nowhere_are_refused(small: None, user: Path, out: Path) -> None:
    assert all(name in refusal("fashion-mnist-10", user, out) for name in catalog.READERS)
    message = refusal("fashion-mnist-14", user, out)
    assert all(text in message for text in (str(user), FOLDER_VARIABLE, "http://", "service not known", "put the file"))


def test_sizes_are_those_that_the_study_knows() -> None:
    assert {name: facts.size for name, facts in DATASETS.items()} == images.SIZES
    counts = {split: count for split, (count, _) in images.JPEG_IMAGES.items()}
    assert counts == {"train": DATASETS["cifar10-jpeg"].train, "test": DATASETS["cifar10-jpeg"].test}
    assert images.UNSEEN == VALIDATION_SIZE


def test_cifar10_values(small: None, monkeypatch: pytest.MonkeyPatch, user: Path, out: Path) -> None:
    """The keys are text: Python 2 wrote the real ones as bytes, which are decoded while they are unpickled."""
    rng, archive = np.random.default_rng(2), user / images.CIFAR10.path
    data, labels = rng.integers(256, size=(TRAIN + TEST, 3072), dtype=np.uint8), rng.integers(10, size=TRAIN + TEST)
    with tarfile.open(archive, "w:gz") as tar:
        names = [f"data_batch_{i // 12 + 1}" for i in range(0, TRAIN, 12)] + ["test_batch"]
        for name, chosen in zip(names, np.split(np.arange(TRAIN + TEST), range(12, TRAIN + 1, 12)), strict=True):
            content = pickle.dumps({"data": data[chosen], "labels": labels[chosen].tolist()}, protocol=2)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
        tar.addfile(tarfile.TarInfo("../outside"))
    known = replace(images.CIFAR10, sha256=hashlib.sha256(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(images, "CIFAR10", known)

    tensors, record = prepare("cifar10-16", user, out)
    assert tensors["train_labels"].tolist() + tensors["test_labels"].tolist() == labels.tolist()
    means = avg_pool2d(torch.from_numpy(data).view(-1, 3, 32, 32).double() / 255, 2)
    mean = means[: TRAIN - UNSEEN].mean((0, 2, 3))
    std = means[: TRAIN - UNSEEN].std((0, 2, 3), correction=0)
    assert record["pixel_mean"] == pytest.approx(mean.tolist(), abs=1e-14)
    assert record["pixel_std"] == pytest.approx(std.tolist(), abs=1e-14)
    assert record["source_checksums"] == {known.path: f"sha256:{known.sha256}"}
    found = torch.cat([tensors["train_images"], tensors["test_images"]]).double()
    expected = (means - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert list(user.parent.rglob("outside")) == [] and list(user.iterdir()) == [archive]  # nothing is extracted


@pytest.fixture
def copy(small: None, monkeypatch: pytest.MonkeyPatch, user: Path) -> dict[str, bytes]:
    """The archive, class by class as people pack it. The shade of grey of an image, which JPEG keeps exactly, is its
    number plus 20 times its class."""
    contents = {}
    for split, count in (("train", TRAIN), ("test", TEST)):
        files = {}
        for i in range(count):
            file = BytesIO()
            Image.new("RGB", (32, 32), (20 * (i % 10) + i // 10,) * 3).save(file, "JPEG")
            files[f"{split}/{images.CLASSES[i % 10]}/{i // 10:04}.jpg"] = file.getvalue()
        contents |= files
        monkeypatch.setitem(images.JPEG_IMAGES, split, (count, hashlib.sha256(b"".join(files.values())).hexdigest()))
    write_archive(user, contents)
    return contents


def write_archive(folder: Path, contents: dict[str, bytes]) -> Path:
    path = folder / images.JPEG_ARCHIVE
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(contents):
            archive.writestr(name, contents[name])
    return path


def test_jpeg_copy_goes_round_the_classes_and_is_found_in_the_second_folder(
    copy: dict[str, bytes], user: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = refusal("cifar10-jpeg-16", user / "empty", out)
    assert all(text in message for text in (images.JPEG_ARCHIVE, f"{user / 'empty'}", FOLDER_VARIABLE))
    monkeypatch.setenv(FOLDER_VARIABLE, str(user))
    tensors, record = prepare("cifar10-jpeg-16", user / "empty", out)
    assert tensors["train_images"].shape == (TRAIN, 3, 16, 16)
    assert tensors["train_labels"].tolist() == [i % 10 for i in range(TRAIN)]
    shades = tensors["test_images"][:, 0, 0, 0] * record["pixel_std"][0] + record["pixel_mean"][0]
    assert (255 * shades).round().tolist() == [20 * (i % 10) + i // 10 for i in range(TEST)]


def test_damaged_jpeg_copy_is_refused(copy: dict[str, bytes], user: Path, out: Path) -> None:
    cat, dog, truck = "test/cat/0000.jpg", "test/dog/0000.jpg", "train/truck/0005.jpg"
    path = write_archive(user, copy | {cat: copy[dog], dog: copy[cat]})
    message = refusal("cifar10-jpeg-16", user, out)
    assert re.search(rf"{path}: .* sha256 is [0-9a-f]{{64}}, expected {images.JPEG_IMAGES['test'][1]}", message)
    write_archive(user, {name: content for name, content in copy.items() if name != truck})
    assert truck in refusal("cifar10-jpeg-16", user, out)
    path.write_bytes(path.read_bytes()[:1000])
    assert str(path) in refusal("cifar10-jpeg-16", user, out)


JPEG_COPY = sources.local_file(ROOT / "data", images.JPEG_ARCHIVE)


@pytest.mark.slow
@pytest.mark.skipif(JPEG_COPY is None, reason=f"no folder of data has {images.JPEG_ARCHIVE}")
def test_real_jpeg_copy(out: Path) -> None:
    tensors, record = prepare("cifar10-jpeg-16", ROOT / "data", out)
    assert torch.bincount(tensors["test_labels"]).tolist() == 10 * [DATASETS["cifar10-jpeg"].test // 10]
    mean = torch.tensor(record["pixel_mean"])
    torch.testing.assert_close(mean, torch.tensor([0.491, 0.482, 0.447]), rtol=0, atol=0.01)  # those of CIFAR-10


def test_load_refuses_other_tensors_and_a_broken_record(fashion: dict[str, bytes], user: Path, out: Path) -> None:
    tensors, record = out / "x.pt", out / "x.json"
    put(fashion, user)
    damages: list[Callable[[], object]] = [
        lambda: tensors.write_bytes(tensors.read_bytes()[:2000]),
        lambda: tensors.unlink(),
        lambda: torch.save({name: one.flatten() for name, one in torch.load(tensors).items()}, tensors),
        lambda: record.write_text(""),
        lambda: record.write_text("{}"),
        lambda: record.unlink(),
    ]
    for damage in damages:
        prepare("fashion-mnist-14", user, out)
        damage()
        with pytest.raises(UserError, match=f"^{tensors} does not.* {record} .*delete both"):
            dataset.load(tensors, record)


def test_optional_data_that_cannot_be_had_leaves_a_record_of_the_reason(
    out: Path, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(folder: Path) -> dataset.Prepared:
        raise Missing("put cars.csv there")

    monkeypatch.setitem(catalog.READERS, "cars", nowhere)
    assert "cars.csv" in refusal("cars", user, out)
    text = catalog.prepare("cars", user, out / "x.pt", out / "x.json", is_optional=True)
    assert "cars.csv" in text and json.loads((out / "x.json").read_text())["missing"] == "put cars.csv there"
    assert dataset.load(out / "x.pt", out / "x.json") == {}
