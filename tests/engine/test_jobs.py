"""Training jobs: the run cache, the command line, checkpoints. Their faults are in test_faults.py."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from conftest import NORMALIZATIONS, OPTIMIZERS, make_run, train_or_reuse, train_rows

import effective_lr
from effective_lr import data, jobs, storage
from effective_lr.config import VALIDATION_SIZE, Run, UserError
from effective_lr.data import Splits
from effective_lr.grid import TRAINING_SOURCES
from effective_lr.jobs import RunCache, StopSignal
from effective_lr.training import Row, Training, train_run

PACKAGE = Path(effective_lr.__file__).parent


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
def cached(single: Splits, tmp_path: Path) -> Callable[..., tuple[Any, dict[str, Any]]]:
    """Train or reuse a tiny run in one cache."""

    def call(code: str = "code", data: str = "data", reuse: bool = True, **changes: Any) -> tuple[Any, dict[str, Any]]:
        run = make_run(**{"steps": 2, "probes": 2, "evaluations": 1, **changes})
        return train_or_reuse(run, single, tmp_path, code, data, reuse)

    return call


def test_finished_run_is_reused(cached: Callable[..., tuple[Any, dict[str, Any]]], tmp_path: Path) -> None:
    table, provenance = cached()
    again, provenance_again = cached()
    assert again.equals(table)
    assert provenance == {**provenance_again, "reused": False} and provenance_again["reused"]
    assert table.schema.equals(jobs.SCHEMA)
    assert set(table["run_id"].to_pylist()) == {provenance["run_id"]}
    assert provenance["versions"]["torch"] == torch.__version__
    assert Run(**provenance["run"]).run_id == provenance["run_id"]
    assert (provenance["code"], provenance["data"]) == ("code", "data")
    assert [path.name for path in tmp_path.iterdir()] == [f"{provenance['fingerprint']}.parquet"]
    retrained, provenance = cached(reuse=False)
    assert retrained.equals(table) and not provenance["reused"]


@pytest.mark.parametrize(
    "change",
    [{"lr": 0.06}, {"l2": 0.02}, {"seed": 4}, {"initial_norm": 2}, {"code": "c"}, {"data": "d"}],
    ids=lambda change: next(iter(change)),
)
def test_change_trains_again(change: dict[str, Any], cached: Callable[..., tuple[Any, dict[str, Any]]]) -> None:
    cached()
    assert not cached(**change)[1]["reused"]
    assert cached()[1]["reused"]


def test_lr_and_l2_do_not_stand_for_each_other(cached: Callable[..., tuple[Any, dict[str, Any]]]) -> None:
    cached(lr=0.1, l2=0.2)
    assert not cached(lr=0.2, l2=0.1)[1]["reused"]


def damages(content: bytes) -> dict[str, bytes]:
    result = {f"cut at {size}": content[:size] for size in (0, 3, len(content) // 2, len(content) - 1)}
    for position in range(0, len(content), 7):
        flipped = bytes([content[position] ^ (1 << position % 8)])
        result[f"bit at {position}"] = content[:position] + flipped + content[position + 1 :]
    return result


def test_damaged_file_is_never_taken_for_a_result(
    cached: Callable[..., tuple[Any, dict[str, Any]]], tmp_path: Path
) -> None:
    """Every damage is seen, or is where it makes no difference."""
    table, provenance = cached()
    [path] = tmp_path.iterdir()
    wrong = []
    for damage, content in damages(path.read_bytes()).items():
        path.write_bytes(content)
        try:
            found, [read] = storage.read_table(path)
            if not found.equals(table) or {**read, "reused": False} != provenance:
                wrong.append(damage)
        except UserError as error:
            assert str(path) in str(error) and "damaged" in str(error) and "\n" not in str(error)
        except Exception as error:
            wrong.append(f"{damage}: {type(error).__name__}")
    assert wrong == []


@pytest.mark.parametrize("damage", ["cut at 3", "bit at 70"])
def test_damaged_file_is_named_and_trained_again(
    damage: str, cached: Callable[..., tuple[Any, dict[str, Any]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, _ = cached()
    [path] = tmp_path.iterdir()
    path.write_bytes(damages(path.read_bytes())[damage])
    again, provenance = cached()
    assert str(path) in capsys.readouterr().out
    assert again.equals(table) and not provenance["reused"]
    assert cached()[1]["reused"]


@pytest.mark.parametrize("call", ["write_table", "replace"])
def test_interrupted_write_leaves_nothing(
    call: str, cached: Callable[..., tuple[Any, dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    assert not cached()[1]["reused"]


# Divergence


def diverging_run() -> Run:
    return make_run(normalization="none", lr=1e6, l2=1.0, affine_lr=0.1, steps=60, probes=20)


def test_divergence_is_a_result(single: Splits, tmp_path: Path) -> None:
    run = diverging_run()
    table, provenance = train_or_reuse(run, single, tmp_path)
    assert table.slice(len(table) - 1).to_pylist() == [
        {"run_id": run.run_id, "step": 25, "layer": "", "quantity": "diverged", "value": 1.0}
    ]
    assert provenance["diverged"] == 25
    assert "diverged at step 25" in jobs.describe(run, table, provenance)
    assert train_or_reuse(run, single, tmp_path)[1]["reused"]


def test_divergence_does_not_disturb_the_mates(single: Splits, tmp_path: Path) -> None:
    mate = make_run(normalization="none")
    alone, _ = train_or_reuse(mate, single, tmp_path / "alone")
    train_or_reuse(diverging_run(), single, tmp_path / "mates")
    after, provenance = train_or_reuse(mate, single, tmp_path / "mates")
    assert after.equals(alone)
    assert provenance["diverged"] is None


# The command line, and what it imports


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def prepared(single: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prepared data of the small sizes: data.pt and data.json."""
    folder = tmp_path_factory.mktemp("prepared")
    times = -(-VALIDATION_SIZE // len(single.validation_labels))
    validation_images = single.validation_images.repeat(times, 1, 1, 1)[:VALIDATION_SIZE]
    tensors = {
        "train_images": torch.cat([single.train_images, validation_images]),
        "train_labels": torch.cat([single.train_labels, single.validation_labels.repeat(times)[:VALIDATION_SIZE]]),
        "test_images": single.test_images,
        "test_labels": single.test_labels,
    }
    torch.save(tensors, folder / "data.pt")
    (folder / "data.json").write_text(json.dumps({"sha256": data._sha256(tensors)}))
    return folder


class Trainer:
    """`python -m effective_lr.training` in a process of its own."""

    def __init__(self, prepared: Path, folder: Path) -> None:
        self.prepared, self.cache, self.output = prepared, folder / "runs", folder / "shard.parquet"

    def start(
        self, runs: list[Run], *options: str, program: Sequence[str] = ("-m", "effective_lr.jobs"), path: str = ""
    ) -> subprocess.Popen[str]:
        settings = json.dumps([run.model_dump() for run in runs])
        command = [sys.executable, *program, "--runs", settings, "--code", "code"]
        command += ["--tensors", str(self.prepared / "data.pt"), "--record", str(self.prepared / "data.json")]
        command += ["--cache", str(self.cache), "--output", str(self.output), *options]
        pipe = subprocess.PIPE
        environment = {**ENVIRONMENT, **({"PYTHONPATH": path} if path else {})}
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)

    def train(self, runs: list[Run], *options: str, **how: Any) -> tuple[int, str, str]:
        process = self.start(runs, *options, **how)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err


