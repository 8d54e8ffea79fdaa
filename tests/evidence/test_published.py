"""Published results: written whole, taken into a run cache, compared with runs of one's own."""

import json
from pathlib import Path

import pandas as pd
import pytest

from effective_lr.engine import grid
from effective_lr.engine.code import training_key
from effective_lr.engine.contents import Chapter, Contents, published_table
from effective_lr.engine.jobs import RunCache
from effective_lr.engine.storage import read_table
from effective_lr.errors import UserError
from effective_lr.evidence import published
from effective_lr.evidence.tidy import Experiment, Tables
from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.settings import Run
from shared import SMALL, STUDY, make_run, train_or_reuse

CODE = training_key(STUDY)
RUNS = [make_run(l2=l2, seed=seed) for l2 in (0.0, 0.1) for seed in (3, 4)]
CHAPTER = Chapter(
    STUDY,
    grid.Scale(about="", defaults=SMALL, experiments={}),
    {"plane": RUNS},
    grid.shards(RUNS),
    Contents(order=1),
    {},
)


@pytest.fixture
def results(tmp_path: Path, single: Splits, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a study at a scale, with all runs trained but the last, in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("results/data").mkdir(parents=True)
    Path("results/data/fashion-mnist-14.json").write_text(json.dumps({"sha256": "data"}))
    results = Path("results/scale") / STUDY.name
    for run in RUNS[:-1]:
        train_or_reuse(run, single, results / "runs", CODE, "data")
    return results


def test_published_runs_come_back_as_they_were(results: Path, single: Splits) -> None:
    train_or_reuse(RUNS[-1], single, results / "runs", CODE, "data")
    (results / "checks.parquet").write_bytes(b"checks")
    output = published_table(Path("root"), STUDY.name, "scale")
    assert f"{output}: 4 of 4 runs" in published.publish(Path("root"), CHAPTER, "scale", partial=False)
    table, provenance = read_table(output)
    assert [record.run_id for record in provenance] == [run.run_id for run in RUNS]
    assert not any(record.reused or record.host for record in provenance)
    assert output.with_name("checks.parquet").read_bytes() == b"checks"

    elsewhere = Path("other")
    assert "4 published runs added, 0 were there" in published.reuse(output, elsewhere)
    assert "0 published runs added, 4 were there" in published.reuse(output, elsewhere)
    for run in RUNS:
        mine = RunCache(results / "runs", CODE, "data").finished(run)
        found = RunCache(elsewhere / "runs", CODE, "data").finished(run)
        assert mine is not None and found is not None
        assert found[0].equals(mine[0])
        assert found[1] == mine[1].model_copy(update={"host": ""})
    assert table.num_rows == sum(read_table(path)[0].num_rows for path in (elsewhere / "runs").glob("*.parquet"))


def test_an_unfinished_scale_is_not_published_by_mistake(results: Path) -> None:
    with pytest.raises(UserError, match=f"{results}/runs: 1 of 4 runs .*--partial"):
        published.publish(Path("root"), CHAPTER, "scale", partial=False)
    assert not Path("root").exists()
    assert "3 of 4 runs" in published.publish(Path("root"), CHAPTER, "scale", partial=True)


def test_a_damaged_table_is_refused(results: Path) -> None:
    published.publish(Path("root"), CHAPTER, "scale", partial=True)
    output = published_table(Path("root"), STUDY.name, "scale")
    content = bytearray(output.read_bytes())
    content[len(content) // 3] ^= 1
    output.write_bytes(content)
    with pytest.raises(UserError, match=f"{output}: damaged"):
        published.reuse(output, Path("other"))


def tables(errors: dict[Run, float]) -> Tables:
    rows = [{**run.model_dump(), "run_id": run.run_id, "test_error": e, "diverged": None} for run, e in errors.items()]
    return Tables.of({"plane": Experiment(pd.DataFrame(), pd.DataFrame(rows))})


def test_comparison_tells_how_far_cells_are_apart_and_which_verdicts_differ() -> None:
    theirs = tables({RUNS[0]: 0.100, RUNS[1]: 0.102, RUNS[2]: 0.200, RUNS[3]: 0.202})
    mine = tables({RUNS[0]: 0.101, RUNS[1]: 0.101, RUNS[2]: 0.230, RUNS[3]: 0.230})
    one, other = ({"C1": {"title": "Invariance", "verdict": verdict}} for verdict in ("reproduced", "undecided"))
    text, agree = published.compare(STUDY, mine, theirs, one, one)
    assert agree and "DIFFERS" not in text
    assert text.count("0.23 against 0.201 (+") == 1 and "0.1 against" not in text  # the far setting alone is shown
    text, agree = published.compare(STUDY, mine, theirs, one, other)
    assert not agree
    assert text.splitlines()[-1].split() == ["C1", "Invariance", "reproduced", "undecided", "DIFFERS"]


def test_the_deviation_is_that_between_seeds() -> None:
    theirs = tables({RUNS[0]: 0.10, RUNS[1]: 0.12})
    mine = tables({RUNS[0]: 0.13, RUNS[1]: 0.15})
    [row] = published.compare_cells(STUDY, mine.runs(), theirs.runs()).itertuples()
    assert row.deviations == pytest.approx(3 / 2**0.5)  # both deviations are √2 points: √(2·(½ + ½)) = √2


def test_without_a_common_setting_verdicts_alone_are_compared() -> None:
    text, agree = published.compare(STUDY, tables({RUNS[0]: 0.1}), tables({RUNS[2]: 0.1}), {}, {})
    assert agree and " against " not in text
