"""Exact statements of the chapter, tried in float64 on small random problems. What should fail must fail.

L1 to L7 use NumPy's closed forms, except L7, which steps with the penalties that training uses. B1 to B4 and B8 step
stacked networks of the kind that training uses, with every learning rate and ε that the statement names. Values are
residuals: differences relative to the largest value, or a count of weights that are zero in one path and not in the
other.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from effective_lr.studies.norms import networks, theory
from effective_lr.studies.norms.penalties import Penalties, metrics
from effective_lr.studies.norms.settings import Arm
from effective_lr.studies.norms.theory import DEGREE, POWER

Array = np.ndarray
INPUTS, UNITS, SAMPLES, STEPS = 6, 4, 24, 60
SCALES = (1e-3, 2.0**-3, 2.0**-2, 0.5, 2.0, 4.0, 2.0**3, 1e3)  # a of B3
SEEDS = (0, 1, 2)
STRENGTH = 0.02
LR = 0.1
TINY_EPS = 1e-12


def relative(x: Any, y: Any) -> float:
    """The largest difference, relative to the largest value."""
    x, y = np.asarray(x), np.asarray(y)
    return float(np.abs(x - y).max() / np.abs(x).max())


def mixing(size: int, random: np.random.Generator) -> Array:
    """A random matrix (size, size) with singular values from 0.3 to 3, so that rounding stays far below the
    tolerance."""
    left, right = (np.linalg.qr(random.normal(size=(size, size)))[0] for _ in range(2))
    return (left * np.geomspace(0.3, 3, size)) @ right


def problem(seed: int, samples: int = 40, inputs: int = 8) -> tuple[Array, Array]:
    """Centred, correlated inputs (samples, inputs) and a noisy linear target."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(samples, inputs)) @ mixing(inputs, random)
    return theory.centred(x, x @ random.normal(size=inputs) + random.normal(size=samples))


# The linear model


def shrinkage(x: Array, y: Array) -> float:
    """L1, for each a: the coefficient on every component is s_j times that of least squares, and df is the trace."""
    s = x.T @ x / len(x)
    d, v = np.linalg.eigh(s)
    least_squares = v.T @ np.linalg.lstsq(x, y, rcond=None)[0]
    residuals = []
    for a in POWER.values():
        p = theory.power(s, a)
        residuals.append(relative(least_squares * theory.shrinkage(d, 0.3, a), v.T @ theory.solve(x, y, 0.3, p)))
        df = np.trace(np.linalg.solve(s + 0.3 * p, s))
        residuals.append(relative(df, theory.degrees_of_freedom(d, 0.3, a)))
    return max(residuals)


def one_factor(x: Array, y: Array, penalty: str) -> float:
    """L2: with P = S, b is least squares over 1 + l2; with P = I it is not."""
    p = theory.power(x.T @ x / len(x), POWER[penalty])
    return relative(np.linalg.lstsq(x, y, rcond=None)[0] / 1.3, theory.solve(x, y, 0.3, p))


def scaled_lasso(x: Array, y: Array, penalty: str) -> float:
    """L3: with P = S, l1 and l2 together give the lasso over 1 + l2; with P = I they do not."""
    s, c = x.T @ x / len(x), x.T @ y / len(x)
    l1 = np.abs(c).max()  # half of the l1 at which all coefficients are 0
    p = theory.power(s, POWER[penalty])
    return relative(theory.lasso(s, c, l1, 0.0, p) / 1.7, theory.lasso(s, c, l1, 0.7, p))


def reparametrization(x: Array, y: Array, penalty: str, seed: int) -> float:
    """L5: inputs x → Ax leave the predictions of CAR, and change those of ridge."""
    a = mixing(x.shape[1], np.random.default_rng([seed, 1]))
    predictions = []
    for inputs in (x, x @ a.T):
        p = theory.power(inputs.T @ inputs / len(x), POWER[penalty])
        predictions.append(inputs @ theory.solve(inputs, y, 0.3, p))
    return relative(*predictions)


