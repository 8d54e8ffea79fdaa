"""The engine against tests/plain_pytorch.py, which shares no code with it."""

import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from effective_lr.prepare import catalog, dataset, sources
from effective_lr.studies.normalization.checks import small_run, synthetic_splits
from effective_lr.studies.normalization.data import Splits, splits_for
from effective_lr.studies.normalization.networks import build_network, normalized_layers
from effective_lr.studies.normalization.settings import Run
from effective_lr.studies.normalization.training import batches, plain_float32
from shared import NORMALIZATIONS, OPTIMIZERS, make_run, train_rows

SCRIPT = Path(__file__).with_name("plain_pytorch.py")
pytestmark = pytest.mark.slow


def plain(run: Run, splits: Splits, folder: Path, dtype: torch.dtype) -> dict[str, Any]:
    """What the script makes of this run from the same start, on the same batches."""
    start = [layer.weight.detach() for _, layer in normalized_layers(build_network(run, dtype))]
    np.savez(
        folder / "input.npz",
        run=json.dumps(run.model_dump()),
        images=splits.train_images.to(dtype).numpy(),
        labels=splits.train_labels.numpy(),
        test_images=splits.test_images.to(dtype).numpy(),
        test_labels=splits.test_labels.numpy(),
        batches=torch.stack(list(batches(run, torch.device("cpu")))).numpy(),
        **{f"weight{k}": weight.contiguous().numpy() for k, weight in enumerate(start)},
    )
    # -I: neither the folder of the tests nor PYTHONPATH leads to the package.
    command = [sys.executable, "-I", str(SCRIPT), str(folder / "input.npz"), str(folder / "output.json")]
    subprocess.run(command, check=True)
    found: dict[str, Any] = json.loads((folder / "output.json").read_text())
    assert found["package"] == []
    return found


def test_the_script_imports_nothing_of_the_package() -> None:
    assert "import effective_lr" not in SCRIPT.read_text() and "from effective_lr" not in SCRIPT.read_text()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_losses_in_float64_are_those_of_the_script(normalization: str, optimizer: str, tmp_path: Path) -> None:
    run = small_run(optimizer, normalization=normalization, probes=500)
    splits = synthetic_splits(seed=3)
    rows = train_rows(run, splits, torch.float64)
    ours = [value for _, _, what, value in rows if what == "train_loss"]
    theirs = plain(run, splits, tmp_path, torch.float64)["losses"]
    assert len(ours) == 50 and ours == pytest.approx(theirs, rel=1e-10)


def test_errors_in_float32_are_those_of_the_script(tmp_path: Path) -> None:
    """Three settings with two seeds: rounding parts the runs, but no further than another seed would."""
    sizes = {"train_size": 12800, "validation_size": 100, "test_size": 5000, "statistics_size": 2048}
    training = {"width": 16, "batch_size": 64, "steps": 500, "probes": 2, "evaluations": 1, "late_fraction": 0.1}
    settings: list[dict[str, Any]] = [
        {"normalization": "batch", "optimizer": "sgd", "lr": 0.16, "l2": 0.004, "affine_lr": 0.1},
        {"normalization": "batch", "optimizer": "adam", "lr": 0.009, "l2": 0.00081, "affine_lr": 0.003},
        {"normalization": "none", "optimizer": "nesterov", "lr": 0.02, "l2": 0.0, "affine_lr": 0.02},
    ]
    if not sources.DEBIAN_FOLDER.exists():
        pytest.skip("no Fashion-MNIST: install the Debian package dataset-fashion-mnist")
    plain_float32()
    files = tmp_path / "data.pt", tmp_path / "data.json"
    catalog.prepare("fashion-mnist-14", tmp_path, *files)
    splits = splits_for(dataset.load(*files), make_run(**sizes))
    errors = np.zeros((len(settings), 2, 2))  # setting, seed, engine or script
    for (k, changes), seed in product(enumerate(settings), range(2)):
        run = make_run(**sizes, **training, **changes, seed=200 + seed)
        rows = train_rows(run, splits)
        errors[k, seed, 0] = next(value for _, _, what, value in rows if what == "test_error")
        errors[k, seed, 1] = plain(run, splits, tmp_path, torch.float32)["test_error"]
    between_seeds = np.sqrt(errors.var(axis=1, ddof=1).mean())  # pooled over settings and both programs
    difference = errors.mean(axis=1)[:, 0] - errors.mean(axis=1)[:, 1]
    assert np.abs(difference).max() <= 2.5 * between_seeds, (errors, between_seeds)
    assert errors.max() < 0.4  # they have learned
