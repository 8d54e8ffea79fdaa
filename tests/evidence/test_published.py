"""Published results: written whole, taken into a run cache, and beside them what they decide."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from effective_lr.engine.code import training_key
from effective_lr.engine.contents import Claim, published_scales, published_table
from effective_lr.engine.jobs import RunCache
from effective_lr.engine.storage import read_provenance, read_table
from effective_lr.engine.study import load, names
from effective_lr.errors import UserError
from effective_lr.evidence import published, tidy
from effective_lr.evidence.comparison import compare
from effective_lr.studies.normalization.data import Splits
from shared import ROOT, STUDY, chapter_of, decided, layout_of, make_run, published_layout, train_or_reuse

CODE = training_key(STUDY)
RUNS = [make_run(l2=l2, seed=seed, steps=5, evaluations=1) for l2 in (0.0, 0.1) for seed in (3, 4)]


def claim(*experiments: str) -> Claim:
    part = {"subject": "batch", "check": "exact", "within": [0, 1]}
    about = dict.fromkeys(("title", "claim", "original", "shown", "reason"), "")
    return Claim(**about, experiments=list(experiments), parts=[part])


CHAPTER = chapter_of({"plane": RUNS}, {"C1": claim(), "C2": claim("plane")})
LAYOUT = layout_of(CHAPTER)
OUTPUT = LAYOUT.published(STUDY.name)


@pytest.fixture
def unfinished(results: Path, single: Splits) -> Path:
    """The folder of a study at a scale, with all runs trained but the last."""
    tidy._read_once.cache_clear()  # another test has a table of the same name in another working directory
    for run in RUNS[:-1]:
        train_or_reuse(run, single, results / "runs", CODE, "data")
    return results


def test_published_runs_come_back_as_they_were(unfinished: Path, single: Splits) -> None:
    train_or_reuse(RUNS[-1], single, unfinished / "runs", CODE, "data")
    pd.DataFrame(columns=["check", "subject", "value"]).to_parquet(unfinished / "checks.parquet")
    assert f"{OUTPUT}: 4 of 4 runs" in published.publish(LAYOUT, STUDY.name, partial=False)
    _, provenance = read_table(OUTPUT)
    assert [record.run_id for record in provenance] == [run.run_id for run in RUNS]
    assert not any(record.reused or record.host for record in provenance)
    assert OUTPUT.with_name("checks.parquet").read_bytes() == (unfinished / "checks.parquet").read_bytes()

    kept = (unfinished / "runs").rename("kept")
    assert "4 published runs added, 0 were there" in published.reuse(LAYOUT, STUDY.name)
    assert "0 published runs added, 4 were there" in published.reuse(LAYOUT, STUDY.name)
    for run in RUNS:
        mine, found = (RunCache(folder, CODE, "data").finished(run) for folder in (kept, unfinished / "runs"))
        assert mine is not None and found is not None
        assert found[0].equals(mine[0])
        assert found[1] == mine[1].model_copy(update={"host": ""})

    content = OUTPUT.read_bytes()
    OUTPUT.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=f"{OUTPUT}: damaged"):
        published.reuse(LAYOUT, STUDY.name)


def test_an_unfinished_scale_is_not_published_by_mistake(unfinished: Path) -> None:
    with pytest.raises(UserError, match=f"{unfinished}/runs: 1 of 4 runs .*--partial"):
        published.publish(LAYOUT, STUDY.name, partial=False)
    assert not Path("root").exists()
    assert "3 of 4 runs" in published.publish(LAYOUT, STUDY.name, partial=True)


def test_what_is_published_lies_beside_what_it_decides_and_a_run_is_compared_with_it(
    unfinished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A claim is decided where all its runs are published; one that rests on others is left out."""
    published.publish(LAYOUT, STUDY.name, partial=True)
    found = published.read_claims(LAYOUT, STUDY.name)
    assert found == published.decide_published(LAYOUT, STUDY.name)
    assert {name: (claim["verdict"], claim["seeds"]) for name, claim in found.items()} == {"C1": ("undecided", 0)}
    assert compare(replace(LAYOUT, root=Path("other")), STUDY.name) == 0
    assert "nothing is published" in capsys.readouterr().out
    with pytest.raises(UserError, match="no finished training"):
        compare(LAYOUT, STUDY.name)
    (unfinished / "jobs").mkdir()
    shutil.copy(OUTPUT, unfinished / "jobs" / "plane-1.parquet")
    assert compare(LAYOUT, STUDY.name) == 0  # no experiment is whole: C1 rests on none
    text = capsys.readouterr().out
    assert "C1" in text and "C2" not in text

    path = LAYOUT.published_claims(STUDY.name)
    text = path.read_text() + "\n"  # by which it differs from one that was written
    path.write_text(text)
    published.write_claims(LAYOUT, STUDY.name)
    assert path.read_text() == text
    path.write_text(text.replace("undecided", "reproduced"))
    published.write_claims(LAYOUT, STUDY.name)
    assert path.read_text() == text[:-1]
    path.unlink()
    with pytest.raises(UserError, match="make docs"):
        published.read_claims(LAYOUT, STUDY.name)


