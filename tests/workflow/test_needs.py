"""Tests that need another machine: each runs where its resource is available, and is listed in docs/artifact.md.

The reference machine, which made the published numbers, has none of these resources. A test holds the list.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pypdf import PdfReader

from checkouts import Checkout
from effective_lr.engine.devices import on_device
from effective_lr.engine.plan import measure
from effective_lr.engine.storage import read_table
from effective_lr.errors import UserError
from effective_lr.prepare import sources
from effective_lr.prepare.catalog import prepare
from effective_lr.prepare.dataset import load
from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.training import Training, plain_float32
from effective_lr.studies.normalization.training import train as train_run
from shared import NORMALIZATIONS, OPTIMIZERS, ROOT, make_run, train_or_reuse

RESOURCES: dict[str, Callable[[], bool]] = {
    "GPU": torch.cuda.is_available,
    "conda": lambda: shutil.which("conda") is not None,
    "tectonic": lambda: shutil.which("tectonic") is not None,
    "CIFAR-10": lambda: (ROOT / "data/cifar-10-python.tar.gz").exists(),
    "internet": lambda: bool(os.environ.get("EFFECTIVE_LR_INTERNET")),
}


@pytest.fixture(autouse=True)
def _skip_without_the_resource(request: pytest.FixtureRequest) -> None:
    marker = request.node.get_closest_marker("needs")
    if marker and not RESOURCES[marker.args[0]]():
        pytest.skip(f"no {marker.args[0]}: {marker.args[1]}")


# A GPU


def require_same(device: str, splits: Splits, normalization: str, optimizer: str) -> None:
    """A run on a device has the losses of one on the CPU, in float64, resumed from a checkpoint, too."""
    run = make_run(normalization=normalization, optimizer=optimizer, lr=0.01, steps=40)
    saved: list[bytes] = []

    def save(training: Training) -> None:
        if training.step == 15:
            saved.append(training.save())

    moved = splits.to(torch.device(device))
    there = train_run(run, moved, after_step=save, dtype=torch.float64)
    reference = [row[3] for row in train_run(run, splits, dtype=torch.float64).rows]
    for training in (there, train_run(run, moved, saved[0], dtype=torch.float64)):
        assert [row[3] for row in training.rows] == pytest.approx(reference, rel=1e-6, abs=1e-8, nan_ok=True)


def test_the_comparison_of_devices_holds_for_the_cpu_itself(small_splits: Splits) -> None:
    for normalization in NORMALIZATIONS:
        require_same("cpu", small_splits, normalization, "adam")


@pytest.mark.needs("GPU", "a run has the losses of the CPU in float64, before and after a checkpoint")
def test_gpu_agrees_with_cpu(small_splits: Splits) -> None:
    for normalization in NORMALIZATIONS:
        for optimizer in OPTIMIZERS:
            require_same("cuda", small_splits, normalization, optimizer)


@pytest.mark.needs("GPU", "matrix products and convolutions are plain float32, not TF32")
def test_gpu_uses_no_tf32() -> None:
    plain_float32()
    x = torch.randn(512, 512, generator=torch.Generator().manual_seed(0))
    exact = (x.double() @ x.double()).float()
    assert float(((x.cuda() @ x.cuda()).cpu() - exact).abs().max() / exact.abs().max()) < 1e-5  # TF32: about 1e-3


@pytest.mark.needs("GPU", "GPU time and peak memory of a run are recorded")
def test_gpu_time_and_memory_are_recorded(single: Splits, tmp_path: Path) -> None:
    _, provenance = train_or_reuse(make_run(), single.to(torch.device("cuda")), tmp_path)
    assert provenance.gpu_seconds > 0 and provenance.peak_memory_mb > 0
    assert provenance.device == torch.cuda.get_device_name()


@pytest.mark.needs("GPU", "three jobs share a GPU, and the smoke scale ends in its PDF")
def test_gpu_shared_by_three_jobs(tmp_path: Path) -> None:
    checkout = Checkout.new(tmp_path / "copy")
    checkout.build("--config", "device=cuda", "gpu_slots=3", cores=4)
    for path in (checkout.root / "results/smoke").glob("*/jobs/*.parquet"):
        assert all(record.gpu_seconds > 0 for record in read_table(path)[1])


@pytest.mark.needs("GPU", "running out of memory ends in one sentence with the number of slots to try")
def test_gpu_out_of_memory(single: Splits, tmp_path: Path) -> None:
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        with (
            pytest.raises(UserError, match=r"out of memory on GPU .*gpu_slots=1"),
            on_device("cuda", 2, "job") as device,
        ):
            train_or_reuse(make_run(), single.to(device), tmp_path)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.needs("GPU", "`make plan` measures how long a run takes on it")
def test_gpu_speed_is_measured(prepared: Path, results: Path) -> None:
    for path in prepared.glob("data.*"):
        shutil.copy(path, f"results/data/fashion-mnist-14{path.suffix}")
    [seconds] = measure("normalization", [make_run()])
    assert seconds > 0


@pytest.mark.needs("GPU", "the speeds of one run, CUDA graphs, shared processes and stacked runs; losses as on the CPU")
def test_gpu_script(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    subprocess.run([sys.executable, ROOT / "benchmarks" / "gpu.py", "--output", output], check=True)
    found = json.loads(output.read_text())
    assert found["not_measured"] == [] and found["operations_per_second"] > 0


# Other tools and the net


@pytest.mark.needs("conda", "`conda env create` solves environment.yml, and Snakemake runs in it with --sdm conda")
def test_conda_environment(tmp_path: Path) -> None:
    subprocess.run(["conda", "env", "create", "--dry-run", "-f", ROOT / "environment.yml"], cwd=ROOT, check=True)
    Checkout.new(tmp_path / "copy").build("--sdm", "conda", cores=2)


@pytest.mark.needs("tectonic", "tectonic typesets the paper without latexmk")
def test_tectonic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tectonic").symlink_to(shutil.which("tectonic") or "")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    Checkout.new(tmp_path / "copy").build(cores=2)
    assert len(PdfReader(tmp_path / "copy/paper/build/smoke/main.pdf").pages) > 3


@pytest.mark.needs("CIFAR-10", "the real files of CIFAR-10 become tensors of the right sizes and classes")
def test_real_cifar10(tmp_path: Path) -> None:
    prepare("cifar10-32", ROOT / "data", tmp_path / "data.pt", tmp_path / "data.json")
    tensors = load(tmp_path / "data.pt", tmp_path / "data.json")
    assert tensors["train_images"].shape == (50_000, 3, 32, 32)
    assert torch.bincount(tensors["test_labels"]).tolist() == [1000] * 10


@pytest.mark.needs("internet", "both datasets are downloaded with the expected checksums")
@pytest.mark.parametrize("dataset", ["fashion-mnist-28", "cifar10-32"])
def test_download(dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "DEBIAN_FOLDER", tmp_path / "none")
    prepare(dataset, tmp_path / "data", tmp_path / "data.pt", tmp_path / "data.json")
    assert len(load(tmp_path / "data.pt", tmp_path / "data.json")["test_labels"]) == 10_000
