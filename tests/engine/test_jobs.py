"""Training jobs: their tables and run cache, signals, the command line. Their faults are in test_faults.py."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from effective_lr.__main__ import COMMANDS, main
from effective_lr.engine import grid, jobs, storage
from effective_lr.engine.contents import load_chapter
from effective_lr.engine.devices import on_device
from effective_lr.engine.inputs import recorded
from effective_lr.engine.jobs import Job, RunCache, Training
from effective_lr.engine.storage import SCHEMA, Result
from effective_lr.engine.study import BaseRun
from effective_lr.errors import UserError
from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.settings import Run
from shared import (
    ENVIRONMENT,
    OPTIMIZERS,
    ROOT,
    STUDY,
    Trainer,
    diverging_run,
    make_run,
    rows_of,
    train_or_reuse,
    train_rows,
)


@pytest.fixture
def cached(single: Splits, tmp_path: Path) -> Callable[..., Result]:
    """Train or reuse a tiny run in one cache."""

    def call(code: str = "code", data: str = "data", reuse: bool = True, **changes: Any) -> Result:
        run = make_run(**{"steps": 2, "probes": 2, "evaluations": 1, **changes})
        return train_or_reuse(run, single, tmp_path, code, data, reuse)

    return call


def test_finished_run_is_reused(cached: Callable[..., Result], tmp_path: Path) -> None:
    table, provenance = cached()
    again, provenance_again = cached()
    assert again.equals(table)
    assert provenance == provenance_again.model_copy(update={"reused": False}) and provenance_again.reused
    assert set(table["run_id"].to_pylist()) == {provenance.run_id}
    assert Run(**provenance.run).run_id == provenance.run_id
    assert (provenance.code_key, provenance.data_sha256) == ("code", "data")
    assert [path.name for path in tmp_path.iterdir()] == [f"{provenance.run_key}.parquet"]


def test_a_run_is_trained_again_when_anything_changes_that_its_result_rests_on(cached: Callable[..., Result]) -> None:
    cached()
    cached(lr=0.1, l2=0.2)
    changes: list[dict[str, Any]] = [{"lr": 0.06}, {"l2": 0.02}, {"seed": 4}, {"initial_norm": 2}, {"code": "c"}]
    for change in [*changes, {"data": "d"}, {"lr": 0.2, "l2": 0.1}]:  # the last swaps values of two settings
        assert not cached(**change)[1].reused, change
    assert cached(lr=0.1, l2=0.2)[1].reused


def test_damaged_file_is_never_taken_for_a_result(
    cached: Callable[..., Result], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every damage is seen, or is where it makes no difference; the run is trained again."""
    table, provenance = cached()
    [path] = tmp_path.iterdir()
    content = path.read_bytes()
    damaged = [content[:size] for size in (0, 3, len(content) // 2, len(content) - 1)]
    for position in range(0, len(content), 11):
        flipped = bytes([content[position] ^ (1 << position % 8)])
        damaged.append(content[:position] + flipped + content[position + 1 :])
    for number, other in enumerate(damaged):
        path.write_bytes(other)
        try:
            found, [read] = storage.read_table(path)
            assert found.equals(table) and read == provenance, number
        except UserError as error:
            assert str(error).startswith(f"{path}: damaged") and "\n" not in str(error), number
    path.write_bytes(damaged[1])
    again, provenance = cached()
    assert f"{path}: damaged" in capsys.readouterr().out
    assert again.equals(table) and not provenance.reused
    assert cached()[1].reused


def test_interrupted_write_leaves_nothing(
    cached: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def before_it_is_renamed(*paths: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", before_it_is_renamed)
    with pytest.raises(KeyboardInterrupt):
        cached()
    assert list(tmp_path.iterdir()) == []


def test_a_table_of_another_version_of_the_package_is_named_with_what_differs(
    cached: Callable[..., Result], tmp_path: Path
) -> None:
    class Later(storage.Provenance):
        colour: str = "red"

    path, record = tmp_path / "later.parquet", Later(**cached()[1].model_dump())
    storage.write_table(SCHEMA.empty_table(), [record], path)
    for read in (storage.read_table, storage.read_provenance):
        with pytest.raises(UserError, match=f"{path}: .* another version of this package .*colour"):
            read(path)


def test_divergence_is_a_result(single: Splits, tmp_path: Path) -> None:
    run = diverging_run()
    table, provenance = train_or_reuse(run, single, tmp_path)
    step = provenance.diverged
    assert step is not None and 0 < step < run.steps
    last = {"run_id": run.run_id, "step": step, "layer": "", "quantity": "diverged", "value": 1.0}
    assert table.slice(len(table) - 1).to_pylist() == [last]
    assert f"diverged at step {step}" in jobs.describe(STUDY, run, table, provenance)
    assert train_or_reuse(run, single, tmp_path)[1].reused


def test_a_signal_saves_and_the_job_then_ends_as_an_undisturbed_one(
    prepared: Path, single: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [make_run(l2=l2, steps=60, probes=10) for l2 in (0, 0.01, 0.1)]
    after_step = Job.after_step
    for number in (signal.SIGTERM, signal.SIGINT):

        def signalled(job: Job, run: BaseRun, training: Training, number: int = number) -> None:
            if run == runs[1] and training.step == 30:
                os.kill(os.getpid(), number)
            after_step(job, run, training)

        trainer = Trainer(prepared, tmp_path / number.name)
        with monkeypatch.context() as patch:
            patch.setattr(Job, "after_step", signalled)
            code, _, err = trainer.train(runs)
        assert code == 128 + number
        assert err.startswith("job: stopped: 1 of 3 runs finished. Run the same command") and len(err.splitlines()) == 1
        assert not trainer.output.exists()
        assert sorted(path.suffix for path in trainer.cache.iterdir()) == [".checkpoint", ".parquet"]

        code, out, err = trainer.train(runs)
        assert (code, err) == (0, "") and f"{runs[1].run_id}: resumed" in out and "job: 2 of 3 runs to train" in out
        table, provenances = storage.read_table(trainer.output)
        assert [p.run_id for p in provenances] == [run.run_id for run in runs]
        assert [(p.reused, p.resumed) for p in provenances] == [(True, False), (False, True), (False, False)]
        assert {path.suffix for path in trainer.cache.iterdir()} == {".parquet"}
        for run in runs:
            assert rows_of(table, run) == train_rows(run, single.to("cpu"))


def test_retrain_looks_at_neither_results_nor_checkpoints(trainer: Trainer, single: Splits) -> None:
    run = make_run(steps=60)
    trainer.train([run])
    cache = RunCache(trainer.cache, "code", recorded(trainer.data, "sha256"))
    storage.write_checked(b"a checkpoint that would be refused", cache.checkpoint_path(run))
    assert trainer.train([run], retrain=True)[0] == 0
    assert rows_of(trainer.rows, run) == train_rows(run, single.to("cpu"))


def test_training_does_not_import_the_compiler_of_pytorch(trainer: Trainer) -> None:
    """It would cost each job two seconds."""
    before = "torch._dynamo" in sys.modules
    assert trainer.train([make_run(optimizer=optimizer, steps=2) for optimizer in OPTIMIZERS])[0] == 0
    assert ("torch._dynamo" in sys.modules) == before


def test_runs_whose_optional_data_is_missing_are_skipped(trainer: Trainer, tmp_path: Path) -> None:
    trainer.data = (tmp_path / "data.pt", tmp_path / "data.json")
    trainer.data[1].write_text(json.dumps({"sha256": "", "missing": "no cars here"}))
    code, out, _ = trainer.train([make_run()])
    assert code == 0 and "no cars here" in out
    assert len(trainer.rows) == 0 and storage.read_provenance(trainer.output) == []


def test_a_line_of_progress_has_runs_steps_speed_and_time(tmp_path: Path) -> None:
    runs = [make_run(l2=l2, steps=60) for l2 in (0, 0.01, 0.1)]
    state: Any = SimpleNamespace(step=15, steps=60, seconds=1.5, examples=240)
    job = Job("job", STUDY, [*runs], RunCache(tmp_path, "", ""), None, grid.Config(), missing=[*runs])
    assert job.progress(runs[1], state) == "job: run 2 of 3, step 15 of 60, 160 images/s, 0:00:10 left"


def test_the_command_trains_a_job_by_name_and_imports_no_torch_where_all_are_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "linear-1"
    runs = load_chapter(ROOT, "norms", "laptop").jobs[name]

    def train(*words: str) -> tuple[int, str, str]:
        code = main(["train", "--study", "norms", "--scale", "laptop", *words, "--output", "made.parquet"])
        return code, *capsys.readouterr()

    assert train("--job", name, "--runs-hash", grid.runs_hash(runs), "--code", "key")[0] == 0
    _, provenance = storage.read_table(Path("made.parquet"))
    assert [record.run_id for record in provenance] == [run.run_id for run in runs]
    (tmp_path / "torch.py").write_text("raise ImportError('torch was imported')")
    command = [sys.executable, "-m", "effective_lr", "train", "--study", "norms", "--scale", "laptop", "--job", name]
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}:{ENVIRONMENT['PYTHONPATH']}"}
    for key, missing, error in [("key", 0, ""), ("other", len(runs), "torch was imported")]:
        words = [*command, "--code", key, "--output", "again.parquet"]
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        assert f"{name}: {missing} of {len(runs)} runs to train" in done.stdout
        assert error in done.stderr and bool(done.stderr) == bool(error)

    changed = train("--job", name, "--runs-hash", grid.runs_hash(runs[1:]))
    assert changed[0] == 1 and f"{name}: its runs changed since this job was planned" in changed[2]
    code, _, err = train("--job", "linear-99")
    assert code == 1 and "linear-99: no such job of norms at the scale laptop" in err


def test_what_changes_no_result_reaches_a_job_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[grid.Config] = []
    monkeypatch.setattr(Job, "write", lambda job, output: given.append(job.config) or 0)
    words = ["train", "--study", "norms", "--scale", "laptop", "--job", "linear-1", "--output", "x"]
    main(words)
    chosen = {"device": "cuda", "gpu_slots": 3, "checkpoint_seconds": 0.5, "retrain": True}
    monkeypatch.setenv(grid.JOB_CONFIG, json.dumps(chosen))
    main(words)
    assert given == [grid.Config(scale="laptop"), grid.Config(scale="laptop", **chosen)]


def test_every_command_has_its_function_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
    assert capsys.readouterr().out.count("usage: effective_lr") == len(COMMANDS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_the_gpu_that_was_asked_for_nothing_is_trained() -> None:
    with pytest.raises(UserError, match=r"device = 'cuda'.*device=cpu"), on_device("cuda", 1, "job"):
        pass
