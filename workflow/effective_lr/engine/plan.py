"""What is left to train of a scale, and how long it takes."""

import signal
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from statistics import mean, median
from typing import Any

from effective_lr.engine.code import training_key
from effective_lr.engine.inputs import Layout, data_of, recorded
from effective_lr.engine.jobs import RunCache
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
    """Seconds that each run takes, from its first steps here; by CPU_SPEED where its data is not prepared."""
    import torch

    from effective_lr.prepare.dataset import load as load_tensors

    study = load(name)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = []
    for run in runs:
        data = data_of(study, run)
        if data is None or data.tensors.exists():
            found.append(seconds_of(study.module("training"), run, load_tensors(*data) if data else {}, device))
        else:
            found.append(study.operations(run) / CPU_SPEED)
    return found


def measure_at_once(name: str, runs: list[BaseRun], cores: int) -> list[list[float]]:
    """The same in as many processes as there are cores; in this one alone where the system refuses that."""
    try:
        with ProcessPoolExecutor(cores, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_DFL)) as pool:
            return list(pool.map(measure, [name] * cores, [runs] * cores))
    except OSError as error:
        print(f"{name}: measured in one process, not {cores} at once, since /dev/shm cannot be used ({reason(error)})")
        return [measure(name, runs)]


def seconds_of(training: Any, run: BaseRun, tensors: Any, device: Any) -> float:
    """How long a run trains, by the median of the later half of its first steps, or by all of a run of few steps.

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
    seconds = median(after[1] - before[1] for before, after in pairwise(later))
    return seconds * (len(later) - 1) / (later[-1][0] - later[0][0])


class _Enough(Exception):
    """The speed is known."""


def plan(layout: Layout, cores: int = 1) -> str:
    """Print what is left to train, and how long it takes by the speed that is measured here with all cores at work."""
    cores = max(1, min(cores, available_megabytes() // PROCESS_MEGABYTES))
    lines, total = [], 0.0
    for study, chapter in layout.chapters.items():
        missing = unfinished(layout, study)
        jobs = [name for name, runs in chapter.jobs.items() if not set(runs).isdisjoint(missing)]
        kinds = {speed_kind(run): run for run in missing}
        measured = measure_at_once(study, list(kinds.values()), cores) if missing else []
        seconds = dict(zip(kinds, map(mean, zip(*measured, strict=True)), strict=True))
        work = sum(seconds[speed_kind(run)] for run in missing) + START_SECONDS * len(jobs)
        total += work
        operations = sum(map(chapter.study.operations, missing))
        lines.append(
            f"{study}: {len(missing)} of {len(chapter.runs)} runs to train, {len(jobs)} of {len(chapter.jobs)} jobs, "
            f"{operations:.1e} floating point operations, {timedelta(seconds=round(work))} on one core"
        )
    time_left = timedelta(seconds=round(total / cores))
    assumed = f"by the speed measured now, or {CPU_SPEED:.0e} operations a second where the data is not prepared"
    return "\n".join([*lines, f"{layout.config.scale_name}: about {time_left} with {cores} jobs at a time, {assumed}"])