def input_noise(x: Array, y: Array, penalty: str) -> float:
    """L6: the mean loss under input noise of covariance C = l2·P is L + l2·b'Pb. The noise takes the values ±√p·(column
    of the root of C) with equal odds: with the mean 0 and the covariance C, which is all that a square sees."""
    n, p = x.shape
    s = x.T @ x / n
    b = np.linalg.lstsq(x, y, rcond=None)[0]
    c = 0.3 * theory.power(s, POWER[penalty])
    root = np.sqrt(p) * np.linalg.cholesky(c)
    noisy = [np.mean((y - (x + sign * column) @ b) ** 2) for column in root.T for sign in (1, -1)]
    return relative(np.mean((y - x @ b) ** 2) + b @ c @ b, np.mean(noisy))


def dropout(x: Array, y: Array, keep: float = 0.7) -> float:
    """L6: inverted dropout adds ((1−q)/q)·b'diag(X'X/n)b. All 2^p masks are tried, with their odds."""
    p = x.shape[1]
    b = np.linalg.lstsq(x, y, rcond=None)[0]
    masks = (np.arange(2**p)[:, None] >> np.arange(p)) & 1
    odds = keep ** masks.sum(1) * (1 - keep) ** (p - masks.sum(1))
    losses = np.array([np.mean((y - (x * mask / keep) @ b) ** 2) for mask in masks])
    added = (1 - keep) / keep * b @ (np.square(x).mean(0) * b)
    return relative(np.mean((y - x @ b) ** 2) + added, odds @ losses)


def optimality(x: Array, y: Array, penalty: str) -> float:
    """L7: forward-backward steps reach a point that meets the conditions of the minimum, with exact zeros. Relative to
    l1."""
    n = len(x)
    x = x / np.sqrt(np.square(x).sum() / n / x.shape[1])
    s, c = x.T @ x / n, x.T @ y / n
    l1 = float(np.abs(c).max())
    arm = Arm(penalty, 2 * l1 if penalty != "l1" else l1)  # scar gives half of it to each part
    inputs = torch.from_numpy(x)
    penalties = Penalties([arm], metrics(inputs, 0.0, [arm]))
    h = s.copy()
    if penalty == "scar":
        h += float(penalties.l2[0]) * s * (len(s) / np.trace(s))
    lr = 0.5 / float(np.linalg.eigvalsh(h)[-1])
    smooth, target = torch.from_numpy(2 * s), torch.from_numpy(2 * c)[:, None]
    w = torch.zeros(len(c), 1, 1, dtype=torch.float64)
    for _ in range(20_000):
        before = w.clone()
        w.sub_(lr * ((smooth @ w[:, 0] - target)[:, None] + penalties.gradient(w)))
        penalties.prox(w, lr)
        if torch.equal(before, w):
            break
    b = w[:, 0, 0].numpy()
    slope = 2 * (h @ b - c)
    zero = b == 0
    if zero.all() or not zero.any():
        return float("nan")  # nothing was tried
    on, off = np.abs(slope + l1 * np.sign(b))[~zero].max(), np.maximum(np.abs(slope) - l1, 0)[zero].max()
    return float(max(on, off)) / l1


# A normalized layer


@dataclass
class Walk:
    """What a short training leaves: its losses, zero patterns of W1 and, per unit, norms and sums over the steps."""

    losses: list[float] = field(default_factory=list)
    zeros: list[Tensor] = field(default_factory=list)
    start: Tensor = field(default_factory=lambda: torch.zeros(0))
    end: Tensor = field(default_factory=lambda: torch.zeros(0))
    steps_squared: Tensor = field(default_factory=lambda: torch.zeros(UNITS, dtype=torch.float64))
    penalties: Tensor = field(default_factory=lambda: torch.zeros(UNITS, dtype=torch.float64))


