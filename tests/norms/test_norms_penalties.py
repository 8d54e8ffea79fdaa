"""Penalties against dense matrices, the proximal map against its definition."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch import Tensor

from effective_lr.studies.norms import theory
from effective_lr.studies.norms.penalties import FORMS, Penalties, metric_power, metrics
from effective_lr.studies.norms.settings import Arm

ARMS = [Arm(penalty, 0.3) for penalty in FORMS if penalty != "adaptive"]


def inputs(samples: int, p: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(p, p, generator=generator, dtype=torch.float64)
    return torch.randn(samples, p, generator=generator, dtype=torch.float64) @ mixed + 3.0


@pytest.mark.parametrize(("samples", "p"), [(30, 7), (7, 7), (5, 12), (2, 12)])
def test_values_and_gradients_are_those_of_dense_matrices(samples: int, p: int) -> None:
    """With powers of the shrunk covariance, of trace p; where p > n by products with the samples and Woodbury's
    identity."""
    x = inputs(samples, p)
    penalties = Penalties(ARMS, metrics(x, 0.05, ARMS))
    w = torch.randn(p, len(ARMS), 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for i, arm in enumerate(penalties.arms):
        metric, l2, l1 = FORMS[arm.penalty]
        power = {"identity": 0, "car": 1, "inverse": -1}[metric]
        matrix = theory.power(np.cov(x.numpy().T, bias=True), power, e=0.05)
        matrix *= p / np.trace(matrix)
        mine = w[:, i].numpy()
        expected = arm.strength * (l2 * np.trace(mine.T @ matrix @ mine) + l1 * np.abs(mine).sum())
        assert float(penalties.value(w)[i]) == pytest.approx(expected, rel=1e-9)
        slope = 2 * arm.strength * l2 * matrix @ mine  # of the quadratic part
        assert_allclose(penalties.gradient(w)[:, i], slope, atol=1e-9 * np.abs(matrix).max())


def test_singular_covariance_has_no_inverse_and_the_error_names_what_to_do() -> None:
    x = inputs(30, 5)
    x[:, 2] = 4.0  # a constant input
    for singular, match in [(x, r"shrinkage = 0.*5 inputs in 30 samples.*shrinkage > 0"), (inputs(4, 9), "9 inputs")]:
        with pytest.raises(ValueError, match=match):
            metric_power(singular, -1, 0.0)
    direction = torch.eye(5, dtype=torch.float64)[2][:, None, None]
    assert metric_power(x, 1, 0.0)(direction).abs().max() < 1e-12  # CAR does not see it
    assert metric_power(x, 1, 0.05)(direction)[2] > 0.01


@given(w=st.floats(-3, 3), threshold=st.floats(0.01, 2), other=st.floats(-4, 4))
def test_prox_is_the_minimum_that_defines_it(w: float, threshold: float, other: float) -> None:
    """argmin over z of ½(z − w)² + threshold·|z|: no other z is better, and |w| ≤ threshold gives an exact 0."""
    weights = torch.tensor([[[w]]], dtype=torch.float64)
    Penalties([Arm("l1", threshold)], {}).prox(weights, lr=1.0)
    z = float(weights)
    assert (z - w) ** 2 / 2 + threshold * abs(z) <= (other - w) ** 2 / 2 + threshold * abs(other) + 1e-12
    assert (z == 0) == (abs(w) <= threshold)


def test_prox_takes_the_weights_of_adaptive_l1() -> None:
    weights = torch.ones(3, 2, 1, dtype=torch.float64)
    penalties = Penalties([Arm("adaptive", 0.1), Arm("adaptive", 0.2)], {}, torch.tensor([1.0, 2.0, 100.0]).double())
    penalties.prox(weights, lr=1.0)
    assert_allclose(weights[:, :, 0], [[0.9, 0.8], [0.8, 0.6], [0.0, 0.0]])
