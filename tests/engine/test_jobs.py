"""Training jobs: the run cache, the command line, checkpoints. Their faults are in test_faults.py."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from effective_lr.engine import jobs, storage
from effective_lr.engine.jobs import RunCache
from effective_lr.engine.storage import Result
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

# Shards and the run cache


@pytest.mark.parametrize("normalization", ["batch", "layer"])
def test_mates_and_their_order_change_nothing(normalization: str, single: Splits, tmp_path: Path) -> None:
    runs = [make_run(normalization=normalization, optimizer="momentum", l2=l2) for l2 in (0, 0.01, 0.1)]
    one = {run: train_or_reuse(run, single, tmp_path / "one", "code", "data")[0] for run in runs}
    other = {run: train_or_reuse(run, single, tmp_path / "other", "code", "data")[0] for run in reversed(runs)}
    for run in runs:
        assert one[run].equals(other[run])
    assert not one[runs[0]].equals(one[runs[1]])


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
    assert table.schema.equals(storage.SCHEMA)
    assert set(table["run_id"].to_pylist()) == {provenance.run_id}
    assert provenance.versions["torch"] == torch.__version__
    assert Run(**provenance.run).run_id == provenance.run_id
    assert (provenance.code, provenance.data) == ("code", "data")
    assert [path.name for path in tmp_path.iterdir()] == [f"{provenance.fingerprint}.parquet"]
    retrained, provenance = cached(reuse=False)
    assert retrained.equals(table) and not provenance.reused


@pytest.mark.parametrize(
    "change",
    [{"lr": 0.06}, {"l2": 0.02}, {"seed": 4}, {"initial_norm": 2}, {"code": "c"}, {"data": "d"}],
    ids=lambda change: next(iter(change)),
)
def test_change_trains_again(change: dict[str, Any], cached: Callable[..., Result]) -> None:
    cached()
    assert not cached(**change)[1].reused
    assert cached()[1].reused


def test_lr_and_l2_do_not_stand_for_each_other(cached: Callable[..., Result]) -> None:
    cached(lr=0.1, l2=0.2)
    assert not cached(lr=0.2, l2=0.1)[1].reused


def damages(content: bytes) -> dict[str, bytes]:
    result = {f"cut at {size}": content[:size] for size in (0, 3, len(content) // 2, len(content) - 1)}
    for position in range(0, len(content), 7):
        flipped = bytes([content[position] ^ (1 << position % 8)])
        result[f"bit at {position}"] = content[:position] + flipped + content[position + 1 :]
    return result


def test_damaged_file_is_never_taken_for_a_result(cached: Callable[..., Result], tmp_path: Path) -> None:
    """Every damage is seen, or is where it makes no difference."""
    table, provenance = cached()
    [path] = tmp_path.iterdir()
    wrong = []
    for damage, content in damages(path.read_bytes()).items():
        path.write_bytes(content)
        try:
            found, [read] = storage.read_table(path)
            if not found.equals(table) or read != provenance:
                wrong.append(damage)
        except UserError as error:
            assert str(path) in str(error) and "damaged" in str(error) and "\n" not in str(error)
        except Exception as error:
            wrong.append(f"{damage}: {type(error).__name__}")
    assert wrong == []


@pytest.mark.parametrize("damage", ["cut at 3", "bit at 70"])
def test_damaged_file_is_named_and_trained_again(
    damage: str, cached: Callable[..., Result], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, _ = cached()
    [path] = tmp_path.iterdir()
    path.write_bytes(damages(path.read_bytes())[damage])
    again, provenance = cached()
    assert str(path) in capsys.readouterr().out
    assert again.equals(table) and not provenance.reused
    assert cached()[1].reused


@pytest.mark.parametrize("call", ["write_table", "replace"])
def test_interrupted_write_leaves_nothing(
    call: str, cached: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(first: Any, path: Path, *_: Any, **__: Any) -> None:
        if call == "write_table":
            Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pq if call == "write_table" else os, call, interrupted)
        with pytest.raises(KeyboardInterrupt):
            cached()
    assert list(tmp_path.iterdir()) == []
    assert not cached()[1].reused


# Divergence


def test_divergence_is_a_result(single: Splits, tmp_path: Path) -> None:
    run = diverging_run()
    table, provenance = train_or_reuse(run, single, tmp_path)
    assert table.slice(len(table) - 1).to_pylist() == [
        {"run_id": run.run_id, "step": 25, "layer": "", "quantity": "diverged", "value": 1.0}
    ]
    assert provenance.diverged == 25
    assert "diverged at step 25" in jobs.describe(STUDY, run, table, provenance)
    assert train_or_reuse(run, single, tmp_path)[1].reused


def test_divergence_does_not_disturb_the_mates(single: Splits, tmp_path: Path) -> None:
    mate = make_run(normalization="none")
    alone, _ = train_or_reuse(mate, single, tmp_path / "alone")
    train_or_reuse(diverging_run(), single, tmp_path / "mates")
    after, provenance = train_or_reuse(mate, single, tmp_path / "mates")
    assert after.equals(alone)
    assert provenance.diverged is None


@pytest.fixture
def own_signals() -> Iterator[None]:
    """Give pytest its handlers of signals back, which a job replaces."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


# The command line, and what it imports