def walk(
    penalty: str,
    seed: int,
    a: float = 1.0,
    momentum: float = 0.0,
    normalized: bool = True,
    proximal: bool = True,
    held: bool = False,
    lr: float = LR,
    strength: float = STRENGTH,
    eps: float = 1e-3,
    steps: int = STEPS,
) -> Walk:
    """Train from (a·W1, a²·η, l1/a, l2/a², a²·ε); a = 1 is the run as it is. Learning rates of the others stay.

    With `proximal` false the l1 part is a subgradient. With `held` each unit's norm is 1 after every step.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(SAMPLES, INPUTS, generator=generator, dtype=torch.float64)
    x[:, 1] += x[:, 0]  # correlated
    y = torch.randn(SAMPLES, generator=generator, dtype=torch.float64)
    arm = Arm(penalty, strength)
    penalties = Penalties([arm], metrics(x, 0.05, [arm]))
    nets = networks.start(INPUTS, 1, UNITS, 2.0, seed, a**2 * eps if normalized else None)
    nets.w1.mul_(a)
    penalties.l1, penalties.l2 = penalties.l1 / a, penalties.l2 / a**2
    rates = [a**2 * lr, 0.03, 0.03, 0.03]
    velocities = [torch.zeros_like(parameter) for parameter in nets.parameters]
    result = Walk(start=nets.w1[:, 0].square().sum(0))
    for _ in range(steps):
        batch = torch.randint(SAMPLES, (12,), generator=generator)
        loss, gradients = nets.loss_gradients(x[batch], y[batch], classes=False)
        quadratic = penalties.gradient(nets.w1)
        gradients[0] = gradients[0] + quadratic
        absolute = penalties.l1[:, None] * nets.w1.sign()
        if not proximal:
            gradients[0] = gradients[0] + absolute
        radial = (nets.w1 * (quadratic + absolute))[:, 0].sum(0)  # k·l·R(w) by Euler, summed over the degrees
        result.penalties += radial
        result.steps_squared += gradients[0][:, 0].square().sum(0)
        for parameter, velocity, gradient, rate in zip(nets.parameters, velocities, gradients, rates, strict=True):
            velocity.mul_(momentum).add_(gradient)
            parameter.sub_(velocity, alpha=rate)
        if proximal:
            penalties.prox(nets.w1, rates[0])
        if held:
            networks.hold(nets.w1)
        result.losses.append(float(loss))
        result.zeros.append(nets.w1 == 0)
    result.end = nets.w1[:, 0].square().sum(0)
    return result


def symmetry(penalty: str, seed: int, momentum: float = 0.0, normalized: bool = True) -> float:
    """B3: the losses at every step, for all scales a, against a = 1."""
    plain = walk(penalty, seed, momentum=momentum, normalized=normalized)
    others = [walk(penalty, seed, a, momentum, normalized) for a in (SCALES if normalized else (2.0,))]
    return max(relative(plain.losses, other.losses) for other in others)


def symmetry_of_zeros(penalty: str, seed: int) -> float:
    """B3: how many weights are 0 at some step in one path and not in another. Not a number where none is ever 0."""
    plain = walk(penalty, seed, strength=0.2)
    if not any(pattern.any() for pattern in plain.zeros):
        return float("nan")
    others = [walk(penalty, seed, a, strength=0.2) for a in SCALES]
    pairs = [pair for other in others for pair in zip(plain.zeros, other.zeros, strict=True)]
    return float(sum(int((mine != theirs).sum()) for mine, theirs in pairs))


def growth(penalty: str, seed: int, normalized: bool = True) -> float:
    """B4: ‖w_T‖² − ‖w_0‖² = η²Σ‖∇L + l∇R‖² − 2ηlkΣR(w_t) for every unit, by plain SGD with the l1 part as a
    subgradient."""
    path = walk(penalty, seed, normalized=normalized, proximal=False, eps=0.0)
    predicted = path.start + LR**2 * path.steps_squared - 2 * LR * path.penalties
    return relative(path.end, predicted)


def batch_variance(seed: int) -> float:
    """B1: the variance of X w over the whole batch is w'Sw; so the unscaled CAR sums the variances of batch
    normalization."""
    random = np.random.default_rng(seed)
    x, w = random.normal(size=(SAMPLES, INPUTS)), random.normal(size=(INPUTS, UNITS))
    s = np.cov(x.T, bias=True)
    return relative((x @ w).var(0), np.einsum("iu,ij,ju->u", w, s, w))


def euler(penalty: str, seed: int) -> float:
    """B2: w'∇R = k·R, and R(aw) = a^k·R(w)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(SAMPLES, INPUTS, generator=generator, dtype=torch.float64)
    arm = Arm(penalty, 1.0)
    penalties, k = Penalties([arm], metrics(x, 0.05, [arm])), DEGREE[penalty]
    w = torch.randn(INPUTS, 1, UNITS, generator=generator, dtype=torch.float64)
    slope = penalties.gradient(w) + penalties.l1[:, None] * w.sign()
    value = penalties.value(w)
    return max(
        relative(k * value, (w * slope).sum((0, 2))), *(relative(a**k * value, penalties.value(a * w)) for a in SCALES)
    )


