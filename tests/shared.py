"""What test modules of several folders import: a copy of the repository, small runs, jobs, published results."""

import math
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from multiprocessing.context import ForkProcess  # which has imported PyTorch at its start
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from effective_lr.engine import grid
from effective_lr.engine.contents import Chapter, Claim, Contents
from effective_lr.engine.inputs import Layout, recorded
from effective_lr.engine.jobs import Job, RunCache
from effective_lr.engine.storage import SCHEMA, Result, read_table
from effective_lr.engine.study import load
from effective_lr.errors import UserError
from effective_lr.evidence import published, verdicts
from effective_lr.evidence.estimates import Estimate
from effective_lr.studies.normalization.data import Splits
from effective_lr.studies.normalization.settings import VALIDATION_SIZE, Run
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


def make_run(**changes: Any) -> Run:
    """A small run with these settings changed."""
    return Run(**{**SMALL, **changes})


def diverging_run(**changes: Any) -> Run:
    return make_run(normalization="none", lr=1e6, l2=1.0, affine_lr=0.1, steps=60, probes=20, **changes)


def chapter_of(experiments: dict[str, list[Run]], claims: dict[str, Claim] | None = None) -> Chapter:
    """A chapter that rests on these runs and shows nothing."""
    scale = grid.Scale(about="", defaults=SMALL, experiments={})
    return Chapter(STUDY, scale, experiments, Contents(order=1), claims or {})


def layout_of(chapter: Chapter) -> Layout:
    """That of a repository `root`, at a scale `scale`, of which this is the only chapter."""
    return Layout(Path("root"), grid.Config(scale="scale"), {chapter.name: chapter})


def train_rows(run: Run, splits: Splits, dtype: torch.dtype = torch.float32) -> list[Row]:
    """What a run measures."""
    return train_run(run, splits, dtype=dtype).rows


def tensors_of(splits: Splits) -> dict[str, torch.Tensor]:
    """Prepared data whose first images, and first images of validation, are these."""
    times = -(-VALIDATION_SIZE // len(splits.validation_labels))
    validation_images = splits.validation_images.repeat(times, 1, 1, 1)[:VALIDATION_SIZE]
    return {
        "train_images": torch.cat([splits.train_images, validation_images]),
        "train_labels": torch.cat([splits.train_labels, splits.validation_labels.repeat(times)[:VALIDATION_SIZE]]),
        "test_images": splits.test_images,
        "test_labels": splits.test_labels,
    }


def train_or_reuse(
    run: Run, splits: Splits, folder: Path, code: str = "code", data: str = "data", reuse: bool = True
) -> Result:
    """What a job does for each of its runs."""
    cache = RunCache(folder, code, data)
    job = Job("job", STUDY, [run], cache, None, grid.Config(retrain=not reuse))
    return (cache.finished(run) if reuse else None) or job.train(run, tensors_of(splits), CPU)


class Trainer:
    """Training jobs with one run cache and one table; `prepared` holds data.pt and data.json."""

    def __init__(self, prepared: Path, folder: Path) -> None:
        self.data = (prepared / "data.pt", prepared / "data.json")
        self.cache, self.output = folder / "runs", folder / "job.parquet"

    def train(self, runs: list[Run], **options: Any) -> tuple[int, str, str]:
        """A job in this process: its exit code, and what it writes to both streams."""
        out, err = StringIO(), StringIO()
        try:
            with redirect_stdout(out), redirect_stderr(err):
                cache = RunCache(self.cache, "code", recorded(self.data, "sha256"))
                config = grid.Config(device="cpu", **options)
                code = Job("job", STUDY, list(runs), cache, self.data, config).write(self.output)
        except UserError as error:
            code = 1
            err.write(f"{error}\n")
        return code, out.getvalue(), err.getvalue()

    def start(self, runs: list[Run], **options: Any) -> ForkProcess:
        """The same job in a process of its own."""
        process = ForkProcess(target=lambda: sys.exit(self.train(runs, **options)[0]))
        process.start()
        return process

    @property
    def rows(self) -> pa.Table:
        """The rows of the job's table; times and memory are in its provenance."""
        return read_table(self.output)[0].replace_schema_metadata(None)


def rows_of(table: pa.Table, run: Run) -> list[Row]:
    """The rows of a run in a table."""
    written = table.filter(pc.equal(table["run_id"], run.run_id))
    return list(zip(*(written[key].to_pylist() for key in SCHEMA.names[1:]), strict=True))


def part_of(value: float | None = 0.5, low: float | None = None, high: float | None = None, **changes: Any) -> Any:
    """A part of a claim as it was decided, or explored where it has no verdict."""
    about = {"subject": "sgd", "statistic": "angle_slope", "unit": "", "definition": "", "within": [0.4, 0.6]}
    about |= {"value": value, "low": low, "high": high, "freedom": None, "why": ""}
    return {**about, **changes}


def claim_of(*parts: Any, verdict: str = "reproduced", **changes: Any) -> dict[str, Any]:
    """A claim as it was decided."""
    texts = dict.fromkeys(("claim", "original", "shown", "reason", "why", "command"), "")
    about = {"title": "Equilibrium", "verdict": verdict, "seeds": 3, "runs": 9, "experiments": [], "explored": []}
    return {**texts, **about, "parts": list(parts or [part_of()]), **changes}


@cache
def published_layout(scale: str = "study") -> Layout:
    """The studies that are published at a scale."""
    return Layout.load(ROOT, metrics="published", scale=scale)


@cache
def decided(study: str, scale: str) -> dict[str, Any]:
    """The verdicts on the claims of a study by its published tables, made once for all tests."""
    return published.decide_published(published_layout(scale), study)


def require_calibrated(
    draw: Callable[[np.random.Generator, float], Estimate], within: tuple[float, float], edge: float, middle: float
) -> None:
    """`draw` simulates a study with this truth. At an edge of the tolerance at most 5 % of the verdicts are wrong on
    either side, as an interval of 90 % allows; in its middle hardly any is."""
    rng, repeats = np.random.default_rng(1), 150
    allowed = 0.05 + 3 * math.sqrt(0.05 * 0.95 / repeats)  # with the scatter of the count
    at_edge, inside = (
        [verdicts.judge(draw(rng, truth), within)[0] for _ in range(repeats)] for truth in (edge, middle)
    )
    for wrong, found, most in [
        (verdicts.REPRODUCED, at_edge, allowed),
        (verdicts.NOT_REPRODUCED, at_edge, allowed),
        (verdicts.NOT_REPRODUCED, inside, allowed / 4),
    ]:
        assert found.count(wrong) / repeats <= most, (draw, wrong, found.count(wrong))