def test_a_reader_who_leaves_ends_it_quietly() -> None:
    """As in `… runs | head`, with the exit code of a program that SIGPIPE ended, since it may not be done."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "effective_lr", "runs", "--scale", "study", "--metrics", "published"]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_command_line_saves_on_sigterm(trainer: Trainer) -> None:
    runs = [make_run(l2=l2, steps=steps, probes=10) for l2, steps in ((0, 10), (0.01, 10**6), (0.1, 10))]
    process = trainer.start(runs, device="cpu", checkpoint_seconds=1000)
    assert process.stdout is not None
    assert process.stdout.readline().startswith(f"{runs[0].shard_id}: 3 of 3 runs to train")
    assert process.stdout.readline().startswith(f"[1/3] {runs[0].run_id}: test error ")
    time.sleep(1)  # the second run is under way
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143
    assert err.startswith(f"{runs[0].shard_id}: stopped; its 1 finished of 3 runs") and "checkpoint" in err
    assert len(err.splitlines()) == 1
    assert not trainer.output.exists()
    assert sorted(path.suffix for path in trainer.cache.iterdir()) == [".checkpoint", ".parquet"]


def test_stopped_job_ends_as_an_undisturbed_one(trainer: Trainer, single: Splits) -> None:
    runs = [make_run(l2=l2, steps=500, probes=10) for l2 in (0, 0.01)]
    process = trainer.start(runs, device="cpu", checkpoint_seconds=0.02)
    while process.poll() is None and not list(trainer.cache.glob("*.checkpoint")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130

    code, out, err = trainer.train(runs, device="cpu")
    assert (code, err) == (0, "")
    assert f"{runs[0].run_id}: resumed after step " in out
    table, provenances = storage.read_table(trainer.output)
    assert [p.run_id for p in provenances] == [run.run_id for run in runs]
    assert [p.resumed for p in provenances] == [True, False]
    assert {path.suffix for path in trainer.cache.iterdir()} == {".parquet"}
    for run in runs:
        assert rows_of(table, run) == train_rows(run, single.to("cpu"))


def test_added_run_is_the_only_one_that_is_trained(trainer: Trainer) -> None:
    runs = [make_run(l2=l2) for l2 in (0, 0.01)]
    trainer.train(runs)
    _, out, _ = trainer.train([runs[0], make_run(l2=0.005), runs[1]])
    assert ["reused" in line for line in out.splitlines() if line.startswith("[")] == [True, True, False]
    _, provenances = storage.read_table(trainer.output)
    assert [p.run["l2"] for p in provenances] == [0, 0.005, 0.01]


def test_retrain_looks_at_neither_results_nor_checkpoints(trainer: Trainer, single: Splits) -> None:
    run = make_run(steps=60)
    trainer.train([run])
    cache = RunCache(trainer.cache, "code", jobs.recorded(trainer.prepared / "data.json", "sha256"))
    storage.write_checked(b"a checkpoint that would be refused", cache.checkpoint_path(run))
    code, out, _ = trainer.train([run], retrain="yes")
    assert code == 0 and "reused" not in out and "resumed" not in out
    assert rows_of(storage.read_table(trainer.output)[0], run) == train_rows(run, single.to("cpu"))


def test_job_without_anything_to_train_imports_no_torch(trainer: Trainer, tmp_path: Path) -> None:
    runs = [make_run(l2=l2) for l2 in (0, 0.01)]
    trainer.train(runs)
    trainer.output.unlink()
    (tmp_path / "poison").mkdir()
    (tmp_path / "poison" / "torch.py").write_text("raise ImportError('torch was imported')")
    path = f"{tmp_path / 'poison'}:{ROOT / 'workflow'}"
    code, out, err = trainer.train(runs, path=path)
    assert (code, err) == (0, "") and out.count("reused") == 2 and trainer.output.exists()
    assert "torch was imported" in trainer.train([make_run(l2=1)], path=path)[2]


def test_training_does_not_import_the_compiler_of_pytorch(trainer: Trainer) -> None:
    """It would cost each job two seconds."""
    program = (
        "import sys; from effective_lr.__main__ import main; code = main(); "
        "sys.exit(code or ('torch' not in sys.modules) or 'torch._dynamo' in sys.modules)"
    )
    code, out, err = trainer.train([make_run(optimizer=name) for name in OPTIMIZERS], program=["-c", program])
    assert (code, err) == (0, "") and out.count("test error") == len(OPTIMIZERS)


@pytest.mark.usefixtures("own_signals")
def test_progress_tells_runs_steps_speed_and_time(tmp_path: Path) -> None:
    runs = [make_run(l2=l2, steps=60) for l2 in (0, 0.01, 0.1)]
    state = SimpleNamespace(step=15, steps=60, seconds=1.5, examples=240)
    watch = jobs.Watch(jobs.StopSignal(), RunCache(tmp_path, "", ""), 60, "images", runs, runs[1:], tmp_path / "note")
    told = watch.progress(runs[1], state)
    assert runs[0].shard_id in told
    assert "run 2 of 3" in told and "step 15 of 60" in told and "160 images/s" in told and "0:10 left" in told


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0:00"), (61, "1:01"), (3599.6, "1:00:00"), (36061, "10:01:01")])
def test_durations_read_as_clocks(seconds: float, text: str) -> None:
    assert jobs.duration(seconds) == text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_command_line_without_the_gpu_that_was_asked_for(trainer: Trainer) -> None:
    code, out, err = trainer.train([make_run()], device="cuda")
    assert (code, out) == (1, "") and "device = 'cuda'" in err and "device=cpu" in err and len(err.splitlines()) == 1
    assert not trainer.output.exists()


@pytest.mark.usefixtures("own_signals")
def test_runs_whose_optional_data_is_missing_are_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = tmp_path / "data.json"
    record.write_text(json.dumps({"sha256": "", "missing": "no cars here"}))
    cache, output = RunCache(tmp_path / "runs", "code", ""), tmp_path / "shard.parquet"
    code = jobs.train_shard(STUDY, [make_run()], cache, (tmp_path / "data.pt", record), output, jobs.Options())
    assert code == 0 and "no cars here" in capsys.readouterr().out
    table, provenance = storage.read_table(output)
    assert len(table) == 0 and provenance == []
