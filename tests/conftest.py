"""Fixtures that several folders share: small data in memory and in files, and a folder of results. What is imported is
in shared.py."""

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from effective_lr.prepare.dataset import sha256
from effective_lr.studies.normalization.data import Splits
from shared import SMALL, STUDY, Trainer, tensors_of

torch.set_num_threads(1)  # as in training: sums of floats depend on the number of threads


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """Give pytest its handlers of signals back, which a job replaces."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def small_splits() -> Splits:
    """Images (N, 1, 14, 14) in float64, of the sizes of a small run: a pattern for each class, and noise."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(10, 1, 14, 14, generator=generator, dtype=torch.float64)

    def split(name: str) -> tuple[Tensor, Tensor]:
        labels = torch.randint(10, (SMALL[name],), generator=generator)
        noise = torch.randn(SMALL[name], 1, 14, 14, generator=generator, dtype=torch.float64)
        return patterns[labels] + noise, labels

    return Splits(*split("train_size"), *split("validation_size"), *split("test_size"))


@pytest.fixture(scope="session")
def single(small_splits: Splits) -> Splits:
    """The small data in float32, as the product trains."""
    names = ("train_images", "validation_images", "test_images")
    return replace(small_splits, **{name: getattr(small_splits, name).float() for name in names})


@pytest.fixture(scope="session")
def prepared(single: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prepared data of the small sizes: data.pt and data.json."""
    folder = tmp_path_factory.mktemp("prepared")
    tensors = tensors_of(single)
    torch.save(tensors, folder / "data.pt")
    (folder / "data.json").write_text(json.dumps({"sha256": sha256(tensors)}))
    return folder


@pytest.fixture
def trainer(prepared: Path, tmp_path: Path) -> Trainer:
    return Trainer(prepared, tmp_path)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a study at a scale, in a new working directory that has a record of prepared data."""
    monkeypatch.chdir(tmp_path)
    Path("results/data").mkdir(parents=True)
    Path("results/data/fashion-mnist-14.json").write_text(json.dumps({"sha256": "data"}))
    return Path("results/scale", STUDY.name)
