"""Published results: written whole, taken into a run cache, and beside them what they decide."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from effective_lr.engine import grid
from effective_lr.engine.code import training_key
from effective_lr.engine.contents import (
    Chapter,
    Claim,
    Contents,
    load_chapter,
    published_claims,
    published_scales,
    published_table,
)
from effective_lr.engine.jobs import RunCache
from effective_lr.engine.storage import read_table
from effective_lr.engine.study import names
from effective_lr.errors import UserError
from effective_lr.evidence import published
from effective_lr.evidence.comparison import compare_with_published
from effective_lr.studies.normalization.data import Splits
from shared import ROOT, SMALL, STUDY, make_run, train_or_reuse

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


def claim(*experiments: str) -> Claim:
    part = {"subject": "batch", "statistic": "invariance", "within": [0, 1]}
    about = dict.fromkeys(("title", "claim", "original", "shown", "reason"), "")
    return Claim(**about, experiments=list(experiments), parts=[part])


CLAIMING = replace(CHAPTER, claims={"C1": claim(), "C2": claim("plane")})


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
    pd.DataFrame(columns=["check", "subject", "value"]).to_parquet(results / "checks.parquet")
    output = published_table(Path("root"), STUDY.name, "scale")
    assert f"{output}: 4 of 4 runs" in published.publish(Path("root"), CHAPTER, "scale", partial=False)
    table, provenance = read_table(output)
    assert [record.run_id for record in provenance] == [run.run_id for run in RUNS]
    assert not any(record.reused or record.host for record in provenance)
    assert output.with_name("checks.parquet").read_bytes() == (results / "checks.parquet").read_bytes()

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


def test_what_is_published_lies_beside_what_it_decides(results: Path) -> None:
    """A claim is decided where all its runs are published; one that rests on others is left out."""
    published.publish(Path("root"), CLAIMING, "scale", partial=True)
    decided = published.read_claims(Path("root"), STUDY.name, "scale")
    assert decided == published.decide_published(Path("root"), CLAIMING, "scale")
    assert {name: (claim["verdict"], claim["seeds"]) for name, claim in decided.items()} == {"C1": ("undecided", 0)}
    published_claims(Path("root"), STUDY.name, "scale").unlink()
    with pytest.raises(UserError, match="make pages"):
        published.read_claims(Path("root"), STUDY.name, "scale")


def test_a_scale_or_a_part_of_it_is_compared_with_what_is_published(results: Path) -> None:
    published.publish(Path("root"), CLAIMING, "scale", partial=True)
    with pytest.raises(UserError, match="no training"):
        compare_with_published(Path("root"), CLAIMING, "scale")
    (results / "shards").mkdir()
    table = published_table(Path("root"), STUDY.name, "scale")
    shutil.copy(table, results / "shards" / f"{next(iter(CLAIMING.shards))}.parquet")
    told, agree = compare_with_published(Path("root"), CLAIMING, "scale")
    assert "2 of 2 means of cells" in told and "same seeds" in told
    assert not agree and "not decided" in told  # the claims of the run are missing
    (results / "claims").mkdir()
    decided = published.read_claims(Path("root"), STUDY.name, "scale")
    (results / "claims" / "C1.json").write_text(json.dumps(decided["C1"]))
    told, agree = compare_with_published(Path("root"), CLAIMING, "scale")
    assert agree and "not decided" not in told


@pytest.mark.parametrize(
    ("old", "new", "alike"),
    [
        ({"value": 1.0, "low": None}, {"value": 1.0 + 1e-9, "low": None}, True),
        ({"parts": [[0.0, float("nan")]]}, {"parts": [(1e-17, float("nan"))]}, True),
        ({"value": 1.0}, {"value": 1.0001}, False),
        ({"value": 1.0}, {"value": None}, False),
        ({"value": 1.0}, {"value": 1.0, "low": 1.0}, False),
        ({"parts": [1.0]}, {"parts": [1.0, 2.0]}, False),
        ({"verdict": "reproduced"}, {"verdict": "undecided"}, False),
    ],
)
def test_claims_are_alike_but_for_the_last_digits(old: Any, new: Any, alike: bool) -> None:
    assert published.are_alike(old, new) == alike


def test_verdicts_are_not_written_anew_for_the_last_digits(results: Path) -> None:
    published.publish(Path("root"), CLAIMING, "scale", partial=True)
    path = published_claims(Path("root"), STUDY.name, "scale")
    text = path.read_text() + "\n"  # to be told from one that was written
    path.write_text(text)
    published.write_claims(Path("root"), CLAIMING, "scale")
    assert path.read_text() == text
    path.write_text(text.replace("undecided", "reproduced"))
    published.write_claims(Path("root"), CLAIMING, "scale")
    assert path.read_text() == text[:-1]


PUBLISHED = [(study, scale) for study in names() for scale in published_scales(ROOT, study)]


@pytest.mark.parametrize(("study", "scale"), PUBLISHED)
def test_the_committed_verdicts_are_those_of_the_committed_tables(study: str, scale: str) -> None:
    committed = published.read_claims(ROOT, study, scale)
    decided = published.decide_published(ROOT, load_chapter(ROOT, study, scale), scale)
    assert published.are_alike(committed, decided), "type `make pages`"
