"""A training job in a process of its own, and a folder of results without a training."""

import json
from pathlib import Path

import pytest

from shared import Trainer


@pytest.fixture
def trainer(prepared: Path, tmp_path: Path) -> Trainer:
    return Trainer(prepared, tmp_path)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a scale in the working directory, beside the record of prepared data in the folder data."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data", "fashion-mnist-14.json").write_text(json.dumps({"sha256": "data"}))
    return Path("scale")
