"""The prepared data: the right numbers from every source, and a clear sentence where a source is wrong."""

import gzip
import hashlib
import json
import pickle
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torchvision.datasets import CIFAR10, FashionMNIST  # type: ignore[import-untyped]

from effective_lr import data, extract_inside
from effective_lr.config import DATASETS, VALIDATION_SIZE, UserError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
NAMES = tuple(data.FASHION_MNIST)
TRAIN, TEST, VALIDATION = 60, 20, 25  # of the small files that the tests write


class Outputs:
    """Where one preparation writes, and what it wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tensors, self.record = folder, folder / "x.pt", folder / "x.json"

    def prepare(self, dataset: str, resolution: int, folder: Path) -> data.Splits:
        data.prepare(dataset, resolution, folder, self.tensors, self.record)
        return data.load(self.tensors, self.record)

    def refusal(self, dataset: str, resolution: int, folder: Path) -> str:
        """The message of a preparation that must fail and write nothing."""
        with pytest.raises(UserError) as error:
            self.prepare(dataset, resolution, folder)
        assert not self.folder.exists()
        assert "\n" not in str(error.value)
        return str(error.value)


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    return Outputs(tmp_path / "prepared")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Datasets of a few images, no Debian package, no internet."""
    monkeypatch.setattr(data, "VALIDATION_SIZE", VALIDATION)
    for name in DATASETS:
        monkeypatch.setitem(DATASETS, name, DATASETS[name]._replace(train=TRAIN, test=TEST))
    monkeypatch.setattr(data, "DEBIAN_FOLDER", tmp_path / "debian")

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
    monkeypatch.setattr(data, "FASHION_MNIST", {name: hashlib.sha256(files[name]).hexdigest() for name in NAMES})
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
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[data.Splits, Outputs]:
    outputs = Outputs(tmp_path_factory.mktemp("real") / "prepared")
    return outputs.prepare("fashion-mnist", 14, outputs.folder / "nothing"), outputs


def raw(name: str, header: int) -> Tensor:
    content = gzip.decompress((DEBIAN / f"{name}.gz").read_bytes())
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header)


@needs_debian
def test_real_shapes_and_labels(real: tuple[data.Splits, Outputs]) -> None:
    splits, _ = real
    assert splits.train_images.shape == (55_000, 1, 14, 14)
    assert splits.validation_images.shape == (VALIDATION_SIZE, 1, 14, 14)
    assert splits.test_images.shape == (10_000, 1, 14, 14)
    assert splits.train_images.dtype == torch.float32
    assert splits.train_labels.dtype == torch.int64
    labels = raw("train-labels-idx1-ubyte", 8)
    assert torch.equal(splits.train_labels, labels[:55_000].long())
    assert torch.equal(splits.validation_labels, labels[55_000:].long())
    assert torch.equal(splits.test_labels, raw("t10k-labels-idx1-ubyte", 8).long())


@needs_debian
def test_real_pixels_are_block_means_normalized_on_the_training_split(
    real: tuple[data.Splits, Outputs],
) -> None:
    splits, outputs = real
    assert splits.train_images.double().mean().item() == pytest.approx(0, abs=1e-6)
    assert splits.train_images.double().std(correction=0).item() == pytest.approx(1, abs=1e-6)
    # The validation split must not be part of it: with it, the mean moves by more than the tolerance above.
    everything = torch.cat([splits.train_images, splits.validation_images]).double()
    assert abs(everything.mean().item()) > 1e-4

    record = json.loads(outputs.record.read_text())
    pixels = raw("train-images-idx3-ubyte", 16).view(60_000, 1, 28, 28)
    for images, start in [(splits.train_images, 0), (splits.validation_images, 55_000)]:
        means = avg_pool2d(pixels[start : start + 500].double() / 255, 2)
        expected = (means - record["pixel_mean"][0]) / record["pixel_std"][0]
        torch.testing.assert_close(images[:500].double(), expected, rtol=0, atol=1e-6)


@needs_debian
def test_real_preparation_repeats_to_the_byte(real: tuple[data.Splits, Outputs], outputs: Outputs) -> None:
    _, first = real
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    try:
        outputs.prepare("fashion-mnist", 14, outputs.folder / "nothing")
    finally:
        torch.set_num_threads(threads)
    assert outputs.record.read_bytes() == first.record.read_bytes()


