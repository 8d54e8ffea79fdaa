"""Closed forms for gradient descent with weight decay below and at the edge of stability. numpy only.

The objective is F = L + λ|w|², so decay pulls by 2λw; `lr` is η, `l2` is λ, `degree` is A = ⟨w, ∇S⟩/S, the local degree
of the sharpness S under w → s·w. `alpha0` is the sharpening force −⟨∇S, ∇L⟩. Time is t = η·steps. The edge and the
cubic map are those of Damian, Nichani and Lee (2023), with decay added; the rest is derived in the paper's chapter.

Arguments are numbers or arrays that broadcast against each other.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = float | NDArray[np.float64]


def edge(lr: Values, l2: Values, weight_share: Values = 1.0) -> Values:
    """S* = 2/η − 2λ|u_w|²: the sharpness of the data loss above which a step along its eigenvector grows."""
    return 2 / lr - 2 * l2 * weight_share


def drift(alpha0: Values, degree: Values, sharpness: Values, l2: Values) -> Values:
    """dS/dt = α0 − 2λAS under gradient flow, exactly: decay is a restoring force on S if and only if A > 0."""
    return alpha0 - 2 * l2 * degree * sharpness


def resting_sharpness(alpha0: Values, degree: Values, l2: Values) -> Values:
    """S = α0/(2λA), where the drift is 0: the learning rate does not enter."""
    return alpha0 / (2 * l2 * degree)


def critical_l2(alpha0: Values, degree: Values, lr: Values) -> Values:
    """λ_c = α0η/(4A), to leading order in ηλ: the decay at which S rests exactly at the edge.

    Infinite for A ≤ 0, where decay never holds S below the edge.
    """
    slope = np.asarray(degree, dtype=float)
    return np.where(slope > 0, alpha0 * lr / (4 * np.where(slope > 0, slope, 1.0)), np.inf)


def plateau(l2: Values, critical: Values) -> Values:
    """Late S/S* = min(1, λ_c/λ), with α0 and A taken as constant."""
    with np.errstate(divide="ignore"):
        return np.minimum(1.0, np.divide(critical, l2))


def squared_displacement(force: Values, beta: Values) -> Values:
    """⟨x²⟩ = 2α*/β at the edge, 0 where the force α* is not positive."""
    return np.maximum(2 * np.asarray(force) / beta, 0.0)


def homogeneous_degree(layers: int) -> float:
    """A of the Gauss–Newton part for a ReLU network without biases: 2(layers − 1)."""
    return 2.0 * (layers - 1)


def invariant_degree(weight_share: Values) -> Values:
    """A = −2|u_w|² where every penalised weight is scale invariant: decay then raises S."""
    return -2 * np.asarray(weight_share)


def invariant_growth(lr: Values, l2: Values) -> Values:
    """4ηλ: per step the rate at which decay shrinks |w|² and raises S where the weights are scale invariant."""
    return 4 * np.asarray(lr) * l2


def invariant_angle(lr: Values, l2: Values) -> Values:
    """√(4ηλ): rms angle per step, in radians, where the norm of scale-invariant weights is stationary."""
    return np.sqrt(4 * np.asarray(lr) * l2)


class EdgeMap(NamedTuple):
    """Two numbers at the edge: the displacement x along u, and y = S − S*.

    x⁺ = −(1 + ηy)x, y⁺ = y + η(α* − κy − βx²/2). `force` is α*, `restoring` is κ = 2λA − dα0/dS.
    """

    lr: float
    force: float
    restoring: float
    beta: float

    def trajectory(self, x: float, y: float, steps: int) -> NDArray[np.float64]:
        """x and y at every step from the first, (steps + 1, 2)."""
        found = np.empty((steps + 1, 2))
        found[0] = x, y
        for step in range(steps):
            x, y = (
                -(1 + self.lr * y) * x,
                y + self.lr * (self.force - self.restoring * y - self.beta * x**2 / 2),
            )
            found[step + 1] = x, y
        return found

    @property
    def period(self) -> float:
        """Steps of a small oscillation of y, 2π/(η√(2α*)), for a force α* > 0."""
        return float(2 * np.pi / (self.lr * np.sqrt(2 * self.force)))

    @property
    def rate(self) -> float:
        """Per step: the envelope of small oscillations is exp(rate·k), rate = η²α* − ηκ/2."""
        return self.lr**2 * self.force - self.lr * self.restoring / 2

    @property
    def end(self) -> float:
        """y where the map comes to rest if it is damped: 0 at the edge, α*/κ where the force is negative."""
        return 0.0 if self.force >= 0 else self.force / self.restoring
