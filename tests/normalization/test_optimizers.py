"""Training against plain PyTorch in float64, and in float32 on real images; and against what was published."""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import plain_pytorch
from effective_lr.engine.contents import published_table
from effective_lr.engine.storage import read_table
from effective_lr.prepare import catalog, dataset, sources
from effective_lr.studies.normalization.data import Splits, splits_for
from effective_lr.studies.normalization.networks import build_network, normalized_layers
from effective_lr.studies.normalization.settings import Run
from effective_lr.studies.normalization.training import Training, batches, load, plain_float32, train
from shared import CPU, INVARIANT, NORMALIZATIONS, OPTIMIZERS, ROOT, STUDY, make_run, train_rows
from twins import Plain

CASES = [
    *({"normalization": name, "optimizer": rule, "steps": 50} for name in NORMALIZATIONS for rule in OPTIMIZERS),
    *(
        {"normalization": name, "optimizer": rule, "l2": 0.2, "momentum": 0.8, **affine}
        for name in ("batch", "weight", "none")
        for rule in OPTIMIZERS
        for affine in ({"affine_lr": "shared"}, *({"affine_l2": layers} for layers in ("hidden", "last", "all")))
    ),
    *({"optimizer": rule, "layer_l2": "inverse_size"} for rule in OPTIMIZERS),
    *({"normalization": name, "projected": True, "lr": 0.5, "l2": 0.3} for name in INVARIANT),
    {"optimizer": "rmsprop", "corrected_squares": True},
    *({"affine_lr": "frozen", "affine_l2": layers} for layers in ("none", "all")),
    {"leak": 0.1},
]


def test_losses_errors_and_parameters_are_those_of_plain_pytorch(small_splits: Splits) -> None:
    for changes in CASES:
        usual = {"lr": 0.02, "l2": 0.02, "affine_lr": 0.01, "steps": 4, "probes": 500, "evaluations": 1}
        run = make_run(**usual | changes)
        plain, training = Plain(run), train(run, small_splits, dtype=torch.float64)
        losses, errors = zip(*(plain.step(small_splits, batch) for batch in batches(run, CPU)), strict=True)
        found = [value for _, _, quantity, value in training.rows if quantity == "train_loss"]
        assert found == pytest.approx(losses, rel=1e-10), changes
        assert run.steps < 50 or losses[-1] < losses[0]
        [late_error] = [value for _, _, quantity, value in training.rows if quantity == "late_train_error"]
        assert late_error == pytest.approx(np.mean(errors[run.steps // 2 :])), changes
        for (_, layer), theirs in zip(training.layers, plain.parameters, strict=True):
            for mine, their in zip((layer.weight, layer.gamma, layer.beta), theirs, strict=True):
                if mine is not None:
                    torch.testing.assert_close(mine, their.view_as(mine), rtol=1e-9, atol=1e-11, msg=str(changes))


@pytest.fixture(scope="module")
def fashion(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The prepared Fashion-MNIST."""
    if not sources.DEBIAN_FOLDER.exists():
        pytest.skip("no Fashion-MNIST: install the Debian package dataset-fashion-mnist")
    folder = tmp_path_factory.mktemp("fashion")
    files = folder / "data.pt", folder / "data.json"
    catalog.prepare("fashion-mnist-14", folder, *files)
    return dataset.load(*files)


def test_a_fresh_run_begins_as_the_published_one(fashion: dict[str, torch.Tensor]) -> None:
    """The first steps of three published runs, trained again. The tolerance is for other processors and libraries."""
    table, provenance = read_table(published_table(ROOT, STUDY.name, "study"))
    rows = table.to_pandas()
    for record in provenance[:: len(provenance) // 3][:3]:
        assert record.data_sha256 == dataset.sha256(fashion)
        run = Run(**record.run)
        training = Training(run, load(fashion, run, CPU))
        for batch in itertools.islice(batches(run, CPU), 30):
            training.advance(batch)
        measured = {(step, layer, what): value for step, layer, what, value in training.rows}
        kept = rows[(rows["run_id"] == run.run_id) & (rows["step"] <= 30) & (rows["quantity"] == "norm_squared")]
        assert len(kept) > 40
        for row in kept.itertuples():
            assert measured[row.step, row.layer, row.quantity] == pytest.approx(row.value, rel=0.01)


def error_of_script(run: Run, splits: Splits, folder: Path) -> float:
    """The test error of plain_pytorch.py in a process of its own, from the same start, on the same batches."""
    start = [layer.weight.detach() for _, layer in normalized_layers(build_network(run))]
    np.savez(
        folder / "input.npz",
        run=json.dumps(run.model_dump()),
        images=splits.train_images.numpy(),
        labels=splits.train_labels.numpy(),
        test_images=splits.test_images.numpy(),
        test_labels=splits.test_labels.numpy(),
        batches=torch.stack(list(batches(run, CPU))).numpy(),
        **{f"weight{k}": weight.contiguous().numpy() for k, weight in enumerate(start)},
    )
    # -I: neither the folder of the tests nor PYTHONPATH leads to the package.
    command = [sys.executable, "-I", plain_pytorch.__file__, str(folder / "input.npz"), str(folder / "output.json")]
    subprocess.run(command, check=True)
    found = json.loads((folder / "output.json").read_text())
    assert found["package"] == []
    return float(found["test_error"])


@pytest.mark.slow
def test_errors_in_float32_are_those_of_the_script(fashion: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """Three settings with two seeds: rounding parts the runs, but no further than another seed would."""
    sizes = {"train_size": 12800, "validation_size": 100, "test_size": 5000, "statistics_size": 2048}
    training = {"width": 16, "batch_size": 64, "steps": 500, "probes": 2, "evaluations": 1, "late_fraction": 0.1}
    kinds: list[dict[str, Any]] = [
        {"normalization": "batch", "optimizer": "sgd", "lr": 0.16, "l2": 0.004, "affine_lr": 0.1},
        {"normalization": "batch", "optimizer": "adam", "lr": 0.009, "l2": 0.00081, "affine_lr": 0.003},
        {"normalization": "none", "optimizer": "nesterov", "lr": 0.02, "l2": 0.0, "affine_lr": 0.02},
    ]
    plain_float32()
    splits = splits_for(fashion, make_run(**sizes))
    errors = np.zeros((len(kinds), 2, 2))  # setting, seed, engine or script
    for (k, changes), seed in itertools.product(enumerate(kinds), range(2)):
        run = make_run(**sizes, **training, **changes, seed=200 + seed)
        rows = train_rows(run, splits)
        errors[k, seed, 0] = next(value for _, _, what, value in rows if what == "test_error")
        errors[k, seed, 1] = error_of_script(run, splits, tmp_path)
    between_seeds = np.sqrt(errors.var(axis=1, ddof=1).mean())  # pooled over settings and both programs
    difference = errors.mean(axis=1)[:, 0] - errors.mean(axis=1)[:, 1]
    assert np.abs(difference).max() <= 2.5 * between_seeds, (errors, between_seeds)
    assert errors.max() < 0.4  # they have learned
