"""The runs of a scale as a whole: what is left to train and how long it takes, what was trained, what is unused."""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from effective_lr import grid
from effective_lr.config import DATASETS, Run, UserError
from effective_lr.costs import GPU_SPEED, Speed, run_seconds, total_operations
from effective_lr.jobs import RunCache, duration, recorded_data

MEASURED_SECONDS = 0.5  # of steps, for each kind of run
PARTIAL_FILE_AGE = 3600.0  # seconds after which nobody can be writing a file any more
Kind = tuple[Any, ...]  # the settings that decide the speed of a run


def kind(run: Run) -> Kind:
    return run.dataset, run.resolution, run.width, run.batch_size, run.normalization, run.optimizer


def cache_of(results: Path, run: Run) -> RunCache:
    """The run cache of a scale, for the present code and the prepared data of this run."""
    record = results.parent / "data" / f"{run.dataset}-{run.resolution}.json"
    return RunCache(results / "runs", grid.code_fingerprint(grid.TRAINING_SOURCES), recorded_data(record))


def measure(runs: list[Run]) -> tuple[float, list[Speed]]:
    """How long this process takes to start, and how fast it trains and evaluates these runs on random images."""
    start = time.perf_counter()
    import torch

    from effective_lr.data import Splits
    from effective_lr.training import EVALUATION_CHUNK, Training, evaluate, plain_float32

    start_seconds = time.perf_counter() - start
    plain_float32()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    speeds = []
    for run in runs:
        number = max(run.batch_size, EVALUATION_CHUNK)
        images = torch.randn(number, DATASETS[run.dataset].channels, run.resolution, run.resolution)
        labels = torch.arange(number) % 10
        splits = Splits(images, labels, images, labels, images, labels, sha256="").to(device)
        # Without probes, evaluations or an end: steps alone.
        training = Training(run.model_copy(update={"steps": 10**9, "probes": 1}), splits)
        batch = torch.arange(run.batch_size, device=device)
        for _ in range(3):
            training.advance(batch)
        before, start, steps = training.step, time.perf_counter(), 0
        while steps < 3 or time.perf_counter() - start < MEASURED_SECONDS:
            training.advance(batch)
            steps = training.step - before
        float(training.late_loss)  # waits for a GPU
        step_seconds = (time.perf_counter() - start) / steps
        for _ in range(2):  # the first is a warm-up
            start = time.perf_counter()
            evaluate(training.network, splits.test_images, splits.test_labels)
            image_seconds = (time.perf_counter() - start) / number
        speeds.append((step_seconds, image_seconds))
    return start_seconds, speeds


def gpu_hours(runs: list[Run]) -> str:
    """What these runs take on a GPU by their arithmetic alone."""
    total = total_operations(runs)
    hours = total / GPU_SPEED / 3600
    return (
        f"By arithmetic {total:.1e} floating point operations: {hours:,.1f} hours of a GPU that sustains "
        f"{GPU_SPEED / 1e12:.0f} TFLOP/s in float32, which is a guess: no GPU was measured."
    )


def plan(scale: str, runs: list[Run], results: Path, cores: int) -> str:
    """What is left to train, and how long it takes by the speed that is measured here, with all cores at work."""
    missing = [run for run in runs if not cache_of(results, run).table_path(run).exists()]
    text = (
        f"{scale}: {len(runs)} runs in {len(grid.shards(runs))} shards; "
        f"{len(runs) - len(missing)} finished, {len(missing)} to train"
    )
    if not missing:
        return text
    kinds = {kind(run): run for run in missing}
    with ProcessPoolExecutor(cores) as pool:
        starts, measured = zip(*pool.map(measure, [list(kinds.values())] * cores), strict=True)
    speeds = {
        name: (mean(step for step, _ in each), mean(image for _, image in each))
        for name, each in zip(kinds, zip(*measured, strict=True), strict=True)
    }
    lines = [text, "", f"{'runs':>6}  {'images/s':>9}  {'a run':>8}  {'all':>8}"]
    total = mean(starts) * len(grid.shards(missing))
    for name in kinds:
        alike = [run for run in missing if kind(run) == name]
        seconds = [run_seconds(run, speeds[name]) for run in alike]
        total += sum(seconds)
        what = f"{name[4]}, {name[5]}: {name[0]} at {name[1]}×{name[1]}, width {name[2]}"
        speed = alike[0].batch_size / speeds[name][0]
        lines.append(
            f"{len(alike):6}  {speed:9,.0f}  {duration(mean(seconds)):>8}  {duration(sum(seconds)):>8}  {what}"
        )
    lines += [
        "",
        f"About {duration(total / cores)} with {cores} jobs at a time ({total / 3600:.2f} hours of one), each of "
        f"{len(grid.shards(missing))} taking {mean(starts):.1f} s to start, at the speed measured just now.",
        gpu_hours(missing),
    ]
    return "\n".join(lines)


def summary(shards: Iterable[Path], start: float) -> str:
    """What the jobs of these shards did since `start`: runs trained, reused and diverged, and hours."""
    count: Counter[str] = Counter()
    seconds = 0.0
    for path in shards:
        try:
            provenance = json.loads(pq.read_schema(path).metadata[b"provenance"])
        except (pa.ArrowException, KeyError, TypeError):
            count["unreadable"] += 1  # what reads it next tells why
            continue
        for record in provenance:
            count["reused" if record["reused"] else "trained"] += 1
            count["diverged"] += record["diverged"] is not None
            seconds += 0 if record["reused"] else record["seconds"]
    return (
        f"Runs: {count['trained']} trained in {seconds / 3600:.2f} hours of one core or GPU, {count['reused']} reused, "
        f"{count['diverged']} diverged; {duration(time.time() - start)} in all."
        + f" Unreadable shards: {count['unreadable']}."
        * bool(count["unreadable"])
    )


def clean(runs: list[Run], results: Path) -> str:
    """Remove what no run of the scale, as it is configured and coded now, can use."""
    used = set()
    for run in runs:
        cache = cache_of(results, run)
        if not cache.data:
            raise UserError(
                f"results/data/{run.dataset}-{run.resolution}.json: missing, so nobody can tell which runs are in use; "
                "prepare the data first (`snakemake --cores 1 --until data`)"
            )
        used |= {cache.table_path(run).name, cache.checkpoint_path(run).name}
    removed, size = 0, 0
    for path in (results / "runs").glob("*"):
        is_remains = path.name.startswith(".")
        if path.name in used or (is_remains and time.time() - path.stat().st_mtime < PARTIAL_FILE_AGE):
            continue
        removed, size = removed + 1, size + path.stat().st_size
        path.unlink()
    return f"{results / 'runs'}: removed {removed} files that nothing uses ({size / 1e6:.1f} MB)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["plan", "clean"])
    parser.add_argument("--scale", default="laptop")
    parser.add_argument("--cores", type=int, default=1, help="training jobs at a time")
    arguments = parser.parse_args()
    try:
        scale = grid.load_scale(Path("config/scales"), arguments.scale)
        runs = list({run.run_id: run for runs in scale.runs().values() for run in runs}.values())
        results = Path("results") / arguments.scale
        if arguments.command == "plan":
            print(plan(arguments.scale, runs, results, arguments.cores))
        else:
            print(clean(runs, results))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
