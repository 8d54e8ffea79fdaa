"""A training job: its runs one after another, written as one table with their provenance.

It trains only what is missing. Finished runs lie in the run cache, each under its key, and beside them a checkpoint of
a run that was interrupted. A signal saves and stops; a kill loses at most the time since the last checkpoint.
"""

import math
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache as once_per_process
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from effective_lr.engine import grid, storage
from effective_lr.engine.code import training_key
from effective_lr.engine.devices import on_device
from effective_lr.engine.grid import Config
from effective_lr.engine.inputs import Layout, data_of, recorded
from effective_lr.engine.storage import SCHEMA, Provenance, Result
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

    def save(self) -> bytes: ...  # all that a later process needs to continue exactly


class Stopped(Exception):
    """A signal asked the job to stop, and the state of its present run was saved."""


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
        if found := read_if_whole(storage.read_table, self.table_path(run)):
            table, [provenance] = found
            return table, provenance.model_copy(update={"reused": True})
        return None


def read_if_whole(read: Callable[[Path], Any], path: Path) -> Any:
    """What a file holds; None where there is none, and where it is damaged, which it prints."""
    try:
        return read(path) if path.exists() else None
    except UserError as error:
        print(f"{error}; trained again", flush=True)
        return None


@dataclass
class Job:
    """Runs that are written as one table: those in the run cache are read, the others trained."""

    name: str
    study: Study
    runs: list[BaseRun]
    cache: RunCache
    data: tuple[Path, Path] | None  # the files of the prepared tensors and of their record, if the runs need any
    config: Config
    missing: list[BaseRun] = field(default_factory=list)  # runs to train
    stopped_by: int = 0  # the signal that was received
    saved: float = field(default_factory=time.monotonic)
    printed: float = field(default_factory=time.monotonic)

    def write(self, output: Path) -> int:
        """Write the table, and train what is missing for it; returns the exit code.

        Where by the record optional data are missing, the table has no rows.
        """
        if unavailable := recorded(self.data, "missing"):
            print(f"{self.name}: skipped: {unavailable}", flush=True)
            storage.write_table(SCHEMA.empty_table(), [], output)
            return 0
        finished = {} if self.config.retrain else {run: self.cache.finished(run) for run in self.runs}
        results = {run: result for run, result in finished.items() if result}
        self.missing = [run for run in self.runs if run not in results]
        print(f"{self.name}: {len(self.missing)} of {len(self.runs)} runs to train", flush=True)
        if self.missing:
            from effective_lr.prepare.dataset import load

            tensors = load(*self.data) if self.data else {}
            with on_device(self.config.device, self.config.gpu_slots, self.name) as device:
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, self.receive)
                try:
                    for run in self.missing:
                        results[run] = self.train(run, tensors, device)
                        print(
                            f"[{len(results)}/{len(self.runs)}] {describe(self.study, run, *results[run])}", flush=True
                        )
                except Stopped:
                    so_far = f"{len(results)} of {len(self.runs)} runs finished"
                    print(f"{self.name}: stopped: {so_far}. Run the same command again to resume.", file=sys.stderr)
                    return 128 + self.stopped_by
        tables, provenances = zip(*(results[run] for run in self.runs), strict=True)
        storage.write_table(pa.concat_tables(tables), list(provenances), output)
        return 0

    def train(self, run: BaseRun, tensors: "dict[str, torch.Tensor]", device: "torch.device") -> Result:
        """Train a run with the prepared data, from its checkpoint if there is one, and keep its result in the run
        cache."""
        import torch

        is_gpu = device.type == "cuda"
        if is_gpu:
            torch.cuda.reset_peak_memory_stats(device)
        checkpoint = self.cache.checkpoint_path(run)
        saved = None if self.config.retrain else read_if_whole(storage.read_checked, checkpoint)
        if saved:
            print(f"{run.run_id}: resumed from its checkpoint", flush=True)
        module = self.study.module("training")
        data = module.load(tensors, run, device)
        training: Training = module.train(run, data, saved=saved, after_step=partial(self.after_step, run))
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
        provenance = Provenance(
            study=self.study.name,
            run_id=run.run_id,
            run=run.model_dump(),
            run_key=self.cache.table_path(run).stem,
            code_key=self.cache.code_key,
            data_sha256=self.cache.data_sha256,
            commit=commit(),
            diverged=training.step if training.diverged else None,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            resumed=saved is not None,
            seconds=round(training.seconds, 3),
            gpu_seconds=round(training.seconds, 3) if is_gpu else 0.0,
            examples_per_second=round(training.examples / training.seconds),
            peak_memory_mb=round(torch.cuda.max_memory_allocated(device) / 2**20 if is_gpu else kilobytes / 2**10),
            device=torch.cuda.get_device_name(device) if is_gpu else f"CPU {platform.machine()}",
            host=platform.node(),
            versions={"python": platform.python_version(), "torch": torch.__version__},
        )
        columns = [[run.run_id] * len(training.rows), *map(list, zip(*training.rows, strict=True))]
        table = pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA)
        storage.write_table(table, [provenance], self.cache.table_path(run))
        checkpoint.unlink(missing_ok=True)
        return table, provenance

    def after_step(self, run: BaseRun, training: Training) -> None:
        """Print a line of progress or save a checkpoint, where it is time for that, and stop where a signal came."""
        now = time.monotonic()
        if now - self.printed >= PROGRESS_SECONDS:
            self.printed = now
            print(self.progress(run, training), flush=True)
        if training.diverged or training.step == training.steps:
            return
        if self.stopped_by or now - self.saved >= self.config.checkpoint_seconds:
            self.saved = now
            try:
                storage.write_checked(training.save(), self.cache.checkpoint_path(run))
            except UserError as error:  # a checkpoint is an insurance: the training itself is not harmed
                print(f"No checkpoint: {error}", flush=True)
        if self.stopped_by:
            raise Stopped

    def progress(self, run: BaseRun, training: Training) -> str:
        """How far the present run and the job are, and how long the rest takes at the speed of the present run."""
        number = self.missing.index(run)
        steps = training.steps * (len(self.missing) - number) - training.step
        left = timedelta(seconds=round(steps * training.seconds / training.step))
        speed = f"{training.examples / training.seconds:,.0f} {self.study.unit}/s"
        step = f"step {training.step:,} of {training.steps:,}"
        return f"{self.name}: run {number + 1} of {len(self.missing)}, {step}, {speed}, {left} left"

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: the present step ends first."""
        self.stopped_by = number


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
        done = subprocess.run(command, capture_output=True, check=True, encoding="utf-8", errors="replace")
        return done.stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        why = " ".join(getattr(error, "stderr", "").split()) or reason(error)
    archived = (package / "commit.txt").read_text(encoding="utf-8").strip()  # git archive fills it in (.gitattributes)
    if "$" not in archived:
        return archived[:12]
    print(f"{root}: git finds no commit ({why}), so runs record 'unknown'; a clone has one", flush=True)
    return "unknown"


def describe(study: Study, run: BaseRun, table: pa.Table, provenance: Provenance) -> str:
    """One line for a person who follows the training."""
    means = table.filter(pc.equal(table["layer"], "")).group_by("quantity").aggregate([("value", "mean")])
    found = {row["quantity"]: row["value_mean"] for row in means.to_pylist()}
    outcome = study.outcome({**dict.fromkeys(study.summarized, math.nan), **found})
    result = f"diverged at step {provenance.diverged}" if provenance.diverged else outcome
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
    cache = RunCache(layout.results(study) / "runs", code or training_key(chapter.study), recorded(data, "sha256"))
    return Job(job, chapter.study, runs, cache, data, layout.config).write(output)
