"""The runs of a scale as a whole: what is left to train and how long it takes, what was trained, what is unused."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from statistics import mean, median, median_high
from typing import Any

from effective_lr.engine.code import training_key
from effective_lr.engine.contents import Chapter
from effective_lr.engine.inputs import DataFiles, data_files
from effective_lr.engine.jobs import RunCache, duration, recorded
from effective_lr.engine.resources import CPU_SPEED
from effective_lr.engine.storage import read_provenance
from effective_lr.engine.study import BaseRun, Study
from effective_lr.engine.study import load as load_study
from effective_lr.errors import UserError

MEASURED_STEPS, MEASURED_SECONDS = 40, 2.0  # of each kind of run, whichever ends first
PARTIAL_FILE_AGE = 3600.0  # seconds after which nobody can be writing a file any more


def cache_of(study: Study, run: BaseRun, results: Path, code_key: str) -> RunCache:
    """The run cache of a study at one scale, for this code and the prepared data of this run."""
    needed = study.data(run)
    return RunCache(results / "runs", code_key, recorded(data_files(needed).record, "sha256") if needed else "")


def unfinished(chapter: Chapter, results: Path) -> list[BaseRun]:
    """The runs that the run cache lacks, for the present code and the prepared data; without those whose optional data
    cannot be had."""
    key = training_key(chapter.study)

    def is_unavailable(run: BaseRun) -> bool:
        needed = chapter.study.data(run)
        return bool(needed and recorded(data_files(needed).record, "missing"))

    return [
        run
        for run in chapter.runs
        if not cache_of(chapter.study, run, results, key).table_path(run).exists() and not is_unavailable(run)
    ]


def speed_kind(run: BaseRun) -> tuple[object, ...]:
    """The settings that may decide the speed of a run: all but its seed and its real numbers."""
    return tuple(value for key, value in run if key != "seed" and not isinstance(value, float))


def measure(name: str, runs: list[BaseRun], data: dict[str, DataFiles]) -> tuple[float, list[float | None]]:
    """Seconds that this process takes to start, and operations per second of each run, from its first steps here.

    None where the prepared data of a run is not in `data`.
    """
    start = time.perf_counter()
    import torch

    from effective_lr.prepare.dataset import load

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
    return (later[-1][0] - later[0][0]) / (len(later) - 1) / seconds


class _Enough(Exception):
    """The speed is known."""


def plan(chapter: Chapter, results: Path, cores: int, gpu_speed: float) -> tuple[str, float]:
    """What is left to train, and how long it takes by the speed that is measured here, with all cores at work.

    The text, and seconds of one core.
    """
    missing = unfinished(chapter, results)
    remaining = {run.run_id for run in missing}
    jobs = {
        name: own for name, runs in chapter.jobs.items() if (own := [run for run in runs if run.run_id in remaining])
    }
    text = (
        f"{chapter.name}: {len(chapter.runs)} runs in {len(chapter.jobs)} jobs; {len(missing)} runs in {len(jobs)} "
        "jobs to train"
    )
    if not missing:
        return text, 0.0
    kinds = {speed_kind(run): run for run in missing}
    needed = {name for run in missing if (name := chapter.study.data(run)) is not None}
    available = {name: data_files(name) for name in needed if data_files(name).tensors.exists()}
    with ProcessPoolExecutor(cores) as pool:
        calls = [pool.submit(measure, chapter.name, list(kinds.values()), available) for _ in range(cores)]
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
    in_all = sum(seconds.values()) + mean(starts) * len(jobs)
    operations = [sum(map(chapter.study.operations, runs)) for runs in jobs.values()]
    lines += [
        "",
        f"About {duration(in_all / cores)} with {cores} jobs at a time ({in_all / 3600:.2f} hours of one), each of "
        f"{len(jobs)} taking {mean(starts):.1f} s to start, at the speed measured just now"
        + (f", or {CPU_SPEED:.0e} operations per second where the data is not prepared." if is_assumed else "."),
        f"By arithmetic {sum(operations):.1e} floating point operations: {sum(operations) / gpu_speed / 3600:,.1f} GPU "
        f"hours if a GPU does {gpu_speed / 1e12:g} TFLOP/s, the longest job {duration(max(operations) / gpu_speed)}.",
    ]
    return "\n".join(lines), in_all


def group(run: BaseRun) -> str:
    """Runs that a plan counts together: their stem without numbers."""
    return "-".join(part for part in run.stem.split("-") if "_" not in part) or run.stem


def seconds_per_operation(study: Study, taken: Iterable[tuple[BaseRun, float]]) -> dict[str, float]:
    """The median over runs and the seconds that they took, by kind of run, and under '' of all; empty without any."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for run, seconds in taken:
        for name in ("", group(run)):
            found[name].append(seconds / study.operations(run))
    return {name: median_high(values) for name, values in found.items()}


def summary(tables: Iterable[Path], start: float) -> str:
    """What the jobs of these tables did since `start`: runs trained, reused and diverged, and hours."""
    count: Counter[str] = Counter()
    seconds = 0.0
    for path in tables:
        try:
            provenance = read_provenance(path)
        except UserError:
            count["unreadable"] += 1  # what reads it next reports why
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
        text += f" Unreadable tables: {count['unreadable']}."
    return text


def clean(chapter: Chapter, results: Path, remove: bool) -> str:
    """List what no run of the scale, as it is configured and coded now, can use; and delete it where `remove`."""
    used = set()
    key = training_key(chapter.study)
    for run in chapter.runs:
        needed = chapter.study.data(run)
        cache = cache_of(chapter.study, run, results, key)
        if needed is not None and not cache.data_sha256:
            raise UserError(
                f"{data_files(needed).record}: missing, so the runs in use are not known; prepare the data first "
                "(`snakemake --cores 1 --until data`)"
            )
        used |= {cache.table_path(run).name, cache.checkpoint_path(run).name}
    unused = [
        path
        for path in (results / "runs").glob("*")
        if path.name not in used
        and not (path.name.startswith(".") and time.time() - path.stat().st_mtime < PARTIAL_FILE_AGE)  # being written
    ]
    size = sum(path.stat().st_size for path in unused) / 1e6
    if remove:
        for path in unused:
            path.unlink()
    what = "removed" if remove else "would remove"
    return f"{results / 'runs'}: {what} {len(unused)} files that the present config and code do not use ({size:.1f} MB)"
