"""The plan, the summary and the cleaning of a scale's runs, and what a job asks of a scheduler."""

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from effective_lr.engine import grid, limits, plan, storage
from effective_lr.engine.code import training_key
from effective_lr.engine.contents import Chapter, Contents
from effective_lr.engine.jobs import duration
from effective_lr.engine.study import load
from effective_lr.errors import UserError
from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.settings import Run
from shared import ROOT, SMALL, STUDY, make_run, train_or_reuse

ALL = [make_run(l2=l2, seed=seed) for l2 in (0, 0.01, 0.1) for seed in (3, 4)]
DATA = Path("data")  # in the working directory of a test


def chapter(runs: list[Run]) -> Chapter:
    scale = grid.Scale(about="", defaults=SMALL, experiments={})
    return Chapter(STUDY, scale, {"all": runs}, grid.shards(runs), Contents(order=1), {})


def finish(run: Run, results: Path, single: Splits) -> None:
    train_or_reuse(run, single, results / "runs", training_key(STUDY), "data")


def test_plan_counts_what_is_left_and_what_it_takes(results: Path, single: Splits) -> None:
    """Where no data is prepared, by the speed that is assumed."""
    finish(ALL[0], results, single)
    text, seconds = plan.plan(chapter(ALL), results, DATA, cores=1)
    assert "6 runs in 2 shards; 1 finished, 5 to train" in text
    assert re.search(r"^ +5 .* batch-sgd$", text, flags=re.MULTILINE)
    arithmetic = sum(map(STUDY.operations, ALL[1:])) / limits.CPU_SPEED
    start = float(re.search(r"taking ([\d.]+) s to start", text)[1])  # type: ignore[index]
    assert seconds == pytest.approx(arithmetic + 2 * start, abs=0.11)


def test_nothing_left_takes_no_time(results: Path, single: Splits) -> None:
    finish(ALL[0], results, single)
    text, seconds = plan.plan(chapter(ALL[:1]), results, DATA, 1)
    assert "1 finished, 0 to train" in text and seconds == 0


def test_this_machine_is_measured(prepared: Path) -> None:
    files = {"fashion-mnist-14": (prepared / "data.pt", prepared / "data.json")}
    runs = [make_run(steps=50), make_run(steps=50, normalization="none", optimizer="adam")]
    start, speeds = plan.measure(STUDY.name, runs, files)
    assert start >= 0 and all(speed is not None and 1e6 < speed < 1e13 for speed in speeds)
    assert plan.measure(STUDY.name, runs, {})[1] == [None, None]


def test_a_run_of_one_step_is_measured_too() -> None:
    norms = load("norms")
    _, experiments = grid.load_scale(ROOT / "config" / "norms", "smoke", norms)
    run = next(run for run in grid.unique(experiments) if norms.data(run) is None and run.model_dump()["steps"] == 1)
    _, [speed] = plan.measure("norms", [run], {})
    assert speed is not None and 0 < norms.operations(run) / speed < 60


def test_the_speed_of_a_run_is_that_of_its_later_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(plan.time, "perf_counter", lambda: now[0])

    def train(run: Run, shared: None, after_step: Callable[[Any], None]) -> None:
        for step in range(1, run.steps + 1):
            is_measured = step < 15 or step % 7 == 0  # as by log-spaced probes
            now[0] += 0.1 if is_measured else 0.01
            after_step(SimpleNamespace(step=step, steps=run.steps))

    training = SimpleNamespace(load=lambda tensors, run, device: None, train=train)
    speed = plan.runs_per_second(training, make_run(steps=1000), {}, None)
    assert 1 / speed == pytest.approx(1000 * 0.01)


def test_gpu_hours_follow_from_the_arithmetic() -> None:
    runs = [make_run(steps=10**11, seed=seed) for seed in (3, 4)]
    job = STUDY.operations(runs[0]) / limits.GPU_SPEED / 3600
    left = plan.work(STUDY, runs)
    assert (left["runs"], left["jobs"]) == (2, 2) and left["longest_job"] == left["operations"] / 2
    assert 1 < job < 12
    told = plan.gpu_hours(left, plan.GUESS)
    assert f" {2 * job:,.1f} GPU hours at 10.0 TFLOP/s (a guess" in told and f"takes {duration(3600 * job)}" in told
    shared = plan.gpu_hours(left, plan.GpuSpeed(2 * limits.GPU_SPEED, 4, "measured"))
    assert f" {job:,.1f} GPU hours" in shared and f"takes {duration(3600 * 2 * job)}" in shared


