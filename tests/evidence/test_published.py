"""Published results: written whole, taken into a run cache, compared with runs of one's own."""

import json
from itertools import islice
from pathlib import Path

import pandas as pd
import pytest
import torch
from effective_lr.analysis import Experiment, Tables
from effective_lr.config import Run, UserError
from effective_lr.data import Splits
from effective_lr.jobs import RunCache
from effective_lr.storage import read_table
from effective_lr.training import Training, batches, plain_float32

from conftest import make_run, train_or_reuse
from effective_lr import data, grid, published

ROOT = Path(__file__).parent.parent
CODE = grid.code_fingerprint(grid.TRAINING_SOURCES)
RUNS = [make_run(l2=l2, seed=seed) for l2 in (0.0, 0.1) for seed in (3, 4)]


@pytest.fixture
def results(tmp_path: Path, single: Splits) -> Path:
    """The folder of a scale, with all runs trained but the last."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "fashion-mnist-14.json").write_text(json.dumps({"sha256": "data"}))
    for run in RUNS[:-1]:
        train_or_reuse(run, single, tmp_path / "scale" / "runs", CODE, "data")
    return tmp_path / "scale"


def test_published_runs_come_back_as_they_were(results: Path, tmp_path: Path, single: Splits) -> None:
    train_or_reuse(RUNS[-1], single, results / "runs", CODE, "data")
    output = tmp_path / "published" / "study.parquet"
    said = published.publish(RUNS, results, output, partial=False)
    assert said.startswith(f"{output}: 4 of 4 runs, ")
    table, provenance = read_table(output)
    assert [record["run_id"] for record in provenance] == [run.run_id for run in RUNS]
    assert not any(record["reused"] for record in provenance)

    elsewhere = tmp_path / "other"
    assert published.reuse(output, elsewhere) == f"{elsewhere}/runs: 4 published runs added, 0 were there"
    assert published.reuse(output, elsewhere) == f"{elsewhere}/runs: 0 published runs added, 4 were there"
    for run in RUNS:
        mine = RunCache(results / "runs", CODE, "data").finished(run)
        found = RunCache(elsewhere / "runs", CODE, "data").finished(run)
        assert mine is not None and found is not None
        assert found[0].equals(mine[0])
        assert found[1] == mine[1]
    assert table.num_rows == sum(read_table(path)[0].num_rows for path in (elsewhere / "runs").glob("*.parquet"))


def test_an_unfinished_scale_is_not_published_by_mistake(results: Path, tmp_path: Path) -> None:
    output = tmp_path / "study.parquet"
    with pytest.raises(UserError) as refusal:
        published.publish(RUNS, results, output, partial=False)
    assert str(refusal.value) == (
        f"{results}/runs: 1 of 4 runs are not trained by the present code; train them first, or give --partial"
    )
    assert not output.exists()
    assert published.publish(RUNS, results, output, partial=True).startswith(f"{output}: 3 of 4 runs")


def tables(errors: dict[Run, float]) -> Tables:
    rows = [{**run.model_dump(), "run_id": run.run_id, "test_error": e, "diverged": None} for run, e in errors.items()]
    found = Tables([])
    found["plane"] = Experiment(pd.DataFrame(), pd.DataFrame(rows))
    return found


def test_comparison_tells_how_far_cells_are_apart_and_which_verdicts_differ() -> None:
    theirs = tables({RUNS[0]: 0.100, RUNS[1]: 0.102, RUNS[2]: 0.200, RUNS[3]: 0.202})
    mine = tables({RUNS[0]: 0.101, RUNS[1]: 0.101, RUNS[2]: 0.230, RUNS[3]: 0.230})
    one, other = ({"C1": {"title": "Invariance", "verdict": verdict}} for verdict in ("reproduced", "undecided"))
    text, agree = published.compare(mine, theirs, one, one)
    assert agree and "2 settings are in both" in text and "more than 3 in 1." in text
    assert "lr 0.05, l2 0.1, norm 1: 23.0 % against 20.1 % (+" in text and "DIFFERS" not in text
    text, agree = published.compare(mine, theirs, one, other)
    assert not agree
    assert text.splitlines()[-1].split() == ["C1", "Invariance", "reproduced", "undecided", "DIFFERS"]


def test_the_deviation_is_that_between_seeds() -> None:
    theirs = tables({RUNS[0]: 0.10, RUNS[1]: 0.12})
    mine = tables({RUNS[0]: 0.13, RUNS[1]: 0.15})
    [row] = published.compare_cells(mine.runs(), theirs.runs()).itertuples()
    assert row.deviations == pytest.approx(3 / 2**0.5)  # both deviations are √2 points: √(2·(½ + ½)) = √2


def test_without_a_common_setting_verdicts_alone_are_compared() -> None:
    text, agree = published.compare(tables({RUNS[0]: 0.1}), tables({RUNS[2]: 0.1}), {}, {})
    assert agree and text.startswith("No setting is in both")


def test_every_run_of_the_study_is_published_by_one_code() -> None:
    runs = grid.load_scale(ROOT / "config/scales", grid.PUBLISHED_SCALE).runs()
    _, provenance = read_table(ROOT / grid.PUBLISHED_TABLE)
    planned = {run.run_id for experiment in runs.values() for run in experiment}
    assert {record["run_id"] for record in provenance} == planned
    assert len({record["code"] for record in provenance}) == len({record["data"] for record in provenance}) == 1
    assert not [
        record["commit"] for record in provenance if "dirty" in record["commit"] or record["commit"] == "unknown"
    ]
    assert (ROOT / grid.PUBLISHED_TABLE).stat().st_size < 10_000_000


def test_a_fresh_run_begins_as_the_published_one(tmp_path: Path) -> None:
    """The first steps of three published runs, trained again. The tolerance is for other processors and libraries."""
    if not Path("/usr/share/datasets/fashion-mnist").exists():
        pytest.skip("no Fashion-MNIST: install the Debian package dataset-fashion-mnist")
    plain_float32()
    prepared = tmp_path / "data.pt", tmp_path / "data.json"
    data.prepare("fashion-mnist", 14, tmp_path, *prepared)
    table, provenance = read_table(ROOT / grid.PUBLISHED_TABLE)
    rows = table.to_pandas()
    for record in provenance[:: len(provenance) // 3][:3]:
        run = Run(**record["run"])
        training = Training(run, data.load(*prepared).subset(run.train_size, run.validation_size, run.test_size))
        for batch in islice(batches(run, torch.device("cpu")), 30):
            training.advance(batch)
        measured = {(step, layer, what): value for step, layer, what, value in training.rows}
        kept = rows[(rows["run_id"] == run.run_id) & (rows["step"] <= 30) & (rows["quantity"] == "norm_squared")]
        assert len(kept) > 40
        for row in kept.itertuples():
            assert measured[row.step, row.layer, row.quantity] == pytest.approx(row.value, rel=0.01)


def test_a_damaged_table_is_refused(results: Path, tmp_path: Path) -> None:
    output = tmp_path / "study.parquet"
    published.publish(RUNS, results, output, partial=True)
    content = bytearray(output.read_bytes())
    content[len(content) // 3] ^= 1
    output.write_bytes(content)
    with pytest.raises(UserError, match=r"study\.parquet: damaged"):
        published.reuse(output, tmp_path / "other")
