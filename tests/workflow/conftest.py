"""Copies of the repository: with nothing made, with all made by stand-ins, with the smoke scale made for real."""

import fcntl
import json
import shutil
from pathlib import Path

import pytest
import torch

from checkouts import Checkout
from effective_lr.prepare.prepared import sha256
from effective_lr.studies.normalization.settings import VALIDATION_SIZE

# Plans depend on files, times and records alone, so the jobs behind them may write their outputs and nothing else.
# Python imports a sitecustomize from PYTHONPATH at its start, which in a job is the folder of the package.
STAND_IN = """
import os, pathlib, sys

OUTPUTS = {
    "prepare": ["--tensors", "--record"], "train": ["--output"], "gather": ["--metrics", "--runs"],
    "checks": ["--output"], "claim": ["--output"], "figure": ["--pdf", "--png"], "table": ["--latex", "--html"],
    "numbers": ["--output"], "page": ["--output"], "explore": ["--output"], "crate": ["--output"],
    "notebook": ["--executed", "--notebook", "--page"], "frame": ["--build"], "pdf": ["--build"],
}
INSIDE = {
    "frame": ["chapters.tex", "paper/numbers.tex", "paper/overview.tex", "paper/origins.tex"],
    "pdf": ["main.pdf"],
}
words = sys.orig_argv
command = words[words.index("-m") + 2] if "effective_lr" in words else ""
if command in OUTPUTS:
    if os.environ.get("BROKEN") == command:
        os._exit(1)
    for option in OUTPUTS[command]:
        path = pathlib.Path(words[words.index(option) + 1])
        for file in [path / name for name in INSIDE.get(command, [])] or [path]:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(command)
    os._exit(0)
"""


@pytest.fixture
def fresh(tmp_path: Path) -> Checkout:
    """A copy in which nothing was made yet."""
    return Checkout.new(tmp_path / "fresh")


@pytest.fixture(scope="session")
def stood_in(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy in which stand-ins made everything; tests only read it."""
    checkout = Checkout.new(tmp_path_factory.mktemp("stood_in") / "copy")
    (checkout.root / "workflow" / "sitecustomize.py").write_text(STAND_IN)
    checkout.build(cores=2)
    return checkout


@pytest.fixture
def finished(stood_in: Checkout, tmp_path: Path) -> Checkout:
    """A copy in which everything was made, by stand-ins."""
    return stood_in.copy(tmp_path / "finished")


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy in which the smoke scale was made, once for all workers of pytest-xdist; tests only read it."""
    if not (shutil.which("latexmk") or shutil.which("tectonic")):
        pytest.skip("no LaTeX: install latexmk or tectonic")
    if not Path("/usr/share/datasets/fashion-mnist").exists():
        pytest.skip("no Fashion-MNIST: install the Debian package dataset-fashion-mnist")
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "popen-gw" in shared.name else shared
    with (shared / "smoke.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (shared / "smoke").exists():
            return Checkout(shared / "smoke")
        checkout = Checkout.new(shared / "smoke-unfinished")
        checkout.build("all", cores=2)
        checkout.root.rename(shared / "smoke")
        return Checkout(shared / "smoke")


@pytest.fixture
def real(fresh: Checkout) -> Checkout:
    """A fresh copy with prepared data of noise, and no stand-ins."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"{split}_{what}": torch.randn(n, 1, 14, 14, generator=generator) if what == "images" else torch.arange(n) % 10
        for split, n in [("train", 640 + VALIDATION_SIZE), ("test", 200)]
        for what in ("images", "labels")
    }
    folder = fresh.root / "results" / "data"
    folder.mkdir(parents=True)
    torch.save(tensors, folder / "fashion-mnist-14.pt")
    (folder / "fashion-mnist-14.json").write_text(json.dumps({"sha256": sha256(tensors)}))
    return fresh
