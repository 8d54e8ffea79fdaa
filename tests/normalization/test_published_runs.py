"""The published runs of the study: found by the present code, trained by its engine, within what jobs ask for."""

from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from effective_lr.engine import grid
from effective_lr.engine.code import training_key
from effective_lr.engine.contents import published_table
from effective_lr.engine.storage import Provenance, read_table
from effective_lr.prepare import catalog, dataset, sources
from effective_lr.studies.normalization.settings import Run
from effective_lr.studies.normalization.training import Training, batches, load
from shared import CPU, ROOT, STUDY

TABLE = published_table(ROOT, STUDY.name, "study")


@pytest.fixture(scope="module")
def published() -> tuple[pd.DataFrame, list[Provenance]]:
    table, provenance = read_table(TABLE)
    return table.to_pandas(), provenance


def test_the_present_code_finds_every_published_run(published: Any) -> None:
    _, provenance = published
    key = training_key(STUDY)
    for record in provenance:
        run = Run(**record.run)
        assert run.run_id == record.run_id
        assert run.key(key, record.data_sha256) == record.run_key
    _, experiments = grid.load_scale(ROOT / "config" / STUDY.name, TABLE.stem, STUDY)
    assert {record.run_id for record in provenance} == {run.run_id for run in grid.unique(experiments)}


def test_published_runs_are_of_one_clean_code(published: Any) -> None:
    _, provenance = published
    assert len({record.code_key for record in provenance}) == len({record.data_sha256 for record in provenance}) == 1
    assert not [record for record in provenance if "dirty" in record.commit or record.commit == "unknown"]
    assert TABLE.stat().st_size < 10_000_000


def test_a_fresh_run_begins_as_the_published_one(published: Any, tmp_path: Path) -> None:
    """The first steps of three published runs, trained again. The tolerance is for other processors and libraries."""
    if not sources.DEBIAN_FOLDER.exists():
        pytest.skip("no Fashion-MNIST: install the Debian package dataset-fashion-mnist")
    files = tmp_path / "data.pt", tmp_path / "data.json"
    catalog.prepare("fashion-mnist-14", tmp_path, *files)
    tensors = dataset.load(*files)
    rows, provenance = published
    for record in provenance[:: len(provenance) // 3][:3]:
        assert record.data_sha256 == dataset.sha256(tensors)
        run = Run(**record.run)
        training = Training(run, load(tensors, run, CPU))
        for batch in islice(batches(run, torch.device("cpu")), 30):
            training.advance(batch)
        measured = {(step, layer, what): value for step, layer, what, value in training.rows}
        kept = rows[(rows["run_id"] == run.run_id) & (rows["step"] <= 30) & (rows["quantity"] == "norm_squared")]
        assert len(kept) > 40
        for row in kept.itertuples():
            assert measured[row.step, row.layer, row.quantity] == pytest.approx(row.value, rel=0.01)
