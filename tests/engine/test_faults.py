"""Faults that really happen: kills, damaged files, full and read-only disks, two jobs at once. Nothing is lost."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from effective_lr.engine import storage
from effective_lr.engine.jobs import RunCache
from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.settings import Run
from effective_lr.studies.normalization.training import Training
from shared import OPTIMIZERS, Trainer, make_run, train_or_reuse


def undisturbed(prepared: Path, folder: Path, runs: list[Run]) -> pa.Table:
    alone = Trainer(prepared, folder / "undisturbed")
    assert alone.train(runs)[0] == 0
    return alone.rows


# Kills


def test_a_kill_the_partition_and_the_order_change_no_row(trainer: Trainer, prepared: Path, tmp_path: Path) -> None:
    runs = [
        make_run(normalization=normalization, optimizer=optimizer, steps=100, probes=20, lr=0.01)
        for normalization in ("batch", "weight", "layer")
        for optimizer in ("nesterov", "adam")
    ]
    process = trainer.start(runs[3:], checkpoint_seconds=0.05)
    while process.is_alive() and not list(trainer.cache.glob("*.checkpoint")):
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    for part in (runs[3:], runs[2:3], runs[1::-1]):
        code, out, _ = trainer.train(part)
        assert code == 0 and ("resumed" in out) == (part == runs[3:])
    assert "job: 0 of 6 runs to train" in trainer.train(runs)[1]  # it collects what is there
    assert trainer.rows.equals(undisturbed(prepared, tmp_path, runs))


def test_two_jobs_of_the_same_runs_at_once(trainer: Trainer, prepared: Path, tmp_path: Path) -> None:
    runs = [make_run(optimizer=optimizer) for optimizer in OPTIMIZERS]
    both = [trainer.start(runs, checkpoint_seconds=0.02) for _ in range(2)]
    for process in both:
        process.join(timeout=120)
        assert process.exitcode == 0
    assert trainer.rows.equals(undisturbed(prepared, tmp_path, runs))
    assert {path.suffix for path in trainer.cache.iterdir()} <= {".parquet", ".checkpoint"}


# Damaged files; damaged results are in test_jobs.py


def test_damaged_checkpoint_is_named_and_not_used(
    single: Splits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    expected, _ = train_or_reuse(run, single, tmp_path / "alone")
    path = RunCache(tmp_path / "runs", "code", "data").checkpoint_path(run)
    whole = Training(run, single).save()
    storage.write_checked(whole, path)
    stored = path.read_bytes()
    middle = len(stored) // 2
    for content in (
        b"",
        stored[:20],
        stored[:-1],
        stored[:middle] + bytes([stored[middle] ^ 4]) + stored[middle + 1 :],
    ):
        path.write_bytes(content)
        table, provenance = train_or_reuse(run, single, tmp_path / "runs")
        assert f"{path}: damaged" in capsys.readouterr().out and not provenance.resumed
        assert table.equals(expected)
        path.with_suffix(".parquet").unlink()
    storage.write_checked(whole, path)
    assert train_or_reuse(run, single, tmp_path / "runs")[1].resumed


def test_damaged_data_are_named_and_refused(prepared: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(prepared, tmp_path / "prepared"))
    broken = Trainer(copy, tmp_path)
    for path in broken.data:
        whole = path.read_bytes()
        middle = len(whole) // 2
        for content in (b"", whole[:middle], whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]):
            path.write_bytes(content)
            code, _, err = broken.train([make_run()])
            assert code == 1 and str(path) in err and len(err.splitlines()) == 1
            assert not broken.output.exists() and not list(broken.cache.glob("*"))
        path.write_bytes(whole)


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


def test_full_disk_loses_nothing(small_disk: Path, prepared: Path, tmp_path: Path) -> None:
    runs = [make_run(l2=l2) for l2 in (0, 0.01, 0.1)]
    job = Trainer(prepared, small_disk)
    job.train(runs[:1])
    [kept] = job.cache.iterdir()
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 4096))
    code, out, err = job.train(runs)
    assert code == 1 and "2 of 3 runs to train" in out
    assert "cannot be written (No space left on device); free space there" in err and len(err.splitlines()) == 1
    assert list(job.cache.iterdir()) == [kept]  # whole, and no half-written file
    filler.unlink()
    code, out, _ = job.train(runs)
    assert code == 0 and "2 of 3 runs to train" in out
    assert job.rows.equals(undisturbed(prepared, tmp_path, runs))


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
