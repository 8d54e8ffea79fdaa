"""The samples of a run: simulated, or split from prepared data. Everything is drawn with NumPy from the run's seed.

Two runs with one seed and one cell see the same inputs, whatever their truth; so comparisons between penalties and
between truths are paired.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from effective_lr.studies.norms.settings import Run
from effective_lr.studies.norms.theory import relu_moment

Array = np.ndarray
CPU = torch.device("cpu")
RELU_SIGNS = np.array([1.0, -1.0, 1.0])  # of the three units of the simulated network truth


@dataclass(frozen=True, eq=False)
class Task:
    """Inputs (samples, p) and targets (samples,) of the three splits, float64.

    Simulated test targets are free of noise, but for those of a design, which has `fresh` inputs with targets free of
    noise beside them. `sigma` (p, p) and `truth` (p, k) are known for simulated data alone.
    """

    train_x: Array
    train_y: Array
    validation_x: Array
    validation_y: Array
    test_x: Array
    test_y: Array
    sigma: Array | None = None
    truth: Array | None = None
    fresh_x: Array | None = None
    fresh_y: Array | None = None
    all_x: Array | None = None  # all samples and classes, for the selection of genes that leaks
    all_y: Array | None = None
    device: torch.device = CPU


def covariance(run: Run) -> Array:
    """Σ (p, p) with unit variances: AR(1), or blocks of 10 with one correlation."""
    index = np.arange(run.inputs)
    if run.correlation == "ar1":
        return run.rho ** np.abs(np.subtract.outer(index, index)).astype(float)
    same = np.equal.outer(index // 10, index // 10)
    return np.where(np.eye(run.inputs, dtype=bool), 1.0, run.rho * same)


def true_weights(run: Run, sigma: Array, count: int, random: np.random.Generator) -> Array:
    """`count` columns w (p, count) with w'Σw = 1, by the kind of truth."""
    d, v = np.linalg.eigh(sigma)
    z = random.normal(size=(run.inputs, count))
    match run.truth:
        case "sparse":
            w = np.zeros((run.inputs, count))
            for column in w.T:
                column[random.choice(run.inputs, run.support, replace=False)] = random.choice([-1.0, 1.0], run.support)
        case "dense":
            w = z
        case "high":
            w = v @ (d[:, None] * z)
        case "low":
            w = v @ (z / d[:, None])
        case _:
            w = v @ (z / np.sqrt(d)[:, None])
    return w / np.sqrt(np.einsum("ik,ij,jk->k", w, sigma, w))


def simulate(run: Run) -> Task:
    """y = signal + noise. The signal has standard deviation 1: w'x (linear), or a sum of +, −, + relu(w_k'x)."""
    sigma = covariance(run)
    inputs, weights, noise = (np.random.default_rng([run.seed, stream]) for stream in range(3))
    root = np.linalg.cholesky(sigma)
    linear = run.kind == "linear"
    w = true_weights(run, sigma, 1 if linear else len(RELU_SIGNS), weights)
    scale = 1.0 if linear else relu_scale(w, sigma)

    def draw(count: int) -> tuple[Array, Array]:
        x = inputs.normal(size=(count, run.inputs)) @ root.T
        return x, x @ w[:, 0] if linear else np.maximum(x @ w, 0) @ RELU_SIGNS / scale

    (train_x, train), (validation_x, validation), (test_x, test) = (
        draw(count) for count in (run.train_size, run.validation_size, run.test_size)
    )
    sd = run.snr**-0.5
    return Task(
        train_x,
        train + sd * noise.normal(size=len(train)),
        validation_x,
        validation + sd * noise.normal(size=len(validation)),
        test_x,
        test,
        sigma,
        w,
    )


def relu_scale(w: Array, sigma: Array) -> float:
    """The standard deviation of Σ_k s_k relu(w_k'x), exactly, for x ~ N(0, Σ) and w_k'Σw_k = 1."""
    moments = relu_moment(np.clip(w.T @ sigma @ w, -1, 1)) - 1 / (2 * np.pi)
    return float(np.sqrt(RELU_SIGNS @ moments @ RELU_SIGNS))


FRESH = 2000  # samples of a design beside its test samples


