"""The plan, the summary and the cleaning of a scale's runs."""

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pytest
from effective_lr.config import Run, UserError
from effective_lr.data import Splits
from effective_lr.networks import build_network, normalized_layers

from conftest import make_run, train_or_reuse
from effective_lr import costs, grid, runs, storage

ALL = [make_run(l2=l2, seed=seed) for l2 in (0, 0.01, 0.1) for seed in (3, 4)]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A scale's folder beside prepared data."""
    record = tmp_path / "data" / "fashion-mnist-14.json"
    record.parent.mkdir()
    record.write_text(json.dumps({"sha256": "data"}))
    (tmp_path / "scale" / "runs").mkdir(parents=True)
    return tmp_path / "scale"


def finish(run: Run, results: Path, single: Splits) -> None:
    train_or_reuse(run, single, results / "runs", grid.code_fingerprint(grid.TRAINING_SOURCES), "data")


class FakePool:
    """In place of the processes that measure the machine."""

    def __init__(self, cores: int) -> None:
        self.cores = cores

    def __enter__(self) -> "FakePool":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        pass

    def map(self, work: Callable[..., Any], tasks: Iterable[list[Run]]) -> list[Any]:
        tasks = list(tasks)
        assert len(tasks) == self.cores
        return [(3.0, [(0.5, 0.001)] * len(task)) for task in tasks]


def test_plan_counts_what_is_left_and_what_it_takes(
    results: Path, single: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "ProcessPoolExecutor", FakePool)
    finish(ALL[0], results, single)
    text = runs.plan("scale", ALL, results, cores=2)
    assert text.startswith("scale: 6 runs in 2 shards; 1 finished, 5 to train\n")
    # 5 runs of 20 steps of 0.5 s, 2 evaluations of 30 + 40 + 64 images of 1 ms, and 3 s for each of 2 shards.
    seconds = 5 * (20 * 0.5 + 2 * 134 * 0.001) + 2 * 3.0
    assert f"About 0:{round(seconds / 2):02} with 2 jobs at a time" in text
    assert "     5         32      0:10      0:51  batch, sgd: fashion-mnist at 14×14, width 2" in text


def test_nothing_left_is_not_measured(results: Path, single: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "ProcessPoolExecutor", None)
    finish(ALL[0], results, single)
    assert runs.plan("scale", ALL[:1], results, 2) == "scale: 1 runs in 1 shards; 1 finished, 0 to train"


def test_this_machine_is_measured() -> None:
    start, speeds = runs.measure([make_run(), make_run(normalization="none", optimizer="adam")])
    assert start >= 0 and len(speeds) == 2
    assert all(0 < image < step < 1 for step, image in speeds)


@pytest.mark.parametrize("dataset", [{}, {"dataset": "cifar10", "resolution": 32, "width": 8}])
def test_operations_are_those_of_the_layers(dataset: dict[str, Any]) -> None:
    run = make_run(**dataset)
    forward, sides = [], (run.resolution, run.resolution // 2, run.resolution // 4, 1)
    for (_, layer), side in zip(normalized_layers(build_network(run)), sides, strict=True):
        forward.append(2 * side**2 * layer.weight.numel())
    assert costs.operations(run) == 3 * sum(forward) - forward[0]


def test_gpu_hours_follow_from_the_arithmetic() -> None:
    long = make_run(steps=10**13)
    hours = (10**13 * 16 + 2 * (30 + 40 + 64) / 3) * costs.operations(long) / 1e13 / 3600
    assert f" {hours:,.1f} hours of a GPU" in runs.gpu_hours([long]) and hours > 100


def test_summary_counts_runs_and_hours(results: Path) -> None:
    def shard(name: str, *provenance: dict[str, Any]) -> Path:
        table = storage.with_provenance(pa.table({"value": [1.0]}), list(provenance))
        storage.write_table(table, results / "shards" / name)
        return results / "shards" / name

    trained = {"reused": False, "diverged": None, "seconds": 1800.0}
    path = shard("now.parquet", trained, {**trained, "diverged": 25}, {**trained, "reused": True})
    text = "Runs: 2 trained in 1.00 hours of one core or GPU, 1 reused, 1 diverged; 1:05 in all."
    assert runs.summary([path], time.time() - 65) == text
    path.write_text("damaged")
    assert runs.summary([path], time.time() - 65).endswith(" Unreadable shards: 1.")


def test_cleaning_keeps_what_is_used(results: Path, single: Splits) -> None:
    finish(ALL[0], results, single)
    folder = results / "runs"
    [used] = folder.iterdir()
    cache = runs.cache_of(results, ALL[1])
    kept = [used, cache.checkpoint_path(ALL[1]), folder / ".fresh.parquet.host.1"]
    removed = [folder / "0123456789abcdef.parquet", folder / "0123456789abcdef.checkpoint", folder / ".old.host.1"]
    for path in kept[1:] + removed:
        path.write_bytes(b"12345")
    os.utime(removed[2], (0, 0))
    assert runs.clean(ALL, results) == f"{folder}: removed 3 files that nothing uses (0.0 MB)"
    assert sorted(folder.iterdir()) == sorted(kept)


def test_cleaning_without_data_removes_nothing(results: Path, single: Splits) -> None:
    finish(ALL[0], results, single)
    (results.parent / "data" / "fashion-mnist-14.json").unlink()
    with pytest.raises(UserError, match=r"fashion-mnist-14.json: missing.*prepare the data first"):
        runs.clean(ALL, results)
    assert len(list((results / "runs").iterdir())) == 1
