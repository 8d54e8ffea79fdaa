"""A training job in a process of its own."""

from pathlib import Path

import pytest

from shared import Trainer


@pytest.fixture
def trainer(prepared: Path, tmp_path: Path) -> Trainer:
    return Trainer(prepared, tmp_path)
