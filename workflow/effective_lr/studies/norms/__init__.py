"""Covariance-aware and l1 + l2 penalties, after Qasim and Javed (2026), arXiv:2605.00171.

The paper's formula is not known to us: only the readings P = S^a of its penalty, with a in {1, 0, −1}, are tested.
"""

import math

from effective_lr.engine.study import Study
from effective_lr.studies.norms.settings import Run, parse_arms
from effective_lr.studies.norms.words import NAMES, SUBJECTS


def data(run: Run) -> str | None:
    if run.data == "simulated":
        return None
    return "leukemia-72" if run.split == "original" else run.data


def outcome(means: dict[str, float]) -> str:
    """The best arm's test error; walks have none."""
    for key, words in {"best_test_log_loss": "log-loss", "best_test_rmse": "RMSE"}.items():
        if math.isfinite(means.get(key, math.nan)):
            return f"best test {words} {means[key]:.3f}"
    return "walked"


def operations(run: Run) -> float:
    """Multiply-adds of the matrix products, twice; a backward pass counts as two forward passes."""
    arms = len(parse_arms(run.arms))
    if run.kind == "linear":
        return 20.0 * (run.folds + 1) * run.p**3
    if run.kind == "walk":
        return 20.0 * run.steps * arms * run.walkers * run.inputs
    forward = run.batch_size * run.p * run.hidden + run.train_size * run.p * run.hidden * (run.p > run.train_size)
    return (
        6.0 * run.steps * (max(run.folds, 0) + 1) * arms * (forward + run.p * run.hidden * min(run.p, run.train_size))
    )


def megabytes(run: Run) -> int:
    return 100 + len(parse_arms(run.arms)) * run.p * run.hidden * 8 * 12 // 1_000_000


STUDY = Study(
    name="norms",
    title="What a penalty does to a direction: covariance-aware norms",
    follows="Qasim and Javed (2026), arXiv:2605.00171",
    run=Run,
    data=data,
    optional_data=frozenset({"cooling-load", "leukemia", "leukemia-72"}),
    summarized=("best_test_rmse", "best_test_log_loss"),
    outcome=outcome,
    operations=operations,
    megabytes=megabytes,
    words={**NAMES, **SUBJECTS},
    unit="samples",
)
