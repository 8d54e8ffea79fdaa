"""D5 and D6 in float64: descent of f(W) = ⟨C, W⟩ on the Frobenius sphere ‖W‖_F = 1, with and without the tangent
projection.

On the sphere f is smooth, has one minimum, −C/‖C‖_F, and its gradient is the tangent part of C. Numpy only; msign by
SVD.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

SHAPE = (6, 9)
NOISE = 0.3  # RMS of the noise of a gradient's entry, over that of C
SEEDS = (100, 101, 102)
RATES = (0.02, 0.04, 0.08)  # η of D5
HORIZONS = (100, 200, 400, 800, 1600, 3200)  # T of D6


def normalize(x: Matrix) -> Matrix:
    return x / np.linalg.norm(x)


def msign(x: Matrix) -> Matrix:
    """UV' of the thin SVD."""
    left, _, right = np.linalg.svd(x, full_matrices=False)
    return left @ right


def project(x: Matrix, weight: Matrix) -> Matrix:
    """The part of X that is tangent to the unit sphere at W."""
    return x - np.sum(x * weight) * weight


def direction(name: str, momentum: Matrix, weight: Matrix) -> Matrix:
    """What a step follows: macro-F, muonh, or sign (AdamH without its averages)."""
    if name == "macro-F":
        return project(msign(project(momentum, weight)), weight)
    return msign(momentum) if name == "muonh" else np.sign(momentum)


@dataclass(frozen=True)
class Toy:
    """A loss C with ‖C‖_F = 1 and a start W; both from the seed alone."""

    seed: int

    @property
    def loss(self) -> Matrix:
        return normalize(np.random.default_rng([self.seed, 0]).standard_normal(SHAPE))

    def gradients(self, name: str, lr: float, steps: int, momentum: float = 0.0, is_noisy: bool = False) -> Matrix:
        """|tangent gradient|/‖C‖_F (steps,) before each step W ← N(W − η·N(direction))."""
        loss = self.loss
        weight = normalize(np.random.default_rng([self.seed, 1]).standard_normal(SHAPE))
        noise = np.random.default_rng([self.seed, 2])
        average = np.zeros(SHAPE)
        found = np.empty(steps)
        for step in range(steps):
            found[step] = np.linalg.norm(project(loss, weight))
            gradient = loss
            if is_noisy:
                gradient = loss + NOISE / np.sqrt(loss.size) * noise.standard_normal(SHAPE)
            average = momentum * average + (1 - momentum) * gradient
            weight = normalize(weight - lr * normalize(direction(name, average, weight)))
        return found


def floor(seed: int, name: str, lr: float) -> float:
    """The gradient that is left after 40/η steps without noise: RMS over the last half."""
    found = Toy(seed).gradients(name, lr, round(40 / lr))
    return float(np.sqrt(np.mean(found[len(found) // 2 :] ** 2)))


def mean_gradient(seed: int, name: str, steps: int) -> float:
    """The mean |grad| over T steps without noise at η = 2·T^(-1/2) (D6)."""
    return float(Toy(seed).gradients(name, 2 * steps**-0.5, steps).mean())


def late_noisy_gradient(seed: int, name: str, steps: int) -> float:
    """The mean |grad| over the last tenth of T noisy steps, η = 2·T^(-3/4), 1 − b = 2·T^(-1/2) (D6)."""
    found = Toy(seed).gradients(name, 2 * steps**-0.75, steps, 1 - min(2 * steps**-0.5, 1.0), is_noisy=True)
    return float(found[-max(steps // 10, 1) :].mean())


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The slope of log y in log x, by least squares."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
