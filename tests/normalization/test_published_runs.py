"""Published runs begin as the present code trains them."""

from itertools import islice
from pathlib import Path

import pytest
import torch

from effective_lr.engine.contents import published_table
from effective_lr.engine.storage import read_table
from effective_lr.prepare import catalog, dataset, sources
from effective_lr.studies.normalization.settings import Run
from effective_lr.studies.normalization.training import Training, batches, load
from shared import CPU, ROOT, STUDY


def test_a_fresh_run_begins_as_the_published_one(tmp_path: Path) -> None:
    """The first steps of three published runs, trained again. The tolerance is for other processors and libraries."""
    if not sources.DEBIAN_FOLDER.exists():
        pytest.skip("no Fashion-MNIST: install the Debian package dataset-fashion-mnist")
    files = tmp_path / "data.pt", tmp_path / "data.json"
    catalog.prepare("fashion-mnist-14", tmp_path, *files)
    tensors = dataset.load(*files)
    table, provenance = read_table(published_table(ROOT, STUDY.name, "study"))
    rows = table.to_pandas()
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
