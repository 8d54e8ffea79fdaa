"""Published results: written whole, taken into a run cache, what they decide, and a run beside them."""

import math
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from effective_lr.engine.code import training_key
from effective_lr.engine.contents import Claim, published_scales, published_table
from effective_lr.engine.jobs import RunCache
from effective_lr.engine.storage import read_json, read_provenance, read_table
from effective_lr.engine.study import load, names
from effective_lr.errors import UserError
from effective_lr.evidence import published
from effective_lr.evidence.published import compare, compared_numbers, compared_verdicts
from effective_lr.studies.normalization.data import Splits
from shared import (
    ROOT,
    STUDY,
    chapter_of,
    claim_of,
    decided,
    layout_of,
    make_run,
    part_of,
    published_layout,
    train_or_reuse,
)

CODE = training_key(STUDY)
RUNS = [make_run(l2=l2, seed=seed, steps=5, evaluations=1) for l2 in (0.0, 0.1) for seed in (3, 4)]


def stated(*experiments: str) -> Claim:
    part = {"subject": "batch", "check": "exact", "within": [0, 1]}
    about = dict.fromkeys(("title", "claim", "original", "shown", "reason"), "")
    return Claim(**about, experiments=list(experiments), parts=[part])


LAYOUT = layout_of(chapter_of({"plane": RUNS}, {"C1": stated(), "C2": stated("plane")}))
OUTPUT = LAYOUT.published(STUDY.name)


def test_published_runs_come_back_as_they_were_and_agree_with_themselves(
    results: Path, single: Splits, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in RUNS:
        train_or_reuse(run, single, results / "runs", CODE, "data")
    pd.DataFrame(columns=["check", "subject", "value"]).to_parquet(results / "checks.parquet")
    assert f"{OUTPUT}: 4 of 4 runs" in published.publish(LAYOUT, STUDY.name, partial=False)
    _, provenance = read_table(OUTPUT)
    assert [record.run_id for record in provenance] == [run.run_id for run in RUNS]
    assert not any(record.reused or record.host for record in provenance)
    assert OUTPUT.with_name("checks.parquet").read_bytes() == (results / "checks.parquet").read_bytes()
    (results / "jobs").mkdir()
    shutil.copy(OUTPUT, results / "jobs" / "plane-1.parquet")
    assert compare(LAYOUT, STUDY.name) == 0 and "not decided" not in capsys.readouterr().out

    kept = (results / "runs").rename("kept")
    assert "4 published runs added, 0 were there" in published.reuse(LAYOUT, STUDY.name)
    assert "0 published runs added, 4 were there" in published.reuse(LAYOUT, STUDY.name)
    for run in RUNS:
        mine, found = (RunCache(folder, CODE, "data").finished(run) for folder in (kept, results / "runs"))
        assert mine is not None and found is not None
        assert found[0].equals(mine[0])
        assert found[1] == mine[1].model_copy(update={"host": ""})


def test_an_unfinished_scale_is_published_on_request_and_decides_what_is_whole(
    results: Path, single: Splits, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in RUNS[:-1]:
        train_or_reuse(run, single, results / "runs", CODE, "data")
    with pytest.raises(UserError, match=f"{results}/runs: 1 of 4 runs .*--partial"):
        published.publish(LAYOUT, STUDY.name, partial=False)
    assert not Path("root").exists()
    assert compare(LAYOUT, STUDY.name) == 0 and "nothing is published" in capsys.readouterr().out
    assert "3 of 4 runs" in published.publish(LAYOUT, STUDY.name, partial=True)
    path = LAYOUT.published_claims(STUDY.name)
    found = read_json(path)
    assert {name: (claim["verdict"], claim["seeds"]) for name, claim in found.items()} == {"C1": ("undecided", 0)}
    with pytest.raises(UserError, match="no finished training"):
        compare(LAYOUT, STUDY.name)

    text = path.read_text() + "\n"  # by which it differs from one that was written
    path.write_text(text)
    published.write_claims(LAYOUT, STUDY.name)
    assert path.read_text() == text
    path.write_text(text.replace("undecided", "reproduced"))
    published.write_claims(LAYOUT, STUDY.name)
    assert path.read_text() == text[:-1]


def test_claims_are_alike_but_for_the_last_digits() -> None:
    part, verdict = {"value": 1.0, "low": None, "high": 0.0}, "reproduced"
    for changed, other, alike in [
        ({"value": 1.0 + 1e-9, "high": 1e-17}, verdict, True),
        ({"value": 1.0001}, verdict, False),
        ({"value": None}, verdict, False),
        ({}, "undecided", False),
    ]:
        assert published.are_alike([part, verdict], [{**part, **changed}, other]) == alike


def test_the_committed_verdicts_are_those_of_the_committed_tables() -> None:
    for study in names():
        for scale in published_scales(ROOT, study):
            committed = read_json(published_layout(scale).published_claims(study))
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


def claim(*estimate: float | None, **changes: Any) -> dict[str, Any]:
    return claim_of(part_of(*estimate), **changes)


def test_numbers_are_sought_in_their_intervals_made_wider_by_the_seeds_of_both() -> None:
    for seeds, wider in [(3, math.sqrt(2)), (1, 2.0), (9, math.sqrt(4 / 3)), (0, math.sqrt(2))]:
        theirs = {"C4": claim(0.5, 0.49, 0.53, seeds=3 if seeds else 0)}  # float64 checks have no seeds
        for share, inside in [(0.99, 1), (1.01, 0)]:
            for distance in (-0.01, 0.03):
                text = compared_numbers({"C4": claim(0.5 + share * wider * distance, seeds=seeds)}, theirs)
                assert text[0].startswith(f"{inside} of 1 numbers lie in their 90% prediction intervals.")
    [_, outside] = compared_numbers({"C4": claim(1.2)}, {"C4": claim(0.5, 0.4, 0.6)})
    assert outside == "  outside: C4 sgd, angle slope: 1.2 against 0.5 [0.3586, 0.6414]"


def test_what_has_no_interval_or_no_value_is_not_counted() -> None:
    mine = {"C4": claim(None), "C5": claim(0.5), "C6": claim(0.5, 0.4, 0.6), "C7": claim(0.5)}
    theirs = {"C4": claim(0.5, 0.4, 0.6), "C5": claim(0.5), "C6": claim(0.5, 0.49, 0.51)}
    counted, others = compared_numbers(mine, theirs)
    assert counted.startswith("1 of 1 numbers") and others.startswith("2 others")


def test_a_verdict_that_differs_or_is_missing_is_shown() -> None:
    theirs = {"C4": claim(0.5), "C5": claim(0.5)}
    for mine, agrees, remark in [
        ({"C5": claim(0.6)}, True, "reproduced            reproduced"),
        ({"C5": claim(0.5, verdict="undecided")}, False, "undecided             reproduced  DIFFERS"),
        ({}, False, "not decided           reproduced  DIFFERS"),
    ]:
        lines, agree = compared_verdicts({"C4": claim(0.5), **mine}, theirs)
        assert agree == agrees and lines[-1].endswith(remark) and not lines[-2].endswith("DIFFERS")
