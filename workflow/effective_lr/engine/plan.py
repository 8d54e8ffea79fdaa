"""The runs of a scale as a whole: what is left to train and how long it takes, and what is unused."""

import itertools
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from statistics import mean, median
from typing import Any

from effective_lr.engine.code import training_key
from effective_lr.engine.inputs import Layout, data_of, recorded
from effective_lr.engine.jobs import RunCache, duration
from effective_lr.engine.resources import CPU_SPEED
from effective_lr.engine.study import BaseRun
from effective_lr.engine.study import load as load_study
from effective_lr.errors import UserError

MEASURED_STEPS, MEASURED_SECONDS = 40, 2.0  # of each kind of run, whichever ends first
PARTIAL_FILE_AGE = 3600.0  # seconds after which nobody can be writing a file any more


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


def measure(name: str, runs: list[BaseRun]) -> tuple[float, list[float | None]]:
    """Seconds that this process takes to start, and operations per second of each run, from its first steps here.

    None where the data of a run is not prepared.
    """
    start = time.perf_counter()
    import torch

    from effective_lr.prepare.dataset import load

    study = load_study(name)
    training = study.module("training")
    start_seconds = time.perf_counter() - start
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    speeds: list[float | None] = []
    for run in runs:
        data = data_of(study, run)
        is_ready = data is None or data.tensors.exists()
        tensors = load(*data) if data and is_ready else {}
        speeds.append(study.operations(run) * runs_per_second(training, run, tensors, device) if is_ready else None)
    return start_seconds, speeds


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


def plan(layout: Layout, study: str, cores: int, gpu_speed: float) -> tuple[str, float]:
    """What is left to train, and how long it takes by the speed that is measured here, with all cores at work.

    The text, and seconds of one core.
    """
    chapter, missing = layout.chapters[study], unfinished(layout, study)
    operations = {run.run_id: chapter.study.operations(run) for run in missing}
    left = [[run.run_id for run in runs if run.run_id in operations] for runs in chapter.jobs.values()]
    jobs = [sum(operations[run_id] for run_id in own) for own in left if own]
    planned = f"{study}: {len(chapter.runs)} runs in {len(chapter.jobs)} jobs"
    text = f"{planned}; {len(missing)} runs in {len(jobs)} jobs to train"
    if not missing:
        return text, 0.0
    kinds = {speed_kind(run): run for run in missing}
    with ProcessPoolExecutor(cores) as pool:
        calls = [pool.submit(measure, study, list(kinds.values())) for _ in range(cores)]
        starts, measured = zip(*(call.result() for call in calls), strict=True)
    speeds = dict(zip(kinds, zip(*measured, strict=True), strict=True))
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    for run in missing:
        found = [speed for speed in speeds[speed_kind(run)] if speed]
        seconds[group(run)].append(operations[run.run_id] / (mean(found) if found else CPU_SPEED))
    in_all = sum(map(sum, seconds.values())) + mean(starts) * len(jobs)
    is_assumed = None in itertools.chain(*measured)
    lines = [
        text,
        "",
        f"{'runs':>6}  {'a run':>8}  {'all':>8}",
        *(f"{len(of):6}  {duration(mean(of)):>8}  {duration(sum(of)):>8}  {name}" for name, of in seconds.items()),
        "",
        f"About {duration(in_all / cores)} with {cores} jobs at a time ({in_all / 3600:.2f} hours of one), each of "
        f"{len(jobs)} taking {mean(starts):.1f} s to start, at the speed measured just now"
        + (f", or {CPU_SPEED:.0e} operations per second where the data is not prepared." if is_assumed else "."),
        f"By arithmetic {sum(jobs):.1e} floating point operations: {sum(jobs) / gpu_speed / 3600:,.1f} GPU "
        f"hours if a GPU does {gpu_speed / 1e12:g} TFLOP/s, the longest job {duration(max(jobs) / gpu_speed)}.",
    ]
    return "\n".join(lines), in_all


def group(run: BaseRun) -> str:
    """Runs that a plan counts together: their stem without numbers."""
    return "-".join(part for part in run.stem.split("-") if "_" not in part) or run.stem


def clean(layout: Layout, study: str, remove: bool) -> str:
    """List what no run of the scale, as it is configured and coded now, can use; and delete it where `remove`."""
    used, folder = set(), layout.results(study) / "runs"
    for run, cache in caches(layout, study).items():
        data = data_of(layout.chapters[study].study, run)
        if data and not cache.data_sha256:
            raise UserError(
                f"{data.record}: missing, so the runs in use are not known; prepare the data first "
                "(`snakemake --cores 1 --until data`)"
            )
        used |= {cache.table_path(run).name, cache.checkpoint_path(run).name}
    unused = [
        path
        for path in folder.glob("*")
        if path.name not in used
        and not (path.name.startswith(".") and time.time() - path.stat().st_mtime < PARTIAL_FILE_AGE)  # being written
    ]
    size = sum(path.stat().st_size for path in unused) / 1e6
    if remove:
        for path in unused:
            path.unlink()
    what = "removed" if remove else "would remove"
    return f"{folder}: {what} {len(unused)} files that the present config and code do not use ({size:.1f} MB)"
