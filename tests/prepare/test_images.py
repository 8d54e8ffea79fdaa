"""The prepared data: the right numbers from every source, and a clear sentence where a source is wrong."""

import gzip
import hashlib
import json
import pickle
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
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
from torchvision.datasets import CIFAR10, FashionMNIST  # type: ignore[import-untyped]

from effective_lr.__main__ import main
from effective_lr.errors import UserError
from effective_lr.prepare import images, prepared
from effective_lr.prepare.images import FACTS
from effective_lr.studies.normalization.settings import DATASETS, VALIDATION_SIZE
from shared import ENVIRONMENT, ROOT

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
NAMES = tuple(images.FASHION_MNIST)
TRAIN, TEST, UNSEEN = 60, 20, 25  # of the small files that the tests write


class Outputs:
    """Where one preparation writes, and what it wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tensors, self.record = folder, folder / "x.pt", folder / "x.json"

    def prepare(self, dataset: str, side: int, folder: Path) -> dict[str, Tensor]:
        print(prepared.write(f"{dataset}-{side}", folder, self.tensors, self.record))
        return prepared.load(self.tensors, self.record)

    def refusal(self, dataset: str, side: int, folder: Path) -> str:
        """The message of a preparation that must fail and write nothing."""
        with pytest.raises(UserError) as error:
            self.prepare(dataset, side, folder)
        assert not self.folder.exists()
        assert "\n" not in str(error.value)
        return str(error.value)


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    return Outputs(tmp_path / "prepared")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Datasets of a few images, no Debian package, no internet."""
    monkeypatch.setattr(images, "UNSEEN", UNSEEN)
    for name in FACTS:
        monkeypatch.setitem(FACTS, name, FACTS[name]._replace(train=TRAIN, test=TEST))
    monkeypatch.setattr(images, "DEBIAN_FOLDER", tmp_path / "debian")
    monkeypatch.delenv(prepared.FOLDER_VARIABLE, raising=False)

    def offline(self: Any) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(FashionMNIST, "download", offline)
    monkeypatch.setattr(CIFAR10, "download", offline)


