"""A training job: the runs of a shard, one after another, written as one table with its provenance.

It trains only what is missing. Finished runs lie in the run cache, each under the fingerprint of all that its result
depends on, and beside them a checkpoint of a run that was interrupted. A signal saves and stops; a kill loses at most
the time since the last checkpoint.
"""

import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache as once
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from effective_lr.engine.devices import choose_device, on_device
from effective_lr.engine.storage import (
    SCHEMA,
    Provenance,
    Result,
    read_checked,
    read_table,
    whole_file,
    with_provenance,
    write_checked,
    write_table,
)
from effective_lr.engine.study import BaseRun, Study
from effective_lr.errors import UserError

if TYPE_CHECKING:  # a job that finds all its runs finished never imports torch: it takes two seconds
    import torch

PROGRESS_SECONDS = 10.0  # between lines that tell how far a run is
NOTED = 40  # losses of a run in the note of a job


class Training(Protocol):
    """A run under way, as its study trains it."""

    step: int  # done
    diverged: bool
    seconds: float  # so far, those before a resumption included
    rows: list[tuple[int, str, str, float]]  # step, layer, quantity, value

    @property
    def steps(self) -> int: ...  # in all

    @property
    def examples(self) -> int: ...  # seen so far

    @property
    def weights(self) -> "dict[str, torch.Tensor]": ...  # all that is trained, by name

    def save(self) -> bytes: ...  # all that a later process needs to go on as if nothing had happened


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

    def table_path(self, run: BaseRun) -> Path:
        return self.folder / f"{run.fingerprint(self.code, self.data)}.parquet"

    def checkpoint_path(self, run: BaseRun) -> Path:
        return self.table_path(run).with_suffix(".checkpoint")

    def finished(self, run: BaseRun) -> Result | None:
        """The result of a run, if it is here and whole."""
        path = self.table_path(run)
        if not path.exists():
            return None
        try:
            table, [provenance] = read_table(path)
            return table, provenance.model_copy(update={"reused": True})
        except UserError as error:
            print(f"{error} — training it again", flush=True)
            return None

    def checkpoint(self, run: BaseRun) -> bytes | None:
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
    unit: str
    runs: list[BaseRun]
    left: list[BaseRun]  # not trained yet, the present one first
    note: Path  # where `make watch` reads how far the job is
    saved: float = field(default_factory=time.monotonic)
    told: float = field(default_factory=time.monotonic)

    def __call__(self, run: BaseRun, training: Training) -> None:
        now = time.monotonic()
        if now - self.told >= PROGRESS_SECONDS:
            self.told = now
            print(self.progress(run, training), flush=True)
            write_note(self.note, self.runs, run, training)
        if training.diverged or training.step == training.steps:
            return
        if self.stop.number or now - self.saved >= self.checkpoint_seconds:
            self.saved = now
            try:
                write_checked(training.save(), self.cache.checkpoint_path(run))
            except UserError as error:  # a checkpoint is an insurance: the training itself is not harmed
                print(f"No checkpoint: {error}", flush=True)
        if self.stop.number:
            raise Stopped

    def progress(self, run: BaseRun, training: Training) -> str:
        """How far the present run and the shard are, and how long the rest takes at the speed of the present run."""
        per_step = training.seconds / training.step
        left = (training.steps - training.step + training.steps * (len(self.left) - 1)) * per_step
        return (
            f"{run.shard_id}: run {self.runs.index(run) + 1} of {len(self.runs)}, "
            f"step {training.step:,} of {training.steps:,}, "
            f"{training.examples / training.seconds:,.0f} {self.unit}/s, {duration(left)} left"
        )


def note_of(output: Path) -> Path:
    """Where the job that writes this table notes how far it is; the file is there until the job ends well."""
    return output.with_suffix(".progress")


def write_note(path: Path, runs: list[BaseRun], run: BaseRun, training: Training | None = None) -> None:
    """Note how far a job is: its process, the present run, and the losses of that so far, at most NOTED of them.

    The loss is the first quantity of the whole network whose name ends so. A full disk does not stop the training.
    """
    rows = [row for row in training.rows if not row[1] and row[2].endswith("loss")] if training else []
    losses = [value for _, _, quantity, value in rows if quantity == rows[0][2]]
    content = {
        "pid": os.getpid(),
        "host": platform.node(),
        "run_id": run.run_id,
        "number": runs.index(run) + 1,
        "runs": len(runs),
        "step": training.step if training else 0,
        "steps": training.steps if training else 0,
        "seconds": training.seconds if training else 0.0,
        "quantity": rows[0][2] if rows else "",
        "losses": losses[:: -(len(losses) // NOTED + 1)][::-1],  # the last one among them
    }
    with suppress(UserError), whole_file(path) as partial:
        partial.write_text(json.dumps(content))


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
    study: Study,
    run: BaseRun,
    shared: Any,
    device: "torch.device",
    cache: RunCache,
    watch: Callable[[BaseRun, Training], None],
    reuse: bool = True,
) -> Result:
    """Train a run, from its checkpoint if there is one and `reuse` allows, and keep its result in the run cache.

    `shared` is what the study's training module loaded for the runs of the shard.
    """
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    saved = cache.checkpoint(run) if reuse else None
    resumed_at: list[int] = []

    def after_step(training: Training) -> None:
        if saved is not None and not resumed_at:
            resumed_at.append(training.step - 1)
            print(f"{run.run_id}: resumed after step {training.step - 1}", flush=True)
        watch(run, training)

    training: Training = study.module("training").train(run, shared, saved=saved, after_step=after_step)
    provenance = Provenance(
        study=study.name,
        run_id=run.run_id,
        run=run.model_dump(),
        fingerprint=cache.table_path(run).stem,
        code=cache.code,
        data=cache.data,
        commit=commit(),
        diverged=training.step if training.diverged else None,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        resumed=bool(resumed_at),
        seconds=round(training.seconds, 3),
        gpu_seconds=round(training.seconds, 3) if device.type == "cuda" else 0.0,
        examples_per_second=round(training.examples / training.seconds),
        peak_memory_mb=round(peak_memory_mb(device)),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU {platform.machine()}",
        host=platform.node(),
        versions={"python": platform.python_version(), "torch": torch.__version__},
    )
    columns = [[run.run_id] * len(training.rows), *map(list, zip(*training.rows, strict=True))]
    table = pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA)
    write_table(with_provenance(table, [provenance]), cache.table_path(run))
    cache.checkpoint_path(run).unlink(missing_ok=True)
    return table, provenance


