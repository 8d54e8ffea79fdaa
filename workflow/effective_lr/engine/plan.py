"""The runs of a scale as a whole: what is left to train and how long it takes, what was trained, what is unused.

What a scheduler is asked for is in limits.py, which the Snakefile imports.
"""

import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from statistics import mean, median, median_high
from typing import Any, NamedTuple

from effective_lr.engine import grid
from effective_lr.engine.code import training_key
from effective_lr.engine.contents import Chapter
from effective_lr.engine.jobs import RunCache, duration, recorded
from effective_lr.engine.limits import CPU_SPEED, GPU_SPEED
from effective_lr.engine.storage import read_provenance
from effective_lr.engine.study import BaseRun, Study
from effective_lr.engine.study import load as load_study
from effective_lr.errors import UserError, reason

MEASURED_STEPS, MEASURED_SECONDS = 40, 2.0  # of each kind of run, whichever ends first
GPU_MEASURED = Path("results") / "gpu.json"  # by benchmarks/gpu.py
NIGHT = 12.0  # hours
PARTIAL_FILE_AGE = 3600.0  # seconds after which nobody can be writing a file any more


def data_files(data: Path, name: str) -> tuple[Path, Path]:
    """The prepared tensors and their record, in the folder of prepared data."""
    return data / f"{name}.pt", data / f"{name}.json"


def cache_of(study: Study, run: BaseRun, results: Path, data: Path, code: str) -> RunCache:
    """The run cache of a study at one scale, for this code and the prepared data of this run."""
    needed = study.data(run)
    sha256 = recorded(data_files(data, needed)[1], "sha256") if needed else ""
    return RunCache(results / "runs", code, sha256)


def left_out(study: Study, run: BaseRun, data: Path) -> str:
    """Why a run is never trained here, since its optional data cannot be had; nothing where it is."""
    needed = study.data(run)
    return recorded(data_files(data, needed)[1], "missing") if needed else ""


def unfinished(chapter: Chapter, results: Path, data: Path) -> list[BaseRun]:
    """The runs that the run cache lacks, for the present code and the prepared data."""
    key = training_key(chapter.study)
    return [
        run
        for run in grid.unique(chapter.experiments)
        if not cache_of(chapter.study, run, results, data, key).table_path(run).exists()
    ]


def speed_kind(run: BaseRun) -> tuple[object, ...]:
    """The settings that may decide the speed of a run: all but its seed and its real numbers."""
    return tuple(value for key, value in run if key != "seed" and not isinstance(value, float))


def measure(name: str, runs: list[BaseRun], data: dict[str, tuple[Path, Path]]) -> tuple[float, list[float | None]]:
    """Seconds that this process takes to start, and operations per second of each run, from its first steps here.

    None where the prepared data of a run is not in `data`.
    """
    start = time.perf_counter()
    import torch

    from effective_lr.prepare.prepared import load

    study = load_study(name)
    training = study.module("training")
    start_seconds = time.perf_counter() - start
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return start_seconds, [
        study.operations(run) * runs_per_second(training, run, load(*data[needed]) if needed else {}, device)
        if (needed := study.data(run)) is None or needed in data
        else None
        for run in runs
    ]


