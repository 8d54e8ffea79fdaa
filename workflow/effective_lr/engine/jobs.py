"""A training job: its runs one after another, written as one table with their provenance.

It trains only what is missing. Finished runs lie in the run cache, each under its key, and beside them a checkpoint of
a run that was interrupted. A signal saves and stops; a kill loses at most the time since the last checkpoint.
"""

import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache as once_per_process
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from effective_lr.engine import grid
from effective_lr.engine.code import training_key
from effective_lr.engine.devices import choose_device, on_device
from effective_lr.engine.grid import Config
from effective_lr.engine.inputs import Layout, data_of, recorded
from effective_lr.engine.storage import (
    SCHEMA,
    Provenance,
    Result,
    read_checked,
    read_table,
    with_provenance,
    write_checked,
    write_table,
)
from effective_lr.engine.study import BaseRun, Study
from effective_lr.errors import UserError, reason

if TYPE_CHECKING:  # a job that finds all its runs finished never imports torch: it takes two seconds
    import torch

PROGRESS_SECONDS = 10.0  # between lines of progress


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

    def save(self) -> bytes: ...  # all that a later process needs to continue exactly


class Stopped(Exception):
    """The user or the system asked the job to stop, and what could be saved was saved."""


class StopSignal:
    """SIGINT and SIGTERM: acted on at once, or after the present step where that is `deferred`."""

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
    """The finished runs and the checkpoints of one scale, of one training code on one dataset."""

    folder: Path
    code_key: str
    data_sha256: str

    def table_path(self, run: BaseRun) -> Path:
        return self.folder / f"{run.key(self.code_key, self.data_sha256)}.parquet"

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
class Progress:
    """What happens between the steps of a job's runs: checkpoints, lines of progress, and the end on a signal."""

    job: str
    stop: StopSignal
    cache: RunCache
    checkpoint_seconds: float
    unit: str
    runs: list[BaseRun]
    missing: list[BaseRun]  # not trained yet, the present one first
    saved: float = field(default_factory=time.monotonic)
    printed: float = field(default_factory=time.monotonic)

    def __call__(self, run: BaseRun, training: Training) -> None:
        now = time.monotonic()
        if now - self.printed >= PROGRESS_SECONDS:
            self.printed = now
            print(self.line(run, training), flush=True)
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

    def line(self, run: BaseRun, training: Training) -> str:
        """How far the present run and the job are, and how long the rest takes at the speed of the present run."""
        per_step = training.seconds / training.step
        remaining = (training.steps - training.step + training.steps * (len(self.missing) - 1)) * per_step
        return (
            f"{self.job}: run {self.runs.index(run) + 1} of {len(self.runs)}, "
            f"step {training.step:,} of {training.steps:,}, "
            f"{training.examples / training.seconds:,.0f} {self.unit}/s, {duration(remaining)} left"
        )


def duration(seconds: float) -> str:
    """For a person: 0:42, 12:05 or 3:10:00."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@once_per_process
def commit() -> str:
    """The commit of this repository, '-dirty' added where files differ from it.

    Without git that of the archive; where that is not known either, 'unknown', and a line that says why.
    """
    package = Path(__file__).resolve().parents[1]
    root = package.parents[1]  # a repository around this one, or one that variables name, is another one
    command = ["git", f"--git-dir={root / '.git'}", f"--work-tree={root}"]
    command += ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
        found, why = done.stdout.strip(), " ".join(done.stderr.split())
    except OSError as error:
        found, why = "", reason(error)
    archived = (package / "commit.txt").read_text(encoding="utf-8").strip()  # git archive fills it in (.gitattributes)
    if not found and "$" in archived:
        print(f"{root}: git finds no commit ({why}), so runs record 'unknown'; a clone has one", flush=True)
        return "unknown"
    return found or archived[:12]


def train(
    study: Study,
    run: BaseRun,
    tensors: "dict[str, torch.Tensor]",
    device: "torch.device",
    cache: RunCache,
    progress: Callable[[BaseRun, Training], None],
    reuse: bool = True,
) -> Result:
    """Train a run, from its checkpoint if there is one and `reuse` allows, and keep its result in the run cache.

    `tensors` are the prepared data.
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
        progress(run, training)

    module = study.module("training")
    data = module.load(tensors, run, device)
    training: Training = module.train(run, data, saved=saved, after_step=after_step)
    provenance = Provenance(
        study=study.name,
        run_id=run.run_id,
        run=run.model_dump(),
        run_key=cache.table_path(run).stem,
        code_key=cache.code_key,
        data_sha256=cache.data_sha256,
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


def train_job(layout: Layout, study: str, job: str, output: Path, runs_hash: str = "", code: str = "") -> int:
    """Train the runs of a job."""
    chapter = layout.chapters[study]
    runs = chapter.jobs.get(job, [])
    if not runs:
        raise UserError(f"{job}: no such job of {study} at the scale {layout.config.scale_name}")
    if runs_hash not in ("", grid.runs_hash(runs)):
        raise UserError(f"{job}: its runs changed since this job was planned; start the workflow again")
    data = data_of(chapter.study, runs[0])
    folder = layout.results(study) / "runs"
    cache = RunCache(folder, code or training_key(chapter.study), recorded(data, "sha256"))
    return run_job(job, chapter.study, runs, cache, data, output, layout.config)


def run_job(
    name: str,
    study: Study,
    runs: list[BaseRun],
    cache: RunCache,
    data: tuple[Path, Path] | None,
    output: Path,
    config: Config,
) -> int:
    """Write the table of a job, and train what is missing for it; returns the exit code.

    `data` are the files of the prepared tensors and of their record, None for runs that need none. Where by the
    record optional data are missing, the table has no rows.
    """
    results: dict[BaseRun, Result] = {}
    stop = StopSignal()
    if unavailable := recorded(data, "missing"):
        print(f"{name}: skipped: {unavailable}", flush=True)
        write_table(with_provenance(SCHEMA.empty_table(), []), output)
        return 0

    def finish(run: BaseRun, result: Result) -> None:
        results[run] = result
        print(f"[{runs.index(run) + 1}/{len(runs)}] {describe(study, run, *result)}", flush=True)

    try:
        for run in runs:
            if not config.retrain and (result := cache.finished(run)):
                finish(run, result)
        if missing := [run for run in runs if run not in results]:
            from effective_lr.prepare.dataset import load

            chosen = choose_device(config.device)
            print(f"{name}: {len(missing)} of {len(runs)} runs to train, on {chosen}", flush=True)
            tensors = load(*data) if data else {}
            with on_device(chosen, config.gpu_slots, name) as device:
                progress = Progress(name, stop, cache, config.checkpoint_seconds, study.unit, runs, missing)
                while missing:
                    stop.deferred = True
                    result = train(study, missing[0], tensors, device, cache, progress, reuse=not config.retrain)
                    stop.deferred = False
                    finish(missing.pop(0), result)
                    if stop.number:
                        raise Stopped
        tables, provenances = zip(*(results[run] for run in runs), strict=True)
        write_table(with_provenance(pa.concat_tables(tables), list(provenances)), output)
    except Stopped:
        is_saved = any(cache.checkpoint_path(run).exists() for run in runs if run not in results)
        print(
            f"{name}: stopped: {len(results)} of {len(runs)} runs finished{', checkpoint saved' if is_saved else ''}. "
            "Run the same command again to resume.",
            file=sys.stderr,
        )
        return 128 + stop.number
    return 0
