"""Faults that really happen: kills, damaged files, full and read-only disks, two jobs at once, NaN. Nothing is lost."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from effective_lr.__main__ import main
from effective_lr.engine import storage
from effective_lr.engine.jobs import RunCache, train
from effective_lr.errors import UserError
from effective_lr.evidence.tidy import gather
from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.settings import Run
from effective_lr.studies.normalization.training import Training
from shared import CPU, STUDY, Trainer, diverging_run, make_run, rows_of, train_or_reuse

SIX = [
    make_run(normalization=normalization, optimizer=optimizer, steps=500, probes=20, lr=0.01)
    for normalization in ("batch", "weight", "layer")
    for optimizer in ("nesterov", "adam")
]


def content(trainer: Trainer) -> bytes:
    """The rows of the job's table as bytes; times and memory are in its provenance."""
    table, _ = storage.read_table(trainer.output)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.remove_metadata()) as stream:
        stream.write_table(table.replace_schema_metadata(None).combine_chunks())
    return sink.getvalue().to_pybytes()


@pytest.fixture(scope="module")
def undisturbed(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return reference(prepared, tmp_path_factory.mktemp("undisturbed"), SIX)


def reference(prepared: Path, folder: Path, runs: list[Run]) -> bytes:
    alone = Trainer(prepared, folder)
    assert alone.train(runs)[0] == 0
    return content(alone)


# Kills


def end_of_many_kills(trainer: Trainer, kills: int, resumes: int, seed: int) -> None:
    """Kill the job at random moments until there were enough kills and resumes, then let it end."""
    moments = random.Random(seed)
    options = {"device": "cpu", "checkpoint_seconds": 0.02}
    killed, resumed, finished = 0, 0, set()
    while killed < kills or resumed < resumes:
        assert killed < 10 * kills, "the runs are too short to be killed"
        if len(list(trainer.cache.glob("*.parquet"))) == len(SIX):  # nothing is left to be killed: once more
            shutil.rmtree(trainer.cache)
            finished.clear()
        process = trainer.start(SIX, **options)
        assert process.stdout is not None and process.stderr is not None
        told = process.stdout.readline()
        if not told.startswith("["):  # nothing is finished yet: the first line says what is to train
            time.sleep(moments.uniform(0.1, 0.8))
        else:
            while "runs to train" not in told:
                finished.add(told.split(":")[0].split("] ")[1])
                assert "reused" in told
                told = process.stdout.readline()
            time.sleep(moments.uniform(0.1, 0.8))
        process.kill()
        rest = process.stdout.read()
        process.wait()
        assert process.returncode == -signal.SIGKILL
        killed += 1
        resumed += rest.count(": resumed after step ")
        for run_id in finished:
            assert f"{run_id}: test error" not in rest, "a finished run was trained again"
    code, _, err = trainer.train(SIX, **options)
    assert (code, err) == (0, "")


def test_killed_job_ends_as_an_undisturbed_one(trainer: Trainer, undisturbed: bytes) -> None:
    end_of_many_kills(trainer, kills=3, resumes=2, seed=0)
    assert content(trainer) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_job_killed_twenty_times_ends_as_an_undisturbed_one(
    trainer: Trainer,
    undisturbed: bytes,
    seed: int,
) -> None:
    end_of_many_kills(trainer, kills=20, resumes=10, seed=seed)
    assert content(trainer) == undisturbed


def test_partition_order_and_kills_change_no_byte(
    prepared: Path,
    undisturbed: bytes,
    tmp_path: Path,
) -> None:
    in_parts = Trainer(prepared, tmp_path / "in_parts")
    for some in (SIX[5:], SIX[2:5], SIX[1::-1]):
        assert in_parts.train(some)[0] == 0
    halves = Trainer(prepared, tmp_path / "halves")
    process = halves.start(SIX[3:], checkpoint_seconds=0.05)
    while process.poll() is None and not list(halves.cache.glob("*.checkpoint")):
        time.sleep(0.01)
    process.kill()
    process.communicate()
    for half in (SIX[3:], SIX[:3]):
        code, out, _ = halves.train(half)
        assert code == 0
        assert ("resumed after step" in out) == (half == SIX[3:])
    for other in (in_parts, halves):
        _, out, _ = other.train(SIX)  # gathers what is there
        assert out.count("reused") == 6
        assert content(other) == undisturbed


# Damaged files


def damaged(path: Path) -> Iterator[str]:
    """Damage a file in one way after another."""
    whole = path.read_bytes()
    for size in (0, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        yield f"cut to {size} bytes"
    for position in random.Random(0).sample(range(len(whole)), 8):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        yield f"bit flipped at {position}"
    path.write_bytes(whole)


def test_damaged_checkpoint_is_named_and_not_used(
    single: Splits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    expected, _ = train_or_reuse(run, single, tmp_path / "alone")
    cache = RunCache(tmp_path / "runs", "code", "data")
    path = cache.checkpoint_path(run)
    storage.write_checked(Training(run, single).save(), path)
    for damage in damaged(path):
        broken = path.read_bytes()
        table, provenance = train(STUDY, run, single, CPU, cache, lambda run, training: None)
        assert f"{path}: damaged" in capsys.readouterr().out and not provenance.resumed, damage
        assert table.equals(expected)
        path.write_bytes(broken)
    assert train(STUDY, run, single, CPU, cache, lambda run, training: None)[1].resumed


def test_damaged_result_is_named_and_trained_again_by_the_job(trainer: Trainer) -> None:
    """Every damage to it is tried in test_jobs.py."""
    runs = [make_run(l2=l2) for l2 in (0.001, 0.01)]
    trainer.train(runs)
    expected = content(trainer)
    path = sorted(trainer.cache.glob("*.parquet"))[0]
    path.write_bytes(path.read_bytes()[:-1])
    code, out, _ = trainer.train(runs)
    assert code == 0 and f"{path}: damaged" in out and out.count("reused") == 1
    assert content(trainer) == expected


def test_damaged_shard_is_named_and_refused(
    trainer: Trainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    trainer.train([run])
    expected = content(trainer)
    refused = 0
    for damage in damaged(trainer.output):
        try:
            gather(STUDY, [trainer.output], [run.run_id])
        except UserError as error:
            assert f"{trainer.output}: damaged" in str(error), damage
            refused += 1
        else:
            assert content(trainer) == expected, damage  # where it makes no difference
    assert refused >= 8
    trainer.output.write_bytes(b"")
    words = ["gather", "--study", STUDY.name, "--run-ids", f'["{run.run_id}"]', "--shards", str(trainer.output)]
    assert main([*words, "--metrics", str(tmp_path / "m"), "--runs", str(tmp_path / "r")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1 and not (tmp_path / "r").exists()


@pytest.mark.parametrize("name", ["data.pt", "data.json"])
def test_damaged_data_are_named_and_refused(name: str, prepared: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(prepared, tmp_path / "prepared"))
    broken = Trainer(copy, tmp_path)
    whole = (copy / name).read_bytes()
    middle = len(whole) // 2
    for content in (b"", whole[:middle], whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]):
        (copy / name).write_bytes(content)
        code, _, err = broken.train([make_run()])
        assert code == 1 and str(copy / name) in err and len(err.splitlines()) == 1
        assert not broken.output.exists() and not list(broken.cache.glob("*"))


# Disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here: root is needed")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path, leave: int) -> Path:
    free = shutil.disk_usage(disk).free
    (disk / "filler").write_bytes(bytes(free - leave))
    return disk / "filler"


def test_full_disk_loses_nothing(small_disk: Path, prepared: Path, tmp_path: Path) -> None:
    runs = [make_run(l2=l2) for l2 in (0, 0.01, 0.1)]
    expected = reference(prepared, tmp_path / "alone", runs)
    job = Trainer(prepared, small_disk)
    job.train(runs[:1])
    [kept] = job.cache.iterdir()
    filler = fill(small_disk, leave=4096)
    code, out, err = job.train(runs)
    assert code == 1 and out.count("reused") == 1
    assert "cannot be written (No space left on device); free space there" in err and len(err.splitlines()) == 1
    assert list(job.cache.iterdir()) == [kept]  # whole, and no half-written file
    filler.unlink()
    code, out, _ = job.train(runs)
    assert code == 0 and out.count("reused") == 1
    assert content(job) == expected


def test_checkpoint_without_room_is_a_warning(small_disk: Path, prepared: Path) -> None:
    job = Trainer(prepared, small_disk)
    run = make_run(width=64, steps=20, probes=2)  # its checkpoint is larger than the disk, its result is not
    code, out, err = job.train([run], checkpoint_seconds=0.001)
    assert (code, err) == (0, "")
    assert "No checkpoint: " in out and "No space left on device" in out and "test error" in out
    assert [path.suffix for path in job.cache.iterdir()] == [".parquet"]


def test_read_only_results_are_refused_and_kept(small_disk: Path, prepared: Path) -> None:
    job = Trainer(prepared, small_disk)
    job.train([make_run()])
    before = {path: path.read_bytes() for path in small_disk.rglob("*") if path.is_file()}
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    code, _, err = job.train([make_run(), make_run(l2=0.5)])
    assert code == 1 and "cannot be written (Read-only file system)" in err and len(err.splitlines()) == 1
    assert {path: path.read_bytes() for path in small_disk.rglob("*") if path.is_file()} == before


# Two at once


def test_two_jobs_of_one_shard_at_once(trainer: Trainer, tmp_path: Path) -> None:
    runs = [make_run(l2=l2, steps=300) for l2 in (0, 0.01, 0.1)]
    expected = reference(trainer.prepared, tmp_path / "alone", runs)
    both = [trainer.start(runs, checkpoint_seconds=0.01) for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
    assert content(trainer) == expected
    assert {path.suffix for path in trainer.cache.iterdir()} <= {".parquet", ".checkpoint"}


# Numbers


def test_diverging_run_leaves_its_mates_alone(trainer: Trainer, tmp_path: Path) -> None:
    settings: dict[str, Any] = {**diverging_run().model_dump(), "initial_norm": 1e-3}
    mates = [Run(**{**settings, "l2": l2, "lr": 0.01}) for l2 in (0.001, 0.01)]
    runs = [mates[0], diverging_run(), mates[1]]
    code, out, err = trainer.train(runs)
    assert (code, err) == (0, "") and "diverged at step 25" in out
    alone = Trainer(trainer.prepared, tmp_path / "alone")
    alone.train(mates)
    for run in mates:
        assert rows_of(storage.read_table(trainer.output)[0], run) == rows_of(storage.read_table(alone.output)[0], run)
