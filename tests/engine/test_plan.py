"""The plan of a scale's runs, and what a job asks of a scheduler."""

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from effective_lr.engine import grid, plan, resources, storage
from effective_lr.engine.code import training_key
from effective_lr.engine.contents import published_table
from effective_lr.engine.study import load, names
from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.settings import Run
from shared import ROOT, STUDY, chapter_of, layout_of, make_run, train_or_reuse

ALL = [make_run(l2=l2, seed=seed) for l2 in (0, 0.01, 0.1) for seed in (3, 4)]


def planned(runs: list[Run], cores: int = 1) -> list[str]:
    """The line about the study, and the last one."""
    return plan.plan(layout_of(chapter_of({"all": runs})), cores).splitlines()


def test_plan_counts_what_is_left_and_what_it_takes(results: Path, single: Splits) -> None:
    """Where no data is prepared, by the speed that is assumed."""
    train_or_reuse(ALL[0], single, results / "runs", training_key(STUDY), "data")
    operations = sum(map(STUDY.operations, ALL[1:]))
    seconds = operations / resources.CPU_SPEED + plan.START_SECONDS
    study = planned(ALL)[0]
    assert "normalization: 5 of 6 runs to train, 1 of 1 jobs, " in study
    assert f"{operations:.1e} floating point operations, {timedelta(seconds=round(seconds))} on one core" in study
    assert "0 of 1 runs to train, 0 of 1 jobs, " in planned(ALL[:1])[0]
    assert "scale: about 0:00:00 with 1 jobs" in planned(ALL[:1])[1]
    assert f"scale: about {timedelta(seconds=round(seconds / 2))} with 2 jobs" in planned(ALL, cores=2)[1]


def test_runs_whose_optional_data_cannot_be_had_are_not_planned(results: Path) -> None:
    Path("results/data/fashion-mnist-14.json").write_text('{"sha256": "", "missing": "no images here"}')
    assert plan.unfinished(layout_of(chapter_of({"all": ALL})), STUDY.name) == []


def test_this_machine_is_measured(prepared: Path, results: Path) -> None:
    assert plan.measure(STUDY.name, ALL[:1]) == [STUDY.operations(ALL[0]) / resources.CPU_SPEED]
    for path in prepared.glob("data.*"):
        shutil.copy(path, f"results/data/fashion-mnist-14{path.suffix}")
    runs = [make_run(steps=50), make_run(steps=50, normalization="none", optimizer="adam")]
    for run, seconds in zip(runs, plan.measure(STUDY.name, runs), strict=True):
        assert 1e6 < STUDY.operations(run) / seconds < 1e13
    norms = load("norms")
    _, experiments = grid.load_scale(ROOT / "config" / "norms", "smoke", norms)
    run = next(run for run in grid.unique(experiments) if norms.data(run) is None and run.model_dump()["steps"] == 1)
    assert 0 < plan.measure("norms", [run])[0] < 60


def test_the_speed_of_a_run_is_that_of_its_later_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(plan.time, "perf_counter", lambda: now[0])

    def train(run: Run, shared: None, after_step: Callable[[Any], None]) -> None:
        for step in range(1, run.steps + 1):
            is_measured = step < 15 or step % 7 == 0  # as by log-spaced probes
            now[0] += 0.1 if is_measured else 0.01
            after_step(SimpleNamespace(step=step, steps=run.steps))

    training = SimpleNamespace(load=lambda tensors, run, device: None, train=train)
    assert plan.seconds_of(training, make_run(steps=1000), {}, None) == pytest.approx(1000 * 0.01)


def test_limits_follow_from_what_was_measured() -> None:
    """The published runs of a study took less, as one job, than that asks for at its second attempt."""
    for study in map(load, names()):
        records = storage.read_provenance(published_table(ROOT, study.name, "study"))
        runs = [study.run(**record.run) for record in records]
        assert sum(record.seconds for record in records) < 60 * resources.time_limit(study, runs, attempt=2)
        assert max(record.peak_memory_mb for record in records) < resources.memory_limit(study, runs)
        assert resources.time_limit(study, runs[:1], attempt=2) == 2 * resources.time_limit(study, runs[:1])