def test_a_whole_run_agrees_with_what_is_published(
    unfinished: Path, single: Splits, capsys: pytest.CaptureFixture[str]
) -> None:
    train_or_reuse(RUNS[-1], single, unfinished / "runs", CODE, "data")
    published.publish(LAYOUT, STUDY.name, partial=False)
    (unfinished / "jobs").mkdir()
    shutil.copy(OUTPUT, unfinished / "jobs" / "plane-1.parquet")
    assert compare(LAYOUT, STUDY.name) == 0 and "not decided" not in capsys.readouterr().out


def test_claims_are_alike_but_for_the_last_digits() -> None:
    cases: list[tuple[Any, Any, bool]] = [
        ({"value": 1.0, "low": None}, {"value": 1.0 + 1e-9, "low": None}, True),
        ({"parts": [[0.0, None]]}, {"parts": [(1e-17, None)]}, True),
        ({"value": 1.0}, {"value": 1.0001}, False),
        ({"value": 1.0}, {"value": None}, False),
        ({"value": 1.0}, {"value": 1.0, "low": 1.0}, False),
        ({"parts": [1.0]}, {"parts": [1.0, 2.0]}, False),
        ({"verdict": "reproduced"}, {"verdict": "undecided"}, False),
    ]
    for old, new, alike in cases:
        assert published.are_alike(old, new) == alike, (old, new)


def test_the_committed_verdicts_are_those_of_the_committed_tables() -> None:
    for study in names():
        for scale in published_scales(ROOT, study):
            committed = published.read_claims(published_layout(scale), study)
            assert published.are_alike(committed, decided(study, scale)), f"{study} {scale}: type `make docs`"


def test_the_present_code_finds_every_published_run_and_they_are_of_one_clean_code() -> None:
    """At every scale: a change of one grid reaches those that are based on it."""
    tables = [(load(name), scale) for name in names() for scale in published_scales(ROOT, name)]
    for study, scale in tables:
        key, path = training_key(study), published_table(ROOT, study.name, scale)
        records, planned = read_provenance(path), published_layout(scale).chapters[study.name].runs
        for record in records:
            run = study.run(**record.run)
            assert run.run_id == record.run_id and run.key(key, record.data_sha256) == record.run_key
        there = {record.run_id for record in records}
        assert there <= {run.run_id for run in planned}, path
        assert {study.data(run) for run in planned if run.run_id not in there} <= study.optional_data, path
        assert not [record for record in records if "dirty" in record.commit or record.commit == "unknown"]
        assert len({record.code_key for record in records}) == 1 and path.stat().st_size < 10_000_000