@pytest.mark.parametrize(("jobs", "devices"), [(1, 1), (22, 2), (23, 3)])
def test_devices_for_a_night_leave_room_for_the_longest_job(jobs: int, devices: int) -> None:
    left = {"runs": jobs, "jobs": jobs, "operations": jobs * 3.6e16, "longest_job": 3.6e16}  # an hour each
    assert f"GPUs for a night of 12 hours: {devices}." in plan.gpu_hours(left, plan.GUESS)


def test_a_job_longer_than_a_night_fits_in_none() -> None:
    left = {"runs": 1, "jobs": 1, "operations": 5e17, "longest_job": 5e17}
    assert "no number is enough" in plan.gpu_hours(left, plan.GUESS)


def test_the_speed_of_a_gpu_is_given_or_measured_or_a_guess(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    assert plan.gpu_speed(STUDY, measured=path) == plan.GUESS
    found = {"study": STUDY.name, "device": "H100", "operations_per_second": 3e13, "gpu_slots": 4}
    path.write_text(json.dumps(found))
    assert plan.gpu_speed(STUDY, measured=path)[:2] == (3e13, 4)
    assert plan.gpu_speed(load("norms"), measured=path) == plan.GUESS
    assert plan.gpu_speed(STUDY, 2e13, path)[:2] == (2e13, 1)
    with pytest.raises(UserError, match="GPU_SPEED = -1: expected"):
        plan.gpu_speed(STUDY, -1, path)


@pytest.mark.parametrize("text", ["", "[]", '{"study": "normalization", "device": "CPU"}'])
def test_a_file_without_the_speed_of_a_gpu_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "gpu.json").write_text(text)
    with pytest.raises(UserError, match=r"gpu\.json: no speed of a GPU"):
        plan.gpu_speed(STUDY, measured=tmp_path / "gpu.json")


def test_limits_grow_with_the_work_and_with_each_attempt() -> None:
    run = make_run(steps=10**7)
    ask = limits.time_limit
    assert limits.START_MINUTES < ask(STUDY, [run], is_gpu=True) < ask(STUDY, [run] * 8, is_gpu=False)
    assert ask(STUDY, [run], True, attempt=2) == 2 * ask(STUDY, [run], True)
    assert ask(STUDY, [make_run(steps=10**12)], False) == limits.LONGEST_MINUTES
    assert limits.memory_limit(STUDY, run, 2) == 2 * limits.memory_limit(STUDY, run) > 2 * STUDY.megabytes(run)


def test_summary_counts_runs_and_hours(results: Path, single: Splits) -> None:
    _, record = train_or_reuse(make_run(steps=1, probes=1, evaluations=1), single, results / "runs")
    trained = record.model_copy(update={"seconds": 1800.0})
    records = [trained, *(trained.model_copy(update=changes) for changes in ({"diverged": 25}, {"reused": True}))]
    path = results / "now.parquet"
    storage.write_table(storage.with_provenance(storage.SCHEMA.empty_table(), records), path)
    told = plan.summary([path], time.time() - 65)
    assert all(part in told for part in ("2 trained in 1.00 hours", "1 reused", "1 diverged", "1:05 in all")), told
    path.write_text("damaged")
    assert "Unreadable shards: 1" in plan.summary([path], time.time() - 65)


def test_cleaning_keeps_what_is_used(results: Path, single: Splits) -> None:
    finish(ALL[0], results, single)
    folder = results / "runs"
    [used] = folder.iterdir()
    cache = plan.cache_of(STUDY, ALL[1], results, DATA, training_key(STUDY))
    kept = [used, cache.checkpoint_path(ALL[1]), folder / ".fresh.parquet.host.1"]
    removed = [folder / "0123456789abcdef.parquet", folder / "0123456789abcdef.checkpoint", folder / ".old.host.1"]
    for path in kept[1:] + removed:
        path.write_bytes(b"12345")
    os.utime(removed[2], (0, 0))
    assert "removed 3 files" in plan.clean(chapter(ALL), results, DATA)
    assert sorted(folder.iterdir()) == sorted(kept)


def test_cleaning_without_data_removes_nothing(results: Path, single: Splits) -> None:
    finish(ALL[0], results, single)
    (DATA / "fashion-mnist-14.json").unlink()
    with pytest.raises(UserError, match=r"fashion-mnist-14\.json: missing"):
        plan.clean(chapter(ALL), results, DATA)
    assert len(list((results / "runs").iterdir())) == 1
