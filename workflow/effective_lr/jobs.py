"""A training job: the runs of a shard, one after another, written as one table with its provenance.

It trains only what is missing. Finished runs lie in the run cache, each under the fingerprint of all that its result
depends on, and beside them a checkpoint of a run that was interrupted. A signal saves and stops; a kill loses at most
the time since the last checkpoint.
"""

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache as once
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from effective_lr.config import Run, UserError
from effective_lr.devices import lease, lease_folder, visible_devices
from effective_lr.storage import read_checked, read_table, with_provenance, write_checked, write_table

if TYPE_CHECKING:  # a job that finds all its runs finished never imports torch: it takes two seconds
    import torch

    from effective_lr.data import Splits
    from effective_lr.training import Training

SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("step", pa.int32()),
        ("layer", pa.string()),
        ("quantity", pa.string()),
        ("value", pa.float64()),
    ]
)
PROGRESS_SECONDS = 10.0  # between lines that tell how far a run is
Result = tuple[pa.Table, dict[str, Any]]  # of one run: its rows and its provenance


class Stopped(Exception):
    """The user or the system asked the job to stop, and what could be saved was saved."""


class StopSignal:
    """SIGINT and SIGTERM: heard at once, or after the present step where that is `deferred`."""

    def __init__(self) -> None:
        self.number = 0
        self.deferred = False
        signal.signal(signal.SIGINT, self)
        signal.signal(signal.SIGTERM, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        if not self.deferred:
            raise Stopped


@dataclass
class RunCache:
    """The finished runs and the checkpoints of one scale. `code` and `data` are fingerprints of what made them."""

    folder: Path
    code: str
    data: str

    def table_path(self, run: Run) -> Path:
        return self.folder / f"{run.fingerprint(self.code, self.data)}.parquet"

    def checkpoint_path(self, run: Run) -> Path:
        return self.table_path(run).with_suffix(".checkpoint")

    def finished(self, run: Run) -> Result | None:
        """The result of a run, if it is here and whole."""
        path = self.table_path(run)
        if not path.exists():
            return None
        try:
            table, [provenance] = read_table(path)
            return table, {**provenance, "reused": True}
        except UserError as error:
            print(f"{error} — training it again", flush=True)
            return None

    def checkpoint(self, run: Run) -> bytes | None:
        """The last checkpoint of a run, if it is here and whole."""
        path = self.checkpoint_path(run)
        try:
            return read_checked(path) if path.exists() else None
        except UserError as error:
            print(f"{error} — starting {run.run_id} from its first step", flush=True)
            return None


@dataclass
class Watch:
    """What happens between the steps of a shard's runs: checkpoints, lines of progress, and the end on a signal."""

    stop: StopSignal
    cache: RunCache
    checkpoint_seconds: float
    shard: str
    runs: list[Run]
    left: list[Run]  # not trained yet, the present one among them
    steps_done: int = 0
    start: float = field(default_factory=time.monotonic)
    saved: float = field(default_factory=time.monotonic)
    told: float = field(default_factory=time.monotonic)

    def __call__(self, training: "Training") -> None:
        self.steps_done += 1
        now = time.monotonic()
        is_over = training.diverged or training.step == training.run.steps
        if now - self.told >= PROGRESS_SECONDS:
            self.told = now
            print(self.progress(training), flush=True)
        if is_over:
            return
        if self.stop.number or now - self.saved >= self.checkpoint_seconds:
            self.saved = now
            try:
                write_checked(training.save(), self.cache.checkpoint_path(training.run))
            except UserError as error:  # a checkpoint is an insurance: the training itself is not harmed
                print(f"No checkpoint: {error}", flush=True)
        if self.stop.number:
            raise Stopped

    def progress(self, training: "Training") -> str:
        """How far the present run and the shard are, and how long the rest takes at the speed so far."""
        run = training.run
        epoch_steps = run.train_size // run.batch_size
        rate = self.steps_done / (time.monotonic() - self.start)
        steps_left = sum(other.steps for other in self.left) - training.step
        return (
            f"{self.shard}: run {self.runs.index(run) + 1} of {len(self.runs)}, "
            f"epoch {training.step / epoch_steps:.1f} of {run.steps / epoch_steps:.1f}, "
            f"{rate * run.batch_size:,.0f} images/s, {duration(steps_left / rate)} left"
        )


def duration(seconds: float) -> str:
    """For a person: 0:42, 12:05 or 3:10:00."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@once
def commit() -> str:
    """The commit of this repository, '-dirty' added where files differ from it, or 'unknown' without git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"
    except FileNotFoundError:
        return "unknown"


def train(
    run: Run, splits: "Splits", cache: RunCache, watch: Callable[["Training"], None], reuse: bool = True
) -> Result:
    """Train a run, from its checkpoint if there is one and `reuse` allows, and keep its result in the run cache."""
    import torch

    from effective_lr.training import train_run

    device = splits.train_images.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    saved = cache.checkpoint(run) if reuse else None
    resumed_at: list[int] = []

    def after_step(training: "Training") -> None:
        if saved is not None and not resumed_at:
            resumed_at.append(training.step - 1)
            print(f"{run.run_id}: resumed after step {training.step - 1}", flush=True)
        watch(training)

    training = train_run(run, splits, saved=saved, after_step=after_step)
    provenance = {
        "run_id": run.run_id,
        "run": run.model_dump(),
        "fingerprint": cache.table_path(run).stem,
        "code": cache.code,
        "data": cache.data,
        "commit": commit(),
        "diverged": training.step if training.diverged else None,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "resumed": bool(resumed_at),
        "seconds": round(training.seconds, 3),
        "gpu_seconds": round(training.seconds, 3) if device.type == "cuda" else 0.0,
        "samples_per_second": round(training.step * run.batch_size / training.seconds),
        "peak_memory_mb": round(peak_memory_mb(device)),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU {platform.machine()}",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    columns = [[run.run_id] * len(training.rows), *map(list, zip(*training.rows, strict=True))]
    table = pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA)
    write_table(with_provenance(table, [provenance]), cache.table_path(run))
    cache.checkpoint_path(run).unlink(missing_ok=True)
    return table, {**provenance, "reused": False}


def peak_memory_mb(device: "torch.device") -> float:
    """The most memory held so far: on the GPU, or by this process."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (2**20 if sys.platform == "darwin" else 2**10)


def describe(run: Run, table: pa.Table, provenance: dict[str, Any]) -> str:
    """One line for a person who follows the training."""
    if provenance["diverged"]:
        result = f"diverged at step {provenance['diverged']}"
    else:
        errors = table.filter(pc.equal(table["quantity"], "test_error"))["value"]
        result = f"test error {100 * pc.mean(errors).as_py():.1f} %"
    how = "reused, from" if provenance["reused"] else f"{provenance['seconds']:.1f} s,"
    when = provenance["finished"] if provenance["reused"] else f"{provenance['samples_per_second']:,} images/s"
    return f"{run.run_id}: {result} ({how} {when})"


@contextmanager
def on_device(runs: list[Run], splits: "Splits", device: str, slots: int) -> Iterator["Splits"]:
    """The data on the CPU, or on a GPU of which a slot is held meanwhile. Raises UserError when its memory is full."""
    import torch

    if device == "cpu":
        yield splits.to("cpu")
        return
    devices = visible_devices(torch.cuda.device_count())
    with lease(devices, slots, lease_folder()) as index:
        torch.cuda.set_device(index)
        try:
            yield splits.to(torch.device("cuda", index))
        except torch.OutOfMemoryError:
            advice = "lower width or batch_size, or use device=cpu"
            if slots > 1:
                advice = f"try --config gpu_slots={slots - 1}"
            raise UserError(
                f"{runs[0].shard_id}: out of memory on GPU {devices[index]} with gpu_slots = {slots}; {advice}"
            ) from None


def choose_device(name: str) -> tuple[str, str]:
    """'cpu' or 'cuda' for what the config asks for, and in words why."""
    import torch

    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise UserError("config: device = 'cuda': no CUDA device is visible here; use device=auto or device=cpu")
    if name == "auto" and not has_gpu:
        return "cpu", "CPU, since no GPU is visible"
    return ("cpu", "CPU") if name == "cpu" else ("cuda", "GPU")


def train_missing(
    runs: list[Run], results: dict[Run, Result], cache: RunCache, stop: StopSignal, arguments: argparse.Namespace
) -> None:
    """Train the runs of a shard that have no result yet."""
    from effective_lr.data import load
    from effective_lr.training import plain_float32

    missing = [run for run in runs if run not in results]
    shard = runs[0].shard_id
    device, why = choose_device(arguments.device)
    print(f"{shard}: {len(missing)} of {len(runs)} runs to train, on the {why}", flush=True)
    plain_float32()
    splits = load(arguments.tensors, arguments.record)
    splits = splits.subset(runs[0].train_size, runs[0].validation_size, runs[0].test_size)  # the shard shares its data
    with on_device(runs, splits, device, arguments.gpu_slots) as there:
        watch = Watch(stop, cache, arguments.checkpoint_seconds, shard, runs, missing)
        for run in list(missing):
            stop.deferred = True
            result = train(run, there, cache, watch, reuse=not arguments.retrain)
            stop.deferred = False
            results[run] = result
            missing.remove(run)
            print(f"[{runs.index(run) + 1}/{len(runs)}] {describe(run, *result)}", flush=True)
            if stop.number:
                raise Stopped


def main() -> int:
    environment = os.environ
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", required=True, help="JSON list of the settings of each run")
    parser.add_argument("--code", required=True, help="fingerprint of the training sources")
    parser.add_argument("--tensors", type=Path, required=True, help="prepared data")
    parser.add_argument("--record", type=Path, required=True, help="its record")
    parser.add_argument("--cache", type=Path, required=True, help="folder of finished runs and checkpoints")
    parser.add_argument("--output", type=Path, required=True, help="the table to write")
    parser.add_argument(
        "--device", default=environment.get("EFFECTIVE_LR_DEVICE", "auto"), choices=["auto", "cpu", "cuda"]
    )
    parser.add_argument("--gpu-slots", type=int, default=environment.get("EFFECTIVE_LR_GPU_SLOTS", 1))
    parser.add_argument(
        "--checkpoint-seconds", type=float, default=environment.get("EFFECTIVE_LR_CHECKPOINT_SECONDS", 60)
    )
    parser.add_argument(
        "--retrain",
        action="store_true",
        default=bool(environment.get("EFFECTIVE_LR_RETRAIN")),
        help="train every run, whatever the cache holds",
    )
    arguments = parser.parse_args()
    runs = [Run(**settings) for settings in json.loads(arguments.runs)]
    results: dict[Run, Result] = {}
    cache = RunCache(arguments.cache, arguments.code, recorded_data(arguments.record))
    stop = StopSignal()
    try:
        for number, run in enumerate(runs, start=1):
            if not arguments.retrain and (result := cache.finished(run)):
                results[run] = result
                print(f"[{number}/{len(runs)}] {describe(run, *result)}", flush=True)
        if len(results) < len(runs):
            train_missing(runs, results, cache, stop, arguments)
        tables, provenances = zip(*(results[run] for run in runs), strict=True)
        write_table(with_provenance(pa.concat_tables(tables), list(provenances)), arguments.output)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except Stopped:
        is_saved = any(cache.checkpoint_path(run).exists() for run in runs if run not in results)
        underway = ", and a checkpoint of the one under way" if is_saved else ""
        print(
            f"{runs[0].shard_id}: stopped; its {len(results)} finished of {len(runs)} runs are kept{underway}; "
            "the same command goes on from there",
            file=sys.stderr,
        )
        return 128 + stop.number
    return 0


def recorded_data(record: Path) -> str:
    """The checksum of the data, or nothing where the record is damaged, which `data.load` then tells."""
    try:
        return str(json.loads(record.read_text())["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


if __name__ == "__main__":
    sys.exit(main())
