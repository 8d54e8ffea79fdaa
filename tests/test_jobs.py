"""Training jobs: the run cache, checkpoints, the command line, and every fault that they must survive."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from conftest import make_run, train_or_reuse, train_rows

import effective_lr
from effective_lr import data, jobs, storage
from effective_lr.config import VALIDATION_SIZE, Run, UserError
from effective_lr.data import Splits
from effective_lr.grid import TRAINING_SOURCES

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

    def start(self, runs: list[Run], *options: str) -> subprocess.Popen[str]:
        settings = json.dumps([run.model_dump() for run in runs])
        command = [sys.executable, "-m", "effective_lr.jobs", "--runs", settings, "--code", "code"]
        command += ["--tensors", str(self.prepared / "data.pt"), "--record", str(self.prepared / "data.json")]
        command += ["--cache", str(self.cache), "--output", str(self.output), *options]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=ENVIRONMENT)

    def train(self, runs: list[Run], *options: str) -> tuple[int, str, str]:
        process = self.start(runs, *options)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err


@pytest.fixture
def trainer(prepared: Path, tmp_path: Path) -> Trainer:
    return Trainer(prepared, tmp_path)


def test_command_line_stops_on_sigterm_and_goes_on(trainer: Trainer, single: Splits) -> None:
    runs = [make_run(l2=l2, steps=300, probes=10) for l2 in (0, 0.01, 0.1)]
    process = trainer.start(runs, "--device", "cpu")
    assert process.stdout is not None
    assert process.stdout.readline().startswith(f"[1/3] {runs[0].run_id}: test error ")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143
    finished = len(list(trainer.cache.iterdir()))  # 1, or 2 where this process had to wait
    assert err == (
        f"{runs[0].shard_id}: stopped; its {finished} finished of 3 runs are kept, "
        "the same command goes on from there\n"
    )
    assert not trainer.output.exists()
    assert {path.suffix for path in trainer.cache.iterdir()} == {".parquet"}

    code, out, err = trainer.train(runs, "--device", "cpu")
    assert (code, err) == (0, "")
    reused = [number < finished for number in range(3)]
    assert ["reused" in line for line in out.splitlines()] == reused
    table, provenances = storage.read_table(trainer.output)
    assert [p["run_id"] for p in provenances] == [run.run_id for run in runs]
    assert [p["reused"] for p in provenances] == reused
    rows = train_rows(runs[2], single.to("cpu"))
    written = table.filter([run_id == runs[2].run_id for run_id in table["run_id"].to_pylist()])
    assert list(zip(*(written[key].to_pylist() for key in jobs.SCHEMA.names[1:]), strict=True)) == rows


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
