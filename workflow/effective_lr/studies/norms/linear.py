"""A linear run: closed forms at every strength, the strength chosen by cross-validation, and the exact risk."""

from collections.abc import Iterator

import numpy as np

import effective_lr.studies.norms.theory as theory
from effective_lr.studies.norms.data import Task, folds
from effective_lr.studies.norms.settings import Run, parse_arms

Array = np.ndarray


def path(x: Array, y: Array, strengths: Array, a: float, e: float) -> tuple[Array, Array]:
    """L1 at every strength: coefficients (p, strengths) and the degrees of freedom (strengths,).

    P = S_e^a of these samples, without the factor that makes tr P = p. It has the eigenvectors of S, so that one
    decomposition serves all strengths.
    """
    cx, cy = theory.centred(x, y)
    d, v = np.linalg.eigh(cx.T @ cx / len(x))
    d = np.maximum(d, 0)
    p = ((1 - e) * d + e * d.mean()) ** a
    denominators = d[:, None] + np.outer(p, strengths)
    c = v.T @ (cx.T @ cy) / len(x)
    return v @ (c[:, None] / denominators), (d[:, None] / denominators).sum(0)


def rows(run: Run, task: Task) -> Iterator[tuple[str, str, float]]:
    """(arm, quantity, value) of every arm. `test_rmse` is exact: the root of (b − w)'Σ(b − w), the slopes' excess
    risk."""
    assert task.sigma is not None and task.truth is not None
    x, y, w = task.train_x, task.train_y, task.truth[:, 0]
    cx, cy = theory.centred(x, y)
    s = cx.T @ cx / len(x)
    d, v = np.linalg.eigh(s)
    positive = d > 1e-12 * d[-1]
    arms = parse_arms(run.arms)
    for penalty in dict.fromkeys(arm.penalty for arm in arms):
        a = theory.POWER[penalty]
        mine = [arm for arm in arms if arm.penalty == penalty]
        strengths = np.array([arm.strength for arm in mine])
        errors = []
        for inside, outside in folds(run, y):
            b, _ = path(x[inside], y[inside], strengths, a, run.shrinkage)
            errors.append(y[outside, None] - y[inside].mean() - (x[outside] - x[inside].mean(0)) @ b)
        b, df = path(x, y, strengths, a, run.shrinkage)
        measured = {
            "train_rmse": np.sqrt(np.mean((cy[:, None] - cx @ b) ** 2, axis=0)),
            "validation_rmse": np.sqrt(np.mean(np.concatenate(errors) ** 2, axis=0)),
            "test_rmse": np.sqrt(np.einsum("is,ij,js->s", b - w[:, None], task.sigma, b - w[:, None])),
            "df": df,
            "w1_squared": np.square(b).sum(0),
        }
        for quantity, values in measured.items():
            yield from ((arm.name, quantity, float(value)) for arm, value in zip(mine, values, strict=True))
    variance, n = 1 / run.snr, len(x)
    t = v.T @ w
    # L4 speaks of least squares, which needs n > p; of the truth's part in the span of the inputs otherwise.
    signal, noise = float(w @ s @ w), variance * positive.sum() / n
    yield "", "oracle_car_rmse", float(np.sqrt(theory.car_risk(signal, noise)[1]))
    best = min(theory.ridge_risk(d[positive], t[positive], l2, variance, n) for l2 in np.geomspace(1e-4, 1e3, 60))
    yield "", "oracle_l2_rmse", float(np.sqrt(best))
    top = np.linalg.eigh(task.sigma)
    energy = top[0] * (top[1].T @ w) ** 2
    yield "", "top_share_of_truth", float(energy[-5:].sum() / energy.sum())