@pytest.fixture
def trainer(prepared: Path, tmp_path: Path) -> Trainer:
    return Trainer(prepared, tmp_path)


def rows_of(table: pa.Table, run: Run) -> list[Row]:
    written = table.filter(pc.equal(table["run_id"], run.run_id))
    return list(zip(*(written[key].to_pylist() for key in jobs.SCHEMA.names[1:]), strict=True))


def test_command_line_saves_on_sigterm(trainer: Trainer) -> None:
    runs = [make_run(l2=l2, steps=steps, probes=10) for l2, steps in ((0, 10), (0.01, 10**6), (0.1, 10))]
    process = trainer.start(runs, "--device", "cpu", "--checkpoint-seconds", "1000")
    assert process.stdout is not None
    assert process.stdout.readline() == f"{runs[0].shard_id}: 3 of 3 runs to train, on the CPU\n"
    assert process.stdout.readline().startswith(f"[1/3] {runs[0].run_id}: test error ")
    time.sleep(1)  # the second run is under way
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143
    assert err == (
        f"{runs[0].shard_id}: stopped; its 1 finished of 3 runs are kept, and a checkpoint of the one under way; "
        "the same command goes on from there\n"
    )
    assert not trainer.output.exists()
    assert sorted(path.suffix for path in trainer.cache.iterdir()) == [".checkpoint", ".parquet"]