def peak_memory_mb(device: "torch.device") -> float:
    """The most memory held so far: on the GPU, or by this process."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (2**20 if sys.platform == "darwin" else 2**10)


def describe(study: Study, run: BaseRun, table: pa.Table, provenance: Provenance) -> str:
    """One line for a person who follows the training."""
    if provenance.diverged:
        result = f"diverged at step {provenance.diverged}"
    else:
        means = {}
        for quantity in study.summarized:
            values = table.filter(pc.and_(pc.equal(table["quantity"], quantity), pc.equal(table["layer"], "")))["value"]
            means[quantity] = pc.mean(values).as_py() if len(values) else float("nan")
        result = study.outcome(means)
    if provenance.reused:
        return f"{run.run_id}: {result} (reused, from {provenance.finished})"
    return f"{run.run_id}: {result} ({provenance.seconds:.1f} s, {provenance.examples_per_second:,} {study.unit}/s)"


@dataclass(frozen=True)
class Options:
    """How a job trains; none of it changes a result."""

    device: str = "auto"
    gpu_slots: int = 1
    checkpoint_seconds: float = 60
    retrain: bool = False  # every run, whatever the cache holds


def train_shard(
    study: Study, runs: list[BaseRun], cache: RunCache, data: tuple[Path, Path] | None, output: Path, options: Options
) -> int:
    """Write the table of a shard, and train what is missing for it; returns the exit code.

    `data` are the files of the prepared tensors and of their record, None for runs that need none. Where the record
    says that optional data is missing, the table has no rows.
    """
    results: dict[BaseRun, Result] = {}
    stop = StopSignal()
    missing = recorded(data[1], "missing") if data else ""
    if missing:
        print(f"{runs[0].shard_id}: skipped: {missing}", flush=True)
        write_table(with_provenance(SCHEMA.empty_table(), []), output)
        return 0
    try:
        for number, run in enumerate(runs, start=1):
            if not options.retrain and (result := cache.finished(run)):
                results[run] = result
                print(f"[{number}/{len(runs)}] {describe(study, run, *result)}", flush=True)
        if len(results) < len(runs):
            train_missing(study, runs, results, cache, data, stop, options, note_of(output))
        tables, provenances = zip(*(results[run] for run in runs), strict=True)
        write_table(with_provenance(pa.concat_tables(tables), list(provenances)), output)
        note_of(output).unlink(missing_ok=True)
    except Stopped:
        note_of(output).unlink(missing_ok=True)
        is_saved = any(cache.checkpoint_path(run).exists() for run in runs if run not in results)
        underway = ", and a checkpoint of the one under way" if is_saved else ""
        print(
            f"{runs[0].shard_id}: stopped; its {len(results)} finished of {len(runs)} runs are kept{underway}; "
            "the same command goes on from there",
            file=sys.stderr,
        )
        return 128 + stop.number
    return 0


def train_missing(
    study: Study,
    runs: list[BaseRun],
    results: dict[BaseRun, Result],
    cache: RunCache,
    data: tuple[Path, Path] | None,
    stop: StopSignal,
    options: Options,
    note: Path,
) -> None:
    """Train the runs of a shard that have no result yet."""
    from effective_lr.prepare.prepared import load

    missing = [run for run in runs if run not in results]
    shard = runs[0].shard_id
    write_note(note, runs, missing[0])
    name, why = choose_device(options.device)
    print(f"{shard}: {len(missing)} of {len(runs)} runs to train, on the {why}", flush=True)
    tensors = load(*data) if data else {}
    with on_device(name, options.gpu_slots, shard) as device:
        shared = study.module("training").load(tensors, runs[0], device)
        watch = Watch(stop, cache, options.checkpoint_seconds, study.unit, runs, missing, note)
        for run in list(missing):
            stop.deferred = True
            result = train(study, run, shared, device, cache, watch, reuse=not options.retrain)
            stop.deferred = False
            results[run] = result
            missing.remove(run)
            print(f"[{runs.index(run) + 1}/{len(runs)}] {describe(study, run, *result)}", flush=True)
            if stop.number:
                raise Stopped


def recorded(record: Path, key: str) -> str:
    """What a record of prepared data says under a key, or nothing where it is damaged, which its reader then tells."""
    try:
        return str(json.loads(record.read_text()).get(key, ""))
    except (OSError, ValueError, AttributeError):
        return ""