def runs_per_second(training: Any, run: BaseRun, tensors: Any, device: Any) -> float:
    """How fast a run trains, by the median of the later half of its first steps, or by all of a run of few steps.

    What is measured at some steps is left out: the first steps have more of it than any later ones.
    """
    shared = training.load(tensors, run, device)
    seen = [(0.0, time.perf_counter())]  # the share of the run that is done, and when

    def after_step(state: Any) -> None:
        seen.append((state.step / state.steps, time.perf_counter()))
        if len(seen) > MEASURED_STEPS or (len(seen) > 5 and seen[-1][1] - seen[0][1] > MEASURED_SECONDS):
            raise _Enough

    with suppress(_Enough):
        training.train(run, shared, after_step=after_step)
    later = seen[len(seen) // 2 if len(seen) > 4 else 0 :]
    seconds = median(after[1] - before[1] for before, after in pairwise(later))
    return (later[-1][0] - later[0][0]) / (len(later) - 1) / seconds


class _Enough(Exception):
    """The speed is known."""


class GpuSpeed(NamedTuple):
    """What a plan takes a GPU to do."""

    operations: float  # floating point operations per second of the whole device
    jobs: int  # that share it
    source: str  # of these numbers


GUESS = GpuSpeed(GPU_SPEED, 1, "a guess: no GPU was measured")


def plan(chapter: Chapter, results: Path, data: Path, cores: int, gpu: GpuSpeed = GUESS) -> tuple[str, float]:
    """What is left to train, and how long it takes by the speed that is measured here, with all cores at work.

    The text, and seconds of one core.
    """
    missing = unfinished(chapter, results, data)
    total = len(grid.unique(chapter.experiments))
    text = (
        f"{chapter.name}: {total} runs in {len(chapter.shards)} shards; "
        f"{total - len(missing)} finished, {len(missing)} to train"
    )
    if not missing:
        return text, 0.0
    kinds = {speed_kind(run): run for run in missing}
    needed = {name for run in missing if (name := chapter.study.data(run)) is not None}
    there = {name: data_files(data, name) for name in needed if data_files(data, name)[0].exists()}
    with ProcessPoolExecutor(cores) as pool:
        calls = [pool.submit(measure, chapter.name, list(kinds.values()), there) for _ in range(cores)]
        starts, measured = zip(*(call.result() for call in calls), strict=True)
    speeds = dict(zip(kinds, zip(*measured, strict=True), strict=True))
    seconds: defaultdict[str, float] = defaultdict(float)
    count: Counter[str] = Counter()
    is_assumed = False
    for run in missing:
        found = [speed for speed in speeds[speed_kind(run)] if speed]
        is_assumed |= not found
        seconds[group(run)] += chapter.study.operations(run) / (mean(found) if found else CPU_SPEED)
        count[group(run)] += 1
    lines = [text, "", f"{'runs':>6}  {'a run':>8}  {'all':>8}"]
    lines += [
        f"{count[name]:6}  {duration(seconds[name] / count[name]):>8}  {duration(seconds[name]):>8}  {name}"
        for name in count
    ]
    jobs = len(grid.shards(missing))
    in_all = sum(seconds.values()) + mean(starts) * jobs
    lines += [
        "",
        f"About {duration(in_all / cores)} with {cores} jobs at a time ({in_all / 3600:.2f} hours of one), each of "
        f"{jobs} taking {mean(starts):.1f} s to start, at the speed measured just now"
        + (f", or {CPU_SPEED:.0e} operations per second where the data is not prepared." if is_assumed else "."),
        gpu_hours(work(chapter.study, missing), gpu),
    ]
    return "\n".join(lines), in_all


def group(run: BaseRun) -> str:
    """Runs that a plan tells together: their stem without numbers."""
    return "-".join(part for part in run.stem.split("-") if "_" not in part) or run.stem


def seconds_per_operation(study: Study, taken: Iterable[tuple[BaseRun, float]]) -> dict[str, float]:
    """The median over runs and the seconds that they took, by kind of run, and under '' of all; empty without any."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for run, seconds in taken:
        for name in ("", group(run)):
            found[name].append(seconds / study.operations(run))
    return {name: median_high(values) for name, values in found.items()}


def work(study: Study, runs: list[BaseRun]) -> dict[str, float]:
    """How many runs and jobs these are, and their floating point operations: of all, and of the longest job."""
    jobs = [sum(map(study.operations, shard)) for shard in grid.shards(runs).values()]
    return {"runs": len(runs), "jobs": len(jobs), "operations": sum(jobs), "longest_job": max(jobs, default=0.0)}


def gpu_speed(study: Study, given: float = 0.0, measured: Path = GPU_MEASURED) -> GpuSpeed:
    """The speed that is given; else the one that benchmarks/gpu.py measured for this study; else a guess."""
    if given < 0:
        raise UserError(f"GPU_SPEED = {given:g}: expected floating point operations per second, such as 1e13")
    if given:
        return GpuSpeed(given, 1, "as given")
    if measured.exists():
        try:
            found = json.loads(measured.read_text())
            if found["study"] == study.name:
                told = f"measured on {found['device']} with gpu_slots = {found['gpu_slots']}, {measured}"
                return GpuSpeed(float(found["operations_per_second"]), int(found["gpu_slots"]), told)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{measured}: no speed of a GPU in it ({reason(error)}): expected what benchmarks/gpu.py writes on a "
                "GPU; remove it, or measure again"
            ) from None
    return GUESS


def gpu_hours(left: dict[str, float], gpu: GpuSpeed) -> str:
    """What this work takes on GPUs by its arithmetic, and how many of them do it in a night.

    Devices that never wait while there are jobs end at most the longest job after the mean, in whatever order they
    take them.
    """
    hours = left["operations"] / gpu.operations / 3600
    longest = left["longest_job"] * gpu.jobs / gpu.operations / 3600
    devices = max(math.ceil(hours / (NIGHT - longest)), 1) if longest < NIGHT else "no number is enough"
    return (
        f"By arithmetic {left['operations']:.1e} floating point operations: {hours:,.1f} GPU hours at "
        f"{gpu.operations / 1e12:.1f} TFLOP/s ({gpu.source}). The longest of {left['jobs']} jobs takes "
        f"{duration(3600 * longest)}. GPUs for a night of {NIGHT:.0f} hours: {devices}."
    )


def summary(shards: Iterable[Path], start: float) -> str:
    """What the jobs of these shards did since `start`: runs trained, reused and diverged, and hours."""
    count: Counter[str] = Counter()
    seconds = 0.0
    for path in shards:
        try:
            provenance = read_provenance(path)
        except UserError:
            count["unreadable"] += 1  # what reads it next tells why
            continue
        for record in provenance:
            count["reused" if record.reused else "trained"] += 1
            count["diverged"] += record.diverged is not None
            seconds += 0 if record.reused else record.seconds
    text = (
        f"Runs: {count['trained']} trained in {seconds / 3600:.2f} hours of one core or GPU, {count['reused']} reused, "
        f"{count['diverged']} diverged; {duration(time.time() - start)} in all."
    )
    if count["unreadable"]:
        text += f" Unreadable shards: {count['unreadable']}."
    return text


def clean(chapter: Chapter, results: Path, data: Path) -> str:
    """Remove what no run of the scale, as it is configured and coded now, can use."""
    used = set()
    key = training_key(chapter.study)
    for run in grid.unique(chapter.experiments):
        needed = chapter.study.data(run)
        cache = cache_of(chapter.study, run, results, data, key)
        if needed is not None and not cache.data:
            raise UserError(
                f"{data / needed}.json: missing, so nobody can tell which runs are in use; "
                "prepare the data first (`snakemake --cores 1 --until data`)"
            )
        used |= {cache.table_path(run).name, cache.checkpoint_path(run).name}
    removed, size = 0, 0
    for path in (results / "runs").glob("*"):
        is_being_written = path.name.startswith(".") and time.time() - path.stat().st_mtime < PARTIAL_FILE_AGE
        if path.name in used or is_being_written:
            continue
        removed, size = removed + 1, size + path.stat().st_size
        path.unlink()
    return f"{results / 'runs'}: removed {removed} files that nothing uses ({size / 1e6:.1f} MB)"
