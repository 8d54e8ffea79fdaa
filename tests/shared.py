"""What test modules of several folders import: a copy of the repository, a small run, and a training job."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute as pc
import torch

from effective_lr.engine.jobs import RunCache, train
from effective_lr.engine.storage import SCHEMA, Provenance, Result, with_provenance, write_table
from effective_lr.engine.study import BaseRun, load
from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.settings import Run
from effective_lr.studies.normalization.training import Row
from effective_lr.studies.normalization.training import train as train_run

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
STUDY = load("normalization")
NORMALIZATIONS: tuple[str, ...] = get_args(Run.model_fields["normalization"].annotation)
INVARIANT = tuple(name for name in NORMALIZATIONS if name != "none")
OPTIMIZERS: tuple[str, ...] = get_args(Run.model_fields["optimizer"].annotation)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "workflow"), "OMP_NUM_THREADS": "1"}
SMALL: dict[str, Any] = {
    "dataset": "fashion-mnist",
    "resolution": 14,
    "train_size": 96,
    "validation_size": 30,
    "test_size": 40,
    "width": 2,
    "normalization": "batch",
    "norm_eps": 1e-5,
    "initial_norm": 1.0,
    "optimizer": "sgd",
    "momentum": 0.9,
    "optimizer_eps": 1e-8,
    "lr": 0.05,
    "l2": 0.01,
    "affine_lr": 0.02,
    "batch_size": 16,
    "steps": 20,
    "probes": 200,  # enough for every step
    "evaluations": 2,
    "late_fraction": 0.5,
    "batch_statistics": "recomputed",
    "statistics_size": 64,
    "seed": 3,
}


def copy_repository(folder: Path, config: dict[str, Any] | None = None) -> Path:
    """A copy of the repository without anything that was made in it; `config` is what its user chose."""

    def made(where: str, names: list[str]) -> set[str]:
        hidden = {name for name in names if name.startswith(".") and name != ".snakemake-workflow-catalog.yml"}
        if Path(where) == ROOT:
            return hidden | {"data", "dist"}
        return set(names) - {"published"} if Path(where) == ROOT / "results" else hidden | {"__pycache__", "build"}

    shutil.copytree(ROOT, folder, ignore=made)
    if config:
        (folder / "config" / "config.yaml").write_text(json.dumps(config))
    return folder


def make_run(**changes: Any) -> Run:
    """A run of a fraction of a second, with these settings changed."""
    return Run(**{**SMALL, **changes})


def fabricated(run: BaseRun, code: str, data: str, study: str = "normalization", **changes: Any) -> Provenance:
    """Where a finished run says that it comes from, without a training."""
    about: dict[str, Any] = {
        "study": study,
        "run_id": run.run_id,
        "run": run.model_dump(),
        "fingerprint": run.fingerprint(code, data),
        "code": code,
        "data": data,
        "commit": "0123456789ab",
        "finished": "2026-01-02T03:04:05+00:00",
        "diverged": None,
        "resumed": False,
        "seconds": 10.0,
        "gpu_seconds": 0.0,
        "examples_per_second": 100,
        "peak_memory_mb": 100,
        "device": "CPU x86_64",
        "host": "here",
        "versions": {"python": "3.11.2", "torch": "2.14.1"},
    }
    return Provenance(**{**about, **changes})


def fabricate(folder: Path, *records: Provenance) -> None:
    """Write finished runs without rows into a run cache."""
    for record in records:
        table = with_provenance(SCHEMA.empty_table(), [record])
        write_table(table, folder / f"{record.fingerprint}.parquet")


def diverging_run(**changes: Any) -> Run:
    return make_run(normalization="none", lr=1e6, l2=1.0, affine_lr=0.1, steps=60, probes=20, **changes)


def train_rows(run: Run, splits: Splits, dtype: torch.dtype = torch.float32) -> list[Row]:
    """What a run measures."""
    return train_run(run, splits, dtype=dtype).rows


def train_or_reuse(
    run: Run, splits: Splits, folder: Path, code: str = "code", data: str = "data", reuse: bool = True
) -> Result:
    """What a job does for each of its runs."""
    cache = RunCache(folder, code, data)
    return (cache.finished(run) if reuse else None) or train(
        STUDY, run, splits, CPU, cache, lambda run, training: None, reuse
    )


class Trainer:
    """`python -m effective_lr train` in a process of its own; `prepared` holds data.pt and data.json."""

    def __init__(self, prepared: Path, folder: Path) -> None:
        self.prepared, self.cache, self.output = prepared, folder / "runs", folder / "shard.parquet"

    def start(
        self,
        runs: list[Run],
        program: Sequence[str] = ("-m", "effective_lr"),
        path: str = "",
        **options: object,
    ) -> subprocess.Popen[str]:
        """Start it; `options` are those of jobs.Options."""
        settings = json.dumps([run.model_dump() for run in runs])
        command = [sys.executable, *program, "train", "--study", "normalization", "--runs", settings, "--code", "code"]
        command += ["--tensors", str(self.prepared / "data.pt"), "--record", str(self.prepared / "data.json")]
        command += ["--cache", str(self.cache), "--output", str(self.output)]
        pipe = subprocess.PIPE
        given = {f"EFFECTIVE_LR_{name.upper()}": str(value) for name, value in options.items()}
        environment = {**ENVIRONMENT, **given, **({"PYTHONPATH": path} if path else {})}
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)

    def train(self, runs: list[Run], **how: Any) -> tuple[int, str, str]:
        """The exit code, and what it says on both streams."""
        process = self.start(runs, **how)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err


def rows_of(table: pa.Table, run: Run) -> list[Row]:
    """The rows of a run in a table."""
    written = table.filter(pc.equal(table["run_id"], run.run_id))
    return list(zip(*(written[key].to_pylist() for key in SCHEMA.names[1:]), strict=True))