def design(run: Run) -> Task:
    """The reported simulations: the first k inputs N(0, 1) with correlation ρ between any two, the others independent;
    θ ~ N(0, 1) on the k; y = x'θ or Σ θ_j sin x_j, plus N(0, σ²). Cells of one seed share normal draws."""
    k = run.support
    root = np.linalg.cholesky(np.where(np.eye(k, dtype=bool), 1.0, run.rho))
    inputs, weights, noise = (np.random.default_rng([run.seed, 10 + stream]) for stream in range(3))
    theta = weights.normal(size=k)

    def draw(count: int) -> tuple[Array, Array]:
        x = inputs.normal(size=(count, run.inputs))
        x[:, :k] = x[:, :k] @ root.T
        return x, (x[:, :k] if run.truth == "linear" else np.sin(x[:, :k])) @ theta

    (train_x, train), (test_x, test), (fresh_x, fresh) = (draw(n) for n in (run.train_size, run.test_size, FRESH))
    train, test = (signal + run.noise * noise.normal(size=len(signal)) for signal in (train, test))
    return Task(train_x, train, train_x[:0], train[:0], test_x, test, fresh_x=fresh_x, fresh_y=fresh)


def split(run: Run, tensors: dict[str, Tensor]) -> Task:
    """The run's samples of prepared data."""
    x, y = tensors["x"].numpy(), tensors["y"].numpy()
    random = np.random.default_rng(run.seed)
    if run.shuffled:
        y = np.random.default_rng([run.seed, 4]).permutation(y)
    test, train = np.split(chosen(run, y, random), [run.test_size])
    return Task(x[train], y[train], x[:0], y[:0], x[test], y[test], all_x=x, all_y=y)


def chosen(run: Run, y: Array, random: np.random.Generator) -> Array:
    """Indices of the test and training samples, in this order."""
    order = random.permutation(len(y))
    if run.split == "disjoint":
        start = run.test_size + run.part * run.train_size
        return np.concatenate([order[: run.test_size], order[start : start + run.train_size]])
    if run.split == "stratified":
        order = order[np.argsort(stratum_places(y[order]), kind="stable")]
    return order[: run.test_size + run.train_size]


def anova(x: Array, y: Array) -> Array:
    """The F statistic of each column of x (samples, genes) between the classes y; 0 for a constant one."""
    groups = [x[y == label] for label in np.unique(y)]
    between = sum(len(g) * np.square(g.mean(0) - x.mean(0)) for g in groups) / (len(groups) - 1)
    within = sum(np.square(g - g.mean(0)).sum(0) for g in groups) / (len(x) - len(groups))
    return np.where(within > 0, between / np.where(within > 0, within, 1.0), 0.0)


def selected(run: Run, x: Array, y: Array, task: Task) -> Array:
    """The columns that enter: those genes whose ANOVA F is largest, among the samples that train or among all."""
    if run.classes == 1:
        return np.arange(x.shape[1])
    if run.selection == "all":
        assert task.all_x is not None and task.all_y is not None
        x, y = task.all_x, task.all_y
    return np.sort(np.argsort(-anova(x, y), kind="stable")[: run.p])


def stratum_places(labels: Array) -> Array:
    """A place in [0, 1) for each sample such that any first part of the order has all classes in proportion."""
    places = np.empty(len(labels))
    for label in np.unique(labels):
        mine = labels == label
        places[mine] = (np.arange(mine.sum()) + 0.5) / mine.sum()
    return places


def folds(run: Run, y: Array) -> list[tuple[Array, Array]]:
    """Training and validation indices of each fold, stratified where the target is a class."""
    order = np.random.default_rng([run.seed, 3]).permutation(len(y))
    if run.classes > 1:
        order = order[np.argsort(y[order], kind="stable")]
    return [(np.setdiff1d(order, order[k :: run.folds]), np.sort(order[k :: run.folds])) for k in range(run.folds)]


class Scaler:
    """Centres and scales by the training samples (population standard deviation); what is constant is only centred."""

    def __init__(self, values: Array) -> None:
        self.mean = values.mean(0)
        deviation = values.std(0)
        self.deviation = np.where(deviation > 1e-12 * (1 + np.abs(self.mean)), deviation, 1.0)

    def __call__(self, values: Array) -> Tensor:
        return torch.from_numpy((values - self.mean) / self.deviation)
