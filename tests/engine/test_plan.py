"""The plan and the cleaning of a scale's runs, and what a job asks of a scheduler."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from effective_lr.engine import grid, plan, resources, storage
from effective_lr.engine.code import training_key
from effective_lr.engine.contents import published_table
from effective_lr.engine.jobs import duration
from effective_lr.engine.study import load, names
from effective_lr.errors import UserError
from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.settings import Run
from shared import ROOT, STUDY, chapter_of, layout_of, make_run, train_or_reuse

ALL = [make_run(l2=l2, seed=seed) for l2 in (0, 0.01, 0.1) for seed in (3, 4)]


def finish(run: Run, results: Path, single: Splits) -> None:
    train_or_reuse(run, single, results / "runs", training_key(STUDY), "data")


def test_plan_counts_what_is_left_and_what_it_takes(results: Path, single: Splits) -> None:
    """Where no data is prepared, by the speed that is assumed. GPU hours follow from the arithmetic."""
    finish(ALL[0], results, single)
    text, seconds = plan.plan(layout_of(chapter_of({"all": ALL})), STUDY.name, cores=1, gpu_speed=1e8)
    assert "6 runs in 1 jobs; 5 runs in 1 jobs to train" in text
    assert re.search(r"^ +5 .* batch-sgd$", text, flags=re.MULTILINE)
    operations = sum(map(STUDY.operations, ALL[1:]))
    [start] = map(float, re.findall(r"taking ([\d.]+) s to start", text))
    assert seconds == pytest.approx(operations / resources.CPU_SPEED + start, abs=0.06)
    assert f"{operations / 1e8 / 3600:,.1f} GPU hours if a GPU does 0.0001 TFLOP/s" in text
    assert f"the longest job {duration(operations / 1e8)}" in text
    text, seconds = plan.plan(layout_of(chapter_of({"all": ALL[:1]})), STUDY.name, cores=1, gpu_speed=1e8)
    assert "0 runs in 0 jobs to train" in text and seconds == 0


def test_runs_whose_optional_data_cannot_be_had_are_not_planned(results: Path) -> None:
    Path("results/data/fashion-mnist-14.json").write_text('{"sha256": "", "missing": "no images here"}')
    assert plan.unfinished(layout_of(chapter_of({"all": ALL})), STUDY.name) == []


def test_this_machine_is_measured(prepared: Path, results: Path) -> None:
    assert plan.measure(STUDY.name, [make_run()])[1] == [None]
    for path in prepared.glob("data.*"):
        shutil.copy(path, f"results/data/fashion-mnist-14{path.suffix}")
    runs = [make_run(steps=50), make_run(steps=50, normalization="none", optimizer="adam")]
    start, speeds = plan.measure(STUDY.name, runs)
    assert start >= 0 and all(speed is not None and 1e6 < speed < 1e13 for speed in speeds)
    norms = load("norms")
    _, experiments = grid.load_scale(ROOT / "config" / "norms", "smoke", norms)
    run = next(run for run in grid.unique(experiments) if norms.data(run) is None and run.model_dump()["steps"] == 1)
    _, [speed] = plan.measure("norms", [run])
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


def test_limits_grow_with_the_work_and_with_each_attempt() -> None:
    run = make_run(steps=10**7)
    ask = resources.time_limit
    assert resources.START_MINUTES < ask(STUDY, [run], is_gpu=True) < ask(STUDY, [run] * 8, is_gpu=False)
    assert ask(STUDY, [run], True, attempt=2) == 2 * ask(STUDY, [run], True)
    assert ask(STUDY, [make_run(steps=10**12)], False) == resources.LONGEST_MINUTES
    assert resources.memory_limit(STUDY, run, 2) == 2 * resources.memory_limit(STUDY, run) > 2 * STUDY.megabytes(run)


def test_limits_follow_from_what_was_measured() -> None:
    """Each published run took less than a job of its own would ask for, and more than a hundredth of its arithmetic."""
    for study in map(load, names()):
        for record in storage.read_provenance(published_table(ROOT, study.name, "study")):
            run = study.run(**record.run)
            expected = resources.SAFETY * study.operations(run) / resources.CPU_SPEED
            limit = 60 * resources.time_limit(study, [run], is_gpu=False)
            assert record.diverged or expected / 100 < record.seconds < limit
            assert record.peak_memory_mb < resources.memory_limit(study, run)


def test_cleaning_keeps_what_is_used_and_removes_only_when_asked(results: Path, single: Splits) -> None:
    finish(ALL[0], results, single)
    folder, layout = results / "runs", layout_of(chapter_of({"all": ALL}))
    [used] = folder.iterdir()
    cache = plan.caches(layout, STUDY.name)[ALL[1]]
    kept = [used, cache.checkpoint_path(ALL[1]), folder / ".fresh.parquet.host.1"]
    removed = [folder / "0123456789abcdef.parquet", folder / "0123456789abcdef.checkpoint", folder / ".old.host.1"]
    for path in kept[1:] + removed:
        path.write_bytes(b"12345")
    os.utime(removed[2], (0, 0))
    assert "would remove 3 files" in plan.clean(layout, STUDY.name, remove=False)
    assert sorted(folder.iterdir()) == sorted(kept + removed)
    assert "removed 3 files" in plan.clean(layout, STUDY.name, remove=True)
    assert sorted(folder.iterdir()) == sorted(kept)
    Path("results/data/fashion-mnist-14.json").unlink()  # without it the runs in use are not known
    with pytest.raises(UserError, match=r"fashion-mnist-14\.json: missing"):
        plan.clean(layout, STUDY.name, remove=True)
    assert sorted(folder.iterdir()) == sorted(kept)