def held_penalty(penalty: str, seed: int) -> float:
    """B8: with ‖w‖ = 1, a penalty trains as η/(1 − 2·η·l2) does without: true of l2, not of CAR. 300 steps."""
    with_penalty = walk(penalty, seed, held=True, strength=0.5, eps=TINY_EPS, steps=300)
    without = walk("none", seed, held=True, lr=theory.held_lr(LR, 0.5), eps=TINY_EPS, steps=300)
    return relative(with_penalty.losses, without.losses)


def _found(seed: int) -> Iterator[tuple[str, str, bool, float]]:
    x, y = problem(seed)
    yield "shrinkage", "all", True, shrinkage(x, y)
    for penalty in ("car", "l2"):
        holds = penalty == "car"
        yield "one_factor", penalty, holds, one_factor(x, y, penalty)
        yield "scaled_lasso", penalty, holds, scaled_lasso(x, y, penalty)
        yield "reparametrization", penalty, holds, reparametrization(x, y, penalty, seed)
        yield "input_noise", penalty, True, input_noise(x, y, penalty)
    yield "dropout", "linear", True, dropout(x, y)
    for penalty in ("l1", "scar"):
        yield "optimality", penalty, True, optimality(x, y, penalty)

    for penalty in ("l2", "l1", "car", "scar"):
        yield "symmetry", penalty, True, symmetry(penalty, seed)
        yield "symmetry", f"{penalty}_momentum", True, symmetry(penalty, seed, momentum=0.9)
        yield "symmetry", f"{penalty}_none", False, symmetry(penalty, seed, normalized=False)
    for penalty in ("l1", "scar"):
        yield "symmetry_of_zeros", penalty, True, symmetry_of_zeros(penalty, seed)
    for penalty in ("l2", "l1", "car"):
        yield "growth", penalty, True, growth(penalty, seed)
        yield "growth", f"{penalty}_none", False, growth(penalty, seed, normalized=False)
    yield "batch_variance", "car", True, batch_variance(seed)
    for penalty in DEGREE:
        yield "euler", penalty, True, euler(penalty, seed)
    yield "held_penalty", "l2", True, held_penalty("l2", seed)
    yield "held_penalty", "car", False, held_penalty("car", seed)


def rows(seeds: tuple[int, ...] = SEEDS) -> list[dict[str, Any]]:
    """One row for each check, subject and seed: check, subject, seed, holds (whether it should), value."""
    torch.set_num_threads(1)
    return [
        {"check": check, "subject": subject, "seed": seed, "holds": holds, "value": value}
        for seed in seeds
        for check, subject, holds, value in _found(seed)
    ]
