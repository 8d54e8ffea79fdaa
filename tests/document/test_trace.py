"""Where a number comes from: on the published results, and on one's own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from effective_lr.document.trace import trace
from effective_lr.engine.contents import load_chapters, published_claims
from effective_lr.engine.grid import load_config
from effective_lr.engine.storage import SCHEMA, read_provenance, with_provenance, write_table
from effective_lr.errors import UserError
from shared import ENVIRONMENT, ROOT, fabricated

PUBLISHED = load_config({"metrics": "published"})
CHAPTERS = load_chapters(ROOT, PUBLISHED)
SMOKE = load_config({"scale": "smoke"})


def published(number: str, *studies: str) -> str:
    return trace(ROOT, CHAPTERS, list(studies or CHAPTERS), PUBLISHED, number)


def line(told: str, word: str) -> str:
    return next(text for text in told.splitlines() if text.strip().startswith(word))


def test_a_published_number_leads_to_its_definition_its_runs_and_its_commands() -> None:
    claim = json.loads(published_claims(ROOT, "normalization", "study").read_text())["C5"]
    part = next(part for part in claim["parts"] if part["subject"] == "sgd" and part["statistic"] == "contour_slope")
    told = published("contour_slope/sgd")
    assert "studies/normalization/statistics.py:" in line(told, "is")
    value = line(told, "value")
    assert f"{part['value']:.3g} [{part['low']:.3g}, {part['high']:.3g}]" in value
    assert f"within {part['within'][0]:g} to {part['within'][1]:g}: {part['verdict']}" in value and "C5" in value
    places = line(told, "stands in")
    assert "figure_2 (plane)" in places and "table_4 (verdicts)" in places and "paper/main.tex:" in places
    runs = CHAPTERS["normalization"].runs_of(CHAPTERS["normalization"].claims["C5"].experiments)
    assert f"{len(runs)} runs, seeds {min(run.seed for run in runs)} to {max(run.seed for run in runs)}" in told
    record = read_provenance(ROOT / "results/published/normalization/study.parquet")[0]
    assert record.commit in told and record.device in told and record.versions["torch"] in told
    assert "make claim_C5 SCALE=study METRICS=published" in told
    assert f"results/study/normalization/shards/{runs[0].shard_id}.parquet" in told and "retrain=true" in told


def test_an_interval_and_a_whole_statistic_are_found_too() -> None:
    assert published("contour_slope/sgd/interval") == published("contour_slope/sgd")
    subjects = [what.subject for what in CHAPTERS["normalization"].claims["C5"].parts]
    told = published("contour_slope")
    assert all(f"contour_slope/{subject} (normalization)" in told for subject in set(subjects))


def test_a_statistic_of_every_claim_can_be_traced() -> None:
    for study, chapter in CHAPTERS.items():
        for name, claim in chapter.claims.items():
            for what in [*claim.parts[-1:], *claim.explored[-1:]]:
                told = published(f"{what.statistic}/{what.subject}", study)
                assert f"; {name} {claim.title}" in told and f"make claim_{name} " in told


def test_a_number_of_float64_checks_rests_on_no_runs() -> None:
    told = published("invariance/batch", "normalization")
    assert "float64" in line(told, "rests on") and "forcerun" not in told


def test_an_unknown_number_is_refused_with_near_names() -> None:
    with pytest.raises(UserError, match=r"contour_slop/sgd.*contour_slope/sgd"):
        published("contour_slop/sgd")
    with pytest.raises(UserError, match="nothing_like_it"):
        published("nothing_like_it")
    with pytest.raises(UserError, match="such as"):
        published("")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of the smoke scale in which one claim was decided and one shard trained."""
    monkeypatch.chdir(tmp_path)
    folder = Path("results/smoke/normalization")
    (folder / "claims").mkdir(parents=True)
    decided = json.loads(published_claims(ROOT, "normalization", "study").read_text())["C5"]
    (folder / "claims" / "C5.json").write_text(json.dumps(decided))
    chapter = load_chapters(ROOT, SMOKE)["normalization"]
    run = chapter.runs_of(chapter.claims["C5"].experiments)[0]
    record = fabricated(run, "code", "data", commit="abcdefabcdef-dirty", host="workstation")
    write_table(with_provenance(SCHEMA.empty_table(), [record]), folder / "shards" / f"{run.shard_id}.parquet")
    return folder


def of_own(number: str) -> str:
    chapters = load_chapters(ROOT, SMOKE)
    return trace(ROOT, chapters, list(chapters), SMOKE, number)


def test_a_number_of_ones_own_names_commit_and_machine(own: Path) -> None:
    told = of_own("contour_slope/sgd")
    assert "abcdefabcdef-dirty" in told and "workstation" in told and "of the runs are not there" in told
    assert "make claim_C5 SCALE=smoke\n" in told


def test_a_number_that_nothing_decided_yet_says_what_to_type(own: Path) -> None:
    with pytest.raises(UserError, match=r"C4\.json: missing.*make claim_C4 SCALE=smoke"):
        of_own("angle_slope/sgd")


def test_a_number_of_the_built_text_is_found_by_its_file(own: Path) -> None:
    build = Path("paper/build/smoke/normalization")
    build.mkdir(parents=True)
    (build / "numbers.tex").write_text("\\definenumber{normalization/runs/count}{\\ensuremath{12}}\n")
    told = of_own("runs/count")
    assert "document/numbers.py" in told and "\\ensuremath{12}" in told and "make paper SCALE=smoke" in told
    shutil.rmtree("paper")
    with pytest.raises(UserError, match="runs/count"):
        of_own("runs/count")


def test_the_command_line_prints_it() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "effective_lr", "trace", "--metrics", "published"]
    words = ["--study", "stability", "--number", "balance/MLP"]
    result = subprocess.run([*command, *words], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.startswith("balance/MLP (stability)")
    assert "| torch\n" not in result.stderr
