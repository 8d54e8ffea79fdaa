"""Closed forms for the size and the effective learning rate of scale-invariant weights.

The model: a scale group w of `dim` weights whose function does not depend on ‖w‖. Its gradient is therefore
tangent to the sphere and has the norm grad/‖w‖; its directions are random from step to step. The penalty is
l2·‖w‖², without a factor ½, and η·λ = lr·l2 is small. `grad` is the norm that the gradient has at ‖w‖ = 1.

The effective learning rates and the orders in η and λ are those of van Laarhoven (2017); every prefactor, the
relaxation and the critical penalty are derived in the paper of this repository, section 2.

All arguments but the optimizer's name are numbers or arrays that broadcast against each other; l2 = 0 gives
the limit (an infinite norm, an effective learning rate of 0). Every function raises ValueError for an unknown
optimizer, and for a momentum outside [0, 1) where it reads one.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Values: TypeAlias = float | NDArray[np.float64]

# The exponent of ‖w‖ in the effective learning rate (van Laarhoven 2017). "momentum" is the heavy ball,
# "nesterov" PyTorch's form of it; "adamw" alone keeps the penalty out of the gradient, as a decay of 2·l2.
NORM_EXPONENT = {"sgd": -2, "momentum": -2, "nesterov": -2, "adam": -1, "rmsprop": -1, "adamw": -1}


def effective_lr(optimizer: str, lr: Values, norm: Values, momentum: Values = 0.9, projected: bool = False) -> Values:
    """The learning rate that the direction w/‖w‖ sees, van Laarhoven (2017).

    `momentum` is read for "momentum" and "nesterov" alone. `projected` means that ‖w‖ is set to 1 after every
    step; `norm` is then ignored. Over many steps the direction moves by the sum of effective lr × gradient at
    ‖w‖ = 1; for Adam, RMSProp and AdamW the gradient is first divided by its root mean square over weights.
    """
    net_lr = lr / (1 - _momentum(optimizer, momentum))
    return net_lr if projected else net_lr * norm ** _exponent(optimizer)


def equilibrium_norm(
    optimizer: str, lr: Values, l2: Values, grad: Values, dim: Values, momentum: Values = 0.9
) -> Values:
    """‖w‖ at which the growth by the steps and the shrinking by the penalty balance.

    `dim` has no influence for SGD and its momenta, and `grad` none for AdamW.
    """
    net_lr = lr / (1 - _momentum(optimizer, momentum))
    if _exponent(optimizer) == -2:
        return _divide(net_lr * grad**2, 4 * l2) ** (1 / 4)
    if optimizer == "adamw":
        return _divide(lr * dim, 4 * l2) ** (1 / 2)
    return _divide(lr * dim**0.5 * grad, 4 * l2) ** (1 / 3)


def equilibrium_effective_lr(
    optimizer: str, lr: Values, l2: Values, grad: Values, dim: Values, momentum: Values = 0.9
) -> Values:
    """The effective learning rate that training settles at, whatever norm it starts from.

    2√(ηλ/(1−μ))/G for SGD and its momenta, (4η²λ/(√d·G))^⅓ for Adam and RMSProp, 2√(ηλ/d) for AdamW.
    """
    return effective_lr(optimizer, lr, equilibrium_norm(optimizer, lr, l2, grad, dim, momentum), momentum)


def angle_per_step(
    optimizer: str,
    lr: Values,
    norm: Values,
    grad: Values,
    dim: Values,
    momentum: Values = 0.9,
    beta1: Values = 0.9,
) -> Values:
    """Root mean square angle, in radians, between the weights of consecutive steps at the given norm.

    Momentum correlates the steps, so this is not the effective learning rate times the gradient.
    `beta1` is read for Adam and AdamW alone.
    """
    mu = _momentum(optimizer, momentum)
    if _exponent(optimizer) == -2:
        lookahead = (1 + mu) ** 2 + mu**4 / (1 - mu**2)
        spread = lookahead if optimizer == "nesterov" else 1 / (1 - mu**2)
        return spread**0.5 * lr * grad / norm**2
    smoothing = 0.0 if optimizer == "rmsprop" else beta1
    return ((1 - smoothing) / (1 + smoothing) * dim) ** 0.5 * lr / norm


def equilibrium_angle(
    optimizer: str,
    lr: Values,
    l2: Values,
    grad: Values,
    dim: Values,
    momentum: Values = 0.9,
    beta1: Values = 0.9,
) -> Values:
    """Root mean square angle per step, in radians, at the equilibrium norm.

    `grad` and `dim` cancel, except for Adam and RMSProp: √(4ηλ) for SGD, √(4ηλ/(1+μ)) for the heavy ball,
    √(4ηλ(1−μ)((1+μ)² + μ⁴/(1−μ²))) for Nesterov, √(4ηλ(1−β₁)/(1+β₁)) for AdamW.
    """
    norm = equilibrium_norm(optimizer, lr, l2, grad, dim, momentum)
    return angle_per_step(optimizer, lr, norm, grad, dim, momentum, beta1)


def equilibrium_growth(optimizer: str, lr: Values, gradient: Values, memory: Values, beta: Values = 0.9) -> Values:
    """What balances the shrinking 4·l2·⟨w, w⟩ of one step at equilibrium (for AdamW 4·l2·⟨w, √ŝ w⟩), first order in the
    angle per step.

    With P the scale that a rule gives to gradients, 1/√ŝ or 1: `gradient` is ⟨g, Pg⟩, `memory` ⟨g, Pm⟩ with what the
    rule remembers before the step, and `beta` its decay, μ or β₁. η⟨g, Pg⟩ + 2ηβ/(1−β)·⟨g, Pm⟩ for Adam and AdamW;
    RMSProp and SGD remember nothing. Momentum, which does not average, has η/(1−μ) for the first η; Nesterov's memory
    term is μ times that of the heavy ball. Derivation: w less a multiple of Pm takes plain steps.
    """
    _exponent(optimizer)
    if optimizer in ("sgd", "rmsprop"):
        return lr * gradient
    is_momentum = optimizer in ("momentum", "nesterov")
    remembered = 2 * lr * beta / (1 - beta) * memory
    return lr * gradient / (1 - beta if is_momentum else 1.0) + remembered * (beta if optimizer == "nesterov" else 1.0)


def angle_scale(lr: Values, l2: Values, grad: Values, dim: Values) -> Values:
    """θ = (4η²λ·dim/G)^⅓, the angle per step of RMSProp at equilibrium: the small parameter for Adam and RMSProp.

    The weights relax at about 1.5θ² per step. θ rises as G falls, so weak units take the largest steps.
    """
    return equilibrium_angle("rmsprop", lr, l2, grad, dim)


def growth_norm(lr: Values, grad: Values, steps: Values, initial_norm: Values) -> Values:
    """‖w‖ after so many steps of SGD without a penalty: the effective learning rate falls as 1/√steps."""
    return (initial_norm**4 + 2 * lr**2 * grad**2 * steps) ** (1 / 4)


def relaxation_rate(optimizer: str, lr: Values, l2: Values, momentum: Values = 0.9) -> Values:
    """Rate per step at which ‖w‖⁴ approaches its equilibrium value exponentially: 8ηλ/(1−μ).

    Raises ValueError for Adam, RMSProp and AdamW, whose approach is no exponential in ‖w‖⁴.
    """
    _require_sgd(optimizer, "the approach to equilibrium is no exponential in the fourth power of the norm")
    return 8 * lr * l2 / (1 - _momentum(optimizer, momentum))


def steps_to_equilibrium(
    optimizer: str,
    lr: Values,
    l2: Values,
    grad: Values,
    initial_norm: Values,
    tolerance: Values,
    momentum: Values = 0.9,
) -> Values:
    """Whole number of steps until |(‖w‖/‖w*‖)⁴ − 1| ≤ tolerance < 1, from the relaxation rate.

    Infinite for l2 = 0. Raises as `relaxation_rate`.
    """
    rate = relaxation_rate(optimizer, lr, l2, momentum)
    norm = equilibrium_norm(optimizer, lr, l2, grad, dim=1.0, momentum=momentum)
    excess = np.abs((initial_norm / norm) ** 4 - 1) / tolerance
    steps: Values = np.ceil(_divide(np.log(np.maximum(excess, 1.0)), rate))
    return steps


def diagonal_slope(optimizer: str) -> float:
    """s₀ such that log η = −s₀·log λ + constant is a line of equal effective learning rate at equilibrium."""
    return 0.5 if _exponent(optimizer) == -1 and optimizer != "adamw" else 1.0


def diagonal_invariant(optimizer: str, lr: Values, l2: Values) -> Values:
    """The product that fixes the equilibrium effective learning rate: η²λ for Adam and RMSProp, else ηλ."""
    return lr ** (1 / diagonal_slope(optimizer)) * l2


def critical_l2(optimizer: str, lr: Values, momentum: Values = 0.9) -> Values:
    """The penalty λc at which training with ‖w‖ projected to 1 breaks: the effective learning rate diverges.

    1/(2η) for SGD, where the penalty's step cancels w itself, (1−μ)²/(2η) for the heavy ball and
    (1−μ)²/(2η(1−μ+μ²)) for Nesterov. Raises ValueError for Adam and RMSProp, which have no such point, since
    their step does not grow with the penalty, and for AdamW, which is not projected here.
    """
    _require_sgd(optimizer, "no critical l2 of projected weights is defined")
    mu = _momentum(optimizer, momentum)
    return (1 - mu) ** 2 / (2 * lr * (1 - mu + mu**2 if optimizer == "nesterov" else 1.0))


def projected_effective_lr(optimizer: str, lr: Values, l2: Values, momentum: Values = 0.9) -> Values:
    """The effective learning rate with the penalty in the gradient and ‖w‖ projected to 1 after every step.

    η/(1−2ηλ) for SGD, exactly; η/(1−μ)/(1−λ/λc) for the momenta, to leading order in the angle per step. It
    is infinite at λc and negative beyond: training then climbs the loss. Raises as `critical_l2`.
    """
    remaining = 1 - l2 / critical_l2(optimizer, lr, momentum)
    return _divide(effective_lr(optimizer, lr, 1.0, momentum, projected=True), remaining)


def _exponent(optimizer: str) -> float:
    if optimizer not in NORM_EXPONENT:
        raise ValueError(f"Unknown optimizer {optimizer!r}: use one of {', '.join(NORM_EXPONENT)}.")
    return float(NORM_EXPONENT[optimizer])


def _momentum(optimizer: str, momentum: Values) -> Values:
    """The momentum that this optimizer has: 0 for all but the heavy ball and Nesterov."""
    if _exponent(optimizer) == -1 or optimizer == "sgd":
        return 0.0
    if not np.all((np.asarray(momentum) >= 0) & (np.asarray(momentum) < 1)):
        raise ValueError(f"The momentum is {momentum}: it must be at least 0 and less than 1.")
    return momentum


def _require_sgd(optimizer: str, reason: str) -> None:
    if _exponent(optimizer) == -1:
        raise ValueError(f"With {optimizer}, {reason}; ask for sgd, momentum or nesterov.")


def _divide(numerator: Values, denominator: Values) -> Values:
    """The quotient, infinite and without a warning where the denominator is 0, for Python floats as well."""
    with np.errstate(divide="ignore"):
        quotient: Values = np.divide(numerator, denominator)
    return quotient
