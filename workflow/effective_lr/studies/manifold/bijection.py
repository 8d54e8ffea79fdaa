"""D1: AdamW's two settings of a matrix and a constraint's two settings, each from the other (derived by us).

W a matrix of d weights, R its radius, ρ = R/√d its entry RMS, θ the angle per step in radians, η the learning rate,
wd = 2λ the decoupled decay, e = η·wd, k = √((1−β1)/(1+β1)). Each of AdamW's settings moves both the norm and the
angle; a constraint has one for each. Numbers or arrays that broadcast; numpy only.
"""

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Values: TypeAlias = float | NDArray[np.float64]


class Decoupled(NamedTuple):
    """AdamW's settings of a matrix: the learning rate η and the decay wd = 2λ."""

    lr: Values
    decay: Values


class Constrained(NamedTuple):
    """A constraint's settings of a matrix: the entry RMS ρ and the angle per step θ, in radians."""

    rms: Values
    angle: Values


def smoothing(beta1: Values) -> Values:
    """k = √((1−β1)/(1+β1)): the RMS of Adam's direction per entry, where gradients are independent."""
    return np.sqrt((1 - beta1) / (1 + beta1))


def matched_angle(decay_per_step: Values, beta1: Values = 0.9) -> Values:
    """θ₀ = k√(2e), the angle per step of AdamW at equilibrium (D1; Kosson et al. 2305.17212)."""
    return smoothing(beta1) * np.sqrt(2 * decay_per_step)


def decoupled(rms: Values, angle: Values, beta1: Values = 0.9) -> Decoupled:
    """The (η, wd) whose equilibrium has this entry RMS and this angle: η = ρθ/k, wd = θ/(2kρ) (D1)."""
    k = smoothing(beta1)
    return Decoupled(rms * angle / k, angle / (2 * k * rms))


def constrained(lr: Values, decay: Values, beta1: Values = 0.9) -> Constrained:
    """The entry RMS and the angle at which AdamW settles: R = √(dη/(2wd)), θ = k√(2ηwd) (D1)."""
    return Constrained(np.sqrt(lr / (2 * decay)), matched_angle(lr * decay, beta1))
