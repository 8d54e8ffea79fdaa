"""Covariance-aware penalties, after Qasim and Javed (2026), arXiv:2605.00171, as a third party reports them.

The first registration, before that report, tested readings P = S^a of the penalty; what it asked of alignment and of
normalized layers stays.
"""

import math

from effective_lr.engine.study import Study
from effective_lr.studies.norms.settings import Run, parse_arms
from effective_lr.studies.norms.words import NAMES, SUBJECTS


def data(run: Run) -> str | None:
    return None if run.data == "simulated" else run.data


def outcome(means: dict[str, float]) -> str:
    """The best arm's test error; walks and theorems have none."""
    for key, words in {"best_test_log_loss": "log-loss", "best_test_rmse": "RMSE"}.items():
        if math.isfinite(means.get(key, math.nan)):
            return f"best test {words} {means[key]:.3f}"
    return "done"


def operations(run: Run) -> float:
    """Multiply-adds of the matrix products, twice; a backward pass counts as two forward passes."""
    arms = len(parse_arms(run.arms))
    if run.kind == "linear":
        return 20.0 * (run.folds + 1) * run.p**3
    if run.kind == "walk":
        return 20.0 * run.steps * arms * run.walkers * run.inputs
    if run.kind == "theorem":
        return 40.0 * run.walkers * run.train_size
    if run.kind == "tuned":
        # A weight costs 12 operations for its part in Adam, and 6 for each sample of a step.
        weights = run.p * run.hidden + run.hidden * run.second + run.second * run.classes
        size = run.train_size * (run.folds - 1) / run.folds
        batches = math.ceil(size / run.batch_size)
        c = min(run.p, size) * (1 + (run.p > size)) if "cov" in run.arms or "spar" in run.arms else 0
        step = 6.0 * run.batch_size * weights + 12.0 * weights + 2.0 * run.p * run.hidden * c
        return run.steps * batches * step * (arms * run.folds + 10)
    forward = run.batch_size * run.p * run.hidden + run.train_size * run.p * run.hidden * (run.p > run.train_size)
    return 6.0 * run.steps * arms * (forward + run.p * run.hidden * min(run.p, run.train_size))


def megabytes(run: Run) -> int:
    if run.kind == "theorem":
        return 200
    return 100 + len(parse_arms(run.arms)) * run.p * run.hidden * 8 * 12 // 1_000_000


STUDY = Study(
    name="norms",
    title="Covariance-aware norms: the reported penalties, and what a penalty does to a direction",
    follows="Qasim and Javed (2026), arXiv:2605.00171",
    run=Run,
    data=data,
    optional_data=frozenset({"cooling-load", "leukemia", "gse9476"}),
    summarized=("best_test_rmse", "best_test_log_loss"),
    outcome=outcome,
    operations=operations,
    megabytes=megabytes,
    words={**NAMES, **SUBJECTS},
    unit="samples",
)