@needs_debian
def test_flipped_byte_in_the_prepared_file_is_found(real: tuple[data.Splits, Outputs], tmp_path: Path) -> None:
    splits, outputs = real
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(outputs.tensors.read_bytes())
    flip(damaged, damaged.stat().st_size // 2)
    with pytest.raises(UserError, match=rf"damaged\.pt .*sha256 .*{splits.sha256}.*prepare the data again"):
        data.load(damaged, outputs.record)


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
    put(fashion, data.DEBIAN_FOLDER)
    outputs = Outputs(tmp_path / "prepared")
    outputs.prepare("fashion-mnist", 14, tmp_path / "empty")
    records.add(outputs.record.read_bytes())
    out = capsys.readouterr().out
    assert out == f"fashion-mnist: prepared at 14 x 14 from the Debian package in {data.DEBIAN_FOLDER}\n"
    assert len(records) == 1
    assert str(tmp_path) not in records.pop().decode()


def test_local_folder_wins_over_debian_even_when_damaged(
    fashion: dict[str, bytes], tmp_path: Path, outputs: Outputs, capsys: pytest.CaptureFixture[str]
) -> None:
    put(fashion, data.DEBIAN_FOLDER)
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
    assert message == (
        f"{user / name} holds data with sha256 {found}, expected {data.FASHION_MNIST[name]}: "
        f"put the right file there, or delete all Fashion-MNIST files in {user}"
    )


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
    put(fashion, data.DEBIAN_FOLDER)
    user = put(fashion, tmp_path / "user")
    (user / f"{NAMES[3]}.gz").unlink()
    message = outputs.refusal("fashion-mnist", 14, user)
    assert f"{user / NAMES[3]}.gz is missing beside the other Fashion-MNIST files" in message


def test_damaged_debian_package(fashion: dict[str, bytes], tmp_path: Path, outputs: Outputs) -> None:
    put(fashion | {NAMES[1]: fashion[NAMES[1]] + b"1"}, data.DEBIAN_FOLDER)
    message = outputs.refusal("fashion-mnist", 14, tmp_path / "user")
    assert f"{data.DEBIAN_FOLDER / NAMES[1]}.gz holds {TRAIN + 9} bytes of data, expected {TRAIN + 8}" in message
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
    state = "torchvision could not download it (<urlopen error Name or service not known>)"
    assert outputs.refusal("fashion-mnist", 14, user) == (
        f"fashion-mnist is neither in {user} nor in {data.DEBIAN_FOLDER}, and {state}: "
        "install the Debian package dataset-fashion-mnist, or put train-images-idx3-ubyte.gz, "
        f"train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz into {user}"
    )
    assert outputs.refusal("cifar10", 16, user) == (
        f"cifar10 is not in {user}, and {state}: put cifar-10-python.tar.gz into {user}"
    )


@pytest.mark.parametrize("resolution", [0, -14, 10, 56])
def test_resolution_must_divide(resolution: int, tmp_path: Path, outputs: Outputs) -> None:
    assert outputs.refusal("fashion-mnist", resolution, tmp_path) == (
        f"resolution {resolution} does not divide the 28 x 28 pixels of fashion-mnist: use one of 1, 2, 4, 7, 14, 28"
    )


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

    images, labels, lists = [], [], []
    for name, n in [*((f"data_batch_{i}", TRAIN // 5) for i in range(1, 6)), ("test_batch", TEST)]:
        images.append(rng.integers(256, size=(n, 3072), dtype=np.uint8))
        labels.append(rng.integers(10, size=n).tolist())
        lists.append([name, write(name, {"data": images[-1], "labels": labels[-1]})])
    monkeypatch.setattr(CIFAR10, "train_list", lists[:5])
    monkeypatch.setattr(CIFAR10, "test_list", lists[5:])
    meta = write("batches.meta", {"label_names": [str(i) for i in range(10)]})
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": meta})
    pixels = torch.from_numpy(np.concatenate(images[:5])).view(TRAIN, 3, 32, 32)
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
    splits = outputs.prepare("cifar10", 16, user)
    n = TRAIN - VALIDATION
    assert splits.train_images.shape == (n, 3, 16, 16)
    assert splits.test_images.shape == (TEST, 3, 16, 16)
    assert torch.equal(splits.train_labels, labels[:n])
    assert torch.equal(splits.validation_labels, labels[n:])

    means = avg_pool2d(pixels.double() / 255, 2)
    mean = means[:n].mean((0, 2, 3))
    std = means[:n].std((0, 2, 3), correction=0)
    record = json.loads(outputs.record.read_text())
    assert record["pixel_mean"] == pytest.approx(mean.tolist(), abs=1e-14)
    assert record["pixel_std"] == pytest.approx(std.tolist(), abs=1e-14)
    assert record["source_checksums"]["batches.meta"] == f"md5:{CIFAR10.meta['md5']}"
    assert len(record["source_checksums"]) == 7
    expected = (means - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
    found = torch.cat([splits.train_images, splits.validation_images]).double()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_cifar10_archive_gives_the_same_record(cifar: tuple[Path, Tensor, Tensor], outputs: Outputs) -> None:
    user, *_ = cifar
    outputs.prepare("cifar10", 32, user)
    first = outputs.record.read_bytes()
    packed(user)
    outputs.prepare("cifar10", 32, user)
    assert outputs.record.read_bytes() == first


@pytest.mark.parametrize("extract", [tarfile.TarFile.extractall, extract_inside], ids=["python", "without filters"])
def test_archives_are_unpacked_inside_of_their_folder(extract: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    for name, kind in [("folder/file", tarfile.REGTYPE), ("../file", tarfile.REGTYPE), ("link", tarfile.SYMTYPE)]:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.size = kind, "/etc/passwd", 7 if kind == tarfile.REGTYPE else 0
        with tarfile.open(tmp_path / "a.tar", "w") as archive, (tmp_path / "file").open("rb") as content:
            archive.addfile(member, content)
        place = tmp_path / "place"
        with tarfile.open(tmp_path / "a.tar") as archive:
            if name == "folder/file":
                extract(archive, place, filter="data")
                assert (place / name).read_text() == "content"
            else:
                with pytest.raises(tarfile.TarError):
                    extract(archive, place, filter="data")
        assert [path.name for path in place.rglob("*")] == ["folder", "file"]
    assert (tmp_path / "file").read_text() == "content"


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
    splits = outputs.prepare("fashion-mnist", 14, put(fashion, tmp_path / "user"))
    damage(outputs.tensors)
    with pytest.raises(UserError) as error:
        data.load(outputs.tensors, outputs.record)
    message = str(error.value)
    assert message.startswith(str(outputs.tensors))
    assert splits.sha256 in message
    assert message.endswith(f"delete {outputs.tensors} and {outputs.record} and prepare the data again")


@pytest.mark.parametrize("text", ["", "[]", "{}", None])
def test_load_refuses_a_broken_record(text: str | None, tmp_path: Path) -> None:
    record = tmp_path / "x.json"
    if text is not None:
        record.write_text(text)
    with pytest.raises(UserError, match=r"x\.json is not a record with a sha256 .*prepare the data again"):
        data.load(tmp_path / "x.pt", record)


def test_splits_are_cut_and_moved(fashion: dict[str, bytes], tmp_path: Path, outputs: Outputs) -> None:
    splits = outputs.prepare("fashion-mnist", 14, put(fashion, tmp_path / "user"))
    part = splits.subset(train=7, validation=5, test=3)
    for split, n in [("train", 7), ("validation", 5), ("test", 3)]:
        assert torch.equal(getattr(part, f"{split}_images"), getattr(splits, f"{split}_images")[:n])
        assert torch.equal(getattr(part, f"{split}_labels"), getattr(splits, f"{split}_labels")[:n])
    assert part.sha256 == splits.sha256
    moved = part.to("cpu")
    assert moved.train_images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved.test_images, part.test_images)
    with pytest.raises(UserError, match="26 validation images are asked for; choose from 1 to 25"):
        splits.subset(train=1, validation=26, test=1)
    with pytest.raises(UserError, match="0 train images"):
        splits.subset(train=0, validation=1, test=1)


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
    arguments = ["--dataset", "fashion-mnist", "--resolution", "14", "--folder", str(user)]
    arguments += ["--tensors", str(outputs.tensors), "--record", str(outputs.record)]
    assert data.main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"fashion-mnist is neither in {user}")
    assert err.count("\n") == 1
    assert not outputs.folder.exists()

    put(fashion, user)
    assert data.main(arguments) == 0
    assert capsys.readouterr().out == f"fashion-mnist: prepared at 14 x 14 from the local folder {user}\n"
    assert json.loads(outputs.record.read_text())["shapes"]["test_images"] == [TEST, 1, 14, 14]
    assert sorted(path.name for path in outputs.folder.iterdir()) == ["x.json", "x.pt"]
