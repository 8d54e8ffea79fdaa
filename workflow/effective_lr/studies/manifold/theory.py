"""Closed forms of the study, beside the bijection (D1, bijection.py): what a reader should see in the figures.

Notation as there. All are derived by us; D2, D5 and D7 are the names that the chapter uses. Numbers or arrays that
broadcast; numpy only. No training imports this module: a better closed form is no reason to train again.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from effective_lr.studies.manifold.bijection import Values, matched_angle

Matrix: TypeAlias = NDArray[np.float64]


def adamw_norm(steps: Values, decay_per_step: Values, start: Values) -> Values:
    """‖W_t‖/R from ‖W_0‖/R = start: the square relaxes at the rate 2e (D2)."""
    return np.sqrt(1 + (start**2 - 1) * np.exp(-2 * decay_per_step * steps))


def adamw_angle(
    steps: Values, decay_per_step: Values, start: Values, beta1: Values = 0.9, warm_up: bool = False
) -> Values:
    """The angle of step t ≥ 1 over that norm, with Adam's own warm-up √((1+β1^t)/(1−β1^t)), which the setting
    `warm_up` undoes (D2)."""
    own = 1.0 if warm_up else np.sqrt((1 + beta1**steps) / (1 - beta1**steps))
    return matched_angle(decay_per_step, beta1) * own / adamw_norm(steps, decay_per_step, start)


def growth_without_decay(steps: Values, decay_per_step: Values) -> Values:
    """‖W_T‖/R from R without decay: √(1 + 2eT), an upper estimate (D7)."""
    return np.sqrt(1 + 2 * decay_per_step * steps)


def constrained_angle(angle: Values) -> Values:
    """The angle by which a normalized tangent step of length θR turns: arctan θ, in every step (D2)."""
    return np.arctan(angle)


def stuck_gradient(loss: Matrix, step: str) -> float:
    """|tangent gradient|/‖C‖_F at which ⟨C, W⟩ on a Frobenius sphere gets stuck, for every η, when a constant
    direction is followed without projection (D5): "msign", MuonH's, or "sign", AdamH's without its averages."""
    if step not in ("msign", "sign"):
        raise ValueError(f"Unknown direction {step!r}: use msign or sign.")
    size = np.linalg.norm(loss)
    if step == "msign":
        singular = np.linalg.svd(loss, compute_uv=False)
        cosine = singular.sum() / (np.sqrt((singular > 1e-12 * singular[0]).sum()) * size)
    else:
        cosine = np.abs(loss).sum() / (np.sqrt(np.count_nonzero(loss)) * size)
    return float(np.sqrt(max(1 - cosine**2, 0.0)))


def output_rms_bound(spectral_norm: Values, outputs: Values, inputs: Values) -> Values:
    """The most by which a matrix (outputs × inputs) can raise the RMS of a vector: √(d_in/d_out)·‖W‖₂ (D7)."""
    return np.sqrt(inputs / outputs) * spectral_norm