def idx(array: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


@pytest.fixture
def fashion(small: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Small uncompressed files by name, whose checksums the module expects."""
    rng = np.random.default_rng(1)
    files = {}
    for name in NAMES:
        n = TRAIN if name.startswith("train") else TEST
        shape, top = ((n, 28, 28), 256) if "images" in name else ((n,), 10)
        files[name] = idx(rng.integers(top, size=shape, dtype=np.uint8))
    monkeypatch.setattr(images, "FASHION_MNIST", {name: hashlib.sha256(files[name]).hexdigest() for name in NAMES})
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


# The real Fashion-MNIST.

needs_debian = pytest.mark.skipif(not DEBIAN.is_dir(), reason="the Debian package dataset-fashion-mnist is missing")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], Outputs]:
    outputs = Outputs(tmp_path_factory.mktemp("real") / "prepared")
    return outputs.prepare("fashion-mnist", 14, outputs.folder / "nothing"), outputs


def raw(name: str, header: int) -> Tensor:
    content = gzip.decompress((DEBIAN / f"{name}.gz").read_bytes())
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header)


@needs_debian
def test_real_shapes_and_labels(real: tuple[dict[str, Tensor], Outputs]) -> None:
    tensors, _ = real
    facts = DATASETS["fashion-mnist"]
    assert tensors["train_images"].shape == (facts.train, facts.channels, 14, 14)
    assert tensors["test_images"].shape == (facts.test, facts.channels, 14, 14)
    assert tensors["train_images"].dtype == torch.float32
    assert torch.equal(tensors["train_labels"], raw("train-labels-idx1-ubyte", 8).long())
    assert torch.equal(tensors["test_labels"], raw("t10k-labels-idx1-ubyte", 8).long())


@needs_debian
def test_real_pixels_are_block_means_normalized_on_the_training_split(
    real: tuple[dict[str, Tensor], Outputs],
) -> None:
    tensors, outputs = real
    found = tensors["train_images"].double()
    assert found[:-VALIDATION_SIZE].mean().item() == pytest.approx(0, abs=1e-6)
    assert found[:-VALIDATION_SIZE].std(correction=0).item() == pytest.approx(1, abs=1e-6)
    # The validation split must not be part of it: with it, the mean moves by more than the tolerance above.
    assert abs(found.mean().item()) > 1e-4

    record = json.loads(outputs.record.read_text())
    pixels = raw("train-images-idx3-ubyte", 16).view(60_000, 1, 28, 28)
    for start in (0, 55_000):
        means = avg_pool2d(pixels[start : start + 500].double() / 255, 2)
        expected = (means - record["pixel_mean"][0]) / record["pixel_std"][0]
        torch.testing.assert_close(found[start : start + 500], expected, rtol=0, atol=1e-6)


@needs_debian
def test_real_preparation_repeats_to_the_byte(real: tuple[dict[str, Tensor], Outputs], outputs: Outputs) -> None:
    _, first = real
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    try:
        outputs.prepare("fashion-mnist", 14, outputs.folder / "nothing")
    finally:
        torch.set_num_threads(threads)
    assert outputs.record.read_bytes() == first.record.read_bytes()


@needs_debian
def test_flipped_byte_in_the_prepared_file_is_found(real: tuple[dict[str, Tensor], Outputs], tmp_path: Path) -> None:
    tensors, outputs = real
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(outputs.tensors.read_bytes())
    flip(damaged, damaged.stat().st_size // 2)
    with pytest.raises(UserError, match=rf"damaged\.pt .*sha256 .*{prepared.sha256(tensors)}"):
        prepared.load(damaged, outputs.record)


# Sources of Fashion-MNIST, on small files.


def test_every_layout_and_compression_gives_the_same_record(
    fashion: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = set()
    for number, (place, level) in enumerate(
        [(".", None), (".", 9), ("fashion-mnist", 1), ("FashionMNIST/raw", None), ("FashionMNIST/raw", 9)]
    ):
        folder, outputs = tmp_path / f"user{number}", Outputs(tmp_path / f"prepared{number}")
        put(fashion, folder / place, level)
        outputs.prepare("fashion-mnist", 14, folder)
        records.add(outputs.record.read_bytes())
        assert f"from the local folder {folder / place}" in capsys.readouterr().out
    put(fashion, images.DEBIAN_FOLDER)
    outputs = Outputs(tmp_path / "prepared")
    outputs.prepare("fashion-mnist", 14, tmp_path / "empty")
    records.add(outputs.record.read_bytes())
    out = capsys.readouterr().out
    assert "fashion-mnist-14" in out and f"Debian package in {images.DEBIAN_FOLDER}" in out
    assert len(records) == 1
    assert str(tmp_path) not in records.pop().decode()


def test_local_folder_wins_over_debian_even_when_damaged(
    fashion: dict[str, bytes], tmp_path: Path, outputs: Outputs, capsys: pytest.CaptureFixture[str]
) -> None:
    put(fashion, images.DEBIAN_FOLDER)
    user = put(fashion, tmp_path / "user", None)
    outputs.prepare("fashion-mnist", 28, user)
    assert "local folder" in capsys.readouterr().out
    flip(user / NAMES[0], 100)
    message = Outputs(tmp_path / "second").refusal("fashion-mnist", 28, user)
    assert str(user / NAMES[0]) in message


@pytest.mark.parametrize("name", NAMES)
def test_flipped_bit_names_file_and_both_checksums(
    name: str, fashion: dict[str, bytes], tmp_path: Path, outputs: Outputs
) -> None:
    user = put(fashion, tmp_path / "user", None)
    flip(user / name, -1)
    found = hashlib.sha256((user / name).read_bytes()).hexdigest()
    message = outputs.refusal("fashion-mnist", 14, user)
    assert all(part in message for part in (str(user / name), found, images.FASHION_MNIST[name], "delete")), message


def test_flipped_bit_in_a_gzip_file(fashion: dict[str, bytes], tmp_path: Path, outputs: Outputs) -> None:
    user = put(fashion, tmp_path / "user")
    flip(user / f"{NAMES[0]}.gz", -6)  # in the checksum that ends a gzip file
    message = outputs.refusal("fashion-mnist", 14, user)
    assert message.startswith(f"{user / NAMES[0]}.gz (")
    assert "cannot be unpacked" in message


def test_truncated_files_name_both_sizes(fashion: dict[str, bytes], tmp_path: Path, outputs: Outputs) -> None:
    expected = 16 + TRAIN * 28 * 28
    user = put(fashion, tmp_path / "user")
    packed = user / f"{NAMES[0]}.gz"
    packed.write_bytes(packed.read_bytes()[:1000])
    message = outputs.refusal("fashion-mnist", 14, user)
    assert f"{packed} (1000 bytes) cannot be unpacked to the expected {expected} bytes" in message

    plain = put(fashion, tmp_path / "plain", None)
    (plain / NAMES[0]).write_bytes(fashion[NAMES[0]][:1000])
    message = outputs.refusal("fashion-mnist", 14, plain)
    assert f"{plain / NAMES[0]} holds 1000 bytes of data, expected {expected}" in message


def test_missing_file_is_named(fashion: dict[str, bytes], tmp_path: Path, outputs: Outputs) -> None:
    put(fashion, images.DEBIAN_FOLDER)
    user = put(fashion, tmp_path / "user")
    (user / f"{NAMES[3]}.gz").unlink()
    message = outputs.refusal("fashion-mnist", 14, user)
    assert f"{user / NAMES[3]}.gz is missing beside the other Fashion-MNIST files" in message


def test_damaged_debian_package(fashion: dict[str, bytes], tmp_path: Path, outputs: Outputs) -> None:
    put(fashion | {NAMES[1]: fashion[NAMES[1]] + b"1"}, images.DEBIAN_FOLDER)
    message = outputs.refusal("fashion-mnist", 14, tmp_path / "user")
    assert f"{images.DEBIAN_FOLDER / NAMES[1]}.gz holds {TRAIN + 9} bytes of data, expected {TRAIN + 8}" in message
    assert "reinstall the Debian package dataset-fashion-mnist" in message


def test_download_lands_in_the_folder_and_is_local_from_then_on(
    fashion: dict[str, bytes],
    tmp_path: Path,
    outputs: Outputs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def download(self: Any) -> None:
        put(fashion, Path(self.raw_folder), None)

    monkeypatch.setattr(FashionMNIST, "download", download)
    user = tmp_path / "user"
    outputs.prepare("fashion-mnist", 14, user)
    first = outputs.record.read_bytes()
    assert "torchvision download" in capsys.readouterr().out
    assert sorted(path.name for path in user.rglob("*") if path.is_file()) == sorted(NAMES)
    outputs.prepare("fashion-mnist", 14, user)
    assert "local folder" in capsys.readouterr().out
    assert outputs.record.read_bytes() == first


def test_download_that_breaks_off_leaves_nothing(
    fashion: dict[str, bytes], tmp_path: Path, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(self: Any) -> None:
        put({NAMES[0]: fashion[NAMES[0]]}, Path(self.raw_folder), None)
        raise TimeoutError("timed out")

    monkeypatch.setattr(FashionMNIST, "download", download)
    message = outputs.refusal("fashion-mnist", 14, tmp_path / "user")
    assert "torchvision could not download it (timed out)" in message
    assert list((tmp_path / "user").iterdir()) == []


def test_offline_says_what_to_do(small: None, tmp_path: Path, outputs: Outputs) -> None:
    user = tmp_path / "user"
    message = outputs.refusal("fashion-mnist", 14, user)
    told = [str(user), str(images.DEBIAN_FOLDER), "Name or service not known", "dataset-fashion-mnist"]
    assert all(part in message for part in [*told, *(f"{name}.gz" for name in NAMES)]), message
    message = outputs.refusal("cifar10", 16, user)
    assert all(part in message for part in [str(user), "Name or service not known", CIFAR10.filename]), message


def test_an_unknown_dataset_is_told_with_those_there_are(tmp_path: Path, outputs: Outputs) -> None:
    message = outputs.refusal("fashion-mnist", 10, tmp_path)
    assert "fashion-mnist-10" in message and all(name in message for name in prepared.sources())


def test_facts_of_the_files_are_those_that_the_study_knows() -> None:
    assert {name: tuple(facts) for name, facts in FACTS.items()} == {k: tuple(v) for k, v in DATASETS.items()}
    assert images.UNSEEN == VALIDATION_SIZE


# CIFAR-10, on small files in the format of the real ones.


@pytest.fixture
def cifar(small: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, Tensor, Tensor]:
    """The folder of the user with the batches in it, and the training images and labels that they hold.

    The keys are text: Python 2 wrote the real ones as bytes, which torchvision decodes while it unpickles.
    """
    batches = tmp_path / "user" / CIFAR10.base_folder
    batches.mkdir(parents=True)
    rng = np.random.default_rng(2)

    def write(name: str, content: dict[Any, Any]) -> str:
        (batches / name).write_bytes(pickle.dumps(content, protocol=2))
        return hashlib.md5((batches / name).read_bytes()).hexdigest()

    drawn, labels, lists = [], [], []
    for name, n in [*((f"data_batch_{i}", TRAIN // 5) for i in range(1, 6)), ("test_batch", TEST)]:
        drawn.append(rng.integers(256, size=(n, 3072), dtype=np.uint8))
        labels.append(rng.integers(10, size=n).tolist())
        lists.append([name, write(name, {"data": drawn[-1], "labels": labels[-1]})])
    monkeypatch.setattr(CIFAR10, "train_list", lists[:5])
    monkeypatch.setattr(CIFAR10, "test_list", lists[5:])
    meta = write("batches.meta", {"label_names": [str(i) for i in range(10)]})
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": meta})
    pixels = torch.from_numpy(np.concatenate(drawn[:5])).view(TRAIN, 3, 32, 32)
    return batches.parent, pixels, torch.tensor([label for batch in labels[:5] for label in batch])


def packed(user: Path) -> Path:
    """Replace the batches by an archive of them."""
    archive: Path = user / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(user / CIFAR10.base_folder, CIFAR10.base_folder)
    for path in (user / CIFAR10.base_folder).iterdir():
        path.unlink()
    (user / CIFAR10.base_folder).rmdir()
    return archive


def test_cifar10_values(cifar: tuple[Path, Tensor, Tensor], outputs: Outputs) -> None:
    user, pixels, labels = cifar
    tensors = outputs.prepare("cifar10", 16, user)
    n = TRAIN - UNSEEN
    assert tensors["test_images"].shape == (TEST, 3, 16, 16)
    assert torch.equal(tensors["train_labels"], labels)

    means = avg_pool2d(pixels.double() / 255, 2)
    mean = means[:n].mean((0, 2, 3))
    std = means[:n].std((0, 2, 3), correction=0)
    record = json.loads(outputs.record.read_text())
    assert record["pixel_mean"] == pytest.approx(mean.tolist(), abs=1e-14)
    assert record["pixel_std"] == pytest.approx(std.tolist(), abs=1e-14)
    assert record["source_checksums"]["batches.meta"] == f"md5:{CIFAR10.meta['md5']}"
    assert len(record["source_checksums"]) == 7
    expected = (means - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
    torch.testing.assert_close(tensors["train_images"].double(), expected, rtol=0, atol=1e-5)


def test_cifar10_archive_gives_the_same_record(cifar: tuple[Path, Tensor, Tensor], outputs: Outputs) -> None:
    user, *_ = cifar
    outputs.prepare("cifar10", 32, user)
    first = outputs.record.read_bytes()
    packed(user)
    outputs.prepare("cifar10", 32, user)
    assert outputs.record.read_bytes() == first


def test_archives_are_read_by_the_names_of_their_members(
    cifar: tuple[Path, Tensor, Tensor], outputs: Outputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is extracted, so a member with another name can be written nowhere."""
    user, *_ = cifar
    archive = packed(user)
    with tarfile.open(archive) as tar, tarfile.open(tmp_path / "other.tar.gz", "w:gz") as other:
        for member in tar.getmembers():
            other.addfile(member, tar.extractfile(member) if member.isfile() else None)
        other.addfile(tarfile.TarInfo("../outside"))
    (tmp_path / "other.tar.gz").replace(archive)
    for name in ("extract", "extractall"):
        monkeypatch.setattr(tarfile.TarFile, name, None)
    outputs.prepare("cifar10", 32, user)
    assert not (user.parent / "outside").exists() and [path.name for path in user.iterdir()] == [archive.name]


def test_importing_the_package_leaves_archives_alone() -> None:
    program = (
        "import tarfile; before = tarfile.TarFile.extractall; import effective_lr.prepare.images; "
        "assert tarfile.TarFile.extractall is before"
    )
    subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, check=True)


def test_cifar10_damage_is_named(cifar: tuple[Path, Tensor, Tensor], tmp_path: Path, outputs: Outputs) -> None:
    user, *_ = cifar
    batches = user / CIFAR10.base_folder
    expected = CIFAR10.train_list[2][1]
    flip(batches / "data_batch_3", 500)
    message = outputs.refusal("cifar10", 16, user)
    assert re.match(rf"data_batch_3 in {batches} has md5 [0-9a-f]{{32}}, expected {expected}: delete", message)

    archive = packed(user)
    assert f"data_batch_3 in {archive} has md5" in outputs.refusal("cifar10", 16, user)
    archive.write_bytes(archive.read_bytes()[:5000])
    message = outputs.refusal("cifar10", 16, user)
    assert f"{archive} (5000 bytes) cannot be unpacked" in message


def test_cifar10_missing_batch_is_named(cifar: tuple[Path, Tensor, Tensor], outputs: Outputs) -> None:
    user, *_ = cifar
    (user / CIFAR10.base_folder / "test_batch").unlink()
    message = outputs.refusal("cifar10", 16, user)
    assert message.startswith(f"test_batch is missing in {user / CIFAR10.base_folder}: delete")


# The JPEG copy of CIFAR-10, on a small archive, and the real one where it is at hand.


def jpeg(shade: int) -> bytes:
    """An image of one shade of grey, which JPEG keeps exactly."""
    file = BytesIO()
    Image.new("RGB", (32, 32), (shade, shade, shade)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def copy(small: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The archive, class by class as people pack it. The shade of an image is its number plus 20 times its class."""
    user = tmp_path / "user"
    user.mkdir()
    files = {
        (split, kind, number): jpeg(20 * kind + number)
        for split, count in [("train", TRAIN), ("test", TEST)]
        for kind in range(10)
        for number in range(count // 10)
    }
    with zipfile.ZipFile(user / images.JPEG_ARCHIVE, "w") as archive:
        for (split, kind, number), content in files.items():
            archive.writestr(f"{split}/{images.CLASSES[kind]}/{number:04}.jpg", content)
    for split in ("train", "test"):
        count = max(number for name, _, number in files if name == split) + 1
        contents = [files[split, kind, number] for number in range(count) for kind in range(10)]
        monkeypatch.setitem(images.JPEG_SHA256, split, hashlib.sha256(b"".join(contents)).hexdigest())
    return user / images.JPEG_ARCHIVE


def test_jpeg_copy_goes_round_the_classes(copy: Path, outputs: Outputs) -> None:
    tensors = outputs.prepare("cifar10-jpeg", 16, copy.parent)
    assert tensors["train_images"].shape == (TRAIN, 3, 16, 16)
    assert tensors["train_labels"].tolist() == [i % 10 for i in range(TRAIN)]
    assert tensors["test_labels"].tolist() == [i % 10 for i in range(TEST)]
    record = json.loads(outputs.record.read_text())
    shades = tensors["test_images"][:, 0, 0, 0] * record["pixel_std"][0] + record["pixel_mean"][0]
    assert (255 * shades).round().tolist() == [20 * (i % 10) + i // 10 for i in range(TEST)]


def test_jpeg_copy_is_another_dataset_than_the_official_files(
    copy: Path, cifar: tuple[Path, Tensor, Tensor], outputs: Outputs
) -> None:
    """With both at hand, each name takes its own files; with the copy alone, the official name is refused."""
    user, *_ = cifar
    assert user == copy.parent
    outputs.prepare("cifar10", 16, user)
    official = json.loads(outputs.record.read_text())
    outputs.prepare("cifar10-jpeg", 16, user)
    lossy = json.loads(outputs.record.read_text())
    assert (official["dataset"], lossy["dataset"]) == ("cifar10-16", "cifar10-jpeg-16")
    assert official["sha256"] != lossy["sha256"]
    assert not official["source_checksums"].keys() & lossy["source_checksums"].keys()
    packed(user).unlink()
    with pytest.raises(UserError, match="cifar10 is not in"):
        outputs.prepare("cifar10", 16, user)


def test_jpeg_copy_is_found_in_the_second_folder(
    copy: Path, outputs: Outputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    message = outputs.refusal("cifar10-jpeg", 16, empty)
    assert all(text in message for text in (images.JPEG_ARCHIVE, str(empty), prepared.FOLDER_VARIABLE, "cifar10"))
    monkeypatch.setenv(prepared.FOLDER_VARIABLE, str(copy.parent))
    outputs.prepare("cifar10-jpeg", 16, empty)


def test_damaged_jpeg_copy_is_refused(copy: Path, outputs: Outputs) -> None:
    whole = copy.read_bytes()
    with zipfile.ZipFile(copy) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}

    def written(changes: dict[str, bytes]) -> str:
        with zipfile.ZipFile(copy, "w") as archive:
            for name, content in (contents | changes).items():
                if content:
                    archive.writestr(name, content)
        return outputs.refusal("cifar10-jpeg", 16, copy.parent)

    exchanged = {"test/cat/0000.jpg": contents["test/dog/0000.jpg"], "test/dog/0000.jpg": contents["test/cat/0000.jpg"]}
    assert re.search(rf"{copy}: .* sha256 [0-9a-f]{{64}}, expected {images.JPEG_SHA256['test']}", written(exchanged))
    assert "train/truck/0005.jpg" in written({"train/truck/0005.jpg": b""})
    copy.write_bytes(whole[: len(whole) // 2])
    assert str(copy) in outputs.refusal("cifar10-jpeg", 16, copy.parent)


JPEG_COPY = prepared.local_file(ROOT / "data", images.JPEG_ARCHIVE)


@pytest.mark.skipif(JPEG_COPY is None, reason=f"no folder of data has {images.JPEG_ARCHIVE}")
def test_real_jpeg_copy(outputs: Outputs) -> None:
    tensors = outputs.prepare("cifar10-jpeg", 16, ROOT / "data")
    facts = DATASETS["cifar10-jpeg"]
    assert tensors["train_images"].shape == (facts.train, 3, 16, 16)
    assert tensors["test_images"].shape == (facts.test, 3, 16, 16)
    assert torch.bincount(tensors["test_labels"]).tolist() == 10 * [facts.test // 10]
    mean = torch.tensor(json.loads(outputs.record.read_text())["pixel_mean"])
    torch.testing.assert_close(mean, torch.tensor([0.491, 0.482, 0.447]), rtol=0, atol=0.01)  # those of CIFAR-10


# The prepared files, and the command line.


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


def other_keys(path: Path) -> None:
    torch.save({"images": torch.zeros(1)}, path)


def other_shape(path: Path) -> None:
    stored = torch.load(path, weights_only=True)
    stored["test_images"] = stored["test_images"].flatten(1)
    torch.save(stored, path)


@pytest.mark.parametrize("damage", [truncate, Path.unlink, other_keys, other_shape])
def test_load_refuses_other_tensors(
    damage: Callable[[Path], None], fashion: dict[str, bytes], tmp_path: Path, outputs: Outputs
) -> None:
    tensors = outputs.prepare("fashion-mnist", 14, put(fashion, tmp_path / "user"))
    damage(outputs.tensors)
    with pytest.raises(UserError) as error:
        prepared.load(outputs.tensors, outputs.record)
    message = str(error.value)
    assert message.startswith(str(outputs.tensors))
    assert prepared.sha256(tensors) in message and str(outputs.record) in message and "delete" in message


@pytest.mark.parametrize("text", ["", "[]", "{}", None])
def test_load_refuses_a_broken_record(text: str | None, tmp_path: Path) -> None:
    record = tmp_path / "x.json"
    if text is not None:
        record.write_text(text)
    with pytest.raises(UserError, match=r"x\.json.*sha256"):
        prepared.load(tmp_path / "x.pt", record)


def test_optional_data_that_cannot_be_had_leaves_a_record_that_says_so(
    outputs: Outputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(folder: Path) -> prepared.Prepared:
        raise prepared.Missing("put cars.csv there")

    monkeypatch.setattr(prepared, "sources", lambda: {"cars": nowhere})
    files = outputs.tensors, outputs.record
    with pytest.raises(UserError, match=r"cars\.csv"):
        prepared.write("cars", tmp_path, *files)
    assert not outputs.folder.exists()
    assert "cars.csv" in prepared.write("cars", tmp_path, *files, optional=True)
    assert json.loads(outputs.record.read_text())["missing"] == "put cars.csv there"
    assert prepared.load(*files) == {}


def test_full_disk_leaves_nothing(
    fashion: dict[str, bytes], tmp_path: Path, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_text(self: Path, text: str) -> None:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", write_text)
    with pytest.raises(UserError, match=r"x\.json cannot be written \(.*No space left on device\)"):
        outputs.prepare("fashion-mnist", 14, put(fashion, tmp_path / "user"))
    assert list(outputs.folder.iterdir()) == []


def test_command_line(
    fashion: dict[str, bytes], tmp_path: Path, outputs: Outputs, capsys: pytest.CaptureFixture[str]
) -> None:
    user = tmp_path / "user"
    words = ["prepare", "--name", "fashion-mnist-14", "--folder", str(user)]
    words += ["--tensors", str(outputs.tensors), "--record", str(outputs.record)]
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert out == "" and str(user) in err and err.count("\n") == 1
    assert not outputs.folder.exists()

    put(fashion, user)
    assert main(words) == 0
    assert f"local folder {user}" in capsys.readouterr().out
    assert json.loads(outputs.record.read_text())["shapes"]["test_images"] == [TEST, 1, 14, 14]
    assert sorted(path.name for path in outputs.folder.iterdir()) == ["x.json", "x.pt"]
