"""Why runs train again: which setting, function or data changed since the nearest finished run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from checkouts import Checkout
from effective_lr.engine import contents, grid, why
from effective_lr.engine.code import training_key
from effective_lr.engine.contents import Chapter, Contents
from effective_lr.engine.storage import read_provenance
from effective_lr.errors import UserError
from effective_lr.studies.normalization.settings import Run
from shared import ENVIRONMENT, ROOT, SMALL, STUDY, fabricate, fabricated, make_run

KEY = training_key(STUDY)
DATA = Path("data")
RUNS = [make_run(l2=l2, seed=seed) for l2 in (0.0, 0.1) for seed in (3, 4)]


def tell(runs: list[Run], results: Path) -> tuple[int, list[str]]:
    scale = grid.Scale(about="", defaults=SMALL, experiments={})
    chapter = Chapter(STUDY, scale, {"all": runs}, grid.shards(runs), Contents(order=1), {})
    return why.tell_runs(ROOT, chapter, chapter.runs_of(["all"]), results, DATA)


def finish(results: Path, runs: list[Run], code: str = KEY, data: str = "data", **changes: Any) -> None:
    fabricate(results / "runs", *(fabricated(run, code, data, **changes) for run in runs))


def test_nothing_changed(results: Path) -> None:
    finish(results, RUNS)
    assert tell(RUNS, results) == (0, [])


def test_nothing_was_ever_trained(results: Path) -> None:
    count, [line] = tell(RUNS, results)
    assert count == 4 and line.split() == ["4", "never", "trained", "here"]


def test_a_changed_setting_is_told_with_both_values(results: Path) -> None:
    finish(results, RUNS)
    count, [line] = tell([run.changed(steps=30) for run in RUNS], results)
    assert count == 4 and line.strip() == "4 changed settings: steps 20 → 30"


def test_an_added_run_is_new_beside_the_others(results: Path) -> None:
    finish(results, RUNS)
    count, [line] = tell([*RUNS, make_run(l2=0.1, seed=5)], results)
    assert count == 1 and "new beside" in line and line.endswith("→ 5") and ": seed " in line


def test_a_run_like_no_other_is_no_change_of_settings(results: Path) -> None:
    finish(results, RUNS)
    other = make_run(normalization="none", optimizer="adam", lr=0.3, l2=0.7, width=3)
    count, [line] = tell([*RUNS, other], results)
    assert count == 1 and "5 settings or more" in line


def test_other_data_are_told_by_their_checksums(results: Path) -> None:
    finish(results, RUNS[:2], data="former-data")
    finish(results, RUNS[2:])
    count, [line] = tell(RUNS, results)
    assert count == 2 and "fashion-mnist-14" in line and "former-d → data" in line and "code" not in line


def test_data_that_are_not_prepared_are_no_change(results: Path) -> None:
    finish(results, RUNS)
    (DATA / "fashion-mnist-14.json").unlink()
    count, [line] = tell(RUNS, results)
    assert count == 4 and "fashion-mnist-14.json is missing" in line


def test_data_that_cannot_be_had_train_nothing(results: Path) -> None:
    (DATA / "fashion-mnist-14.json").write_text(json.dumps({"sha256": "", "missing": "no cars here"}))
    count, [line] = tell(RUNS, results)
    assert count == 0 and "no cars here" in line


def test_code_of_an_unknown_commit_is_told_by_its_key(results: Path) -> None:
    finish(results, RUNS, code="former-code", commit="unknown")
    count, [line] = tell(RUNS, results)
    assert count == 4 and f"former-code → {KEY}" in line and "unknown is not at hand" in line


def test_the_latest_of_several_finished_runs_counts(results: Path) -> None:
    finish(results, RUNS[:1], data="first-data", finished="2026-01-01T00:00:00+00:00")
    finish(results, RUNS[:1], data="later-data", finished="2026-01-02T00:00:00+00:00")
    assert "later-da → " in tell(RUNS[:1], results)[1][0]


def test_a_damaged_run_is_named_and_left_out(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish(results, RUNS)
    path = next((results / "runs").iterdir())
    path.write_text("damaged")
    path.rename(path.with_stem("0" * 16))
    count, _ = tell(RUNS, results)
    assert count == 1 and f"{'0' * 16}.parquet: damaged" in capsys.readouterr().err


# A changed function, in a repository with a history


def git(root: Path, *words: str) -> str:
    person = ["-c", "user.name=A person", "-c", "user.email=person@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(root), *person, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def committed(tmp_path: Path) -> Checkout:
    """A copy of the repository with one commit, and one run finished by it."""
    checkout = Checkout.new(tmp_path / "copy")
    git(checkout.root, "init", "--quiet")
    git(checkout.root, "add", "--all")
    git(checkout.root, "commit", "--quiet", "--message", "All")
    data = checkout.root / "results" / "data"
    data.mkdir(parents=True)
    (data / "fashion-mnist-14.json").write_text(json.dumps({"sha256": "data"}))
    run = checkout.chapters()["normalization"].experiments["plane_rmsprop"][0]
    commit = git(checkout.root, "rev-parse", "--short=12", "HEAD")
    folder = checkout.root / "results/smoke/normalization/runs"
    fabricate(folder, fabricated(run, KEY, "data", commit=commit))
    return checkout


def run_why(checkout: Checkout, *words: str) -> subprocess.CompletedProcess[str]:
    """Run it where the imports that take seconds fail."""
    poison = checkout.root / "poison"
    poison.mkdir(exist_ok=True)
    for module in ("torch", "pandas"):
        (poison / f"{module}.py").write_text("raise ImportError('it takes seconds')")
    command = [sys.executable, "-m", "effective_lr", "why", "--scale", "smoke", *words]
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{poison}:{checkout.root / 'workflow'}"}
    return subprocess.run(command, cwd=checkout.root, env=environment, capture_output=True, text=True)


NORMALIZATION = "workflow/effective_lr/studies/normalization"


def test_the_function_that_changed_is_named(committed: Checkout) -> None:
    first, *before = run_why(committed, "--target", "claim_C5").stdout.splitlines()
    chapter = committed.chapters()["normalization"]
    runs = len(chapter.runs_of(chapter.claims["C5"].experiments))
    assert first == f"{runs - 1} of {runs} runs to train for claim_C5" and "changed code" not in "\n".join(before)
    committed.edit(f"{NORMALIZATION}/optimizers.py", "alpha=-group.lr", "alpha=-2 * group.lr")
    committed.edit(f"{NORMALIZATION}/networks.py", '"""Normalized layers', '"""Edited. Normalized layers')
    committed.append(f"{NORMALIZATION}/training.py", "\n\ndef added() -> None:\n    pass\n")
    first, *after = run_why(committed, "--target", "claim_C5").stdout.splitlines()
    assert first == f"{runs} of {runs} runs to train for claim_C5"
    changed = ": optimizers.py: Optimizer.step, training.py: added (new)"
    [alone] = [line for line in after if line.endswith(changed)]  # the others are new, too
    assert alone.split()[:4] == ["1", "changed", "code", "since"]


def test_a_function_that_nobody_committed_is_told_so(committed: Checkout) -> None:
    committed.append(f"{NORMALIZATION}/training.py", "EDITED = 1\n")
    runs = committed.root / "results/smoke/normalization/runs"
    [path] = runs.iterdir()
    [record] = read_provenance(path)
    path.unlink()
    fabricate(runs, record.model_copy(update={"code": "0" * 16, "commit": f"{record.commit}-dirty"}))
    told = run_why(committed, "--target", "claim_C5").stdout
    assert f"since {record.commit}, when there were changes that nobody committed: training.py: EDITED (new)" in told


def test_changed_methods_are_named_and_docstrings_are_not(tmp_path: Path) -> None:
    package = tmp_path / "effective_lr"
    folder = package / "studies" / STUDY.name
    folder.mkdir(parents=True)
    method = "    def go(self):\n        return 1\n"
    source = f'class Net:\n    """Old."""\n\n    depth = 3\n\n{method}\n\ndef f():\n    return 2\n'
    (folder / "training.py").write_text(source)
    before = why.definitions(STUDY, package / "studies")
    (folder / "training.py").write_text(source.replace("Old", "New").replace("return 1", "return 3"))
    after = why.definitions(STUDY, package / "studies")
    assert [name for name in before if before[name] != after[name]] == ["training.py: Net.go"]
    assert before.keys() == after.keys() == {f"training.py: {name}" for name in ("Net", "Net.depth", "Net.go", "f")}


# Targets


def test_a_target_rests_on_its_experiments_by_name_and_by_number() -> None:
    chapters = contents.load_chapters(ROOT, grid.load_config({"scale": "smoke"}))
    numbered = {"figure_9": ("normalization", "plane"), "table_1": ("paper", "overview")}
    shown = chapters["normalization"].contents.figures["plane"]
    expected = {"normalization": chapters["normalization"].experiments_of(shown)}
    assert why.experiments_of(chapters, numbered, "plane") == expected
    assert why.experiments_of(chapters, numbered, "figure_9") == expected
    everything = {name: list(chapter.experiments) for name, chapter in chapters.items()}
    for whole in ("", "paper", "table_1"):
        assert why.experiments_of(chapters, numbered, whole) == everything
    assert why.experiments_of(chapters, numbered, "norms") == {"norms": everything["norms"]}
    with pytest.raises(UserError, match=r"TARGET = 'figrue_9'.*figure_9"):
        why.experiments_of(chapters, numbered, "figrue_9")
