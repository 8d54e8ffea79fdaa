"""What is left to train of a scale, and how long it takes."""

import itertools
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from statistics import mean, median
from typing import Any

from effective_lr.engine.code import training_key
from effective_lr.engine.inputs import Layout, data_of, recorded
from effective_lr.engine.jobs import RunCache, duration
from effective_lr.engine.resources import CPU_SPEED, PROCESS_MEGABYTES, available_megabytes
from effective_lr.engine.study import BaseRun, load
from effective_lr.errors import reason

MEASURED_STEPS, MEASURED_SECONDS = 40, 2.0  # of each kind of run, whichever ends first
START_SECONDS = 4.0  # of a job, to import PyTorch and read the data


def caches(layout: Layout, study: str) -> dict[BaseRun, RunCache]:
    """The run cache of each run, for the present code and prepared data."""
    chapter, folder = layout.chapters[study], layout.results(study) / "runs"
    key = training_key(chapter.study)
    return {run: RunCache(folder, key, recorded(data_of(chapter.study, run), "sha256")) for run in chapter.runs}


def unfinished(layout: Layout, study: str) -> list[BaseRun]:
    """The runs that the run cache lacks; without those whose optional data cannot be had."""
    missing = [run for run, cache in caches(layout, study).items() if not cache.table_path(run).exists()]
    return [run for run in missing if not recorded(data_of(layout.chapters[study].study, run), "missing")]


def speed_kind(run: BaseRun) -> tuple[object, ...]:
    """The settings that may decide the speed of a run: all but its seed and its real numbers."""
    return tuple(value for key, value in run if key != "seed" and not isinstance(value, float))


def measure(name: str, runs: list[BaseRun]) -> list[float]:
    """Operations per second of each run, from its first steps here; CPU_SPEED where its data is not prepared."""
    import torch

    from effective_lr.prepare.dataset import load as load_tensors

    study = load(name)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    speeds = []
    for run in runs:
        data, speed = data_of(study, run), CPU_SPEED
        if data is None or data.tensors.exists():
            tensors = load_tensors(*data) if data else {}
            speed = study.operations(run) * runs_per_second(study.module("training"), run, tensors, device)
        speeds.append(speed)
    return speeds


def measure_at_once(name: str, runs: list[BaseRun], cores: int) -> list[list[float]]:
    """The same in as many processes as there are cores; in this one alone where the system refuses that."""
    try:
        with ProcessPoolExecutor(cores, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_DFL)) as pool:
            return list(pool.map(measure, [name] * cores, [runs] * cores))
    except OSError as error:
        print(f"{name}: measured in one process, not {cores} at once, since /dev/shm cannot be used ({reason(error)})")
        return [measure(name, runs)]


def runs_per_second(training: Any, run: BaseRun, tensors: Any, device: Any) -> float:
    """How fast a run trains, by the median of the later half of its first steps, or by all of a run of few steps.

    What is measured at some steps is left out: the first steps have more of it than any later ones.
    """
    data = training.load(tensors, run, device)
    seen = [(0.0, time.perf_counter())]  # the share of the run that is done, and when

    def after_step(state: Any) -> None:
        seen.append((state.step / state.steps, time.perf_counter()))
        if len(seen) > MEASURED_STEPS or (len(seen) > 5 and seen[-1][1] - seen[0][1] > MEASURED_SECONDS):
            raise _Enough

    with suppress(_Enough):
        training.train(run, data, after_step=after_step)
    later = seen[len(seen) // 2 if len(seen) > 4 else 0 :]
    seconds = median(after[1] - before[1] for before, after in itertools.pairwise(later))
    return (later[-1][0] - later[0][0]) / (len(later) - 1) / seconds


class _Enough(Exception):
    """The speed is known."""


def plan(layout: Layout, cores: int = 1) -> str:
    """Print what is left to train, and how long it takes by the speed that is measured here with all cores at work."""
    cores = max(1, min(cores, available_megabytes() // PROCESS_MEGABYTES))
    texts, seconds = zip(*(plan_study(layout, study, cores) for study in layout.chapters), strict=True)
    total = f"{layout.config.scale_name}: about {duration(sum(seconds) / cores)} with {cores} jobs at a time"
    return "\n\n".join([*texts, total])


def plan_study(layout: Layout, study: str, cores: int) -> tuple[str, float]:
    """The same of one study, and seconds of one core."""
    chapter, missing = layout.chapters[study], unfinished(layout, study)
    operations, left = chapter.study.operations, {run.run_id for run in missing}
    jobs = [name for name, runs in chapter.jobs.items() if any(run.run_id in left for run in runs)]
    text = f"{study}: {len(missing)} of {len(chapter.runs)} runs to train, in {len(jobs)} of {len(chapter.jobs)} jobs"
    if not missing:
        return text, 0.0
    kinds = {speed_kind(run): run for run in missing}
    measured = measure_at_once(study, list(kinds.values()), cores)
    speeds = dict(zip(kinds, map(mean, zip(*measured, strict=True)), strict=True))
    seconds = sum(operations(run) / speeds[speed_kind(run)] for run in missing) + START_SECONDS * len(jobs)
    work = (
        f"{sum(map(operations, missing)):.1e} floating point operations, {duration(seconds)} of one core at the speed "
        f"measured now ({CPU_SPEED:.0e} a second are assumed if the data is not prepared)"
    )
    return f"{text}\n{work}", seconds