def test_stopped_job_ends_as_an_undisturbed_one(trainer: Trainer, single: Splits) -> None:
    runs = [make_run(l2=l2, steps=2000, probes=10) for l2 in (0, 0.01)]
    process = trainer.start(runs, "--device", "cpu", "--checkpoint-seconds", "0.1")
    while process.poll() is None and not list(trainer.cache.glob("*.checkpoint")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130

    code, out, err = trainer.train(runs, "--device", "cpu")
    assert (code, err) == (0, "")
    assert f"{runs[0].run_id}: resumed after step " in out
    table, provenances = storage.read_table(trainer.output)
    assert [p["run_id"] for p in provenances] == [run.run_id for run in runs]
    assert [p["resumed"] for p in provenances] == [True, False]
    assert {path.suffix for path in trainer.cache.iterdir()} == {".parquet"}
    for run in runs:
        assert rows_of(table, run) == train_rows(run, single.to("cpu"))


def test_added_run_is_the_only_one_that_is_trained(trainer: Trainer) -> None:
    runs = [make_run(l2=l2) for l2 in (0, 0.01)]
    trainer.train(runs)
    _, out, _ = trainer.train([runs[0], make_run(l2=0.005), runs[1]])
    assert ["reused" in line for line in out.splitlines() if line.startswith("[")] == [True, True, False]
    _, provenances = storage.read_table(trainer.output)
    assert [p["run"]["l2"] for p in provenances] == [0, 0.005, 0.01]


def test_retrain_looks_at_neither_results_nor_checkpoints(trainer: Trainer, single: Splits) -> None:
    run = make_run(steps=60)
    trainer.train([run])
    cache = RunCache(trainer.cache, "code", storage_sha(trainer))
    storage.write_checked(b"a checkpoint that would be refused", cache.checkpoint_path(run))
    code, out, _ = trainer.train([run], "--retrain")
    assert code == 0 and "reused" not in out and "resumed" not in out
    assert rows_of(storage.read_table(trainer.output)[0], run) == train_rows(run, single.to("cpu"))


def storage_sha(trainer: Trainer) -> str:
    return jobs.recorded_data(trainer.prepared / "data.json")


def test_job_without_anything_to_train_imports_no_torch(trainer: Trainer, tmp_path: Path) -> None:
    runs = [make_run(l2=l2) for l2 in (0, 0.01)]
    trainer.train(runs)
    trainer.output.unlink()
    (tmp_path / "poison").mkdir()
    (tmp_path / "poison" / "torch.py").write_text("raise ImportError('torch was imported')")
    code, out, err = trainer.train(runs, path=f"{tmp_path / 'poison'}:{PACKAGE.parent}")
    assert (code, err) == (0, "") and out.count("reused") == 2 and trainer.output.exists()
    assert "torch was imported" in trainer.train([make_run(l2=1)], path=f"{tmp_path / 'poison'}:{PACKAGE.parent}")[2]


def test_training_does_not_import_the_compiler_of_pytorch(trainer: Trainer) -> None:
    """It would cost each job two seconds."""
    program = (
        "import sys; from effective_lr import jobs; code = jobs.main(); "
        "sys.exit(code or ('torch' not in sys.modules) or 'torch._dynamo' in sys.modules)"
    )
    code, out, err = trainer.train([make_run(optimizer=name) for name in OPTIMIZERS], program=["-c", program])
    assert (code, err) == (0, "") and out.count("test error") == len(OPTIMIZERS)


def test_progress_tells_runs_epochs_speed_and_time(tmp_path: Path, single: Splits) -> None:
    runs = [make_run(l2=l2, steps=60) for l2 in (0, 0.01, 0.1)]
    watch = jobs.Watch(StopSignal.__new__(StopSignal), RunCache(tmp_path, "", ""), 60, "shard", runs, runs[1:])
    watch.steps_done, watch.start = 15, time.monotonic() - 1.5
    training = Training(runs[1], single)
    training.step = 15
    assert re.fullmatch(
        r"shard: run 2 of 3, epoch 2\.5 of 10\.0, 1(60|5\d) images/s, 0:1[01] left", watch.progress(training)
    )


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0:00"), (61, "1:01"), (3599.6, "1:00:00"), (36061, "10:01:01")])
def test_durations_read_as_clocks(seconds: float, text: str) -> None:
    assert jobs.duration(seconds) == text


def test_full_gpu_ends_in_the_number_of_slots_to_try(
    single: Splits, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(jobs, "lease_folder", lambda: tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    monkeypatch.setattr(Splits, "to", lambda self, device: self)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for slots, advice in [
        (3, "with gpu_slots = 3; try --config gpu_slots=2"),
        (1, "with gpu_slots = 1; lower width or batch_size, or use device=cpu"),
    ]:
        with pytest.raises(UserError) as caught, jobs.on_device([make_run()], single, "cuda", slots):
            raise torch.OutOfMemoryError
        assert str(caught.value) == f"{make_run().shard_id}: out of memory on GPU 0 {advice}"


# Checkpoints


class Interrupted(Exception):
    pass


def in_parts(run: Run, splits: Splits, stops: list[int]) -> list[Row]:
    """The rows of a run that is saved and given up after each of these steps."""
    saved = None
    for stop in stops:
        parts: list[bytes] = []

        def give_up(training: Training, stop: int = stop, parts: list[bytes] = parts) -> None:
            if training.step == stop:
                parts.append(training.save())
                raise Interrupted

        with pytest.raises(Interrupted):
            train_run(run, splits, saved=saved, after_step=give_up)
        [saved] = parts
    return train_run(run, splits, saved=saved).rows


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_resumed_run_is_bit_for_bit_the_undisturbed_one(normalization: str, optimizer: str, single: Splits) -> None:
    run = make_run(normalization=normalization, optimizer=optimizer, lr=0.01, evaluations=4)
    rows = train_rows(run, single)
    stop = random.Random(f"{normalization} {optimizer}").randrange(1, run.steps)
    assert in_parts(run, single, [stop]) == rows
    assert in_parts(run, single, [1, 11, 19]) == rows  # between epochs, in the late part, before the end


@pytest.mark.parametrize("changes", [{"projected": True}, {"batch_statistics": "running"}], ids=str)
def test_resuming_keeps_projection_and_running_statistics(changes: dict[str, Any], single: Splits) -> None:
    run = make_run(optimizer="nesterov", **changes)
    assert in_parts(run, single, [7, 14]) == train_rows(run, single)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_command_line_without_the_gpu_that_was_asked_for(trainer: Trainer) -> None:
    code, out, err = trainer.train([make_run()], "--device", "cuda")
    sentence = "config: device = 'cuda': no CUDA device is visible here; use device=auto or device=cpu\n"
    assert (code, out, err) == (1, "", sentence)
    assert not trainer.output.exists()


def modules_after(statement: str) -> set[str]:
    code = f"{statement}; import sys, json; print(json.dumps(sorted(sys.modules)))"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True, timeout=120
    )
    return set(json.loads(printed.stdout))


def test_training_imports_only_the_fingerprinted_sources() -> None:
    loaded = {name for name in modules_after("import effective_lr.training") if name.startswith("effective_lr.")}
    assert loaded == {f"effective_lr.{path.stem}" for path in TRAINING_SOURCES}


def test_grid_imports_no_torch() -> None:
    assert "torch" not in modules_after("import effective_lr.grid")
