"""Copies of the repository: with nothing made, with all made by stand-ins, with the smoke scale made for real."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from checkouts import Checkout
from effective_lr.prepare.dataset import sha256
from effective_lr.studies.normalization.settings import VALIDATION_SIZE


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Checkout]:
    """A copy in which these targets were made, once for all workers of pytest-xdist; tests only read it."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared

    def once(name: str, *targets: str, stands_in: bool = False) -> Checkout:
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (shared / name).exists():
                checkout = Checkout.new(shared / f"{name}-unfinished", stands_in)
                if targets:
                    checkout.build(*targets, cores=2)
                checkout.root.rename(shared / name)
        return Checkout(shared / name, stands_in)

    return once


@pytest.fixture(scope="session")
def untouched(once: Callable[..., Checkout]) -> Checkout:
    """A copy in which nothing was made yet; tests only plan in it."""
    return once("untouched")


@pytest.fixture
def fresh(untouched: Checkout, tmp_path: Path) -> Checkout:
    """A copy in which nothing was made yet."""
    return untouched.copy(tmp_path / "fresh")


@pytest.fixture
def finished(once: Callable[..., Checkout], tmp_path: Path) -> Checkout:
    """A copy in which everything was made, by stand-ins."""
    return once("finished", "all", "notebooks", "explore", stands_in=True).copy(tmp_path / "finished")


@pytest.fixture(scope="session")
def smoke(once: Callable[..., Checkout]) -> Checkout:
    """A copy in which the smoke scale was made for real."""
    if not (shutil.which("latexmk") or shutil.which("tectonic")):
        pytest.skip("no LaTeX: install latexmk or tectonic")
    if not Path("/usr/share/datasets/fashion-mnist").exists():
        pytest.skip("no Fashion-MNIST: install the Debian package dataset-fashion-mnist")
    return once("smoke", "all")


@pytest.fixture
def real(fresh: Checkout) -> Checkout:
    """A fresh copy with prepared data of noise, and no stand-ins."""
    tensors = {}
    for split, size in (("train", 640 + VALIDATION_SIZE), ("test", 200)):
        tensors[f"{split}_images"] = torch.randn(size, 1, 14, 14, generator=torch.Generator().manual_seed(0))
        tensors[f"{split}_labels"] = torch.arange(size) % 10
    folder = fresh.root / "results/data"
    folder.mkdir(parents=True)
    torch.save(tensors, folder / "fashion-mnist-14.pt")
    (folder / "fashion-mnist-14.json").write_text(json.dumps({"sha256": sha256(tensors)}))
    return fresh
